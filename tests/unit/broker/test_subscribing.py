"""Packets of very many topic filters: some in each turn, one answer, nothing lost."""

from __future__ import annotations

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.mqtt.control import FILTERS_AT_A_TIME
from isthmus.mqtt.packets import Publish, Suback, Subscribe, Unsuback, Unsubscribe

MANY = 3 * FILTERS_AT_A_TIME + 7
FILTERS = [f"t/{number}" for number in range(MANY)]


def shore_of(retained: int = 0) -> Shore:
    shore = Shore(retained_max=10_000, queue_length_max=100_000)
    shore.clients.subscribing.subscriptions_max = MANY
    for topic_filter in FILTERS[:retained]:
        shore.broker.publish(None, Publish(topic_filter.encode(), b"kept", 1, True))
    shore.runtime.settle()
    return shore


def begin(client: Client, packet: Subscribe | Unsubscribe) -> None:
    """Have a packet acted on as far as one turn has time for it."""
    client.shore.clients.receive(client.entry, client, [packet])


def finish(client: Client) -> int:
    """Have the rest of it acted on; return in how many turns."""
    turns = 1
    while client.shore.clients.subscribing.go_on(client.entry):
        turns += 1
    client.shore.runtime.settle()
    return turns


def subscribe_all(client: Client) -> None:
    begin(client, Subscribe(1, [(topic_filter, 1) for topic_filter in FILTERS], None))
    finish(client)


def names_in(packets: list[object]) -> list[str]:
    return [one.topic.decode() for one in packets if isinstance(one, Publish)]


def test_retained_messages_come_behind_the_one_suback() -> None:
    """[MQTT-3.8.4-1, MQTT-3.8.4-6]"""
    shore = shore_of(retained=MANY)
    client = shore.client()
    begin(client, Subscribe(1, [(topic_filter, 0) for topic_filter in FILTERS], None))
    shore.runtime.settle()
    assert client.packets() == []
    assert finish(client) >= MANY // FILTERS_AT_A_TIME
    suback, *publishes = client.packets()
    assert isinstance(suback, Suback)
    assert suback.reasons == [0] * MANY
    assert sorted(names_in(publishes)) == sorted(FILTERS)


def test_an_unsubscribe_is_taken_some_at_a_time() -> None:
    """[MQTT-3.11.3-1, MQTT-3.11.3-2, MQTT-3.11.4-4]"""
    client = shore_of().client()
    subscribe_all(client)
    client.packets()
    begin(client, Unsubscribe(2, [*FILTERS, "t/0", "no#filter"], None))
    left = len(client.entry.session.subscriptions)
    assert left == MANY - FILTERS_AT_A_TIME
    assert client.packets() == []
    assert finish(client) >= MANY // FILTERS_AT_A_TIME
    (unsuback,) = client.packets()
    assert isinstance(unsuback, Unsuback)
    assert unsuback.reasons == [0] * MANY + [0x11, 0x8F]
    assert not client.entry.session.subscriptions


@pytest.mark.parametrize("crash", [False, True])
def test_who_goes_before_the_suback_is_greeted_when_back(crash: bool) -> None:
    shore = shore_of(retained=10)
    client = shore.client(expiry_s=100)
    begin(client, Subscribe(1, [(topic_filter, 0) for topic_filter in FILTERS], None))
    shore.runtime.turn()
    client.lose()
    if crash:
        shore = shore.crash()
    again = Client(shore, "c", 5)
    again.connect(clean_start=False, expiry_s=100)
    packets = [*again.after_connack, *again.packets()]
    assert sorted(names_in(packets)) == sorted(FILTERS[:10])


def test_the_subscriptions_of_a_session_that_ends_are_removed_in_turns() -> None:
    shore = shore_of()
    client, other = shore.client("c"), shore.client("other")
    subscribe_all(client)
    other.subscribe("t/5")
    tree = shore.broker.subscriptions.tree
    shore.clients.lost(client.entry, client)
    assert len(tree) == MANY + 1 - FILTERS_AT_A_TIME
    receivers, _ = shore.broker.subscriptions.receivers("t/5")
    assert [one.session.client_id for one in receivers] == ["other"]
    again = shore.client("c")
    again.subscribe("t/6")  # while those of the session before it still go
    again.publish("t/6", b"for the new one")
    assert again.messages() == [("t/6", b"for the new one", 0)]
    shore.runtime.settle()
    assert len(tree) == 2


def test_who_gets_a_topic_name_is_asked_anew_only_where_that_may_have_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shore = Shore()
    client, other = shore.client("c"), shore.client("other")
    client.subscribe("plant/1/+")
    client.publish("plant/1/temp", b"first")
    asked: list[str] = []
    subscriptions = shore.broker.subscriptions
    ask = subscriptions.receivers

    def counted(topic_name: str) -> object:
        if not topic_name.startswith("$"):
            asked.append(topic_name)
        return ask(topic_name)

    monkeypatch.setattr(subscriptions, "receivers", counted)
    other.subscribe("station/1/+")
    client.publish("plant/1/temp", b"second")
    assert asked == []
    other.subscribe("plant/+/temp")
    client.publish("plant/1/temp", b"third")
    assert asked == ["plant/1/temp"]
    other.lose()
    client.publish("plant/1/temp", b"fourth")
    assert asked == ["plant/1/temp"] * 2
    assert [payload for _, payload, _ in client.messages()] == [
        b"first",
        b"second",
        b"third",
        b"fourth",
    ]
