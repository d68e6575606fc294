"""The MQTT load: raw sockets that send slices of a ready block and count what comes back.

One thread drives all connections and never sleeps while it has a core of its own, so a server
pays no wake-up for its client. Deliveries are counted, not copied (`MSG_TRUNC` discards in the
kernel): the size of every packet is known, and `check` has compared the first packets byte by
byte. Assumes MQTT 3.1.1, where a QoS 0 delivery equals its PUBLISH and a PUBACK is four bytes.

Nothing may be lost, so QoS 0 has a flow limit: publishers run at most `AHEAD` messages ahead of
the slowest subscriber. That keeps any server busy, and no server needs to drop.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import packets
from bench.machine import breathe
from bench.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.process import Address

AHEAD = 50_000
SEND_BYTES = 256 * 1024
RECEIVE_BYTES = 1024 * 1024
CHECK_PACKETS = 100
REPLY_SECONDS_MAX = 10.0
QUIET_SECONDS_MAX = 2.0

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


class Publisher:
    """A connection that sends its ring again and again. Counters are bytes."""

    __slots__ = ("acked", "block", "connection", "ring", "sent")

    def __init__(self, address: Address, client_id: str, block: packets.Block) -> None:
        self.connection = open_client(address, client_id)
        self.block = block
        self.ring = memoryview(block.data)
        self.sent = 0
        self.acked = 0

    def offer(self, size_max: int) -> int:
        """Send up to `size_max` bytes, fewer at the ring's end; return what was taken."""
        position = self.sent % len(self.ring)
        try:
            taken = self.connection.send(self.ring[position : position + size_max])
        except BlockingIOError:
            return 0
        self.sent += taken
        return taken

    def take_acks(self) -> None:
        """Count the PUBACKs that have arrived."""
        self.acked += discard(self.connection)

    @property
    def messages_sent(self) -> int:
        return self.sent // self.block.size

    @property
    def messages_acked(self) -> int:
        return self.acked // packets.PUBACK_SIZE


class Subscriber:
    """A connection that counts deliveries at QoS 0. `received` is bytes."""

    __slots__ = ("block", "connection", "received")

    def __init__(
        self, address: Address, client_id: str, topic_filter: str, block: packets.Block
    ) -> None:
        self.connection = open_subscriber(address, client_id, topic_filter, block.qos)
        self.block = block
        self.received = 0

    def receive(self) -> None:
        """Count what has arrived."""
        self.received += discard(self.connection)

    def collect(self, size: int) -> bytes:
        """Read `size` bytes for comparison, while the socket is blocking."""
        collected = bytearray()
        while len(collected) < size:
            part = read_exactly(self.connection, min(self.block.size, size - len(collected)))
            self.accept(part)
            collected += part
        return bytes(collected)

    def accept(self, deliveries: bytes) -> None:
        """Count what was read."""
        self.received += len(deliveries)


