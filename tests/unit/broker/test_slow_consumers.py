"""Who takes nothing of what waits for it, and who does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.broker.shore import Client, Shore

from isthmus.broker import slow_consumers
from isthmus.broker.slow_consumers import SlowConsumers
from isthmus.mqtt.packets import PUBACK, Ack

if TYPE_CHECKING:
    import pytest

PERIOD_S = 30


def looking(shore: Shore, *, drops_oldest: bool = False) -> SlowConsumers:
    slow = SlowConsumers(shore.runtime, shore.clients.sessions)
    slow.start(PERIOD_S, drops_oldest=drops_oldest)
    return slow


def subscribed(shore: Shore, client_id: str, window: int = 1) -> Client:
    client = shore.client(client_id, receive_maximum=window)
    client.subscribe("t", 1)
    client.packets()
    return client


def publish(shore: Shore, count: int) -> None:
    publisher = shore.client("publisher")
    for _ in range(count):
        publisher.publish("t", b"x")
        publisher.publish("t", b"y", 1, packet_id=1)
        publisher.packets()


def test_who_takes_nothing_is_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    shore = Shore()
    slow = looking(shore)
    stuck, quick = subscribed(shore, "stuck"), subscribed(shore, "quick", 1_000)
    publish(shore, 5)
    assert len(quick.messages()) == 10
    shore.runtime.advance(PERIOD_S * 1000)
    assert (slow.now, slow.total) == (0, 0)  # not for a whole period yet
    shore.runtime.advance(3 * PERIOD_S * 1000)
    assert (slow.now, slow.total) == (1, 1)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("client takes nothing client=stuck peer=127.0.0.1:5000 waiting=")
    for packet_id in range(1, 6):
        stuck.send(Ack(PUBACK, packet_id, 0, None))
    shore.runtime.advance(PERIOD_S * 1000)
    assert (slow.now, slow.total) == (0, 1)


def test_who_takes_some_is_not_slow() -> None:
    shore = Shore()
    slow = looking(shore)
    client = subscribed(shore, "steady")
    publish(shore, 20)
    for packet_id in range(1, 10):
        shore.runtime.advance(PERIOD_S * 1000)
        client.send(Ack(PUBACK, packet_id, 0, None))
    assert slow.total == 0


def test_who_is_not_connected_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_consumers, "LOOKED_AT_PER_TURN", 1)
    shore = Shore()
    slow = looking(shore)
    away = shore.client("away", clean_start=False, expiry_s=1_000)
    away.subscribe("t", 1)
    away.lose()
    for name in ("a", "b"):
        subscribed(shore, name)
    publish(shore, 5)
    shore.runtime.advance(3 * PERIOD_S * 1000)
    assert (slow.now, slow.total) == (2, 2)


def test_what_is_dropped_from_the_front_is_not_taken() -> None:
    shore = Shore(queue_length_max=3, queue_policy="oldest")
    slow = looking(shore, drops_oldest=True)
    subscribed(shore, "stuck")
    publish(shore, 5)
    shore.runtime.advance(PERIOD_S * 1000)
    publish(shore, 5)
    shore.runtime.advance(PERIOD_S * 1000)
    assert (slow.now, slow.total) == (1, 1)
