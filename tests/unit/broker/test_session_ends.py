"""Ends of sessions: each at its own moment, whatever lies on the shelf with it."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from tests.sim import SimRuntime

from isthmus.broker.session_ends import GONE_MIN, NEAR_MS, SHELF_MS, SessionEnds
from isthmus.broker.timers import Deadlines

DAY_MS = 24 * 3600 * 1000


class Table:
    """Sessions that are to end, in a world turned by hand."""

    def __init__(self) -> None:
        self.runtime = SimRuntime()
        self.deadlines = Deadlines(self.runtime)
        self.ends = SessionEnds(self.runtime, self.deadlines, self.expire)
        self.ended: list[tuple[int, Any]] = []

    def begin(self, left_ms: int, entry: Any = None) -> Any:
        entry = entry or SimpleNamespace(end_due=None)
        self.ends.begin(entry, left_ms)
        return entry

    def expire(self, entry: Any) -> None:
        entry.end_due = None
        self.ended.append((self.runtime.monotonic_ms(), entry))

    def shelved(self) -> int:
        return sum(len(shelf.entries) for shelf in self.ends._shelves.values())


def test_near_or_far_each_session_ends_at_its_moment() -> None:
    table = Table()
    chance = random.Random(3)
    moments = sorted(chance.choice([NEAR_MS, 3 * SHELF_MS, DAY_MS]) - n for n in range(2_000))
    entries = [table.begin(moment) for moment in moments]
    table.runtime.set_forward(DAY_MS)  # the wall clock has no say
    for moment in dict.fromkeys(moments):
        table.runtime.advance(moment - table.runtime.monotonic_ms())
    assert sorted(table.ended, key=lambda one: one[0]) == table.ended
    assert [moment for moment, _ in table.ended] == moments
    assert {id(entry) for _, entry in table.ended} == {id(entry) for entry in entries}
    assert table.shelved() == len(table.deadlines) == 0


def test_who_comes_back_does_not_end_and_goes_again_for_as_long() -> None:
    table = Table()
    entry, other = table.begin(DAY_MS), table.begin(DAY_MS + 1)
    table.ends.cancel(entry)
    table.runtime.advance(1_000)
    table.begin(DAY_MS, entry)
    table.runtime.advance(DAY_MS - 999)
    assert table.ended == [(DAY_MS + 1, other)]
    table.runtime.advance(999)
    assert table.ended[1:] == [(DAY_MS + 1_000, entry)]
    table.ends.cancel(entry)  # nothing is left of it


def test_a_client_that_comes_and_goes_all_the_time_leaves_nothing_behind() -> None:
    table = Table()
    entry = table.begin(DAY_MS)
    for _ in range(3 * GONE_MIN):
        table.ends.cancel(entry)
        table.begin(DAY_MS + 500, entry)
    assert table.shelved() <= GONE_MIN + 2
    table.runtime.advance(DAY_MS)
    assert table.ended == []
    table.runtime.advance(500)
    assert table.ended == [(DAY_MS + 500, entry)]
