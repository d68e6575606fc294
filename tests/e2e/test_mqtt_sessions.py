"""What outlives a connection: sessions, unacknowledged messages, QoS 2 halves, take-over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish
from tests.e2e.patience import in_time, keep_within, wait_until
from tests.e2e.raw_mqtt import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    RawMqtt,
    ack,
    connect,
    packet,
    publish,
    raw_connection,
    raw_session,
    subscribe,
    text,
    uint16,
    varint,
)

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

NO_EXPIRY = 0xFFFFFFFF
BOTH_VERSIONS = pytest.mark.parametrize("version", [4, 5])


def lasting(version: int) -> dict[str, object]:
    """Return the CONNECT options of a session that outlives its connection."""
    return {"clean": False, "version": version} | (
        {"session_expiry_s": NO_EXPIRY} if version == 5 else {}
    )


def subscribed(session: RawMqtt, topic_filter: str, qos: int, version: int) -> None:
    session.send(subscribe(1, topic_filter, qos, version=version))
    assert session.expect(SUBACK).body[-1] == qos


# --- presence and expiry --------------------------------------------------------------------


@BOTH_VERSIONS
def test_a_session_is_present_until_a_clean_start(
    version: int, shores: Shores, unique: str
) -> None:
    """[MQTT-3.2.2-2], [MQTT-3.2.2-3]"""
    seen = []
    for clean in (False, False, True, False):
        options = lasting(version) | {"clean": clean}
        if version == 4 and clean:
            options = {"version": 4}
        with raw_session(shores.mqtt, unique, **options) as session:
            seen.append(session.session_present)
    # A 3.1.1 clean session ends with its connection; one of version 5 only begins clean.
    assert seen == [False, True, False, version == 5]


def test_a_session_expires_and_not_before(shores: Shores, unique: str) -> None:
    def leave(expiry_s: int) -> None:
        options = {"clean": False, "session_expiry_s": expiry_s}
        with raw_session(shores.mqtt, unique, **options) as session:
            session.send(packet(DISCONNECT))
            assert session.receive() is None  # the server has begun to count
            session.cut()

    def is_present() -> bool:
        with raw_session(shores.mqtt, unique, clean=False) as session:
            return session.session_present

    def comes_back(expiry_s: int) -> None:
        left_s = time.monotonic()
        leave(expiry_s)
        if not is_present():
            keep_within(expiry_s, left_s)
            raise AssertionError("the session has expired too early")

    in_time(comes_back)
    leave(1)
    time.sleep(1.2)
    assert not is_present()


def test_disconnect_can_shorten_the_expiry(shores: Shores, unique: str) -> None:
    """Session Expiry Interval 0 in DISCONNECT ends the session [MQTT 3.14.2.2.2]."""
    options = {"clean": False, "session_expiry_s": 100}
    with raw_session(shores.mqtt, unique, **options) as session:
        session.send(packet(DISCONNECT, b"\0" + varint(5) + b"\x11" + (0).to_bytes(4, "big")))
        assert session.receive() is None
        session.cut()
    with raw_session(shores.mqtt, unique, **options) as session:
        assert not session.session_present


def test_without_an_expiry_the_session_ends_with_the_connection(
    shores: Shores, unique: str
) -> None:
    with raw_session(shores.mqtt, unique, clean=False) as session:
        session.cut()
    time.sleep(0.2)
    with raw_session(shores.mqtt, unique, clean=False) as session:
        assert not session.session_present


@BOTH_VERSIONS
def test_messages_wait_for_an_absent_session(version: int, shores: Shores, unique: str) -> None:
    options = lasting(version)
    with raw_session(shores.mqtt, unique, **options) as session:
        subscribed(session, f"{unique}/#", 1, version)
    with paho_client(shores.mqtt) as elsewhere:
        paho_publish(elsewhere, [Message(f"{unique}/a", b"%d" % n) for n in range(5)])
    with raw_session(shores.mqtt, unique, **options) as session:
        assert session.session_present
        for number in range(5):
            arrived = session.expect(PUBLISH)
            assert arrived.payload(version) == b"%d" % number
            assert not arrived.dup
            session.send(ack(PUBACK, arrived.packet_id))


# --- resend on reconnect --------------------------------------------------------------------


@BOTH_VERSIONS
def test_what_was_not_acknowledged_comes_again_with_dup_and_the_same_id(
    version: int, shores: Shores, unique: str
) -> None:
    """[MQTT-4.4.0-1], [MQTT-3.3.1-1]"""
    options = lasting(version)
    with raw_session(shores.mqtt, unique, **options) as session:
        subscribed(session, unique, 1, version)
        with paho_client(shores.mqtt) as elsewhere:
            paho_publish(elsewhere, [Message(unique, b"%d" % n) for n in range(3)])
        first = [session.expect(PUBLISH) for _ in range(3)]
        assert not any(one.dup for one in first)
        session.send(ack(PUBACK, first[0].packet_id))
        wait_until(lambda: session.is_silent(0.1), "silence")
        session.cut()
    with raw_session(shores.mqtt, unique, **options) as session:
        again = [session.expect(PUBLISH) for _ in range(2)]
        assert all(one.dup for one in again)
        assert [one.packet_id for one in again] == [one.packet_id for one in first[1:]]
        assert [one.payload(version) for one in again] == [b"1", b"2"]
        session.send(*(ack(PUBACK, one.packet_id) for one in again))
    with raw_session(shores.mqtt, unique, **options) as session:
        assert session.is_silent()


@BOTH_VERSIONS
def test_quality_two_to_a_subscriber_survives_a_break_at_either_half(
    version: int, shores: Shores, unique: str
) -> None:
    """[MQTT-4.3.3-1], [MQTT-4.4.0-1]"""
    options = lasting(version)
    with raw_session(shores.mqtt, unique, **options) as session:
        subscribed(session, unique, 2, version)
        with paho_client(shores.mqtt) as elsewhere:
            paho_publish(elsewhere, [Message(unique, b"x", 2)])
        first = session.expect(PUBLISH)
        assert first.qos == 2
        session.cut()
    with raw_session(shores.mqtt, unique, **options) as session:
        again = session.expect(PUBLISH)
        assert (again.dup, again.packet_id) == (True, first.packet_id)
        session.send(ack(PUBREC, first.packet_id))
        assert session.expect(PUBREL).packet_id == first.packet_id
        session.cut()
    with raw_session(shores.mqtt, unique, **options) as session:
        assert session.expect(PUBREL).packet_id == first.packet_id
        session.send(ack(PUBCOMP, first.packet_id))
    with raw_session(shores.mqtt, unique, **options) as session:
        assert session.is_silent()


@BOTH_VERSIONS
def test_quality_two_from_a_publisher_is_taken_once(
    version: int, shores: Shores, unique: str
) -> None:
    """A PUBLISH sent again before PUBREL is the same message, over a reconnect as well."""
    options = lasting(version)
    with (
        raw_session(shores.mqtt, f"{unique}-reader", version=version) as reader,
        raw_session(shores.mqtt, f"{unique}-writer", **options) as writer,
    ):
        subscribed(reader, unique, 2, version)
        first = publish(unique, b"once", qos=2, packet_id=7, version=version)
        again = publish(unique, b"once", qos=2, packet_id=7, dup=True, version=version)
        writer.send(first)
        assert writer.expect(PUBREC).packet_id == 7
        writer.send(again)
        assert writer.expect(PUBREC).packet_id == 7
        writer.cut()
        with raw_session(shores.mqtt, f"{unique}-writer", **options) as writer_again:
            assert writer_again.session_present
            writer_again.send(again)
            assert writer_again.expect(PUBREC).packet_id == 7
            writer_again.send(ack(PUBREL, 7))
            assert writer_again.expect(PUBCOMP).packet_id == 7
            arrived = reader.expect(PUBLISH)
            assert arrived.payload(version) == b"once"
            reader.send(ack(PUBREC, arrived.packet_id))
            reader.expect(PUBREL)
            reader.send(ack(PUBCOMP, arrived.packet_id))
            assert reader.is_silent()
            # After PUBCOMP the id is free: the same bytes are a new message.
            writer_again.send(first)
            assert writer_again.expect(PUBREC).packet_id == 7
            writer_again.send(ack(PUBREL, 7))
            writer_again.expect(PUBCOMP)
            reader.expect(PUBLISH)


def test_a_dup_flag_alone_is_no_proof_of_a_duplicate(shores: Shores, unique: str) -> None:
    """A PUBLISH with DUP that the server never saw is a new one [DESIGN 3, guarantee 4]."""
    with (
        raw_session(shores.mqtt, f"{unique}-reader") as reader,
        raw_session(shores.mqtt, f"{unique}-writer") as writer,
    ):
        subscribed(reader, unique, 1, 5)
        writer.send(publish(unique, b"new", qos=1, packet_id=9, dup=True))
        assert writer.expect(PUBACK).packet_id == 9
        arrived = reader.expect(PUBLISH)
        assert arrived.payload() == b"new"
        assert not arrived.dup


def test_the_receive_maximum_of_a_client_is_kept(shores: Shores, unique: str) -> None:
    """[MQTT-3.3.4-9]: no more unacknowledged messages than announced."""
    properties = b"\x21" + uint16(2)
    head = text("MQTT") + bytes([5, 2]) + uint16(0) + varint(len(properties)) + properties
    with raw_connection(shores.mqtt) as session:
        session.send(packet(1, head + text(unique)))
        session.expect(CONNACK)
        subscribed(session, unique, 1, 5)
        with paho_client(shores.mqtt) as elsewhere:
            paho_publish(elsewhere, [Message(unique, b"%d" % n) for n in range(4)])
        first = [session.expect(PUBLISH) for _ in range(2)]
        assert session.is_silent()
        session.send(ack(PUBACK, first[0].packet_id))
        assert session.expect(PUBLISH).payload() == b"2"
        assert session.is_silent(0.1)


# --- take-over ------------------------------------------------------------------------------


@BOTH_VERSIONS
def test_a_second_connection_takes_the_session_over(
    version: int, shores: Shores, unique: str
) -> None:
    """[MQTT-3.1.4-3]; version 5 says why: 0x8E."""
    options = lasting(version)
    with raw_session(shores.mqtt, unique, **options) as first:
        subscribed(first, unique, 1, version)
        with raw_session(shores.mqtt, unique, **options) as second:
            assert second.session_present
            last = first.receive()
            if version == 5:
                assert last is not None
                assert (last.kind, last.body[:1]) == (DISCONNECT, b"\x8e")
                last = first.receive()
            assert last is None
            first.cut()
            with paho_client(shores.mqtt) as elsewhere:
                paho_publish(elsewhere, [Message(unique, b"x")])
            assert second.expect(PUBLISH).payload(version) == b"x"


def test_an_empty_client_id_gets_one_assigned(shores: Shores) -> None:
    """[MQTT-3.1.3-6], [MQTT-3.2.2-16]"""
    with raw_connection(shores.mqtt) as session:
        session.send(connect(""))
        assert b"\x12" in session.expect(CONNACK).body[2:]


def test_3_1_1_refuses_an_empty_client_id_without_clean_session(shores: Shores) -> None:
    """[MQTT-3.1.3-8]: return code 0x02, then the connection closes."""
    with raw_connection(shores.mqtt) as session:
        session.send(connect("", version=4, clean=False))
        assert session.expect(CONNACK).body == b"\x00\x02"
        assert session.receive() is None


@pytest.mark.parametrize(("version", "refusal"), [(3, 1), (6, 0x84), (99, 0x84)])
def test_an_unknown_protocol_version_is_refused(
    version: int, refusal: int, shores: Shores, unique: str
) -> None:
    """[MQTT-3.1.2-2]; old versions are answered in their own words."""
    with raw_connection(shores.mqtt) as session:
        session.send(connect(unique, version=version))
        answer = session.receive()
        if answer is not None:
            assert answer.kind == CONNACK
            assert answer.body[1] in (refusal, 1)
            assert session.receive() is None
