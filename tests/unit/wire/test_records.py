"""Which records are plain, byte by byte."""

from __future__ import annotations

import pytest

from isthmus.wire.buffer import ReadBuffer
from isthmus.wire.records import skip_plain_records

PLAIN = b"\x10\x00\x05\x02\x02k\x02v\x00"  # 8 bytes, delta 1, key k, value v, no headers


@pytest.mark.parametrize(
    ("second", "steps_over"),
    [
        (b"\x10\x00\x05\x04\x02k\x02v\x00", 2),
        (b"\x90\x00\x00\x85\x00\x04\x02k\x00\x00", 2),  # numbers longer than they need be
        (b"\x0e\x07\x05\x04\x01\x02v\x00", 2),  # attributes; no key
        (b"\x10\x00\x05\x06\x02k\x02v\x00", 1),  # another delta
        (b"\x10\x00\x05\x04\x02k\x02v\x02", 1),  # a header
        (b"\x12\x00\x05\x04\x02k\x02v\x00\x00", 1),  # a byte too many
        (b"\x10\x00\x05\x04\x02k\x06v\x00\x00\x00", 1),  # a value beyond the record
        (b"\x10\x00\x05\x04\x02k\x02v", 1),  # cut short
        (b"\x10\x00\xff\xff\xff\xff\xff\x00\x00", 1),  # a number that does not end
        (b"\x00", 1),
        (b"", 1),
    ],
)
def test_plain_records_are_stepped_over(second: bytes, steps_over: int) -> None:
    buffer = ReadBuffer()
    buffer.attach(PLAIN + second)
    assert skip_plain_records(buffer, 5, 1) == steps_over
    assert buffer.position == len(PLAIN) + (len(second) if steps_over == 2 else 0)
    buffer.seek(0)
    assert skip_plain_records(buffer, 1, 1) == 1
    assert buffer.position == len(PLAIN)
    buffer.seek(0)
    assert skip_plain_records(buffer, 5, 2) == 0
    assert buffer.position == 0
