"""What was aborted is told to readers of decided records without waiting for the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents, marker_of, read
from tests.storage.disk import SimDisk

from isthmus.errors import StorageError, TopicUnknown
from isthmus.record.batch import split_batches
from isthmus.record.markers import read_marker
from isthmus.storage.aborted import AbortedTransaction
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.open_segments import OpenSegments
from isthmus.storage.local.segment import Segment
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.log import ISOLATION_DURABLE

if TYPE_CHECKING:
    from isthmus.storage.local.segments import SegmentList

MIB = 1 << 20
ROW = AbortedTransaction(7, -1, 0, 1)
DIRECTORY = Path("/disk/data")
PARTITION = DIRECTORY / "t-0"
SMALL = {"internal.segment.bytes": "700", "index.interval.bytes": "100"}


class Runtime(SimRuntime):
    """Knows whether another thread is at work."""

    is_reading = False

    def offload_read(self, work: Any, done: Any) -> None:
        def read() -> Any:
            self.is_reading = True
            try:
                return work()
            finally:
                self.is_reading = False

        super().offload_read(read, done)


class Room:
    """A partition of many small segments, most with aborted transactions, after a restart.

    One transaction stays open from near the beginning to the end, so what was aborted while it
    was is known only by looking through all segments.
    """

    def __init__(self, rounds: int = 30, *, spoil: Any = None, **limits: int) -> None:
        self.disk = SimDisk()
        self.settings = LocalSettings(**{"tail_bytes_max": 0, **limits})
        self.sequences = [0, 0, 0]
        self.start()
        self.log.create("t", 1, SMALL)
        self.partition: Any = self.log.partition("t", 0)
        self.write(2, "open")
        for number in range(rounds):
            for producer_id in (0, 1):
                self.write(producer_id, f"{producer_id}.{number}")
            self.end(0, commits=number % 5 == 0)
            self.end(1, commits=number % 3 == 0)
        self.end(2, commits=False)
        self.restart(spoil)
        self.disk.is_cold = True
        self.disk.before_call = self._guard

    def _guard(self) -> None:
        assert self.runtime.is_reading, "the loop waits for the disk"

    def start(self) -> None:
        self.runtime = Runtime()
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)
        self.partition = self.log.partition("t", 0)

    def restart(self, spoil: Any = None) -> None:
        self.disk.before_call = None
        self.log.close()
        if spoil is not None:
            for path in self.indexes():
                spoil(self.disk, path)
        self.start()

    def warm(self) -> None:
        """Let all but the transaction indexes be at hand."""
        self.disk.is_cold, self.disk.before_call = False, None
        assert len(contents(self.partition)) > 0
        self.runtime.settle()

    def indexes(self) -> list[Path]:
        names = self.disk.names(PARTITION)
        return [PARTITION / name for name in names if name.endswith(".txnindex")]

    def write(self, producer_id: int, value: str) -> None:
        sequence = self.sequences[producer_id]
        self.sequences[producer_id] += 1
        how = {"producer_id": producer_id, "epoch": 0, "transactional": True}
        self._append(batch_of(value.encode(), sequence=sequence, **how))

    def end(self, producer_id: int, *, commits: bool) -> None:
        self._append(marker_of(producer_id, commits=commits))

    def _append(self, batch: Any) -> None:
        answer = Answer()
        self.partition.append(batch, answer, trusted=True)
        self.log.flush()
        self.runtime.settle()
        assert answer.is_durable


def committed(partition: Any, bytes_max: int = MIB) -> list[str]:
    """Return what a consumer of `read_committed` makes of the partition."""
    offset, values = partition.start_offset, []
    while offset < partition.last_stable_offset:
        records = read(partition, offset, bytes_max, ISOLATION_DURABLE)
        ahead = sorted(records.aborted, key=lambda pair: pair[1])
        dropped: set[int] = set()
        for batch in split_batches(b"".join(records.buffers)):
            while ahead and ahead[0][1] <= batch.base_offset:
                dropped.add(ahead.pop(0)[0])
            if batch.is_control:
                marker = read_marker(batch)
                if marker is not None and not marker.commits:
                    dropped.discard(batch.producer_id)
            elif batch.producer_id not in dropped:
                values += [(each.value or b"").decode() for each in batch.records()]
            offset = batch.next_offset
        assert ahead == [], "nothing is told that is not about these records"
    return values


EXPECTED = [
    f"{producer_id}.{number}"
    for number in range(30)
    for producer_id in (0, 1)
    if number % (5, 3)[producer_id] == 0
]


@pytest.mark.parametrize("bytes_max", [1, 300, 2_000, MIB])
@pytest.mark.parametrize(
    "limits",
    [{}, {"open_segments_max": 1}, {"loaded_bytes_max": 1, "all_loaded_bytes_max": 1}],
    ids=["default", "segments", "loaded"],
)
def test_nothing_of_it_waits_for_the_disk(bytes_max: int, limits: dict[str, int]) -> None:
    """However little may stay in memory: every reader comes to the end."""
    room = Room(**limits)
    assert sum(segment.has_aborts for segment in room.partition.segments) > 10
    assert committed(room.partition, bytes_max) == EXPECTED


def test_indexes_are_loaded_once() -> None:
    room = Room()
    assert committed(room.partition) == EXPECTED
    room.disk.is_cold, room.disk.before_call = False, None
    room.runtime.settle()  # what was found is forgotten
    room.disk.fail_only, room.disk.fail_count = ("size",), 999
    room.disk.fail_at = room.disk.calls + 1
    assert committed(room.partition) == EXPECTED


def test_who_waits_is_woken_when_all_is_known() -> None:
    room, woken = Room(), []
    room.warm()
    assert room.partition.read(0, MIB, ISOLATION_DURABLE).is_loading
    room.partition.wait(0, lambda: woken.append(1), ISOLATION_DURABLE)
    assert room.partition.read(0, MIB, ISOLATION_DURABLE).is_loading
    assert len(room.runtime.reads) == 1, "once however many ask"
    room.runtime.turn()
    work, done = room.runtime.reads.popleft()
    done(work(), None)
    assert woken == [], "there are more segments to look into"
    room.runtime.finish_reads()
    assert woken == [1]
    first, second = (room.partition.read(0, MIB, ISOLATION_DURABLE) for _ in range(2))
    assert first.aborted == second.aborted
    assert len(first.aborted) > 1
    assert room.partition.read(0, 1, ISOLATION_DURABLE).aborted == [(2, 0)], "no more than that"
    room.runtime.settle()
    assert room.log._shared.loaded_aborted.total_bytes == 0, "what was fetched is not kept"


def test_others_do_not_wait_for_it() -> None:
    room, woken = Room(), []
    room.warm()
    assert room.partition.read(0, MIB, ISOLATION_DURABLE).is_loading
    assert room.partition.read(0, MIB).size > 0
    room.partition.wait(0, lambda: woken.append(1))
    room.runtime.turn()
    assert woken == [1]


def test_records_that_come_meanwhile_are_for_the_next_read() -> None:
    room = Room(rounds=2)
    room.warm()
    end = room.partition.end_offset
    active = room.partition.segments.active
    assert room.partition.read(end - 1, MIB, ISOLATION_DURABLE).is_loading
    reads, room.runtime.reads = room.runtime.reads.copy(), type(room.runtime.reads)()
    room.write(1, "late")
    room.end(1, commits=False)
    assert room.partition.last_stable_offset == end + 2
    assert room.partition.segments.active is active
    room.runtime.reads += reads
    records = read(room.partition, end - 1, MIB, ISOLATION_DURABLE)
    assert split_batches(records.buffers[-1])[-1].next_offset == end
    assert records.aborted == [(2, 0)]
    room.runtime.settle()
    records = read(room.partition, end, MIB, ISOLATION_DURABLE)
    assert records.aborted == [(1, end)]


SPOILT = {
    "length": lambda disk, path: disk.write_file(path, b"x" * 33, sync=True),
    "content": lambda disk, path: disk.write_file(path, b"x" * 34, sync=True),
    "gone": lambda disk, path: disk.remove(path),
}


@pytest.mark.parametrize("spoil", ["length", "content"])
@pytest.mark.parametrize("open_segments_max", [1, 500])
def test_what_is_wrong_is_built_again_elsewhere(spoil: str, open_segments_max: int) -> None:
    room = Room(spoil=SPOILT[spoil], open_segments_max=open_segments_max)
    room.disk.before_call = None if open_segments_max == 1 else room.disk.before_call
    assert committed(room.partition) == EXPECTED
    room.restart()
    files = {path: room.disk.read_file(path) for path in room.indexes()}
    assert all(len(data or b"") % 34 == 0 and data for data in files.values()), "and written"
    assert committed(room.partition) == EXPECTED


def test_an_index_that_vanishes_while_the_server_runs_is_built_again() -> None:
    room = Room()
    room.disk.before_call = None
    paths = room.indexes()
    for path in paths:
        room.disk.remove(path)
    room.disk.before_call = room._guard
    assert committed(room.partition) == EXPECTED
    room.restart()
    assert room.indexes() == paths


def test_an_index_of_nothing_goes() -> None:
    """The file says that something was aborted, the log says no."""
    room = Room(rounds=1)
    room.disk.before_call = None
    for number in range(10):
        room.write(1, f"more {number}")
        room.end(1, commits=True)
    segment = list(room.partition.segments)[-2]
    assert not segment.has_aborts
    path = segment.index_paths[2]
    room.log.close()
    room.disk.write_file(path, b"wrong", sync=True)
    room.start()
    more = [f"more {number}" for number in range(10)]
    assert committed(room.partition) == ["0.0", "1.0", *more]
    assert not room.disk.exists(path)


def test_an_error_is_raised_by_the_next_read_and_the_one_after_tries_again() -> None:
    room = Room()
    room.warm()
    assert room.partition.read(0, MIB, ISOLATION_DURABLE).is_loading
    room.disk.fail_only, room.disk.fail_at = ("size",), room.disk.calls + 1
    room.runtime.finish_reads()
    with pytest.raises(StorageError, match="t-0 was not read: Input/output error"):
        room.partition.read(0, MIB, ISOLATION_DURABLE)
    room.runtime.settle()
    assert committed(room.partition) == EXPECTED


def test_a_log_topic_may_be_deleted_meanwhile() -> None:
    room, woken = Room(), []
    room.warm()
    assert room.partition.read(0, MIB, ISOLATION_DURABLE).is_loading
    room.partition.wait(0, lambda: woken.append(1), ISOLATION_DURABLE)
    room.log.delete("t")
    assert woken == [1]
    room.runtime.settle()
    with pytest.raises(TopicUnknown):
        room.partition.read(0, MIB, ISOLATION_DURABLE)
    room.log.close()
    assert room.disk.open_count == 0


def test_segments_may_go_meanwhile() -> None:
    room, woken = Room(), []
    room.warm()
    assert room.partition.read(0, MIB, ISOLATION_DURABLE).is_loading
    room.partition.wait(0, lambda: woken.append(1), ISOLATION_DURABLE)
    middle = room.partition.end_offset // 2
    room.partition.delete_before(middle, lambda error: None)
    for _ in range(3):
        room.runtime.turn()
        room.runtime.finish_offloaded()
    room.runtime.advance(200_000)
    room.runtime.settle()
    assert woken == [1]
    values = committed(room.partition)
    assert values == EXPECTED[-len(values) :] != []
    room.log.close()
    assert room.disk.open_count == 0


class ReplacedMeanwhile:
    """The segments of a partition, of which the one with this number is replaced at a look."""

    def __init__(self, segments: SegmentList, number: int) -> None:
        self._segments = segments
        self._number = number
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._segments, name)

    def give_back(self, segment: Segment, twin: Segment) -> bool:
        self.asked += 1
        if self.asked == self._number + 1:
            segment.release(twin)
            return False
        return self._segments.give_back(segment, twin)


@pytest.mark.parametrize("number", range(4))
def test_what_is_replaced_meanwhile_is_looked_into_again(number: int) -> None:
    room = Room()
    room.warm()
    segments = ReplacedMeanwhile(room.partition.segments, number)
    room.partition._reader._aborted._segments = segments
    found = read(room.partition, 0, MIB, ISOLATION_DURABLE).aborted
    assert segments.asked > number + 1
    assert len(found) == len(set(found)) > 1


def test_indexes_count_for_what_open_segments_may_hold() -> None:
    room = Room(index_bytes_max=1_000)
    room.disk.before_call = None  # closing a segment may write its indexes
    for offset in range(0, room.partition.end_offset, 3):
        read(room.partition, offset, 1, ISOLATION_DURABLE)
        held = 0
        for each in room.partition.segments:
            indexes = (each._offset_index, each._time_index, each.known_aborted)
            held += sum(index.size for index in indexes if index is not None)
        assert held <= 1_000


def test_what_could_not_be_written_stays_in_memory() -> None:
    disk = SimDisk()
    segment = Segment(disk, OpenSegments(10), Path("/disk"), 0, 100)
    segment.append([batch_of(b"v")], [batch_of(b"v").data])
    segment.has_aborts = True
    disk.write_file(segment.index_paths[2], b"", sync=True)
    index = segment.aborted()
    assert index is not None
    disk.fail_only, disk.fail_at, disk.fail_count = ("open",), disk.calls + 1, 9
    index.append(ROW)
    segment.close()
    disk.fail_at = 0
    assert segment.aborted() is index
    segment.close()
    assert segment.known_aborted is None
    assert list(segment.aborted() or ()) == [ROW]
