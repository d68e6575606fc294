"""The newest offset of each key, for many keys in little memory: 24 bytes each.

Keys are told apart by 16 bytes of BLAKE2b, as Kafka's `SkimpyOffsetMap` does with MD5: two keys
of one log topic with the same sixteen bytes will not be met, and nobody can make some. The
table is open addressing in memory of its own that the operating system gives out as it is
used, and takes back whole with `close`.
"""

from __future__ import annotations

import mmap
import struct
from hashlib import blake2b
from typing import Final

ENTRY_BYTES: Final = 24  # two halves of the hash, and the offset plus one: 0 is a free slot
FILLED_MAX: Final = 0.75  # beyond it the walks to a free slot become long
_HASH_BYTES: Final = 16
_HALVES = struct.Struct("=QQ")


class OffsetMap:
    """Maps keys to offsets; never forgets one, so it may become full."""

    __slots__ = ("_limit", "_memory", "_slots", "_words", "count")

    def __init__(self, bytes_max: int, keys_max: int) -> None:
        """Take room for `keys_max` keys, or for as many as fit into `bytes_max`."""
        self._slots = max(2, min(int(keys_max / FILLED_MAX) + 1, bytes_max // ENTRY_BYTES))
        self._limit = int(self._slots * FILLED_MAX)
        self._memory = mmap.mmap(-1, self._slots * ENTRY_BYTES)
        self._words = memoryview(self._memory).cast("Q")
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another key."""
        return self.count >= self._limit

    def put(self, key: bytes, offset: int) -> None:
        """Remember the newest offset of a key. There must be room."""
        assert not self.is_full
        first, second = _HALVES.unpack(blake2b(key, digest_size=_HASH_BYTES).digest())
        words = self._words
        place = self._find(first, second)
        if words[place + 2] == 0:
            words[place], words[place + 1] = first, second
            self.count += 1
        words[place + 2] = offset + 1

    def get(self, key: bytes) -> int:
        """Return the newest offset of a key, -1 where it is not known."""
        first, second = _HALVES.unpack(blake2b(key, digest_size=_HASH_BYTES).digest())
        return self._words[self._find(first, second) + 2] - 1

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.close()

    def _find(self, first: int, second: int) -> int:
        """Return where the words of a hash are, or belong."""
        words, slots = self._words, self._slots
        slot = first % slots
        while True:
            place = slot * 3
            if words[place + 2] == 0 or (words[place] == first and words[place + 1] == second):
                return place
            slot = slot + 1 if slot + 1 < slots else 0
