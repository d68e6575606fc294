"""Steps over records of a batch that say nothing of note.

This is the readable twin of `records.pyx`, which does the same where the bytes are; a property
test holds the two equal. A record is a size and as many bytes; record/batch.py has the format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import Malformed
from isthmus.wire.buffer import I32_VARINT_BYTES_MAX

if TYPE_CHECKING:
    from isthmus.wire.buffer import ReadBuffer


def skip_plain_records(buffer: ReadBuffer, count: int, first: int) -> int:
    """Step over up to `count` plain records; return how many.

    Plain is a record without headers, whose offset delta is `first`, and one more for each that
    follows. The cursor stays before the first that is not, or is cut short.
    """
    for done in range(count):
        start = buffer.position
        if not _skip_plain_record(buffer, first + done):
            buffer.seek(start)
            return done
    return max(count, 0)


def _skip_plain_record(buffer: ReadBuffer, delta: int) -> bool:
    try:
        size = buffer.varint(I32_VARINT_BYTES_MAX)
        end = buffer.position + size
        if size <= 0 or end > buffer.end:
            return False
        buffer.skip(1)  # its attributes
        buffer.varint(I32_VARINT_BYTES_MAX)  # timestamp delta
        if buffer.varint(I32_VARINT_BYTES_MAX) != delta:
            return False
        for _ in ("key", "value"):
            buffer.skip(max(buffer.varint(I32_VARINT_BYTES_MAX), 0))
        return buffer.position == end - 1 and buffer.u8() == 0
    except Malformed:
        return False
