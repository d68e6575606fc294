"""Chapters 3.4 to 3.7, 4.3, 4.4 and 4.6: acknowledgements, repetition and order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    MESSAGE_EXPIRY,
    REQUEST_PROBLEM_INFO,
    SESSION_EXPIRY,
    USER_PROPERTY,
    Answer,
    Message,
    ack,
    prop,
    publish,
)
from tests.e2e.raw_mqtt import PUBACK, PUBCOMP, PUBREC, PUBREL, packet, uint16

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
KEPT = prop(SESSION_EXPIRY, 3600)


def keep(version: int) -> dict[str, object]:
    """Return the options of a CONNECT whose session outlives the connection."""
    return {"properties": KEPT} if version == 5 else {"clean": False}


def resume(version: int) -> dict[str, object]:
    """Return the options of a CONNECT that goes on with a session."""
    return {"clean": False, **keep(version)}


# --- from a client ----------------------------------------------------------------------------


@VERSIONS
def test_a_qos_2_publish_is_taken_once_until_it_is_released(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.3.3-8, MQTT-4.3.3-10, MQTT-4.3.3-11, MQTT-4.3.3-12, MQTT-3.3.1-3, MQTT-4.1.0-1;
    MQTT 3.1.1: MQTT-4.1.0-2, MQTT-4.3.3-2]"""
    watcher, client = join(version=version), join(version=version)
    watcher.subscribe(unique)
    for payload, dup in ((b"first", False), (b"second", True), (b"third", False)):
        client.send(publish(unique, payload, 2, 9, dup=dup, version=version))
        assert client.expect(PUBREC).packet_id == 9
    for _ in range(2):
        client.send(ack(PUBREL, 9))
        assert client.expect(PUBCOMP).packet_id == 9
    client.publish(unique, b"new", 2, packet_id=9, dup=True)
    assert watcher.payloads() == [b"first", b"new"]


def test_three_qos_2_publishes_with_one_id_in_one_segment_are_one(
    join: Join, unique: str
) -> None:
    """[MQTT-4.3.3-10]"""
    watcher, client = join(), join()
    watcher.subscribe(unique)
    client.send(*[publish(unique, b"%d" % n, 2, 9, dup=n > 0) for n in range(3)])
    assert client.expect(PUBREC).reason == 0
    client.send(ack(PUBREL, 9))
    assert client.expect(PUBCOMP).reason == 0
    assert client.settled() == []
    assert watcher.payloads() == [b"0"]


@VERSIONS
def test_a_qos_2_exchange_goes_on_over_connections(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.4.0-1, MQTT-4.3.3-10, MQTT-4.1.0-1; MQTT 3.1.1: MQTT-4.1.0-1, MQTT-4.3.3-2,
    MQTT-4.4.0-1]"""
    watcher, client = join(), join(unique, version, **keep(version))
    watcher.subscribe(unique)
    client.send(publish(unique, b"x", 2, 9, version=version))
    client.expect(PUBREC)
    client.cut()
    client = join(unique, version, **resume(version))
    client.send(publish(unique, b"x", 2, 9, dup=True, version=version))
    assert client.expect(PUBREC).reason == 0
    client.cut()
    client = join(unique, version, **resume(version))
    client.send(ack(PUBREL, 9))
    assert client.expect(PUBCOMP).reason == 0
    assert watcher.payloads() == [b"x"]


def test_who_resumes_a_session_for_the_last_time_completes_what_was_under_way(
    join: Join, unique: str
) -> None:
    """Session Expiry Interval 0: it ends with this connection [MQTT-4.4.0-1, MQTT-4.3.3-12]"""
    client = join(unique, properties=KEPT)
    client.send(publish(unique, b"x", 2, 9))
    client.expect(PUBREC)
    client.cut()
    client = join(unique, clean=False)
    client.send(ack(PUBREL, 9))
    assert client.expect(PUBCOMP).packet_id == 9


def test_a_qos_2_publish_cut_before_its_pubrec_is_taken_once(join: Join, unique: str) -> None:
    """[MQTT-4.3.3-10, MQTT-4.4.0-1]"""
    watcher = join()
    watcher.subscribe(unique)
    for number in range(1, 21):
        client = join(unique, properties=KEPT, clean=number == 1)
        client.send(publish(unique, b"%d" % number, 2, number))
        client.cut()
        client = join(unique, properties=KEPT, clean=False)
        client.send(publish(unique, b"%d" % number, 2, number, dup=True))
        assert client.expect(PUBREC).packet_id == number
        client.send(ack(PUBREL, number))
        assert client.expect(PUBCOMP).reason == 0
        client.leave()
    assert watcher.payloads() == [b"%d" % number for number in range(1, 21)]


def test_a_clean_start_forgets_unreleased_ids(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-4]"""
    watcher, client = join(), join(unique, properties=KEPT)
    watcher.subscribe(unique)
    client.send(publish(unique, b"old", 2, 9))
    client.expect(PUBREC)
    client.cut()
    client = join(unique)
    client.publish(unique, b"new", 2, packet_id=9)
    assert watcher.payloads() == [b"old", b"new"]


