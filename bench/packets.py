"""MQTT 3.1.1 packets as the raw client of the rows sends and reads them."""

from __future__ import annotations

import struct

PUBACK_SIZE = 4
CONNACK_ACCEPTED = b"\x20\x02\x00\x00"


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
