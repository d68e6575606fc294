"""Chapter 3.3: PUBLISH, its properties, and how it reaches the subscribers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    SESSION_EXPIRY,
    SUBSCRIPTION_ID,
    TOPIC_ALIAS,
    USER_PROPERTY,
    Message,
    prop,
    publish,
    subscribe,
)
from tests.e2e.raw_mqtt import PUBACK, PUBLISH, PUBREC, SUBACK, packet, text, uint16

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
QUALITIES = pytest.mark.parametrize("qos", [0, 1, 2])
PROPERTIES = b"".join(
    (
        prop(PAYLOAD_FORMAT, 1),
        prop(CONTENT_TYPE, "text/plain"),
        prop(RESPONSE_TOPIC, "answers/here"),
        prop(CORRELATION_DATA, b"\x00\xff"),
        prop(USER_PROPERTY, ("b", "1")),
        prop(USER_PROPERTY, ("a", "2")),
        prop(USER_PROPERTY, ("b", "1")),
    )
)
KEPT = {
    PAYLOAD_FORMAT: [1],
    CONTENT_TYPE: ["text/plain"],
    RESPONSE_TOPIC: ["answers/here"],
    CORRELATION_DATA: [b"\x00\xff"],
    USER_PROPERTY: [("b", "1"), ("a", "2"), ("b", "1")],
}


# --- the fixed header -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (packet(PUBLISH, text("t") + uint16(1) + b"\0", flags=0x06), 0x81),
        (packet(PUBLISH, text("t") + b"\0", flags=0x08), 0x81),
        (packet(PUBLISH, text("t") + uint16(0) + b"\0", flags=0x02), 0x82),
        (publish("a/+/b", b""), 0x90),
        (publish("a/#", b""), 0x90),
        (publish(b"a\0b", b""), 0x81),
        (publish(b"\xff", b""), 0x81),
        (publish(b"\xed\xa0\x80", b""), 0x81),
        (publish("", b""), 0x82),
        (publish("t", b"", properties=prop(SUBSCRIPTION_ID, 1)), 0x82),
        (publish("t", b"", properties=prop(RESPONSE_TOPIC, "a/+")), 0x82),
        (publish("t", b"", properties=prop(RESPONSE_TOPIC, b"\xff")), 0x81),
        (publish("t", b"", properties=prop(CONTENT_TYPE, b"\xff")), 0x81),
        (publish("t", b"", properties=bytes([PAYLOAD_FORMAT, 2])), 0x82),
        (publish("t", b"", properties=prop(MESSAGE_EXPIRY, 1) * 2), 0x82),
    ],
    ids=[
        "QoS 3",
        "DUP at QoS 0",
        "packet id 0",
        "plus",
        "hash",
        "U+0000",
        "not UTF-8",
        "surrogate",
        "no topic name",
        "subscription id",
        "response topic with wildcard",
        "response topic not UTF-8",
        "content type not UTF-8",
        "payload format 2",
        "expiry twice",
    ],
)
def test_a_publish_against_the_rules_ends_the_connection_with_its_reason(
    bad: bytes, reason: int, join: Join
) -> None:
    """[MQTT-3.3.1-2, MQTT-3.3.1-4, MQTT-3.3.2-1, MQTT-3.3.2-2, MQTT-3.3.2-13, MQTT-3.3.2-14,
    MQTT-3.3.2-19, MQTT-3.3.4-6, MQTT-2.2.1-3, MQTT-4.13.1-1]"""
    client = join()
    client.send(bad)
    assert client.ended() == reason


@pytest.mark.parametrize("version", [3, 4])
def test_before_5_a_publish_against_the_rules_just_ends_the_connection(
    version: int, join: Join
) -> None:
    """[MQTT 3.1.1: MQTT-1.5.3-1, MQTT-1.5.3-2, MQTT-2.3.1-1, MQTT-3.3.1-2, MQTT-3.3.1-4,
    MQTT-3.3.2-1, MQTT-3.3.2-2, MQTT-4.7.1-1, MQTT-4.7.3-1, MQTT-4.7.3-2, MQTT-4.8.0-1]"""
    for bad in (
        packet(PUBLISH, text("t") + uint16(1), flags=0x06),
        packet(PUBLISH, text("t"), flags=0x08),
        publish("t", b"", 1, 0, version=version),
        publish("t", b"", 2, 0, version=version),
        publish("a/#", b"", version=version),
        publish(b"\xed\xa0\x80", b"", version=version),
        publish("a/+/b", b"", version=version),
        publish(b"a\0b", b"", version=version),
        publish("", b"", version=version),
    ):
        client = join(version=version)
        client.send(bad)
        assert client.rest() == []


@QUALITIES
@VERSIONS
def test_a_publish_is_answered_as_its_quality_asks(
    version: int, qos: int, join: Join, unique: str
) -> None:
    """[MQTT-3.3.4-1, MQTT-2.2.1-5, MQTT-4.3.1-1, MQTT-4.3.2-4, MQTT-4.3.3-8; MQTT 3.1.1:
    MQTT-2.3.1-6, MQTT-3.3.4-1, MQTT-4.3.2-2, MQTT-4.3.3-2]"""
    client = join(version=version)
    client.send(publish(unique, b"x", qos, 513, version=version))
    answers = [(one.kind, one.packet_id) for one in client.settled()]  # type: ignore[union-attr]
    if qos:
        answers = answers or [(client.expect(PUBACK if qos == 1 else PUBREC).kind, 513)]
    assert answers == {0: [], 1: [(PUBACK, 513)], 2: [(PUBREC, 513)]}[qos]


@pytest.mark.parametrize("qos", [1, 2])
@VERSIONS
def test_dup_and_retain_of_a_publish_are_not_those_of_its_delivery(
    version: int, qos: int, join: Join, unique: str
) -> None:
    """[MQTT-3.3.1-3, MQTT-3.3.1-12, MQTT-4.3.2-2, MQTT-4.3.3-2; MQTT 3.1.1: MQTT-3.3.1-3,
    MQTT-3.3.1-9, MQTT-4.3.2-1, MQTT-4.3.3-1]"""
    client = join(version=version)
    client.subscribe(unique, qos)
    client.publish(unique, b"x", qos, packet_id=7, dup=True, retain=True)
    message = client.message()
    assert (message.payload, message.dup, message.retain) == (b"x", False, False)
    client.publish(unique, b"", 1, retain=True)


@pytest.mark.parametrize("granted", [0, 1, 2])
@QUALITIES
@VERSIONS
def test_a_delivery_has_the_lower_quality_of_publish_and_subscription(
    version: int, qos: int, granted: int, join: Join, unique: str
) -> None:
    """[MQTT-3.8.4-8, MQTT-4.3.1-1, MQTT-4.3.2-1, MQTT-4.3.3-1, MQTT-4.3.3-2; MQTT 3.1.1:
    MQTT-2.3.1-5, MQTT-3.8.4-6, MQTT-4.3.1-1, MQTT-4.3.2-1, MQTT-4.3.3-1]"""
    subscriber, publisher = join(version=version), join(version=version)
    assert subscriber.subscribe(unique, granted).reasons == (granted,)
    publisher.publish(unique, b"x", qos)
    message = subscriber.message()
    assert (message.payload, message.qos, message.dup) == (b"x", min(qos, granted), False)
    assert (message.packet_id != 0) == (message.qos > 0)


# --- topic names ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "topic_name",
    ["/", "//", "{}/", "/{}", "{}//x", " ", "{}/ü/☃", "{}/Ü", "{}/" + "x" * 65_000],
)
@VERSIONS
def test_topic_names_are_taken_as_they_are(
    version: int, topic_name: str, join: Join, unique: str
) -> None:
    """[MQTT-4.7.3-4, MQTT-3.3.2-3, MQTT-4.7.3-3; MQTT 3.1.1: MQTT-3.3.2-3, MQTT-4.7.3-4]"""
    name = topic_name.format(unique)
    client = join(version=version)
    client.subscribe(name)
    client.publish(name, b"x")
    message = client.message()
    assert (message.topic_name, message.payload) == (name, b"x")


@VERSIONS
def test_the_longest_topic_name_is_taken(version: int, join: Join, unique: str) -> None:
    """[MQTT-4.7.3-3; MQTT 3.1.1: MQTT-4.7.3-3]"""
    name = unique + "y" * (65_535 - len(unique))
    client = join(version=version)
    client.subscribe(name)
    client.publish(name, b"x")
    assert client.message().topic_name == name


def test_a_topic_name_too_deep_is_refused_and_the_connection_lives(
    join: Join, unique: str
) -> None:
    """[MQTT-3.4.2-1]"""
    client = join()
    deep = unique + "/x" * 300
    assert client.publish(deep, b"x", 1).reason == 0x90
    assert client.publish(deep, b"x", 2, packet_id=2).reason == 0x90
    client.send(publish(deep, b"x"))
    assert client.settled() == []


def test_before_5_a_topic_name_too_deep_ends_the_connection(join: Join, unique: str) -> None:
    """What came after it in the same segment is not done."""
    watcher, client = join(), join(version=4)
    watcher.subscribe(unique)
    client.send(
        publish(unique + "/x" * 300, b"", 1, 1, version=4),
        publish(unique, b"after", version=4),
        subscribe(2, (unique, 0), version=4),
    )
    assert client.rest() == []
    assert watcher.settled() == []


@pytest.mark.parametrize("topic_name", ["$SYS/{}", "$SYS", "$share/g/{}", "${}/x"])
def test_names_with_a_dollar_are_the_servers_own(
    topic_name: str, join: Join, unique: str
) -> None:
    """[MQTT-4.7.2-1, MQTT-3.4.2-1, MQTT-3.5.2-1]"""
    watcher, client = join(), join()
    watcher.subscribe("#")
    watcher.subscribe("+/" + unique)
    name = topic_name.format(unique)
    client.send(publish(name, b"no"))
    assert client.publish(name, b"no", 1).reason == 0x87
    assert client.publish(name, b"no", 2, packet_id=2).reason == 0x87
    assert [one for one in watcher.messages() if one.topic_name == name] == []


@pytest.mark.parametrize("qos", [1, 2])
def test_before_5_a_name_with_a_dollar_is_acknowledged_and_not_published(
    qos: int, join: Join, unique: str
) -> None:
    """[MQTT 3.1.1: MQTT-3.3.5-2]"""
    watcher, client = join(), join(version=4)
    watcher.subscribe(f"$SYS/{unique}")
    client.publish(f"$SYS/{unique}", b"no", qos, retain=True)
    assert watcher.messages() == []


# --- properties -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("qos", "live"), [(0, True), (1, True), (2, True), (1, False), (2, False)]
)
def test_properties_arrive_unaltered(qos: int, live: bool, join: Join, unique: str) -> None:
    """[MQTT-3.3.2-4, MQTT-3.3.2-15, MQTT-3.3.2-16, MQTT-3.3.2-17, MQTT-3.3.2-18,
    MQTT-3.3.2-20]"""
    expiry = prop(SESSION_EXPIRY, 3600)
    subscriber, publisher = join(unique, properties=expiry), join()
    subscriber.subscribe(unique, 2)
    if not live:
        subscriber.leave()
    publisher.publish(unique, b"x", qos, properties=PROPERTIES)
    if not live:
        subscriber = join(unique, clean=False)
    assert subscriber.message().properties == KEPT


@pytest.mark.parametrize("live", [True, False], ids=["live", "queued"])
@pytest.mark.parametrize(
    "name",
    ["content-type", "mqtt.topic", "mqtt.expiry", "mqtt.qos", "mqtt.retain", "mqtt.user.x", ""],
)
def test_a_user_property_is_only_that_whatever_its_name(
    name: str, live: bool, join: Join, unique: str
) -> None:
    """[MQTT-3.3.2-17, MQTT-3.3.2-18]"""
    subscriber, publisher = join(unique, properties=prop(SESSION_EXPIRY, 3600)), join()
    subscriber.subscribe(unique, 1)
    if not live:
        subscriber.leave()
    publisher.publish(unique, b"x", properties=prop(USER_PROPERTY, (name, "1")))
    if not live:
        subscriber = join(unique, clean=False)
    message = subscriber.message()
    assert (message.topic_name, message.qos, message.retain) == (unique, 1, False)
    assert message.properties == {USER_PROPERTY: [(name, "1")]}


def test_properties_are_left_out_for_a_client_before_5(join: Join, unique: str) -> None:
    """[MQTT 3.1.1, 3.3.3]"""
    old = join(version=4)
    old.subscribe(unique, 1)
    join().publish(unique, b"x", properties=PROPERTIES)
    assert old.message().payload == b"x"


def test_a_payload_is_never_checked_against_its_format(join: Join, unique: str) -> None:
    """[MQTT-3.3.2-4]"""
    client = join()
    client.subscribe(unique)
    assert client.publish(unique, b"\xff\xfe", properties=prop(PAYLOAD_FORMAT, 1)).reason == 0
    assert client.message().payload == b"\xff\xfe"


# --- topic aliases ----------------------------------------------------------------------------


def test_every_alias_up_to_the_maximum_is_accepted(join: Join, unique: str) -> None:
    """[MQTT-3.3.2-12]"""
    client = join()
    client.subscribe(f"{unique}/#")
    for alias in range(1, 65):
        client.send(publish(f"{unique}/{alias}", b"1", properties=prop(TOPIC_ALIAS, alias)))
    for alias in range(1, 65):
        client.send(publish("", b"2", properties=prop(TOPIC_ALIAS, alias)))
    client.publish(unique, b"end")
    names = [message.topic_name for message in client.messages()]
    assert names == [f"{unique}/{alias}" for alias in range(1, 65)] * 2 + [unique]


def test_an_alias_may_be_given_anew_and_is_not_passed_on(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-27, MQTT-3.3.2-11]"""
    client = join()
    client.subscribe(f"{unique}/#")
    alias = prop(TOPIC_ALIAS, 1)
    for name in (f"{unique}/a", "", f"{unique}/b", ""):
        client.publish(name, b"x", properties=alias)
    messages = client.messages()
    assert [one.topic_name[-1] for one in messages] == ["a", "a", "b", "b"]
    assert all(one.properties == {} for one in messages)


