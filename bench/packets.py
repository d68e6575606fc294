"""MQTT 3.1.1 packets as the load needs them: whole blocks, made before the clock starts.

A block is a ring: thousands of PUBLISH packets of exactly one size in one bytes object. The
load sends slices of it and counts bytes, so a message costs the generator next to nothing.
Packet identifiers of QoS 1 run 1, 2, 3, … through the ring; a window is far smaller than the
ring, so none is used twice at a time [MQTT-2.3.1-2]. Topic names of a block have one length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PUBACK_SIZE = 4
CONNACK_ACCEPTED = b"\x20\x02\x00\x00"
PACKET_IDS_MAX = 65_535


def variable_byte_integer(value: int) -> bytes:
    """Encode a remaining length [MQTT 3.1.1, 2.2.3]."""
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def framed(first: int, body: bytes) -> bytes:
    """Put the fixed header before `body`."""
    return bytes([first]) + variable_byte_integer(len(body)) + body


def text(value: str) -> bytes:
    """Encode a UTF-8 string with its length."""
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


DISCONNECT = b"\xe0\x00"
CLEAN_SESSION = 0x02


def connect(client_id: str, *, clean: bool = True) -> bytes:
    """Encode a CONNECT with no keep alive; the session of one that is not clean lasts."""
    flags = bytes([CLEAN_SESSION if clean else 0])
    return framed(0x10, text("MQTT") + b"\x04" + flags + b"\x00\x00" + text(client_id))


def subscribe(topic_filter: str, qos: int) -> bytes:
    """Encode a SUBSCRIBE to one filter, packet identifier 1."""
    return framed(0x82, b"\x00\x01" + text(topic_filter) + bytes([qos]))


def publish(topic_name: str, payload: bytes, qos: int, packet_id: int = 0) -> bytes:
    """Encode a PUBLISH."""
    identifier = struct.pack(">H", packet_id) if qos else b""
    return framed(0x30 | qos << 1, text(topic_name) + identifier + payload)


def puback(packet_id: int) -> bytes:
    """Encode a PUBACK."""
    return b"\x40\x02" + struct.pack(">H", packet_id)


@dataclass(frozen=True, slots=True)
class Block:
    """A ring of PUBLISH packets of one `size`; `id_at` is where each holds its identifier."""

    data: bytes
    size: int
    qos: int
    id_at: int

    def masked(self, packet: bytes) -> bytes:
        """Return `packet` without its identifier, which a broker chooses anew."""
        return packet[: self.id_at] + packet[self.id_at + 2 :] if self.qos else packet


def publish_block(topic_names: Sequence[str], payload_size: int, qos: int, count: int) -> Block:
    """Make a ring of `count` packets over `topic_names` in turn, each payload different."""
    assert count <= PACKET_IDS_MAX
    packets = [
        publish(
            topic_names[number % len(topic_names)],
            f"{number:08d}".encode().ljust(payload_size, b"."),
            qos,
            number + 1,
        )
        for number in range(count)
    ]
    size = len(packets[0])
    assert all(len(packet) == size for packet in packets), "a block has packets of one size"
    id_at = size - payload_size - 2
    return Block(b"".join(packets), size, qos, id_at)
