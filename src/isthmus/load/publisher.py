"""What one client publishes, and what of it is acknowledged: bytes in, bytes out, no I/O.

The payload of a message is a header of HEADER_BYTES and filler: the number of the run and of
the message (16 and 48 bits), and the moment when it was due, in nanoseconds of the monotonic
clock. In a closed loop that is the moment when it was made. In an open loop (`keep_to`) it is
the moment that the schedule says, however long the message had to wait for a server that was
not ready for it: so a stall is seen in every message that it delayed, and not in one alone.

Above QoS 0 as many publishes as the window has slots are not acknowledged at any one time; the
number of a slot is the packet identifier. Slots are used in turn, and one that is free again is
the last to be used. Compiled with the types in `publisher.pxd`.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from isthmus.load.frames import Frames
from isthmus.mqtt import packets
from isthmus.mqtt.packets import VERSION_5
from isthmus.wire.buffer import WriteBuffer, uvarint_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.load.latencies import Latencies
    from isthmus.load.totals import Totals
    from isthmus.wire.buffer import Data

HEADER_BYTES: Final = 16
OUT_BYTES_MAX: Final = 262_144  # made ahead of the socket; more would be old when it goes out
CONTROL_BYTES_MAX: Final = 65_536
NO_LIMIT: Final = 1 << 62

_OUT_BYTES_MAX = OUT_BYTES_MAX
_PUBACK = packets.PUBACK
_PUBREC = packets.PUBREC
_PUBCOMP = packets.PUBCOMP
_DUP = 0x08
_FREE, _SENT, _RECEIVED = 0, 1, 2  # of a slot; the last is QoS 2 between PUBREC and PUBCOMP


class Publisher:
    """One publishing client of a load.

    `index` and `stride`: it makes the messages `index`, `index + stride`, … of all. `fans` says
    for each topic name how many deliveries a message of it brings.
    """

    __slots__ = (
        "_dues",
        "_fans",
        "_filler",
        "_frames",
        "_free",
        "_free_at",
        "_free_count",
        "_heads",
        "_index",
        "_interval_ns",
        "_latencies",
        "_limit",
        "_made",
        "_numbers",
        "_qos",
        "_run",
        "_slots",
        "_start_made",
        "_start_ns",
        "_states",
        "_stride",
        "_totals",
        "_version",
        "control",
        "left",
        "out",
    )

    def __init__(
        self,
        heads: list[bytes],
        fans: Sequence[int],
        filler: bytes,
        totals: Totals,
        latencies: Latencies,
        *,
        version: int,
        qos: int,
        window: int,
        run: int,
        index: int,
        stride: int,
    ) -> None:
        assert len(heads) == len(fans)
        self._heads = heads
        self._fans = array("q", fans)
        self._filler = filler
        self._totals = totals
        self._latencies = latencies
        self._version = version
        self._qos = qos
        self._run = run << 48
        self._index = index
        self._stride = stride
        self._made = 0
        self._start_made = 0
        self._start_ns = 0
        self._interval_ns = 0.0
        self._frames = Frames(CONTROL_BYTES_MAX)
        self.left = NO_LIMIT
        self.out = WriteBuffer()
        self.control: list[bytes] = []
        self._slots = window if qos else 0
        self._limit = self._slots
        self._dues = array("q", bytes(8 * (self._slots + 1)))
        self._numbers = array("q", bytes(8 * (self._slots + 1)))
        self._states = bytearray(self._slots + 1)
        self._free = array("q", range(1, self._slots + 2))  # a ring; its last entry is not used
        self._free_at = 0
        self._free_count = self._slots

    @property
    def unacknowledged(self) -> int:
        """Publishes on their way."""
        return self._slots - self._free_count

    @property
    def has_room(self) -> bool:
        """Whether one more message may be made now."""
        return self._is_free()

    def allow(self, receive_maximum: int) -> None:
        """Keep to what the server takes at one time [MQTT-3.3.4-9]."""
        self._limit = min(self._slots, receive_maximum)

    def keep_to(self, start_ns: int, interval_ns: float) -> None:
        """Have message k from now on be due at `start_ns + k * interval_ns`."""
        self._start_ns = start_ns
        self._start_made = self._made
        self._interval_ns = interval_ns

    def fill(self, now_ns: int, count_max: int) -> int:
        """Make up to `count_max` messages that are due now; return for how many was room."""
        made = 0
        while made < count_max and self.out.size < _OUT_BYTES_MAX and self._is_free():
            self._make(now_ns)
            made += 1
        return made

    def fill_due(self, now_ns: int) -> int:
        """Make the messages that the schedule wants by now; return how many."""
        made = 0
        while self.out.size < _OUT_BYTES_MAX and self._is_free():
            due_ns = self._start_ns + int((self._made - self._start_made) * self._interval_ns)
            if due_ns > now_ns:
                break
            self._make(due_ns)
            made += 1
        return made

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
                if kind in (_PUBACK, _PUBREC, _PUBCOMP):
                    self._settle(kind, now_ns)
                else:
                    self.control.append(frames.packet())
        finally:
            rest = frames.detach()
        return rest

    def resume(self, *, session_present: bool) -> None:
        """Send again, on a new connection, what is not acknowledged [MQTT-4.4.0-1].

        Where the server has lost the session it has still answered for what it took with a
        PUBREC; and what it has not taken is new to it. What was made at QoS 0 and not sent is
        lost.
        """
        self.out.clear()
        for slot in sorted(range(1, self._slots + 1), key=self._numbers.__getitem__):
            if self._states[slot] == _RECEIVED and session_present:
                self._release(slot)
            elif self._states[slot] == _RECEIVED:
                self._free_slot(slot)
                self._totals.acknowledged += 1
            elif self._states[slot] == _SENT:
                position = self.out.size
                self._put(slot, self._numbers[slot], self._dues[slot])
                if session_present:
                    head = self._heads[self._topic_of(self._numbers[slot])]
                    self.out.patch_u8(position, head[0] | _DUP)

    # --- inside -------------------------------------------------------------------------------

    def _is_free(self) -> bool:
        if self.left <= 0:
            return False
        return self._qos == 0 or self._slots - self._free_count < self._limit

    def _topic_of(self, number: int) -> int:
        return (number - self._index) // self._stride % len(self._heads)

    def _make(self, due_ns: int) -> None:
        """Make the next message and count what is to come of it."""
        number = self._index + self._made * self._stride
        topic = self._made % len(self._heads)
        slot = 0
        if self._qos:
            slot = self._free[self._free_at]
            self._free_at += 1
            if self._free_at == self._slots:
                self._free_at = 0
            self._free_count -= 1
            self._dues[slot] = due_ns
            self._numbers[slot] = number
            self._states[slot] = _SENT
        self._made += 1
        self.left -= 1
        self._totals.published += 1
        self._totals.expected += self._fans[topic]
        self._put(slot, number, due_ns)

    def _put(self, slot: int, number: int, due_ns: int) -> None:
        out = self.out
        out.put_bytes(self._heads[self._topic_of(number)])
        if self._qos:
            out.put_u16(slot)
        if self._version == 5:
            out.put_u8(0)  # no properties
        out.put_u64(self._run | number)
        out.put_u64(due_ns)
        out.put_bytes(self._filler)

    def _settle(self, kind: int, now_ns: int) -> None:
        """Take an acknowledgement; a reason from 0x80 on refuses [MQTT 5.0, 3.4.2.1]."""
        buffer = self._frames.buffer
        slot = buffer.u16()
        reason = buffer.u8() if buffer.position < self._frames.end else 0
        if slot == 0 or slot > self._slots or self._states[slot] == _FREE:
            self._totals.strange += 1
        elif kind == _PUBREC and self._qos == 2 and reason < 0x80:
            self._release(slot)
        elif (kind == _PUBACK) != (self._qos == 1):
            self._totals.strange += 1
        else:
            if reason < 0x80 or kind == _PUBCOMP:
                self._totals.acknowledged += 1
                self._latencies.add(self._dues[slot], now_ns)
            else:
                self._totals.refused += 1
                self._totals.expected -= self._fans[self._topic_of(self._numbers[slot])]
            self._free_slot(slot)

    def _release(self, slot: int) -> None:
        """Send PUBREL; the message is the server's from here on [MQTT-4.3.3-4]."""
        self._states[slot] = _RECEIVED
        self.out.put_u32(0x62020000 | slot)

    def _free_slot(self, slot: int) -> None:
        at = self._free_at + self._free_count
        if at >= self._slots:
            at -= self._slots
        self._free[at] = slot
        self._states[slot] = _FREE
        self._free_count += 1


def head_of(
    topic_name: bytes, payload_bytes: int, *, version: int, qos: int, retain: bool
) -> bytes:
    """Return what stands first in every PUBLISH to a topic name, up to the name's end."""
    out = WriteBuffer()
    size = 2 + len(topic_name) + (2 if qos else 0) + payload_bytes
    if version == VERSION_5:
        size += 1  # the length of no properties
    out.put_u8(packets.PUBLISH << 4 | qos << 1 | retain)
    out.put_uvarint(size)
    out.put_u16(len(topic_name))
    out.put_bytes(topic_name)
    return out.take()


def packet_bytes(topic_name: bytes, payload_bytes: int, *, version: int, qos: int) -> int:
    """Return the size of a PUBLISH as it goes over the wire."""
    body = 2 + len(topic_name) + (2 if qos else 0) + (version == VERSION_5) + payload_bytes
    return 1 + uvarint_size(body) + body
