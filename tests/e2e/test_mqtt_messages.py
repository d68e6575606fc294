"""What the server does with one message: wildcards, retained, wills, user properties."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv311
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.e2e import raw_mqtt
from tests.e2e.mqtt_programs import (
    Inbox,
    Message,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import TICK_S, in_time, keep_within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paho.mqtt.client import Client
    from tests.e2e.conftest import Shores
    from tests.e2e.server_process import Address


def topic_names(inbox: Inbox, count: int) -> set[str]:
    return {message.topic_name for message in inbox.wait(count)}


def publish_from_elsewhere(server: Address, *messages: Message) -> None:
    """Publish with a client that lives no longer than that."""
    with paho_client(server) as client:
        paho_publish(client, messages)


@pytest.mark.parametrize(
    ("topic_filter", "matching"),
    [
        ("a/+/c", {"a/b/c", "a//c"}),
        ("a/#", {"a", "a/b", "a/b/c", "a//c", "a/"}),
        ("+/b", {"a/b", "/b"}),
        ("+", {"a", "b"}),
        ("a/+", {"a/b", "a/"}),
        ("/+", {"/b"}),
        ("a/b", {"a/b"}),
    ],
)
@pytest.mark.parametrize("version", [MQTTv311, 5])
def test_wildcards(
    topic_filter: str, matching: set[str], version: int, shores: Shores, unique: str
) -> None:
    names = ["a", "a/", "a/b", "a/b/c", "a//c", "/b", "b"]
    with paho_client(shores.mqtt, version=version) as client:
        inbox = paho_subscribe(client, f"{unique}/{topic_filter}")
        publish_from_elsewhere(
            shores.mqtt, *(Message(f"{unique}/{name}", b"x") for name in names)
        )
        arrived = topic_names(inbox, len(matching))
        inbox.stays_at(len(matching), 0.05)
    assert arrived == {f"{unique}/{name}" for name in matching}


def test_wildcards_do_not_match_names_that_begin_with_a_dollar(
    shores: Shores, unique: str
) -> None:
    """[MQTT-4.7.2-1]"""
    with paho_client(shores.mqtt) as client:
        inbox = paho_subscribe(client, f"+/{unique}")
        publish_from_elsewhere(
            shores.mqtt, Message(f"$x/{unique}", b"hidden"), Message(f"x/{unique}", b"seen")
        )
        assert [message.payload for message in inbox.wait(1)] == [b"seen"]
        inbox.stays_at(1)


def test_overlapping_subscriptions_deliver_at_least_the_highest_quality(
    shores: Shores, unique: str
) -> None:
    """[MQTT-3.3.4-2]; one copy or one for each subscription, both are allowed."""
    with raw_mqtt.raw_session(shores.mqtt, unique) as session:
        for packet_id, (name, qos) in enumerate((("#", 0), ("a", 1)), start=1):
            session.send(raw_mqtt.subscribe(packet_id, f"{unique}/{name}", qos))
            session.expect(raw_mqtt.SUBACK)
        publish_from_elsewhere(
            shores.mqtt, Message(f"{unique}/a", b"x", 1), Message(f"{unique}/z", b"end", 1)
        )
        arrived = []
        while not arrived or arrived[-1].payload() != b"end":
            arrived.append(session.expect(raw_mqtt.PUBLISH))
    assert len(arrived) in (2, 3)
    assert max(one.qos for one in arrived[:-1]) == 1


def test_unsubscribe_ends_delivery(shores: Shores, unique: str) -> None:
    with raw_mqtt.raw_session(shores.mqtt, unique) as session:
        session.send(raw_mqtt.subscribe(1, unique, 1))
        session.expect(raw_mqtt.SUBACK)
        body = raw_mqtt.uint16(2) + b"\0" + raw_mqtt.text(unique)
        session.send(raw_mqtt.packet(raw_mqtt.UNSUBSCRIBE, body, 2))
        session.expect(raw_mqtt.UNSUBACK)
        publish_from_elsewhere(shores.mqtt, Message(unique, b"x"))
        assert session.is_silent()


# --- retained -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [MQTTv311, 5])
def test_a_retained_message_greets_a_later_subscriber(
    version: int, shores: Shores, unique: str
) -> None:
    retained = [Message(f"{unique}/{name}", name.encode(), 1, True) for name in "abc"]
    publish_from_elsewhere(shores.mqtt, *retained)
    publish_from_elsewhere(shores.mqtt, Message(f"{unique}/b", b"newer", 1, True))
    with paho_client(shores.mqtt, version=version) as client:
        inbox = paho_subscribe(client, f"{unique}/+")
        arrived = {message.topic_name[-1]: message for message in inbox.wait(3)}
        inbox.stays_at(3, 0.1)
    assert {name: one.payload for name, one in arrived.items()} == {
        "a": b"a",
        "b": b"newer",
        "c": b"c",
    }
    assert all(message.retain for message in arrived.values())


def test_a_live_message_is_not_marked_retained(shores: Shores, unique: str) -> None:
    """[MQTT-3.3.1-12]: to an established subscription the flag is 0."""
    with paho_client(shores.mqtt) as client:
        inbox = paho_subscribe(client, unique)
        publish_from_elsewhere(shores.mqtt, Message(unique, b"x", 1, True))
        assert [message.retain for message in inbox.wait(1)] == [False]


def test_an_empty_retained_payload_clears(shores: Shores, unique: str) -> None:
    publish_from_elsewhere(
        shores.mqtt, Message(unique, b"x", 1, True), Message(unique, b"", 1, True)
    )
    with paho_client(shores.mqtt) as client:
        paho_subscribe(client, unique).stays_at(0)


# --- will -----------------------------------------------------------------------------------


@contextlib.contextmanager
def client_with_will(
    server: Address, client_id: str, topic_name: str, delay_s: int
) -> Iterator[Client]:
    """Hold a paho client whose will waits for a while [MQTT 3.1.3.2.2]."""
    will, session = Properties(PacketTypes.WILLMESSAGE), Properties(PacketTypes.CONNECT)
    will.WillDelayInterval = delay_s
    session.SessionExpiryInterval = 3600

    def prepare(client: Client) -> None:
        client.will_set(topic_name, b"gone", 1, properties=will)

    options = {"clean_start": False, "properties": session}
    with paho_client(server, client_id, prepare=prepare, **options) as client:
        yield client


def cut(client: Client) -> float:
    """Break the connection of a client, and return the time just before."""
    client.loop_stop()  # first: its thread would connect again
    cut_s = time.monotonic()
    client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    return cut_s


def test_a_broken_connection_publishes_the_will(shores: Shores, unique: str) -> None:
    with paho_client(shores.mqtt) as watcher:
        inbox = paho_subscribe(watcher, f"{unique}/will")
        will = (f"{unique}/will", b"gone", 1, False)
        with raw_mqtt.raw_session(shores.mqtt, unique, will=will) as session:
            session.cut()
        assert [message.payload for message in inbox.wait(1)] == [b"gone"]


def test_a_protocol_error_publishes_the_will(shores: Shores, unique: str) -> None:
    with paho_client(shores.mqtt) as watcher:
        inbox = paho_subscribe(watcher, f"{unique}/will")
        will = (f"{unique}/will", b"gone", 1, True)
        with raw_mqtt.raw_session(shores.mqtt, unique, will=will) as session:
            session.send(raw_mqtt.packet(raw_mqtt.PUBLISH, b"", 6))
            assert [message.payload for message in inbox.wait(1)] == [b"gone"]
    with paho_client(shores.mqtt) as later:
        assert paho_subscribe(later, f"{unique}/will").wait(1)[0].retain


def test_disconnect_discards_the_will(shores: Shores, unique: str) -> None:
    """[MQTT-3.14.4-3]"""
    with paho_client(shores.mqtt) as watcher:
        inbox = paho_subscribe(watcher, f"{unique}/will")
        with client_with_will(shores.mqtt, unique, f"{unique}/will", 0):
            pass
        inbox.stays_at(0)


def test_a_will_waits_for_its_delay(shores: Shores, unique: str) -> None:
    with paho_client(shores.mqtt) as watcher:
        inbox = paho_subscribe(watcher, f"{unique}/will")
        with client_with_will(shores.mqtt, unique, f"{unique}/will", 1) as client:
            cut_s = cut(client)
            inbox.wait(1)
            assert inbox.arrived_at_s[0] - cut_s > 1 - TICK_S


def test_who_comes_back_in_time_leaves_no_will(shores: Shores, unique: str) -> None:
    """[MQTT-3.1.3-9]"""

    def comes_back(delay_s: int) -> None:
        will = (f"{unique}/{delay_s}", delay_s)
        with paho_client(shores.mqtt) as watcher:
            inbox = paho_subscribe(watcher, will[0])
            with (
                client_with_will(shores.mqtt, unique, *will) as client,
                client_with_will(shores.mqtt, f"{unique}-later", *will) as later,
            ):
                cut_s = cut(client)
                with client_with_will(shores.mqtt, unique, *will):
                    keep_within(delay_s, cut_s)
                    later_cut_s = cut(later)
                    inbox.wait(1)
            inbox.stays_at(1)
        # It is that of the other client: the first one's had been due before.
        assert inbox.arrived_at_s[0] - later_cut_s > delay_s - TICK_S

    in_time(comes_back)


def test_disconnect_with_will_message_publishes_it(shores: Shores, unique: str) -> None:
    """Reason code 0x04 of DISCONNECT [MQTT 3.14.2.1]."""
    with paho_client(shores.mqtt) as watcher:
        inbox = paho_subscribe(watcher, f"{unique}/will")
        will = (f"{unique}/will", b"gone", 1, False)
        with raw_mqtt.raw_session(shores.mqtt, unique, will=will) as session:
            session.send(raw_mqtt.packet(raw_mqtt.DISCONNECT, b"\x04"))
            inbox.wait(1)


def test_a_silent_client_is_cut_and_its_will_published(shores: Shores, unique: str) -> None:
    """Keep alive of 1 s: the connection ends after one and a half [MQTT-3.1.2-22]."""
    with paho_client(shores.mqtt) as watcher:
        inbox = paho_subscribe(watcher, f"{unique}/will")
        will = (f"{unique}/will", b"gone", 1, False)
        spoke_s = time.monotonic()
        with raw_mqtt.raw_session(shores.mqtt, unique, keep_alive_s=1, will=will) as session:
            assert [message.payload for message in inbox.wait(1)] == [b"gone"]
            assert inbox.arrived_at_s[0] - spoke_s > 1.5 - TICK_S
            while (last := session.receive()) is not None:
                assert last.kind == raw_mqtt.DISCONNECT


def test_pings_keep_a_connection_alive(shores: Shores, unique: str) -> None:
    def pings(keep_alive_s: int) -> None:
        spoke_s = time.monotonic()
        with raw_mqtt.raw_session(shores.mqtt, unique, keep_alive_s=keep_alive_s) as session:
            for _ in range(5):
                time.sleep(0.6 * keep_alive_s)
                ping_s = time.monotonic()
                try:
                    session.send(raw_mqtt.packet(raw_mqtt.PINGREQ))
                    session.expect(raw_mqtt.PINGRESP)
                except (AssertionError, OSError):
                    keep_within(1.5 * keep_alive_s, spoke_s)
                    raise
                spoke_s = ping_s

    in_time(pings)


# --- MQTT 5 ---------------------------------------------------------------------------------


def test_user_properties_keep_order_and_duplicates(shores: Shores, unique: str) -> None:
    pairs = (("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("ü", "µ€"))
    with paho_client(shores.mqtt) as client:
        inbox = paho_subscribe(client, unique)
        publish_from_elsewhere(shores.mqtt, Message(unique, b"x", 1, user_properties=pairs))
        assert inbox.wait(1)[0].user_properties == pairs


def test_all_publish_properties_pass_through(shores: Shores, unique: str) -> None:
    properties = Properties(PacketTypes.PUBLISH)
    properties.PayloadFormatIndicator = 1
    properties.ContentType = "text/plain"
    properties.ResponseTopic = f"{unique}/answer"
    properties.CorrelationData = b"\x00\xff"
    properties.MessageExpiryInterval = 3600
    with paho_client(shores.mqtt) as client:
        paho_subscribe(client, unique)
        arrived = []
        inbox = Inbox()

        def on_message(_client: Client, _data: object, message: object) -> None:
            arrived.append(message.properties)  # type: ignore[attr-defined]
            inbox.put(Message(unique, b""))

        client.on_message = on_message
        sent_s = time.monotonic()
        client.publish(unique, b"x", 1, properties=properties)
        inbox.wait(1)
        passed_s = time.monotonic() - sent_s
    assert arrived[0].PayloadFormatIndicator == 1
    assert arrived[0].ContentType == "text/plain"
    assert arrived[0].ResponseTopic == f"{unique}/answer"
    assert arrived[0].CorrelationData == b"\x00\xff"
    assert 3599 - passed_s <= arrived[0].MessageExpiryInterval <= 3600


def test_no_local_hides_a_clients_own_messages(shores: Shores, unique: str) -> None:
    """[MQTT-3.8.3-3]"""
    with raw_mqtt.raw_session(shores.mqtt, unique) as session:
        session.send(raw_mqtt.subscribe(1, unique, 0x04 | 1))
        session.expect(raw_mqtt.SUBACK)
        session.send(raw_mqtt.publish(unique, b"own"))
        publish_from_elsewhere(shores.mqtt, Message(unique, b"other"))
        assert session.expect(raw_mqtt.PUBLISH).payload() == b"other"
