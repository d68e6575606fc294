"""Finds, in bytes that hold batch after batch, those that a reader gets.

A fetch hands on many batches at once as one view. So they are walked by their headers: each is
checked as `RecordBatch` would, and no object is made for any. What is not in order ends the
walk; stepping over it is for whoever knows the file (storage/local/scan.py). Compiled, see
`walk.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.record.batch import HEADER_BYTES, MAGIC
from isthmus.wire.buffer import ReadBuffer
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from isthmus.record.batch import Data

_HEADER_BYTES: Final = HEADER_BYTES  # the same as C constants; where they stand: batch.py
_MAGIC: Final = MAGIC
_LENGTH_FROM: Final = 12
_MAGIC_POSITION: Final = 16
_ATTRIBUTES_POSITION: Final = 21
_COUNT_POSITION: Final = 57
_COMPRESSION_MASK: Final = 0x07
_CODEC_MAX: Final = 4
_SANE_MAX: Final = 2**62


class Span:
    """The good whole batches that a reader gets: the bytes from `start` to `end`.

    `next_offset` is the offset after the batch that ends at `end`. `wanted` says why the walk
    ended there: 0, because the reader has enough; -1, because what follows is no good batch;
    else the walk needs that many bytes from the beginning of the data on to go further.
    """

    __slots__ = ("end", "next_offset", "start", "wanted")

    def __init__(self, start: int, end: int, next_offset: int, wanted: int) -> None:
        self.start = start
        self.end = end
        self.next_offset = next_offset
        self.wanted = wanted


class _Header:
    """What the walk needs of the header it stands at."""

    __slots__ = ("base_offset", "count", "crc", "next_offset", "size")

    def __init__(self) -> None:
        self.base_offset = 0
        self.count = 0
        self.next_offset = 0
        self.size = 0
        self.crc = 0

    def read(self, buffer: ReadBuffer, position: int) -> bool:
        """Read the header at `position`; False where it is none or contradicts itself."""
        buffer.seek(position)
        self.base_offset = buffer.i64()
        self.size = buffer.i32() + _LENGTH_FROM
        buffer.seek(position + _MAGIC_POSITION)
        magic = buffer.i8()
        self.crc = buffer.u32()
        codec = buffer.i16() & _COMPRESSION_MASK
        last_delta = buffer.i32()
        buffer.seek(position + _COUNT_POSITION)
        self.count = buffer.i32()
        if magic != _MAGIC or codec > _CODEC_MAX or self.size < _HEADER_BYTES:
            return False
        if last_delta < 0 or not 0 <= self.count <= last_delta + 1:
            return False
        if self.base_offset < 0 or self.base_offset > _SANE_MAX:
            return False
        self.next_offset = self.base_offset + last_delta + 1
        return True

    def is_borne_out(self, buffer: ReadBuffer, position: int) -> int:
        """Compare with what comes next: 1 if it goes on from here, 0 if not, -1 if it lacks."""
        bytes_left = buffer.end - position - self.size
        if bytes_left == 0:
            return 1
        if bytes_left < _HEADER_BYTES:
            return -1
        buffer.seek(position + self.size)
        return 1 if buffer.i64() >= self.next_offset else 0


def walk_batches(
    data: Data, next_offset: int, offset: int, limit: int, bytes_max: int, gap_end: int = 0
) -> Span:
    """Return where the batches are that a reader of `offset` gets.

    `data` holds batches one after the other, of which the first has to begin at `next_offset`
    (-1: anywhere) and each at the end of the one before it. Offsets may be missing before
    batches that end up to `gap_end`, if what follows goes on from there: no checksum covers
    the base offset. The reader gets whole batches that end up to `limit`, from the one that
    holds `offset` on: at least one, then as many as fit into `bytes_max`. All are verified,
    see `RecordBatch.verify`.
    """
    buffer = ReadBuffer()
    buffer.attach(data)
    header = _Header()
    position, start, wanted = 0, -1, -1
    while True:
        bytes_left = buffer.end - position
        if bytes_left < _HEADER_BYTES:
            wanted = position + _HEADER_BYTES
            break
        if not header.read(buffer, position):
            break
        is_gap = header.base_offset != next_offset >= 0
        if is_gap and (header.base_offset < next_offset or header.next_offset > gap_end):
            break
        if header.next_offset > limit or (
            start >= 0 and position - start + header.size > bytes_max
        ):
            wanted = 0
            break
        end = position + header.size
        if header.size > bytes_left:
            wanted = end
            break
        if is_gap:
            verdict = header.is_borne_out(buffer, position)
            if verdict <= 0:
                wanted = -1 if verdict == 0 else end + _HEADER_BYTES
                break
        if crc32c(data, 0, position + _ATTRIBUTES_POSITION, end) != header.crc:
            break
        next_offset = header.next_offset
        if start < 0 and next_offset > offset:
            start = position
        position = end
    return Span(position if start < 0 else start, position, next_offset, wanted)


def offset_after(data: Data) -> int:
    """Return the offset after the last of the batches in `data`; -1 where there is none.

    For what was checked before: nothing is verified again.
    """
    buffer = ReadBuffer()
    buffer.attach(data)
    header = _Header()
    next_offset = -1
    position = 0
    while position < buffer.end and header.read(buffer, position):
        next_offset = header.next_offset
        position += header.size
    return next_offset


def holds_records(data: Data) -> bool:
    """Whether any of the batches in `data` has a record; for what was checked before."""
    buffer = ReadBuffer()
    buffer.attach(data)
    header = _Header()
    position = 0
    while position < buffer.end and header.read(buffer, position):
        if header.count:
            return True
        position += header.size
    return False


def batch_position(data: Data, offset: int) -> int:
    """Return the position of the first batch in `data` that ends after `offset`.

    Where none does, that is the position at which to look further, which may lie behind the
    data; -1 where something is no header. Nothing is verified.
    """
    buffer = ReadBuffer()
    buffer.attach(data)
    header = _Header()
    position = 0
    while buffer.end - position >= _HEADER_BYTES:
        if not header.read(buffer, position):
            return -1
        if header.next_offset > offset:
            break
        position += header.size
    return position
