"""Who is kept out: by a ban, for flapping, for guessing."""

from __future__ import annotations

import pytest
from tests.sim import SimRuntime
from tests.unit.broker.shore import Shore

from isthmus.broker import guard
from isthmus.broker.bans import Ban
from isthmus.broker.guard import Counter, Streaks
from isthmus.broker.identity import Identity
from isthmus.errors import AdministrativeAction, Banned

LIMITS = Streaks(most=3, window_s=10, blocked_s=60)


def test_too_much_in_a_while_blocks_for_a_time() -> None:
    runtime = SimRuntime()
    counter = Counter(LIMITS, runtime)
    blocked = []
    for _ in range(5):
        counter.count("a")
        blocked.append(counter.is_blocked("a"))
    assert blocked == [False, False, False, True, True]
    assert counter.blocked == 1
    assert not counter.is_blocked("b")
    runtime.advance(59_999)
    assert counter.is_blocked("a")
    runtime.advance(1)
    assert not counter.is_blocked("a")
    counter.count("a")
    assert not counter.is_blocked("a")


def test_what_comes_seldom_blocks_nobody() -> None:
    runtime = SimRuntime()
    counter = Counter(LIMITS, runtime)
    for _ in range(100):
        counter.count("a")
        assert not counter.is_blocked("a")
        runtime.advance(4_000)


def test_a_limit_of_0_counts_nothing() -> None:
    counter = Counter(Streaks(), SimRuntime())
    for _ in range(100):
        counter.count("a")
    assert not counter.is_blocked("a")
    assert counter._streaks == {}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "STREAKS_MAX", 100)
    runtime = SimRuntime()
    counter = Counter(LIMITS, runtime)
    for number in range(1_000):
        counter.count(number)
        assert len(counter._streaks) <= 100
    for _ in range(3):
        counter.count(999)
    assert counter.is_blocked(999)  # the newest were kept


def refused(shore: Shore, client_id: str) -> str:
    with pytest.raises(Banned) as caught:
        shore.client(client_id)
    return str(caught.value)


def test_a_banned_client_is_refused_and_sent_away() -> None:
    shore = Shore()
    pump, valve = shore.client("pump"), shore.client("valve")
    shore.clients.guard.ban(Ban("client", "pump", reason="leaks"))
    assert isinstance(pump.closed, AdministrativeAction)
    assert valve.closed is None
    assert refused(shore, "pump") == "banned: leaks"
    assert shore.clients.guard.unban("client", "pump")
    assert shore.client("pump").closed is None


def test_all_of_a_banned_network_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CHECKED_PER_TURN", 3)
    shore = Shore()
    clients = [shore.client(f"c{number}") for number in range(10)]
    heard: list[None] = []
    shore.clients.guard.follow(lambda: heard.append(None))
    shore.clients.guard.ban(Ban("address", "127.0.0.0/8"))
    assert len(heard) == 1  # the other shore sends its own away
    assert 0 < sum(client.closed is not None for client in clients) < 10
    shore.runtime.settle()
    assert all(client.closed is not None for client in clients)
    assert isinstance(shore.clients.guard.refuses("127.0.0.1"), Banned)
    assert shore.clients.guard.refuses("192.0.2.1") is None


def test_a_client_that_connects_again_and_again_is_kept_out_for_a_while() -> None:
    shore = Shore(flapping=LIMITS)
    for _ in range(3):
        shore.client("nervous").lose()
    shore.client("calm")
    with pytest.raises(Banned):
        shore.client("nervous")
    shore.client("calm")
    shore.runtime.advance(60_000)
    assert shore.client("nervous").closed is None


def test_failed_attempts_keep_an_address_out_for_a_while() -> None:
    shore = Shore(failures=LIMITS)
    mine = shore.clients.guard
    for _ in range(4):
        assert mine.refuses("127.0.0.1") is None
        mine.failed(Identity("127.0.0.1", 5000, "tcp"))
    assert isinstance(mine.refuses("127.0.0.1"), Banned)
    shore.runtime.advance(60_000)
    assert mine.refuses("127.0.0.1") is None
