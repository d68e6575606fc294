"""The bytes of MQTT and the packets they mean, both ways: one `Decoder` a connection, `encode`.

`Decoder.feed` takes whatever the socket gave and returns the packets that became whole. It
never raises for what a peer sends: the packets before a bad one are returned, then `error`
holds the reason and nothing more is read. Only the beginning of a packet that is not yet whole
is kept, as many bytes as have come, and a packet that announces more than `packet_size_max` is
refused by its length.

PUBLISH and the acknowledgements, the packets that come per message, are here; the others are in
`control.py`, which meets each body in a `ReadBuffer` of its own. A PUBLISH costs its object,
its topic and its payload; the topic is the object of the PUBLISH before, where its bytes are
the same. Compiled with the types in `codec.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import (
    Malformed,
    ProtocolError,
    TooLarge,
    UnexpectedPacket,
    UnsupportedVersion,
)
from isthmus.mqtt import packets
from isthmus.mqtt.control import (
    BRIDGE,
    FILTERS_AT_A_TIME,
    PROTOCOLS,
    READ_OF_CLIENT,
    READ_OF_SERVER,
    WRITE,
    read_connect,
)
from isthmus.mqtt.packets import NAMES, VERSION_3_1, VERSION_5, Ack, AnyPacket, Publish
from isthmus.mqtt.properties import (
    SUBSCRIPTION_ID,
    TOPIC_ALIAS,
    VARINT_MAX,
    check_topic,
    encode_properties,
    read_binary,
    read_properties,
)
from isthmus.mqtt.reasons import REASONS
from isthmus.wire.buffer import ReadBuffer, WriteBuffer, uvarint_size

if TYPE_CHECKING:
    from isthmus.mqtt.packets import Properties

__all__ = ["Decoder", "encode", "encode_ack", "encode_properties", "encode_publish"]

# C integers where compiled: the per-packet path looks nothing up by name.
_CONNECT = packets.CONNECT
_PUBLISH = packets.PUBLISH
_PUBACK = packets.PUBACK
_PUBREL = packets.PUBREL
_PUBCOMP = packets.PUBCOMP
_SUBSCRIBE = packets.SUBSCRIBE
_UNSUBSCRIBE = packets.UNSUBSCRIBE
_VERSION_3_1 = VERSION_3_1
_VERSION_5 = VERSION_5
_LENGTH_MAX = VARINT_MAX

HELD_BYTES_MAX: Final = 131_072  # ours

_FLAGS: Final = bytes((0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 2, 0, 0, 0, 0, 0))
"""The lower half of the first byte, by packet type; a PUBLISH has its own [MQTT-2.1.3-1]."""


class Decoder:
    """Bytes of one connection in, packets out.

    Behind a CONNECT nothing is read until `go_on`: what a client says before it is let in is
    only kept [MQTT-3.1.4-6]. Nor is it behind as many topic filters as are acted on at a time:
    each costs far more time than its bytes. `is_held` says so.

    `version` is 0 until a CONNECT has told it. It is set even when the rest of that CONNECT is
    bad or asks for a version not spoken here, to the version in which the refusal is best
    understood. A client's decoder, which reads what a server sends, is told its version:
    `client_version`.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_filters",
        "_of_server",
        "_partial",
        "_readers",
        "_topic",
        "_wanted",
        "error",
        "is_held",
        "packet_size_max",
        "version",
    )

    def __init__(self, packet_size_max: int, client_version: int = 0) -> None:
        self.packet_size_max = packet_size_max
        self.version = client_version
        self.error: ProtocolError | None = None
        self._of_server = client_version != 0
        self._readers = READ_OF_SERVER if client_version else READ_OF_CLIENT
        self._buffer = ReadBuffer()
        self._body = ReadBuffer()
        self._topic = b""
        self._partial = bytearray()
        self._wanted = 0
        self._filters = 0  # of SUBSCRIBE and UNSUBSCRIBE since it was held
        self.is_held = False

    def feed(self, data: bytes | memoryview) -> list[Any]:
        """Return the packets that `data` completes, in order; see `error` afterwards.

        `data` is not kept: it may be a view of a buffer that is used again.
        """
        found: list[Any] = []
        if self.error is not None:
            return found
        size = len(data)
        if self.is_held:
            self._hold(data, size)
            return found
        try:
            start = self._complete(data, size, found) if self._partial else 0
            if start < size and not self.is_held:
                start = self._read(data, start, found)
            if start < size:
                self._partial += memoryview(data)[start:]
        except ProtocolError as error:
            self.error = error.with_traceback(None)  # its frames would hold on to `data`
            self._partial = bytearray()
        finally:
            self._buffer.detach()
            self._body.detach()
        return found

    def go_on(self) -> list[Any]:
        """Return the packets that came behind what had to be answered first."""
        self.is_held = False
        held, self._partial = self._partial, bytearray()
        return self.feed(bytes(held))

    def _hold(self, data: Any, size: int) -> None:
        """Keep what comes meanwhile as it is, no more of it than two reads bring."""
        if len(self._partial) + size > HELD_BYTES_MAX:
            self.error = TooLarge(f"more than {HELD_BYTES_MAX} bytes before an answer")
            self._partial = bytearray()
        else:
            self._partial += data

    # --- frames -------------------------------------------------------------------------------

    def _read(self, data: Any, start: int, found: list[Any]) -> int:
        """Read all whole packets; return where the first one that is not whole begins.

        `_wanted` is then how many bytes of it must be there before another look is worth it.
        """
        buffer = self._buffer
        buffer.attach(data, start)
        while True:
            start = buffer.position
            if buffer.end - start < 2:
                self._wanted = 2
                break
            first = buffer.u8()
            if self.version == 0 or not _PUBLISH <= first >> 4 <= _PUBCOMP:
                self._check_type(first >> 4)
            size = buffer.u8()
            if size > 0x7F:
                size = self._long_size(size)
                if size < 0:
                    self._wanted = buffer.end - start + 1
                    break
            end = buffer.position + size
            if end - start > self.packet_size_max:
                raise TooLarge(
                    f"a packet of {end - start} bytes, more than {self.packet_size_max}"
                )
            if end > buffer.end:
                self._wanted = end - start
                break
            if first >> 4 == _PUBLISH:
                found.append(self._publish(data, first, end))
            elif _PUBACK <= first >> 4 <= _PUBCOMP:
                found.append(self._ack(data, first, end))
            else:
                packet = self._control(data, first, end)
                found.append(packet)
                if first >> 4 == _CONNECT or self._is_long(first >> 4, packet):
                    self.is_held = True
                    start = buffer.position
                    break
        buffer.detach()
        self._body.detach()
        return start

    def _complete(self, data: Any, size: int, found: list[Any]) -> int:
        """Give the packet in waiting just what it lacks; return how much of `data` it took."""
        partial = self._partial
        taken = 0
        while True:
            lacking = self._wanted - len(partial)
            if lacking > size - taken:
                partial += memoryview(data)[taken:]
                return size
            partial += memoryview(data)[taken : taken + lacking]
            taken += lacking
            if self._read(partial, 0, found) == len(partial):
                partial.clear()
                return taken

    def _is_long(self, packet_type: int, packet: Any) -> bool:
        """Whether with this packet there are as many topic filters as are enough for now."""
        if packet_type == _SUBSCRIBE:
            self._filters += len(packet.entries)
        elif packet_type == _UNSUBSCRIBE:
            self._filters += len(packet.filters)
        if self._filters < FILTERS_AT_A_TIME:
            return False
        self._filters = 0
        return True

    def _check_type(self, packet_type: int) -> None:
        """Refuse what the other side may not send now, before its body is waited for."""
        if self.version == 0:
            if packet_type != _CONNECT:
                raise UnexpectedPacket(f"{NAMES[packet_type]} before CONNECT [MQTT-3.1.0-1]")
        elif packet_type == 0:
            raise Malformed("packet type 0 is reserved [MQTT 5.0, 2.1.2]")
        elif packet_type not in self._readers:
            raise UnexpectedPacket(f"{NAMES[packet_type]} has no place here [MQTT-3.1.0-2]")

    def _long_size(self, low: int) -> int:
        """Return the Remaining Length that begins with `low`; -1 if not all of it is there."""
        buffer = self._buffer
        size = low & 0x7F
        for shift in (7, 14, 21):
            if buffer.position == buffer.end:
                return -1
            byte = buffer.u8()
            size |= (byte & 0x7F) << shift
            if byte == 0:
                raise Malformed("a Remaining Length with padding [MQTT-1.5.5-1]")
            if byte < 0x80:
                return size
        raise Malformed("a Remaining Length of more than four bytes [MQTT 5.0, 2.1.4]")

    # --- packets ------------------------------------------------------------------------------

    def _publish(self, data: Any, first: int, end: int) -> Publish:
        buffer = self._buffer
        qos = first >> 1 & 3
        if qos == 3:
            raise Malformed("a PUBLISH of QoS 3 [MQTT-3.3.1-4]")
        if first & 0x08 and qos == 0:
            raise Malformed("DUP on a PUBLISH of QoS 0 [MQTT-3.3.1-2]")
        topic = self._read_topic(end)
        packet_id = 0
        if qos:
            if end - buffer.position < 2:
                raise Malformed("a PUBLISH without a packet identifier")
            packet_id = buffer.u16()
            if packet_id == 0:
                raise ProtocolError("packet identifier 0 [MQTT-2.2.1-3]")
        properties = None
        if self.version == _VERSION_5:
            properties = self._read_properties(data, _PUBLISH, end)
            if properties is not None and SUBSCRIPTION_ID in properties and not self._of_server:
                raise ProtocolError("a subscription identifier from a client [MQTT-3.3.4-6]")
        if not topic and (properties is None or TOPIC_ALIAS not in properties):
            raise ProtocolError("a PUBLISH without topic name and alias [MQTT 5.0, 3.3.2.1]")
        publish: Publish = Publish.__new__(Publish)
        publish.type = _PUBLISH
        publish.topic = topic
        publish.payload = buffer.bytes(end - buffer.position)
        publish.qos = qos
        publish.retain = first & 0x01 != 0
        publish.dup = first & 0x08 != 0
        publish.packet_id = packet_id
        publish.properties = properties
        return publish

    def _read_topic(self, end: int) -> bytes:
        """Return the topic name, as the object of the PUBLISH before where it is the same."""
        buffer = self._buffer
        if end - buffer.position < 2:
            raise Malformed("a PUBLISH without a topic name [MQTT-3.3.2-1]")
        size = buffer.u16()
        if size > end - buffer.position:
            raise Malformed(f"a topic name of {size} bytes, {end - buffer.position} left")
        topic: bytes = self._topic
        if len(topic) == size and buffer.compare(topic):
            buffer.skip(size)
        else:
            topic = buffer.bytes(size)
            check_topic(topic)
            self._topic = topic
        return topic

    def _read_properties(self, data: Any, packet_type: int, end: int) -> Properties | None:
        """Read the properties of a packet that ends at `end`; most have none."""
        buffer = self._buffer
        if buffer.position < end and buffer.peek() == 0:
            buffer.skip(1)
            return None
        body = self._body
        body.attach(data, buffer.position, end)
        properties = read_properties(body, packet_type)
        buffer.seek(body.position)
        return properties

    def _ack(self, data: Any, first: int, end: int) -> Ack:
        """Read an acknowledgement; reason and properties may be left out [MQTT 5.0, 3.4.2]."""
        buffer = self._buffer
        packet_type = first >> 4
        self._check_flags(first)
        size = end - buffer.position
        if size < 2 or (size > 2 and self.version != _VERSION_5):
            raise Malformed(f"{NAMES[packet_type]} with a body of {size} bytes")
        ack: Ack = Ack.__new__(Ack)
        ack.type = packet_type
        ack.packet_id = buffer.u16()
        if ack.packet_id == 0:
            raise ProtocolError("packet identifier 0 [MQTT-2.2.1-3]")
        ack.reason = 0
        ack.properties = None
        if size > 2:
            ack.reason = buffer.u8()
            if ack.reason not in REASONS[packet_type]:
                raise ProtocolError(f"{NAMES[packet_type]} with the reason 0x{ack.reason:02x}")
        if size > 3:
            ack.properties = self._read_properties(data, packet_type, end)
            self._check_end(packet_type, end - buffer.position)
        return ack

    def _control(self, data: Any, first: int, end: int) -> AnyPacket:
        packet_type = first >> 4
        self._check_flags(first)
        body = self._body
        body.attach(data, self._buffer.position, end)
        packet: AnyPacket
        if self.version == 0:
            packet = read_connect(body, self._read_level(body))
        else:
            packet = self._readers[packet_type](body, self.version)
        self._check_end(packet_type, body.end - body.position)
        self._buffer.seek(end)
        return packet

    def _read_level(self, body: ReadBuffer) -> int:
        """Read the protocol's name and level [MQTT-3.1.2-1, MQTT-3.1.2-2]."""
        name = read_binary(body)
        level = body.u8()
        # Bridges set the highest bit of the level; the refusal must still be in their version.
        self.version = min(max(level & ~BRIDGE, VERSION_3_1), VERSION_5)
        if (name, level) not in PROTOCOLS:
            raise UnsupportedVersion(f"protocol {name[:20]!r} level {level} is not spoken here")
        return level

    def _check_flags(self, first: int) -> None:
        """Check the lower half of the first byte; 3.1 does not use all of it [MQTT-2.1.3-1]."""
        used = 0x06 if self.version == _VERSION_3_1 else 0x0F
        if (first ^ _FLAGS[first >> 4]) & used:
            raise Malformed(f"{NAMES[first >> 4]} with the flags 0x{first & 0x0F:x}")

    def _check_end(self, packet_type: int, left: int) -> None:
        if left:
            raise Malformed(f"{left} bytes after the end of {NAMES[packet_type]}")


