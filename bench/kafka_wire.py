"""The few Kafka bytes that the raw load sends and reads: Produce v7 and Fetch v11.

Both versions are served by every broker since 2.3 and have fixed places for what matters, so a
response is judged by looking at a few offsets. One batch is made once, with its CRC, and sent
again and again: the server does all the work, the generator almost none. Shapes: Kafka protocol
guide; record batch v2: KIP-98. Not for use as a client.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PRODUCE, PRODUCE_VERSION = 0, 7
FETCH, FETCH_VERSION = 1, 11
CLIENT_ID = "bench"
ACKS_ALL = -1
TIMEOUT_MS = 30_000
FETCH_WAIT_MS = 500
FETCH_BYTES_MAX = 8 * 1024 * 1024
_POLYNOMIAL = 0x82F63B78


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (RFC 3720, B.4) of `data`; slow, for one batch."""
    table, value = _crc_table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def varint(value: int) -> bytes:
    """Encode a zigzag varint."""
    rest = value << 1 if value >= 0 else ~(value << 1)
    encoded = bytearray()
    while True:
        rest, low = rest >> 7, rest & 0x7F
        encoded.append(low | (0x80 if rest else 0))
        if not rest:
            return bytes(encoded)


def record_batch(values: list[bytes], timestamp_ms: int) -> bytes:
    """Encode records without keys as one uncompressed batch of no known producer."""
    records = bytearray()
    for delta, value in enumerate(values):
        body = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value
        body += varint(0)
        records += varint(len(body)) + body
    count = len(values)
    checked = struct.pack(
        ">hiqqqhii", 0, count - 1, timestamp_ms, timestamp_ms, -1, -1, -1, count
    )
    checked += records
    head = struct.pack(">ibI", -1, 2, crc32c(checked))
    return struct.pack(">qi", 0, len(head) + len(checked)) + head + checked


def _string(value: str) -> bytes:
    raw = value.encode()
    return struct.pack(">h", len(raw)) + raw


def _request(api: int, version: int, correlation: int, body: bytes) -> bytes:
    head = struct.pack(">hhi", api, version, correlation) + _string(CLIENT_ID)
    return struct.pack(">i", len(head) + len(body)) + head + body


def produce_request(log_topic: str, partition: int, batch: bytes) -> bytes:
    """Encode a Produce of one batch, acks=all."""
    body = struct.pack(">hhi", -1, ACKS_ALL, TIMEOUT_MS)
    body += struct.pack(">i", 1) + _string(log_topic)
    body += struct.pack(">iii", 1, partition, len(batch)) + batch
    return _request(PRODUCE, PRODUCE_VERSION, 0, body)


def produce_response_size(log_topic: str) -> int:
    """Return the size of every answer to `produce_request`."""
    return 4 + 4 + 4 + len(_string(log_topic)) + 4 + 4 + 2 + 8 + 8 + 8 + 4


def produce_error(response: bytes, log_topic: str) -> int:
    """Return the error code of an answer to `produce_request`."""
    at = 4 + 4 + 4 + len(_string(log_topic)) + 4 + 4
    code: int = struct.unpack_from(">h", response, at)[0]
    return code


def fetch_request(log_topic: str, partition: int, offset: int) -> bytes:
    """Encode a Fetch of one partition without a fetch session."""
    body = struct.pack(">iiiibii", -1, FETCH_WAIT_MS, 1, FETCH_BYTES_MAX, 0, 0, -1)
    body += struct.pack(">i", 1) + _string(log_topic) + struct.pack(">i", 1)
    body += struct.pack(">iiqqi", partition, -1, offset, -1, FETCH_BYTES_MAX)
    body += struct.pack(">i", 0) + _string("")
    return _request(FETCH, FETCH_VERSION, 0, body)


@dataclass(frozen=True, slots=True)
class FetchHead:
    """What stands before the records of an answer to `fetch_request`."""

    error: int
    high_watermark: int
    records_bytes: int


def fetch_head_size(log_topic: str) -> int:
    """Return how many bytes stand before the records, the length of the frame included."""
    return 4 + 4 + 4 + 2 + 4 + 4 + len(_string(log_topic)) + 4 + 4 + 2 + 8 + 8 + 8 + 4 + 4 + 4


def fetch_head(head: bytes, log_topic: str) -> FetchHead:
    """Read the fixed part of an answer; nothing was aborted, so its list there is empty."""
    (error,) = struct.unpack_from(">h", head, 12)
    at = 4 + 4 + 4 + 2 + 4 + 4 + len(_string(log_topic)) + 4 + 4
    partition_error, high_watermark = struct.unpack_from(">hq", head, at)
    (records_bytes,) = struct.unpack_from(">i", head, len(head) - 4)
    return FetchHead(error or partition_error, high_watermark, max(0, records_bytes))
