"""Sockets that never wait: plain, with TLS, and WebSocket inside either.

What would have to wait says so: `handshake` returns False, `send` 0, `receive_into` None. An
OSError (ssl.SSLError is one) is the end of the connection, as is a `receive_into` of 0 bytes.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, Protocol

from websockets.client import ClientProtocol
from websockets.frames import Opcode, apply_mask  # type: ignore[attr-defined]
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from isthmus.config_listeners import TLS_SCHEMES, WEB_SCHEMES
from isthmus.load.errors import LoadError
from isthmus.load.web_frames import WebFrames

if TYPE_CHECKING:
    from isthmus.config_listeners import Address

WEB_RECEIVE_BYTES: Final = 65_536  # at most what fits into anybody's room
HEAD_BYTES_MAX: Final = 8_192  # of the answer to the HTTP request
HEAD_END: Final = b"\r\n\r\n"
quiet = logging.getLogger(f"{__name__}.frames")
quiet.setLevel(logging.CRITICAL + 1)  # what goes wrong is told by the exception


class Transport(Protocol):
    """A connection of bytes that never waits."""

    @property
    def wants_write(self) -> bool:
        """Whether something waits here until the socket can take it."""

    @property
    def has_more(self) -> bool:
        """Whether there is more to receive that the socket does not announce."""

    def fileno(self) -> int:
        """Return the socket's number."""

    def handshake(self) -> bool:
        """Go on opening the connection; return whether it is open."""

    def send(self, data: memoryview) -> int:
        """Send some of `data`; return how much was taken."""

    def receive_into(self, room: memoryview) -> int | None:
        """Put what has come into `room`; return how much, 0 at the end, None for not now."""

    def flush(self) -> None:
        """Send what was taken and is still here."""

    def close(self) -> None:
        """Close the socket."""


class Opener:
    """The way to one server, looked up once."""

    def __init__(
        self, address: Address, tls: ssl.SSLContext | None = None, server_name: str = ""
    ) -> None:
        """LoadError for a host that has no address."""
        self._address = address
        self._tls = tls
        self._server_name = server_name or address.host
        self._place: Any
        if address.scheme == "unix":
            self._family, self._place = socket.AF_UNIX, address.path
            return
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise LoadError(f"no address of {address.host}: {error.strerror}") from None
        self._family, self._place = found[0][0], found[0][4]

    def open(self) -> Transport:
        """Begin to connect. OSError where that is refused at once."""
        plain = socket.socket(self._family, socket.SOCK_STREAM)
        plain.setblocking(False)
        if self._family != socket.AF_UNIX:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        status = plain.connect_ex(self._place)
        if status not in (0, errno.EINPROGRESS):
            plain.close()
            raise OSError(status, os.strerror(status))
        transport: Transport = TcpTransport(plain)
        if self._address.scheme in TLS_SCHEMES:
            assert self._tls is not None
            transport = TlsTransport(plain, self._tls, self._server_name)
        if self._address.scheme in WEB_SCHEMES:
            transport = WebSocketTransport(transport, str(self._address))
        return transport


class TcpTransport:
    """A plain TCP or Unix socket."""

    wants_write = False
    has_more = False

    def __init__(self, plain: socket.socket) -> None:
        self._socket = plain

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> bool:
        return is_connected(self._socket)

    def send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def receive_into(self, room: memoryview) -> int | None:
        try:
            return self._socket.recv_into(room)
        except BlockingIOError:
            return None

    def flush(self) -> None:
        """Nothing is ever kept here."""

    def close(self) -> None:
        self._socket.close()


