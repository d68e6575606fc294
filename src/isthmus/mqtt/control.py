"""The bodies of the packets that open, shape and close a connection, read and written.

These come a few times per connection, not per message, so they are plain Python; PUBLISH and
its acknowledgements are in `codec.py`, which also does the fixed header and gives each function
here a `ReadBuffer` that holds exactly one body. The tables `READ_OF_CLIENT`, `READ_OF_SERVER`
and `WRITE` are the way in. Each reader checks all that can be known from the packet alone;
`codec.py` refuses the bytes it leaves over.

Topic filters are handed on as text: a bad one is refused in the SUBACK, where the client can
see which (`topics.filter.check_topic_filter`). Not here: sequence and state (session.py,
handshake.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import Malformed, ProtocolError, TooLarge, UnexpectedPacket
from isthmus.mqtt import packets
from isthmus.mqtt.packets import (
    VERSION_3_1,
    VERSION_3_1_1,
    VERSION_5,
    Ack,
    AnyPacket,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from isthmus.mqtt.properties import (
    AUTH_METHOD,
    SESSION_EXPIRY,
    WILL,
    check_topic,
    read_binary,
    read_properties,
    read_text,
    write_binary,
    write_properties,
    write_text,
)
from isthmus.mqtt.reasons import (
    DISCONNECT_BY_CLIENT,
    DISCONNECT_BY_SERVER,
    REASONS,
    SUBACK_FAILURE,
    ConnackCode,
    ReasonCode,
    connack_code,
)
from isthmus.topics.filter import SHARED_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.wire.buffer import ReadBuffer, WriteBuffer

BRIDGE: Final = 0x80  # a bit of the protocol level, before 5.0 [Mosquitto's try_private]
PROTOCOLS: Final = frozenset(
    (
        *((b"MQIsdp", VERSION_3_1), (b"MQIsdp", BRIDGE | VERSION_3_1)),
        *((b"MQTT", VERSION_3_1_1), (b"MQTT", BRIDGE | VERSION_3_1_1)),
        (b"MQTT", VERSION_5),
    )
)
"""The protocol names and levels that are spoken here."""

NO_LOCAL: Final = 0x04  # a bit of the subscription options [MQTT 5.0, 3.8.3.1]

FILTERS_AT_A_TIME: Final = 500  # ours: those of one turn of the loop, some milliseconds
FILTERS_MAX: Final = 10_000  # ours, per packet: each costs far more time than its bytes

_RESERVED: Final = 0x01  # the flags of CONNECT [MQTT 5.0, 3.1.2.3]
_CLEAN_START: Final = 0x02
_WILL: Final = 0x04
_WILL_QOS: Final = 0x18
_WILL_RETAIN: Final = 0x20
_PASSWORD: Final = 0x40
_USERNAME: Final = 0x80

_AUTH_BY_CLIENT: Final = frozenset(
    (ReasonCode.CONTINUE_AUTHENTICATION, ReasonCode.RE_AUTHENTICATE)
)
_AUTH_BY_SERVER: Final = frozenset((ReasonCode.CONTINUE_AUTHENTICATION, ReasonCode.SUCCESS))


# --- reading --------------------------------------------------------------------------------


def read_connect(body: ReadBuffer, level: int) -> Connect:
    """Read a CONNECT from its flags on; name and level are read by the decoder."""
    version = level & ~BRIDGE
    flags = body.u8()
    _check_connect_flags(flags, version)
    keep_alive_s = body.u16()
    properties = read_properties(body, packets.CONNECT) if version == VERSION_5 else None
    client_id = read_text(body)
    will = _read_will(body, version, flags) if flags & _WILL else None
    username = password = None
    # A 3.1 client may set the flags and leave the fields out [MQTT 3.1, 3.1, payload].
    if flags & _USERNAME and not (version == VERSION_3_1 and body.remaining == 0):
        username = read_text(body)
    if flags & _PASSWORD and not (version == VERSION_3_1 and body.remaining == 0):
        password = read_binary(body)
    clean_start = flags & _CLEAN_START != 0
    return Connect(
        *(version, client_id, clean_start, keep_alive_s, username, password),
        *(will, properties, level != version),
    )


def _check_connect_flags(flags: int, version: int) -> None:
    if version > VERSION_3_1 and flags & _RESERVED:
        raise Malformed("the reserved flag of CONNECT is set [MQTT-3.1.2-3]")
    if flags & _WILL_QOS == _WILL_QOS:
        raise Malformed("a will of QoS 3 [MQTT-3.1.2-12]")
    if not flags & _WILL and flags & (_WILL_QOS | _WILL_RETAIN):
        raise Malformed("QoS or retain of a will that is not there [MQTT-3.1.2-11]")
    if version < VERSION_5 and flags & _PASSWORD and not flags & _USERNAME:
        raise Malformed("a password without a user name [MQTT 3.1.1, MQTT-3.1.2-22]")


def _read_will(body: ReadBuffer, version: int, flags: int) -> Will:
    properties = read_properties(body, WILL) if version == VERSION_5 else None
    topic = read_binary(body)
    check_topic(topic)
    if not topic:
        raise ProtocolError("a will without a topic name [MQTT-4.7.3-1]")
    qos = (flags & _WILL_QOS) >> 3
    return Will(topic, read_binary(body), qos, flags & _WILL_RETAIN != 0, properties)


def read_connack(body: ReadBuffer, version: int) -> Connack:
    """Read a CONNACK; before 5.0 the reason is a return code, in 3.1 there are no flags."""
    flags = body.u8()
    if version > VERSION_3_1 and flags > 1:
        raise Malformed("a reserved flag of CONNACK is set [MQTT-3.2.2-1]")
    session_present = version > VERSION_3_1 and flags == 1
    reason = body.u8()
    known = reason in REASONS[packets.CONNACK] if version == VERSION_5 else reason <= 5
    if not known:
        raise ProtocolError(f"CONNACK with the reason 0x{reason:02x}")
    if session_present and reason:
        raise ProtocolError("a refusal with a session present [MQTT-3.2.2-6]")
    properties = read_properties(body, packets.CONNACK) if version == VERSION_5 else None
    return Connack(session_present, reason, properties)


def read_subscribe(body: ReadBuffer, version: int) -> Subscribe:
    """Read a SUBSCRIBE; before 5.0 the options are the QoS alone."""
    packet_id = read_packet_id(body)
    properties = read_properties(body, packets.SUBSCRIBE) if version == VERSION_5 else None
    entries: list[tuple[str, int]] = []
    while body.remaining:
        _check_count(len(entries))
        topic_filter = read_text(body)
        options = body.u8()
        _check_options(topic_filter, options, version)
        entries.append((topic_filter, options))
    if not entries:
        raise ProtocolError("SUBSCRIBE without a topic filter [MQTT-3.8.3-2]")
    return Subscribe(packet_id, entries, properties)


def _check_count(filters: int) -> None:
    if filters == FILTERS_MAX:
        raise TooLarge(f"more than {FILTERS_MAX} topic filters in one packet")


def _check_options(topic_filter: str, options: int, version: int) -> None:
    if version < VERSION_5:
        if options > 2:
            raise Malformed(f"subscription options 0x{options:02x} [MQTT-3-8.3-4]")
        return
    if options & 0xC0:
        raise Malformed("reserved bits of the subscription options are set [MQTT-3.8.3-5]")
    if options & 0x03 == 0x03:
        raise ProtocolError("a subscription of QoS 3 [MQTT 5.0, 3.8.3.1]")
    if options & 0x30 == 0x30:
        raise ProtocolError("retain handling 3 [MQTT 5.0, 3.8.3.1]")
    if options & NO_LOCAL and topic_filter.startswith(SHARED_PREFIX):
        raise ProtocolError("no local on a shared subscription [MQTT-3.8.3-4]")


def read_suback(body: ReadBuffer, version: int) -> Suback:
    """Read a SUBACK."""
    packet_id = read_packet_id(body)
    properties = read_properties(body, packets.SUBACK) if version == VERSION_5 else None
    reasons = list(body.bytes(body.remaining))
    allowed = REASONS[packets.SUBACK] if version == VERSION_5 else {0, 1, 2, SUBACK_FAILURE}
    _check_reasons(reasons, allowed, packets.SUBACK)
    return Suback(packet_id, reasons, properties)


def read_unsubscribe(body: ReadBuffer, version: int) -> Unsubscribe:
    """Read an UNSUBSCRIBE."""
    packet_id = read_packet_id(body)
    properties = read_properties(body, packets.UNSUBSCRIBE) if version == VERSION_5 else None
    filters: list[str] = []
    while body.remaining:
        _check_count(len(filters))
        filters.append(read_text(body))
    if not filters:
        raise ProtocolError("UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]")
    return Unsubscribe(packet_id, filters, properties)


def read_unsuback(body: ReadBuffer, version: int) -> Unsuback:
    """Read an UNSUBACK, which only since 5.0 says what became of each filter."""
    packet_id = read_packet_id(body)
    if version < VERSION_5:
        return Unsuback(packet_id, [])
    properties = read_properties(body, packets.UNSUBACK)
    reasons = list(body.bytes(body.remaining))
    _check_reasons(reasons, REASONS[packets.UNSUBACK], packets.UNSUBACK)
    return Unsuback(packet_id, reasons, properties)


def read_pingreq(body: ReadBuffer, version: int) -> Pingreq:
    """Read a PINGREQ, which has no body."""
    return Pingreq()


def read_pingresp(body: ReadBuffer, version: int) -> Pingresp:
    """Read a PINGRESP, which has no body."""
    return Pingresp()


def read_disconnect_of_client(body: ReadBuffer, version: int) -> Disconnect:
    """Read a client's DISCONNECT, without a body before 5.0."""
    return Disconnect() if version < VERSION_5 else _read_disconnect(body, DISCONNECT_BY_CLIENT)


