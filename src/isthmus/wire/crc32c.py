"""CRC-32C, the checksum of Kafka's record batches and of our own files (RFC 3720, B.4).

This is the readable twin of `crc32c.pyx`, which answers the same with the processor's own
instruction where there is one; a property test holds the two equal. One byte at a time, by
table, so a thousand times slower: good for a look and for tests, not for service.
"""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli's, bits reversed


def _table() -> tuple[int, ...]:
    rows = []
    for row in range(256):
        for _ in range(8):
            row = row >> 1 ^ (_POLYNOMIAL if row & 1 else 0)
        rows.append(row)
    return tuple(rows)


_TABLE: Final = _table()

hardware = False  # whether `crc32c` uses the processor's instruction


def crc32c(
    data: bytes | bytearray | memoryview, value: int = 0, start: int = 0, end: int = -1
) -> int:
    """Return the checksum of `data[start:end]`, continued from the checksum `value`.

    `end` -1 stands for the end of `data`.
    """
    flat = memoryview(data).cast("B")
    if end != -1:
        if not 0 <= start <= end <= len(flat):
            raise IndexError(f"no bytes {start} to {end} in {len(flat)}")
        flat = flat[:end]
    return crc32c_by_table(flat, value, start)


def crc32c_by_table(
    data: bytes | bytearray | memoryview, value: int = 0, start: int = 0
) -> int:
    """Return the same without the processor's instruction; public so that tests may compare."""
    if not 0 <= value <= 0xFFFF_FFFF:
        raise OverflowError(f"{value} is no 32-bit checksum")
    flat = memoryview(data).cast("B")
    if not 0 <= start <= len(flat):
        raise IndexError(f"no byte {start} in {len(flat)}")
    table = _TABLE
    value ^= 0xFFFF_FFFF
    for byte in flat[start:]:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFF_FFFF
