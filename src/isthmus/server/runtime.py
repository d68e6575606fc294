"""The Runtime on asyncio, with uvloop where it is installed."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

THREADS_MAX = 4  # blocking work is fdatasync and cold reads: few at a time


class LoopRuntime:
    """What the core takes from the world, given by an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="isthmus")
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
        self._threads.submit(self._run, work, done)

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def close(self) -> None:
        """Wait for the work that is under way, and let the threads go."""
        self._threads.shutdown(wait=True)

    def _run(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # handed to the caller, whatever it is
            failure = error
        self._loop.call_soon_threadsafe(done, result, failure)
