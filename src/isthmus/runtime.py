"""All that the core takes from the world: time, chance, deferral and blocking work.

Given to constructors, so a test turns the clock by hand and a seed replays a failure. The real
one is `server/runtime.py`; the simulated one is `tests/sim.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Crew(Protocol):
    """A few threads for one kind of work which may take longer than others should wait."""

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> bool:
        """Run `work` on one of them, then `done(result, error)` on the loop.

        False: so much is waiting already that this is not taken.
        """


class Runtime(Protocol):
    """What the floors below the sockets may ask of the world."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since the epoch."""

    def monotonic_ms(self) -> int:
        """Return a clock that never goes back, in milliseconds."""

    def monotonic_s(self) -> float:
        """Return the same clock in seconds, as fine as it goes."""

    def defer(self, call: Callable[[], object], /) -> object:
        """Run `call` once, after the sockets of this turn of the loop, before the next wait."""

    def later(self, delay_ms: int, call: Callable[[], object]) -> Callable[[], None]:
        """Run `call` after `delay_ms`; the returned function cancels it, even if it has run."""

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        """Run `work` on another thread, then `done(result, error)` on the loop."""

    def offload_read(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        """Do the same for work that only reads: it never waits for a sync, nor one for it."""

    def random_bytes(self, count: int) -> bytes:
        """Return `count` unpredictable bytes."""
