"""The segments of one partition, oldest first: rolling to a new one, finding an old one.

Everything before the newest segment is only read, found by binary search over base offsets. A
directory is made with the partition, a segment file with the first batch. Rolling follows
Kafka: by size, by age of the first record (in record time), when an index is full, and when an
offset would not fit into the index any more. Compiled, see `segments.pxd`.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from isthmus.storage.local.aborted import rebuild_aborted
from isthmus.storage.local.chunks import Chunk
from isthmus.storage.local.index import OFFSET_ENTRY_BYTES
from isthmus.storage.local.reading import walk_segments
from isthmus.storage.local.segment import Segment
from isthmus.storage.local.segment_times import first_timestamp
from isthmus.storage.local.swap import DELETED_SUFFIX
from isthmus.storage.topic_configs import DURABILITY_SYNCED
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.aborted import AbortedIndex, AbortedTransaction
    from isthmus.storage.local.chunks import ChunkBudget
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.open_segments import OpenSegments
    from isthmus.storage.local.scan import Damage
    from isthmus.storage.topic_configs import TopicConfig

RELATIVE_OFFSET_MAX: Final = 2**31 - 1

logger = logging.getLogger(__name__)


class SegmentList:
    """The segments of one partition; the last one is the active one."""

    __slots__ = (
        "_bases",
        "_budget",
        "_config",
        "_files",
        "_is_closed",
        "_open",
        "_reported",
        "_segments",
        "changed",
        "chunks",
        "clean_offset",
        "directory",
        "dirty",
        "gap_end",
        "is_swapping",
        "names_synced",
        "names_version",
        "sealed_bytes",
    )

    def __init__(
        self,
        files: Files,
        open_segments: OpenSegments,
        budget: ChunkBudget,
        directory: Path,
        config: TopicConfig,
    ) -> None:
        self.directory = directory
        self.changed: dict[Segment, None] = {}  # have indexes that are not all on the disk
        self.dirty: list[Segment] = []  # have bytes that no sync of the file has covered
        self.chunks: list[Chunk] = []  # written since the last round, oldest first
        self.names_version = 0  # of the directory; grows with every name
        self.names_synced = 0  # the version that is on the disk
        self.sealed_bytes = 0
        self.clean_offset = 0  # compacted up to here, see compaction.py
        self.gap_end = 0  # below it, offsets may be missing
        self.is_swapping = False  # names change just now: no segment may be taken away
        self._budget = budget
        self._files = files
        self._open = open_segments
        self._config = config
        self._segments: list[Segment] = []
        self._bases: list[int] = []
        self._is_closed = False
        self._reported: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return len(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    @property
    def active(self) -> Segment | None:
        """The segment that is appended to, if there is one yet."""
        return self._segments[-1] if self._segments else None

    @property
    def first_offset(self) -> int:
        """Where the oldest segment begins, 0 where there is none."""
        return self._bases[0] if self._bases else 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all segment files."""
        return self.sealed_bytes + (self._segments[-1].size if self._segments else 0)

    @property
    def oldest_end(self) -> int | None:
        """Where the oldest segment ends, if it is sealed."""
        return self._bases[1] if len(self._bases) > 1 else None

    def spans(self, end_offset: int) -> list[tuple[Segment, int]]:
        """Return each segment with where it ends, oldest first."""
        ends = [*self._bases[1:], end_offset][: len(self._bases)]
        return list(zip(self._segments, ends, strict=True))

    def configure(self, config: TopicConfig) -> None:
        """Obey other settings from the next segment on."""
        self._config = config

    # --- writing ------------------------------------------------------------------------------

    def add(self, base_offset: int) -> Segment:
        """Make the next segment the active one; its file comes with the first append."""
        if self._segments:
            self.sealed_bytes += self._segments[-1].size
        segment = Segment(
            self._files,
            self._open,
            self.directory,
            base_offset,
            self._config.index_interval_bytes,
            gap_end=self.gap_end,
        )
        segment.changed = self.changed
        self._segments.append(segment)
        self._bases.append(base_offset)
        return segment

    def roll(self, base_offset: int) -> None:
        """Seal the active segment and begin the next one."""
        segment = self._segments[-1]
        try:
            segment.save_indexes(complete=True)
        except OSError as error:
            logger.warning("an index of %s was not written: %s", segment.path, error)
        self.add(base_offset)

    def roll_empty(self, base_offset: int) -> None:
        """Do the same before there is anything to append. Raises OSError, then nothing has."""
        self.roll(base_offset)
        try:
            self._segments[-1].descriptor()
        except OSError:
            self.drop_active()
            raise
        self.note_names()

    def take_out_oldest(self) -> list[Path]:
        """Forget the oldest segment and return its files under their new names.

        Raises OSError, then it is as it was, but for indexes, which are built again if need be.
        """
        segment = self._segments[0]
        renamed = []
        for path in segment.paths:
            target = path.with_name(path.name + DELETED_SUFFIX)
            with suppress(FileNotFoundError):
                self._files.rename(path, target)
                renamed.append(target)
        del self._segments[0], self._bases[0]
        self.sealed_bytes -= segment.size
        self.note_names()
        segment.discard()
        return renamed

    def load_aborted(self) -> None:
        """Make sure that `note_aborted` cannot fail. Raises OSError."""
        self._aborted_in(self._segments[-1])

    def note_aborted(self, aborted: AbortedTransaction) -> None:
        """A marker was appended that aborts a transaction."""
        segment = self._segments[bisect_right(self._bases, aborted.last_offset) - 1]
        self._aborted_in(segment).append(aborted)
        self.changed[segment] = None
        segment.has_aborts = True

    def append(self, batches: list[RecordBatch], views: list[memoryview]) -> None:
        """Append to the active segment. Raises OSError; see `Segment.append`."""
        segment = self._segments[-1]
        was_dirty, position = segment.dirty, segment.size
        if position == 0:
            self.note_names()  # the file comes with the first bytes
        segment.append(batches, views)
        if not was_dirty:
            self.dirty.append(segment)
        if not self.chunks or self.chunks[-1].segment is not segment:
            self.chunks.append(Chunk(self._budget, segment, position))
        chunk = self.chunks[-1]
        if self._config.durability != DURABILITY_SYNCED:
            chunk.drop()  # nobody waits for a round, so it need not have the views
        chunk.extend(views, segment.size - position, segment.next_offset)

    def note_names(self) -> None:
        """A name in the directory has come or gone."""
        self.names_version += 1

    @property
    def names_changed(self) -> bool:
        """Whether there are names that no sync of the directory has covered."""
        return self.names_synced < self.names_version

    def take_chunks(self) -> list[Chunk]:
        """Hand over to a round what was written since the last one."""
        chunks, self.chunks = self.chunks, []
        for chunk in chunks:
            chunk.take()
        return chunks

    def take_back(self, chunks: Sequence[Chunk]) -> None:
        """A round has come to nothing: its chunks are as if it had not begun."""
        self.chunks[:0] = chunks

    def note_synced(self, synced: Iterable[tuple[Segment, int]], names_version: int) -> None:
        """Files are on the disk up to a position each, the directory in this version."""
        for segment, size in synced:
            segment.synced_size = max(segment.synced_size, min(size, segment.size))
        self.names_synced = max(self.names_synced, names_version)
        self.dirty = [segment for segment in self.dirty if segment.dirty]
        while self.chunks and self.chunks[0].end <= self.chunks[0].segment.synced_size:
            self.chunks.pop(0).drop()

    def parts(
        self, batches: list[RecordBatch], size: int, newest: int
    ) -> Iterator[list[RecordBatch]]:
        """Part batches where a new segment begins, beginning it. Raises OSError.

        All together they have `size` bytes, and `newest` is their largest timestamp. Each part
        is appended before the next is asked for.
        """
        first, last = batches[0], batches[-1]
        if not self.is_full(first.size, size - first.size, last.last_offset, newest):
            yield batches
            return
        part: list[RecordBatch] = []
        pending = 0
        for batch in batches:
            if self.is_full(pending, batch.size, batch.last_offset, batch.max_timestamp):
                if part:
                    yield part
                self.roll(batch.base_offset)
                part, pending = [], 0
            part.append(batch)
            pending += batch.size
        yield part

    def is_full(self, pending: int, size: int, last_offset: int, timestamp: int) -> bool:
        """Whether a batch needs a new segment once `pending` bytes are in. Raises OSError."""
        segment = self._segments[-1]
        config = self._config
        filled = segment.size + pending
        if filled == 0:
            return False
        if (
            filled + size > config.segment_bytes_max
            or last_offset - segment.base_offset > RELATIVE_OFFSET_MAX
            or segment.entries * OFFSET_ENTRY_BYTES >= config.index_bytes_max
        ):
            return True
        return segment.size > 0 and self._is_old(timestamp)

    def is_idle_too_long(self, now_ms: int) -> bool:
        """Whether a record of just now would need a new segment. Raises OSError."""
        return bool(self._segments) and self._segments[-1].size > 0 and self._is_old(now_ms)

    def _is_old(self, timestamp: int) -> bool:
        segment, config = self._segments[-1], self._config
        age_max = config.segment_ms_max
        jitter = min(config.segment_jitter_ms_max, age_max)
        if jitter:
            # By chance, and the same one however often it is asked for.
            age_max -= crc32c(f"{self.directory.name} {segment.base_offset}".encode()) % jitter
        return timestamp - first_timestamp(segment) > age_max

    def save_indexes(self) -> list[tuple[Segment, Path]]:
        """Write what index files lack; hand over those to be synced. Raises OSError."""
        for segment in self.changed:
            segment.save_indexes()
        taken = [(each, path) for each in self.changed for path in each.unsynced_indexes]
        for segment in self.changed:
            segment.unsynced_indexes.clear()
        self.changed.clear()
        return taken

    def take_back_indexes(self, taken: Iterable[tuple[Segment, Path]]) -> None:
        """What was handed over was not synced."""
        for segment, path in taken:
            if self.has(segment):
                segment.unsynced_indexes[path] = None
                self.changed[segment] = None

    @property
    def has_unsynced_indexes(self) -> bool:
        """Whether `save_indexes` has something to hand over."""
        return any(segment.unsynced_indexes for segment in self.changed)

    def holds(self, group: Sequence[Segment]) -> bool:
        """Whether these are consecutive segments of the list, and sealed."""
        slot = bisect_left(self._bases, group[0].base_offset)
        sealed = self._segments[:-1]
        return list(group) == sealed[slot : slot + len(group)]

    def replace(self, group: Sequence[Segment], segment: Segment) -> None:
        """Put one segment in the place of those that it was made of, see `holds`."""
        slot = bisect_left(self._bases, group[0].base_offset)
        segment.changed = self.changed
        self._segments[slot : slot + len(group)] = [segment]
        self._bases[slot : slot + len(group)] = [segment.base_offset]
        self.sealed_bytes += segment.size - sum(old.size for old in group)
        for old in group:
            old.discard()

    # --- reading ------------------------------------------------------------------------------

    def at(self, offset: int) -> Segment | None:
        """Return the segment where `offset` is or would be, None where there is none at all."""
        slot = max(0, bisect_right(self._bases, offset) - 1)
        return self._segments[slot] if self._segments else None

    def after(self, segment: Segment) -> Segment | None:
        """Return the segment that follows, or would if this one were still here."""
        slot = bisect_right(self._bases, segment.base_offset)
        return self._segments[slot] if slot < len(self._segments) else None

    def has(self, segment: Segment) -> bool:
        """Whether this very segment is part of the log."""
        return self.at(segment.base_offset) is segment

    def give_back(self, segment: Segment, twin: Segment) -> bool:
        """Let a segment learn from its twin; False where it is not of the log any more.

        Where the log topic is deleted, another may have the directory: nothing is kept open.
        """
        if not self._is_closed and self.has(segment):
            segment.adopt(twin)
            return True
        segment.release(twin)
        return False

    def aborted(self, offset: int, end: int) -> list[tuple[int, int]] | None:
        """Return the aborted transactions that have records from `offset` to before `end`.

        As pairs of producer id and first offset; None where memory does not have them all.
        """
        found: list[tuple[int, int]] = []
        for segment in self.since(offset):
            if segment.has_aborts:
                index = segment.known_aborted
                if index is None:
                    return None
                if index.collect(offset, end, found):
                    break
        return found

    def _aborted_in(self, segment: Segment) -> AbortedIndex:
        index = segment.aborted()
        if index is None:
            logger.warning("%s is wrong and is built again", segment.index_paths[2])
            base, end = segment.base_offset, segment.next_offset
            index = rebuild_aborted(self, self._files, base, end)
            segment.replace_aborted(index)
        return index

    def walk(self, offset: int, end: int, visit: Callable[[RecordBatch], None]) -> None:
        """Call `visit` with every batch from `offset` to `end`, unverified. Raises OSError."""
        walk_segments(self.since(offset), offset, end, visit)

    def report(self, segment: Segment, damage: list[Damage]) -> None:
        """Say once per place that records are lost."""
        for lost in damage:
            if (segment.base_offset, lost.position) not in self._reported:
                self._reported.add((segment.base_offset, lost.position))
                logger.error(
                    "%s is damaged from byte %d to %d: offsets %d to %d are lost",
                    segment.path,
                    lost.position,
                    lost.end,
                    lost.offset,
                    lost.next_offset - 1,
                )

    # --- loading ------------------------------------------------------------------------------

    def restore(self, base_offset: int, size: int) -> Segment:
        """Add a segment whose file was found, behind those already here."""
        if self._segments:
            self._segments[-1].next_offset = base_offset
        segment = self.add(base_offset)
        segment.size = segment.synced_size = size
        segment.newest_known = size == 0
        if size:
            segment.next_offset = base_offset + RELATIVE_OFFSET_MAX + 1  # at most; see settle
        return segment

    def since(self, offset: int) -> list[Segment]:
        """Return the segments from the one that holds `offset` on."""
        return self._segments[max(0, bisect_right(self._bases, offset) - 1) :]

    def drop_active(self) -> None:
        """Forget the newest segment; its files are the caller's."""
        self._segments.pop().discard()
        self._bases.pop()
        if self._segments:
            self.sealed_bytes -= self._segments[-1].size

    def close(self) -> None:
        """Close all files; they are opened no more."""
        self._is_closed = True
        for chunk in self.take_chunks():
            chunk.drop()
        for segment in self._segments:
            segment.close()
