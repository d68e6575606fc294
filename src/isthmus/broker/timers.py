"""One clock for all that waits for its moment: ends of sessions, wills, whatever is put off.

A hundred thousand sessions at rest each wait for their end. Here that is one small object in a
heap, and all of them together hold one timer of the runtime, the next one's. What is cancelled
stays in the heap until its moment comes, or until half of the heap is like it.

Nothing is called early. What is due at one moment is called in the order in which it was asked
for; where that is much, some of it in each turn of the loop, so that messages go on meanwhile.
The moments are those of the monotonic clock: they live as long as the process, and whoever
needs more writes down a time of the wall clock beside them.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.runtime import Runtime

SLICE_MS: Final = 10  # at a time
CANCELLED_MIN: Final = 1_000  # so many may stay in any heap
_NUMBER_BITS: Final = 40  # years of deadlines, at ten thousand a second

Subject = TypeVar("Subject")


class Deadline:
    """One call that is to come; see `Deadlines.after`."""

    __slots__ = ("_call", "_order", "_subject")

    def __init__(self, order: int, call: Callable[[Any], object], subject: object) -> None:
        self._order = order  # its moment in ms, then its number: one int is smaller than two
        self._call: Callable[[Any], object] | None = call  # None: over, or cancelled
        self._subject = subject

    def __lt__(self, other: Deadline) -> bool:
        return self._order < other._order

    @property
    def moment_ms(self) -> int:
        """When it is due, by the monotonic clock."""
        return self._order >> _NUMBER_BITS

    @property
    def is_pending(self) -> bool:
        """Whether it is still to come."""
        return self._call is not None

    def _take(self) -> tuple[Callable[[Any], object] | None, Any]:
        """Return what is to be called, with what, and let go of both."""
        call, self._call = self._call, None
        subject, self._subject = self._subject, None
        return call, subject


class Deadlines:
    """All calls that are to come."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._heap: list[Deadline] = []
        self._cancelled = 0  # of those in the heap
        self._number = 0  # of the newest
        self._disarm: Callable[[], None] | None = None  # cancels the timer, if there is one

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def after(
        self, delay_ms: int, call: Callable[[Subject], object], subject: Subject
    ) -> Deadline:
        """Have `call(subject)` run after `delay_ms`, once.

        Where many wait, let `call` be one function for all: then a deadline is all that each of
        them costs.
        """
        self._number += 1
        moment_ms = self._runtime.monotonic_ms() + delay_ms
        deadline = Deadline(moment_ms << _NUMBER_BITS | self._number, call, subject)
        heappush(self._heap, deadline)
        if self._heap[0] is deadline:
            self._arm()
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Have nothing called; nor does it matter if that is so already."""
        if not deadline.is_pending:
            return
        deadline._take()
        self._cancelled += 1
        if self._cancelled > max(CANCELLED_MIN, len(self._heap) // 2):
            self._heap[:] = [each for each in self._heap if each.is_pending]
            heapify(self._heap)
            self._cancelled = 0

    def _arm(self) -> None:
        """Have the timer ring when the first one is due."""
        if self._disarm is not None:
            self._disarm()
        delay_ms = self._heap[0].moment_ms - self._runtime.monotonic_ms()
        self._disarm = self._runtime.later(max(delay_ms, 0), self._ring)

    def _ring(self) -> None:
        """Call what is due; the rest another time, even if one of them fails."""
        heap = self._heap
        now_ms = self._runtime.monotonic_ms()
        end_ms = now_ms + SLICE_MS
        try:
            while heap and heap[0].moment_ms <= now_ms <= end_ms:
                call, subject = heappop(heap)._take()
                if call is None:
                    self._cancelled -= 1
                else:
                    call(subject)
                now_ms = self._runtime.monotonic_ms()
        finally:
            if heap:
                self._arm()
