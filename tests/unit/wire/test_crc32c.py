"""CRC-32C gives the published answers, whole, in parts and by either way."""

from __future__ import annotations

import pytest

from isthmus.wire.crc32c import crc32c, crc32c_by_table


@pytest.mark.parametrize("checksum", [crc32c, crc32c_by_table])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),  # the check value of the catalogues
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_published_answers(checksum, data: bytes, expected: int) -> None:
    assert checksum(data) == expected
    assert checksum(bytearray(b"xy") + data, 0, 2) == expected
    assert checksum(data[3:], checksum(data[:3])) == expected


def test_it_may_end_before_the_data() -> None:
    assert crc32c(b"xyabcxy", 0, 2, 5) == crc32c(b"abc")
    for start, end in ((0, 8), (3, 2), (0, -2)):
        with pytest.raises(IndexError):
            crc32c(b"xyabcxy", 0, start, end)


@pytest.mark.parametrize("start", [-1, 4])
def test_it_starts_within_the_data(start: int) -> None:
    with pytest.raises(IndexError):
        crc32c(b"abc", 0, start)
