"""Chapters 3.1 and 3.2: CONNECT, and the CONNACK that answers it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from unittest.mock import ANY

import pytest
from tests.conformance.raw_client import (
    ASSIGNED_CLIENT_ID,
    AUTH_METHOD,
    MAXIMUM_PACKET_SIZE,
    RECEIVE_MAXIMUM,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY,
    TOPIC_ALIAS_MAXIMUM,
    Answer,
    Will,
    ack,
    connect,
    disconnect,
    prop,
    publish,
    subscribe,
)
from tests.e2e.patience import TICK_S, in_time, keep_within
from tests.e2e.raw_mqtt import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    SUBACK,
    packet,
    text,
    uint16,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]
    Dial = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
BEFORE_5 = pytest.mark.parametrize("version", [3, 4])


# --- the first packet -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [packet(PINGREQ), publish("t", b"x"), subscribe(1, ("t", 0)), disconnect(), ack(PUBACK, 1)],
    ids=["PINGREQ", "PUBLISH", "SUBSCRIBE", "DISCONNECT", "PUBACK"],
)
def test_what_comes_before_connect_ends_the_connection_unanswered(
    first: bytes, dial: Dial
) -> None:
    """[MQTT-3.1.0-1, MQTT-3.14.0-1; MQTT 3.1.1: MQTT-3.1.0-1]"""
    client = dial()
    client.send(first)
    assert client.rest() == []


@VERSIONS
def test_a_second_connect_ends_the_connection(version: int, join: Join, unique: str) -> None:
    """[MQTT-3.1.0-2, MQTT-3.2.0-2; MQTT 3.1.1: MQTT-3.1.0-2]"""
    client = join(version=version)
    client.send(connect(unique, version=version))
    assert client.ended() == (0x82 if version == 5 else None)


def test_a_second_connect_in_the_same_segment_still_finds_the_first_answered(
    dial: Dial, unique: str
) -> None:
    """[MQTT-3.2.0-1, MQTT-3.14.0-1]"""
    client = dial()
    client.send(connect(unique), connect(unique))
    assert [answer.kind for answer in client.rest()] == [CONNACK, DISCONNECT]


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        (bytes([0x00, 0x00]), [CONNACK, DISCONNECT]),
        (packet(PINGREQ) + bytes([0x00, 0x00]), [CONNACK, PINGRESP, DISCONNECT]),
        (subscribe(1, ("t", 0)) + disconnect(), [CONNACK, SUBACK]),
        (disconnect(), [CONNACK]),
    ],
    ids=["malformed", "ping, malformed", "subscribe, disconnect", "disconnect"],
)
def test_connack_is_the_first_answer_whatever_comes_with_connect(
    after: bytes, kinds: list[int], dial: Dial, unique: str
) -> None:
    """[MQTT-3.2.0-1, MQTT-3.14.0-1]"""
    client = dial()
    client.send(connect(unique) + after)
    assert [answer.kind for answer in client.rest()] == kinds


@VERSIONS
def test_packets_may_follow_connect_without_waiting(
    version: int, dial: Dial, unique: str
) -> None:
    """[MQTT-3.2.0-1, MQTT-3.1.4-5; MQTT 3.1.1: MQTT-3.2.0-1, MQTT-3.1.4-4]"""
    client = dial(version)
    client.send(
        connect(unique, version=version),
        subscribe(1, (unique, 0), version=version),
        publish(unique, b"x", version=version),
    )
    assert client.expect(CONNACK).reason == 0
    assert client.expect(SUBACK).reasons == (0,)
    assert client.message().payload == b"x"


# --- the fields of CONNECT --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level", "answer"),
    [("MQTT", 6, 0x84), ("MQTT", 3, 1), ("MQIsdp", 4, 1), ("MQTTT", 5, 0x84), ("hj", 4, 1)],
)
def test_an_unknown_protocol_is_refused_in_the_version_nearest_to_it(
    name: str, level: int, answer: int, dial: Dial
) -> None:
    """[MQTT-3.1.2-1, MQTT-3.1.2-2, MQTT-3.2.2-7; MQTT 3.1.1: MQTT-3.1.2-1, MQTT-3.1.2-2,
    MQTT-3.2.2-5]"""
    client = dial(5 if level >= 5 else 4)
    block = b"\0" if level >= 5 else b""
    head = text(name) + bytes([level, 2]) + uint16(0)
    client.send(packet(CONNECT, head + block + text("c")))
    assert client.expect(CONNACK).reasons == (answer,)
    assert client.rest() == []


@pytest.mark.parametrize(
    "flags",
    [0x03, 0x02 | 0x08, 0x02 | 0x20, 0x02 | 0x04 | 0x18],
    ids=["reserved", "will QoS without will", "will retain without will", "will QoS 3"],
)
@pytest.mark.parametrize("version", [4, 5])
def test_impossible_connect_flags_end_the_connection(
    version: int, flags: int, dial: Dial
) -> None:
    """[MQTT-3.1.2-3, MQTT-3.1.2-11, MQTT-3.1.2-12, MQTT-3.1.2-13, MQTT-3.1.4-1; MQTT 3.1.1:
    MQTT-3.1.2-3, MQTT-3.1.2-11, MQTT-3.1.2-13, MQTT-3.1.2-14, MQTT-3.1.2-15, MQTT-3.1.4-1]"""
    client = dial(version)
    block = b"\0" if version == 5 else b""
    will = block + text("w") + text("gone") if flags & 0x04 else b""
    head = text("MQTT") + bytes([version, flags]) + uint16(0) + block
    client.send(packet(CONNECT, head + text("c") + will))
    rest = client.rest()
    assert [(one.kind, one.reason) for one in rest if isinstance(one, Answer)] == (
        [(CONNACK, 0x81)] if version == 5 else []
    )


@pytest.mark.parametrize("client_id", [b"\xff", b"\xed\xa0\x80", b"a\0b", b"\xc0\x80"])
@VERSIONS
def test_a_client_id_that_is_not_utf_8_ends_the_connection(
    version: int, client_id: bytes, dial: Dial
) -> None:
    """[MQTT-1.5.4-1, MQTT-1.5.4-2, MQTT-3.1.3-4; MQTT 3.1.1: MQTT-1.5.3-1, MQTT-1.5.3-2,
    MQTT-3.1.3-4]"""
    client = dial(version)
    client.send(connect(client_id, version=version))
    if version == 5:
        assert client.expect(CONNACK).reason == 0x81
    assert client.rest() == []


@pytest.mark.parametrize(
    "client_id",
    [
        "0",
        "0123456789abcdefghijklm",
        "ABCDEFGHIJKLMNOPQRSTUVW",
        "\ufeffx",
        "with a space/+#$",
        "y" * 65_535,
    ],
    ids=["1", "23 lower", "23 upper", "with BOM", "special", "65535"],
)
@VERSIONS
def test_client_ids_of_every_kind_are_taken(client_id: str, version: int, join: Join) -> None:
    """[MQTT-3.1.3-5, MQTT-1.5.4-3; MQTT 3.1.1: MQTT-3.1.3-5, MQTT-1.5.3-3]"""
    join(client_id, version).leave()


@VERSIONS
def test_a_byte_order_mark_is_part_of_a_name(version: int, join: Join, unique: str) -> None:
    """[MQTT-1.5.4-3; MQTT 3.1.1: MQTT-1.5.3-3]"""
    client = join(version=version)
    client.subscribe(f"{unique}/\ufeffx")
    client.publish(f"{unique}/x", b"without")
    client.publish(f"{unique}/\ufeffx", b"with")
    assert client.payloads() == [b"with"]


def test_a_client_without_an_id_is_assigned_one_that_it_can_come_back_with(
    join: Join, dial: Dial
) -> None:
    """[MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16]"""
    ids = []
    for _ in range(2):
        client = dial()
        answer = client.open("", properties=prop(SESSION_EXPIRY, 3600))
        (assigned,) = answer.properties[ASSIGNED_CLIENT_ID]
        ids.append(assigned)
        client.leave()
    assert len(set(ids)) == 2
    client = dial()
    assert client.open(ids[0], clean=False).session_present


def test_a_client_with_an_id_is_assigned_none(dial: Dial, unique: str) -> None:
    """[MQTT-3.2.2-16]"""
    assert ASSIGNED_CLIENT_ID not in dial().open(unique).properties


def test_in_3_1_1_a_session_to_keep_needs_an_id(dial: Dial) -> None:
    """[MQTT 3.1.1: MQTT-3.1.3-7, MQTT-3.1.3-8, MQTT-3.1.3-9, MQTT-3.2.2-5]"""
    client = dial(4)
    client.send(connect("", version=4, clean=False))
    assert client.expect(CONNACK).reasons == (2,)
    assert client.rest() == []


def test_clients_without_an_id_do_not_share_one(dial: Dial) -> None:
    """[MQTT-3.2.2-16; MQTT 3.1.1: MQTT-3.1.3-6]"""
    clients = [dial(version) for version in (4, 4, 5, 5)]
    for client in clients:
        assert client.open("").reason == 0
    assert [client.settled() for client in clients] == [[]] * 4


def test_an_authentication_method_is_refused(dial: Dial, unique: str) -> None:
    """[MQTT-4.12.0-1, MQTT-3.2.2-7]"""
    client = dial()
    client.send(connect(unique, properties=prop(AUTH_METHOD, "SCRAM-SHA-256")))
    assert client.expect(CONNACK).reason == 0x8C
    assert client.rest() == []


def test_what_follows_a_refused_connect_is_not_done(
    dial: Dial, join: Join, unique: str
) -> None:
    """[MQTT-3.1.4-6]"""
    watcher = join()
    watcher.subscribe(unique)
    client = dial()
    client.send(connect(unique, properties=prop(AUTH_METHOD, "x")), publish(unique, b"no"))
    assert [answer.kind for answer in client.rest()] == [CONNACK]
    assert watcher.settled() == []


@pytest.mark.parametrize(
    ("topic_name", "reason"),
    [("", 0x82), ("a/+", 0x90), ("a/#", 0x90), (b"\xff", 0x81), (b"a\0b", 0x81)],
    ids=["empty", "plus", "hash", "not UTF-8", "U+0000"],
)
@VERSIONS
def test_a_will_needs_a_topic_name(
    version: int, topic_name: str | bytes, reason: int, dial: Dial
) -> None:
    """[MQTT-3.1.3-11, MQTT-4.7.0-1, MQTT-4.7.3-1; MQTT 3.1.1: MQTT-3.1.3-10, MQTT-4.7.1-1,
    MQTT-4.7.3-1]"""
    client = dial(version)
    client.send(connect("c", version=version, will=Will(topic_name)))
    reasons = [one.reason for one in client.rest() if isinstance(one, Answer)]
    assert reasons == ([reason] if version == 5 else [])


@pytest.mark.parametrize(
    "properties",
    [
        prop(SESSION_EXPIRY, 1) * 2,
        prop(RECEIVE_MAXIMUM, 0),
        prop(MAXIMUM_PACKET_SIZE, 0),
        bytes([0x17, 2]),
        bytes([0x19, 2]),
    ],
    ids=["twice", "receive maximum 0", "packet size 0", "problem info 2", "response info 2"],
)
def test_forbidden_property_values_are_protocol_errors(properties: bytes, dial: Dial) -> None:
    """[MQTT 5.0, 3.1.2.11]"""
    client = dial()
    client.send(connect("c", properties=properties))
    assert client.expect(CONNACK).reason == 0x82
    assert client.rest() == []


def test_a_property_of_another_packet_is_malformed(dial: Dial) -> None:
    """[MQTT 5.0, 2.2.2.2]"""
    client = dial()
    client.send(connect("c", properties=prop(SERVER_KEEP_ALIVE, 1)))
    assert client.expect(CONNACK).reason == 0x81


# --- CONNACK ----------------------------------------------------------------------------------


def test_connack_announces_what_the_server_holds_to(dial: Dial, unique: str) -> None:
    """[MQTT 5.0, 3.2.2.3]"""
    properties = dial().open(unique).properties
    assert properties == {
        RECEIVE_MAXIMUM: [1024],
        MAXIMUM_PACKET_SIZE: ANY,
        TOPIC_ALIAS_MAXIMUM: [64],
    }


def test_connack_of_3_1_has_no_session_present(dial: Dial, unique: str) -> None:
    """[MQTT 3.1, 3.2]"""
    dial(3).open(unique, clean=False)
    assert not dial(3).open(unique, clean=False).session_present


def test_a_keep_alive_that_is_accepted_is_not_repeated(dial: Dial, unique: str) -> None:
    """[MQTT-3.2.2-22]"""
    assert SERVER_KEEP_ALIVE not in dial().open(unique, keep_alive_s=7).properties


def test_a_session_expiry_beyond_the_limit_is_told(dial: Dial, unique: str) -> None:
    """[MQTT 5.0, 3.2.2.3.2]"""
    answer = dial().open(unique, properties=prop(SESSION_EXPIRY, 0xFFFF_FFFF))
    assert answer.properties[SESSION_EXPIRY] == [604_800]


# --- keep alive -------------------------------------------------------------------------------


@VERSIONS
def test_silence_ends_the_connection_after_one_and_a_half_keep_alives(
    version: int, join: Join
) -> None:
    """[MQTT-3.1.2-20, MQTT-3.1.2-22; MQTT 3.1.1: MQTT-3.1.2-23, MQTT-3.1.2-24]"""
    spoke_s = time.monotonic()
    client = join(version=version, keep_alive_s=1)
    assert client.ended() == (0x8D if version == 5 else None)
    assert time.monotonic() - spoke_s > 1.5 - TICK_S


@VERSIONS
def test_a_ping_is_answered(version: int, join: Join) -> None:
    """[MQTT-3.12.4-1; MQTT 3.1.1: MQTT-3.12.4-1]"""
    client = join(version=version)
    client.send(packet(PINGREQ))
    assert client.expect(PINGRESP).size == 2


def test_any_packet_keeps_a_connection_alive(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-22, MQTT-3.12.4-1]"""

    def speaks(keep_alive_s: int) -> None:
        spoke_s = time.monotonic()
        client = join(keep_alive_s=keep_alive_s)
        for send in (client.settled, lambda: client.publish(unique), client.settled):
            time.sleep(keep_alive_s)
            again_s = time.monotonic()
            try:
                send()
            except (AssertionError, OSError):
                keep_within(1.5 * keep_alive_s, spoke_s)
                raise
            spoke_s = again_s

    in_time(speaks)
