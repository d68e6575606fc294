"""The Runtime on asyncio, with uvloop where it is installed."""

from __future__ import annotations

import os
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

THREADS = 2  # blocking work is fdatasync and what surrounds it: little at a time

Work = tuple["Callable[[], Any]", "Callable[[Any, BaseException | None], object]"]


class LoopRuntime:
    """What the core takes from the world, given by an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # An executor would make a future for each piece of work, and nobody looks at it.
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"isthmus-{number}", daemon=True)
            for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()
        # Deferred calls run after the sockets of this turn and before the next wait.
        self.defer: Callable[[Callable[[], object]], object] = loop.call_soon
        self.post: Callable[[Callable[[], object]], object] = loop.call_soon_threadsafe

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def later(self, delay_ms: int, call: Callable[[], object]) -> Callable[[], None]:
        return self._loop.call_later(delay_ms / 1000, call).cancel

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        self._work.put((work, done))

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def close(self) -> None:
        """Wait for the work that was given, and let the threads go."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (piece := self._work.get()) is not None:
            work, done = piece
            result: Any = None
            failure: BaseException | None = None
            try:
                result = work()
            except BaseException as error:  # handed to the caller, whatever it is
                failure = error
            self._loop.call_soon_threadsafe(done, result, failure)
