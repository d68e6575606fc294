"""Percentiles from slots: near the truth at any magnitude, and nothing from the warm-up."""

from __future__ import annotations

import math
import random

import pytest

from isthmus.load.errors import LoadError
from isthmus.load.latencies import ELAPSED_NS_MAX, Latencies

PERCENTS = (0.1, 1, 25, 50, 90, 99, 99.9, 100)


def exact(values: list[int], percent: float) -> int:
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@pytest.mark.parametrize("seed", range(5))
def test_a_percentile_is_within_a_hundredth_of_the_truth(seed: int) -> None:
    chance = random.Random(seed)
    values = [int(10 ** chance.uniform(0, 12)) for _ in range(3_000)]
    latencies = Latencies()
    for value in values:
        latencies.add(1_000, 1_000 + value)
    for percent in PERCENTS:
        truth = exact(values, percent)
        assert truth <= latencies.percentile_ns(percent) <= truth * 1.01
    assert latencies.percentile_ns(100) == latencies.max_ns == max(values)


def test_small_numbers_are_exact() -> None:
    for value in range(256):
        latencies = Latencies()
        latencies.add(0, value)
        assert latencies.percentile_ns(50) == value


@pytest.mark.parametrize("edge", [255, 256, 65_535, 65_536, (1 << 24) - 1, 1 << 24, 1 << 43])
def test_no_value_falls_out_of_its_slot(edge: int) -> None:
    for value in (edge - 1, edge, edge + 1):
        latencies = Latencies()
        latencies.add(0, value)
        latencies.add(0, value * 3)
        assert value <= latencies.percentile_ns(50) <= value * 1.01


def test_what_was_due_before_does_not_count() -> None:
    latencies = Latencies()
    latencies.since_ns = 100
    latencies.add(99, 5_000)
    assert latencies.count == 0
    latencies.add(100, 105)
    assert (latencies.count, latencies.max_ns) == (1, 5)


def test_a_clock_that_goes_back_and_a_wait_without_end_have_their_slots() -> None:
    latencies = Latencies()
    latencies.add(10, 3)
    assert latencies.max_ns == 0
    latencies.add(0, 1 << 62)
    assert latencies.percentile_ns(100) == ELAPSED_NS_MAX


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(LoadError, match="nothing was measured"):
        Latencies().percentile_ns(99)
