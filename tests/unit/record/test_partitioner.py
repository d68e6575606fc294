"""Keys land where the Java client's default partitioner puts them."""

from __future__ import annotations

import pytest
from kafka.partitioner.default import murmur2 as kafka_python_murmur2

from isthmus.record.partitioner import murmur2, partition_for


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        # the vectors of Apache Kafka's own UtilsTest, signed as Java writes them
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_vectors_of_apache_kafka(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFF_FFFF
    assert partition_for(key, 7) == (expected & 0x7FFF_FFFF) % 7


@pytest.mark.parametrize("size", range(13))
def test_every_length_of_tail(size: int) -> None:
    key = bytes(range(250, 250 - size, -1))
    assert murmur2(key) == kafka_python_murmur2(key) & 0xFFFF_FFFF
