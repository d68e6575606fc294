"""Whole batches that need not pass through the server's memory: spans of a segment's file.

A reader with a plain socket can have the kernel move pages of a file straight to it (sendfile).
Three things must be known first, and each is found without reading the span:

- *where whole batches begin and end*: the offset index names batches, and the header at such a
  place bears it out;
- *that they are good*: they were verified when they were appended, or when they were last read
  from the disk (`VerifiedBytes`);
- *that they are in memory*, else sending them would wait for the disk on the loop
  (page_cache.py).

Where any of them is not known, the batches are read, verified and sent from memory
(reading.py), and are known from then on. What is found to have left the page cache has to be
verified again: it comes from the disk the next time. See docs/adr/0015.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from isthmus.record.batch import HEADER_BYTES
from isthmus.record.walk import batch_position
from isthmus.storage.local.reading import WAY_BYTES, begins_with

if TYPE_CHECKING:
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.reading import Place
    from isthmus.storage.local.segment import Segment

SPAN_BYTES_MIN: Final = 64 * 1024  # less is sent sooner from memory
RANGES_MAX: Final = 16  # that a segment remembers

_BASE_OFFSET = struct.Struct(">q")


class VerifiedBytes:
    """Which bytes of a segment are known to be good batches, as a few ranges."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def end_of(self, position: int) -> int:
        """Return up to where all is good from `position` on; `position` where nothing is."""
        slot = bisect_right(self._starts, position) - 1
        return max(position, self._ends[slot]) if slot >= 0 else position

    def add(self, start: int, end: int) -> None:
        """Note that the bytes from `start` to before `end` are good."""
        if self._ends and self._ends[-1] == start:
            self._ends[-1] = end  # appended to the file
            return
        first = bisect_right(self._starts, start)
        if first and self._ends[first - 1] >= start:
            first -= 1
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        if len(self._starts) > RANGES_MAX:
            del self._starts[0], self._ends[0]

    def forget_from(self, position: int) -> None:
        """Nothing is known any more of what lies at `position` and after."""
        count = bisect_right(self._starts, position)
        if count and self._starts[count - 1] == position:
            count -= 1
        del self._starts[count:], self._ends[count:]
        if count:
            self._ends[-1] = min(self._ends[-1], position)


class LocalSpan:
    """A `FileSpan` of the local engine; its descriptor is its own, and closed with it."""

    __slots__ = ("_files", "_size", "descriptor", "next_offset", "position")

    def __init__(
        self, files: Files, descriptor: int, position: int, size: int, next_offset: int
    ) -> None:
        """Take a duplicate of `descriptor`. Raises OSError."""
        self.descriptor = files.duplicate(descriptor)
        self.position = position
        self.next_offset = next_offset
        self._size = size
        self._files = files

    def __len__(self) -> int:
        return self._size

    def __del__(self) -> None:
        if hasattr(self, "_files"):  # else there was no duplicate
            self._files.close(self.descriptor)

    def read(self) -> bytes:
        """Return the batches. Raises OSError."""
        return self._files.pread(self.descriptor, self._size, self.position)


def find_span(
    files: Files, segment: Segment, place: Place, offset: int, bytes_max: int, limit: int
) -> LocalSpan | None:
    """Return many whole batches from the one that holds `offset` to before `limit`.

    The segment must be open. None where the batches are too few or too large for `bytes_max`,
    not known to be good, or not in memory. Raises OSError.
    """
    is_exact = place.base_offset == offset
    start = place.position if is_exact else _find(files, segment, place, offset)
    if start < 0:
        return None
    found = _end(files, segment, start, offset, min(bytes_max, segment.size - start), limit)
    if found is None:
        return None
    end, next_offset = found
    descriptor = segment.descriptor()
    if end - start < SPAN_BYTES_MIN or not files.is_cached(descriptor, end - start, start):
        return None
    return LocalSpan(files, descriptor, start, end - start, next_offset)


def _find(files: Files, segment: Segment, place: Place, offset: int) -> int:
    """Return the position of the batch that holds `offset`, or -1, going on from `place`."""
    position = place.position
    last_offset = place.last_offset
    while position < segment.size:
        data = files.pread_cached(segment.descriptor(), WAY_BYTES, position)
        if len(data) < HEADER_BYTES:
            return -1
        if last_offset >= 0 and not begins_with(data, last_offset):
            return -1
        last_offset = -1
        step = batch_position(data, offset)
        if step < 0:
            return -1
        position += step
        if step + HEADER_BYTES <= len(data):
            return position
    return -1


def _end(
    files: Files, segment: Segment, start: int, offset: int, bytes_max: int, limit: int
) -> tuple[int, int] | None:
    """Return where the last batch that may be sent ends, and the offset after it."""
    furthest = min(start + bytes_max, segment.verified.end_of(start))
    if furthest - start < SPAN_BYTES_MIN:
        return None
    if furthest == segment.size and segment.next_offset <= limit and segment.gap_end <= offset:
        return furthest, segment.next_offset
    entry = segment.entry_up_to(furthest, limit - 1)
    if entry is None:
        return None
    last_offset, position = entry
    header = files.pread_cached(segment.descriptor(), HEADER_BYTES, position)
    if not begins_with(header, last_offset):
        return None
    return position, _BASE_OFFSET.unpack_from(header)[0]
