"""The newest batches of a partition, kept in memory so that hot readers touch no file.

Views of the very bytes that came in, no copies. A tail is bounded by
`TailBudget.tail_bytes_max` and all tails together by `total_bytes_max`: when there is too
much, the tails of the partitions unused longest are given up whole. What has left a tail is
read from the file. Compiled, see `tail.pxd`.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

BATCH_COST_BYTES: Final = 400  # what Python needs to keep one batch beyond its bytes
_BATCH_COST_BYTES: Final = BATCH_COST_BYTES  # the same as a C constant


class TailBudget:
    """All tails of one log, the longest unused first, and their limits."""

    __slots__ = ("_tails", "tail_bytes_max", "total_bytes", "total_bytes_max")

    def __init__(self, tail_bytes_max: int, total_bytes_max: int) -> None:
        self.tail_bytes_max = tail_bytes_max
        self.total_bytes_max = total_bytes_max
        self.total_bytes = 0
        self._tails: dict[Tail, None] = {}

    def use(self, tail: Tail, grown_bytes: int) -> None:
        """Note that a tail has grown; give up others where all together are too large."""
        self.total_bytes += grown_bytes
        self._tails.pop(tail, None)
        self._tails[tail] = None
        while self.total_bytes > self.total_bytes_max and self._tails:
            next(iter(self._tails)).clear()

    def forget(self, tail: Tail, freed_bytes: int) -> None:
        """Note that a tail is empty now."""
        self.total_bytes -= freed_bytes
        self._tails.pop(tail, None)


class Tail:
    """The newest batches of one partition."""

    __slots__ = ("_base_bytes", "_budget", "_ends", "_next_offsets", "_views", "start_offset")

    def __init__(self, budget: TailBudget, start_offset: int) -> None:
        self.start_offset = start_offset  # the first offset that the tail can answer
        self._budget = budget
        self._views: list[memoryview] = []
        self._next_offsets: list[int] = []
        self._ends: list[int] = []  # bytes up to and including each batch, from some zero
        self._base_bytes = 0  # the same before the first batch

    @property
    def cost_bytes(self) -> int:
        """Memory that the tail takes."""
        return self._cost(len(self._views))

    def extend(self, views: list[memoryview], next_offsets: list[int]) -> None:
        """Add batches that follow those here."""
        before = self._cost(len(self._views))
        end = self._ends[-1] if self._ends else self._base_bytes
        for view in views:
            end += len(view)
            self._ends.append(end)
        self._views += views
        self._next_offsets += next_offsets
        if self._cost(len(self._views)) > self._budget.tail_bytes_max:
            self._trim()
        self._budget.use(self, self._cost(len(self._views)) - before)

    def read(self, offset: int, bytes_max: int, limit: int) -> list[memoryview] | None:
        """Return whole batches from the one that holds `offset` to before `limit`.

        At least one where there is one; None where `offset` is older than the tail.
        """
        if offset < self.start_offset:
            return None
        first = bisect_right(self._next_offsets, offset)
        end = bisect_right(self._next_offsets, limit)
        if first >= end:
            return []
        before = self._ends[first - 1] if first else self._base_bytes
        fitting = bisect_right(self._ends, before + bytes_max, first)
        return self._views[first : min(end, max(fitting, first + 1))]

    def clear(self) -> None:
        """Give up all batches."""
        cost = self.cost_bytes
        if self._views:
            self._drop(len(self._views))
        self._budget.forget(self, cost)

    def cut(self, offset: int) -> None:
        """Give up the batches that end up to `offset`: the file says it shorter now."""
        count = bisect_right(self._next_offsets, offset)
        if count == len(self._views):
            self.clear()
        elif count:
            self._budget.total_bytes -= self._cost(count)
            self._drop(count)

    def _cost(self, count: int) -> int:
        """Cost of the first `count` batches."""
        if count == 0:
            return 0
        return self._ends[count - 1] - self._base_bytes + count * _BATCH_COST_BYTES

    def _trim(self) -> None:
        """Drop the oldest until a quarter is free, so that this is done once in a while."""
        keep = self._budget.tail_bytes_max * 3 // 4
        total, count = self.cost_bytes, 0
        while count < len(self._views) and total - self._cost(count) > keep:
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        self.start_offset = self._next_offsets[count - 1]
        self._base_bytes = self._ends[count - 1]
        del self._views[:count], self._next_offsets[:count], self._ends[:count]