class AckingSubscriber(Subscriber):
    """A connection that counts deliveries at QoS 1 and acknowledges each."""

    __slots__ = ("_buffer", "_partial", "_unsent")

    def __init__(
        self, address: Address, client_id: str, topic_filter: str, block: packets.Block
    ) -> None:
        super().__init__(address, client_id, topic_filter, block)
        self._buffer = bytearray(RECEIVE_BYTES)
        self._partial = b""
        self._unsent = b""

    def receive(self) -> None:
        """Acknowledge what has arrived; all identifiers of a read are cut out at once."""
        try:
            size = self.connection.recv_into(self._buffer)
        except BlockingIOError:
            size = 0
        else:
            if not size:
                raise BenchError("the server closed the connection")
        if size or self._unsent:
            self.accept(bytes(memoryview(self._buffer)[:size]))

    def accept(self, deliveries: bytes) -> None:
        """Count what was read and acknowledge every packet that is complete."""
        self.received += len(deliveries)
        data = self._partial + deliveries
        size, id_at = self.block.size, self.block.id_at
        whole = len(data) // size
        end = whole * size
        acks = bytearray(packets.puback(0) * whole)
        acks[2::4] = data[id_at:end:size]
        acks[3::4] = data[id_at + 1 : end : size]
        self._partial = data[end:]
        unsent = self._unsent + acks
        try:
            sent = self.connection.send(unsent)
        except BlockingIOError:
            sent = 0
        self._unsent = unsent[sent:]


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened between two looks at the clock."""

    messages: int
    seconds: float


class Load:
    """Publishers and subscribers, driven by one thread.

    `window` is how many messages a QoS 1 publisher leaves unacknowledged. `burst` is how many
    messages one publisher sends before the next one's turn.
    """

    def __init__(
        self,
        publishers: Sequence[Publisher],
        subscribers: Sequence[Subscriber],
        *,
        window: int = 0,
        burst: int = 0,
    ) -> None:
        self.publishers = publishers
        self.subscribers = subscribers
        self.window = window
        size = publishers[0].block.size
        self._size = size
        self._burst_bytes = burst * size if burst else SEND_BYTES
        self._ahead_bytes = AHEAD * size
        self._next = 0
        self._sent = 0
        assert publishers[0].block.qos == (1 if window else 0)

    # --- counting -----------------------------------------------------------------------------

    def completed(self) -> int:
        """Return the messages delivered, one per subscriber; without one, the acknowledged."""
        if self.subscribers:
            return sum(subscriber.received for subscriber in self.subscribers) // self._size
        return sum(publisher.messages_acked for publisher in self.publishers)

    def lost(self) -> int:
        """Return the deliveries and acknowledgements that never came; negative: doubled."""
        sent = sum(publisher.messages_sent for publisher in self.publishers)
        lost = 0
        if self.subscribers:
            lost += sent * len(self.subscribers) - self.completed()
        if self.window:
            lost += sent - sum(publisher.messages_acked for publisher in self.publishers)
        return lost

    # --- phases -------------------------------------------------------------------------------

    def check(self) -> None:
        """Publish the first packets, compare each delivery and acknowledgement byte by byte."""
        count = min(CHECK_PACKETS, self.window or CHECK_PACKETS)
        published: list[bytes] = []
        for publisher in self.publishers:
            block = publisher.block
            first = block.data[: count * block.size]
            publisher.connection.sendall(first)
            publisher.sent = len(first)
            published += _split(first, block.size)
        block = self.publishers[0].block
        for publisher in self.publishers if self.window else ():
            expected_acks = b"".join(packets.puback(number + 1) for number in range(count))
            acks = read_exactly(publisher.connection, len(expected_acks))
            publisher.acked = len(acks)
            if acks != expected_acks:
                raise BenchError("the acknowledgements are not those of what was published")
        expected = sorted(block.masked(packet) for packet in published)
        for subscriber in self.subscribers:
            deliveries = subscriber.collect(len(published) * block.size)
            if sorted(map(block.masked, _split(deliveries, block.size))) != expected:
                raise BenchError("what was delivered is not what was published")
        for connection in self._connections():
            connection.setblocking(False)
        self._sent = sum(publisher.sent for publisher in self.publishers)

    def run(self, seconds: float) -> Interval:
        """Drive at full speed; call `check` before."""
        turn = self._turn_windowed if self.window else self._turn_flowing
        clock = time.perf_counter
        before = self.completed()
        begin = clock()
        end = begin + seconds
        while (now := clock()) < end:
            turn()
            breathe()
        return Interval(self.completed() - before, now - begin)

    def drain(self) -> None:
        """Complete what is cut in half, then wait until all is in or nothing more comes."""
        for publisher in self.publishers:
            while rest := -publisher.sent % self._size:
                publisher.offer(rest)
                self._receive()
        last = self.lost()
        quiet_since = time.perf_counter()
        while last > 0 and time.perf_counter() < quiet_since + QUIET_SECONDS_MAX:
            self._receive()
            if (lost := self.lost()) != last:
                last, quiet_since = lost, time.perf_counter()

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections():
            connection.close()

    def _connections(self) -> list[socket.socket]:
        found = [publisher.connection for publisher in self.publishers]
        return found + [subscriber.connection for subscriber in self.subscribers]

    # --- one turn of the loop -----------------------------------------------------------------

    def _receive(self) -> None:
        for subscriber in self.subscribers:
            subscriber.receive()
        if self.window:
            for publisher in self.publishers:
                publisher.take_acks()

    def _turn_flowing(self) -> None:
        """QoS 0: let the publishers, in turn, fill the distance to the slowest subscriber."""
        for subscriber in self.subscribers:
            subscriber.receive()
        slowest = min(subscriber.received for subscriber in self.subscribers)
        room = self._ahead_bytes - (self._sent - slowest)
        if room < self._ahead_bytes // 8:
            return
        for _ in self.publishers:
            publisher = self.publishers[self._next]
            self._next = (self._next + 1) % len(self.publishers)
            taken = publisher.offer(min(room, self._burst_bytes))
            self._sent += taken
            room -= taken
            if room <= 0:
                return

    def _turn_windowed(self) -> None:
        """QoS 1: every publisher fills its window as soon as there is room."""
        for subscriber in self.subscribers:
            subscriber.receive()
        if self.subscribers:
            slowest = min(subscriber.received for subscriber in self.subscribers)
            held = self._sent - slowest > self._ahead_bytes
        else:
            held = False
        size, window = self._size, self.window
        for publisher in self.publishers:
            publisher.take_acks()
            room = (publisher.messages_acked + window) * size - publisher.sent
            if room > 0 and not held:
                self._sent += publisher.offer(room)


def _split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