def read_disconnect_of_server(body: ReadBuffer, version: int) -> Disconnect:
    """Read a server's DISCONNECT, which only 5.0 has."""
    if version < VERSION_5:
        raise UnexpectedPacket("DISCONNECT from the server before 5.0")
    disconnect = _read_disconnect(body, DISCONNECT_BY_SERVER)
    if disconnect.properties is not None and SESSION_EXPIRY in disconnect.properties:
        raise ProtocolError("a session expiry interval from the server [MQTT-3.14.2-2]")
    return disconnect


def _read_disconnect(body: ReadBuffer, allowed: frozenset[int]) -> Disconnect:
    """What is left out at the end is reason 0 and no properties [MQTT 5.0, 3.14.2]."""
    if body.remaining == 0:
        return Disconnect()
    reason = body.u8()
    _check_reasons((reason,), allowed, packets.DISCONNECT)
    return Disconnect(
        reason, read_properties(body, packets.DISCONNECT) if body.remaining else None
    )


def read_auth_of_client(body: ReadBuffer, version: int) -> Auth:
    """Read a client's AUTH: it goes on or begins anew."""
    return _read_auth(body, version, _AUTH_BY_CLIENT)


def read_auth_of_server(body: ReadBuffer, version: int) -> Auth:
    """Read a server's AUTH: it goes on or is content."""
    return _read_auth(body, version, _AUTH_BY_SERVER)


