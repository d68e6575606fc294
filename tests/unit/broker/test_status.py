"""`$SYS`: what is said when, and the means per minute."""

from __future__ import annotations

import math

from tests.sim import SimRuntime
from tests.unit.broker.shore import Shore

from isthmus.broker.status import LOADS, Status, totals_of

NAMES = (
    "clients/total",
    "messages/received",
    "messages/sent",
    "publish/messages/dropped",
    "publish/messages/received",
    "publish/messages/sent",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
)


class Room:
    """A status over totals that the test sets."""

    def __init__(self) -> None:
        self.runtime = SimRuntime()
        self.totals = dict.fromkeys(NAMES, 0)
        self.said: dict[str, bytes] = {}
        Status(
            self.runtime,
            self.said.__setitem__,
            lambda: dict(self.totals),
            version="1.2.3",
            interval_s=10,
        )

    def after(self, seconds: int) -> dict[str, bytes]:
        """Return what is said in the next seconds, by what follows $SYS/broker/."""
        self.said.clear()
        self.runtime.advance(seconds * 1000)
        return {name.removeprefix("$SYS/broker/"): text for name, text in self.said.items()}


def test_all_of_it_is_said_at_the_start() -> None:
    room = Room()
    assert room.said["$SYS/broker/version"] == b"isthmus version 1.2.3"
    assert room.said["$SYS/broker/uptime"] == b"0 seconds"
    assert room.said["$SYS/broker/messages/received"] == b"0"
    assert room.said["$SYS/broker/load/messages/received/15min"] == b"0.00"
    assert not {"$SYS/broker/sockets", "$SYS/broker/connections"} & room.said.keys()
    assert len(room.said) == 2 + len(NAMES) - 2 + 1 + 9 * 3


def test_only_what_has_changed_is_said_again() -> None:
    room = Room()
    assert room.after(9) == {}
    assert room.after(1) == {"uptime": b"10 seconds"}
    room.totals["clients/total"] = 4
    assert room.after(10) == {
        "uptime": b"20 seconds",
        "clients/total": b"4",
        "clients/maximum": b"4",
    }
    room.totals["clients/total"] = 3
    assert room.after(10) == {"uptime": b"30 seconds", "clients/total": b"3"}


def test_means_come_near_what_goes_on_and_then_fade() -> None:
    room = Room()
    for _ in range(6):
        room.totals["messages/received"] += 100  # in 10 s: 600 in a minute
        said = room.after(10)
    for over in (1, 5, 15):
        expected = 600 * (1 - math.exp(-1 / over))
        assert said[f"load/messages/received/{over}min"] == f"{expected:.2f}".encode()
    said = room.after(60)
    faded = 600 * (1 - math.exp(-1)) * math.exp(-1)
    assert said["load/messages/received/1min"] == f"{faded:.2f}".encode()


def test_totals_of_a_shore() -> None:
    shore = Shore()
    subscriber = shore.client("s", expiry_s=10)
    subscriber.subscribe("t/#", 0)
    publisher = shore.client("p", version=4)
    publisher.publish("t/1", b"12345", retain=True)
    publisher.publish("t/2", b"678")
    publisher.publish("$mine", b"")
    for client in (subscriber, publisher):
        client.subscribe("$share/g/other", 0)
    totals = totals_of(shore.broker, shore.clients, 7, (1000, 2000))
    assert set(LOADS.values()) <= totals.keys()
    for name, expected in {
        "clients/total": 2,
        "clients/connected": 2,
        "clients/disconnected": 0,
        "publish/messages/received": 3,
        "publish/messages/sent": 2,
        "publish/messages/dropped": 1,
        "publish/bytes/received": 8,
        "publish/bytes/sent": 8,
        "messages/sent": 2 + 1 + 2 + 2,
        "retained messages/count": 1,
        "subscriptions/count": 1,
        "shared_subscriptions/count": 2,
        "sockets": 7,
        "heap/current": 1000,
        "heap/maximum": 2000,
    }.items():
        assert totals[name] == expected, name
    subscriber.lose()
    publisher.lose()
    totals = totals_of(shore.broker, shore.clients, 7, (0, 0))
    assert (totals["clients/total"], totals["clients/disconnected"]) == (1, 1)
    shore.runtime.advance(11_000)
    totals = totals_of(shore.broker, shore.clients, 7, (0, 0))
    assert (totals["clients/total"], totals["clients/expired"]) == (0, 1)
