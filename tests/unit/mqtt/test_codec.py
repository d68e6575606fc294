"""Decoder and encode beyond the wire cases: limits, state, what a version leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.errors import Malformed, TooLarge, UnexpectedPacket, UnsupportedVersion
from isthmus.mqtt import packets
from isthmus.mqtt.codec import (
    HELD_BYTES_MAX,
    Decoder,
    encode,
    encode_ack,
    encode_properties,
    encode_publish,
)
from isthmus.mqtt.control import FILTERS_AT_A_TIME, FILTERS_MAX
from isthmus.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from isthmus.mqtt.properties import MESSAGE_EXPIRY, REASON_STRING
from isthmus.wire.buffer import WriteBuffer


def encoded(packet: Any, version: int) -> bytes:
    out = WriteBuffer()
    encode(packet, version, out)
    return out.take()


def opened(version: int, packet_size_max: int = 1_000) -> Decoder:
    decoder = Decoder(packet_size_max)
    assert len(decoder.feed(encoded(Connect(version, "c"), version))) == 1
    assert decoder.go_on() == []
    return decoder


# --- limits -----------------------------------------------------------------------------------


def test_the_limit_counts_the_whole_packet() -> None:
    """[MQTT 5.0, 3.1.2.11.4]: the total number of bytes, fixed header included."""
    packet = Publish(b"a", bytes(195))
    data = encoded(packet, 4)
    assert len(data) == 201
    assert opened(4, 201).feed(data) == [packet]
    decoder = opened(4, 200)
    assert decoder.feed(data[:3]) == []
    assert type(decoder.error) is TooLarge


def test_the_limit_can_change_once_the_client_is_known() -> None:
    decoder = Decoder(20)
    assert decoder.feed(encoded(Connect(4, "c"), 4))
    assert decoder.go_on() == []
    decoder.packet_size_max = 1_000
    assert decoder.feed(encoded(Publish(b"a", bytes(500)), 4))


def test_nothing_is_read_after_an_error() -> None:
    decoder = opened(4)
    good = encoded(Publish(b"a", b"x"), 4)
    assert len(decoder.feed(good + b"\x00\x00" + good)) == 1
    error = decoder.error
    assert type(error) is Malformed
    assert decoder.feed(good) == []
    assert decoder.error is error


def test_an_empty_read_is_nothing() -> None:
    decoder = opened(4)
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\xc0") == []
    assert decoder.feed(memoryview(b"")) == []
    assert [packet.type for packet in decoder.feed(b"\x00")] == [packets.PINGREQ]


def test_the_receive_buffer_is_free_again_after_each_feed() -> None:
    decoder = opened(5)
    for stream in (
        encoded(Publish(b"a", b"x" * 50, properties={MESSAGE_EXPIRY: 1}), 5),
        encoded(Ack(packets.PUBACK, 1, 0x10, {REASON_STRING: "r"}), 5),
        encoded(Subscribe(1, [("a", 0)]), 5),
        b"\x00\x00",
    ):
        for cut in (len(stream), 1, len(stream) - 1):
            for piece in (bytearray(stream[:cut]), bytearray(stream[cut:])):
                decoder.feed(memoryview(piece))
                piece.clear()  # BufferError if it were still looked at


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe"])
def test_the_topic_filters_of_a_packet_are_limited(kind: str) -> None:
    def packet(count: int) -> bytes:
        if kind == "subscribe":
            return encoded(Subscribe(1, [("a", 0)] * count), 5)
        return encoded(Unsubscribe(1, ["a"] * count), 5)

    decoder = opened(5, 1 << 20)
    assert len(decoder.feed(packet(FILTERS_MAX))) == 1
    assert decoder.go_on() == []
    assert decoder.feed(packet(FILTERS_MAX + 1)) == []
    assert type(decoder.error) is TooLarge


def test_behind_very_many_topic_filters_nothing_is_read_for_now() -> None:
    def subscribes(*counts: int) -> bytes:
        return b"".join(encoded(Subscribe(1, [("a", 0)] * count), 5) for count in counts)

    decoder = opened(5, 1 << 20)
    data = subscribes(FILTERS_AT_A_TIME - 1, 1, 2, FILTERS_AT_A_TIME, 1)
    assert len(decoder.feed(data[:-1])) == 2
    assert decoder.is_held
    assert decoder.feed(data[-1:]) == []
    assert [len(packet.entries) for packet in decoder.go_on()] == [2, FILTERS_AT_A_TIME]
    assert decoder.is_held
    assert len(decoder.go_on()) == 1
    assert not decoder.is_held


# --- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level", "answer"),
    [
        (b"MQTT", 6, 5),
        (b"MQTT", 255, 5),
        (b"MQTT", 3, 3),
        (b"MQIsdp", 4, 4),
        (b"MQTT", 0x85, 5),
        (b"MQTT", 0x83, 3),
        (b"MQIsdp", 0x84, 4),
        (b"other", 5, 5),
        (b"MQTT", 0, 3),
    ],
)
def test_a_refusal_is_told_in_the_nearest_version(name: bytes, level: int, answer: int) -> None:
    """[MQTT-3.1.2-2]: CONNACK 0x01 before 5.0, 0x84 since."""
    body = len(name).to_bytes(2, "big") + name + bytes([level, 2, 0, 0, 0, 0])
    decoder = Decoder(1_000)
    assert decoder.feed(bytes([0x10, len(body)]) + body) == []
    assert type(decoder.error) is UnsupportedVersion
    assert decoder.version == answer


def test_the_version_of_a_bad_connect_is_known() -> None:
    decoder = Decoder(1_000)
    data = bytearray(encoded(Connect(5, "c"), 5))
    data[9] |= 1  # the reserved flag
    assert decoder.feed(bytes(data)) == []
    assert type(decoder.error) is Malformed
    assert decoder.version == 5


def test_a_first_packet_that_is_no_connect_is_not_waited_for() -> None:
    decoder = Decoder(1_000_000)
    assert decoder.feed(b"\x30\xff\xff\x03") == []
    assert type(decoder.error) is UnexpectedPacket
    assert decoder.version == 0


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (Publish(b"a", b"x", properties={MESSAGE_EXPIRY: 1}), "3004 0001 61 78"),
        (Ack(packets.PUBACK, 1, 0x97, {REASON_STRING: "r"}), "4002 0001"),
        (Connack(False, 0x87, {REASON_STRING: "r"}), "2002 0005"),
        (Connack(False, 0x84), "2002 0001"),
        (Connack(False, 0x81), "2002 0003"),
        (Connack(True, 4), "2002 0104"),
        (Suback(1, [0, 2, 0x87, 0x8F], {REASON_STRING: "r"}), "9006 0001 00 02 80 80"),
        (Unsuback(1, [0, 0x11]), "b002 0001"),
        (Subscribe(1, [("a", 0x2E)]), "8206 0001 0001 61 02"),
        (packets.Disconnect(0x8B, {REASON_STRING: "r"}), "e000"),
    ],
)
def test_what_an_older_version_does_not_know_is_left_out(packet: Any, expected: str) -> None:
    assert encoded(packet, 4) == bytes.fromhex(expected)


def test_there_are_no_flags_in_a_connack_of_3_1() -> None:
    assert encoded(Connack(True, 0), 3) == b"\x20\x02\x00\x00"


# --- the hot path -----------------------------------------------------------------------------


def test_a_topic_name_that_comes_again_is_the_same_object() -> None:
    decoder = opened(4)
    one = encoded(Publish(b"plant/7", b"x"), 4)
    other = encoded(Publish(b"plant/8", b"x"), 4)
    longer = encoded(Publish(b"plant/80", b"x"), 4)
    found = [packet.topic for packet in decoder.feed(one + one + other + longer + one)]
    assert found == [b"plant/7", b"plant/7", b"plant/8", b"plant/80", b"plant/7"]
    assert found[0] is found[1]


def test_encode_publish_is_what_encode_does() -> None:
    for version in (3, 4, 5):
        for packet in (
            Publish(b"a/b", b"x" * 300),
            Publish(b"a/b", b"", 1, True, True, 9),
            Publish(b"a/b", b"x", 2, packet_id=9, properties={MESSAGE_EXPIRY: 60}),
        ):
            out = WriteBuffer()
            encode_publish(
                out,
                version,
                packet.topic,
                memoryview(packet.payload),
                packet.qos,
                packet.retain,
                packet.dup,
                packet.packet_id,
                encode_properties(packet.properties or {}),
            )
            assert out.take() == encoded(packet, version)


@pytest.mark.parametrize(
    "kind", [packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP]
)
@pytest.mark.parametrize("reason", [0, 0x92])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_encode_ack_is_what_encode_does(version: int, reason: int, kind: int) -> None:
    out = WriteBuffer()
    encode_ack(out, version, kind, 513, reason)
    assert out.take() == encoded(Ack(kind, 513, reason), version)


def test_what_cannot_be_encoded_is_said_and_nothing_is_written() -> None:
    out = WriteBuffer()
    for packet, version in (
        (Auth(0x18), 4),
        (Connect(4, "a\0"), 4),
        (Publish(b"a", bytes(268_435_455)), 4),
        (Subscribe(1, [("a" * 65_536, 0)]), 5),
    ):
        with pytest.raises(ValueError):
            encode(packet, version, out)
        assert len(out) == 0


def test_what_is_kept_behind_a_connect_is_bounded() -> None:
    decoder = Decoder(1 << 20)
    assert decoder.feed(encoded(Connect(5, "c"), 5) + bytes(HELD_BYTES_MAX)) != []
    assert decoder.error is None
    assert decoder.feed(b"\0") == []
    assert type(decoder.error) is TooLarge
