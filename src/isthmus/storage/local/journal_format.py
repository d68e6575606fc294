"""What a file of the journal looks like; big-endian, everything begins on a page of its own.

    page 0   magic "ISTHMUSJ", u32 version, u64 sequence, u64 oldest, 8 random bytes, u32 crc
    a round  u32 crc, u64 number, u32 count, u64 payload bytes,
             count times: topic id, i32 partition, i64 base offset of the segment, i64 position,
                          i64 end offset, u32 size, u32 crc of the payload,
             the payloads, one after the other

Files are used again and again, so behind the newest round lies what an earlier use has left. It
is never taken for a round of this use: the crc of a round continues from that of the file's
header, whose sequence and random bytes are new with each use. Within a use, the numbers of the
rounds ascend by one, over the ends of files too, so that a hole is seen. `oldest` is the lowest
sequence whose rounds may still be needed.

All checksums are CRC-32C. A page that was synced once is not written again in the same use, so
a torn write harms only rounds that nobody was told about.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE_BYTES: Final = 4096
MAGIC: Final = b"ISTHMUSJ"
VERSION: Final = 1
NONCE_BYTES: Final = 8

_HEADER = struct.Struct(f">8sIQQ{NONCE_BYTES}sI")
_CRC = struct.Struct(">I")
_ROUND = struct.Struct(">IQIQ")
_ENTRY = struct.Struct(">16siqqqII")


class FileHeader(NamedTuple):
    """The first page of a file that is in use."""

    sequence: int
    oldest: int
    seed: int  # what the checksums of its rounds continue from


class Entry(NamedTuple):
    """Where a payload belongs, and which records end with it."""

    topic_id: bytes
    partition: int
    base_offset: int  # of the segment
    position: int  # in the segment
    end_offset: int  # one past the last record
    size: int
    crc: int


class Round(NamedTuple):
    """One round as it was found; a payload that is not what its crc says is damaged."""

    number: int
    position: int  # in the file
    entries: list[tuple[Entry, memoryview]]


def format_header(sequence: int, oldest: int, nonce: bytes) -> tuple[bytes, int]:
    """Return the first page of a file, and the seed of its rounds."""
    head = _HEADER.pack(MAGIC, VERSION, sequence, oldest, nonce, 0)[: -_CRC.size]
    seed = crc32c(head)
    return (head + _CRC.pack(seed)).ljust(PAGE_BYTES, b"\0"), seed


def parse_header(data: bytes | memoryview) -> FileHeader | None:
    """Return what the first page says, or None where it is none."""
    if len(data) < _HEADER.size:
        return None
    magic, version, sequence, oldest, _, seed = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        return None
    if crc32c(data[: _HEADER.size - _CRC.size]) != seed:
        return None
    return FileHeader(sequence, oldest, seed)


def round_bytes(count: int, payload_bytes: int) -> int:
    """Return what a round takes in a file, up to the beginning of a page."""
    size = _ROUND.size + count * _ENTRY.size + payload_bytes
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def format_round(seed: int, number: int, entries: Sequence[Entry]) -> bytes:
    """Return what goes before the payloads."""
    size = sum(entry.size for entry in entries)
    head = _ROUND.pack(0, number, len(entries), size)[_CRC.size :]
    body = b"".join((head, *(_ENTRY.pack(*entry) for entry in entries)))
    return _CRC.pack(crc32c(body, seed)) + body


def parse_rounds(data: memoryview, seed: int) -> Iterator[Round]:
    """Yield the rounds of one use of a file, up to the first whose head is none."""
    position = PAGE_BYTES
    while position + _ROUND.size <= len(data):
        crc, number, count, payload_bytes = _ROUND.unpack_from(data, position)
        start = position + _ROUND.size + count * _ENTRY.size
        if start + payload_bytes > len(data):
            return
        if crc32c(data[position + _CRC.size : start], seed) != crc:
            return
        entries = []
        for fields in _ENTRY.iter_unpack(data[position + _ROUND.size : start]):
            entry = Entry(*fields)
            entries.append((entry, data[start : start + entry.size]))
            start += entry.size
        yield Round(number, position, entries)
        position += round_bytes(count, payload_bytes)
