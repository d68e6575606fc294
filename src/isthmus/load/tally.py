"""Which messages have come: one bit for each number, and none where all have.

Numbers come nearly in order, so a page of them is soon full and is replaced by the one page
that all full ones share. Compiled with the types in `tally.pxd`.
"""

from __future__ import annotations

from typing import Final

PAGE_NUMBERS: Final = 4096
PAGE_BYTES: Final = PAGE_NUMBERS // 8

_FULL = bytearray(b"\xff" * PAGE_BYTES)


class Tally:
    """A set of numbers that only grows."""

    __slots__ = ("_index", "_page", "_pages")

    def __init__(self) -> None:
        self._page = bytearray(PAGE_BYTES)
        self._pages: dict[int, bytearray] = {0: self._page}
        self._index = 0

    def add(self, number: int) -> bool:
        """Add a number; return False if it is there already."""
        if number >> 12 != self._index:
            self._turn_to(number >> 12)
        page = self._page
        at = number >> 3 & 511
        bit = 1 << (number & 7)
        byte = page[at]
        if byte & bit:
            return False
        page[at] = byte | bit
        return True

    @property
    def size_bytes(self) -> int:
        """Memory of the pages that are not full."""
        return sum(len(page) for page in self._pages.values() if page is not _FULL)

    def _turn_to(self, index: int) -> None:
        if self._page == _FULL:
            self._pages[self._index] = _FULL
        page = self._pages.get(index)
        if page is None:
            page = self._pages[index] = bytearray(PAGE_BYTES)
        self._page = page
        self._index = index