@pytest.mark.parametrize(
    ("alias", "reason"), [(0, 0x94), (65, 0x94), (65_535, 0x94), (9, 0x82)]
)
def test_an_alias_out_of_range_or_unknown_ends_the_connection(
    alias: int, reason: int, join: Join
) -> None:
    """[MQTT-3.2.2-17, MQTT-3.3.2-8, MQTT-3.3.2-9]"""
    client = join()
    client.send(publish("" if alias == 9 else "t", properties=prop(TOPIC_ALIAS, alias)))
    assert client.ended() == reason


def test_aliases_end_with_their_connection(join: Join, unique: str) -> None:
    """[MQTT-3.3.2-7]"""
    first = join(unique, properties=prop(SESSION_EXPIRY, 3600))
    first.publish(unique, properties=prop(TOPIC_ALIAS, 1))
    first.leave()
    second = join(unique, clean=False)
    second.send(publish("", properties=prop(TOPIC_ALIAS, 1)))
    assert second.ended() == 0x82


# --- expiry -----------------------------------------------------------------------------------


def assert_left(message: Message, expiry_s: int, sent_s: float) -> None:
    """Check that a message tells what is left, a second having passed at least, and no more."""
    assert set(message.properties) == {MESSAGE_EXPIRY}
    (left_s,) = message.properties[MESSAGE_EXPIRY]
    assert expiry_s - 1 - (time.monotonic() - sent_s) <= left_s <= expiry_s - 1


