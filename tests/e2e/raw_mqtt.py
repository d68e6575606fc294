"""MQTT packets by hand over a plain socket, for what a client library hides or forbids.

An encoder of its own, on purpose: it shares no line with the server, so a misreading of the
specification cannot cancel itself out. It encodes what the tests send, valid or not, and splits
what arrives into packets without judging them.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.patience import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.server_process import Address

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = range(1, 10)
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(10, 16)

SESSION_EXPIRY: Final = 0x11
AUTH_METHOD: Final = 0x15
AUTH_DATA: Final = 0x16


def uint16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def text(content: str | bytes) -> bytes:
    """Return a string, or bytes that pretend to be one, with its length before it."""
    data = content.encode() if isinstance(content, str) else content
    return uint16(len(data)) + data


def varint(number: int) -> bytes:
    """Return a variable byte integer [MQTT 1.5.5]."""
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Return one packet: fixed header, then the body."""
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


def connect(
    client_id: str,
    *,
    version: int = 5,
    clean: bool = True,
    keep_alive_s: int = 0,
    session_expiry_s: int | None = None,
    will: tuple[str, bytes, int, bool] | None = None,
    user: tuple[str, bytes] | None = None,
    method: tuple[str, bytes] | None = None,
) -> bytes:
    """Return a CONNECT.

    A will is topic name, payload, QoS and retain; a user has a password, an authentication
    method its first data.
    """
    flags = 0x02 if clean else 0
    tail = text(client_id)
    if will is not None:
        topic_name, payload, qos, retain = will
        flags |= 0x04 | qos << 3 | (0x20 if retain else 0)
        tail += (b"\0" if version == 5 else b"") + text(topic_name) + text(payload)
    if user is not None:
        flags |= 0xC0
        tail += text(user[0]) + text(user[1])
    properties = b""
    if version == 5:
        inner = (
            b""
            if session_expiry_s is None
            else bytes([SESSION_EXPIRY]) + session_expiry_s.to_bytes(4, "big")
        )
        if method is not None:
            inner += authentication(*method)
        properties = varint(len(inner)) + inner
    head = text("MQTT") + bytes([version, flags]) + uint16(keep_alive_s)
    return packet(CONNECT, head + properties + tail)


def authentication(method: str, data: bytes) -> bytes:
    """Return the two properties of an authentication method."""
    return bytes([AUTH_METHOD]) + text(method) + bytes([AUTH_DATA]) + text(data)


def auth(reason: int, method: str, data: bytes) -> bytes:
    """Return an AUTH."""
    inner = authentication(method, data)
    return packet(AUTH, bytes([reason]) + varint(len(inner)) + inner)


def authentication_data(properties: bytes) -> bytes:
    """Return the data among properties, which end with method and data or data and method."""
    at = properties.index(bytes([AUTH_DATA]))
    size = int.from_bytes(properties[at + 1 : at + 3], "big")
    return properties[at + 3 : at + 3 + size]


def publish(
    topic_name: str | bytes,
    payload: bytes,
    *,
    qos: int = 0,
    packet_id: int = 0,
    dup: bool = False,
    retain: bool = False,
    version: int = 5,
) -> bytes:
    """Return a PUBLISH without properties."""
    body = text(topic_name) + (uint16(packet_id) if qos else b"")
    body += (b"\0" if version == 5 else b"") + payload
    return packet(PUBLISH, body, flags=(8 if dup else 0) | qos << 1 | int(retain))


def subscribe(packet_id: int, topic_filter: str, options: int, *, version: int = 5) -> bytes:
    """Return a SUBSCRIBE with one filter; in 3.1.1 the options are the QoS."""
    properties = b"\0" if version == 5 else b""
    body = uint16(packet_id) + properties + text(topic_filter) + bytes([options])
    return packet(SUBSCRIBE, body, 2)


def ack(kind: int, packet_id: int) -> bytes:
    """Return a PUBACK, PUBREC, PUBREL or PUBCOMP that means success."""
    return packet(kind, uint16(packet_id), 2 if kind == PUBREL else 0)


@dataclass(frozen=True)
class Packet:
    """A packet as it came: type, flags of the fixed header, and the rest."""

    kind: int
    flags: int
    body: bytes

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def dup(self) -> bool:
        return bool(self.flags & 8)

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)

    @property
    def topic_name(self) -> str:
        """Topic name of a PUBLISH."""
        assert self.kind == PUBLISH
        return self.body[2 : 2 + int.from_bytes(self.body[:2], "big")].decode()

    @property
    def packet_id(self) -> int:
        """Packet identifier of any packet that has one."""
        at = 2 + int.from_bytes(self.body[:2], "big") if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[at : at + 2], "big")

    def payload(self, version: int = 5) -> bytes:
        """Return the payload of a PUBLISH (properties shorter than 128 bytes)."""
        at = 2 + int.from_bytes(self.body[:2], "big") + (2 if self.qos else 0)
        return self.body[at + (1 + self.body[at] if version == 5 else 0) :]


def split(received: bytearray) -> Packet | None:
    """Take the first packet out of what was received, or None while it is not all there."""
    size = shift = 0
    for at in range(1, min(len(received), 5)):
        size |= (received[at] & 0x7F) << shift
        shift += 7
        if received[at] < 0x80:
            break
    else:
        return None
    end = at + 1 + size
    if len(received) < end:
        return None
    first, body = received[0], bytes(received[at + 1 : end])
    del received[:end]
    return Packet(first >> 4, first & 15, body)


class RawMqtt:
    """One MQTT connection of which every byte is known."""

    def __init__(self, server: Address) -> None:
        self.socket = socket.create_connection(server, TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session_present = False
        self._received = bytearray()

    def open(self, client_id: str, **options: Any) -> None:
        """Send CONNECT and take CONNACK, which has to say success."""
        self.send(connect(client_id, **options))
        connack = self.expect(CONNACK)
        assert connack.body[1] == 0, f"refused with reason {connack.body[1]:#x}"
        self.session_present = bool(connack.body[0] & 1)

    def send(self, *packets: bytes) -> None:
        self.socket.sendall(b"".join(packets))

    def receive(self) -> Packet | None:
        """Return the next packet, or None once the server has closed the connection."""
        while (one := split(self._received)) is None:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._received += data
        return one

    def expect(self, kind: int) -> Packet:
        """Return the next packet, which has to be of this type; OSError if there is none."""
        arrived = self.receive()
        if arrived is None:
            raise ConnectionError(f"closed instead of a packet of type {kind}")
        assert arrived.kind == kind, f"{arrived} instead of a packet of type {kind}"
        return arrived

    def is_silent(self, for_s: float = 0.3) -> bool:
        """Whether nothing comes for a while."""
        self.socket.settimeout(for_s)
        try:
            return not self._received and self.socket.recv(1, socket.MSG_PEEK) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(TIMEOUT_S)

    def cut(self) -> None:
        """Break the connection without DISCONNECT, as a lost network does."""
        self.socket.close()


@contextlib.contextmanager
def raw_connection(server: Address) -> Iterator[RawMqtt]:
    """Hold a socket on which nothing was said yet."""
    connection = RawMqtt(server)
    try:
        yield connection
    finally:
        connection.cut()


@contextlib.contextmanager
def raw_session(server: Address, client_id: str, **options: Any) -> Iterator[RawMqtt]:
    """Hold a connection that was accepted, and leave it with DISCONNECT unless it was cut."""
    with raw_connection(server) as connection:
        connection.open(client_id, **options)
        yield connection
        if connection.socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                connection.send(packet(DISCONNECT))
