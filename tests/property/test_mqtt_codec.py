"""The codec for packets and bytes that nobody thought of.

What is encoded is decoded to the same; where the stream is cut makes no difference; and
whatever bytes come, `feed` returns, keeps no more than the limit, and says why it stopped.
"""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.errors import ProtocolError
from isthmus.mqtt import packets, properties
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from isthmus.mqtt.reasons import DISCONNECT_BY_CLIENT, DISCONNECT_BY_SERVER, REASONS
from isthmus.wire.buffer import WriteBuffer

PACKET_SIZE_MAX = 100_000

# --- packets of every kind --------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NAMES = st.text(
    st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=20
)
TOPICS = NAMES.map(str.encode)
DATA = st.binary(max_size=40)
QOS = st.integers(0, 2)
PACKET_IDS = st.integers(1, 65_535)
VERSIONS = st.sampled_from([3, 4, 5])
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)

KINDS = {
    properties.FLAG: st.integers(0, 1),
    properties.U16: st.integers(1, 65_535),
    properties.U32: st.integers(1, 4_294_967_295),
    properties.VARINT: st.integers(1, properties.VARINT_MAX),
    properties.TEXT: TEXTS,
    properties.BINARY: DATA,
    properties.PAIR: PAIRS,
}


def properties_of(packet_type: int, *, without: tuple[int, ...] = ()) -> st.SearchStrategy[Any]:
    """Properties that this packet may have, or None."""
    values: dict[int, Any] = {}
    for identifier, rule in properties.RULES.items():
        if packet_type in rule.packets and identifier not in without:
            values[identifier] = KINDS[rule.kind]
    if properties.RESPONSE_TOPIC in values:
        values[properties.RESPONSE_TOPIC] = NAMES
    if packet_type == packets.PUBLISH and properties.SUBSCRIPTION_ID in values:
        identifiers = KINDS[properties.VARINT]
        values[properties.SUBSCRIPTION_ID] = st.lists(identifiers, min_size=1, max_size=3)
    chosen = st.fixed_dictionaries({}, optional=values)
    return chosen.map(lambda found: consistent(found) or None)


def consistent(found: dict[int, Any]) -> dict[int, Any]:
    if properties.AUTH_METHOD not in found:
        found.pop(properties.AUTH_DATA, None)
    return found


def only_5(version: int, strategy: st.SearchStrategy[Any], otherwise: Any = None) -> Any:
    return strategy if version == 5 else st.just(otherwise)


def publishes(version: int, side: str) -> st.SearchStrategy[Any]:
    without = (properties.SUBSCRIPTION_ID,) if side == "client" else ()
    found = only_5(version, properties_of(packets.PUBLISH, without=without))
    at_0 = st.builds(Publish, TOPICS, DATA, st.just(0), st.booleans(), properties=found)
    above = st.builds(
        Publish,
        TOPICS,
        DATA,
        st.integers(1, 2),
        st.booleans(),
        st.booleans(),
        PACKET_IDS,
        found,
    )
    return at_0 | above


def acks(version: int) -> st.SearchStrategy[Any]:
    return st.integers(packets.PUBACK, packets.PUBCOMP).flatmap(
        lambda kind: st.builds(
            Ack,
            st.just(kind),
            PACKET_IDS,
            only_5(version, st.sampled_from(sorted(REASONS[kind])), 0),
            only_5(version, properties_of(kind)),
        )
    )


def connects(version: int) -> st.SearchStrategy[Any]:
    will = st.builds(
        Will, TOPICS, DATA, QOS, st.booleans(), only_5(version, properties_of(properties.WILL))
    )
    name = st.none() | TEXTS
    both = st.tuples(name, st.none() | DATA if version == 5 else st.none()) | st.tuples(
        TEXTS, DATA
    )
    found = only_5(version, properties_of(packets.CONNECT))
    return both.flatmap(
        lambda login: st.builds(
            Connect,
            st.just(version),
            TEXTS,
            st.booleans(),
            st.integers(0, 65_535),
            st.just(login[0]),
            st.just(login[1]),
            st.none() | will,
            found,
        )
    )


def subscribes(version: int) -> st.SearchStrategy[Any]:
    options = st.builds(
        lambda qos, flags, handling: qos | flags << 2 | handling << 4,
        QOS,
        st.integers(0, 3),
        QOS,
    )
    filters = TEXTS.filter(lambda text: not text.startswith("$share/"))
    entries = st.lists(
        st.tuples(filters, options if version == 5 else QOS), min_size=1, max_size=4
    )
    return st.builds(
        Subscribe, PACKET_IDS, entries, only_5(version, properties_of(packets.SUBSCRIBE))
    )


