"""The two sparse maps beside a segment: offset → position, and time → offset.

Both are hints. They are kept in memory while the segment is open, written late, in exactly the
files that Apache Kafka keeps, and whatever is read from one is checked against the segment
itself; an index that is missing, short or wrong costs time, never a record.

    .index      8 bytes each: u32 last offset of a batch (from the base), u32 its position
    .timeindex 12 bytes each: i64 timestamp, u32 offset (from the base): no record up to and
               including this offset is newer

An offset entry points at the batch whose *last* offset it names (so does Kafka's); a time entry
names the last offset of the batch that brought the timestamp. Both files are big-endian and
strictly ascending.

In memory an index is the bytes of its file: loading one is one read, however long it is, and a
search looks at no more entries than it compares. So what is loaded is only compared with its
ends; an entry within that is wrong is found out when it is used.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from typing import ClassVar, Final

OFFSET_ENTRY_BYTES: Final = 8
TIME_ENTRY_BYTES: Final = 12


class _Index:
    """Entries of two numbers each, both ascending, as they stand in the file."""

    __slots__ = ("_data", "base_offset", "saved")

    _FORMAT: ClassVar[struct.Struct]

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.saved = 0  # entries that are in the file
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data) // self._FORMAT.size

    @property
    def size(self) -> int:
        """Bytes that the index takes."""
        return len(self._data)

    def unsaved(self) -> tuple[bytes, int]:
        """Return what the file lacks and the position in the file where it belongs."""
        position = self.saved * self._FORMAT.size
        return bytes(self._data[position:]), position

    def _entry(self, slot: int) -> tuple[int, int]:
        first, second = self._FORMAT.unpack_from(self._data, slot * self._FORMAT.size)
        return first, second

    def _first(self, slot: int) -> int:
        return self._entry(slot)[0]

    def _second(self, slot: int) -> int:
        return self._entry(slot)[1]

    def _keep(self, count: int) -> None:
        del self._data[count * self._FORMAT.size :]
        self.saved = min(self.saved, count)

    def _load(self, data: bytes) -> bool:
        """Take the content of a file if its ends look like the ends of an index."""
        self._data = bytearray(data)
        usable = len(data) % self._FORMAT.size == 0
        if usable and len(self) > 1:
            first, last = self._entry(0), self._entry(len(self) - 1)
            usable = first[0] < last[0] and first[1] < last[1]
        if not usable:
            self._data.clear()
        self.saved = len(self)
        return usable


class OffsetIndex(_Index):
    """Sparse map from the last offset of a batch to the batch's position."""

    __slots__ = ()

    _FORMAT = struct.Struct(">II")

    def append(self, last_offset: int, position: int) -> None:
        """Remember that the batch at `position` ends with `last_offset`."""
        self._data += self._FORMAT.pack(last_offset - self.base_offset, position)

    def entry_before(self, offset: int) -> tuple[int, int] | None:
        """Return the newest entry up to `offset` as (last offset of a batch, position)."""
        relative = offset - self.base_offset
        slot = bisect_right(range(len(self)), relative, key=self._first) - 1
        return self._at(slot) if slot >= 0 else None

    def entry_up_to(self, position: int, offset: int) -> tuple[int, int] | None:
        """Return the newest entry that is after neither this position nor this offset."""
        relative = offset - self.base_offset
        slots = range(len(self))
        slot = bisect_right(slots, position, key=self._second) - 1
        slot = min(slot, bisect_right(slots, relative, key=self._first) - 1)
        return self._at(slot) if slot >= 0 else None

    def last(self) -> tuple[int, int] | None:
        """Return the newest entry as (last offset of a batch, position)."""
        return self._at(len(self) - 1) if self._data else None

    def cut(self, position: int) -> None:
        """Drop the entries for batches at or after `position`."""
        self._keep(bisect_left(range(len(self)), position, key=self._second))

    def load(self, data: bytes, segment_size: int) -> bool:
        """Take the content of a file; False (and empty) where it cannot be right."""
        if self._load(data) and (not self._data or self._second(len(self) - 1) < segment_size):
            return True
        self._keep(0)
        return False

    def _at(self, slot: int) -> tuple[int, int]:
        offset, position = self._entry(slot)
        return self.base_offset + offset, position


class TimeIndex(_Index):
    """Sparse map from a timestamp to the offset up to which nothing is newer."""

    __slots__ = ()

    _FORMAT = struct.Struct(">qI")

    def append(self, timestamp: int, last_offset: int) -> None:
        """Remember that up to `last_offset` nothing is newer, if that says something new."""
        if not self._data or timestamp > self._first(len(self) - 1):
            self._data += self._FORMAT.pack(timestamp, last_offset - self.base_offset)

    def entry_before(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Return the newest entry older than `timestamp_ms` as (timestamp, offset)."""
        slot = bisect_left(range(len(self)), timestamp_ms, key=self._first) - 1
        return self._at(slot) if slot >= 0 else None

    def last(self) -> tuple[int, int] | None:
        """Return the newest entry as (timestamp, offset)."""
        return self._at(len(self) - 1) if self._data else None

    def cut(self, end_offset: int) -> None:
        """Drop the entries for `end_offset` and after."""
        relative = end_offset - self.base_offset
        self._keep(bisect_left(range(len(self)), relative, key=self._second))

    def load(self, data: bytes, end_offset: int) -> bool:
        """Take the content of a file; False (and empty) where it cannot be right."""
        if self._load(data):
            last = self.last()
            if last is None or last[1] < end_offset:
                return True
        self._keep(0)
        return False

    def _at(self, slot: int) -> tuple[int, int]:
        timestamp, offset = self._entry(slot)
        return timestamp, self.base_offset + offset
