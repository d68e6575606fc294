"""Kafka frames by hand over a plain socket, for what a client library would never send.

`Asker` sends any request of the schema table, and returns the answer as it is on the wire.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.patience import TIMEOUT_S

from isthmus.kafka.api import (
    request_header_version,
    request_name,
    response_header_version,
    response_name,
)
from isthmus.kafka.codec import decode, encode
from isthmus.wire.buffer import WriteBuffer

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
    return receive_exactly(connection, size)


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


class Asker:
    """One connection on which requests are asked and answered, one after the other."""

    def __init__(self, server: Address) -> None:
        self._connection = connect(server)
        self._correlation_id = 0

    def ask(self, api_key: int, version: int, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request, and return its answer as the schema table names the fields."""
        self._correlation_id += 1
        out = WriteBuffer()
        header = {
            "request_api_key": api_key,
            "request_api_version": version,
            "correlation_id": self._correlation_id,
            "client_id": "raw",
        }
        encode("RequestHeader", request_header_version(api_key, version) or 1, header, out)
        encode(request_name(api_key), version, body, out)
        self._connection.sendall(frame(out.take()))
        answer = receive(self._connection)
        assert int.from_bytes(answer[:4], "big") == self._correlation_id
        start = 4 + response_header_version(api_key, version)
        return decode(response_name(api_key), version, answer, start)

    def close(self) -> None:
        self._connection.close()
