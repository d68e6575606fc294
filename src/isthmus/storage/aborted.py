"""Which transactions of a partition or segment were aborted, for readers of decided records.

The rows are those of Kafka's `.txnindex` files (`AbortedTxn`), 34 bytes each, big-endian:

    version i16 (0)    first offset i64: of the transaction's first record
    producer id i64    last offset i64: of the marker that aborted it
                       last stable offset i64: as it was after the marker

In a file are the rows whose markers lie in the segment, in their order. A row's last stable
offset says when to stop looking: what was aborted later began there or after it.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROW = struct.Struct(">hqqqq")
ROW_BYTES: Final = _ROW.size
_VERSION: Final = 0
_LAST_OFFSET = struct.Struct(">q")
_LAST_OFFSET_POSITION: Final = 18


class AbortedTransaction(NamedTuple):
    """One row."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class AbortedIndex:
    """Aborted transactions in the order of their markers, kept as they stand in the file."""

    __slots__ = ("_rows", "saved")

    def __init__(self) -> None:
        self._rows = bytearray()
        self.saved = 0  # rows that are in the file

    def __len__(self) -> int:
        return len(self._rows) // ROW_BYTES

    def __iter__(self) -> Iterator[AbortedTransaction]:
        for row in _ROW.iter_unpack(self._rows):
            yield AbortedTransaction(*row[1:])

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return len(self._rows)

    def append(self, aborted: AbortedTransaction) -> None:
        """Add a transaction; its marker lies behind those of all others."""
        self._rows += _ROW.pack(_VERSION, *aborted)

    def collect(self, offset: int, end: int, found: list[tuple[int, int]]) -> bool:
        """Add (producer id, first offset) of those that have records from `offset` to `end`.

        True where no later one can have any, so that later indexes need not be asked.
        """
        for slot in range(self._slot(offset), len(self)):
            row = _ROW.unpack_from(self._rows, slot * ROW_BYTES)
            aborted = AbortedTransaction(*row[1:])
            if aborted.first_offset < end:
                found.append((aborted.producer_id, aborted.first_offset))
            if aborted.last_stable_offset >= end:
                return True
        return False

    def cut(self, offset: int) -> None:
        """Drop those whose markers lie at `offset` or behind it."""
        count = self._slot(offset)
        del self._rows[count * ROW_BYTES :]
        self.saved = min(self.saved, count)

    def unsaved(self) -> tuple[bytes, int]:
        """Return what the file lacks and the position in the file where it belongs."""
        position = self.saved * ROW_BYTES
        return bytes(self._rows[position:]), position

    def load(self, data: bytes, base_offset: int, end_offset: int) -> bool:
        """Take the content of a file; False (and empty) where it cannot be right.

        Its markers must lie from `base_offset` to before `end_offset`.
        """
        self._rows = bytearray(data if len(data) % ROW_BYTES == 0 else b"")
        usable = len(self._rows) == len(data)
        before = base_offset - 1
        for version, _, first, last, _ in _ROW.iter_unpack(self._rows):
            usable = usable and version == _VERSION and first < last and before < last
            before = last
        if not usable or before >= end_offset:
            usable = False
            self._rows.clear()
        self.saved = len(self)
        return usable

    def _slot(self, offset: int) -> int:
        """Return the number of the first row whose marker lies at `offset` or behind it."""
        return bisect_left(range(len(self)), offset, key=self._last_offset)

    def _last_offset(self, slot: int) -> int:
        (offset,) = _LAST_OFFSET.unpack_from(
            self._rows, slot * ROW_BYTES + _LAST_OFFSET_POSITION
        )
        return int(offset)
