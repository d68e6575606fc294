"""The Runtime on asyncio, with uvloop where it is installed."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# A round of syncing, a sweep, housekeeping, a file of the journal, a look at a full disk: each
# has one piece of work at a time, so nobody waits for another, an acknowledgement least of all.
THREADS = 5
READ_THREADS = 4  # a disk serves several reads better together than one after the other
CREW_CLOSE_S = 0.5  # threads with slow work have this long to end with the server

Work = tuple["Callable[[], Any]", "Callable[[Any, BaseException | None], object]"]


class WorkQueue:
    """Pieces of work for some threads: a byte in a pipe for each wakes one thread.

    Not queue.SimpleQueue: there a piece wakes threads that find nothing, each an interpreter
    lock taken and given back; and the one that it is for waits for that lock until the loop
    has nothing to do. Writing to a pipe lets go of it at once.
    """

    __slots__ = ("_pieces", "_reader", "_writer")

    def __init__(self) -> None:
        self._pieces: deque[Work | None] = deque()
        self._reader, self._writer = os.pipe()

    def put(self, piece: Work | None) -> None:
        """Give a piece to the thread that waits longest; None ends a thread."""
        self._pieces.append(piece)
        os.write(self._writer, b"\0")

    def get(self) -> Work | None:
        """Wait for a piece and take it."""
        os.read(self._reader, 1)
        return self._pieces.popleft()

    def __len__(self) -> int:
        """Return how many pieces nobody has taken."""
        return len(self._pieces)

    def close(self) -> None:
        """Let go of the pipe; nobody waits any more."""
        os.close(self._reader)
        os.close(self._writer)
        self._reader = self._writer = -1  # what comes now is an error, not in another file


class LoopCrew:
    """Threads for one kind of slow work; each is started when there is work for it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, name: str, threads: int, waiting_max: int
    ) -> None:
        self._loop = loop
        self._name = name
        self._threads_max = threads
        self._at_work = 0  # threads that are not to end
        self._waiting_max = waiting_max
        self._pieces = WorkQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # of `_is_closed`: after it the loop may be gone
        self._is_closed = False

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> bool:
        if len(self._pieces) >= self._waiting_max:
            return False
        if self._at_work < self._threads_max:
            self._at_work += 1
            name = f"isthmus-{self._name}-{len(self._threads)}"
            thread = threading.Thread(
                target=run, args=(self._pieces, self._tell), name=name, daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._pieces.put((work, done))
        return True

    def resize(self, threads: int) -> None:
        """Have so many threads at most; those too many end when they have nothing to do."""
        self._threads_max = threads
        while self._at_work > threads:
            self._at_work -= 1
            self._pieces.put(None)

    def close(self) -> None:
        """Let the threads go; what they do just now nobody hears of."""
        with self._lock:
            self._is_closed = True
        self.resize(0)
        deadline = time.monotonic() + CREW_CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self._pieces.close()

    def _tell(self, done: Callable[..., object], *outcome: Any) -> None:
        with self._lock:
            if not self._is_closed:
                self._loop.call_soon_threadsafe(done, *outcome)


class LoopRuntime:
    """What the core takes from the world, given by an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # An executor would make a future for each piece of work, and nobody looks at it.
        self._work = WorkQueue()
        self._reads = WorkQueue()
        self._threads = [
            *self._start(THREADS, "isthmus", self._work),
            *self._start(READ_THREADS, "isthmus-read", self._reads),
        ]
        self._crews: dict[str, LoopCrew] = {}
        # Deferred calls run after the sockets of this turn and before the next wait.
        self.defer: Callable[[Callable[[], object]], object] = loop.call_soon

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def later(self, delay_ms: int, call: Callable[[], object]) -> Callable[[], None]:
        return self._loop.call_later(delay_ms / 1000, call).cancel

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        self._work.put((work, done))

    def offload_read(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]
    ) -> None:
        self._reads.put((work, done))

    def crew(self, name: str, threads: int, waiting_max: int) -> LoopCrew:
        """Return threads for one kind of slow work, which wait for at most so much of it.

        They end with the server, whatever is not done by then. Asked for again under its name
        it is the same one, with as many threads as is said now.
        """
        crew = self._crews.get(name)
        if crew is None:
            crew = self._crews[name] = LoopCrew(self._loop, name, threads, waiting_max)
        crew.resize(threads)
        return crew

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def close(self) -> None:
        """Wait for the work that was given, and let the threads go."""
        for _ in range(THREADS):
            self._work.put(None)
        for _ in range(READ_THREADS):
            self._reads.put(None)
        for thread in self._threads:
            thread.join()
        self._work.close()
        self._reads.close()
        for crew in self._crews.values():
            crew.close()

    def _start(self, count: int, name: str, pieces: WorkQueue) -> list[threading.Thread]:
        threads = [
            threading.Thread(
                target=run,
                args=(pieces, self._loop.call_soon_threadsafe),
                name=f"{name}-{number}",
                daemon=True,
            )
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        return threads


def run(pieces: WorkQueue, tell: Callable[..., object]) -> None:
    """Do the pieces of work that come, until there is None; a thread's life."""
    while (piece := pieces.get()) is not None:
        work, done = piece
        result: Any = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # handed to the caller, whatever it is
            failure = error
        tell(done, result, failure)
