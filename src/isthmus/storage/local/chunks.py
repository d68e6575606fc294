"""What was written to segments and is in no round of syncing yet.

A chunk keeps views of the very bytes that came in, so that a round can copy them to the journal
without reading the file. It gives them up when it grows so large that its segment is better
synced by itself; and all chunks together are bounded by `ChunkBudget`, where those that wait
longest give theirs up first. A chunk without views goes to its segment, so what is lost is
time, never a byte. Compiled, see `chunks.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.storage.local.tail import BATCH_COST_BYTES

if TYPE_CHECKING:
    from isthmus.storage.local.segment import Segment

COPY_BYTES_MAX: Final = 256 * 1024  # from here on a segment is synced by itself


class ChunkBudget:
    """All chunks that hold views, those that have held them longest first."""

    __slots__ = ("_chunks", "bytes_max", "held_bytes")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0  # with what Python needs to keep them
        self._chunks: dict[Chunk, None] = {}

    def hold(self, chunk: Chunk, cost_bytes: int) -> None:
        """Note that a chunk holds more; let others give up theirs where it is too much."""
        self.held_bytes += cost_bytes
        self._chunks[chunk] = None
        while self.held_bytes > self.bytes_max:
            next(iter(self._chunks)).drop()

    def release(self, chunk: Chunk, cost_bytes: int) -> None:
        """Note that a chunk holds nothing any more, or belongs to a round now."""
        self.held_bytes -= cost_bytes
        self._chunks.pop(chunk, None)


class Chunk:
    """Bytes written to one segment since the last round, from `position` on, without a gap."""

    __slots__ = ("_budget", "_cost_bytes", "end_offset", "position", "segment", "size", "views")

    def __init__(self, budget: ChunkBudget, segment: Segment, position: int) -> None:
        self.segment = segment
        self.position = position
        self.size = 0
        self.end_offset = segment.next_offset  # one past the last record
        self.views: list[memoryview] | None = []  # None: too much to copy
        self._budget = budget
        self._cost_bytes = 0

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self.position + self.size

    def extend(self, views: list[memoryview], size: int, end_offset: int) -> None:
        """Add what was written directly behind."""
        self.size += size
        self.end_offset = end_offset
        if self.size >= COPY_BYTES_MAX:
            self.drop()
        if self.views is not None:
            self.views += views
            cost_bytes = size + BATCH_COST_BYTES * len(views)
            self._cost_bytes += cost_bytes
            self._budget.hold(self, cost_bytes)

    def drop(self) -> None:
        """Give up the views: the segment will be synced by itself."""
        self.take()
        self.views = None

    def take(self) -> None:
        """A round begins, and the views are its from here on."""
        self._budget.release(self, self._cost_bytes)
        self._cost_bytes = 0
