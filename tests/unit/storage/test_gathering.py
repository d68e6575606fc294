"""Rounds of syncing that wait for a window to be whole again, against modelled clients.

A round takes 5 ms. Clients with a window send again when they are answered; others when they
have something to say.
"""

from __future__ import annotations

import heapq
import random
from itertools import pairwise

import pytest

from isthmus.storage.local.gathering import HIT, SURE_MIN, WAIT_MAX_S, Gathering

ROUND_S = 0.005
PERIOD_S = 0.0002  # between looks, as the turns of a loop are


class Rounds:
    """A disk with its rounds, and records that come at times, each of one or several."""

    def __init__(
        self,
        arrivals: list[tuple[float, int]],
        turnaround_s: float | None,
        *,
        gathers: bool = True,
        spread_s: float = 0.0,
    ) -> None:
        self.gathering = Gathering()
        self.gathers = gathers
        self.spread_s = spread_s  # so much longer it may take
        self.random = random.Random(5)
        self.arrivals = arrivals  # heap of (time, records)
        self.turnaround_s = turnaround_s  # None: who is answered does not send again
        self.rounds: list[int] = []  # records of each
        self.waits_s: list[float] = []  # from arrival to answer, of each record
        self.now_s = 0.0

    def run(self, until_s: float) -> None:
        waiting: list[tuple[float, int]] = []
        under_way: list[tuple[float, int]] = []
        ends_s = 0.0
        while self.now_s < until_s:
            self.now_s += PERIOD_S
            while self.arrivals and self.arrivals[0][0] <= self.now_s:
                waiting.append(heapq.heappop(self.arrivals))
            there = sum(records for _, records in waiting)
            if under_way and self.now_s >= ends_s:
                self._answer(under_way, there)
                under_way = []
            if under_way or not waiting:
                continue
            asks = self.gathers and self.gathering.is_on
            if asks and self.gathering.holds(self.now_s, there):
                continue
            under_way, waiting = waiting, []
            self.rounds.append(there)
            ends_s = self.now_s + ROUND_S

    def _answer(self, answered: list[tuple[float, int]], there: int) -> None:
        records = sum(count for _, count in answered)
        self.gathering.ended(self.now_s, ROUND_S, records, there)
        for came_s, count in answered:
            self.waits_s += [self.now_s - came_s] * count
            if self.turnaround_s is not None:
                delay_s = self.turnaround_s + self.spread_s * self.random.random()
                heapq.heappush(self.arrivals, (self.now_s + delay_s, count))


@pytest.mark.parametrize("turnaround_s", [0.0003, 0.002, 0.004])
def test_a_window_is_synced_whole(turnaround_s: float) -> None:
    """Five requests, the first of them a little earlier: in two halves if nobody waited."""
    rounds = Rounds([(0.0, 150), *[(0.001, 150)] * 4], turnaround_s)
    rounds.run(4.0)
    cycle_s = ROUND_S + turnaround_s
    assert sum(rounds.rounds) > 0.9 * 750 * 4.0 / (cycle_s + 2 * PERIOD_S)
    assert rounds.rounds[-20:] == [750] * 20


def test_a_window_shows_though_some_of_it_is_on_its_way_now_and_then() -> None:
    counts, done = [], []
    for gathers in (True, False):
        arrivals = [(number * 0.0015, 150) for number in range(5)]
        rounds = Rounds(arrivals, 0.0002, gathers=gathers, spread_s=0.006)
        rounds.run(4.0)
        counts.append(len(rounds.rounds))
        done.append(sum(rounds.rounds))
    assert counts[0] < 0.8 * counts[1]
    assert done[0] > done[1]


def test_many_small_windows_are_as_good_as_one() -> None:
    seed = random.Random(3)
    rounds = Rounds(sorted((seed.random() * 0.02, 1) for _ in range(100)), 0.0005)
    rounds.run(3.0)
    assert sum(rounds.rounds[-40:]) > 40 * 85


@pytest.mark.parametrize("rate", [300, 2_000, 20_000])
def test_who_sends_at_times_of_its_own_is_hardly_held_up(rate: int) -> None:
    """Nobody's answer would bring the next record, so nothing is won by waiting."""
    means_s = []
    for gathers in (True, False):
        seed = random.Random(rate)
        arrivals, at_s = [], 0.0
        while at_s < 5.0:
            at_s += seed.expovariate(rate)
            arrivals.append((at_s, 1))
        rounds = Rounds(arrivals, None, gathers=gathers)
        rounds.run(5.0)
        means_s.append(sum(rounds.waits_s) / len(rounds.waits_s))
    assert means_s[0] < 1.05 * means_s[1]


def test_one_at_a_time_never_waits() -> None:
    rounds = Rounds([(0.0, 1)], 0.0003)
    rounds.run(2.0)
    assert max(rounds.waits_s) < ROUND_S + 3 * PERIOD_S


def test_who_does_not_come_back_is_waited_for_ever_more_seldom() -> None:
    gathering = Gathering()
    tries = []
    for number in range(5_000):
        gathering.ended(float(number), ROUND_S, 60, 40)
        if gathering.is_on:
            assert gathering.holds(number + 0.001, 40)
            assert not gathering.holds(number + 2 * ROUND_S, 40)
            tries.append(number)
    apart = [after - before for before, after in pairwise(tries)]
    assert apart[0] >= 2 * SURE_MIN // HIT
    assert all(after >= 2 * before for before, after in pairwise(apart))


def test_a_wait_ends_however_long_a_round_took() -> None:
    gathering = Gathering()
    for _ in range(SURE_MIN):
        gathering.ended(7.0, 60.0, 60, 40)
    assert gathering.is_on
    assert gathering.holds(7.0, 40)
    assert not gathering.holds(7.0 + WAIT_MAX_S, 40)
