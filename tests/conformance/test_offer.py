"""A server that offers less than all: what it says, and what it does with who asks for more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    IDENTIFIERS_AVAILABLE,
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    REASON_STRING,
    REQUEST_PROBLEM_INFO,
    REQUEST_RESPONSE_INFO,
    RESPONSE_INFO,
    RETAIN_AVAILABLE,
    SHARED_AVAILABLE,
    SUBSCRIPTION_ID,
    TOPIC_ALIAS,
    TOPIC_ALIAS_MAXIMUM,
    WILDCARD_AVAILABLE,
    Will,
    connect,
    prop,
    publish,
    subscribe,
)
from tests.e2e.raw_mqtt import CONNACK, CONNECT, packet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]
    Dial = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {
        "mqtt.maximum_qos": "1",
        "mqtt.retain_available": "false",
        "mqtt.wildcard_available": "false",
        "mqtt.identifiers_available": "false",
        "mqtt.shared_available": "false",
        "mqtt.topic_alias_out_max": "2",
        "mqtt.response_information": "answers/%c",
    }


def test_the_offer_is_said(dial: Dial, unique: str) -> None:
    """[MQTT-3.2.2-9]"""
    told = dial().open(unique).properties
    assert {key: told.get(key) for key in (MAXIMUM_QOS, RETAIN_AVAILABLE)} == {
        MAXIMUM_QOS: [1],
        RETAIN_AVAILABLE: [0],
    }
    for key in (WILDCARD_AVAILABLE, IDENTIFIERS_AVAILABLE, SHARED_AVAILABLE):
        assert told[key] == [0]


@pytest.mark.parametrize(
    ("will", "reason"),
    [
        (Will("w", qos=2), 0x9B),
        (Will("w", retain=True), 0x9A),
        (Will("w", qos=2, retain=True), 0x9B),
    ],
)
@VERSIONS
def test_a_will_beyond_the_offer_refuses_the_connection(
    version: int, will: Will, reason: int, dial: Dial, unique: str
) -> None:
    """[MQTT-3.2.2-12, MQTT-3.2.2-13; MQTT 3.1.1: MQTT-3.2.2-6]: no return code is for it."""
    client = dial(version)
    client.send(connect(unique, version=version, will=will))
    if version == 5:
        assert client.expect(CONNACK).reason == reason
    assert client.rest() == []


@pytest.mark.parametrize(
    ("qos", "retain", "reason"), [(2, False, 0x9B), (0, True, 0x9A), (1, True, 0x9A)]
)
@VERSIONS
def test_a_publish_beyond_the_offer_ends_the_connection(
    version: int, qos: int, retain: bool, reason: int, join: Join, unique: str
) -> None:
    """[MQTT-3.2.2-11, MQTT-3.2.2-14, MQTT-4.13.1-1]"""
    watcher, client = join(), join(version=version)
    watcher.subscribe(unique, 2)
    client.send(publish(unique, b"no", qos, 1, retain=retain, version=version))
    assert client.ended() == (reason if version == 5 else None)
    assert watcher.settled() == []


@VERSIONS
def test_a_subscription_of_any_quality_is_taken(version: int, join: Join, unique: str) -> None:
    """[MQTT-3.2.2-10]"""
    client = join(version=version)
    assert [client.subscribe(unique, qos).reason for qos in (0, 1, 2)] == [0, 1, 1]
    assert client.publish(unique, b"x", 1).reason == 0
    assert client.message().qos == 1


@pytest.mark.parametrize("topic_filter", ["#", "a/+", "+/b", "a/#"])
def test_wildcards_that_are_not_available_are_a_protocol_error(
    topic_filter: str, join: Join
) -> None:
    """[MQTT 5.0, 3.2.2.3.11; MQTT 3.1.1: MQTT-3.8.3-2]: before 5.0, where nobody is told, a
    refusal in SUBACK."""
    client = join()
    client.send(subscribe(1, ("plain", 0), (topic_filter, 0)))
    assert client.ended() == 0xA2
    assert join(version=4).subscribe(topic_filter).reasons == (0x80,)


def test_identifiers_that_are_not_available_are_a_protocol_error(join: Join) -> None:
    """[MQTT 5.0, 3.2.2.3.12]"""
    client = join()
    client.send(subscribe(1, ("a", 0), properties=prop(SUBSCRIPTION_ID, 7)))
    assert client.ended() == 0xA1


def test_shared_subscriptions_that_are_not_available_are_a_protocol_error(join: Join) -> None:
    """[MQTT 5.0, 3.2.2.3.13]"""
    client = join()
    client.send(subscribe(1, ("$share/g/t", 1)))
    assert client.ended() == 0x9E
    assert join(version=4).subscribe("$share/g/t", 1).reason == 0x80


def test_response_information_is_for_whom_asks(dial: Dial, unique: str) -> None:
    """[MQTT-3.1.2-28]"""
    asking = prop(REQUEST_RESPONSE_INFO, 1)
    assert dial().open(unique, properties=asking).properties[RESPONSE_INFO] == [
        f"answers/{unique}"
    ]
    for silent in (b"", prop(REQUEST_RESPONSE_INFO, 0)):
        assert RESPONSE_INFO not in dial().open(unique, properties=silent).properties


def test_aliases_are_used_as_far_as_the_client_takes_them(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-26, MQTT-3.3.2-11]"""
    names = [f"{unique}/{number}" for number in range(3)]
    client, publisher = join(properties=prop(TOPIC_ALIAS_MAXIMUM, 65_535)), join()
    for name in names:
        client.subscribe(name, 1)
    for name in (names[0], names[0], names[1], names[2], names[0]):
        publisher.publish(name, name.encode())
    known: dict[int, str] = {}
    sent = []
    for message in client.messages():
        (alias,) = message.properties[TOPIC_ALIAS]
        known[alias] = message.topic_name or known[alias]
        assert known[alias].encode() == message.payload
        sent.append((alias, message.topic_name != ""))
    # the server has two: the third name takes that of the first, which needs another one then
    assert sent == [(1, True), (1, False), (2, True), (1, True), (2, True)]


