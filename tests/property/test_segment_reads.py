"""Reads and time lookups against a plain list: any batches, sizes, rolls, starts, damage.

Nothing is served from the tail, so every answer comes out of segment files and their indexes,
from a disk that is warm or one that is always cold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim import SimRuntime
from tests.storage.batches import Answer, find_max_time, find_time
from tests.storage.disk import SimDisk

from isthmus.record.batch import BatchBuilder, RecordBatch, split_batches
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

DIRECTORY = Path("/disk/data")
# Without a journal, which would mend what these tests damage from its copies.
SETTINGS = LocalSettings(tail_bytes_max=0, open_segments_max=2, journal_files_max=0)


class Plan(NamedTuple):
    """What is written, and how it is kept."""

    batches: list[tuple[list[int], int]]  # timestamps of the records, codec
    segment_bytes: int
    interval: int
    append_time: bool


def timestamps() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1_000, 1_030), min_size=1, max_size=6)


PLANS = st.builds(
    Plan,
    st.lists(st.tuples(timestamps(), st.sampled_from([0, 0, 1, 4])), min_size=1, max_size=14),
    st.sampled_from([200, 500, 100_000]),
    st.sampled_from([0, 150, 4096]),
    st.booleans(),
)


class Room:
    """A log with one partition, and the list of its batches."""

    def __init__(self, plan: Plan) -> None:
        self.disk = SimDisk()
        self.runtime = SimRuntime(now_ms=1_000)
        self.log: Any = None
        self.partition: Any = None
        self.start()
        kind = "LogAppendTime" if plan.append_time else "CreateTime"
        configs = {
            "internal.segment.bytes": str(plan.segment_bytes),
            "index.interval.bytes": str(plan.interval),
            "message.timestamp.type": kind,
        }
        self.log.create("t", 1, configs)
        self.partition = self.log.partition("t", 0)
        self.batches: list[RecordBatch] = []
        builder = BatchBuilder()
        for number, (times, codec) in enumerate(plan.batches):
            self.runtime.advance(number % 3)
            for when in times:
                builder.append(when, b"key", b"value of %d" % when)
            batch = builder.seal(codec)
            self.partition.append(batch, Answer())
            self.log.flush()
            self.runtime.settle()
            self.batches.append(batch)
        self.stored = list(self.batches)
        self.damaged: set[int] = set()  # base offsets

    def start(self) -> None:
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, SETTINGS)
        self.partition = self.log.partition("t", 0)

    def restart(self, how: str) -> None:
        if how == "clean":
            self.log.close()
        elif how != "not":
            self.disk = self.disk.kill()
        if how == "no indexes":
            for name in self.disk.names(DIRECTORY / "t-0"):
                if name.endswith(("index", "timeindex")):
                    self.disk.remove(DIRECTORY / "t-0" / name)
        if how != "not":
            self.runtime.offloaded.clear()
            self.start()

    def damage(self, number: int) -> None:
        """Flip a bit in the records of one batch, in the file."""
        batch = self.batches[number]
        for name in self.disk.names(DIRECTORY / "t-0"):
            if name.endswith(".log"):
                file = self.disk.file(DIRECTORY / "t-0" / name)
                position = bytes(file.data).find(bytes(batch.data))
                if position >= 0:
                    file.data[position + batch.size - 1] ^= 1
        self.batches = [each for each in self.batches if each is not batch]

    def read(self, offset: int, bytes_max: int, limit: int) -> list[RecordBatch]:
        """Read up to an offset, waiting for the disk where it takes the disk."""
        start, end = self.partition.start_offset, self.partition.end_offset
        reader = self.partition._reader
        found = reader.read(offset, bytes_max, start, end, limit)
        while found.is_loading:
            self.runtime.finish_reads()
            found = reader.read(offset, bytes_max, start, end, limit)
        self.runtime.turn()
        return split_batches(b"".join(found.buffers))

    def check_reads(self) -> None:
        ends = [batch.next_offset for batch in self.stored]
        for offset in range(ends[-1]):
            for limit in {ends[-1], ends[len(ends) // 2]}:
                for bytes_max in (1, 150, 400, 1 << 20):
                    expected = self.expected(offset, bytes_max, limit)
                    if expected or offset >= limit:
                        found = self.read(offset, bytes_max, limit)
                        assert [batch.data for batch in found] == expected[: len(found)]
                        assert bool(found) == bool(expected)

    def check_all_is_given(self) -> None:
        """What fits into one segment is given at once."""
        end = self.stored[-1].next_offset
        for bytes_max in (1, 150, 400, 1 << 20):
            found = self.read(0, bytes_max, end)
            assert [batch.data for batch in found] == self.expected(0, bytes_max, end)

    def expected(self, offset: int, bytes_max: int, limit: int) -> list[memoryview]:
        found: list[memoryview] = []
        for batch in self.batches:
            if batch.next_offset <= offset:
                continue
            if batch.next_offset > limit or (found and batch.size > bytes_max):
                break
            found.append(batch.data)
            bytes_max -= batch.size
        return found

    def check_times(self) -> None:
        records = [each for batch in self.batches for each in batch.records()]
        rows = [(record.offset, record.timestamp) for record in records]
        for when in range(998, 1_050):
            expected = next((row for row in rows if row[1] >= when), None)
            assert find_time(self.partition, when) == expected
        assert find_max_time(self.partition) == max(rows, key=lambda row: row[1], default=None)


STARTS = st.sampled_from(["not", "clean", "kill", "no indexes"])


@given(PLANS, STARTS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_reads_and_times_are_those_of_a_list(plan: Plan, start: str, is_cold: bool) -> None:
    room = Room(plan)
    room.restart(start)
    room.disk.is_cold = is_cold
    room.check_reads()
    if plan.segment_bytes == 100_000:
        room.check_all_is_given()
    room.check_times()


@given(PLANS.filter(lambda plan: len(plan.batches) > 2), st.data(), STARTS, st.booleans())
@settings(max_examples=40, deadline=None)
def test_damage_costs_what_it_hit_and_nothing_else(
    plan: Plan, data: st.DataObject, start: str, is_cold: bool
) -> None:
    room = Room(plan)
    room.damage(data.draw(st.integers(0, len(plan.batches) - 2)))
    room.restart(start)
    room.disk.is_cold = is_cold
    room.check_reads()
    room.check_times()


@pytest.mark.parametrize("is_cold", [False, True])
def test_readers_in_many_places_find_their_way(is_cold: bool) -> None:
    room = Room(Plan([([1_000 + n % 7] * 3, 0) for n in range(40)], 700, 100, False))
    room.disk.is_cold = is_cold
    end = room.stored[-1].next_offset
    places = list(range(0, end, 7))
    seen: dict[int, list[int]] = {place: [] for place in places}
    offsets = dict(zip(places, places, strict=True))
    while offsets:
        for place, offset in list(offsets.items()):
            found = room.read(offset, 200, end)
            seen[place] += [batch.base_offset for batch in found]
            offsets[place] = found[-1].next_offset
            if offsets[place] == end:
                del offsets[place]
    for place, bases in seen.items():
        assert bases == list(range(place - place % 3, end, 3))
