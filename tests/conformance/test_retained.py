"""Chapters 3.3.1.3 and 3.8.3.1: retained messages, and the options that ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import SUBSCRIPTION_ID, USER_PROPERTY, prop, subscribe
from tests.e2e.raw_mqtt import SUBACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
AS_PUBLISHED = 0x08
IF_NEW, NEVER = 0x10, 0x20


@pytest.mark.parametrize("qos", [0, 1, 2])
@VERSIONS
def test_the_last_retained_message_greets_a_subscriber(
    version: int, qos: int, join: Join, unique: str
) -> None:
    """[MQTT-3.3.1-5, MQTT-3.3.1-9; MQTT 3.1.1: MQTT-3.3.1-5, MQTT-3.3.1-6, MQTT-3.3.1-7,
    MQTT-3.3.1-8]"""
    publisher, subscriber = join(version=version), join(version=version)
    publisher.publish(unique, b"old", 2 - qos, retain=True)
    publisher.publish(unique, b"new", qos, retain=True)
    publisher.publish(unique, b"not retained", qos)
    subscriber.subscribe(unique, 2)
    (message,) = subscriber.messages()
    assert (message.payload, message.qos, message.retain) == (b"new", qos, True)
    assert not message.dup


def test_a_retained_publish_counts_before_the_subscribe_behind_it(
    join: Join, unique: str
) -> None:
    """[MQTT-3.3.1-5, MQTT-3.3.1-9]"""
    client = join()
    for number in range(20):
        name = f"{unique}/{number}"
        client.publish(name, b"x", 1, retain=True)
        client.subscribe(name)
        assert [message.retain for message in client.messages()] == [True]


@VERSIONS
def test_an_empty_payload_removes_and_is_delivered_as_any_message(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-3.3.1-6, MQTT-3.3.1-7; MQTT 3.1.1: MQTT-3.3.1-9, MQTT-3.3.1-10, MQTT-3.3.1-11]"""
    client = join(version=version)
    client.subscribe(unique, 1)
    for payload in (b"x", b"", b""):
        client.publish(unique, payload, 1, retain=True)
    assert [(one.payload, one.retain) for one in client.messages()] == [
        (b"x", False),
        (b"", False),
        (b"", False),
    ]
    later = join(version=version)
    later.subscribe(unique)
    assert later.messages() == []


@VERSIONS
def test_a_publish_without_retain_leaves_what_is_retained(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-3.3.1-8; MQTT 3.1.1: MQTT-3.3.1-12]"""
    client = join(version=version)
    client.publish(unique, b"kept", 1, retain=True)
    client.publish(unique, b"", 1)
    client.publish(unique, b"other", 0)
    client.subscribe(unique)
    assert client.payloads() == [b"kept"]


def test_retain_as_published_shows_the_flag_of_a_live_message(join: Join, unique: str) -> None:
    """[MQTT-3.3.1-12, MQTT-3.3.1-13]"""
    plain, shown, publisher = join(), join(), join()
    plain.subscribe(unique, 1)
    shown.subscribe(unique, AS_PUBLISHED | 1)
    for retain in (True, False):
        publisher.publish(unique, b"x", 1, retain=retain)
    publisher.publish(unique, b"", 1, retain=True)
    assert [message.retain for message in plain.messages()] == [False, False, False]
    assert [message.retain for message in shown.messages()] == [True, False, True]


@pytest.mark.parametrize(
    ("options", "counts"), [(0, (1, 1, 1)), (IF_NEW, (1, 0, 1)), (NEVER, (0, 0, 0))]
)
def test_retain_handling_chooses_when_retained_messages_come(
    options: int, counts: tuple[int, ...], join: Join, unique: str
) -> None:
    """[MQTT-3.3.1-9, MQTT-3.3.1-10, MQTT-3.3.1-11, MQTT-3.8.4-4]"""
    client = join()
    client.publish(unique, b"x", 1, retain=True)
    got = []
    for again in (False, False, True):
        if again:
            client.unsubscribe(unique)
        client.subscribe(unique, options)
        got.append(len(client.messages()))
    assert tuple(got) == counts


@VERSIONS
def test_subscribing_again_brings_retained_messages_again(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-3.8.4-4; MQTT 3.1.1: MQTT-3.8.4-3]"""
    client = join(version=version)
    client.publish(unique, b"x", 1, retain=True)
    for _ in range(2):
        client.subscribe(unique)
        assert client.payloads() == [b"x"]


def test_retained_messages_follow_each_filter_of_a_subscribe(join: Join, unique: str) -> None:
    """[MQTT-3.8.4-5, MQTT-3.3.4-3, MQTT-3.3.4-5]: a copy for each, with its identifier."""
    client = join()
    for level in "ab":
        user = prop(USER_PROPERTY, ("k", level))
        client.publish(f"{unique}/{level}", level.encode(), 1, retain=True, properties=user)
    entries = ((f"{unique}/+", 2), (f"{unique}/a", 0))
    client.send(subscribe(3, *entries, properties=prop(SUBSCRIPTION_ID, 300)))
    assert client.expect(SUBACK).reasons == (2, 0)
    found = [(one.topic_name[-1], one.qos, one.properties) for one in client.messages()]
    assert sorted(found, key=str) == sorted(
        [
            (level, qos, {SUBSCRIPTION_ID: [300], USER_PROPERTY: [("k", level)]})
            for level, qos in (("a", 1), ("b", 1), ("a", 0))
        ],
        key=str,
    )


@pytest.mark.parametrize(
    ("topic_filter", "names"),
    [
        ("{}/#", {"{}", "{}/a", "{}/a/b", "{}/"}),
        ("{}/+", {"{}/a", "{}/"}),
        ("{}/+/+", {"{}/a/b"}),
        ("{}/", {"{}/"}),
    ],
)
def test_wildcards_find_retained_messages(
    topic_filter: str, names: set[str], join: Join, unique: str
) -> None:
    """[MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-3.3.1-9]"""
    client = join()
    for name in ("{}", "{}/a", "{}/a/b", "{}/"):
        client.publish(name.format(unique), b"x", 1, retain=True)
    client.subscribe(topic_filter.format(unique))
    assert {one.topic_name for one in client.messages()} == {
        name.format(unique) for name in names
    }


@VERSIONS
def test_a_retained_message_is_part_of_no_session(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.1.0-1; MQTT 3.1.1: MQTT-3.1.2-7]"""
    publisher = join(unique, version)
    publisher.publish(unique, b"x", 1, retain=True)
    publisher.leave()
    join(unique, version, clean=True)
    later = join()
    later.subscribe(unique)
    assert later.payloads() == [b"x"]
