"""Which numbers have come: once each, in any order, in little memory."""

from __future__ import annotations

import random

from isthmus.load.tally import PAGE_BYTES, PAGE_NUMBERS, Tally


def test_a_number_is_new_once_in_any_order() -> None:
    chance = random.Random(7)
    numbers = [*range(3 * PAGE_NUMBERS), 1 << 40, (1 << 48) - 1]
    chance.shuffle(numbers)
    tally = Tally()
    assert all(tally.add(number) for number in numbers)
    chance.shuffle(numbers)
    assert not any(tally.add(number) for number in numbers)
    assert tally.add(3 * PAGE_NUMBERS)


def test_full_pages_cost_nothing() -> None:
    tally = Tally()
    for number in range(50 * PAGE_NUMBERS):
        tally.add(number)
    assert tally.size_bytes <= PAGE_BYTES
    assert not tally.add(0) and not tally.add(49 * PAGE_NUMBERS)


def test_a_number_that_comes_late_fills_its_page() -> None:
    tally = Tally()
    for number in range(1, 2 * PAGE_NUMBERS):
        tally.add(number)
    assert tally.size_bytes == 2 * PAGE_BYTES
    assert tally.add(0) and not tally.add(0)
    tally.add(2 * PAGE_NUMBERS)
    assert tally.size_bytes == PAGE_BYTES
