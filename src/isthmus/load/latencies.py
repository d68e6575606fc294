"""How long things took: counts in slots that are less than 1 % wide, whatever the magnitude.

A slot is the upper eight bits of a number of nanoseconds, so it is never wider than 1/128 of
what it holds. What is due before `since_ns` is not counted: that is the warm-up. Compiled with
the types in `latencies.pxd`.
"""

from __future__ import annotations

import math
from array import array
from typing import Final

from isthmus.load.errors import LoadError

ELAPSED_NS_MAX: Final = (1 << 44) - 1  # five hours; what takes longer is counted as that
SLOTS: Final = 37 * 128 + 128

_ELAPSED_NS_MAX = ELAPSED_NS_MAX


class Latencies:
    """Latencies in nanoseconds; the largest one exactly, percentiles to within 1 %."""

    __slots__ = ("_counts", "count", "max_ns", "since_ns")

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * SLOTS))
        self.count = 0
        self.max_ns = 0
        self.since_ns = 0

    def add(self, due_ns: int, now_ns: int) -> None:
        """Count what was due then and happens now."""
        if due_ns < self.since_ns:
            return
        elapsed = now_ns - due_ns
        if elapsed < 0:
            elapsed = 0
        elif elapsed > _ELAPSED_NS_MAX:
            elapsed = _ELAPSED_NS_MAX
        self.count += 1
        if elapsed > self.max_ns:
            self.max_ns = elapsed
        shift = 0
        while elapsed >= 65_536:
            elapsed >>= 8
            shift += 8
        while elapsed >= 256:
            elapsed >>= 1
            shift += 1
        self._counts[128 * shift + elapsed] += 1

    def percentile_ns(self, percent: float) -> int:
        """Return what `percent` of the latencies did not exceed; LoadError without any."""
        if not self.count:
            raise LoadError("nothing was measured, so there is no latency")
        wanted = max(1, math.ceil(self.count * percent / 100))
        passed = 0
        for slot, count in enumerate(self._counts):
            passed += count
            if passed >= wanted:
                return min(_end_of(slot), self.max_ns)
        raise AssertionError("the slots hold less than was counted")


def _end_of(slot: int) -> int:
    """Return the largest number of nanoseconds that a slot holds."""
    if slot < 256:
        return slot
    shift = slot // 128 - 1
    return ((slot - 128 * shift + 1) << shift) - 1
