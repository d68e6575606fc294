"""One file of a partition, with its indexes.

A segment holds consecutive batches from `base_offset` on, byte for byte as they were sent. Only
the newest segment of a partition is appended to. A segment's file is opened when it is needed
and closed when too many are open (open_segments.py); one with bytes not yet on the disk
stays open, because only the descriptor that wrote is sure to hear of a failed write-back.

Indexes are hints (index.py): what is read is checked against the file, and an index that turns
out wrong is built again. What may take long is done on another thread with a `twin`. Not here:
reading batches (reading.py), choosing a segment (segments.py), cutting a torn tail
(recovery.py), syncing (sync.py). Compiled, see `segment.pxd`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from isthmus.storage.aborted import AbortedIndex
from isthmus.storage.local.index import (
    OFFSET_ENTRY_BYTES,
    TIME_ENTRY_BYTES,
    OffsetIndex,
    TimeIndex,
)
from isthmus.storage.local.open_segments import OpenSegments
from isthmus.storage.local.reading import Place
from isthmus.storage.local.scan import CHUNK_BYTES, Scan
from isthmus.storage.local.spans import VerifiedBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.local.files import Files

    Visit = Callable[[RecordBatch], None]

PROBE_BYTES: Final = 4096
NEVER: Final = -1  # a timestamp older than all
ABORTED_SUFFIX: Final = ".txnindex"

logger = logging.getLogger(__name__)


class Segment:
    """One segment; `next_offset` and `size` tell where the next batch goes."""

    __slots__ = (
        "_aborted",
        "_closing",
        "_descriptor",
        "_files",
        "_index_interval",
        "_offset_index",
        "_open",
        "_since_entry",
        "_time_index",
        "base_offset",
        "changed",
        "first_timestamp",
        "gap_end",
        "has_aborts",
        "max_timestamp",
        "max_timestamp_offset",
        "newest_known",
        "next_offset",
        "path",
        "pins",
        "size",
        "suffix",
        "synced_size",
        "unsynced_indexes",
        "verified",
        "written_ms",
    )

    def __init__(
        self,
        files: Files,
        open_segments: OpenSegments,
        directory: Path,
        base_offset: int,
        index_interval: int,
        *,
        gap_end: int = 0,
        suffix: str = "",
    ) -> None:
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.path = directory / f"{base_offset:020d}.log{suffix}"
        self.suffix = suffix  # of files that are being made beside those of the log
        self.gap_end = gap_end  # compaction may have taken offsets below it
        self.size = 0
        self.synced_size = 0  # bytes that an fdatasync of this very file has covered
        self.max_timestamp = NEVER
        self.max_timestamp_offset = base_offset
        self.first_timestamp: int | None = None  # see segment_times.py
        self.newest_known = True  # that `max_timestamp` is the largest, see newest_timestamp
        self.has_aborts = False  # markers that abort a transaction lie here
        self.changed: dict[Segment, None] = {}  # its list's: whose indexes are to be saved
        self.unsynced_indexes: dict[Path, None] = {}  # files written since a checkpoint
        self.verified = VerifiedBytes()
        self.pins = 0  # syncs that use the descriptor just now
        self.written_ms = -1  # when the file was last changed, once somebody has asked
        self._files = files
        self._open = open_segments
        self._index_interval = index_interval
        self._descriptor = -1
        self._closing = False
        self._since_entry = 0
        self._offset_index: OffsetIndex | None = None
        self._time_index: TimeIndex | None = None
        self._aborted: AbortedIndex | None = None

    # --- the file -----------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether there are bytes that no fdatasync of this file has covered."""
        return self.synced_size < self.size

    @property
    def idle(self) -> bool:
        """Whether the file may be closed for now."""
        return not self.dirty and self.pins == 0

    @property
    def is_small(self) -> bool:
        """Whether the segment has no entry in its offset index, and so needs no such file."""
        return self.size <= self._index_interval

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._descriptor >= 0

    @property
    def index_bytes(self) -> int:
        """Memory that the indexes take just now."""
        size = 0 if self._aborted is None else self._aborted.size
        if self._offset_index is not None and self._time_index is not None:
            size += self._offset_index.size + self._time_index.size
        return size

    @property
    def entries(self) -> int:
        """Entries of the offset index. Raises OSError."""
        return len(self._indexes()[0])

    @property
    def index_paths(self) -> tuple[Path, Path, Path]:
        """Where the offset index, the time index and the aborted transactions lie."""
        return self._beside(".index"), self._beside(".timeindex"), self._beside(ABORTED_SUFFIX)

    def _beside(self, kind: str) -> Path:
        return self.path.with_name(f"{self.base_offset:020d}{kind}{self.suffix}")

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that may belong to the segment; the one that makes it a segment last."""
        return (*self.index_paths, self.path)

    def descriptor(self) -> int:
        """Return the open file, opening it if need be. Raises OSError."""
        if self._descriptor < 0:
            self._descriptor = self._files.open(self.path, create=self.size == 0)
        self._open.use(self)
        return self._descriptor

    def close(self) -> None:
        """Write the indexes and close the file; a sync that is under way keeps it open."""
        if self._descriptor < 0:
            return
        if self.pins:
            self._closing = True
            return
        try:
            self.save_indexes()
        except OSError as error:
            logger.warning("an index of %s was not written: %s", self.path, error)
        descriptor, self._descriptor = self._descriptor, -1
        self._offset_index = self._time_index = None
        if self._aborted is not None and self._aborted.saved == len(self._aborted):
            self._aborted = None  # else the file lacks some, and nothing would tell
        self._open.forget(self)
        self._files.close(descriptor)

    def take_names(self, open_segments: OpenSegments) -> None:
        """Belong to the log from now on, under the names that its segments have."""
        self.suffix = ""
        self.path = self._beside(".log")
        self._open = open_segments
        open_segments.use(self)

    def discard(self) -> None:
        """Close the file for good: its names are no longer the segment's to write to."""
        self._offset_index = self._time_index = self._aborted = None
        self.unsynced_indexes.clear()
        self.close()
        self.changed.pop(self, None)

    def unpin(self) -> None:
        """A sync that used the descriptor has ended."""
        self.pins -= 1
        if self._closing and self.pins == 0:
            self._closing = False
            self.close()

    # --- writing ------------------------------------------------------------------------------

    def append(self, batches: Sequence[RecordBatch], views: Sequence[memoryview]) -> None:
        """Write batches that are stamped already. Raises OSError, then nothing has changed.

        What an unsuccessful write left behind the end is the caller's to cut, see `cut_back`.
        """
        descriptor = self.descriptor()
        offset_index, _ = self._indexes()
        self._files.write(descriptor, views, self.size)
        position = self.size
        if position == 0:
            self.first_timestamp = batches[0].max_timestamp
        for batch in batches:
            self._note_time(batch)
            if self._since_entry > self._index_interval:
                self._add_entries(offset_index, batch.last_offset, position)
            self._since_entry += batch.size
            position += batch.size
        self.verified.add(self.size, position)
        self.size = position
        self.next_offset = batches[-1].next_offset

    def cut_back(self) -> None:
        """Cut the file to what is known of it. Raises OSError."""
        self._files.truncate(self.descriptor(), self.size)

    def save_indexes(self, *, complete: bool = False) -> None:
        """Write what the index files lack. Raises OSError.

        `complete`: the time index is to end with the newest timestamp, and neither that nor the
        offset index is to be missing, as Kafka leaves them when it seals or closes a segment;
        and what a crash has left behind their ends goes.
        """
        if complete:
            self._indexes()[1].append(self.max_timestamp, self.max_timestamp_offset)
        for index, path in zip(
            (self._offset_index, self._time_index, self._aborted),
            self.index_paths,
            strict=True,
        ):
            wanted = complete and index is not self._aborted
            if index is None or (index.saved == len(index) and not wanted):
                continue
            data, position = index.unsaved()
            descriptor = self._files.open(path, create=True)
            try:
                self._files.write(descriptor, [data], position)
                self._files.truncate(descriptor, position + len(data))
            finally:
                self._files.close(descriptor)
            index.saved = len(index)
            if index:  # one that says nothing may as well be missing
                self.unsynced_indexes[path] = None
                self.changed[self] = None

    def _note_time(self, batch: RecordBatch) -> None:
        if batch.max_timestamp > self.max_timestamp and batch.count:  # else nothing has it
            self.max_timestamp = batch.max_timestamp
            self.max_timestamp_offset = batch.last_offset

    def _add_entries(self, offset_index: OffsetIndex, last_offset: int, position: int) -> None:
        offset_index.append(last_offset, position)
        assert self._time_index is not None
        self._time_index.append(self.max_timestamp, self.max_timestamp_offset)
        self._since_entry = 0
        self.changed[self] = None

    # --- indexes ------------------------------------------------------------------------------

    def _indexes(self) -> tuple[OffsetIndex, TimeIndex]:
        """Return both indexes, loaded, or built again where a file cannot be right."""
        if self._offset_index is None or self._time_index is None:
            offset_index = OffsetIndex(self.base_offset)
            time_index = TimeIndex(self.base_offset)
            offsets, times = map(self._files.read_file, self.index_paths[:2])
            usable = (offsets is not None or self.is_small) and (
                times is not None or self.size == 0
            )
            usable = usable and offset_index.load(offsets or b"", self.size)
            usable = usable and time_index.load(times or b"", self.next_offset)
            self._offset_index, self._time_index = offset_index, time_index
            last = time_index.last()
            newer = last is not None and last[0] > self.max_timestamp
            if not usable or (newer and self.newest_known):
                self.rebuild_indexes()
            elif last is not None and newer:
                self.max_timestamp, self.max_timestamp_offset = last
        return self._offset_index, self._time_index

    def aborted(self) -> AbortedIndex | None:
        """Return the transactions whose abort markers lie here. Raises OSError.

        None where the file cannot be right; it is made again by aborted.py.
        """
        self.descriptor()  # what is loaded goes when the segment is closed
        if self._aborted is None:
            index = AbortedIndex()
            data = self._files.read_file(self.index_paths[2]) if self.has_aborts else b""
            if data is None or not index.load(data, self.base_offset, self.next_offset):
                return None
            self._aborted = index
        return self._aborted

    @property
    def known_aborted(self) -> AbortedIndex | None:
        """The same, if memory has it."""
        return self._aborted

    def take_aborted(self, index: AbortedIndex) -> None:
        """Take what was built again, to be written with the other indexes. Raises OSError."""
        index.saved = 0
        self._aborted = index
        self.changed[self] = None
        if not index:
            self._files.remove(self.index_paths[2])
            self.has_aborts = False
        self.descriptor()

    def replace_aborted(self, index: AbortedIndex) -> None:
        """Take other aborted transactions, durably but for the file's name. Raises OSError."""
        path = self.index_paths[2]
        index.saved = 0
        data, _ = index.unsaved()
        if data:
            self._files.write_file(path, data, sync=True)
        elif self.has_aborts:
            self._files.remove(path)
        index.saved = len(index)
        self.has_aborts = bool(data)
        self.descriptor()
        self._aborted = index

    def rebuild_indexes(self) -> None:
        """Make both indexes from the file. Raises OSError."""
        self._offset_index = OffsetIndex(self.base_offset)
        self._time_index = TimeIndex(self.base_offset)
        self.max_timestamp = NEVER
        if self._walk(0, verify=False).position:
            self._time_index.append(self.max_timestamp, self.max_timestamp_offset)
        self.changed[self] = None

    def resume(self, offset: int, *, verify: bool, visit: Visit | None = None) -> Scan:
        """Go over the batches from `offset` or shortly before on, and index them anew.

        Calls `visit` with each and returns the finished scan; what it tells of the end is
        the caller's to act on.
        """
        offset_index, time_index = self._indexes()
        entry = offset_index.entry_before(offset - 1)
        if entry is not None and not self.holds(entry, verify=verify):
            entry = None  # only behind a good batch is it known which offset comes next
        start = 0
        if entry is not None:
            start = entry[1]
            time_index.cut(entry[0] + 1)
            newest = time_index.last()
            if newest is None or not self._holds_time(newest):
                entry, start = None, 0
        offset_index.cut(start + 1 if entry is not None else 0)
        if entry is None:
            time_index.cut(self.base_offset)
        self.max_timestamp, self.max_timestamp_offset = time_index.last() or (
            NEVER,
            self.base_offset,
        )
        return self._walk(start, verify=verify, visit=visit)

    def settle(self, size: int, next_offset: int) -> None:
        """Take `size` for the end of the segment, cutting the file. Raises OSError."""
        if size < self.size:
            self.size = size
            self.synced_size = min(self.synced_size, size)
            self.verified.forget_from(size)
            self.cut_back()
            offset_index, time_index = self._indexes()
            offset_index.cut(size)
            time_index.cut(next_offset)
        self.next_offset = next_offset

    def sync(self) -> None:
        """Return once all that was found in the file is on the disk. Raises OSError."""
        self._files.fdatasync(self.descriptor())
        self.synced_size = self.size

    def _walk(self, start: int, *, verify: bool, visit: Visit | None = None) -> Scan:
        scan = self.scan(start, verify=verify)
        offset_index, _ = self._indexes()
        self._since_entry = 0
        for position, batch in scan:
            self._note_time(batch)
            if self._since_entry > self._index_interval:
                self._add_entries(offset_index, batch.last_offset, position)
            self._since_entry += batch.size
            if visit is not None:
                visit(batch)
        self.newest_known = True
        return scan

    def holds(self, entry: tuple[int, int], *, verify: bool = False) -> bool:
        """Whether the file has at the entry's position what the entry says."""
        last_offset, position = entry
        probe = self.scan(position, verify=verify, chunk_bytes=PROBE_BYTES)
        found = next(iter(probe), None)
        return (
            found is not None and found[0] == position and found[1].last_offset == last_offset
        )

    # --- reading ------------------------------------------------------------------------------

    def last_entries(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Return the last entries of both indexes, without loading what is not loaded."""
        offset_index, time_index = self._offset_index, self._time_index
        if offset_index is None or time_index is None:
            offset_index = OffsetIndex(self.base_offset)
            time_index = TimeIndex(self.base_offset)
            offsets, times = self.index_paths[:2]
            offset_index.load(self._files.read_last(offsets, OFFSET_ENTRY_BYTES), self.size)
            time_index.load(self._files.read_last(times, TIME_ENTRY_BYTES), self.next_offset)
        return offset_index.last(), time_index.last()

    def place_of(self, offset: int) -> Place | None:
        """Return where to begin to look for `offset`; None while the index is not loaded."""
        if self._descriptor < 0 or self._offset_index is None:
            return None
        entry = self._offset_index.entry_before(offset)
        return Place(0, self.base_offset) if entry is None else Place(entry[1], -1, entry[0])

    def entry_up_to(self, position: int, offset: int) -> tuple[int, int] | None:
        """Return the newest index entry that is after neither; None where none is loaded."""
        index = self._offset_index
        return None if index is None else index.entry_up_to(position, offset)

    def find(self, offset: int) -> Place:
        """Return the same, opening the file and the index if need be. Raises OSError."""
        self.descriptor()
        self._indexes()
        place = self.place_of(offset)
        assert place is not None
        return place

    def offset_before_time(self, timestamp_ms: int) -> int:
        """Return an offset before which every record is older. Raises OSError."""
        entry = self._indexes()[1].entry_before(timestamp_ms)
        if entry is not None and not self._holds_time(entry):
            logger.warning("the time index of %s is wrong and is built again", self.path)
            self.rebuild_indexes()
            entry = self._indexes()[1].entry_before(timestamp_ms)
        return self.base_offset if entry is None else entry[1] + 1

    def _holds_time(self, entry: tuple[int, int]) -> bool:
        """Whether the batch that the entry names is there and brought its timestamp."""
        timestamp, last_offset = entry
        for _, batch in self.scan_from(last_offset, PROBE_BYTES, verify=False):
            if batch.last_offset >= last_offset:
                return (batch.last_offset, batch.max_timestamp) == (last_offset, timestamp)
        return False

    def scan(
        self, start: int = 0, *, verify: bool = True, chunk_bytes: int = CHUNK_BYTES
    ) -> Scan:
        """Return a scan from the batch at the position `start` on. Raises OSError."""
        return Scan(
            self._files,
            self.descriptor(),
            start,
            self.size,
            self.base_offset,
            verify=verify,
            chunk_bytes=chunk_bytes,
            gap_end=self.gap_end,
        )

    def scan_from(
        self, offset: int, chunk_bytes: int = CHUNK_BYTES, *, verify: bool = True
    ) -> Scan:
        """Return a scan that begins at or shortly before `offset`. Raises OSError."""
        entry = self._indexes()[0].entry_before(offset)
        if entry is not None and not self.holds(entry):
            logger.warning("the index of %s is wrong and is built again", self.path)
            self.rebuild_indexes()
            entry = self._indexes()[0].entry_before(offset)
        start = 0 if entry is None else entry[1]
        return self.scan(start, verify=verify, chunk_bytes=chunk_bytes)

    # --- another thread -----------------------------------------------------------------------

    def twin(self) -> Segment:
        """Return a copy for another thread, which does with it what it likes; see `adopt`.

        It knows what there is to know now, uses the same open file if there is one, and must
        not be written to.
        """
        twin = Segment(
            self._files,
            OpenSegments(1),
            self.path.parent,
            self.base_offset,
            self._index_interval,
            gap_end=self.gap_end,
        )
        twin.path = self.path
        twin.next_offset, twin.size = self.next_offset, self.size
        twin.has_aborts = self.has_aborts
        twin._take_newest(self)
        if self._descriptor >= 0:
            self.pins += 1
            twin.pins = 1  # of the other's file
            twin._descriptor = self._descriptor
        return twin

    def adopt(self, twin: Segment) -> None:
        """Let go of a twin, keeping what it has opened and learnt as far as that is of use."""
        is_same = twin.size == self.size
        if self._descriptor < 0:
            self._descriptor, twin._descriptor = twin._descriptor, -1
        if is_same and self._descriptor >= 0 and self._offset_index is None:
            self._offset_index, self._time_index = twin._offset_index, twin._time_index
            if twin.changed:
                self.changed[self] = None
        if is_same and self._descriptor >= 0 and self._aborted is None:
            self._aborted = twin._aborted
        if self._descriptor >= 0:
            self._open.use(self)
        if is_same and twin.newest_known and not self.newest_known:
            self._take_newest(twin)
        if self.first_timestamp is None:
            self.first_timestamp = twin.first_timestamp
        self.release(twin)

    def _take_newest(self, other: Segment) -> None:
        self.max_timestamp = other.max_timestamp
        self.max_timestamp_offset = other.max_timestamp_offset
        self.newest_known = other.newest_known

    def release(self, twin: Segment) -> None:
        """Let go of a twin of which nothing is of use any more."""
        if twin.pins:
            self.unpin()
        else:
            twin.let_go()

    def let_go(self) -> None:
        """Close a file without writing anything."""
        descriptor, self._descriptor = self._descriptor, -1
        self._offset_index = self._time_index = self._aborted = None
        if descriptor >= 0:
            self._files.close(descriptor)