def reasons(kind: int, version: int) -> st.SearchStrategy[Any]:
    known = sorted(REASONS[kind]) if version == 5 else [0, 1, 2, 0x80]
    return st.lists(st.sampled_from(known), min_size=1, max_size=4)


def packets_of(version: int, side: str) -> st.SearchStrategy[Any]:
    """Any packet but CONNECT that this side may send in this version."""
    shared = publishes(version, side) | acks(version)
    if side == "client":
        found = shared | subscribes(version) | st.builds(Pingreq)
        found |= st.builds(
            Unsubscribe,
            PACKET_IDS,
            st.lists(TEXTS, min_size=1, max_size=4),
            only_5(version, properties_of(packets.UNSUBSCRIBE)),
        )
        found |= disconnects(version, DISCONNECT_BY_CLIENT, ())
        return found | auths(0x18, 0x19) if version == 5 else found
    refusals = sorted(REASONS[packets.CONNACK]) if version == 5 else list(range(6))
    properties_found = only_5(version, properties_of(packets.CONNACK))
    found = shared | st.builds(Pingresp)
    found |= st.builds(Connack, st.just(False), st.sampled_from(refusals), properties_found)
    found |= st.builds(Connack, st.just(version > 3), st.just(0), properties_found)
    suback_properties = only_5(version, properties_of(packets.SUBACK))
    found |= st.builds(Suback, PACKET_IDS, reasons(packets.SUBACK, version), suback_properties)
    if version < 5:
        return found | st.builds(Unsuback, PACKET_IDS, st.just([]))
    found |= st.builds(
        Unsuback, PACKET_IDS, reasons(packets.UNSUBACK, 5), properties_of(packets.UNSUBACK)
    )
    found |= disconnects(5, DISCONNECT_BY_SERVER, (properties.SESSION_EXPIRY,))
    return found | auths(0x00, 0x18)


def disconnects(
    version: int, known: frozenset[int], without: tuple[int, ...]
) -> st.SearchStrategy[Any]:
    if version < 5:
        return st.builds(Disconnect)
    found = properties_of(packets.DISCONNECT, without=without)
    return st.builds(Disconnect, st.sampled_from(sorted(known)), found)


def auths(*known: int) -> st.SearchStrategy[Any]:
    found = properties_of(packets.AUTH).map(
        lambda some: {properties.AUTH_METHOD: "m"} | (some or {})
    )
    return st.builds(Auth, st.sampled_from(known), found)


def encoded(packet: Any, version: int) -> bytes:
    out = WriteBuffer()
    encode(packet, version, out)
    return out.take()


def opened(version: int, side: str) -> Decoder:
    if side == "server":
        return Decoder(PACKET_SIZE_MAX, version)
    decoder = Decoder(PACKET_SIZE_MAX)
    assert len(decoder.feed(encoded(Connect(version, ""), version))) == 1
    assert decoder.go_on() == []
    return decoder


# --- what is encoded is decoded to the same ---------------------------------------------------


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("side", ["client", "server"])
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_packets_survive_the_wire_and_any_cut(
    data: st.DataObject, side: str, version: int
) -> None:
    sent = data.draw(st.lists(packets_of(version, side), min_size=1, max_size=5))
    stream = b"".join(encoded(packet, version) for packet in sent)
    decoder = opened(version, side)
    assert decoder.feed(stream) == sent
    assert decoder.error is None

    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    decoder = opened(version, side)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        piece = bytearray(stream[start:end])
        found += decoder.feed(memoryview(piece))
        piece[:] = b"\xff" * len(piece)  # the decoder must not look at it again
    assert found == sent
    assert decoder.error is None


@given(VERSIONS.flatmap(connects), st.integers(0, 300))
def test_a_connect_survives_the_wire(connect: Connect, cut: int) -> None:
    stream = encoded(connect, connect.protocol_version)
    decoder = Decoder(PACKET_SIZE_MAX)
    assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == [connect]
    assert decoder.error is None
    assert decoder.version == connect.protocol_version


