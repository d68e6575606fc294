"""Data types and properties of MQTT [MQTT 5.0, 1.5 and 2.2.2]; the properties are one table.

`RULES` says of each property what type it has, which packets it may be in and which values it
may take; reading and writing follow the table. Decoded properties are a dictionary from
identifier to value: integers, `str`, `bytes`, for user properties a list of pairs in their
order, and for the Subscription Identifiers of a PUBLISH a list too, since only these may come
more than once.

What is read is checked to the last bit and raises a ProtocolError. What is written comes from
us: a value that MQTT cannot carry (a text of more than 65,535 bytes, or with U+0000) is a
ValueError. Not here: what a property means (session.py, handshake.py). Compiled with
`properties.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus.errors import (
    Malformed,
    ProtocolError,
    TooLarge,
    TopicAliasInvalid,
    TopicNameInvalid,
)
from isthmus.mqtt import packets
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from isthmus.wire.buffer import ReadBuffer

PAYLOAD_FORMAT: Final = 0x01
MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_ID: Final = 0x0B
SESSION_EXPIRY: Final = 0x11
ASSIGNED_CLIENT_ID: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTH_METHOD: Final = 0x15
AUTH_DATA: Final = 0x16
REQUEST_PROBLEM_INFO: Final = 0x17
WILL_DELAY: Final = 0x18
REQUEST_RESPONSE_INFO: Final = 0x19
RESPONSE_INFO: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARD_AVAILABLE: Final = 0x28
SUBSCRIPTION_ID_AVAILABLE: Final = 0x29
SHARED_AVAILABLE: Final = 0x2A

FLAG: Final = 1  # a byte that is 0 or 1
U16: Final = 2
U32: Final = 3
VARINT: Final = 4
TEXT: Final = 5
BINARY: Final = 6
PAIR: Final = 7

WILL: Final = (
    0  # in place of a packet type: the will inside a CONNECT has properties of its own
)
VARINT_MAX: Final = 268_435_455  # four bytes of seven bits [MQTT-1.5.5]
FIELD_BYTES_MAX: Final = 65_535  # of a text or of binary data
USER_PROPERTIES_MAX: Final = (
    10_000  # ours, per packet: small pairs cost far more memory than bytes
)


class Rule(NamedTuple):
    """What the specification says of one property."""

    name: str
    kind: int
    packets: tuple[int, ...]
    positive: bool = False  # 0 is a Protocol Error


_MESSAGE: Final = (packets.PUBLISH, WILL)
_HANDSHAKE: Final = (packets.CONNECT, packets.CONNACK)
_AUTHENTICATION: Final = (packets.CONNECT, packets.CONNACK, packets.AUTH)
_ACKS: Final = (packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP)
_ANSWERS: Final = (
    *(packets.CONNACK, *_ACKS, packets.SUBACK, packets.UNSUBACK),
    *(packets.DISCONNECT, packets.AUTH),
)
_ANY: Final = (
    *(packets.CONNECT, WILL, packets.PUBLISH, packets.SUBSCRIBE, packets.UNSUBSCRIBE),
    *_ANSWERS,
)

RULES: Final[dict[int, Rule]] = {
    PAYLOAD_FORMAT: Rule("payload format indicator", FLAG, _MESSAGE),
    MESSAGE_EXPIRY: Rule("message expiry interval", U32, _MESSAGE),
    CONTENT_TYPE: Rule("content type", TEXT, _MESSAGE),
    RESPONSE_TOPIC: Rule("response topic", TEXT, _MESSAGE),
    CORRELATION_DATA: Rule("correlation data", BINARY, _MESSAGE),
    SUBSCRIPTION_ID: Rule(
        "subscription identifier", VARINT, (packets.PUBLISH, packets.SUBSCRIBE), positive=True
    ),
    SESSION_EXPIRY: Rule("session expiry interval", U32, (*_HANDSHAKE, packets.DISCONNECT)),
    ASSIGNED_CLIENT_ID: Rule("assigned client identifier", TEXT, (packets.CONNACK,)),
    SERVER_KEEP_ALIVE: Rule("server keep alive", U16, (packets.CONNACK,)),
    AUTH_METHOD: Rule("authentication method", TEXT, _AUTHENTICATION),
    AUTH_DATA: Rule("authentication data", BINARY, _AUTHENTICATION),
    REQUEST_PROBLEM_INFO: Rule("request problem information", FLAG, (packets.CONNECT,)),
    WILL_DELAY: Rule("will delay interval", U32, (WILL,)),
    REQUEST_RESPONSE_INFO: Rule("request response information", FLAG, (packets.CONNECT,)),
    RESPONSE_INFO: Rule("response information", TEXT, (packets.CONNACK,)),
    SERVER_REFERENCE: Rule("server reference", TEXT, (packets.CONNACK, packets.DISCONNECT)),
    REASON_STRING: Rule("reason string", TEXT, _ANSWERS),
    RECEIVE_MAXIMUM: Rule("receive maximum", U16, _HANDSHAKE, positive=True),
    TOPIC_ALIAS_MAXIMUM: Rule("topic alias maximum", U16, _HANDSHAKE),
    TOPIC_ALIAS: Rule("topic alias", U16, (packets.PUBLISH,), positive=True),
    MAXIMUM_QOS: Rule("maximum QoS", FLAG, (packets.CONNACK,)),
    RETAIN_AVAILABLE: Rule("retain available", FLAG, (packets.CONNACK,)),
    USER_PROPERTY: Rule("user property", PAIR, _ANY),
    MAXIMUM_PACKET_SIZE: Rule("maximum packet size", U32, _HANDSHAKE, positive=True),
    WILDCARD_AVAILABLE: Rule("wildcard subscription available", FLAG, (packets.CONNACK,)),
    SUBSCRIPTION_ID_AVAILABLE: Rule(
        "subscription identifiers available", FLAG, (packets.CONNACK,)
    ),
    SHARED_AVAILABLE: Rule("shared subscription available", FLAG, (packets.CONNACK,)),
}
"""[MQTT 5.0, table 2-4, and the sections of the packets it names]."""

_END: Final = max(RULES) + 1
_KINDS: Final = tuple(RULES[key].kind if key in RULES else 0 for key in range(_END))
_ALLOWED: Final = tuple(
    sum(1 << packet for packet in RULES[key].packets) if key in RULES else 0
    for key in range(_END)
)
_POSITIVE: Final = tuple(key in RULES and RULES[key].positive for key in range(_END))


# --- reading --------------------------------------------------------------------------------


def read_properties(body: ReadBuffer, packet_type: int) -> packets.Properties | None:
    """Read a property length and the properties in it; None where there are none.

    `body` ends where the packet ends. An identifier that has no place in this packet makes it
    malformed [MQTT 5.0, 2.2.2.2]; one that comes twice is a Protocol Error.
    """
    size = read_varint(body)
    if size == 0:
        return None
    end = body.position + size
    if end > body.end:
        raise Malformed(f"a property length of {size}, {body.end - body.position} bytes left")
    properties: packets.Properties = {}
    while body.position < end:
        identifier = body.u8()
        if identifier >= _END or not _ALLOWED[identifier] >> packet_type & 1:
            where = "a will" if packet_type == WILL else packets.NAMES[packet_type]
            raise Malformed(f"property 0x{identifier:02x} has no place in {where}")
        kind = _KINDS[identifier]
        value = _read_value(body, kind)
        if body.position > end:
            raise Malformed(f"the {RULES[identifier].name} is longer than its properties")
        if kind == PAIR:
            _add_pair(properties, value)
        elif kind == VARINT and packet_type == packets.PUBLISH:
            _check_value(identifier, kind, value)
            properties.setdefault(identifier, []).append(value)
        elif identifier in properties:
            raise ProtocolError(f"the {RULES[identifier].name} comes twice")
        else:
            _check_value(identifier, kind, value)
            properties[identifier] = value
    if AUTH_DATA in properties and AUTH_METHOD not in properties:
        raise ProtocolError("authentication data without a method [MQTT 5.0, 3.1.2.11.10]")
    return properties


def read_varint(body: ReadBuffer) -> int:
    """Read a Variable Byte Integer: at most four bytes, none of them padding [MQTT-1.5.5-1]."""
    start = body.position
    value: int = body.uvarint(4)
    size = body.position - start
    if size > 1 and value >> 7 * (size - 1) == 0:
        raise Malformed(f"{value} in {size} bytes, more than it needs")
    return value


def read_text(body: ReadBuffer) -> str:
    """Read a UTF-8 Encoded String [MQTT-1.5.4-1 to MQTT-1.5.4-3]."""
    raw: bytes = body.bytes(body.u16())
    if 0 in raw:
        raise Malformed("U+0000 in a text [MQTT-1.5.4-2]")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error.reason} at byte {error.start}") from None


def read_binary(body: ReadBuffer) -> bytes:
    """Read Binary Data [MQTT 5.0, 1.5.6]."""
    return body.bytes(body.u16())


def check_topic(topic: bytes) -> None:
    """Check a topic name as it comes off the wire; an empty one is the caller's to judge.

    One pass where all is ASCII. Malformed where it is not UTF-8 or holds U+0000 [MQTT-4.7.3-2],
    TopicNameInvalid where it holds a wildcard [MQTT-3.3.2-2].
    """
    plain = True
    for byte in topic:
        if byte >= 0x80:
            plain = False
        elif byte == 0x2B or byte == 0x23:
            raise TopicNameInvalid("a wildcard in a topic name")
        elif byte == 0:
            raise Malformed("U+0000 in a topic name")
    if not plain:
        try:
            topic.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(
                f"a topic name that is not UTF-8: {error.reason} at byte {error.start}"
            ) from None


def _read_value(body: ReadBuffer, kind: int) -> Any:
    if kind == FLAG:
        return body.u8()
    if kind == U16:
        return body.u16()
    if kind == U32:
        return body.u32()
    if kind == VARINT:
        return read_varint(body)
    if kind == TEXT:
        return read_text(body)
    if kind == BINARY:
        return read_binary(body)
    name = read_text(body)
    return name, read_text(body)


def _add_pair(properties: packets.Properties, pair: tuple[str, str]) -> None:
    pairs = properties.setdefault(USER_PROPERTY, [])
    if len(pairs) == USER_PROPERTIES_MAX:
        raise TooLarge(f"more than {USER_PROPERTIES_MAX} user properties")
    pairs.append(pair)


def _check_value(identifier: int, kind: int, value: Any) -> None:
    """Refuse what the type would allow and the specification does not."""
    if kind == FLAG:
        if value > 1:
            raise ProtocolError(f"{RULES[identifier].name} is {value}, not 0 or 1")
    elif kind <= VARINT:
        if value == 0 and _POSITIVE[identifier]:
            if identifier == TOPIC_ALIAS:
                raise TopicAliasInvalid("topic alias 0 [MQTT-3.3.2-8]")
            raise ProtocolError(f"{RULES[identifier].name} is 0")
    elif identifier == RESPONSE_TOPIC and (not value or "+" in value or "#" in value):
        raise ProtocolError("the response topic is not a topic name [MQTT-3.3.2-14]")


# --- writing --------------------------------------------------------------------------------


def encode_properties(properties: packets.Properties) -> bytes:
    """Return properties in their order, without the property length before them."""
    out = WriteBuffer()
    for identifier, value in properties.items():
        if identifier == USER_PROPERTY:
            for name, text in value:
                out.put_u8(identifier)
                write_text(out, name)
                write_text(out, text)
        elif type(value) is list:
            for one in value:
                _write_property(out, identifier, one)
        else:
            _write_property(out, identifier, value)
    return out.take()


def write_properties(out: WriteBuffer, properties: packets.Properties | None) -> None:
    """Write properties with their length before them; None as none."""
    encoded = b"" if properties is None else encode_properties(properties)
    if len(encoded) > VARINT_MAX:
        raise ValueError(f"{len(encoded)} bytes of properties")
    out.put_uvarint(len(encoded))
    out.put_bytes(encoded)


def write_text(out: WriteBuffer, text: str) -> None:
    """Write a UTF-8 Encoded String; ValueError for what MQTT cannot carry [MQTT-1.5.4-2]."""
    if "\0" in text:
        raise ValueError("U+0000 in a text")
    write_binary(out, text.encode("utf-8"))


def write_binary(out: WriteBuffer, data: bytes) -> None:
    """Write Binary Data, or a topic name that is encoded already."""
    if len(data) > FIELD_BYTES_MAX:
        raise ValueError(f"a field of {len(data)} bytes, more than {FIELD_BYTES_MAX}")
    out.put_u16(len(data))
    out.put_bytes(data)


def _write_property(out: WriteBuffer, identifier: int, value: Any) -> None:
    kind = _KINDS[identifier]
    out.put_u8(identifier)
    if kind == FLAG:
        out.put_u8(value)
    elif kind == U16:
        out.put_u16(value)
    elif kind == U32:
        out.put_u32(value)
    elif kind == VARINT:
        out.put_uvarint(value)
    elif kind == TEXT:
        write_text(out, value)
    else:
        write_binary(out, value)
