"""The two sparse maps beside a segment: offset → position, and time → offset.

Both are hints. They are kept in memory while the segment is open, written late, in exactly the
files that Apache Kafka keeps, and whatever is read from one is checked against the segment
itself; an index that is missing, short or wrong costs time, never a record.

    .index      8 bytes each: u32 last offset of a batch (from the base), u32 its position
    .timeindex 12 bytes each: i64 timestamp, u32 offset (from the base): no record up to and
               including this offset is newer

An offset entry points at the batch whose *last* offset it names (so does Kafka's). Both files
are big-endian and strictly ascending.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Final

OFFSET_ENTRY_BYTES: Final = 8
TIME_ENTRY_BYTES: Final = 12
_TIME_ENTRY = struct.Struct(">qI")


class OffsetIndex:
    """Sparse map from the last offset of a batch to the batch's position."""

    __slots__ = ("_offsets", "_positions", "base_offset", "saved")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.saved = 0  # entries that are in the file
        self._offsets = array("I")
        self._positions = array("I")

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, last_offset: int, position: int) -> None:
        """Remember that the batch at `position` ends with `last_offset`."""
        self._offsets.append(last_offset - self.base_offset)
        self._positions.append(position)

    def entry_before(self, offset: int) -> tuple[int, int] | None:
        """Return the newest entry up to `offset` as (last offset of a batch, position)."""
        slot = bisect_right(self._offsets, offset - self.base_offset) - 1
        if slot < 0:
            return None
        return self.base_offset + self._offsets[slot], self._positions[slot]

    def cut(self, position: int) -> None:
        """Drop the entries for batches at or after `position`."""
        count = bisect_left(self._positions, position)
        del self._offsets[count:], self._positions[count:]
        self.saved = min(self.saved, count)

    def unsaved(self) -> tuple[bytes, int]:
        """Return what the file lacks and the position in the file where it belongs."""
        flat = array("I", bytes(OFFSET_ENTRY_BYTES * (len(self._offsets) - self.saved)))
        flat[0::2] = self._offsets[self.saved :]
        flat[1::2] = self._positions[self.saved :]
        _swap(flat)
        return flat.tobytes(), self.saved * OFFSET_ENTRY_BYTES

    def load(self, data: bytes, segment_size: int) -> bool:
        """Take the content of a file; False (and empty) where it cannot be right."""
        usable = len(data) % OFFSET_ENTRY_BYTES == 0
        flat = array("I", data if usable else b"")
        _swap(flat)
        self._offsets, self._positions = flat[0::2], flat[1::2]
        usable = usable and _ascending(self._offsets) and _ascending(self._positions)
        if not usable or (self._positions and self._positions[-1] >= segment_size):
            self._offsets, self._positions = array("I"), array("I")
            usable = False
        self.saved = len(self._offsets)
        return usable


class TimeIndex:
    """Sparse map from a timestamp to the offset up to which nothing is newer."""

    __slots__ = ("_offsets", "_timestamps", "base_offset", "saved")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.saved = 0  # entries that are in the file
        self._timestamps = array("q")
        self._offsets = array("I")

    def __len__(self) -> int:
        return len(self._timestamps)

    def append(self, timestamp: int, last_offset: int) -> None:
        """Remember that up to `last_offset` nothing is newer, if that says something new."""
        if not self._timestamps or timestamp > self._timestamps[-1]:
            self._timestamps.append(timestamp)
            self._offsets.append(last_offset - self.base_offset)

    def offset_before(self, timestamp_ms: int) -> int:
        """Return an offset up to which every record is older than `timestamp_ms`."""
        slot = bisect_left(self._timestamps, timestamp_ms) - 1
        return self.base_offset + (self._offsets[slot] if slot >= 0 else 0)

    def last(self) -> tuple[int, int] | None:
        """Return the newest entry as (timestamp, offset)."""
        if not self._timestamps:
            return None
        return self._timestamps[-1], self.base_offset + self._offsets[-1]

    def cut(self, end_offset: int) -> None:
        """Drop the entries for `end_offset` and after."""
        count = bisect_left(self._offsets, max(0, end_offset - self.base_offset))
        del self._timestamps[count:], self._offsets[count:]
        self.saved = min(self.saved, count)

    def unsaved(self) -> tuple[bytes, int]:
        """Return what the file lacks and the position in the file where it belongs."""
        pairs = zip(self._timestamps[self.saved :], self._offsets[self.saved :], strict=True)
        data = b"".join(_TIME_ENTRY.pack(*pair) for pair in pairs)
        return data, self.saved * TIME_ENTRY_BYTES

    def load(self, data: bytes, end_offset: int) -> bool:
        """Take the content of a file; False (and empty) where it cannot be right."""
        usable = len(data) % TIME_ENTRY_BYTES == 0
        pairs = list(_TIME_ENTRY.iter_unpack(data if usable else b""))
        self._timestamps = array("q", (timestamp for timestamp, _ in pairs))
        self._offsets = array("I", (offset for _, offset in pairs))
        usable = usable and _ascending(self._timestamps) and _ascending(self._offsets)
        last = self.last()
        if not usable or (last is not None and last[1] >= end_offset):
            self._timestamps, self._offsets = array("q"), array("I")
            usable = False
        self.saved = len(self._timestamps)
        return usable


def last_timestamp(data: bytes) -> int | None:
    """Return the largest timestamp that a time index file names; None where it names none."""
    if not data or len(data) % TIME_ENTRY_BYTES:
        return None
    timestamp: int = _TIME_ENTRY.unpack_from(data, len(data) - TIME_ENTRY_BYTES)[0]
    return timestamp


def _ascending(values: array[int]) -> bool:
    return all(before < after for before, after in pairwise(values))


def _swap(values: array[int]) -> None:
    if sys.byteorder == "little":
        values.byteswap()
