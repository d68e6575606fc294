"""An MQTT client of which the test chooses every byte, and reads every byte of the answer.

It shares no line with the server: the encoders are those of `tests/e2e/raw_mqtt.py`, with the
properties, wills and option bytes that the clauses ask for; the reader takes packets apart by a
small table of its own. Nothing here waits for time to pass: `settled` sends a PINGREQ and
returns what came before its answer, and since a server acknowledges a publish after it has
handed it to the subscribers, PUBACK to one client and then `settled` on another tells all.
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.patience import TIMEOUT_S
from tests.e2e.raw_mqtt import (
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
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    packet,
    split,
    text,
    uint16,
    varint,
)

if TYPE_CHECKING:
    from tests.e2e.raw_mqtt import Packet
    from tests.e2e.server_process import Address

PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE = 0x01, 0x02, 0x03
RESPONSE_TOPIC, CORRELATION_DATA, SUBSCRIPTION_ID = 0x08, 0x09, 0x0B
SESSION_EXPIRY, ASSIGNED_CLIENT_ID, SERVER_KEEP_ALIVE = 0x11, 0x12, 0x13
AUTH_METHOD, REQUEST_PROBLEM_INFO, WILL_DELAY = 0x15, 0x17, 0x18
REASON_STRING, RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM = 0x1F, 0x21, 0x22
TOPIC_ALIAS, USER_PROPERTY, MAXIMUM_PACKET_SIZE = 0x23, 0x26, 0x27
REQUEST_RESPONSE_INFO, RESPONSE_INFO, SERVER_REFERENCE = 0x19, 0x1A, 0x1C
MAXIMUM_QOS, RETAIN_AVAILABLE, AUTH_DATA = 0x24, 0x25, 0x16
WILDCARD_AVAILABLE, IDENTIFIERS_AVAILABLE, SHARED_AVAILABLE = 0x28, 0x29, 0x2A

# What a value looks like: a number of so many bytes, or one of these.
_VARINT, _TEXT, _BINARY, _PAIR = "varint", "text", "binary", "pair"
_FORMS: Final[dict[int, Any]] = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
    **dict.fromkeys((0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F), _TEXT),
    **dict.fromkeys((0x09, 0x16), _BINARY),
    0x0B: _VARINT,
    0x26: _PAIR,
}


def prop(identifier: int, value: Any) -> bytes:
    """Return one property; a user property is a pair."""
    form = _FORMS[identifier]
    if form == _VARINT:
        encoded = varint(value)
    elif form == _PAIR:
        encoded = text(value[0]) + text(value[1])
    elif form in (_TEXT, _BINARY):
        encoded = text(value)
    else:
        encoded = value.to_bytes(form, "big")
    return bytes([identifier]) + encoded


def _block(properties: bytes, version: int) -> bytes:
    return varint(len(properties)) + properties if version == 5 else b""


@dataclass(frozen=True)
class Will:
    """The will of a CONNECT."""

    topic_name: str | bytes
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False
    properties: bytes = b""


def connect(
    client_id: str | bytes,
    *,
    version: int = 5,
    clean: bool = True,
    keep_alive_s: int = 0,
    properties: bytes = b"",
    will: Will | None = None,
) -> bytes:
    """Return a CONNECT."""
    flags = 0x02 if clean else 0
    tail = text(client_id)
    if will is not None:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        tail += _block(will.properties, version) + text(will.topic_name) + text(will.payload)
    name = "MQIsdp" if version == 3 else "MQTT"
    head = text(name) + bytes([version, flags]) + uint16(keep_alive_s)
    return packet(CONNECT, head + _block(properties, version) + tail)


def publish(
    topic_name: str | bytes,
    payload: bytes = b"",
    qos: int = 0,
    packet_id: int = 0,
    *,
    dup: bool = False,
    retain: bool = False,
    properties: bytes = b"",
    version: int = 5,
) -> bytes:
    """Return a PUBLISH."""
    body = text(topic_name) + (uint16(packet_id) if qos else b"")
    body += _block(properties, version) + payload
    return packet(PUBLISH, body, flags=(8 if dup else 0) | qos << 1 | int(retain))


def subscribe(
    packet_id: int,
    *entries: tuple[str | bytes, int],
    properties: bytes = b"",
    version: int = 5,
) -> bytes:
    """Return a SUBSCRIBE; an entry is a topic filter and its options."""
    body = uint16(packet_id) + _block(properties, version)
    return packet(SUBSCRIBE, body + b"".join(text(f) + bytes([o]) for f, o in entries), 2)


def unsubscribe(packet_id: int, *topic_filters: str | bytes, version: int = 5) -> bytes:
    """Return an UNSUBSCRIBE."""
    body = uint16(packet_id) + _block(b"", version)
    return packet(UNSUBSCRIBE, body + b"".join(text(one) for one in topic_filters), 2)


def ack(kind: int, packet_id: int, reason: int | None = None) -> bytes:
    """Return a PUBACK, PUBREC, PUBREL or PUBCOMP."""
    body = uint16(packet_id) + (b"" if reason is None else bytes([reason]))
    return packet(kind, body, 2 if kind == PUBREL else 0)


def disconnect(reason: int | None = None, properties: bytes = b"") -> bytes:
    """Return a DISCONNECT; without a reason it is that of every version."""
    body = b"" if reason is None else bytes([reason]) + _block(properties, 5)
    return packet(DISCONNECT, body)


@dataclass(frozen=True)
class Message:
    """A PUBLISH as it arrived."""

    topic_name: str
    payload: bytes
    qos: int
    packet_id: int
    dup: bool
    retain: bool
    properties: dict[int, list[Any]]


@dataclass(frozen=True)
class Answer:
    """Any other packet as it arrived; `reasons` are all that it has, also before 5.0."""

    kind: int
    packet_id: int
    reasons: tuple[int, ...]
    properties: dict[int, list[Any]]
    session_present: bool = False
    size: int = 0

    @property
    def reason(self) -> int:
        return self.reasons[0] if self.reasons else 0


class RawClient:
    """One connection of a client that does nothing by itself."""

    def __init__(self, server: Address, version: int = 5) -> None:
        self.version = version
        self.socket = socket.create_connection(server, TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._early: deque[Message] = deque()  # came while an answer was waited for

    # --- out ----------------------------------------------------------------------------------

    def send(self, *packets: bytes) -> None:
        """Send packets in one piece."""
        self.socket.sendall(b"".join(packets))

    def open(self, client_id: str, **options: Any) -> Answer:
        """Connect; return the CONNACK, which has to say success."""
        self.send(connect(client_id, version=self.version, **options))
        connack = self.expect(CONNACK)
        assert connack.reason == 0, f"refused with {connack.reason:#x}"
        return connack

    def subscribe(
        self, topic_filter: str, options: int = 0, properties: bytes = b"", packet_id: int = 1
    ) -> Answer:
        """Subscribe to one filter; return the SUBACK."""
        entry = (topic_filter, options)
        self.send(subscribe(packet_id, entry, properties=properties, version=self.version))
        return self._answer(SUBACK)

    def unsubscribe(self, *topic_filters: str, packet_id: int = 1) -> Answer:
        """Unsubscribe; return the UNSUBACK."""
        self.send(unsubscribe(packet_id, *topic_filters, version=self.version))
        return self._answer(UNSUBACK)

    def publish(
        self, topic_name: str, payload: bytes = b"", qos: int = 1, **options: Any
    ) -> Answer:
        """Publish and wait until the server has it; QoS 0 is followed by a ping."""
        packet_id = options.pop("packet_id", 1)
        self.send(publish(topic_name, payload, qos, packet_id, version=self.version, **options))
        if qos == 0:
            self.send(packet(PINGREQ))
            return self._answer(PINGRESP)
        answer = self._answer(PUBACK if qos == 1 else PUBREC)
        if qos == 2 and answer.reason < 0x80:
            self.send(ack(PUBREL, packet_id))
            self._answer(PUBCOMP)
        return answer

    def cut(self) -> None:
        """Break the connection without DISCONNECT, as a lost network does."""
        self.socket.close()

    def leave(self, reason: int | None = None, properties: bytes = b"") -> None:
        """Send DISCONNECT and wait until the server has closed."""
        self.send(disconnect(reason, properties))
        assert self.rest() == []
        self.socket.close()

    # --- in -----------------------------------------------------------------------------------

    def receive(self) -> Message | Answer | None:
        """Return the next packet; None once the server has closed the connection."""
        return self._early.popleft() if self._early else self._next()

    def _next(self) -> Message | Answer | None:
        while (one := split(self._received)) is None:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                assert not self._received, f"closed within a packet: {self._received!r}"
                return None
            self._received += data
        return self._parse(one)

    def expect(self, kind: int) -> Answer:
        """Return the next packet, which has to be of this type."""
        answer = self.receive()
        assert isinstance(answer, Answer), f"{answer} instead of a packet of type {kind}"
        assert answer.kind == kind, f"{answer} instead of a packet of type {kind}"
        return answer

    def _answer(self, kind: int) -> Answer:
        """Return the next packet that is no PUBLISH, and keep those for later."""
        while isinstance(one := self._next(), Message):
            self._early.append(one)
        assert isinstance(one, Answer), f"closed instead of a packet of type {kind}"
        assert one.kind == kind, f"{one} instead of a packet of type {kind}"
        return one

    def message(self) -> Message:
        """Return the next packet, which has to be a PUBLISH."""
        message = self.receive()
        assert isinstance(message, Message), f"{message} instead of a PUBLISH"
        return message

    def settled(self) -> list[Message | Answer]:
        """Return all that came so far."""
        self.send(packet(PINGREQ))
        found: list[Message | Answer] = []
        while True:
            one = self.receive()
            assert one is not None, f"closed after {found}"
            if isinstance(one, Answer) and one.kind == PINGRESP:
                return found
            found.append(one)

    def messages(self) -> list[Message]:
        """Return all that came so far, which has to be PUBLISH packets."""
        found = self.settled()
        assert all(isinstance(one, Message) for one in found), found
        return found  # type: ignore[return-value]

    def payloads(self) -> list[bytes]:
        """Return the payloads that came so far."""
        return [message.payload for message in self.messages()]

    def rest(self) -> list[Message | Answer]:
        """Return what comes until the server closes, which it has to do."""
        found: list[Message | Answer] = []
        while (one := self.receive()) is not None:
            found.append(one)
        return found

    def ended(self) -> int | None:
        """Return the reason of the DISCONNECT that is the last to come; None if there is none.

        Other packets may come before it; the connection has to end.
        """
        rest = self.rest()
        last = rest[-1] if rest else None
        if isinstance(last, Answer) and last.kind == DISCONNECT:
            return last.reason
        return None

    def _parse(self, one: Packet) -> Message | Answer:
        body, kind = one.body, one.kind
        if kind == PUBLISH:
            at = 2 + int.from_bytes(body[:2], "big")
            topic_name = body[2:at].decode()
            packet_id = 0
            if one.qos:
                packet_id, at = int.from_bytes(body[at : at + 2], "big"), at + 2
            properties, at = self._properties(body, at)
            return Message(
                topic_name, body[at:], one.qos, packet_id, one.dup, one.retain, properties
            )
        at = packet_id = 0
        size = len(body) + 1 + len(varint(len(body)))
        if kind == CONNACK:
            properties, at = self._properties(body, 2)
            assert at == len(body)
            return Answer(kind, 0, (body[1],), properties, bool(body[0]), size)
        if kind in (SUBACK, UNSUBACK):
            properties, at = self._properties(body, 2)
            return Answer(
                kind, int.from_bytes(body[:2], "big"), tuple(body[at:]), properties, size=size
            )
        if kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
            packet_id, at = int.from_bytes(body[:2], "big"), 2
        reasons = tuple(body[at : at + 1])
        properties, at = self._properties(body, at + 1) if len(body) > at + 1 else ({}, at + 1)
        return Answer(kind, packet_id, reasons, properties, size=size)

    def _properties(self, body: bytes, at: int) -> tuple[dict[int, list[Any]], int]:
        """Return the properties that begin at `at`, and where they end."""
        found: dict[int, list[Any]] = {}
        if self.version < 5 or at >= len(body):
            return found, at
        size, at = _varint(body, at)
        end = at + size
        while at < end:
            identifier = body[at]
            value, at = _value(body, at + 1, _FORMS[identifier])
            found.setdefault(identifier, []).append(value)
        assert at == end
        return found, at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (body[at] & 0x7F) << shift
        at += 1
        if body[at - 1] < 0x80:
            return value, at
        shift += 7


def _value(body: bytes, at: int, form: Any) -> tuple[Any, int]:
    if form == _VARINT:
        return _varint(body, at)
    if form == _PAIR:
        name, at = _value(body, at, _TEXT)
        value, at = _value(body, at, _TEXT)
        return (name, value), at
    if form in (_TEXT, _BINARY):
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        data = body[at + 2 : end]
        return (data.decode() if form == _TEXT else data), end
    return int.from_bytes(body[at : at + form], "big"), at + form
