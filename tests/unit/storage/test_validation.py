"""Batches that a valid checksum does not make readable: none of them may be stored."""

from __future__ import annotations

import struct

import pytest

from isthmus.errors import BatchRefused
from isthmus.record.batch import BatchBuilder, RecordBatch
from isthmus.storage.topic_configs import TopicConfig
from isthmus.storage.validation import check_batch
from isthmus.wire.crc32c import crc32c

NOW_MS = 1_700_000_000_000
RECORDS_AT = 61
HEADERS = [("a", b"1"), ("b", None)]


def batch_bytes(compression: int = 0, records: int = 3) -> bytearray:
    builder = BatchBuilder()
    for number in range(records):
        builder.append(NOW_MS, b"k%d" % number, None if number == 1 else b"v", HEADERS)
    return bytearray(builder.seal(compression).data)


def sealed(data: bytearray) -> RecordBatch:
    """Return the batch with a length and checksum that fit what was done to it."""
    struct.pack_into(">i", data, 8, len(data) - 12)
    struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    return RecordBatch(data)


def check(batch: RecordBatch) -> None:
    check_batch(batch, TopicConfig({}), NOW_MS)


@pytest.mark.parametrize("compression", range(5))
@pytest.mark.parametrize("records", [1, 3, 500])
def test_what_a_producer_means_is_taken(compression: int, records: int) -> None:
    check(sealed(batch_bytes(compression, records)))


def test_a_codec_that_was_not_used_is_refused() -> None:
    for codec in (1, 2, 3, 4):
        data = batch_bytes()
        data[22] |= codec
        with pytest.raises(BatchRefused, match="cannot be read"):
            check(sealed(data))


def test_records_that_are_not_there_are_refused() -> None:
    data = batch_bytes()
    struct.pack_into(">i", data, 23, 3)  # the last offset delta
    struct.pack_into(">i", data, 57, 4)  # the count
    with pytest.raises(BatchRefused, match="cannot be read"):
        check(sealed(data))


def test_records_that_nobody_counted_are_refused() -> None:
    data = batch_bytes()
    struct.pack_into(">i", data, 23, 1)
    struct.pack_into(">i", data, 57, 2)
    with pytest.raises(BatchRefused, match="cannot be read"):
        check(sealed(data))


def test_every_byte_of_a_record_may_be_wrong_and_what_passes_can_be_read() -> None:
    size = len(batch_bytes())
    refused = 0
    for position in range(RECORDS_AT, size):
        for change in (0x01, 0x40, 0x80, 0xFF):
            data = batch_bytes()
            data[position] ^= change
            batch = sealed(data)
            try:
                check(batch)
            except BatchRefused:
                refused += 1
            else:
                assert len(batch.records()) == 3
    assert refused > 50


def test_bytes_behind_the_records_are_refused() -> None:
    with pytest.raises(BatchRefused, match="cannot be read"):
        check(sealed(batch_bytes() + b"\0"))
