"""Which partition a key belongs to: the default partitioner of the Kafka clients.

A Kafka producer and an MQTT publisher that use the same key must meet in the same partition, or
order per key would end at the border between the protocols [DESIGN 2]. So this is bit for bit
the murmur2 of the Java client. Plain Python: whoever asks keeps the answer per topic name.
"""

from __future__ import annotations

from typing import Final

_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_U32: Final = 0xFFFF_FFFF


def murmur2(key: bytes) -> int:
    """Return the 32-bit murmur2 hash of `key`, unsigned, with the seed of the Kafka clients."""
    value = _SEED ^ len(key)
    whole = len(key) & ~3
    for position in range(0, whole, 4):
        word = int.from_bytes(key[position : position + 4], "little") * _FACTOR & _U32
        word = (word ^ word >> 24) * _FACTOR & _U32
        value = value * _FACTOR & _U32 ^ word
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * _FACTOR & _U32
    value = (value ^ value >> 13) * _FACTOR & _U32
    return value ^ value >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of `key` among `partitions`."""
    return (murmur2(key) & 0x7FFF_FFFF) % partitions