@given(VERSIONS.flatmap(connects), st.binary(max_size=100), st.integers(0, 300))
def test_what_follows_a_connect_waits_unread(connect: Connect, behind: bytes, cut: int) -> None:
    """[MQTT-3.1.4-6]"""
    version = connect.protocol_version
    stream = encoded(connect, version) + behind
    decoder = Decoder(PACKET_SIZE_MAX)
    assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == [connect]
    assert decoder.error is None
    found = decoder.go_on()
    assert (found, type(decoder.error)) == outcome([behind], version, "client")


# --- whatever bytes come ----------------------------------------------------------------------


def outcome(pieces: list[bytes], version: int, side: str) -> tuple[list[Any], type[Any]]:
    decoder = opened(version, side)
    found = [packet for piece in pieces for packet in decoder.feed(piece)]
    assert decoder.error is None or isinstance(decoder.error, ProtocolError)
    return found, type(decoder.error)


@given(
    st.binary(max_size=200),
    st.integers(0, 200),
    VERSIONS,
    st.sampled_from(["client", "server"]),
)
def test_any_bytes_are_read_the_same_however_cut(
    stream: bytes, cut: int, version: int, side: str
) -> None:
    whole = outcome([stream], version, side)
    assert outcome([stream[:cut], stream[cut:]], version, side) == whole
    assert outcome([bytes([byte]) for byte in stream], version, side) == whole


@given(st.binary(max_size=200))
def test_any_first_bytes(stream: bytes) -> None:
    decoder = Decoder(PACKET_SIZE_MAX)
    decoder.feed(stream)
    if len(stream) > 1 and stream[0] >> 4 != packets.CONNECT:
        assert decoder.error is not None


def seeds(version: int, side: str) -> list[bytes]:
    """A few valid packets of each kind, to be mutated."""
    found: list[Any] = [
        Publish(b"plant/7/temp", b"21.5", 1, packet_id=7),
        Publish(b"a", b""),
        *(Ack(kind, 9) for kind in range(packets.PUBACK, packets.PUBCOMP + 1)),
    ]
    if side == "client":
        found += [Subscribe(1, [("a/+", 1), ("b/#", 2)]), Unsubscribe(2, ["a/+"]), Pingreq()]
        found.append(Disconnect())
    else:
        found += [Connack(), Suback(1, [0, 0x80]), Unsuback(2, [0] if version == 5 else [])]
    if version == 5:
        more = {
            properties.USER_PROPERTY: [("k", "v"), ("k", "w")],
            properties.MESSAGE_EXPIRY: 60,
        }
        login = {properties.AUTH_METHOD: "SCRAM", properties.AUTH_DATA: b"\0\1"}
        found += [Publish(b"a/b", b"x", properties=more), Auth(0x18, login)]
        found.append(Ack(packets.PUBREC, 3, 0x97, {properties.REASON_STRING: "full"}))
        found.append(Disconnect(0x81, {properties.REASON_STRING: "why"}))
    return [encoded(packet, version) for packet in found]


def mutated(chance: random.Random, seed: bytes) -> bytes:
    """A valid packet with a few bytes changed, inserted, removed or repeated."""
    octets = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(octets)) if octets else 0
        match chance.randrange(5):
            case 0:
                octets[at : at + 1] = bytes([chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF))])
            case 1:
                octets[at : at + 1] = chance.randbytes(1)
            case 2:
                octets[at:at] = chance.randbytes(chance.randint(1, 4))
            case 3:
                del octets[at : at + chance.randint(1, 4)]
            case _:
                octets[at:at] = octets[at : at + chance.randint(1, 8)]
    return bytes(octets)


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("side", ["client", "server"])
def test_mutated_packets_end_a_connection_at_worst(side: str, version: int) -> None:
    """The same 2,000 streams on every run: a finding has a number."""
    chance = random.Random(f"{side} {version}")
    valid = seeds(version, side)
    for number in range(2_000):
        stream = b"".join(
            mutated(chance, packet) if chance.random() < 0.5 else packet
            for packet in chance.choices(valid, k=3)
        )
        cut = chance.randrange(len(stream) + 1)
        whole = outcome([stream], version, side)
        assert outcome([stream[:cut], stream[cut:]], version, side) == whole, number


def test_a_large_packet_in_waiting_costs_what_has_come() -> None:
    decoder = Decoder(1 << 28, 4)
    piece = bytes(1_000)
    tracemalloc.start()
    try:
        decoder.feed(b"\x30\xff\xff\xff\x3f" + piece)  # announces 128 MiB
        for _ in range(99):
            decoder.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()
    assert decoder.error is None
