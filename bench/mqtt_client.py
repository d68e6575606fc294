"""A raw MQTT 3.1.1 client on one blocking socket, for rows that need no load of many messages.

The load itself is `isthmus.load`, which `isthmus bench` gives to everybody.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from bench import packets
from bench.process import BenchError

if TYPE_CHECKING:
    from bench.process import Address

RECEIVE_BYTES = 1024 * 1024
REPLY_SECONDS_MAX = 10.0

_discarded = bytearray(RECEIVE_BYTES)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Read `size` bytes from a blocking socket."""
    received = bytearray()
    while len(received) < size:
        try:
            part = connection.recv(size - len(received))
        except TimeoutError as error:
            raise BenchError(f"{len(received)} of {size} bytes came back") from error
        if not part:
            raise BenchError("the server closed the connection")
        received += part
    return bytes(received)


def open_client(address: Address, client_id: str) -> socket.socket:
    """Connect and wait for the CONNACK; the socket is blocking, with a time limit."""
    connection = socket.create_connection(address, REPLY_SECONDS_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(packets.connect(client_id))
    if read_exactly(connection, len(packets.CONNACK_ACCEPTED)) != packets.CONNACK_ACCEPTED:
        raise BenchError("the server refused the connection")
    return connection


def open_subscriber(
    address: Address, client_id: str, topic_filter: str, qos: int
) -> socket.socket:
    """Connect and subscribe to one filter."""
    connection = open_client(address, client_id)
    connection.sendall(packets.subscribe(topic_filter, qos))
    if read_exactly(connection, 5) != b"\x90\x03\x00\x01" + bytes([qos]):
        raise BenchError("the server refused the subscription")
    return connection


def discard(connection: socket.socket) -> int:
    """Drop what has arrived and return its size, 0 for nothing yet."""
    try:
        size = connection.recv_into(_discarded, RECEIVE_BYTES, socket.MSG_TRUNC)
    except BlockingIOError:
        return 0
    if not size:
        raise BenchError("the server closed the connection")
    return size