# --- the way out ----------------------------------------------------------------------------


def encode(packet: Any, version: int, out: WriteBuffer) -> None:
    """Write a packet as this version has it, leaving out what the version does not know.

    ValueError for what cannot be said: a text or a packet that is too long, AUTH before 5.0.
    """
    if type(packet) is Publish:
        _encode_publish(packet, version, out)
        return
    body = WriteBuffer()
    WRITE[packet.type](body, packet, version)
    if len(body) > VARINT_MAX:
        raise ValueError(f"{NAMES[packet.type]} with a body of {len(body)} bytes")
    out.put_u8(packet.type << 4 | _FLAGS[packet.type])
    out.put_uvarint(len(body))
    out.put_bytes(body.take())


def encode_publish(
    out: WriteBuffer,
    version: int,
    topic: bytes,
    payload: bytes,
    qos: int,
    retain: bool,
    dup: bool,
    packet_id: int,
    properties: bytes,
) -> None:
    """Write a PUBLISH; `properties` are encoded, without their length, left out before 5.0."""
    size = 2 + len(topic) + len(payload)
    if qos:
        size += 2
    if version == _VERSION_5:
        size += uvarint_size(len(properties)) + len(properties)
    if size > _LENGTH_MAX:
        raise ValueError(f"a PUBLISH with a body of {size} bytes")
    out.put_u8(_PUBLISH << 4 | dup << 3 | qos << 1 | retain)
    out.put_uvarint(size)
    out.put_u16(len(topic))
    out.put_bytes(topic)
    if qos:
        out.put_u16(packet_id)
    if version == _VERSION_5:
        out.put_uvarint(len(properties))
        if properties:
            out.put_bytes(properties)
    out.put_bytes(payload)


def encode_ack(
    out: WriteBuffer, version: int, packet_type: int, packet_id: int, reason: int
) -> None:
    """Write PUBACK, PUBREC, PUBREL or PUBCOMP without properties; before 5.0 without reason."""
    long_form = reason != 0 and version == _VERSION_5
    out.put_u8(packet_type << 4 | (2 if packet_type == _PUBREL else 0))
    out.put_u8(3 if long_form else 2)
    out.put_u16(packet_id)
    if long_form:
        out.put_u8(reason)


def _encode_publish(packet: Publish, version: int, out: WriteBuffer) -> None:
    properties = b""
    if packet.properties and version == _VERSION_5:
        properties = encode_properties(packet.properties)
    encode_publish(
        out,
        version,
        packet.topic,
        packet.payload,
        packet.qos,
        packet.retain,
        packet.dup,
        packet.packet_id,
        properties,
    )
