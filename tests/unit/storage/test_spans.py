"""Spans of a segment's file: only whole batches, only good ones, only what is in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, read_batches
from tests.storage.disk import SimDisk

from isthmus.storage.local.files import Files
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.page_cache import PageCache
from isthmus.storage.local.reading import Place
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.local.spans import RANGES_MAX, SPAN_BYTES_MIN, VerifiedBytes, find_span
from isthmus.storage.log import ISOLATION_DURABLE

MIB = 1 << 20
DIRECTORY = Path("/disk/data")
VALUE = bytes(9_000)
BATCH_BYTES = batch_of(VALUE).size


class Room:
    """A log with one partition whose batches are in no memory but the kernel's."""

    def __init__(
        self, count: int = 40, *, segment_bytes: int = MIB, tail_bytes: int = 0
    ) -> None:
        self.disk = SimDisk()
        self.runtime = SimRuntime()
        self.settings = LocalSettings(tail_bytes_max=tail_bytes)
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)
        self.log.create("t", 1, {"internal.segment.bytes": str(segment_bytes)})
        self.partition: Any = self.log.partition("t", 0)
        self.append(count)

    def append(self, count: int, value: bytes = VALUE) -> None:
        for _ in range(count):
            self.partition.append(batch_of(value), Answer())
        self.log.flush()
        self.runtime.settle()

    def restart(self) -> None:
        self.log.close()
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)
        self.partition = self.log.partition("t", 0)

    def read(self, offset: int, bytes_max: int = 10 * MIB) -> Any:
        records = self.partition.read(offset, bytes_max, spans=True)
        while records.is_loading:
            self.runtime.finish_reads()
            records = self.partition.read(offset, bytes_max, spans=True)
        return records

    def read_all(self, bytes_max: int = 10 * MIB) -> tuple[bytes, list[bool]]:
        """Return all batches, and of each read whether it gave a span."""
        data, kinds, offset = b"", [], 0
        while offset < self.partition.end_offset:
            records = self.read(offset, bytes_max)
            kinds.append(records.span is not None)
            data += records.span.read() if kinds[-1] else b"".join(records.buffers)
            offset = records.end_offset
        return data, kinds

    def stored(self) -> bytes:
        """Return what the files hold."""
        directory = DIRECTORY / "t-0"
        names = sorted(name for name in self.disk.names(directory) if name.endswith(".log"))
        return b"".join(bytes(self.disk.file(directory / name).data) for name in names)


def test_what_was_appended_comes_as_spans_of_whole_batches() -> None:
    room = Room()
    data, kinds = room.read_all(bytes_max=8 * BATCH_BYTES + 100)
    assert data == room.stored()
    assert kinds == [True] * 5


def test_a_span_of_the_newest_is_taken_rather_than_memory() -> None:
    room = Room(tail_bytes=10 * MIB)
    assert room.read(3).span is not None
    assert room.read(38).span is None, "two batches are sooner sent from memory"


def test_who_does_not_ask_gets_bytes() -> None:
    records = Room().partition.read(0, MIB)
    assert records.span is None
    assert records.buffers


def test_a_span_never_crosses_a_segment() -> None:
    room = Room(segment_bytes=10 * BATCH_BYTES)
    data, kinds = room.read_all()
    assert data == room.stored()
    assert kinds == [True] * 4


def test_a_span_ends_before_what_is_not_to_be_seen() -> None:
    room = Room(20)
    for _ in range(20):
        room.partition.append(batch_of(VALUE), Answer())
    room.log.flush()  # written, but in no round of syncing yet
    written = room.partition.read(0, 10 * MIB, spans=True)
    durable = room.partition.read(0, 10 * MIB, ISOLATION_DURABLE, spans=True)
    assert written.end_offset == 40
    assert durable.end_offset <= room.partition.last_stable_offset == 20
    assert durable.span is not None
    room.runtime.settle()


