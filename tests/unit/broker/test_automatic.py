"""Automatic subscriptions: who gets which, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import OFFER, Client, Shore

from isthmus.broker.automatic import AutomaticSubscription
from isthmus.broker.inspection import Inspection
from isthmus.broker.rewrite import Rewriting, Rewritings
from isthmus.errors import ConfigError
from isthmus.mqtt.packets import Publish, Subscribe, Unsubscribe

if TYPE_CHECKING:
    from isthmus.broker.subscriptions import Subscription

COMMANDS = AutomaticSubscription("devices/%c/commands", qos=1)
NEWS = AutomaticSubscription("news/#", retained=False)


def subscriptions(shore: Shore, client_id: str = "c") -> dict[str, Subscription]:
    session = shore.clients.sessions.entries[client_id].session
    return shore.broker.subscriptions.of(session)


def test_what_nobody_could_ask_for_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"mqtt\.auto_subscribe: a misplaced wildcard"):
        AutomaticSubscription("a/#/b")
    with pytest.raises(ConfigError, match="no_local is not for"):
        AutomaticSubscription("$share/g/a", no_local=True)


# --- sessions ---------------------------------------------------------------------------------


def test_a_new_session_has_them_and_says_so() -> None:
    shore = Shore(automatic=[COMMANDS, NEWS])
    client = shore.client()
    assert client.after_connack == []
    client.subscribe("own")
    found = subscriptions(shore)
    assert [(name, found[name].qos, found[name].is_automatic) for name in found] == [
        ("devices/c/commands", 1, True),
        ("news/#", 0, True),
        ("own", 1, False),
    ]
    page = Inspection(shore.broker, shore.clients).subscriptions("c", "", 10)
    assert page is not None
    listed: list[Any] = list(page.items)
    assert [one.automatic for one in listed] == [True, True, False]


def test_retained_messages_come_behind_connack_where_they_are_wanted() -> None:
    shore = Shore(automatic=[COMMANDS, NEWS])
    publisher = shore.client("p")
    for name in ("devices/c/commands", "news/1"):
        publisher.publish(name, b"x", retain=True)
    client = shore.client()
    assert [packet.topic for packet in client.after_connack] == [b"devices/c/commands"]


def test_a_session_that_is_there_keeps_what_it_has() -> None:
    shore = Shore(automatic=[COMMANDS, NEWS])
    client = shore.client(expiry_s=1000)
    client.send(Unsubscribe(1, ["news/#"]))
    client.send(Subscribe(2, [("devices/c/commands", 2)]))
    client.lose()
    for again in (shore, shore.crash()):
        client = Client(again, "c", 5)
        assert client.connect(clean_start=False, expiry_s=1000).session_present
        (found,) = subscriptions(again).values()
        assert (found.topic_filter, found.qos, found.is_automatic) == (
            "devices/c/commands",
            2,
            False,
        )
    client.connect(clean_start=True)
    assert set(subscriptions(again)) == {"devices/c/commands", "news/#"}


def test_that_one_is_automatic_is_known_after_a_crash() -> None:
    shore = Shore(automatic=[COMMANDS])
    shore.client(expiry_s=1000)
    assert subscriptions(shore.crash())["devices/c/commands"].is_automatic


def test_they_are_checked_and_rewritten_as_any_other() -> None:
    shore = Shore(
        automatic=[AutomaticSubscription("#"), AutomaticSubscription("old/%c", qos=2)],
        rewritings=Rewritings([Rewriting("old/{a}", "new/{a}")]),
    )
    client = Client(shore, "c", 5)
    client.offer = replace(OFFER, wildcard_available=False, maximum_qos=1)
    client.connect()
    assert {name: one.qos for name, one in subscriptions(shore).items()} == {"new/c": 1}


def test_a_session_has_no_more_than_it_may() -> None:
    many = [AutomaticSubscription(f"a/{number}") for number in range(11)]
    shore = Shore(automatic=many)
    shore.client()
    assert len(subscriptions(shore)) == 10


def test_no_local_and_retain_as_published() -> None:
    own = AutomaticSubscription("t/%c", qos=2, no_local=True)
    others = AutomaticSubscription("t/+", retain_as_published=True)
    shore = Shore(automatic=[own])
    client = shore.client()
    client.publish("t/c", b"x")
    assert client.messages() == []
    shore = Shore(automatic=[others])
    client = shore.client()
    client.publish("t/x", b"x", retain=True)
    (message,) = [packet for packet in client.packets() if isinstance(packet, Publish)]
    assert message.retain
