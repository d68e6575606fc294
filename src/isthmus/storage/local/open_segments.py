"""How many segments have their files open, and how large the indexes are that they keep.

A partition has as many segments as its retention allows, a process only so many descriptors. So
a file is opened when it is needed, and the longest unused is closed. Compiled, see
`open_segments.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from isthmus.storage.local.segment import Segment

INDEX_BYTES_MAX: Final = 64 * 1024 * 1024  # of open segments together
_EVICTION_TRIES: Final = 8


class OpenSegments:
    """The segments whose files are open, the longest unused first, and their limits."""

    __slots__ = ("_index_bytes", "_open", "crowded", "index_bytes_max", "limit")

    def __init__(self, limit: int, index_bytes_max: int = INDEX_BYTES_MAX) -> None:
        self.limit = limit
        self.crowded = False  # by files that must be synced before they can be closed
        self.index_bytes_max = index_bytes_max
        self._open: dict[Segment, int] = {}  # with the bytes of their indexes, when last used
        self._index_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def use(self, segment: Segment) -> None:
        """Note a use; close the longest unused when they are too many or their indexes large.

        Those with unsynced bytes stay, so the limits may be passed: `crowded` asks for a sweep.
        """
        index_bytes = segment.index_bytes
        self._index_bytes += index_bytes - self._open.pop(segment, 0)
        self._open[segment] = index_bytes
        if len(self._open) > self.limit or self._index_bytes > self.index_bytes_max:
            self._make_room(segment)
        self.crowded = len(self._open) > self.limit

    def _make_room(self, segment: Segment) -> None:
        """Close some of those that were not used for the longest time, not `segment`."""
        for _ in range(_EVICTION_TRIES):
            if len(self._open) <= self.limit and self._index_bytes <= self.index_bytes_max:
                break
            oldest = next(iter(self._open))
            if oldest is not segment and oldest.idle:
                oldest.close()
            else:
                self._open[oldest] = self._open.pop(oldest)  # moved to the end

    def forget(self, segment: Segment) -> None:
        """The segment has closed its file."""
        self._index_bytes -= self._open.pop(segment, 0)