def test_an_expired_message_is_not_delivered_and_others_tell_the_time_left(
    join: Join, unique: str
) -> None:
    """[MQTT-3.3.2-5, MQTT-3.3.2-6]"""
    away = join(unique, properties=prop(SESSION_EXPIRY, 3600))
    away.subscribe(unique, 2)
    away.leave()
    publisher = join()
    sent_s = time.monotonic()
    for number, expiry_s in enumerate((1, 3600, None, 1, 0)):
        expiry = b"" if expiry_s is None else prop(MESSAGE_EXPIRY, expiry_s)
        publisher.publish(unique, b"%d" % number, number % 2 + 1, properties=expiry)
    time.sleep(1.1)
    messages = join(unique, clean=False).messages()
    assert [message.payload for message in messages] == [b"1", b"2"]
    assert_left(messages[0], 3600, sent_s)
    assert messages[1].properties == {}


def test_a_retained_message_tells_the_time_left_and_expires(join: Join, unique: str) -> None:
    """[MQTT-3.3.2-5, MQTT-3.3.2-6]"""
    client = join()
    sent_s = time.monotonic()
    for number, expiry_s in enumerate((1, 3600)):
        name = f"{unique}/{number}"
        client.publish(name, b"x", retain=True, properties=prop(MESSAGE_EXPIRY, expiry_s))
    time.sleep(1.1)
    client.subscribe(f"{unique}/#")
    (message,) = client.messages()
    assert message.topic_name == f"{unique}/1"
    assert_left(message, 3600, sent_s)


