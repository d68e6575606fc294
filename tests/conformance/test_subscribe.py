"""Chapters 3.8 to 3.11 and 4.7: SUBSCRIBE, UNSUBSCRIBE, and what filters match."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    RECEIVE_MAXIMUM,
    SESSION_EXPIRY,
    SUBSCRIPTION_ID,
    Answer,
    Message,
    ack,
    prop,
    publish,
    subscribe,
    unsubscribe,
)
from tests.e2e.raw_mqtt import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    packet,
    text,
    uint16,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])


# --- SUBSCRIBE --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (packet(SUBSCRIBE, uint16(1) + b"\0", 2), 0x82),
        (packet(UNSUBSCRIBE, uint16(1) + b"\0", 2), 0x82),
        (subscribe(0, ("t", 0)), 0x82),
        (unsubscribe(0, "t"), 0x82),
        (packet(SUBSCRIBE, uint16(1) + b"\0" + text("t") + b"\0", 0), 0x81),
        (packet(UNSUBSCRIBE, uint16(1) + b"\0" + text("t"), 0), 0x81),
        (subscribe(1, ("t", 3)), 0x82),
        (subscribe(1, ("t", 0x30)), 0x82),
        (subscribe(1, ("t", 0x40)), 0x81),
        (subscribe(1, ("$share/g/t", 4)), 0x82),
        (subscribe(1, (b"\xff", 0)), 0x81),
        (subscribe(1, (b"a\0b", 0)), 0x81),
        (unsubscribe(1, b"\xff"), 0x81),
        (subscribe(1, ("t", 0), properties=prop(SUBSCRIPTION_ID, 0)), 0x82),
        (subscribe(1, ("t", 0), properties=prop(SUBSCRIPTION_ID, 1) * 2), 0x82),
    ],
    ids=[
        "no filter",
        "no filter to unsubscribe",
        "packet id 0",
        "packet id 0 to unsubscribe",
        "flags",
        "flags to unsubscribe",
        "QoS 3",
        "retain handling 3",
        "reserved option",
        "no local shared",
        "not UTF-8",
        "U+0000",
        "not UTF-8 to unsubscribe",
        "identifier 0",
        "two identifiers",
    ],
)
def test_a_subscribe_against_the_rules_ends_the_connection_with_its_reason(
    bad: bytes, reason: int, join: Join
) -> None:
    """[MQTT-3.8.1-1, MQTT-3.8.3-1, MQTT-3.8.3-2, MQTT-3.8.3-4, MQTT-3.8.3-5, MQTT-3.10.1-1,
    MQTT-3.10.3-1, MQTT-3.10.3-2]"""
    client = join()
    client.send(bad)
    assert client.ended() == reason


@pytest.mark.parametrize("version", [3, 4])
def test_before_5_a_subscribe_against_the_rules_just_ends_the_connection(
    version: int, join: Join
) -> None:
    """[MQTT 3.1.1: MQTT-1.5.3-1, MQTT-1.5.3-2, MQTT-2.3.1-1, MQTT-3.8.1-1, MQTT-3.8.3-1,
    MQTT-3.8.3-3, MQTT-3.8.3-4, MQTT-3.10.1-1, MQTT-3.10.3-1, MQTT-3.10.3-2, MQTT-4.7.3-2]"""
    for bad in (
        subscribe(1, version=version),
        unsubscribe(1, version=version),
        subscribe(0, ("t", 0), version=version),
        unsubscribe(0, "t", version=version),
        packet(SUBSCRIBE, uint16(1) + text("t") + b"\0", 0),
        packet(UNSUBSCRIBE, uint16(1) + text("t"), 0),
        subscribe(1, ("t", 3), version=version),
        subscribe(1, ("t", 4), version=version),
        subscribe(1, ("t", 0x80), version=version),
        subscribe(1, (b"\xff", 0), version=version),
        subscribe(1, (b"a\0b", 0), version=version),
        unsubscribe(1, b"\xff", version=version),
    ):
        client = join(version=version)
        client.send(bad)
        assert client.rest() == []


@VERSIONS
def test_each_filter_is_answered_in_its_order(version: int, join: Join, unique: str) -> None:
    """[MQTT-2.2.1-6, MQTT-3.8.4-1, MQTT-3.8.4-2, MQTT-3.8.4-5, MQTT-3.8.4-6, MQTT-3.8.4-7,
    MQTT-3.9.3-1, MQTT-3.9.3-2, MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.7.3-1; MQTT 3.1.1:
    MQTT-2.3.1-7, MQTT-3.8.4-1, MQTT-3.8.4-2, MQTT-3.8.4-4, MQTT-3.8.4-5, MQTT-3.9.3-1,
    MQTT-3.9.3-2, MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.3-1]"""
    client = join(version=version)
    entries = [(unique, 2), ("a/#/b", 1), ("a+", 1), ("", 0), (f"{unique}/+", 1), ("+/#", 0)]
    client.send(subscribe(65_535, *entries, version=version))
    answer = client.expect(SUBACK)
    assert answer.packet_id == 65_535
    refused = 0x8F if version == 5 else 0x80
    assert answer.reasons == (2, refused, refused, refused, 1, 0)


def test_a_subscription_takes_the_place_of_one_with_the_same_filter(
    join: Join, unique: str
) -> None:
    """[MQTT-3.8.4-3]"""
    client = join()
    client.subscribe(unique, 2, prop(SUBSCRIPTION_ID, 1))
    client.subscribe(unique, 1, prop(SUBSCRIPTION_ID, 2))
    client.publish(unique, b"x", 2)
    (message,) = client.messages()
    assert (message.qos, message.properties) == (1, {SUBSCRIPTION_ID: [2]})


def test_replacing_a_subscription_loses_no_message(join: Join, unique: str) -> None:
    """[MQTT-3.8.4-4]"""
    client = join()
    client.subscribe(unique, 1)
    for number in range(50):
        client.send(publish(unique, b"%d" % number, 1, number + 1), subscribe(99, (unique, 1)))
    got: list[bytes] = []
    acknowledged = 0
    while acknowledged < 50 or len(got) < 50:
        one = client.receive()
        if isinstance(one, Message):
            got.append(one.payload)
        elif isinstance(one, Answer):
            acknowledged += one.kind == PUBACK
    assert got == [b"%d" % number for number in range(50)]


def test_no_local_keeps_a_clients_own_messages_away(join: Join, unique: str) -> None:
    """[MQTT-3.8.3-3]"""
    client, other = join(), join()
    client.subscribe(unique, 0x04 | 1)
    for qos in range(3):
        client.publish(unique, b"own", qos)
        other.publish(unique, b"other", qos)
    assert client.payloads() == [b"other"] * 3


def test_no_local_counts_for_its_own_subscription_only(join: Join, unique: str) -> None:
    """[MQTT-3.8.3-3, MQTT-3.3.4-2]"""
    client, other = join(), join()
    client.subscribe(f"{unique}/#", 0x04 | 2, prop(SUBSCRIPTION_ID, 1))
    client.subscribe(f"{unique}/a", 1, prop(SUBSCRIPTION_ID, 2))
    client.publish(f"{unique}/a", b"own", 2)
    (message,) = client.messages()
    assert (message.qos, message.properties) == (1, {SUBSCRIPTION_ID: [2]})
    other.publish(f"{unique}/a", b"other", 2)
    (message,) = client.messages()
    assert message.qos == 2
    assert sorted(message.properties[SUBSCRIPTION_ID]) == [1, 2]


# --- UNSUBSCRIBE ------------------------------------------------------------------------------


def test_unsubscribe_says_what_became_of_each_filter(join: Join, unique: str) -> None:
    """[MQTT-2.2.1-6, MQTT-3.10.4-1, MQTT-3.10.4-4, MQTT-3.10.4-5, MQTT-3.10.4-6, MQTT-3.11.3-1,
    MQTT-3.11.3-2]"""
    client = join()
    client.subscribe(f"{unique}/+")
    client.subscribe(unique)
    answer = client.unsubscribe(unique, f"{unique}/x", f"{unique}/+", "a/#/b", packet_id=77)
    assert answer.packet_id == 77
    assert answer.reasons == (0, 0x11, 0, 0x8F)


@pytest.mark.parametrize("version", [3, 4])
def test_before_5_an_unsuback_has_only_its_id(version: int, join: Join, unique: str) -> None:
    """[MQTT 3.1.1: MQTT-2.3.1-7, MQTT-3.10.4-1, MQTT-3.10.4-2, MQTT-3.10.4-4, MQTT-3.10.4-5,
    MQTT-3.10.4-6]"""
    client = join(version=version)
    client.subscribe(unique, 1)
    client.subscribe(f"{unique}/+", 1)
    answer = client.unsubscribe(unique, "never", packet_id=3)
    assert (answer.packet_id, answer.reasons) == (3, ())
    client.publish(unique, b"x")
    client.publish(f"{unique}/a", b"y")
    assert client.payloads() == [b"y"]


@pytest.mark.parametrize("qos", [1, 2])
@VERSIONS
def test_what_was_begun_before_unsubscribe_is_brought_to_its_end(
    version: int, qos: int, join: Join, unique: str
) -> None:
    """[MQTT-3.10.4-2, MQTT-3.10.4-3; MQTT 3.1.1: MQTT-3.10.4-2, MQTT-3.10.4-3]"""
    options = {"properties": prop(SESSION_EXPIRY, 3600)} if version == 5 else {}
    client, publisher = join(unique, version, clean=False, **options), join()
    client.subscribe(unique, qos)
    publisher.publish(unique, b"before", qos)
    first = client.message()
    assert client.unsubscribe(unique).packet_id == 1
    publisher.publish(unique, b"after", qos)
    client.cut()
    client = join(unique, version, clean=False)
    again = client.message()
    assert (again.payload, again.packet_id, again.dup) == (b"before", first.packet_id, True)
    if qos == 1:
        client.send(ack(PUBACK, again.packet_id))
    else:
        client.send(ack(PUBREC, again.packet_id))
        assert client.expect(PUBREL).packet_id == again.packet_id
        client.send(ack(PUBCOMP, again.packet_id))
    assert client.messages() == []


def test_unsubscribe_waits_for_no_window(join: Join, unique: str) -> None:
    """[MQTT-3.3.4-10, MQTT-4.9.0-3]"""
    client, publisher = join(properties=prop(RECEIVE_MAXIMUM, 1)), join()
    client.subscribe(unique, 1)
    for number in range(3):
        publisher.publish(unique, b"%d" % number)
    assert client.payloads() == [b"0"]
    assert client.unsubscribe(unique).reasons == (0,)


# --- what filters match -----------------------------------------------------------------------


MATCHES = [
    ("a/#", "a", True),
    ("a/#", "a/", True),
    ("a/#", "a/b/c", True),
    ("a/#", "ab", False),
    ("#", "a/b", True),
    ("#", "/", True),
    ("+", "a", True),
    ("+", "/a", False),
    ("/+", "/a", True),
    ("+/+", "/a", True),
    ("a/+", "a", False),
    ("a/+", "a/", True),
    ("a/+/c", "a//c", True),
    ("a/+/c", "a/b/b/c", False),
    ("+/b/#", "a/b", True),
    ("/", "/", True),
    ("//", "/", False),
    ("a/b", "A/b", False),
    ("a/b", "a/b/", False),
    ("+/a/#", "x/a", True),
    ("a/+/#", "a", False),
]


@pytest.mark.parametrize(("topic_filter", "topic_name", "matches"), MATCHES)
@VERSIONS
def test_filters_match_by_whole_levels(
    version: int, topic_filter: str, topic_name: str, matches: bool, join: Join, unique: str
) -> None:
    """[MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.7.3-4, MQTT-3.3.2-3, MQTT-4.5.0-1; MQTT 3.1.1:
    MQTT-3.3.2-3, MQTT-4.5.0-1, MQTT-4.7.1-2, MQTT-4.7.1-3]"""
    client = join(version=version)
    client.subscribe(topic_filter)
    client.publish(topic_name, unique.encode())
    payloads = [payload for payload in client.payloads() if payload == unique.encode()]
    assert payloads == [unique.encode()] * matches


@VERSIONS
def test_names_are_not_normalised(version: int, join: Join, unique: str) -> None:
    """[MQTT-4.7.3-4; MQTT 3.1.1: MQTT-4.7.3-4]"""
    client = join(version=version)
    client.subscribe(f"{unique}/\u00e9")  # one character
    client.publish(f"{unique}/e\u0301", b"two characters")
    client.publish(f"{unique}/\u00e9", b"one")
    assert client.payloads() == [b"one"]


def test_a_filter_too_deep_is_refused(join: Join) -> None:
    """[MQTT-3.9.3-2]"""
    assert join().subscribe("/".join("x" * 300)).reason == 0x8F
