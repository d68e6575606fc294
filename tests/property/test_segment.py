"""One segment against a plain list of batches: any writes, ends, starts, damage of its hints.

The list says what the file holds and what every question has for an answer. The segment is
closed and opened again, saved or not, and loaded as a start loads the newest segment of a
partition, or an older one. Writes fail half-way, the end of the file is torn; index files go,
get shorter, or say nonsense, which may cost a walk through the file and changes no answer. Of
what the segment writes, every entry of both index files is true, and they lie close enough.
"""

from __future__ import annotations

import itertools
import logging
import random
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.storage.batches import batch_of
from tests.storage.disk import SimDisk

from isthmus.storage.local.open_segments import OpenSegments
from isthmus.storage.local.segment import Segment
from isthmus.storage.local.segment_times import first_timestamp, newest_timestamp

if TYPE_CHECKING:
    from isthmus.record.batch import RecordBatch

DIRECTORY = Path("/disk")
FAR = 2**31
TIMES = st.integers(1_000, 1_030)
KINDS = st.sampled_from([0, 1])  # of index files


class Row(NamedTuple):
    """One batch of the list."""

    base_offset: int
    last_offset: int
    position: int
    newest: int
    raw: bytes


class LivesOfASegment(RuleBasedStateMachine):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable()
        self.disk = SimDisk()
        self.rows: list[Row] = []
        self.synced = 0
        self.sealed = False  # loaded as an older one: nothing comes after it
        self.damaged = False  # the hints have been, since they were last made anew
        self.cut = False  # behind the ends of the hints may lie what told of lost batches
        self.unsure = False  # what the end of the time index says is believed as it stands

    @initialize(
        base=st.sampled_from([0, 1000, 2**40]), interval=st.sampled_from([0, 150, 500, 4096])
    )
    def begin(self, base: int, interval: int) -> None:
        self.base, self.interval = base, interval
        self.segment = self.new_segment()

    def new_segment(self) -> Segment:
        return Segment(self.disk, OpenSegments(2), DIRECTORY, self.base, self.interval)

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)

    @property
    def size(self) -> int:
        return sum(len(row.raw) for row in self.rows)

    @property
    def next_offset(self) -> int:
        return self.rows[-1].last_offset + 1 if self.rows else self.base

    @property
    def newest(self) -> int:
        return max((row.newest for row in self.rows), default=-1)

    # --- writing ------------------------------------------------------------------------------

    @precondition(lambda self: not self.sealed)
    @rule(
        batches=st.lists(st.lists(TIMES, min_size=1, max_size=3), min_size=1, max_size=4),
        size=st.sampled_from([1, 60, 300]),
        compression=st.sampled_from([0, 0, 1]),
        fails=st.sampled_from(["", "", "", "at once", "half-way"]),
    )
    def append(self, batches: list[list[int]], size: int, compression: int, fails: str) -> None:
        made: list[RecordBatch] = []
        offset = self.next_offset
        for times in batches:
            values = [b"%d" % when + bytes(size) for when in times]
            batch = batch_of(*values, timestamps=times, compression=compression)
            batch.stamp(offset, 0)
            offset = batch.next_offset
            made.append(batch)
        if fails:
            self.disk.calls, self.disk.fail_at = 0, 1
            self.disk.fail_only, self.disk.short = ("pwritev",), fails == "half-way"
        with suppress(OSError):
            self.segment.append(made, [batch.data for batch in made])
            assert not fails
        self.disk.fail_at = 0
        if fails:
            self.segment.cut_back()
            return
        position = self.size
        for batch, times in zip(made, batches, strict=True):
            raw = bytes(batch.data)
            self.rows.append(
                Row(batch.base_offset, batch.last_offset, position, max(times), raw)
            )
            position += len(raw)

    @precondition(lambda self: self.rows)
    @rule()
    def sync(self) -> None:
        self.segment.sync()
        self.synced = self.size

    @precondition(lambda self: self.rows)
    @rule(complete=st.booleans())
    def save(self, complete: bool) -> None:
        if complete and not self.is_unsure:
            newest_timestamp(self.segment)
        self.segment.save_indexes(complete=complete)
        self.cut = self.cut and not complete
        if not self.damaged and not self.cut:
            self.check_files(complete)

    # --- ends and starts ----------------------------------------------------------------------

    @rule()
    def close(self) -> None:
        self.segment.close()
        assert not self.segment.is_open
        assert self.disk.open_count == 0

    @precondition(lambda self: self.rows)
    @rule(
        part=st.floats(0, 1),
        torn=st.sampled_from(["", "", "cut", "zeros", "half a batch"]),
        verify=st.booleans(),
    )
    def start_as_the_newest(self, part: float, torn: str, verify: bool) -> None:
        """The process ends, and perhaps with it the end of the file; then it is resumed."""
        self.disk = self.disk.kill()
        file = self.disk.file(DIRECTORY / f"{self.base:020d}.log")
        if torn == "cut":
            self.cut = True
            first = len(self.rows[0].raw)  # nothing at all is another story, see recovery.py
            file.resize(first + int(part * (self.size - first)))
        elif torn:
            lost = self.rows[-1].raw
            file.write(self.size, bytes(90) if torn == "zeros" else lost[: len(lost) // 2])
        self.rows = [row for row in self.rows if row.position + len(row.raw) <= len(file.data)]
        self.segment = self.new_segment()
        self.segment.size = self.segment.synced_size = len(file.data)
        self.segment.newest_known = False
        self.segment.next_offset = self.base + FAR
        seen: dict[int, bytes] = {}
        offset = self.base + int(part * (self.next_offset - self.base))
        scan = self.segment.resume(
            offset,
            verify=verify,
            visit=lambda batch: seen.update({batch.base_offset: bytes(batch.data)}),
        )
        assert not scan.damage
        assert (scan.position, scan.next_offset) == (self.size, self.next_offset)
        self.segment.settle(scan.position, scan.next_offset)
        wanted = {row.base_offset: row.raw for row in self.rows}
        assert seen.items() <= wanted.items()
        assert {base for base in wanted if base >= offset} <= set(seen)
        self.synced = self.size
        self.sealed = self.unsure = False
        if self.rows and not self.damaged:
            self.check_is_dense()

    @precondition(lambda self: self.rows)
    @rule(saved=st.booleans())
    def start_as_an_older_one(self, saved: bool) -> None:
        """Nothing of it is read before somebody asks."""
        if saved:
            self.segment.save_indexes(complete=not self.sealed)
        self.disk = self.disk.kill()
        self.segment = self.new_segment()
        self.segment.size = self.segment.synced_size = self.synced = self.size
        self.segment.newest_known = False
        self.segment.next_offset = self.next_offset
        self.sealed = True
        self.damaged = self.damaged or not saved

    @precondition(lambda self: self.rows)
    @rule(kind=KINDS, how=st.sampled_from(["gone", "short", "odd", "nonsense", "wrong"]))
    def damage(self, kind: int, how: str) -> None:
        """Spoil a file while the segment is closed."""
        self.segment.close()
        path, entry_bytes = self.segment.index_paths[kind], (8, 12)[kind]
        if not self.disk.exists(path):
            return
        data = self.disk.file(path).data
        if how == "gone":
            self.disk.remove(path)
        elif how == "short" and kind == 0:  # a time index that lies by omission is believed
            del data[len(data) // entry_bytes // 2 * entry_bytes :]
        elif how == "odd":
            del data[-1:]
        elif how == "nonsense":
            data[:] = random.Random(len(data)).randbytes(len(data))
        else:  # one entry leads to where nothing is
            slot = len(data) // entry_bytes // 2 * entry_bytes
            data[slot : slot + 1] = b"A" * len(data[slot : slot + 1])
        self.damaged = True
        self.unsure = self.unsure or kind == 1

    @precondition(lambda self: self.rows)
    @rule()
    def rebuild(self) -> None:
        self.segment.rebuild_indexes()
        self.segment.save_indexes(complete=True)
        self.damaged = self.unsure = self.cut = False

    @rule(is_open=st.booleans(), meanwhile=st.sampled_from(["", "append"]), keep=st.booleans())
    def read_on_another_thread(self, is_open: bool, meanwhile: str, keep: bool) -> None:
        if is_open and self.rows:
            self.segment.descriptor()
        if not self.rows:
            return
        twin = self.segment.twin()
        rows = list(self.rows)
        assert self.is_unsure or newest_timestamp(twin) == max(row.newest for row in rows)
        found = [bytes(batch.data) for _, batch in twin.scan_from(rows[-1].last_offset)]
        assert found[-1] == rows[-1].raw
        if meanwhile and not self.sealed:
            self.append([[1_040]], 1, 0, "")
        (self.segment.adopt if keep else self.segment.release)(twin)
        assert self.segment.pins == 0
        assert self.disk.open_count <= 1

    # --- questions ----------------------------------------------------------------------------

    @precondition(lambda self: self.rows)
    @rule(part=st.floats(0, 1), verify=st.booleans())
    def scan(self, part: float, verify: bool) -> None:
        offset = self.base + int(part * (self.next_offset - 1 - self.base))
        found = list(self.segment.scan_from(offset, verify=verify))
        assert found[0][1].base_offset <= offset
        following = self.rows[len(self.rows) - len(found) :]
        assert [(position, bytes(batch.data)) for position, batch in found] == [
            (row.position, row.raw) for row in following
        ]

    @precondition(lambda self: self.rows and not self.damaged)
    @rule(part=st.floats(0, 1))
    def find(self, part: float) -> None:
        """A place is never behind the batch, and not far before it."""
        offset = self.base + int(part * (self.next_offset - 1 - self.base))
        place = self.segment.find(offset)
        row = next(row for row in self.rows if row.last_offset >= offset)
        assert place.position in [each.position for each in self.rows]
        assert place.position <= row.position
        assert row.position - place.position <= 2 * self.reach
        if self.segment.is_open:
            assert self.segment.place_of(offset) == place

    @rule(when=st.integers(998, 1_042))
    def find_time(self, when: int) -> None:
        if not self.rows:
            return
        offset = self.segment.offset_before_time(when)
        first = next((row for row in self.rows if row.newest >= when), None)
        assert self.base <= offset
        assert offset <= (first.base_offset if first is not None else self.next_offset)

    @rule()
    def times(self) -> None:
        if self.rows:
            assert first_timestamp(self.segment) == self.rows[0].newest
            assert self.is_unsure or newest_timestamp(self.segment) == self.newest

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def the_segment_is_the_list(self) -> None:
        if not hasattr(self, "segment"):
            return
        segment, size = self.segment, self.size
        assert (segment.size, segment.next_offset) == (size, self.next_offset)
        assert segment.dirty == (self.synced < size)
        assert segment.idle == (self.synced >= size)
        if segment.newest_known and not self.is_unsure:
            first = next((row for row in self.rows if row.newest == self.newest), None)
            offset = self.base if first is None else first.last_offset
            assert (segment.max_timestamp, segment.max_timestamp_offset) == (
                self.newest,
                offset,
            )
        if size:
            data = self.disk.file(segment.path).data
            assert bytes(data) == b"".join(row.raw for row in self.rows)

    @property
    def is_unsure(self) -> bool:
        """Whether the end of the time index may be a wrong one, which is not found out."""
        return self.unsure or (self.sealed and self.cut)

    @property
    def reach(self) -> int:
        """Bytes from one entry to the next, at most."""
        return self.interval + max(len(row.raw) for row in self.rows)

    def check_files(self, complete: bool) -> None:
        """What lies in the files is true, all of it."""
        offsets, times = (self.disk.read_file(path) for path in self.segment.index_paths[:2])
        places = {(row.last_offset - self.base, row.position) for row in self.rows}
        entries = list(struct.iter_unpack(">II", offsets or b""))
        assert entries == sorted(set(entries))
        assert set(entries) <= places
        newest = {row.last_offset - self.base: row.newest for row in self.rows}
        rows = list(struct.iter_unpack(">qI", times or b""))
        assert rows == sorted(set(rows))
        for when, offset in rows:
            assert newest[offset] == when
            assert all(newest[each] <= when for each in newest if each <= offset)
        if complete:
            assert offsets is not None
            assert rows[-1][0] == self.newest
        self.check_is_dense()

    def check_is_dense(self) -> None:
        """The offset index leaves no long stretch out."""
        places = {
            self.segment.find(offset).position for offset in range(self.base, self.next_offset)
        }
        stops = [*sorted(places | {0}), self.size]
        assert max(b - a for a, b in itertools.pairwise(stops)) <= 2 * self.reach


TestLivesOfASegment = LivesOfASegment.TestCase
TestLivesOfASegment.settings = settings(max_examples=150, stateful_step_count=40)
TestLivesOfASegment.pytestmark = [pytest.mark.timeout(120)]
