"""Kafka frames by hand over a plain socket, for what a client library would never send."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from tests.e2e.patience import TIMEOUT_S

if TYPE_CHECKING:
    from tests.e2e.server_process import Address

PRODUCE, FETCH, LIST_OFFSETS, METADATA = range(4)
API_VERSIONS: Final = 18


def frame(content: bytes) -> bytes:
    """Return content with its size before it."""
    return len(content).to_bytes(4, "big") + content


def request(api_key: int, version: int, body: bytes = b"", correlation_id: int = 7) -> bytes:
    """Return a request with header version 1 (not flexible)."""
    numbers = (api_key.to_bytes(2, "big"), version.to_bytes(2, "big"))
    client_id = b"raw"
    header = b"".join(numbers) + correlation_id.to_bytes(4, "big")
    return frame(header + len(client_id).to_bytes(2, "big") + client_id + body)


def receive(connection: socket.socket) -> bytes:
    """Return the next response without its size, or nothing once the server has closed."""
    connection.settimeout(TIMEOUT_S)
    size = int.from_bytes(receive_exactly(connection, 4), "big")
    content = receive_exactly(connection, size)
    return content if len(content) == size else b""


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Return this many bytes; fewer only where the connection ends."""
    received = bytearray()
    while len(received) < size and (data := connection.recv(size - len(received))):
        received += data
    return bytes(received)


def is_answering(connection: socket.socket) -> bool:
    """Whether the server answers ApiVersions v0 on this connection, without an error."""
    connection.sendall(request(API_VERSIONS, 0, correlation_id=11))
    answer = receive(connection)
    return answer[:4] == (11).to_bytes(4, "big") and answer[4:6] == b"\0\0"


def connect(server: Address) -> socket.socket:
    """Return a connection on which nothing was said yet."""
    return socket.create_connection(server, TIMEOUT_S)
