"""Connecting, subscribing, leaving: sessions, wills, retained messages, take-over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.broker.shore import OFFER, Client, Shore

from isthmus.errors import ClientIdInvalid, SessionTakenOver, TooLarge, UnexpectedPacket
from isthmus.mqtt.packets import (
    PUBACK,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from isthmus.mqtt.properties import (
    ASSIGNED_CLIENT_ID,
    MESSAGE_EXPIRY,
    REASON_STRING,
    SESSION_EXPIRY,
    SHARED_AVAILABLE,
    SUBSCRIPTION_ID,
    USER_PROPERTY,
    WILL_DELAY,
)


@pytest.fixture
def shore() -> Shore:
    return Shore()


# --- sessions ---------------------------------------------------------------------------------


def test_a_session_is_there_again_until_it_expires(shore: Shore) -> None:
    client = shore.client(expiry_s=10)
    client.subscribe("t")
    client.lose()
    shore.runtime.advance(9_000)
    assert client.connect(clean_start=False, expiry_s=10).session_present
    client.lose()
    shore.runtime.advance(10_000)
    assert not client.connect(clean_start=False, expiry_s=10).session_present
    shore.client("p").publish("t", b"x")
    assert client.messages() == []


def test_a_clean_start_ends_the_old_session(shore: Shore) -> None:
    client = shore.client(expiry_s=10)
    client.subscribe("t")
    client.lose()
    assert not client.connect(clean_start=True).session_present
    shore.client("p").publish("t", b"x")
    assert client.messages() == []


def test_a_session_without_expiry_ends_with_its_connection(shore: Shore) -> None:
    client = shore.client()
    client.subscribe("t")
    client.lose()
    assert shore.clients.sessions.entries == {}
    assert len(shore.broker.subscriptions.tree) == 0


def test_before_mqtt_5_clean_session_0_keeps_the_session(shore: Shore) -> None:
    client = shore.client(version=4, clean_start=False)
    client.subscribe("t", 1)
    client.lose()
    shore.client("p").publish("t", b"x", 1, packet_id=1)
    assert client.connect(clean_start=False).session_present
    assert [packet.payload for packet in client.after_connack] == [b"x"]


def test_disconnect_may_shorten_or_lengthen_the_expiry(shore: Shore) -> None:
    client = shore.client(expiry_s=10)
    client.send(Disconnect(0, {SESSION_EXPIRY: 100}))
    shore.runtime.advance(50_000)
    assert client.connect(clean_start=False, expiry_s=10).session_present


def test_disconnect_may_not_bring_an_expiry_where_there_was_none(shore: Shore) -> None:
    client = shore.client()
    with pytest.raises(UnexpectedPacket):
        client.send(Disconnect(0, {SESSION_EXPIRY: 100}))


def test_the_expiry_is_bounded_and_the_client_told(shore: Shore) -> None:
    client = Client(shore, "c", 5)
    assert client.connect(expiry_s=0xFFFF_FFFF).properties[SESSION_EXPIRY] == 1000


def test_a_client_without_an_id_is_given_one(shore: Shore) -> None:
    client = Client(shore, "", 5)
    assigned = client.connect().properties[ASSIGNED_CLIENT_ID]
    assert assigned in shore.clients.sessions.entries


@pytest.mark.parametrize("version", [3, 4])
def test_before_mqtt_5_a_session_to_keep_needs_an_id(shore: Shore, version: int) -> None:
    client = Client(shore, "", version)
    with pytest.raises(ClientIdInvalid):
        client.connect(clean_start=version == 3)


def test_what_is_not_offered_is_said(shore: Shore) -> None:
    for client_id, version in (("c", 5), ("d", 4)):
        client = Client(shore, client_id, version)
        client.offer = replace(OFFER, shared_available=False)
        told = client.connect().properties or {}
        assert told.get(SHARED_AVAILABLE) == (0 if version == 5 else None)


def test_a_client_that_takes_no_connack_is_refused(shore: Shore) -> None:
    client = Client(shore, "c", 5)
    with pytest.raises(TooLarge):
        client.connect(packet_size_max=10)
    assert client.connect(packet_size_max=20).reason == 0


def test_an_answer_larger_than_the_client_takes_ends_its_connection(shore: Shore) -> None:
    client = shore.client(packet_size_max=20)
    client.send(Unsubscribe(2, ["t"]), Subscribe(3, [("t", 1)]))
    assert client.packets() == [Unsuback(2, [0x11]), Suback(3, [1])]
    with pytest.raises(TooLarge):
        client.send(Subscribe(1, [("t", 1)] * 16))
    assert client.packets() == []


def test_a_second_connection_takes_the_session_over(shore: Shore) -> None:
    first = shore.client(expiry_s=100)
    first.subscribe("t", 1)
    second = Client(shore, "c", 5)
    assert second.connect(clean_start=False, expiry_s=100).session_present
    assert isinstance(first.closed, SessionTakenOver)
    first.lose()  # its socket closes later: nothing happens to the session
    shore.client("p").publish("t", b"x", 1, packet_id=1)
    assert second.messages() == [("t", b"x", 1)]


def test_publishes_of_a_lost_connection_are_not_acknowledged_on_the_next(shore: Shore) -> None:
    client = shore.client(expiry_s=100)
    shore.clients.receive(client.entry, client, [Publish(b"t", b"x", 1, packet_id=1)])
    shore.clients.lost(client.entry, client)
    client.connect(clean_start=False, expiry_s=100)
    assert client.after_connack == []
    client.publish("t", b"x", 1, packet_id=1, dup=True)
    assert [(ack.type, ack.packet_id) for ack in client.packets()] == [(PUBACK, 1)]


# --- subscriptions ----------------------------------------------------------------------------


def test_each_filter_is_answered_in_its_order(shore: Shore) -> None:
    client = shore.client()
    client.send(Subscribe(7, [("a", 0), ("a/#/b", 1), ("b", 2)], None))
    (suback,) = client.packets()
    assert isinstance(suback, Suback)
    assert (suback.packet_id, suback.reasons) == (7, [0, 0x8F, 2])
    assert suback.properties == {REASON_STRING: "a/#/b: topic filter invalid (0x8f)"}


def test_before_mqtt_5_every_refusal_is_0x80(shore: Shore) -> None:
    client = shore.client(version=4)
    client.send(Subscribe(7, [("a/#/b", 1)], None))
    (suback,) = client.packets()
    assert suback.reasons == [0x80]


def test_subscriptions_are_limited(shore: Shore) -> None:
    client = shore.client()
    client.send(Subscribe(7, [(f"t/{number}", 0) for number in range(11)], None))
    (suback,) = client.packets()
    assert suback.reasons == [0] * 10 + [0x97]
    client.send(Subscribe(8, [("t/3", 1)], None))
    assert client.packets()[0].reasons == [1]


def test_overlapping_subscriptions_bring_one_copy_with_all_identifiers(shore: Shore) -> None:
    client = shore.client()
    client.subscribe("a/#", 0, properties={SUBSCRIPTION_ID: 300})
    client.subscribe("a/+", 2, properties={SUBSCRIPTION_ID: 2})
    client.packets()
    client.publish("a/b", b"x", 1, packet_id=1)
    (packet,) = [packet for packet in client.packets() if isinstance(packet, Publish)]
    assert packet.qos == 1
    assert sorted(packet.properties[SUBSCRIPTION_ID]) == [2, 300]


def test_unsubscribe_says_what_there_was(shore: Shore) -> None:
    client = shore.client()
    client.subscribe("a", 0)
    client.packets()
    client.send(Unsubscribe(3, ["a", "b"], None))
    (unsuback,) = client.packets()
    assert isinstance(unsuback, Unsuback)
    assert unsuback.reasons == [0, 0x11]
    client.publish("a", b"x")
    assert client.messages() == []


def test_unsubscribe_from_what_is_no_filter_is_refused(shore: Shore) -> None:
    client = shore.client()
    client.send(Unsubscribe(1, ["a/#/b", "", "a"]))
    assert client.packets() == [Unsuback(1, [0x8F, 0x8F, 0x11])]


def test_ping_is_answered(shore: Shore) -> None:
    client = shore.client()
    client.send(Pingreq())
    assert isinstance(client.packets()[0], Pingresp)


@pytest.mark.parametrize("packet", [Pingresp(), Connack(False, 0, None)])
def test_packets_that_only_a_server_sends_are_unexpected(shore: Shore, packet: object) -> None:
    with pytest.raises(UnexpectedPacket):
        shore.client().send(packet)


def test_a_second_connect_is_unexpected(shore: Shore) -> None:
    with pytest.raises(UnexpectedPacket):
        shore.client().send(Connect(5, "c", True, 0, None, None, None, {}))


# --- retained messages ------------------------------------------------------------------------


def retained(client: Client) -> list[tuple[str, bytes, int]]:
    return [
        (packet.topic.decode(), packet.payload, packet.qos)
        for packet in client.packets()
        if isinstance(packet, Publish) and packet.retain
    ]


def test_a_new_subscriber_gets_what_is_retained(shore: Shore) -> None:
    publisher = shore.client("p")
    publisher.publish("a/1", b"old", 1, packet_id=1, retain=True)
    publisher.publish("a/1", b"new", 2, packet_id=2, retain=True)
    publisher.publish("a/2", b"two", 0, retain=True)
    publisher.publish("b", b"", 0, retain=True)
    client = shore.client()
    client.subscribe("a/#", 1)
    assert sorted(retained(client)) == [("a/1", b"new", 1), ("a/2", b"two", 0)]
    client.subscribe("a/2", 0)
    assert retained(client) == [("a/2", b"two", 0)]


def test_a_retained_message_that_fills_a_batch_by_itself_is_retained(shore: Shore) -> None:
    payload = bytes(2 << 20)
    client = shore.client()
    client.send(Publish(b"a", payload, 0, retain=True), Subscribe(9, [("a", 0)], None))
    assert retained(client) == [("a", payload, 0)]
    assert len(shore.records("__mqtt_retained")) == 1


def test_an_empty_payload_removes_the_retained_message(shore: Shore) -> None:
    publisher = shore.client("p")
    publisher.publish("a", b"x", retain=True)
    publisher.publish("a", b"", retain=True)
    client = shore.client()
    client.subscribe("a")
    assert retained(client) == []
    assert [record.value for record in shore.records("__mqtt_retained")] == [b"x", None]


def test_a_live_message_shows_retain_only_if_asked_for(shore: Shore) -> None:
    plain, asking = shore.client("1"), shore.client("2")
    plain.subscribe("a", 0)
    asking.subscribe("a", 0x08)
    shore.client("p").publish("a", b"x", retain=True)
    assert [packet.retain for packet in plain.packets() if isinstance(packet, Publish)] == [0]
    assert [packet.retain for packet in asking.packets() if isinstance(packet, Publish)] == [1]


def test_retain_handling_chooses_when_retained_messages_are_sent(shore: Shore) -> None:
    shore.client("p").publish("a", b"x", retain=True)
    client = shore.client()
    client.subscribe("a", 0x20)
    assert retained(client) == []
    client.subscribe("a", 0x10)
    assert retained(client) == []  # not a new subscription
    client.send(Unsubscribe(1, ["a"], None))
    client.subscribe("a", 0x10)
    assert retained(client) == [("a", b"x", 0)]


def test_retained_messages_are_there_after_a_restart(shore: Shore) -> None:
    publisher = shore.client("p")
    publisher.publish("a", b"x", 1, packet_id=1, retain=True, properties={0x26: [("k", "v")]})
    publisher.publish("b", b"y", retain=True)
    publisher.publish("b", b"", retain=True)
    again = Shore(log=shore.log)
    client = again.client()
    client.subscribe("#", 2)
    (packet,) = [packet for packet in client.packets() if isinstance(packet, Publish)]
    assert (packet.topic, packet.payload, packet.qos, packet.retain) == (b"a", b"x", 1, True)
    assert packet.properties == {0x26: [("k", "v")]}


def test_an_expired_retained_message_is_not_sent(shore: Shore) -> None:
    shore.client("p").publish("a", b"x", retain=True, properties={0x02: 10})
    shore.runtime.advance(10_000)
    client = shore.client()
    client.subscribe("a", 0)
    assert retained(client) == []


@pytest.mark.parametrize("topic_filter", ["a", "+"])
def test_a_retained_message_tells_the_time_it_has_left(shore: Shore, topic_filter: str) -> None:
    properties = {USER_PROPERTY: [("k", "v")], MESSAGE_EXPIRY: 10}
    shore.client("p").publish("a", b"x", retain=True, properties=properties)
    shore.runtime.advance(3_500)
    client = shore.client()
    client.subscribe(topic_filter, 0)
    *_, packet = client.packets()
    assert packet.properties == {USER_PROPERTY: [("k", "v")], MESSAGE_EXPIRY: 7}


def test_a_retained_message_for_a_slow_client_waits_in_the_log(shore: Shore) -> None:
    shore.client("p").publish("a", b"x", 1, packet_id=1, retain=True)
    client = shore.client(receive_maximum=1)
    client.subscribe("a", 1)
    client.subscribe("+", 1)
    first = [packet for packet in client.packets() if isinstance(packet, Publish)]
    assert len(first) == 1
    client.send(Ack(PUBACK, first[0].packet_id))
    assert retained(client) == [("a", b"x", 1)]


def test_a_kafka_record_with_the_retain_header_is_retained(shore: Shore) -> None:
    shore.produce("mqtt", b"a", b"x", headers=[("mqtt.retain", b"1")])
    client = shore.client()
    client.subscribe("a", 0)
    assert retained(client) == [("a", b"x", 0)]


# --- wills ------------------------------------------------------------------------------------


def will(delay_s: int = 0) -> Will:
    return Will(b"w", b"gone", 1, False, {WILL_DELAY: delay_s} if delay_s else {})


def watcher(shore: Shore) -> Client:
    client = shore.client("watcher")
    client.subscribe("w", 1)
    client.packets()
    return client


def test_a_will_is_published_when_the_connection_is_lost(shore: Shore) -> None:
    seen = watcher(shore)
    shore.client(will=will()).lose()
    assert seen.messages() == [("w", b"gone", 1)]


def test_no_local_keeps_a_clients_own_will_away(shore: Shore) -> None:
    client = shore.client("c", expiry_s=100, will=Will(b"t", b"gone", 1, False, None))
    client.subscribe("t", 0x04 | 1)
    watcher = shore.client("w")
    watcher.subscribe("t", 1)
    client.lose()
    assert watcher.messages() == [("t", b"gone", 1)]
    client.connect(clean_start=False)
    assert client.after_connack == []


def test_a_proper_disconnect_takes_the_will_back(shore: Shore) -> None:
    seen = watcher(shore)
    client = shore.client(will=will())
    assert not client.send(Disconnect(0, None))
    client.lose()
    assert seen.messages() == []


def test_disconnect_with_will_publishes_it(shore: Shore) -> None:
    seen = watcher(shore)
    shore.client(will=will()).send(Disconnect(4, None))
    shore.runtime.settle()
    assert seen.messages() == [("w", b"gone", 1)]


def test_a_delayed_will_is_not_sent_if_the_client_comes_back(shore: Shore) -> None:
    seen = watcher(shore)
    client = shore.client(will=will(30), expiry_s=100)
    client.lose()
    shore.runtime.advance(20_000)
    client.connect(clean_start=False, expiry_s=100)
    shore.runtime.advance(60_000)
    assert seen.messages() == []


def test_a_delayed_will_is_sent_after_its_delay(shore: Shore) -> None:
    seen = watcher(shore)
    shore.client(will=will(30), expiry_s=100).lose()
    shore.runtime.advance(29_000)
    assert seen.messages() == []
    shore.runtime.advance(1_000)
    assert seen.messages() == [("w", b"gone", 1)]


def test_the_end_of_the_session_ends_the_delay(shore: Shore) -> None:
    seen = watcher(shore)
    shore.client(will=will(300), expiry_s=100).lose()
    shore.runtime.advance(100_000)
    assert seen.messages() == [("w", b"gone", 1)]


def test_a_session_expires_on_time_although_its_will_was_delayed(shore: Shore) -> None:
    shore.client(will=will(30), expiry_s=100).lose()
    shore.runtime.advance(99_000)
    assert "c" in shore.clients.sessions.entries
    shore.runtime.advance(1_000)
    assert "c" not in shore.clients.sessions.entries


def test_a_take_over_publishes_the_will_of_the_old_connection(shore: Shore) -> None:
    seen = watcher(shore)
    shore.client(will=will(), expiry_s=100)
    Client(shore, "c", 5).connect(clean_start=False)
    shore.runtime.settle()
    assert seen.messages() == [("w", b"gone", 1)]