def test_after_a_restart_everything_is_read_once_before_it_is_sent_from_the_file() -> None:
    room = Room(segment_bytes=10 * BATCH_BYTES)
    room.restart()
    whole = room.stored()
    room.restart()
    part = 8 * BATCH_BYTES  # of each segment
    first, _ = room.read_all(bytes_max=part)
    again, kinds = room.read_all(bytes_max=part)
    assert first == again == whole
    assert kinds == [True, False] * 4, "two batches at the end of each are few"


def test_what_the_page_cache_has_is_verified_and_then_sent_from_the_file() -> None:
    room = Room()
    room.restart()
    good = room.stored()
    room.read(0, 4 * BATCH_BYTES)  # opens the segment
    room.partition.segments.active.verified.forget_from(0)
    file = room.disk.file(DIRECTORY / "t-0" / f"{0:020d}.log")
    file.data[20 * BATCH_BYTES + 100] ^= 1
    kept = [room.read(offset, 8 * BATCH_BYTES) for offset in (4, 12)]
    assert [each.span is not None for each in kept] == [True, True]
    assert [each.end_offset for each in kept] == [12, 20]
    few = room.read(4, 2 * BATCH_BYTES)
    room.read(12, 2 * BATCH_BYTES)
    assert b"".join(few.buffers) == good[4 * BATCH_BYTES : 6 * BATCH_BYTES]
    assert room.read(20).end_offset > 21
    data, _ = room.read_all(bytes_max=8 * BATCH_BYTES)
    assert data == good[: 20 * BATCH_BYTES] + good[21 * BATCH_BYTES :]


def test_damage_that_a_restart_meets_is_never_sent() -> None:
    room = Room(segment_bytes=10 * BATCH_BYTES)
    good = room.stored()
    file = room.disk.file(DIRECTORY / "t-0" / f"{10:020d}.log")
    file.data[4 * BATCH_BYTES + 100] ^= 1  # of batch 14
    room.restart()
    bad = 14 * BATCH_BYTES
    for _ in range(3):
        data, _ = room.read_all()
        assert data == good[:bad] + good[bad + BATCH_BYTES :]


def test_what_has_left_memory_is_verified_when_it_is_back() -> None:
    room = Room()
    assert room.read(0).span is not None
    good = room.stored()
    room.disk.is_cold = True
    file = room.disk.file(DIRECTORY / "t-0" / f"{0:020d}.log")
    file.data[7 * BATCH_BYTES + 100] ^= 1  # which the disk brings when it is asked again
    records = room.partition.read(0, MIB, spans=True)
    assert records.is_loading
    room.disk.is_cold = False
    for _ in range(3):
        data, _ = room.read_all(bytes_max=200_000)
        assert data == good[: 7 * BATCH_BYTES] + good[8 * BATCH_BYTES :]


def test_an_index_that_is_wrong_does_not_say_where_a_span_ends() -> None:
    room = Room()
    segment = room.partition.segments.active
    index = segment._offset_index
    index._data[-4:] = (39 * BATCH_BYTES - 1).to_bytes(4, "big")
    assert find_span(room.disk, segment, Place(0, 0), 0, 39 * BATCH_BYTES, 40) is None
    records = room.read(0, 39 * BATCH_BYTES)
    assert records.span.read() == room.stored()[: 39 * BATCH_BYTES], "read and verified"


def test_a_span_outlives_its_log_topic_and_leaves_nothing_open() -> None:
    room = Room()
    before = len(room.disk._open)
    records = room.read(0)
    expected = room.stored()
    room.log.delete("t")
    room.runtime.settle()
    assert records.span.read() == expected
    room.log.close()
    del records
    assert len(room.disk._open) < before


def test_a_disk_that_cannot_give_another_descriptor_fails_that_read() -> None:
    room = Room()
    room.disk.fail_only, room.disk.fail_at = ("duplicate",), room.disk.calls + 1
    with pytest.raises(Exception, match="was not read: Input/output error"):
        room.read(0)
    assert room.read(0).span is not None


