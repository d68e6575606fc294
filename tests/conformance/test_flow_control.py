"""Chapters 4.9, 3.1.2.11.3 and 3.1.2.11.4: how much each side takes at a time, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    MAXIMUM_PACKET_SIZE,
    REASON_STRING,
    RECEIVE_MAXIMUM,
    SESSION_EXPIRY,
    Answer,
    ack,
    connect,
    prop,
    publish,
    subscribe,
    unsubscribe,
)
from tests.e2e.raw_mqtt import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    varint,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]
    Dial = Callable[..., RawClient]

KEPT = prop(SESSION_EXPIRY, 3600)


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {
        "mqtt.receive_maximum": "5",
        "mqtt.packet_size_max": "4096",
        "mqtt.inflight_max": "20",
        "mqtt.keep_alive_max_s": "100",
    }


# --- what the server takes --------------------------------------------------------------------


def test_the_limits_are_announced(dial: Dial, unique: str) -> None:
    """[MQTT 5.0, 3.2.2.3.3, 3.2.2.3.6]"""
    properties = dial().open(unique).properties
    assert properties[RECEIVE_MAXIMUM] == [5]
    assert properties[MAXIMUM_PACKET_SIZE] == [4096]


def test_a_publish_beyond_the_receive_maximum_ends_the_connection(
    join: Join, unique: str
) -> None:
    """[MQTT-3.3.4-7]"""
    client = join()
    for number in range(5):
        client.send(publish(unique, b"x", 2, number + 1))
    for _ in range(5):
        client.expect(PUBREC)  # not released, so still counted
    client.send(publish(unique, b"x", 0))
    assert client.settled() == []
    client.send(publish(unique, b"x", 2, 6))
    assert client.ended() == 0x93


def test_a_release_makes_room_under_the_receive_maximum(join: Join, unique: str) -> None:
    """[MQTT-4.9.0-1, MQTT-4.9.0-2]"""
    client = join()
    for number in range(1, 31):
        client.publish(unique, b"x", number % 2 + 1, packet_id=number)
    for number in range(5):
        client.send(publish(unique, b"x", 2, number + 1))
        client.expect(PUBREC)
    client.send(ack(PUBREL, 3), publish(unique, b"x", 1, 9))
    assert client.expect(PUBCOMP).packet_id == 3
    assert client.expect(PUBACK).packet_id == 9


def test_a_repetition_is_not_counted_twice(join: Join, unique: str) -> None:
    """[MQTT-3.3.4-7, MQTT-4.3.3-10]"""
    client = join()
    for _ in range(20):
        client.send(publish(unique, b"x", 2, 1))
        client.expect(PUBREC)
    client.publish(unique, b"x", 1, packet_id=2)


def test_a_refused_publish_is_not_counted_any_more(join: Join) -> None:
    """[MQTT-4.9.0-1]"""
    client = join()
    for number in range(1, 31):
        assert client.publish("$SYS/x", b"", number % 2 + 1, packet_id=number).reason == 0x87


def test_before_5_there_is_no_receive_maximum(join: Join, unique: str) -> None:
    """[MQTT 3.1.1, 4.3]"""
    client = join(version=4)
    for number in range(50):
        client.send(publish(unique, b"x", 2, number + 1, version=4))
    assert [client.expect(PUBREC).packet_id for _ in range(50)] == list(range(1, 51))


def test_a_new_connection_starts_with_the_whole_quota(join: Join, unique: str) -> None:
    """[MQTT-4.9.0-1]"""
    client = join(unique, properties=KEPT)
    for number in range(5):
        client.send(publish(unique, b"x", 2, number + 1))
        client.expect(PUBREC)
    client.cut()
    client = join(unique, clean=False, properties=KEPT)
    for number in range(5):
        client.send(publish(unique, b"x", 2, number + 11))
        assert client.expect(PUBREC).packet_id == number + 11


@pytest.mark.parametrize("version", [4, 5])
def test_a_packet_above_the_limit_is_refused_by_its_length(version: int, join: Join) -> None:
    """[MQTT-3.2.2-15, MQTT 5.0, 3.2.2.3.6]"""
    client = join(version=version)
    client.send(bytes([PUBLISH << 4]) + varint(5000))
    assert client.ended() == (0x95 if version == 5 else None)


def test_a_packet_of_just_the_limit_is_taken(join: Join, unique: str) -> None:
    """[MQTT-3.2.2-15]"""
    client = join()
    client.subscribe(unique)
    size = 4096 - len(publish(unique, b"")) - 1
    assert len(publish(unique, b"x" * size)) == 4096
    client.send(publish(unique, b"x" * size))
    assert len(client.message().payload) == size
    client.send(publish(unique, b"x" * (size + 1)))
    assert client.ended() == 0x95


@pytest.mark.parametrize("keep_alive_s", [0, 101, 65_535])
def test_a_keep_alive_beyond_the_limit_is_told(
    keep_alive_s: int, dial: Dial, unique: str
) -> None:
    """[MQTT-3.2.2-21]"""
    answer = dial().open(unique, keep_alive_s=keep_alive_s)
    assert answer.properties[0x13] == [100]


# --- what the client takes --------------------------------------------------------------------


def test_the_server_keeps_to_the_clients_receive_maximum(join: Join, unique: str) -> None:
    """[MQTT-3.3.4-9, MQTT-4.9.0-1, MQTT-4.9.0-2]"""
    client, publisher = join(properties=prop(RECEIVE_MAXIMUM, 3)), join()
    client.subscribe(unique, 2)
    for number in range(10):
        publisher.publish(unique, b"%d" % number, number % 2 + 1)
    got = client.messages()
    assert len(got) == 3
    for number in range(3, 10):
        done = got[number - 3]
        if done.qos == 1:
            client.send(ack(PUBACK, done.packet_id))
        else:
            client.send(ack(PUBREC, done.packet_id))
            assert client.expect(PUBREL).packet_id == done.packet_id
            assert client.settled() == []  # PUBREC alone makes no room
            client.send(ack(PUBCOMP, done.packet_id))
        got += client.messages()
        assert len(got) == number + 1
    assert [message.payload for message in got] == [b"%d" % number for number in range(10)]


def test_a_refusing_pubrec_makes_room(join: Join, unique: str) -> None:
    """[MQTT-4.9.0-1, MQTT-4.4.0-2]"""
    client, publisher = join(properties=prop(RECEIVE_MAXIMUM, 1)), join()
    client.subscribe(unique, 2)
    for number in range(3):
        publisher.publish(unique, b"%d" % number, 2)
    for number in range(3):
        (message,) = client.messages()
        assert message.payload == b"%d" % number
        client.send(ack(PUBREC, message.packet_id, 0x97))


def test_a_full_window_holds_nothing_else_back(join: Join, unique: str) -> None:
    """[MQTT-3.3.4-10, MQTT-4.9.0-3]"""
    client, publisher = join(properties=prop(RECEIVE_MAXIMUM, 1)), join()
    client.subscribe(f"{unique}/1", 1)
    publisher.publish(f"{unique}/1", b"in flight")
    assert client.message().payload == b"in flight"
    client.subscribe(f"{unique}/0", 0)
    publisher.publish(f"{unique}/0", b"QoS 0")
    assert client.message().payload == b"QoS 0"
    client.publish(unique, b"", 2)
    client.unsubscribe(f"{unique}/0")
    assert client.settled() == []


def test_what_comes_again_keeps_to_the_new_receive_maximum(join: Join, unique: str) -> None:
    """[MQTT-3.3.4-9, MQTT-4.4.0-1, MQTT-4.6.0-1]"""
    client, publisher = join(unique, properties=KEPT), join()
    client.subscribe(unique, 2)
    for number in range(6):
        publisher.publish(unique, b"%d" % number, 1)
    first = client.messages()
    client.send(ack(PUBREC, 999))
    assert client.expect(PUBREL).reason == 0x92
    client.cut()
    publisher.publish(unique, b"6")
    client = join(unique, clean=False, properties=KEPT + prop(RECEIVE_MAXIMUM, 2))
    got = client.messages()
    assert len(got) == 2
    for number in range(7):
        client.send(ack(PUBACK, got[number].packet_id))
        got += client.messages()
        assert len(got) == min(7, number + 3)
    assert [(one.payload, one.dup) for one in got] == [
        (b"%d" % number, number < 6) for number in range(7)
    ]
    assert [one.packet_id for one in got[:6]] == [one.packet_id for one in first]


def test_a_message_larger_than_the_client_takes_is_passed_over(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-24, MQTT-3.1.2-25]"""
    client, publisher = join(properties=prop(MAXIMUM_PACKET_SIZE, 100)), join()
    client.subscribe(unique, 2)
    for size in (10, 200, 11):
        for qos in range(3):
            publisher.publish(unique, bytes(size), qos)
    assert [len(message.payload) for message in client.messages()] == [10] * 3 + [11] * 3