def test_an_expired_qos_2_publish_is_acknowledged_to_its_end(join: Join, unique: str) -> None:
    """[MQTT-4.3.3-13]"""
    client = join()
    assert client.publish(unique, b"x", 2, properties=prop(MESSAGE_EXPIRY, 0)).reason == 0x10


def test_a_refused_qos_2_id_is_free_again(join: Join, unique: str) -> None:
    """[MQTT-4.3.3-9]"""
    watcher, client = join(), join()
    watcher.subscribe(unique)
    assert client.publish("$SYS/x", b"", 2, packet_id=9).reason == 0x87
    client.publish(unique, b"x", 2, packet_id=9, dup=True)
    assert watcher.payloads() == [b"x"]


@VERSIONS
def test_a_qos_1_id_may_be_used_again_once_acknowledged(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.3.2-5, MQTT-3.3.1-3; MQTT 3.1.1: MQTT-4.3.2-2]"""
    watcher, client = join(), join(version=version)
    watcher.subscribe(unique)
    for payload in (b"a", b"b"):
        client.publish(unique, payload, 1, packet_id=9, dup=True)
    assert watcher.payloads() == [b"a", b"b"]


@pytest.mark.parametrize(
    ("sent", "answer", "version", "reason"),
    [
        (PUBREL, PUBCOMP, 5, 0x92),
        (PUBREL, PUBCOMP, 4, 0),
        (PUBREC, PUBREL, 5, 0x92),
        (PUBREC, PUBREL, 4, 0),
    ],
)
def test_an_unknown_packet_id_is_answered_as_such(
    sent: int, answer: int, version: int, reason: int, join: Join
) -> None:
    """[MQTT-3.6.2-1, MQTT-3.7.2-1, MQTT-2.2.1-5]"""
    client = join(version=version)
    client.send(ack(sent, 77))
    found = client.expect(answer)
    assert (found.packet_id, found.reason) == (77, reason)


@pytest.mark.parametrize("kind", [PUBACK, PUBCOMP])
@VERSIONS
def test_an_unknown_final_acknowledgement_is_ignored(
    kind: int, version: int, join: Join
) -> None:
    """[MQTT 5.0, 4.3]"""
    client = join(version=version)
    client.send(ack(kind, 77))
    assert client.settled() == []


@pytest.mark.parametrize(
    "bad",
    [
        packet(PUBREL, uint16(1), 0),
        packet(PUBACK, uint16(1), 2),
        packet(PUBREC, uint16(1), 1),
        packet(PUBCOMP, uint16(1), 8),
        packet(PUBACK, b"\0"),
    ],
)
@pytest.mark.parametrize("version", [4, 5])
def test_acknowledgements_with_wrong_flags_or_length_are_malformed(
    version: int, bad: bytes, join: Join
) -> None:
    """[MQTT-2.1.3-1, MQTT-3.6.1-1, MQTT-4.13.1-1; MQTT 3.1.1: MQTT-2.2.2-1, MQTT-2.2.2-2,
    MQTT-3.6.1-1]"""
    client = join(version=version)
    client.send(bad)
    assert client.ended() == (0x81 if version == 5 else None)


@pytest.mark.parametrize("bad", [ack(PUBACK, 0), ack(PUBACK, 1, 0x92), ack(PUBREL, 1, 0x80)])
def test_acknowledgements_with_impossible_values_are_protocol_errors(
    bad: bytes, join: Join
) -> None:
    """[MQTT-2.2.1-3, MQTT-3.4.2-1, MQTT-3.6.2-1]"""
    client = join()
    client.send(bad)
    assert client.ended() == 0x82


def test_who_asks_for_no_problem_information_gets_none_with_acknowledgements(
    join: Join, unique: str
) -> None:
    """[MQTT-3.1.2-29]"""
    client = join(properties=prop(REQUEST_PROBLEM_INFO, 0))
    answers = [
        client.publish("$SYS/x", b"", 1),
        client.publish("$SYS/x", b"", 2, packet_id=2),
        client.subscribe("a/#/b"),
        client.unsubscribe("a/#/b"),
    ]
    assert [answer.properties for answer in answers] == [{}] * 4
    user = prop(USER_PROPERTY, ("a", "b"))
    client.subscribe(unique)
    client.publish(unique, b"x", properties=user)
    assert client.message().properties == {USER_PROPERTY: [("a", "b")]}


# --- to a client ------------------------------------------------------------------------------


@VERSIONS
def test_what_is_in_flight_comes_again_in_order_with_dup_and_its_ids(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.4.0-1, MQTT-3.3.1-1, MQTT-4.3.2-3, MQTT-4.3.3-3, MQTT-4.5.0-2; MQTT 3.1.1:
    MQTT-2.3.1-4, MQTT-3.3.1-1, MQTT-4.3.2-1, MQTT-4.3.3-1, MQTT-4.4.0-1, MQTT-4.5.0-2,
    MQTT-4.6.0-1, MQTT-4.6.0-6]"""
    client, publisher = join(unique, version, **keep(version)), join()
    client.subscribe(unique, 2)
    for number in range(10):
        publisher.publish(unique, b"%d" % number, number % 2 + 1)
    first = client.messages()
    assert not any(message.dup for message in first)
    assert len({message.packet_id for message in first}) == 10
    for _ in range(2):
        client.cut()
        client = join(unique, version, **resume(version))
        again = client.messages()
        assert all(message.dup for message in again)
        assert [(one.payload, one.packet_id, one.qos) for one in again] == [
            (one.payload, one.packet_id, one.qos) for one in first
        ]


