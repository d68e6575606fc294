"""`$events/clients/…`: what is told of clients, under which names, and only to listeners."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.broker.events import FILTERS_MAX, Events, reason_of_end, topic_name_of
from isthmus.errors import SessionTakenOver
from isthmus.mqtt.packets import Disconnect, Subscribe, Unsubscribe

if TYPE_CHECKING:
    from isthmus.errors import IsthmusError


@pytest.mark.parametrize(
    ("client_id", "level"),
    [
        ("sensor-7", "sensor-7"),
        ("a/b", "a%2Fb"),
        ("+", "%2B"),
        ("x#", "x%23"),
        ("a%2Fb", "a%252Fb"),
        ("ü y", "ü y"),
        ("z" * 5_000, "z" * 4_000),
    ],
)
def test_a_client_id_is_one_level(client_id: str, level: str) -> None:
    assert topic_name_of(client_id, "connected") == f"$events/clients/{level}/connected"


class Room:
    """Events of a shore, told into a list."""

    def __init__(self, *, is_wanted: bool = True) -> None:
        self.shore = Shore()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.events = Events(
            self.shore.runtime,
            lambda name, payload: self.said.append((name, json.loads(payload))),
            lambda _: is_wanted,
        )


def test_what_is_told_of_a_client() -> None:
    room = Room()
    client = room.shore.client("a/b", expiry_s=100)
    entry = client.entry
    who = {
        "client_id": "a/b",
        "user": "",
        "address": "127.0.0.1",
        "port": 5000,
        "listener": "tcp",
        "at_ms": room.shore.runtime.now_ms(),
    }
    room.events.connected(entry, client, present=False)
    room.events.subscribed(entry, client, [("x/#", 1)])
    room.events.unsubscribed(entry, client, ["x/#"])
    room.events.disconnected(entry, client, 0x8E)
    room.events.disconnected(entry, client, None)
    assert room.said == [
        (
            "$events/clients/a%2Fb/connected",
            who
            | {
                "event": "connected",
                "protocol": "5.0",
                "keep_alive_s": 60,
                "session_present": False,
                "session_expiry_s": 100,
            },
        ),
        (
            "$events/clients/a%2Fb/subscribed",
            who
            | {
                "event": "subscribed",
                "count": 1,
                "filters": [{"topic_filter": "x/#", "qos": 1}],
            },
        ),
        (
            "$events/clients/a%2Fb/unsubscribed",
            who | {"event": "unsubscribed", "count": 1, "filters": [{"topic_filter": "x/#"}]},
        ),
        (
            "$events/clients/a%2Fb/disconnected",
            who
            | {
                "event": "disconnected",
                "reason_code": 0x8E,
                "reason": "session taken over (0x8e)",
                "connected_at_ms": who["at_ms"],
            },
        ),
        (
            "$events/clients/a%2Fb/disconnected",
            who
            | {
                "event": "disconnected",
                "reason_code": None,
                "reason": "connection lost",
                "connected_at_ms": who["at_ms"],
            },
        ),
    ]


def test_of_many_filters_some_are_named_and_all_are_counted() -> None:
    room = Room()
    client = room.shore.client("c")
    room.events.subscribed(client.entry, client, [(f"{n}", 0) for n in range(5_000)])
    ((_, said),) = room.said
    assert (said["count"], len(said["filters"])) == (5_000, FILTERS_MAX)


def test_nothing_is_made_that_nobody_wants() -> None:
    room = Room(is_wanted=False)
    client = room.shore.client("c")
    room.events.connected(client.entry, client, present=False)
    assert room.said == []


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (None, "connection lost"),
        (0, "normal disconnection (0x00)"),
        (4, "disconnect with will (0x04)"),
        (0x98, "administrative action (0x98)"),
    ],
)
def test_why_in_words(code: int | None, text: str) -> None:
    assert reason_of_end(code) == text


class Leaving(Client):
    """A client whose connection says that it is gone when it is closed, as real ones do."""

    def close(self, error: IsthmusError) -> None:
        super().close(error)
        self.shore.clients.lost(self.entry, self, error)


def told_to(client: Client) -> list[tuple[str, int | None, int | None]]:
    """Return the events that came to a client: their names, reason codes and counts."""
    found = []
    for name, payload, _ in client.messages():
        said = json.loads(payload)
        assert name == topic_name_of(said["client_id"], said["event"])
        found.append((said["event"], said.get("reason_code"), said.get("count")))
    return found


def test_a_client_that_comes_subscribes_and_goes() -> None:
    shore = Shore()
    watcher = shore.client("watcher")
    watcher.subscribe("$events/clients/c/#", 1)
    client = shore.client("c", expiry_s=100)
    client.send(Subscribe(1, [("a", 1), ("$bad/#/x", 1), ("b", 0)]))
    client.send(Unsubscribe(2, ["a", "never"]))
    client.send(Disconnect(4))
    again = Leaving(shore, "c", 5)
    again.connect(clean_start=False)
    other = Client(shore, "c", 5)
    other.connect()  # takes over
    assert isinstance(again.closed, SessionTakenOver)
    other.lose()
    assert told_to(watcher) == [
        ("connected", None, None),
        ("subscribed", None, 2),
        ("unsubscribed", None, 1),
        ("disconnected", 4, None),
        ("connected", None, None),
        ("disconnected", 0x8E, None),
        ("connected", None, None),
        ("disconnected", None, None),
    ]


def test_nobody_may_say_what_is_the_servers() -> None:
    shore = Shore()
    watcher = shore.client("watcher")
    watcher.subscribe("$events/#", 1)
    assert [event for event, *_ in told_to(watcher)] == ["subscribed"]
    liar = shore.client("liar")
    liar.publish("$events/clients/x/connected", b"{}")
    assert [event for event, *_ in told_to(watcher)] == ["connected"]


def test_where_nobody_has_subscribed_nothing_is_said() -> None:
    shore = Shore()
    shore.client("watcher").subscribe("$events/clients/other/#", 1)
    before = shore.broker.volatile.partition.end_offset
    client = shore.client("c")
    client.subscribe("a")
    client.lose()
    assert shore.broker.volatile.partition.end_offset == before


def test_a_group_may_share_them() -> None:
    shore = Shore()
    members = [shore.client(f"m{number}") for number in range(2)]
    for member in members:
        member.subscribe("$share/g/$events/clients/c/#", 0)
    shore.client("c").lose()
    told = sorted(event for member in members for event, *_ in told_to(member))
    assert told == ["connected", "disconnected"]
