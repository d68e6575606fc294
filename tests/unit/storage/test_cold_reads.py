"""Reads that need the disk: begun, waited for, found; or in vain, with nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, find_time, read_batches
from tests.storage.disk import SimDisk

from isthmus.errors import CorruptBatch, OffsetOutOfRange, StorageError, TopicUnknown
from isthmus.storage.local.files import Files
from isthmus.storage.local.index import OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

MIB = 1 << 20
DIRECTORY = Path("/disk/data")
BATCH_BYTES = batch_of(bytes(400)).size


class Room:
    """A log with one partition of batches of one record, on a disk that is always cold."""

    def __init__(self, batches: int = 20, **limits: int) -> None:
        self.disk = SimDisk()
        self.disk.is_cold = True
        self.runtime = SimRuntime()
        self.settings = LocalSettings(**{"tail_bytes_max": 0, **limits})
        self.start()
        self.log.create("t", 1, {"internal.segment.bytes": "2000", "index.interval.bytes": "0"})
        self.partition: Any = self.log.partition("t", 0)
        for _ in range(batches):
            self.partition.append(batch_of(bytes(400)), Answer())
        self.log.flush()
        self.runtime.settle()

    def start(self) -> None:
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)

    def restart(self) -> None:
        self.log.close()
        self.start()
        self.partition = self.log.partition("t", 0)

    @property
    def loaded_bytes(self) -> int:
        return self.log._shared.loaded.total_bytes


def test_a_read_that_needs_the_disk_is_waited_for_and_then_found() -> None:
    room, woken = Room(), []
    assert room.partition.read(3, MIB).is_loading
    room.partition.wait(3, lambda: woken.append(3))
    room.runtime.turn()
    assert (woken, len(room.runtime.reads)) == ([], 1)
    assert room.partition.read(3, MIB).is_loading
    assert len(room.runtime.reads) == 1, "once however many ask"
    room.runtime.finish_reads()
    assert woken == [3]
    assert room.partition.read(3, MIB).size > 0
    room.runtime.settle()
    assert room.loaded_bytes == 0, "what was fetched is not kept"


def test_no_read_waits_behind_a_sync_or_anything_else() -> None:
    room = Room()
    room.runtime.offload(lambda: pytest.fail("a sync that takes long"), lambda *_: None)
    room.partition.read(0, MIB)
    room.runtime.finish_reads()
    assert room.partition.read(0, MIB).size > 0
    room.runtime.offloaded.clear()


def test_a_waiter_may_give_up() -> None:
    room, woken = Room(), []
    room.partition.read(3, MIB)
    cancel = room.partition.wait(3, lambda: woken.append(3))
    cancel()
    cancel()
    room.runtime.finish_reads()
    assert woken == []


def test_an_error_is_raised_by_the_next_read_and_the_one_after_tries_again() -> None:
    room, woken = Room(), []
    room.disk.fail_only, room.disk.fail_at = ("pread",), room.disk.calls + 1
    room.partition.read(0, MIB)
    room.partition.wait(0, lambda: woken.append(0))
    room.runtime.finish_reads()
    assert woken == [0]
    with pytest.raises(StorageError, match=r"00\.log was not read: Input/output error"):
        room.partition.read(0, MIB)
    room.runtime.settle()
    assert len(read_batches(room.partition, 0, 1)) == 1


def test_nothing_but_damage_is_an_error() -> None:
    room = Room(batches=3)
    file = room.disk.file(DIRECTORY / "t-0" / f"{0:020d}.log")
    for number in range(3):
        file.data[(number + 1) * BATCH_BYTES - 1] ^= 1
    with pytest.raises(CorruptBatch, match="nothing is readable from 1 to 3"):
        read_batches(room.partition, 1, MIB)


def test_what_nobody_fetches_is_bounded() -> None:
    room = Room(batches=100, loaded_bytes_max=6_000, all_loaded_bytes_max=10_000)
    room.log.create("u", 1, {"internal.segment.bytes": "2000"})
    other: Any = room.log.partition("u", 0)
    for _ in range(20):
        other.append(batch_of(bytes(400)), Answer())
    room.log.flush()
    room.runtime.settle()
    for offset in range(0, 100, 4):
        room.partition.read(offset, 1)
        room.runtime.finish_reads()
        assert room.loaded_bytes <= 6_000
    for offset in range(0, 20, 4):
        other.read(offset, 1)
        room.runtime.finish_reads()
        assert room.loaded_bytes <= 10_000
    assert room.loaded_bytes > 6_000


def test_one_load_is_kept_for_its_reader_however_large() -> None:
    room = Room(loaded_bytes_max=1, all_loaded_bytes_max=1)
    assert len(read_batches(room.partition, 0, 1)) == 1


def test_segments_may_go_while_they_are_read() -> None:
    room, woken = Room(), []
    room.partition.read(0, MIB)
    room.partition.wait(0, lambda: woken.append(0))
    room.partition.delete_before(12, lambda error: None)
    for _ in range(3):
        room.runtime.turn()
        room.runtime.finish_offloaded()
    room.runtime.advance(200_000)
    assert woken == [0]
    with pytest.raises(OffsetOutOfRange):
        room.partition.read(0, MIB)
    assert len(read_batches(room.partition, 12, 1)) == 1
    room.log.close()
    assert room.disk.open_count == 0


@pytest.mark.parametrize("is_open", [True, False])
def test_a_log_topic_may_go_while_it_is_read(is_open: bool) -> None:
    room, woken = Room(), []
    if not is_open:
        room.restart()
    room.partition.read(0, MIB)
    room.partition.wait(0, lambda: woken.append(0))
    room.log.delete("t")
    room.runtime.settle()
    assert woken == [0]
    with pytest.raises(TopicUnknown):
        room.partition.read(0, MIB)
    room.log.close()
    assert room.disk.open_count == 0


@pytest.mark.parametrize("is_open", [True, False])
def test_a_log_may_be_closed_while_it_is_read(is_open: bool) -> None:
    room, told = Room(), []
    if not is_open:
        room.restart()
    room.partition.read(0, MIB)
    room.partition.offset_for_time(0, lambda found, error: told.append(error))
    room.log.close()
    room.runtime.finish_reads()
    assert [type(error).__name__ for error in told] == ["LogClosed"]
    assert room.disk.open_count == 0


def test_a_reader_who_goes_on_needs_no_index() -> None:
    room = Room()
    room.disk.is_cold = False
    room.restart()
    assert [batch.base_offset for batch in read_batches(room.partition, 0, 1000)] == [0, 1]
    before = len(room.disk.log)
    assert [batch.base_offset for batch in read_batches(room.partition, 2, 1000)] == [2, 3]
    assert len(room.disk.log) == before + 1, "one pread"


def test_the_kernel_is_asked_to_read_on() -> None:
    asked = []
    room = Room()
    room.disk.will_need = lambda *what: asked.append(what[1:])  # type: ignore[method-assign]
    read_batches(room.partition, 0, 1000)
    assert asked == [(2 * BATCH_BYTES, 8 * MIB)]


def test_indexes_in_memory_are_bounded() -> None:
    entry_bytes = OFFSET_ENTRY_BYTES + TIME_ENTRY_BYTES
    room = Room(batches=100, index_bytes_max=10 * entry_bytes)
    for offset in range(100):
        read_batches(room.partition, offset, 1)
    segments = list(room.log._shared.open_segments._open)
    assert sum(segment.index_bytes for segment in segments) <= 14 * entry_bytes


def test_to_find_a_time_only_the_ends_of_old_indexes_are_read() -> None:
    room = Room(batches=100)
    room.restart()
    before = len(room.disk.log)
    assert find_time(room.partition, 2**40 * 10) is None
    calls = room.disk.log[before:]
    assert len(calls) < 30 * 12
    before = len(room.disk.log)
    assert find_time(room.partition, 2**40 * 10) is None
    assert room.disk.log[before:] == [], "and once"


# --- the page cache of this machine -----------------------------------------------------------


def test_what_is_in_memory_is_read_and_never_anything_else(tmp_path: Path) -> None:
    files, data = Files(), os.urandom(300_000)
    (tmp_path / "f").write_bytes(data)
    descriptor = files.open(tmp_path / "f")
    files.fdatasync(descriptor)
    found = files.pread_cached(descriptor, 1000, 5)
    assert found in (data[5:1005], b"")  # nothing where the file system cannot tell
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    files.will_need(descriptor, 0, 1000)
    for position in range(0, 300_000, 50_000):
        found = files.pread_cached(descriptor, 70_000, position)
        assert data[position:].startswith(found)
    assert files.pread_cached(descriptor, 10, 300_000) == b""
    files.close(descriptor)
