"""Sparkplug B: what a server that is aware of it does beside MQTT, as names and bytes.

The Sparkplug specification (3.0, conformance of a Sparkplug Aware MQTT Server) asks for two
things. A birth certificate (NBIRTH of a node, DBIRTH of a device) is published without RETAIN,
so whoever comes later has missed it: the server keeps each, byte for byte, as the retained
message of a name of its own below `$sparkplug/certificates/`. And a node's death certificate
(NDEATH) is the will of its connection, written when that began: it gets the time at which it is
sent.

A payload is a protobuf message whose field 1 is the time. It is looked for among the outermost
fields and nothing is decoded, so whatever a payload holds, all other bytes stay as they are.
What is no such message, or has more fields than any certificate, stays as it is altogether.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.errors import Malformed
from isthmus.mqtt.packets import Publish
from isthmus.wire.buffer import ReadBuffer, WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE: Final = b"spBv1.0"  # of Sparkplug B, in the specification's version 3.0, too
CERTIFICATES_LEVEL: Final = b"$sparkplug"  # the first one of their topic names
FIELDS_MAX: Final = 1_000  # looked at in one payload; a node's death has two

_VARINT, _BYTES = 0, 2  # wire types, the low bits of a tag
_SIZES: Final = {1: 8, 5: 4}  # of the other wire types that there are, in bytes
_TIMESTAMP: Final = 1 << 3 | _VARINT  # `optional uint64 timestamp = 1` of Payload
_FIELD_NUMBER_END: Final = 1 << 29


def is_birth(topic_name: bytes) -> bool:
    """Say whether a birth is published under `topic_name`, of a node or of a device."""
    match topic_name.split(b"/"):
        case [namespace, group, b"NBIRTH", node]:
            return namespace == NAMESPACE and b"" not in (group, node)
        case [namespace, group, b"DBIRTH", node, device]:
            return namespace == NAMESPACE and b"" not in (group, node, device)
    return False


def certified(birth: Publish) -> Publish:
    """Return the message that keeps a birth."""
    properties = birth.properties and dict(birth.properties)
    name = b"%b/certificates/%b" % (CERTIFICATES_LEVEL, birth.topic)
    return Publish(name, birth.payload, birth.qos, retain=True, properties=properties)


def is_node_death(topic_name: bytes) -> bool:
    """Say whether a node's death is published under `topic_name`."""
    match topic_name.split(b"/"):
        case [namespace, _, b"NDEATH", _]:
            return namespace == NAMESPACE
    return False


def stamped(payload: bytes, now_ms: int) -> bytes:
    """Return a certificate's payload with this time (ms since the epoch, UTC) as its own.

    An empty payload is no certificate.
    """
    if not payload:
        return payload
    pieces: list[bytes] = []
    place = 0
    try:
        for tag, start, end in _fields(payload):
            if tag == _TIMESTAMP:
                pieces.append(payload[place:start])
                place = end
    except Malformed:
        return payload
    out = WriteBuffer()
    out.put_uvarint(_TIMESTAMP)
    out.put_uvarint(now_ms)
    return b"".join([out.take(), *pieces, payload[place:]])


def _fields(payload: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the outermost fields: (tag, where it begins, where it ends). Raises Malformed."""
    body = ReadBuffer()
    body.attach(payload)
    for _ in range(FIELDS_MAX):
        if not body.remaining:
            return
        start = body.position
        tag = body.uvarint()
        if not 0 < tag >> 3 < _FIELD_NUMBER_END:
            raise Malformed(f"no field has the number {tag >> 3}")
        wire_type = tag & 7
        if wire_type == _VARINT:
            body.uvarint()
        else:
            size = body.uvarint() if wire_type == _BYTES else _SIZES.get(wire_type, -1)
            if not 0 <= size <= body.remaining:  # a group, for one; Sparkplug has none
                raise Malformed(f"a field of wire type {wire_type} and {size} bytes")
            body.skip(size)
        yield tag, start, body.position
    if body.remaining:
        raise Malformed(f"more than {FIELDS_MAX} fields")
