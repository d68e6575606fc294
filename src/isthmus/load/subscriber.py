"""What one client has subscribed to and gets: every delivery counted, compared, acknowledged.

A delivery is known by the header that publisher.py made. The filler behind it must be the
filler that was sent: a byte that differs is counted as `corrupted`. Messages of another run, as
retained ones may be, are `foreign`. Compiled with the types in `subscriber.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import Malformed
from isthmus.load.frames import Frames
from isthmus.load.publisher import CONTROL_BYTES_MAX, HEADER_BYTES
from isthmus.mqtt import packets
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from isthmus.load.latencies import Latencies
    from isthmus.load.tally import Tally
    from isthmus.load.totals import Totals
    from isthmus.wire.buffer import Data

_HEADER_BYTES = HEADER_BYTES
_PUBLISH = packets.PUBLISH
_PUBREL = packets.PUBREL
_NUMBER_MAX = (1 << 48) - 1


class Subscriber:
    """One subscribing client of a load; `arrived` may be shared with others of its group."""

    __slots__ = (
        "_arrived",
        "_filler",
        "_frames",
        "_latencies",
        "_payload_bytes",
        "_run",
        "_totals",
        "_unreleased",
        "_version",
        "control",
        "out",
    )

    def __init__(
        self,
        filler: bytes,
        totals: Totals,
        latencies: Latencies,
        arrived: Tally,
        *,
        version: int,
        run: int,
        packet_size_max: int,
    ) -> None:
        self._filler = filler
        self._payload_bytes = HEADER_BYTES + len(filler)
        self._totals = totals
        self._latencies = latencies
        self._arrived = arrived
        self._version = version
        self._run = run
        self._frames = Frames(max(packet_size_max, CONTROL_BYTES_MAX))
        self._unreleased: set[int] = set()  # packet identifiers of QoS 2 [MQTT-4.3.3-10]
        self.out = WriteBuffer()
        self.control: list[bytes] = []

    def feed(self, data: Data, size: int, now_ns: int) -> int:
        """Read what the server sent; return where a part of a packet is left over.

        Packets that are not about messages are put into `control`.
        """
        frames = self._frames
        frames.attach(data, size)
        try:
            while True:
                kind = frames.next()
                if kind == 0:
                    break
                if kind == _PUBLISH:
                    self._receive(now_ns)
                elif kind == _PUBREL:
                    self._complete()
                else:
                    self.control.append(frames.packet())
        finally:
            rest = frames.detach()
        return rest

    def take(self, payload: bytes, now_ns: int) -> None:
        """Count a message that has come another way, as over the Kafka protocol."""
        buffer = self._frames.buffer
        buffer.attach(payload)
        try:
            self._count(len(payload), now_ns)
        finally:
            buffer.detach()

    def resume(self, *, session_present: bool) -> None:
        """Begin on a new connection; a server without the session knows of no QoS 2, either."""
        self.out.clear()
        if not session_present:
            self._unreleased.clear()

    # --- inside -------------------------------------------------------------------------------

    def _receive(self, now_ns: int) -> None:
        frames = self._frames
        buffer = frames.buffer
        qos = frames.first >> 1 & 3
        buffer.skip(buffer.u16())  # the topic name
        packet_id = 0
        if qos:
            packet_id = buffer.u16()
        if self._version == 5:
            buffer.skip(buffer.uvarint(4))
        if buffer.position > frames.end:
            raise Malformed("a PUBLISH that ends before its payload begins")
        if qos == 1:
            self.out.put_u32(0x40020000 | packet_id)
        elif qos == 2:
            self.out.put_u32(0x50020000 | packet_id)
            if packet_id in self._unreleased:
                return  # the same delivery once more, which QoS 2 tells from another one
            self._unreleased.add(packet_id)
        self._count(frames.end - buffer.position, now_ns)

    def _count(self, payload_bytes: int, now_ns: int) -> None:
        """Count the message whose payload comes next."""
        buffer = self._frames.buffer
        totals = self._totals
        if payload_bytes < _HEADER_BYTES:
            totals.foreign += 1
            return
        header = buffer.u64()
        due_ns = buffer.u64()
        if header >> 48 != self._run:
            totals.foreign += 1
        elif payload_bytes != self._payload_bytes or not buffer.compare(self._filler):
            totals.corrupted += 1
        elif self._arrived.add(header & _NUMBER_MAX):
            totals.delivered += 1
            self._latencies.add(due_ns, now_ns)
        else:
            totals.doubled += 1

    def _complete(self) -> None:
        packet_id = self._frames.buffer.u16()
        self._unreleased.discard(packet_id)
        self.out.put_u32(0x70020000 | packet_id)