@pytest.mark.parametrize("properties", [b"", prop(TOPIC_ALIAS_MAXIMUM, 0)])
def test_a_client_that_takes_no_aliases_gets_none(
    properties: bytes, join: Join, unique: str
) -> None:
    """[MQTT-3.1.2-27]"""
    client = join(properties=properties)
    client.subscribe(unique)
    for _ in range(2):
        client.publish(unique, b"x")
        message = client.message()
        assert (message.topic_name, TOPIC_ALIAS in message.properties) == (unique, False)


@pytest.mark.parametrize(
    ("properties", "is_told"),
    [
        (b"", True),
        (prop(REQUEST_PROBLEM_INFO, 0), False),
        (prop(MAXIMUM_PACKET_SIZE, 50), False),
    ],
    ids=["asked for", "not wanted", "no room"],
)
def test_a_refusal_says_why_to_whom_wants_to_know(
    properties: bytes, is_told: bool, join: Join
) -> None:
    """[MQTT-3.1.2-29, MQTT-3.4.2-2, MQTT-3.9.2-1]"""
    client = join(properties=properties)
    for answer, reason in (
        (client.publish("$SYS/" + "long" * 20, b"x", 1), 0x87),
        (client.subscribe("long" * 20 + "/#/x"), 0x8F),
    ):
        assert answer.reasons == (reason,)
        assert (REASON_STRING in answer.properties) == is_told


@pytest.mark.parametrize(("name", "level"), [("MQIsdp", 0x83), ("MQTT", 0x84)])
def test_a_bridge_gets_nothing_back_that_it_published(
    name: str, level: int, dial: Dial, join: Join, unique: str
) -> None:
    """[Mosquitto, try_private]"""
    bridge = dial(4)
    size = len(name).to_bytes(2, "big")
    body = size + name.encode() + bytes([level, 2, 0, 0]) + b"\0\3" + unique[:3].encode()
    bridge.send(packet(CONNECT, body))
    assert bridge.expect(CONNACK).reason == 0
    bridge.subscribe(unique)
    bridge.publish(unique, b"from the bridge")
    join().publish(unique, b"from another")
    assert bridge.payloads() == [b"from another"]