@given(
    sizes=st.lists(st.integers(100, 40_000), min_size=1, max_size=30),
    data=st.data(),
)
def test_a_span_is_what_whole_batches_it_may_be(sizes: list[int], data: st.DataObject) -> None:
    room = Room(0, segment_bytes=2 * MIB)
    for size in sizes:
        room.append(1, bytes(size))
    segment = room.partition.segments.active
    file = bytes(room.disk.file(segment.path).data)
    positions = [0]
    for batch in read_batches(room.partition, 0, 10 * MIB):
        positions.append(positions[-1] + batch.size)
    offset = data.draw(st.integers(0, len(sizes) - 1))
    limit = data.draw(st.integers(offset, len(sizes)))
    bytes_max = data.draw(st.integers(0, 2 * MIB))
    place = segment.place_of(offset)
    assert place is not None
    span = find_span(room.disk, segment, place, offset, bytes_max, limit)
    fitting = max(
        (
            end
            for end, position in enumerate(positions)
            if end <= limit and offset <= end and position - positions[offset] <= bytes_max
        ),
    )
    room_for_more = positions[fitting] - positions[offset] - 2 * (4096 + 40_100)
    if span is None:
        assert room_for_more < SPAN_BYTES_MIN
        return
    assert SPAN_BYTES_MIN <= len(span) <= bytes_max
    assert span.position == positions[offset]
    assert span.position + len(span) == positions[span.next_offset]
    assert span.next_offset <= limit
    assert span.read() == file[span.position : span.position + len(span)]
    assert len(span) >= room_for_more, "no entry of the index is further apart"


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 60), st.integers(1, 20)), max_size=RANGES_MAX
    )
)
def test_what_is_known_to_be_good_is_like_a_set(steps: list[tuple[bool, int, int]]) -> None:
    known, model = VerifiedBytes(), set[int]()
    for adds, start, size in steps:
        if adds:
            known.add(start, start + size)
            model |= set(range(start, start + size))
        else:
            known.forget_from(start)
            model -= set(range(start, 200))
    for position in range(90):
        end = position
        while end in model:
            end += 1
        assert known.end_of(position) == end


def test_what_is_remembered_is_bounded() -> None:
    known = VerifiedBytes()
    for number in range(RANGES_MAX + 5):
        known.add(10 * number, 10 * number + 5)
    assert known.end_of(0) == 0, "the first is forgotten"
    assert known.end_of(10 * (RANGES_MAX + 4)) == 10 * (RANGES_MAX + 4) + 5


# --- the kernel's memory ----------------------------------------------------------------------


def can_ask() -> bool:
    release = os.uname().release.split("-")[0].split(".")
    return os.uname().sysname == "Linux" and (int(release[0]), int(release[1])) >= (6, 5)


@pytest.mark.skipif(not can_ask(), reason="cachestat is of Linux 6.5")
def test_the_kernel_tells_what_it_has_in_memory(tmp_path: Path) -> None:
    files = Files()
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_000))
    descriptor = files.open(path)
    try:
        assert files.is_cached(descriptor, 300_000, 0)
        assert files.is_cached(descriptor, 1, 4095)
        assert not files.is_cached(descriptor, 10_000, 300_000), "there is nothing"
        twin = files.duplicate(descriptor)
        files.close(descriptor)
        descriptor = twin
        assert files.pread(descriptor, 10, 0) == path.read_bytes()[:10]
    finally:
        files.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.is_cached(descriptor, 1, 0)


def test_where_the_kernel_cannot_be_asked_nothing_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isthmus.storage.local.page_cache._CACHESTAT", 100_000)
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    cache = PageCache()
    with path.open("rb") as file:
        assert not cache.holds(file.fileno(), 10, 0)
        assert not cache.holds(file.fileno(), 10, 0)