@VERSIONS
def test_the_second_half_of_a_qos_2_delivery_comes_again(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.3.3-4, MQTT-4.3.3-5, MQTT-4.3.3-6, MQTT-4.4.0-1; MQTT 3.1.1: MQTT-4.3.3-1,
    MQTT-4.4.0-1]"""
    client, publisher = join(unique, version, **keep(version)), join()
    client.subscribe(unique, 2)
    publisher.publish(unique, b"x", 2)
    packet_id = client.message().packet_id
    for _ in range(2):
        client.send(ack(PUBREC, packet_id))
        assert client.expect(PUBREL).packet_id == packet_id
    for _ in range(2):
        client.cut()
        client = join(unique, version, **resume(version))
        (again,) = client.settled()
        assert isinstance(again, Answer)
        assert (again.kind, again.packet_id) == (PUBREL, packet_id)
    client.send(ack(PUBCOMP, packet_id))
    client.cut()
    client = join(unique, version, **resume(version))
    assert client.settled() == []


def test_nothing_is_sent_again_on_the_same_connection(join: Join, unique: str) -> None:
    """[MQTT-4.4.0-1]"""
    client = join()
    client.subscribe(unique, 2)
    client.publish(unique, b"x", 1)
    client.message()
    client.socket.settimeout(0.7)
    with pytest.raises(TimeoutError):
        client.receive()


@pytest.mark.parametrize(("kind", "qos"), [(PUBACK, 1), (PUBREC, 2)])
def test_a_refusing_acknowledgement_ends_the_delivery(
    kind: int, qos: int, join: Join, unique: str
) -> None:
    """[MQTT-4.4.0-2, MQTT-4.3.3-4]"""
    client = join(unique, properties=KEPT)
    client.subscribe(unique, qos)
    client.publish(unique, b"x", qos, packet_id=5)
    client.send(ack(kind, client.message().packet_id, 0x80))
    assert client.settled() == []
    client.cut()
    assert join(unique, clean=False).settled() == []


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_sent_comes_again_although_it_has_expired(
    qos: int, join: Join, unique: str
) -> None:
    """[MQTT-4.3.3-7, MQTT-4.4.0-1]"""
    client = join(unique, properties=KEPT)
    client.subscribe(unique, qos)
    client.publish(unique, b"x", qos, properties=prop(MESSAGE_EXPIRY, 0))
    packet_id = client.message().packet_id
    client.cut()
    client = join(unique, properties=KEPT, clean=False)
    again = client.message()
    assert (again.packet_id, again.dup) == (packet_id, True)
    assert again.properties == {MESSAGE_EXPIRY: [0]}


@VERSIONS
def test_packet_ids_are_not_zero_and_none_is_used_twice_at_a_time(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-2.2.1-4, MQTT-4.3.2-1, MQTT-4.3.3-1; MQTT 3.1.1: MQTT-2.3.1-1, MQTT-2.3.1-4,
    MQTT-4.3.2-1]"""
    client = join(version=version)
    client.subscribe(unique, 1)
    held = set()
    for number in range(300):
        client.publish(unique, b"%d" % number, 1)
        packet_id = client.message().packet_id
        assert packet_id not in held | {0}
        if number % 3:
            client.send(ack(PUBACK, packet_id))
        else:
            held.add(packet_id)


@pytest.mark.parametrize("qos", [0, 1, 2])
@VERSIONS
def test_messages_of_a_topic_name_arrive_in_their_order(
    version: int, qos: int, join: Join, unique: str
) -> None:
    """[MQTT-4.6.0-5, MQTT-4.6.0-6; MQTT 3.1.1: MQTT-4.6.0-5, MQTT-4.6.0-6]"""
    subscriber, publisher = join(version=version), join(version=version)
    subscriber.subscribe(unique, qos)
    for number in range(200):
        publisher.send(publish(unique, b"%d" % number, qos, number + 1, version=version))
    publisher.send(publish(unique, b"end", qos, 999, version=version))
    got: list[bytes] = []
    while got[-1:] != [b"end"]:
        one = subscriber.receive()
        assert isinstance(one, Message)
        got.append(one.payload)
    assert got == [b"%d" % number for number in range(200)] + [b"end"]
