"""A world turned by hand: time, deferral and background work for deterministic tests."""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class SimRuntime:
    """A Runtime whose clock and turns the test moves; one seed repeats one history."""

    def __init__(self, seed: int = 0, now_ms: int = 1_700_000_000_000) -> None:
        self.random = random.Random(seed)
        self._now_ms = now_ms
        self._monotonic_ms = 0
        self._deferred: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[int, int, Callable[[], object]]] = []
        self._cancelled: set[int] = set()
        self._sequence = 0
        self.offloaded: deque[
            tuple[Callable[[], Any], Callable[[Any, BaseException | None], object]]
        ] = deque()
        self.reads: deque[
            tuple[Callable[[], Any], Callable[[Any, BaseException | None], object]]
        ] = deque()

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_ms(self) -> int:
        return self._monotonic_ms

    def monotonic_s(self) -> float:
        return self._monotonic_ms / 1000

    def defer(self, call: Callable[[], object]) -> None:
        self._deferred.append(call)

    def later(self, delay_ms: int, call: Callable[[], object]) -> Callable[[], None]:
        self._sequence += 1
        number = self._sequence
        heapq.heappush(self._timers, (self._monotonic_ms + delay_ms, number, call))
        return lambda: self._cancelled.add(number)

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        self.offloaded.append((work, done))

    def offload_read(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        self.reads.append((work, done))

    def random_bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    # --- what the test turns ------------------------------------------------------------------

    def turn(self) -> None:
        """Run what was deferred, once; what that defers waits for the next turn."""
        for _ in range(len(self._deferred)):
            self._deferred.popleft()()

    def finish_offloaded(self) -> None:
        """Do the background work that is waiting, one piece after the other."""
        while self.offloaded:
            _finish(*self.offloaded.popleft())

    def finish_reads(self) -> None:
        """Do the background reads that are waiting, and nothing else."""
        while self.reads:
            _finish(*self.reads.popleft())

    def settle(self) -> None:
        """Turn until nothing is deferred and no background work is waiting."""
        while self._deferred or self.offloaded or self.reads:
            self.turn()
            self.finish_offloaded()
            self.finish_reads()

    def set_forward(self, milliseconds: int) -> None:
        """Set the wall clock only; no timer goes by it."""
        self._now_ms += milliseconds

    def after_timer(self) -> None:
        """Do what a timer has set off."""
        self.settle()

    def advance(self, milliseconds: int) -> None:
        """Move both clocks, running the timers that fall due on the way, in order."""
        end = self._monotonic_ms + milliseconds
        while self._timers and self._timers[0][0] <= end:
            due, number, call = heapq.heappop(self._timers)
            self._now_ms += due - self._monotonic_ms
            self._monotonic_ms = due
            if number not in self._cancelled:
                call()
                self.after_timer()
        self._now_ms += end - self._monotonic_ms
        self._monotonic_ms = end


class SimCrew:
    """Slow work that is done when the test says so."""

    def __init__(self, waiting_max: int = 1000) -> None:
        self.waiting: deque[
            tuple[Callable[[], Any], Callable[[Any, BaseException | None], object]]
        ] = deque()
        self.waiting_max = waiting_max

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> bool:
        if len(self.waiting) >= self.waiting_max:
            return False
        self.waiting.append((work, done))
        return True

    def finish(self) -> None:
        """Do the work that is waiting, and what comes of it."""
        while self.waiting:
            _finish(*self.waiting.popleft())


def _finish(
    work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
) -> None:
    try:
        result, error = work(), None
    except BaseException as caught:
        result, error = None, caught
    done(result, error)