def _read_auth(body: ReadBuffer, version: int, allowed: frozenset[int]) -> Auth:
    """An empty body is reason 0 and no properties [MQTT 5.0, 3.15.2.1]."""
    if version < VERSION_5:
        raise Malformed("packet type 15 is reserved before 5.0 [MQTT 3.1.1, 2.2.1]")
    if body.remaining == 0:
        _check_reasons((ReasonCode.SUCCESS,), allowed, packets.AUTH)
        return Auth()
    reason = body.u8()
    _check_reasons((reason,), allowed, packets.AUTH)
    properties = read_properties(body, packets.AUTH)
    if properties is None or AUTH_METHOD not in properties:
        raise ProtocolError("AUTH without an authentication method [MQTT 5.0, 3.15.2.2.2]")
    return Auth(reason, properties)


def read_packet_id(body: ReadBuffer) -> int:
    """Read a packet identifier, which is never 0 [MQTT-2.2.1-3]."""
    packet_id: int = body.u16()
    if packet_id == 0:
        raise ProtocolError("packet identifier 0 [MQTT-2.2.1-3]")
    return packet_id


def _check_reasons(
    reasons: list[int] | tuple[int, ...], allowed: set[int] | frozenset[int], packet_type: int
) -> None:
    if not reasons:
        raise ProtocolError(f"{packets.NAMES[packet_type]} without a reason")
    for reason in reasons:
        if reason not in allowed:
            name = packets.NAMES[packet_type]
            raise ProtocolError(f"{name} with the reason 0x{reason:02x}")


READ_OF_CLIENT: Final[dict[int, Callable[[ReadBuffer, int], AnyPacket]]] = {
    packets.SUBSCRIBE: read_subscribe,
    packets.UNSUBSCRIBE: read_unsubscribe,
    packets.PINGREQ: read_pingreq,
    packets.DISCONNECT: read_disconnect_of_client,
    packets.AUTH: read_auth_of_client,
}
READ_OF_SERVER: Final[dict[int, Callable[[ReadBuffer, int], AnyPacket]]] = {
    packets.CONNACK: read_connack,
    packets.SUBACK: read_suback,
    packets.UNSUBACK: read_unsuback,
    packets.PINGRESP: read_pingresp,
    packets.DISCONNECT: read_disconnect_of_server,
    packets.AUTH: read_auth_of_server,
}
"""What each side may send, beside CONNECT, PUBLISH and the acknowledgements."""


# --- writing --------------------------------------------------------------------------------