class TlsTransport:
    """TLS inside a socket; a record that has come is read whole, the rest of it waits here."""

    def __init__(self, plain: socket.socket, tls: ssl.SSLContext, server_name: str) -> None:
        self._plain = plain
        self._tls = tls
        self._server_name = server_name
        self._socket: ssl.SSLSocket | None = None
        self.wants_write = False

    @property
    def has_more(self) -> bool:
        return self._socket is not None and self._socket.pending() > 0

    def fileno(self) -> int:
        return (self._socket or self._plain).fileno()

    def handshake(self) -> bool:
        if self._socket is None:
            if not is_connected(self._plain):
                return False
            self._socket = self._tls.wrap_socket(
                self._plain, server_hostname=self._server_name, do_handshake_on_connect=False
            )
        self.wants_write = False
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return False
        return True

    def send(self, data: memoryview) -> int:
        assert self._socket is not None
        try:
            return self._socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def receive_into(self, room: memoryview) -> int | None:
        assert self._socket is not None
        try:
            return self._socket.recv_into(room)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:
            return 0  # without a close_notify, as servers do that are in a hurry

    def flush(self) -> None:
        """What was taken has been sent."""

    def close(self) -> None:
        (self._socket or self._plain).close()


class WebSocketTransport:
    """WebSocket inside another transport; MQTT in binary frames [MQTT-6.0.0-1]."""

    def __init__(self, inner: Transport, address: str) -> None:
        self._inner = inner
        self._websocket = ClientProtocol(
            parse_uri(address), subprotocols=[Subprotocol("mqtt")], logger=quiet
        )
        self._is_asked = False
        self._answer = b""
        self._scrap = bytearray(WEB_RECEIVE_BYTES)
        self._frames = WebFrames()
        self._unsent = memoryview(b"")

    @property
    def wants_write(self) -> bool:
        return bool(self._unsent) or self._inner.wants_write

    @property
    def has_more(self) -> bool:
        return self._inner.has_more

    def fileno(self) -> int:
        return self._inner.fileno()

    def handshake(self) -> bool:
        if not self._is_asked:
            if not self._inner.handshake():
                return False
            self._websocket.send_request(self._websocket.connect())
            self._unsent = memoryview(b"".join(self._websocket.data_to_send()))
            self._is_asked = True
        self.flush()
        size = self._inner.receive_into(memoryview(self._scrap))
        if size is None:
            return False
        if size == 0:
            raise ConnectionResetError(errno.ECONNRESET, "closed, no WebSocket")
        self._answer += bytes(memoryview(self._scrap)[:size])
        head, end, rest = self._answer.partition(HEAD_END)
        if not end and len(head) < HEAD_BYTES_MAX:
            return False
        self._websocket.receive_data(head + end)
        if self._websocket.state is not State.OPEN:
            problem = self._websocket.handshake_exc or "the answer is not one to be understood"
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"no WebSocket: {problem}")
        self._frames.feed(rest, len(rest))
        return True

    def send(self, data: memoryview) -> int:
        self.flush()
        if self._unsent:
            return 0
        self._unsent = memoryview(frame_of(Opcode.BINARY, data))
        self.flush()
        return len(data)

    def receive_into(self, room: memoryview) -> int | None:
        size = self._inner.receive_into(memoryview(self._scrap))
        if not size:
            return size
        frames = self._frames
        frames.feed(self._scrap, size)
        if frames.pings:
            pongs = b"".join(frame_of(Opcode.PONG, ping) for ping in frames.pings)
            self._unsent = memoryview(bytes(self._unsent) + pongs)
            frames.pings.clear()
        with frames.out.view() as view:
            taken = len(view)
            room[:taken] = view
        frames.out.clear()
        return taken or (0 if frames.is_closed else None)

    def flush(self) -> None:
        while self._unsent:
            taken = self._inner.send(self._unsent)
            if not taken:
                break
            self._unsent = self._unsent[taken:]

    def close(self) -> None:
        self._inner.close()


def frame_of(opcode: int, data: bytes | memoryview) -> bytes:
    """Return a whole frame of a client, masked as it has to be [RFC 6455, 5.3]."""
    size = len(data)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    key = os.urandom(4)
    return b"".join((head, key, apply_mask(data, key)))


def is_connected(plain: socket.socket) -> bool:
    """Say whether a socket that connects is there; OSError where it was refused."""
    status = plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if status:
        raise OSError(status, os.strerror(status))
    try:
        plain.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return False
        raise
    return True
