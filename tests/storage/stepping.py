"""A world in which background work advances one file operation at a time.

`SimRuntime` does a piece of background work in one go. Here it runs on a thread that stops
before every operation on the disk until it is told to go on, so that operations of the loop
come between those of a sync, and a crash finds the sync half done: by seed, and the same each
time, because only one thread ever runs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from tests.sim import SimRuntime

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.storage.disk import SimDisk

THREADS = 2  # as many pieces of work are under way at one time in the real one
STUCK_S = 30


class Killed(BaseException):
    """The process ended while this thread was at work."""


class Piece:
    """One piece of background work and the thread that does it."""

    def __init__(self, work: Callable[[], Any], done: Callable[..., object]) -> None:
        self._work = work
        self.done = done
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_over = False
        self._killed = False
        self._turn = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    @property
    def is_begun(self) -> bool:
        return self._thread is not None

    def step(self) -> None:
        """Go on until just before the next operation on the disk, or to the end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._turn.release()
        assert self._back.acquire(timeout=STUCK_S), "background work waits for the loop"
        if self.is_over:
            self._thread.join()

    def kill(self) -> None:
        self._killed = True
        while self.is_begun and not self.is_over:
            self.step()

    def pause(self) -> None:
        """Called on the thread: hand over to the loop."""
        self._back.release()
        self._turn.acquire()
        if self._killed:
            raise Killed

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self.result = self._work()
        except BaseException as error:
            self.error = error
        self.is_over = True
        self._back.release()

    def is_on(self, thread: threading.Thread) -> bool:
        return self._thread is thread


class SteppingRuntime(SimRuntime):
    """See the head of this file; `offloaded` holds what is not over."""

    def __init__(self, chance: random.Random, disk: SimDisk) -> None:
        super().__init__(chance.getrandbits(32))
        self._chance = chance
        self._loop = threading.current_thread()
        self.interleaving = True
        disk.before_call = self._before_call

    def offload(self, work: Callable[[], Any], done: Callable[..., object]) -> None:
        self.offloaded.append(Piece(work, done))  # type: ignore[arg-type]

    def step(self) -> None:
        """Let one piece of work come to its next operation."""
        if not self.offloaded:
            return
        slot = self._chance.randrange(min(THREADS, len(self.offloaded)))
        piece: Piece = self.offloaded[slot]  # type: ignore[assignment]
        piece.step()
        if piece.is_over:
            del self.offloaded[slot]
            self.defer(lambda: piece.done(piece.result, piece.error))

    def after_timer(self) -> None:
        """Let what a timer has set off begin; it goes on with the steps that follow."""
        self.turn()
        self.step()

    def finish_offloaded(self) -> None:
        while self.offloaded:
            self.step()

    def finish_begun(self) -> None:
        """Let what is under way end; what is not begun stays so."""
        while any(piece.is_begun for piece in self.offloaded):  # type: ignore[attr-defined]
            self.step()

    def kill(self) -> None:
        """End all background work where it is."""
        self.interleaving = False
        for piece in self.offloaded:
            piece.kill()  # type: ignore[attr-defined]
        self.offloaded.clear()

    def _before_call(self) -> None:
        current = threading.current_thread()
        if current is self._loop:
            while self.interleaving and self.offloaded and self._chance.random() < 0.4:
                self.step()
            return
        piece: Piece = next(each for each in self.offloaded if each.is_on(current))  # type: ignore
        piece.pause()
