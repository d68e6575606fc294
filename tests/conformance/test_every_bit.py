"""What the tables of the specifications allow, and all that they do not: bit by bit.

Flags of each fixed header, flags of CONNECT, options of SUBSCRIBE, properties in each packet.
The tables here are the specifications', written down a second time; what the server knows of
them is not asked. Each combination has a connection of its own.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.conformance.raw_client import (
    SESSION_EXPIRY,
    Answer,
    RawClient,
    ack,
    prop,
    publish,
)
from tests.e2e.raw_mqtt import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    packet,
    text,
    uint16,
    varint,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Dial = Callable[..., RawClient]
    Outcome = int | str | None

VERSIONS = pytest.mark.parametrize("version", [4, 5])
MALFORMED, PROTOCOL_ERROR, BAD_METHOD = 0x81, 0x82, 0x8C
LIVES: Final = "lives"
WILL: Final = "will"

# name, a value, and the packets it is allowed in [MQTT 5.0, table 2-4], of those a client sends
ACKS = (PUBACK, PUBREC, PUBREL, PUBCOMP)
ALL = (CONNECT, WILL, PUBLISH, *ACKS, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH)
PROPERTIES: Final[dict[int, tuple[Any, tuple[int | str, ...]]]] = {
    0x01: (1, (PUBLISH, WILL)),  # Payload Format Indicator
    0x02: (60, (PUBLISH, WILL)),  # Message Expiry Interval
    0x03: ("c", (PUBLISH, WILL)),  # Content Type
    0x08: ("r", (PUBLISH, WILL)),  # Response Topic
    0x09: (b"d", (PUBLISH, WILL)),  # Correlation Data
    0x0B: (1, (PUBLISH, SUBSCRIBE)),  # Subscription Identifier
    0x11: (60, (CONNECT, DISCONNECT)),  # Session Expiry Interval
    0x12: ("c", ()),  # Assigned Client Identifier
    0x13: (60, ()),  # Server Keep Alive
    0x15: ("m", (CONNECT, AUTH)),  # Authentication Method
    0x16: (b"d", (CONNECT, AUTH)),  # Authentication Data
    0x17: (1, (CONNECT,)),  # Request Problem Information
    0x18: (60, (WILL,)),  # Will Delay Interval
    0x19: (1, (CONNECT,)),  # Request Response Information
    0x1A: ("i", ()),  # Response Information
    0x1C: ("s", (DISCONNECT,)),  # Server Reference
    0x1F: ("s", (*ACKS, DISCONNECT, AUTH)),  # Reason String
    0x21: (9, (CONNECT,)),  # Receive Maximum
    0x22: (9, (CONNECT,)),  # Topic Alias Maximum
    0x23: (1, (PUBLISH,)),  # Topic Alias
    0x24: (1, ()),  # Maximum QoS
    0x25: (1, ()),  # Retain Available
    0x26: (("k", "v"), ALL),  # User Property
    0x27: (9999, (CONNECT,)),  # Maximum Packet Size
    0x28: (1, ()),  # Wildcard Subscription Available
    0x29: (1, ()),  # Subscription Identifier Available
    0x2A: (1, ()),  # Shared Subscription Available
}
SUBSCRIPTION_ID, METHOD, DATA, USER = 0x0B, 0x15, 0x16, 0x26

# What is allowed where it stands, and is not what this client may say to this server.
ELSE: Final[dict[tuple[int | str, int], Outcome]] = {
    (PUBLISH, SUBSCRIPTION_ID): PROTOCOL_ERROR,  # only a server says it [MQTT-3.3.4-6]
    (CONNECT, METHOD): BAD_METHOD,  # none of that name
    (CONNECT, DATA): PROTOCOL_ERROR,  # without a method
}


def outcome(client: RawClient) -> Outcome:
    """Return that the connection lives, or the reason why it ends; None where none is told."""
    client.send(packet(PINGREQ))
    told: Outcome = None
    while (one := client.receive()) is not None:
        if isinstance(one, Answer) and one.kind == PINGRESP:
            told = LIVES
            break
        if isinstance(one, Answer) and one.kind in (CONNACK, DISCONNECT) and one.reason:
            told = one.reason
    client.cut()
    return told


def connect_flags(version: int, flags: int, client_id: str) -> bytes:
    """Return a CONNECT with these flags, and the fields that they ask for."""
    block = b"\0" if version == 5 else b""
    fields = [text(client_id)]
    if flags & 0x04:
        fields += [block, text("will"), text("gone")]
    fields += [text("user")] if flags & 0x80 else []
    fields += [text("password")] if flags & 0x40 else []
    head = text("MQTT") + bytes([version, flags]) + uint16(0) + block
    return packet(CONNECT, head + b"".join(fields))


@VERSIONS
def test_each_flag_of_connect(
    version: int, dial: Dial, bystander: RawClient, unique: str
) -> None:
    """[MQTT-3.1.2-3, MQTT-3.1.2-11, MQTT-3.1.2-12, MQTT-3.1.2-13; MQTT 3.1.1: MQTT-3.1.2-3,
    MQTT-3.1.2-13, MQTT-3.1.2-14, MQTT-3.1.2-15, MQTT-3.1.2-22]"""
    wrong = []
    for flags in range(256):
        will_qos, retain = flags >> 3 & 3, flags >> 5 & 1
        password, user = flags >> 6 & 1, flags >> 7
        impossible = (
            flags & 1
            or (not flags & 4 and (will_qos or retain))
            or will_qos == 3
            or (version == 4 and password and not user)
        )
        wanted: Outcome = LIVES
        if impossible:
            wanted = MALFORMED if version == 5 else None
        client = dial(version)
        client.send(connect_flags(version, flags, unique))
        found = outcome(client)
        if found != wanted:
            wrong.append((hex(flags), wanted, found))
    assert wrong == []
    bystander.settled()


@VERSIONS
def test_each_flag_of_a_fixed_header(
    version: int, dial: Dial, bystander: RawClient, unique: str
) -> None:
    """[MQTT-2.1.3-1, MQTT-3.6.1-1, MQTT-3.8.1-1, MQTT-3.10.1-1, MQTT-3.14.1-1, MQTT-3.15.1-1,
    MQTT-3.3.1-2, MQTT-3.3.1-4; MQTT 3.1.1: MQTT-2.2.2-1, MQTT-2.2.2-2, MQTT-3.6.1-1,
    MQTT-3.8.1-1, MQTT-3.10.1-1, MQTT-3.14.1-1, MQTT-3.3.1-2, MQTT-3.3.1-4]"""
    block = b"\0" if version == 5 else b""
    ended = MALFORMED if version == 5 else None
    bodies = (
        dict.fromkeys(ACKS, uint16(1))
        | {
            SUBSCRIBE: uint16(1) + block + text(unique) + b"\0",
            UNSUBSCRIBE: uint16(1) + block + text(unique),
            PINGREQ: b"",
            DISCONNECT: b"",
            PUBLISH: text(unique) + uint16(1) + block,
        }
        | ({AUTH: b"\x19\4" + prop(METHOD, "m")} if version == 5 else {})
    )
    right = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}
    wrong = []
    for kind, flags in itertools.product(bodies, range(16)):
        if kind == PUBLISH:
            qos, dup = flags >> 1 & 3, flags >> 3
            wanted = ended if qos == 3 or (dup and not qos) else LIVES
        elif flags != right.get(kind, 0):
            wanted = ended
        else:  # what is right is for other tests to say
            continue
        client = dial(version)
        client.open(unique)
        client.send(packet(kind, bodies[kind], flags))
        found = outcome(client)
        if found != wanted:
            wrong.append((kind, bin(flags), wanted, found))
    assert wrong == []
    bystander.settled()


@VERSIONS
def test_each_option_of_subscribe(
    version: int, dial: Dial, bystander: RawClient, unique: str
) -> None:
    """[MQTT-3.8.3-5; MQTT 3.1.1: MQTT-3.8.3-4]"""
    wrong = []
    for options in range(256):
        wanted: Outcome = LIVES
        if version == 4 and (options > 3 or options == 3):
            wanted = None
        elif options & 0xC0:
            wanted = MALFORMED
        elif options & 3 == 3 or options >> 4 == 3:
            wanted = PROTOCOL_ERROR
        client = dial(version)
        client.open(unique)
        block = b"\0" if version == 5 else b""
        body = uint16(1) + block + text(unique) + bytes([options])
        client.send(packet(SUBSCRIBE, body, 2))
        found = outcome(client)
        if found != wanted:
            wrong.append((hex(options), wanted, found))
    assert wrong == []
    bystander.settled()


def with_properties(kind: int | str, said: bytes, name: str) -> bytes:
    """Return a packet that has these properties, and is right but for them."""
    block = varint(len(said)) + said
    if kind == CONNECT:
        head = text("MQTT") + b"\5\2\0\0"
        return packet(CONNECT, head + block + text(name))
    if kind == WILL:
        head = text("MQTT") + b"\5\6\0\0" + b"\0"
        return packet(CONNECT, head + text(name) + block + text(name) + text("gone"))
    if kind == PUBLISH:
        return publish(name, b"x", properties=said)
    if kind == SUBSCRIBE:
        return packet(SUBSCRIBE, uint16(1) + block + text(name) + b"\0", 2)
    if kind == UNSUBSCRIBE:
        return packet(UNSUBSCRIBE, uint16(1) + block + text(name), 2)
    if kind == DISCONNECT:
        return packet(DISCONNECT, b"\4" + block)
    if kind == AUTH:
        return packet(AUTH, b"\x19" + block)
    assert kind in ACKS
    return packet(int(kind), uint16(77) + b"\0" + block, 2 if kind == PUBREL else 0)


def wanted_of(kind: int | str, identifier: int, times: int) -> Outcome:
    """Return what becomes of a packet with so many of a property [MQTT 5.0, 2.2.2.2]."""
    if kind not in PROPERTIES[identifier][1]:
        return MALFORMED
    if times > 1 and identifier != USER:
        return PROTOCOL_ERROR
    if kind == AUTH:
        return PROTOCOL_ERROR  # the client came without a method [MQTT-4.12.0-7]
    if (kind, identifier) in ELSE:
        return ELSE[kind, identifier]
    return None if kind == DISCONNECT else LIVES


@pytest.mark.parametrize("kind", ALL)
def test_each_property_in_each_packet(
    kind: int | str, dial: Dial, bystander: RawClient, unique: str
) -> None:
    """[MQTT 5.0, 2.2.2.2 and 3.1.2.11 to 3.15.2.2; MQTT-3.3.4-6, MQTT-4.12.0-7]"""
    wrong = []
    for identifier, times in itertools.product(PROPERTIES, (1, 2)):
        client = dial()
        if kind not in (CONNECT, WILL):
            client.open(unique, properties=prop(SESSION_EXPIRY, 60))
        said = prop(identifier, PROPERTIES[identifier][0]) * times
        client.send(with_properties(kind, said, unique))
        found, wanted = outcome(client), wanted_of(kind, identifier, times)
        if found != wanted:
            wrong.append((hex(identifier), times, wanted, found))
    assert wrong == []
    bystander.settled()


def test_an_unknown_property_is_malformed(
    dial: Dial, bystander: RawClient, unique: str
) -> None:
    """[MQTT 5.0, 2.2.2.2]"""
    wrong = []
    for identifier in sorted(set(range(128)) - PROPERTIES.keys()):
        client = dial()
        client.open(unique)
        client.send(publish(unique, b"", properties=bytes([identifier, 1])))
        if (found := outcome(client)) != MALFORMED:
            wrong.append((hex(identifier), found))
    assert wrong == []
    bystander.settled()


# reason codes [MQTT 5.0, tables 3-4 to 3-10], of those that a client may send
SAID_BY_CLIENTS: Final[dict[int, set[int]]] = {
    PUBACK: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREC: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREL: {0x00, 0x92},
    PUBCOMP: {0x00, 0x92},
}


@pytest.mark.parametrize("kind", ACKS)
def test_each_reason_of_an_acknowledgement(
    kind: int, dial: Dial, bystander: RawClient, unique: str
) -> None:
    """[MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1]"""
    allowed = SAID_BY_CLIENTS[kind]
    client = dial()
    client.open(unique)
    client.send(*[ack(kind, 77, reason) for reason in sorted(allowed)])
    assert outcome(client) == LIVES
    wrong = []
    for reason in set(range(256)) - allowed:
        client = dial()
        client.open(unique)
        client.send(ack(kind, 77, reason))
        if (found := outcome(client)) != PROTOCOL_ERROR:
            wrong.append((hex(reason), found))
    assert wrong == []
    bystander.settled()