@pytest.mark.parametrize("live", [True, False], ids=["live", "queued"])
def test_a_message_of_just_the_clients_limit_is_sent(
    live: bool, join: Join, unique: str
) -> None:
    """[MQTT-3.1.2-24]"""
    size = len(publish(unique, b"", 1, 1)) + 50
    properties = KEPT + prop(MAXIMUM_PACKET_SIZE, size)
    client, publisher = join(unique, properties=properties), join()
    client.subscribe(unique, 1)
    if not live:
        client.cut()
    publisher.publish(unique, b"x" * 51)
    publisher.publish(unique, b"x" * 50)
    if not live:
        client = join(unique, clean=False, properties=properties)
    assert [len(payload) for payload in client.payloads()] == [50]


def test_no_answer_is_larger_than_the_client_takes(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-24, MQTT-3.1.2-25, MQTT-3.14.2-3]"""
    client = join(properties=prop(MAXIMUM_PACKET_SIZE, 30))
    client.send(subscribe(2, *[(unique, 0)] * 20))
    assert client.expect(SUBACK).packet_id == 2
    assert client.subscribe("a/#/b", packet_id=3).properties == {}  # no room
    client.send(connect(unique))
    last = client.rest()[-1]
    assert isinstance(last, Answer)
    assert (last.kind, last.reason) == (DISCONNECT, 0x82)
    assert last.size <= 30
    assert REASON_STRING not in last.properties


@pytest.mark.parametrize("kind", [SUBSCRIBE, UNSUBSCRIBE])
def test_an_answer_that_the_client_does_not_take_ends_the_connection(
    kind: int, join: Join, unique: str
) -> None:
    """[MQTT-3.1.2-24]"""
    client = join(properties=prop(MAXIMUM_PACKET_SIZE, 30))
    filters = [f"{unique}/{number}" for number in range(50)]
    if kind == SUBSCRIBE:
        client.send(subscribe(1, *[(one, 0) for one in filters]))
    else:
        client.send(unsubscribe(1, *filters))
    assert client.rest()[-1:] == [Answer(DISCONNECT, 0, (0x95,), {}, size=3)]


@pytest.mark.parametrize(
    ("size_max", "answers"), [(4, []), (5, [0x95]), (12, [0x95]), (40, [0])]
)
def test_a_client_that_takes_no_connack_is_not_accepted(
    size_max: int, answers: list[int], dial: Dial, unique: str
) -> None:
    """[MQTT-3.1.2-24]"""
    client = dial()
    client.send(connect(unique, properties=prop(MAXIMUM_PACKET_SIZE, size_max)))
    if answers == [0]:
        assert client.expect(CONNACK).reason == 0
    else:
        rest = [one for one in client.rest() if isinstance(one, Answer)]
        assert [one.reason for one in rest] == answers
        assert all(one.size <= size_max for one in rest)