def write_connect(out: WriteBuffer, packet: Connect, version: int) -> None:
    """Write a CONNECT; the version is the packet's own."""
    version = packet.protocol_version
    will = packet.will
    flags = _CLEAN_START if packet.clean_start else 0
    if will is not None:
        flags |= _WILL | will.qos << 3 | (_WILL_RETAIN if will.retain else 0)
    flags |= _USERNAME if packet.username is not None else 0
    flags |= _PASSWORD if packet.password is not None else 0
    write_text(out, "MQIsdp" if version == VERSION_3_1 else "MQTT")
    out.put_u8(version | BRIDGE if packet.is_bridge else version)
    out.put_u8(flags)
    out.put_u16(packet.keep_alive_s)
    if version == VERSION_5:
        write_properties(out, packet.properties)
    write_text(out, packet.client_id)
    if will is not None:
        if version == VERSION_5:
            write_properties(out, will.properties)
        write_binary(out, will.topic)
        write_binary(out, will.payload)
    if packet.username is not None:
        write_text(out, packet.username)
    if packet.password is not None:
        write_binary(out, packet.password)


def write_connack(out: WriteBuffer, packet: Connack, version: int) -> None:
    """Write a CONNACK; before 5.0 a reason code becomes the return code nearest to it."""
    reason = packet.reason
    if version < VERSION_5 and reason > ConnackCode.NOT_AUTHORIZED:
        reason = connack_code(reason) or ConnackCode.SERVER_UNAVAILABLE
    out.put_u8(packet.session_present and version > VERSION_3_1)
    out.put_u8(reason)
    if version == VERSION_5:
        write_properties(out, packet.properties)


def write_subscribe(out: WriteBuffer, packet: Subscribe, version: int) -> None:
    """Write a SUBSCRIBE; before 5.0 the options are the QoS alone."""
    out.put_u16(packet.packet_id)
    if version == VERSION_5:
        write_properties(out, packet.properties)
    for topic_filter, options in packet.entries:
        write_text(out, topic_filter)
        out.put_u8(options if version == VERSION_5 else options & 0x03)


def write_suback(out: WriteBuffer, packet: Suback, version: int) -> None:
    """Write a SUBACK; before 5.0 every refusal is 0x80 [MQTT-3.9.3-2]."""
    out.put_u16(packet.packet_id)
    if version == VERSION_5:
        write_properties(out, packet.properties)
        out.put_bytes(bytes(packet.reasons))
    else:
        out.put_bytes(bytes(min(reason, SUBACK_FAILURE) for reason in packet.reasons))


def write_unsubscribe(out: WriteBuffer, packet: Unsubscribe, version: int) -> None:
    """Write an UNSUBSCRIBE."""
    out.put_u16(packet.packet_id)
    if version == VERSION_5:
        write_properties(out, packet.properties)
    for topic_filter in packet.filters:
        write_text(out, topic_filter)


def write_unsuback(out: WriteBuffer, packet: Unsuback, version: int) -> None:
    """Write an UNSUBACK; before 5.0 without reasons."""
    out.put_u16(packet.packet_id)
    if version == VERSION_5:
        write_properties(out, packet.properties)
        out.put_bytes(bytes(packet.reasons))


def write_ack(out: WriteBuffer, packet: Ack, version: int) -> None:
    """Write an acknowledgement; before 5.0 it is the packet id alone."""
    out.put_u16(packet.packet_id)
    _write_ending(out, packet.reason, packet.properties, version)


def write_disconnect(out: WriteBuffer, packet: Disconnect, version: int) -> None:
    """Write a DISCONNECT; before 5.0 it is empty, and only a client's to send."""
    _write_ending(out, packet.reason, packet.properties, version)


def write_auth(out: WriteBuffer, packet: Auth, version: int) -> None:
    """Write an AUTH."""
    if version < VERSION_5:
        raise ValueError("AUTH before 5.0")
    if packet.reason or packet.properties:
        out.put_u8(packet.reason)
        write_properties(out, packet.properties)


def write_nothing(out: WriteBuffer, packet: AnyPacket, version: int) -> None:
    """PINGREQ and PINGRESP have no body."""


def _write_ending(
    out: WriteBuffer, reason: int, properties: packets.Properties | None, version: int
) -> None:
    """Write reason and properties, as little of them as says the same [MQTT 5.0, 3.4.2.1]."""
    if version == VERSION_5 and (reason or properties):
        out.put_u8(reason)
        if properties:
            write_properties(out, properties)


WRITE: Final[dict[int, Callable[[WriteBuffer, Any, int], None]]] = {
    packets.CONNECT: write_connect,
    packets.CONNACK: write_connack,
    packets.PUBACK: write_ack,
    packets.PUBREC: write_ack,
    packets.PUBREL: write_ack,
    packets.PUBCOMP: write_ack,
    packets.SUBSCRIBE: write_subscribe,
    packets.SUBACK: write_suback,
    packets.UNSUBSCRIBE: write_unsubscribe,
    packets.UNSUBACK: write_unsuback,
    packets.PINGREQ: write_nothing,
    packets.PINGRESP: write_nothing,
    packets.DISCONNECT: write_disconnect,
    packets.AUTH: write_auth,
}
