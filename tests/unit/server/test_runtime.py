"""Threads for slow work: a bounded number of pieces waits for them, and none for the end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from isthmus.server.runtime import LoopRuntime


def test_slow_work_is_done_elsewhere_and_told_on_the_loop() -> None:
    async def scenario() -> None:
        runtime = LoopRuntime(asyncio.get_running_loop())
        crew = runtime.crew("slow", 2, 10)
        told: asyncio.Queue[tuple[Any, Any, bool]] = asyncio.Queue()
        here = threading.current_thread()

        def done(result: Any, error: Any) -> None:
            told.put_nowait((result, error, threading.current_thread() is here))

        error = ValueError("no")

        def fail() -> None:
            raise error

        assert crew.offload(threading.current_thread, done)
        thread, no_error, on_loop = await told.get()
        assert (thread is here, no_error, on_loop) == (False, None, True)
        assert crew.offload(fail, done)
        assert await told.get() == (None, error, True)
        runtime.close()

    asyncio.run(scenario())


def test_more_slow_work_than_may_wait_is_not_taken() -> None:
    async def scenario() -> None:
        runtime = LoopRuntime(asyncio.get_running_loop())
        crew = runtime.crew("slow", 2, 3)
        begun, go_on = threading.Semaphore(0), threading.Event()
        told: asyncio.Queue[Any] = asyncio.Queue()

        def work() -> None:
            begun.release()
            go_on.wait()

        for _ in range(2):
            assert crew.offload(work, lambda *outcome: told.put_nowait(outcome))
            begun.acquire()  # both threads are busy now
        taken = [
            crew.offload(work, lambda *outcome: told.put_nowait(outcome)) for _ in range(5)
        ]
        assert taken == [True, True, True, False, False]
        go_on.set()
        for _ in range(5):
            await told.get()
        runtime.close()

    asyncio.run(scenario())


def test_a_crew_that_is_asked_for_again_has_as_many_threads_as_is_said_then() -> None:
    async def scenario() -> None:
        runtime = LoopRuntime(asyncio.get_running_loop())
        crew = runtime.crew("slow", 3, 10)
        go_on, begun = threading.Event(), threading.Semaphore(0)
        told: asyncio.Queue[Any] = asyncio.Queue()

        def work() -> str:
            begun.release()
            go_on.wait()
            return threading.current_thread().name

        for _ in range(3):
            assert crew.offload(work, lambda name, _: told.put_nowait(name))
            begun.acquire()
        go_on.set()
        assert len({await told.get() for _ in range(3)}) == 3
        assert runtime.crew("slow", 1, 10) is crew
        for _ in range(6):  # behind what ends the other two
            assert crew.offload(work, lambda name, _: told.put_nowait(name))
        assert len({await told.get() for _ in range(6)}) == 1
        runtime.close()

    asyncio.run(scenario())


def test_the_end_does_not_wait_for_slow_work() -> None:
    async def scenario() -> None:
        runtime = LoopRuntime(asyncio.get_running_loop())
        crew = runtime.crew("slow", 1, 3)
        assert crew.offload(go_on.wait, lambda *outcome: told.append(outcome))
        runtime.close()

    go_on = threading.Event()
    told: list[Any] = []
    asyncio.run(scenario())
    go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("isthmus-slow"):
            thread.join()
    assert told == []
