"""Walks a segment file batch by batch, and steps over damage without losing what follows it.

A batch is good when its header makes sense at this place (version 2, a length that fits) and,
where asked, its checksum is right. The base offset lies outside the checksum, so it must be
the one at which the batch before it ended. Where compaction may have taken batches away
(`gap_end`) it may be a larger one, if what comes directly after goes on from there.

Where a batch is bad, the walk looks for the next good one. Bytes after the damage are taken
for a batch again only if their checksum is right, their offset is possible, and
what comes directly after them is the end or again the head of a batch: a payload that happens
to hold a copy of some batch does not pass. What lies between is reported as `Damage`. If
nothing good follows, the walk ends at the damage: that is a torn tail, and recovery.py cuts
it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.errors import CorruptBatch, Malformed
from isthmus.record.batch import HEADER_BYTES, MAGIC, RECORDS_BYTES_MAX, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.storage.local.files import Files

CHUNK_BYTES: Final = 1024 * 1024
_HEAD = struct.Struct(">qiib")  # base offset, batch length, leader epoch, version
_LENGTH_FROM: Final = 12
_MAGIC_POSITION: Final = 16
_DELTA = struct.Struct(">i")  # last offset, from the base offset
_DELTA_POSITION: Final = 23
SECTOR_BYTES: Final = 512  # what a disk writes whole or not at all
_MAGIC_BYTE: Final = bytes((MAGIC,))
_BATCH_RECORDS_MAX: Final = RECORDS_BYTES_MAX // 7  # no record is smaller than seven bytes


class Damage(NamedTuple):
    """A stretch of a segment that holds no batch any more."""

    position: int
    end: int
    offset: int  # the first offset that is lost
    next_offset: int  # the first that is there again


class Scan:
    """One walk over the bytes from `start` to `end` of an open segment file.

    `position` and `next_offset` tell where the walk stands: after the last good batch.
    """

    __slots__ = (
        "_anchored",
        "_chunk_bytes",
        "_descriptor",
        "_end",
        "_files",
        "_gap_end",
        "_verify",
        "_window",
        "_window_start",
        "damage",
        "next_offset",
        "position",
        "start",
    )

    def __init__(
        self,
        files: Files,
        descriptor: int,
        start: int,
        end: int,
        next_offset: int,
        *,
        verify: bool,
        chunk_bytes: int = CHUNK_BYTES,
        gap_end: int = 0,
    ) -> None:
        """Begin at `start`; between batches that end up to `gap_end` offsets may be missing."""
        self.position = self.start = start
        self.next_offset = next_offset
        self.damage: list[Damage] = []
        self._anchored = start == 0  # else only a lower bound of the first offset is known
        self._files = files
        self._descriptor = descriptor
        self._end = end
        self._gap_end = gap_end
        self._verify = verify
        self._chunk_bytes = chunk_bytes
        self._window = memoryview(b"")
        self._window_start = start

    def __iter__(self) -> Iterator[tuple[int, RecordBatch]]:
        """Yield (position, batch) for every good batch, in order. Raises OSError."""
        while self.position < self._end:
            batch = self._batch_at(self.position)
            if batch is None or not self._follows(batch):
                start = self.position
                following = self._find_good(start)
                if following is None:
                    return
                offset, batch = self.next_offset, following[1]
                self.position = following[0]
                self.damage.append(Damage(start, self.position, offset, batch.base_offset))
            position = self.position
            self._anchored = True
            self.position = position + batch.size
            self.next_offset = batch.next_offset
            yield position, batch

    def _follows(self, batch: RecordBatch) -> bool:
        if batch.base_offset == self.next_offset:
            return True
        if self._anchored:
            return (
                self.next_offset < batch.base_offset
                and batch.next_offset <= self._gap_end
                and self._goes_on(self.position + batch.size, batch)
            )
        return batch.base_offset >= self.next_offset

    def _batch_at(self, position: int, *, verify: bool = False) -> RecordBatch | None:
        """Return the batch at `position` if it is good by itself."""
        head = self._view(position, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return None
        _, length, _, magic = _HEAD.unpack_from(head)
        size = length + _LENGTH_FROM
        if magic != MAGIC or not HEADER_BYTES <= size <= self._end - position:
            return None
        try:
            batch = RecordBatch(self._view(position, size))
            if self._verify or verify:
                batch.verify()
        except (CorruptBatch, Malformed):
            return None
        return batch if batch.last_offset_delta >= 0 else None

    def _find_good(self, damaged: int) -> tuple[int, RecordBatch] | None:
        """Return position and batch of the first good batch after the damage."""
        position = damaged + 1
        while position <= self._end - HEADER_BYTES:
            chunk = bytes(self._view(position, min(CHUNK_BYTES, self._end - position)))
            if len(chunk) < HEADER_BYTES:
                return None  # the file is shorter than it was
            found = chunk.find(_MAGIC_BYTE, _MAGIC_POSITION)
            while 0 <= found - _MAGIC_POSITION <= len(chunk) - HEADER_BYTES:
                candidate = position + found - _MAGIC_POSITION
                if self._possible(chunk, found - _MAGIC_POSITION, candidate, damaged):
                    batch = self._batch_at(candidate, verify=True)
                    if batch is not None and self._is_in_place(candidate, batch, damaged):
                        return candidate, batch
                found = chunk.find(_MAGIC_BYTE, found + 1)
            position += len(chunk) - HEADER_BYTES + 1
        return None

    def _possible(self, chunk: bytes, start: int, candidate: int, damaged: int) -> bool:
        base_offset, length, epoch, _ = _HEAD.unpack_from(chunk, start)
        batches_lost_max = (candidate - damaged) // HEADER_BYTES + 1
        return bool(
            self.next_offset < base_offset  # some record was lost, or there is no damage
            and base_offset
            <= max(self.next_offset + batches_lost_max * _BATCH_RECORDS_MAX, self._gap_end)
            and epoch >= 0
            and HEADER_BYTES <= length + _LENGTH_FROM <= self._end - candidate
        )

    def _is_in_place(self, position: int, batch: RecordBatch, damaged: int) -> bool:
        """Whether a batch behind damage is one of the log, at the offset that it names.

        The base offset lies outside the checksum. Where a sector border runs through it, and
        the sector before may never have been written, somebody has to vouch for it: the heads
        of the damaged batches, or the batch behind it.
        """
        following = position + batch.size
        is_whole = position % SECTOR_BYTES <= SECTOR_BYTES - _LENGTH_FROM
        if is_whole or self._offset_at(position, damaged) == batch.base_offset:
            return self._goes_on(following, batch)
        witness = self._batch_at(following, verify=True)
        return witness is not None and witness.base_offset == batch.next_offset

    def _offset_at(self, target: int, position: int) -> int:
        """Return the offset that the heads from `position` on lead to at `target`, or -1."""
        next_offset = self.next_offset
        while position < target:
            head = self._view(position, HEADER_BYTES)
            if len(head) < HEADER_BYTES:
                return -1
            base_offset, length, _, magic = _HEAD.unpack_from(head)
            if magic != MAGIC or base_offset < next_offset or length < 0:
                return -1
            position += length + _LENGTH_FROM
            next_offset = base_offset + _DELTA.unpack_from(head, _DELTA_POSITION)[0] + 1
        return next_offset if position == target else -1

    def _goes_on(self, position: int, batch: RecordBatch) -> bool:
        """Whether what follows a batch is what follows batches: the end, or the next head."""
        head = self._view(position, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return len(head) == 0
        base_offset, length, _, magic = _HEAD.unpack_from(head)
        return bool(
            magic == MAGIC
            and base_offset >= batch.next_offset
            and length + _LENGTH_FROM >= HEADER_BYTES
        )

    def _view(self, position: int, size: int) -> memoryview:
        """Return the bytes at `position`, fewer only at the end of the stretch."""
        size = min(size, self._end - position)
        start = position - self._window_start
        if start < 0 or start + size > len(self._window):
            wanted = min(max(size, self._chunk_bytes), self._end - position)
            self._window = memoryview(self._files.pread(self._descriptor, wanted, position))
            self._window_start = position
            start = 0
        return self._window[start : start + size]
