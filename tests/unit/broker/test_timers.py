"""Deadlines: in order, never early, one timer for all, and bounded whatever is cancelled."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from tests.sim import SimRuntime

from isthmus.broker.timers import CANCELLED_MIN, SLICE_MS, Deadline, Deadlines


class Clock:
    """Deadlines in a world turned by hand, with what they called and when."""

    def __init__(self) -> None:
        self.runtime = SimRuntime()
        self.deadlines = Deadlines(self.runtime)
        self.called: list[tuple[int, str]] = []

    def after(self, delay_ms: int, name: str) -> Deadline:
        return self.deadlines.after(delay_ms, self.call, name)

    def call(self, name: str) -> None:
        self.called.append((self.runtime.monotonic_ms(), name))

    def timers(self) -> int:
        """Return how many timers of the runtime are set."""
        cancelled = self.runtime._cancelled
        return sum(number not in cancelled for _, number, _ in self.runtime._timers)


def test_each_is_called_at_its_moment_with_what_it_is_about() -> None:
    clock = Clock()
    clock.after(500, "late")
    clock.after(100, "soon")
    clock.after(300, "between")
    clock.runtime.advance(99)
    assert clock.called == []
    clock.runtime.advance(901)
    assert clock.called == [(100, "soon"), (300, "between"), (500, "late")]
    assert len(clock.deadlines) == 0


def test_those_of_one_moment_come_in_the_order_in_which_they_were_asked_for() -> None:
    clock = Clock()
    names = [f"number {number}" for number in range(100)]
    for name in names:
        clock.after(5, name)
    clock.runtime.advance(5)
    assert [name for _, name in clock.called] == names


def test_what_is_cancelled_is_not_called() -> None:
    clock = Clock()
    first, second = clock.after(10, "first"), clock.after(20, "second")
    clock.deadlines.cancel(first)
    clock.deadlines.cancel(first)
    assert (first.is_pending, second.is_pending, len(clock.deadlines)) == (False, True, 1)
    clock.runtime.advance(50)
    assert clock.called == [(20, "second")]
    clock.deadlines.cancel(second)  # over by now
    assert (second.is_pending, len(clock.deadlines)) == (False, 0)


def test_all_of_them_hold_one_timer() -> None:
    clock = Clock()
    for delay_ms in (900, 700, 800, 100, 200, 1000):
        clock.after(delay_ms, "one")
        assert clock.timers() == 1
    while len(clock.deadlines):
        clock.runtime.advance(100)
        assert clock.timers() == min(len(clock.deadlines), 1)
    assert len(clock.called) == 6


def test_a_call_may_ask_for_another_and_cancel_others() -> None:
    clock = Clock()
    doomed = clock.after(10, "doomed")

    def go_on(name: str) -> None:
        clock.call(name)
        clock.deadlines.cancel(doomed)
        clock.after(0, "at once")
        clock.after(7, "later")

    clock.deadlines.after(9, go_on, "begin")
    clock.runtime.advance(100)
    assert clock.called == [(9, "begin"), (9, "at once"), (16, "later")]


def test_one_that_fails_does_not_stop_the_clock() -> None:
    clock = Clock()

    def fail(name: str) -> None:
        raise ValueError(name)

    clock.deadlines.after(10, fail, "a bug")
    clock.after(10, "the next")
    with pytest.raises(ValueError, match="a bug"):
        clock.runtime.advance(10)
    clock.runtime.advance(1)
    assert [name for _, name in clock.called] == ["the next"]


def test_a_clock_that_rings_early_calls_nobody_early() -> None:
    clock = Clock()
    later = clock.runtime.later
    clock.runtime.later = lambda delay_ms, call: later(delay_ms - (delay_ms > 1), call)
    clock.after(10, "one")
    for _ in range(9):
        clock.runtime.advance(1)
        assert clock.called == []
    clock.runtime.advance(1)
    assert clock.called == [(10, "one")]


def test_many_that_are_due_at_once_leave_the_loop_its_turns() -> None:
    clock = Clock()
    turns: list[int] = []

    def work(name: str) -> None:
        clock.call(name)
        clock.runtime._monotonic_ms += 1

    for number in range(100):
        clock.deadlines.after(5, work, f"number {number}")
    clock.runtime.after_timer = lambda: turns.append(len(clock.called))
    clock.runtime.advance(300)
    assert turns[-1] == 100
    called_at_a_time = [last - first for first, last in pairwise([0, *turns])]
    assert max(called_at_a_time) <= SLICE_MS + 1
    assert [name for _, name in clock.called] == [f"number {number}" for number in range(100)]


def test_what_is_cancelled_again_and_again_does_not_pile_up() -> None:
    clock = Clock()
    kept = [clock.after(1_000_000 + number, f"number {number}") for number in range(50)]
    for _ in range(10 * CANCELLED_MIN):
        clock.deadlines.cancel(clock.after(900_000, "never"))
        assert len(clock.deadlines._heap) <= len(kept) + CANCELLED_MIN + 1
    assert len(clock.deadlines) == 50
    clock.runtime.advance(2_000_000)
    assert [name for _, name in clock.called] == [f"number {number}" for number in range(50)]


@pytest.mark.parametrize("seed", range(5))
def test_any_mixture_of_asking_and_cancelling(seed: int) -> None:
    chance = random.Random(seed)
    clock = Clock()
    expected: dict[str, int] = {}
    pending: dict[str, Deadline] = {}
    for number in range(3_000):
        now_ms = clock.runtime.monotonic_ms()
        name, delay_ms = f"number {number}", chance.randrange(2_000)
        pending[name] = clock.after(delay_ms, name)
        expected[name] = now_ms + delay_ms
        if chance.random() < 0.6:
            chosen = chance.choice(list(pending))
            deadline = pending.pop(chosen)
            if deadline.is_pending:
                clock.deadlines.cancel(deadline)
                del expected[chosen]
        if chance.random() < 0.1:
            clock.runtime.advance(chance.randrange(100))
    clock.runtime.advance(10_000)
    in_order = sorted(expected.items(), key=lambda each: each[1])
    assert [(moment_ms, name) for name, moment_ms in in_order] == clock.called