# --- subscription identifiers -----------------------------------------------------------------


@pytest.mark.parametrize("identifier", [1, 127, 128, 16_384, 268_435_455])
def test_a_subscription_identifier_comes_back_with_each_message(
    identifier: int, join: Join, unique: str
) -> None:
    """[MQTT-3.3.4-3]"""
    client = join()
    client.subscribe(unique, 1, prop(SUBSCRIPTION_ID, identifier))
    client.publish(unique, b"x", properties=PROPERTIES)
    assert client.message().properties == {SUBSCRIPTION_ID: [identifier], **KEPT}


@pytest.mark.parametrize("live", [True, False], ids=["live", "queued"])
def test_overlapping_subscriptions_bring_one_copy_with_all_identifiers_at_the_highest_quality(
    live: bool, join: Join, unique: str
) -> None:
    """[MQTT-3.3.4-2, MQTT-3.3.4-4]"""
    subscriber, publisher = join(unique, properties=prop(SESSION_EXPIRY, 3600)), join()
    subscriber.subscribe(f"{unique}/+", 0, prop(SUBSCRIPTION_ID, 1))
    subscriber.subscribe(f"{unique}/#", 2, prop(SUBSCRIPTION_ID, 200))
    subscriber.subscribe(f"{unique}/a", 1)
    if not live:
        subscriber.leave()
    publisher.publish(f"{unique}/a", b"x", 2)
    if not live:
        subscriber = join(unique, clean=False)
    (message,) = subscriber.messages()
    assert message.qos == 2
    assert sorted(message.properties[SUBSCRIPTION_ID]) == [1, 200]


def test_before_5_overlapping_subscriptions_bring_one_copy_at_the_highest_quality(
    join: Join, unique: str
) -> None:
    """[MQTT 3.1.1: MQTT-3.3.5-1]"""
    client = join(version=4)
    client.send(subscribe(1, (f"{unique}/#", 2), (f"{unique}/+", 1), version=4))
    assert client.expect(SUBACK).reasons == (2, 1)
    client.publish(f"{unique}/a", b"x", 2)
    assert [message.qos for message in client.messages()] == [2]
