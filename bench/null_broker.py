"""A broker that does nothing: what the load generator can drive at most on this machine.

It passes the bytes of publishers to all subscribers unread and answers QoS 1 from a ready block
of PUBACKs. So every row of the table can show the ceiling of its own load: a server near the
ceiling has not been measured, the generator has. It relies on our load: one handshake packet
per read, one packet size, identifiers 1 to RING in turn.

    python -m bench.null_broker PORT PACKET_SIZE QOS RING
"""

from __future__ import annotations

import selectors
import socket
import sys

from bench import packets

READ_BYTES = 512 * 1024


class NullBroker:
    """All connections, one thread."""

    def __init__(self, port: int, size: int, qos: int, ring: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._size = size
        self._qos = qos
        self._acks = b"".join(packets.puback(number + 1) for number in range(ring))
        self._subscribers: list[socket.socket] = []
        self._published: dict[socket.socket, int] = {}
        self._cut: dict[socket.socket, bytes] = {}
        self._buffer = bytearray(READ_BYTES)

    def serve(self) -> None:
        """Serve until ended."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        print("ready", flush=True)
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection, selectors.EVENT_READ, self._shake_hands)

    def _shake_hands(self, connection: socket.socket) -> None:
        packet = connection.recv(READ_BYTES)
        if packet[:1] == b"\x10":
            connection.sendall(packets.CONNACK_ACCEPTED)
        elif packet[:1] == b"\x82":
            self._subscribers.append(connection)
            connection.sendall(b"\x90\x03\x00\x01" + packet[-1:])
            self._selector.modify(connection, selectors.EVENT_READ, self._ignore)
        elif packet:
            self._published[connection] = 0
            self._cut[connection] = b""
            self._selector.modify(connection, selectors.EVENT_READ, self._pass_on)
            self._deliver(connection, memoryview(packet))
        else:
            self._close(connection)

    def _ignore(self, connection: socket.socket) -> None:
        if not connection.recv_into(self._buffer, READ_BYTES, socket.MSG_TRUNC):
            self._close(connection)

    def _pass_on(self, connection: socket.socket) -> None:
        if not self._subscribers and not self._qos:
            self._ignore(connection)
            return
        taken = connection.recv_into(self._buffer)
        if taken:
            self._deliver(connection, memoryview(self._buffer)[:taken])
        else:
            self._close(connection)

    def _deliver(self, connection: socket.socket, data: memoryview) -> None:
        """Send whole packets on, and acknowledge those that are now complete."""
        if self._subscribers:
            cut = self._cut[connection]
            end = (len(cut) + len(data)) // self._size * self._size - len(cut)
            whole = [cut, data[:end]] if end > 0 else []
            self._cut[connection] = bytes(data[end:]) if end > 0 else cut + data
            for subscriber in self._subscribers if whole else ():
                send_all(subscriber, whole)
        if not self._qos:
            return
        before = self._published[connection]
        after = before + len(data)
        self._published[connection] = after
        first, end = before // self._size * 4, after // self._size * 4
        while first < end:
            position = first % len(self._acks)
            part = self._acks[position : position + end - first]
            connection.sendall(part)
            first += len(part)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()


def send_all(connection: socket.socket, parts: list[bytes | memoryview]) -> None:
    """Send all of some parts."""
    size = sum(map(len, parts))
    sent = connection.sendmsg(parts)
    if sent < size:
        connection.sendall(b"".join(parts)[sent:])


if __name__ == "__main__":
    NullBroker(*(int(argument) for argument in sys.argv[1:5])).serve()
