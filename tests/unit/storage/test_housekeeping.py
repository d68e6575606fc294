"""The schedule of the local engine's background work, turned by hand and on real threads."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from tests.sim import SimRuntime

from isthmus.errors import StorageError
from isthmus.server.runtime import LoopRuntime
from isthmus.storage.local.housekeeping import Housekeeping


@pytest.fixture
def runtime():
    return SimRuntime()


@pytest.fixture
def housekeeping(runtime):
    housekeeping = Housekeeping(runtime)
    housekeeping.start()
    return housekeeping


def counting(events, name):
    def run():
        events.append(name)
        yield None

    return run


def test_a_job_comes_up_every_interval(housekeeping, runtime):
    events = []
    housekeeping.add("often", counting(events, "often"), 100)
    housekeeping.add("seldom", counting(events, "seldom"), 250)
    runtime.advance(99)
    assert events == []
    runtime.advance(1)
    assert events == ["often"]
    runtime.advance(400)
    assert (events.count("often"), events.count("seldom")) == (5, 2)


def test_jobs_added_before_the_start_wait_for_it(runtime):
    housekeeping, events = Housekeeping(runtime), []
    housekeeping.add("patient", counting(events, "patient"), 100)
    housekeeping.add("woken", counting(events, "woken"), 100).wake()
    runtime.advance(1000)
    assert events == []
    housekeeping.start()
    runtime.settle()
    assert events == ["woken"]
    runtime.advance(100)
    assert sorted(events) == ["patient", "woken", "woken"]


def test_a_job_without_interval_comes_up_when_woken(housekeeping, runtime):
    events = []
    job = housekeeping.add("asked", counting(events, "asked"), None)
    runtime.advance(10_000)
    assert events == []
    job.wake(50)
    job.wake(200)  # later than what is agreed already
    runtime.advance(50)
    assert events == ["asked"]
    runtime.advance(10_000)
    assert events == ["asked"]


def test_waking_brings_a_pass_forward(housekeeping, runtime):
    events = []
    job = housekeeping.add("job", counting(events, "job"), 1000)
    job.wake(10)
    runtime.advance(10)
    assert events == ["job"]
    runtime.advance(999)
    assert events == ["job"]  # the interval counts from the end of a pass
    runtime.advance(1)
    assert events == ["job", "job"]


def test_a_job_woken_in_the_middle_of_a_pass_begins_another_one(housekeeping, runtime):
    events = []

    def run():
        events.append("begun")
        if len(events) == 1:
            job.wake()
        yield lambda: None
        events.append("ended")

    job = housekeeping.add("job", run, None)
    job.wake()
    runtime.settle()
    assert events == ["begun", "ended", "begun", "ended"]


def test_what_is_yielded_runs_elsewhere_and_its_result_comes_back(housekeeping, runtime):
    events = []

    def run():
        events.append((yield lambda: 6 * 7))

    housekeeping.add("job", run, 100).wake()
    runtime.settle()
    assert events == [42]


def test_an_exception_of_a_piece_is_raised_at_the_yield(housekeeping, runtime):
    events = []

    def run():
        try:
            yield lambda: 1 // 0
        except ZeroDivisionError:
            events.append("met")
        events.append((yield lambda: "went on"))

    housekeeping.add("job", run, 100).wake()
    runtime.settle()
    assert events == ["met", "went on"]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (OSError("no such file"), logging.WARNING),
        (StorageError("full"), logging.WARNING),
        (ValueError("a bug"), logging.ERROR),
    ],
)
@pytest.mark.parametrize("off_the_loop", [False, True])
def test_a_job_that_fails_is_logged_and_stops_nobody(
    housekeeping, runtime, caplog, error, level, off_the_loop
):
    events = []

    def fail():
        events.append("failed")
        raise error

    def run():
        if off_the_loop:
            yield fail
        fail()
        yield None

    housekeeping.add("the broken one", run, 100)
    housekeeping.add("the good one", counting(events, "good"), 100)
    runtime.advance(200)
    assert events.count("failed") == 2
    assert events.count("good") == 2
    assert [record.levelno for record in caplog.records] == [level, level]
    assert "the broken one was broken off" in caplog.text


def test_jobs_take_turns_and_only_one_piece_is_under_way(housekeeping, runtime):
    events = []

    def job(name):
        def run():
            for number in range(3):
                assert (yield lambda: len(runtime.offloaded)) == 0
                events.append((name, number))

        return run

    for name in "ab":
        housekeeping.add(name, job(name), None).wake()
    runtime.settle()
    assert events == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_the_close_ends_a_pass_where_it_stands(housekeeping, runtime):
    events = []

    def run():
        try:
            yield lambda: events.append("done after the close")
        finally:
            events.append("put away")

    job = housekeeping.add("job", run, 100)
    job.wake()
    runtime.turn()
    runtime.turn()  # the piece waits for a thread
    assert len(runtime.offloaded) == 1
    housekeeping.close()
    assert events == ["put away"]
    runtime.settle()
    runtime.advance(1000)
    job.wake()
    runtime.advance(1000)
    assert events == ["put away"]


def test_the_close_waits_for_the_piece_that_runs():
    begun, go_on, events = threading.Event(), threading.Event(), []

    def piece():
        begun.set()
        go_on.wait(30)
        events.append("ran to its end")

    def run():
        yield piece
        events.append("never")

    async def main():
        runtime = LoopRuntime(asyncio.get_running_loop())
        housekeeping = Housekeeping(runtime)
        housekeeping.start()
        housekeeping.add("job", run, None).wake()
        assert await asyncio.to_thread(begun.wait, 30)
        threading.Timer(0.05, go_on.set).start()
        housekeeping.close()
        events.append("closed")
        runtime.close()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert events == ["ran to its end", "closed"]


def test_a_sync_round_does_not_wait_for_housekeeping():
    """However many jobs have work, one of the threads is free."""
    begun, release, synced = threading.Event(), threading.Event(), threading.Event()

    def piece():
        begun.set()
        release.wait(30)

    def run():
        yield piece

    async def main():
        runtime = LoopRuntime(asyncio.get_running_loop())
        housekeeping = Housekeeping(runtime)
        housekeeping.start()
        for number in range(5):
            housekeeping.add(str(number), run, None).wake()
        assert await asyncio.to_thread(begun.wait, 30)
        runtime.offload(synced.set, lambda result, error: None)
        assert await asyncio.to_thread(synced.wait, 30)
        assert not release.is_set()
        release.set()
        housekeeping.close()
        runtime.close()

    asyncio.run(main())
