"""Record batches: what goes in comes out, damage is seen, garbage is refused, others agree.

The readers and writers of kafka-python and aiokafka are the independent judges of the format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from aiokafka.record.default_records import (
    DefaultRecordBatchBuilder as AiokafkaBuilder,
)
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords as AiokafkaRecords
from hypothesis import given
from hypothesis import strategies as st
from kafka import codec as kafka_python_codec
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

from isthmus.errors import CorruptBatch, Malformed
from isthmus.record.batch import BatchBuilder, RecordBatch, RecordReader, split_batches
from isthmus.record.compression import LEVELS, NAMES
from isthmus.wire.buffer import store_u32
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable

Row: TypeAlias = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

CODECS = st.sampled_from(range(5))
MAYBE_BYTES = st.none() | st.binary(max_size=90)
NAME = st.text(max_size=9)
HEADERS = st.lists(st.tuples(NAME, MAYBE_BYTES), max_size=3)
TIMESTAMPS = st.integers(-1, 2**45) | st.sampled_from([-1, 0, 2**61])
ROWS = st.lists(
    st.tuples(TIMESTAMPS, MAYBE_BYTES, MAYBE_BYTES, HEADERS), min_size=1, max_size=12
)

KAFKA_PYTHON_HAS = [
    True,
    kafka_python_codec.has_gzip(),
    kafka_python_codec.has_snappy(),
    kafka_python_codec.has_lz4(),
    kafka_python_codec.has_zstd(),
]


def sealed(rows: list[Row], codec: int, **fields: Any) -> RecordBatch:
    builder = BatchBuilder()
    for delta, row in enumerate(rows):
        assert builder.append(*row) == delta
    batch = builder.seal(codec, **fields)
    batch.verify()
    return batch


def without_unknown_times(rows: list[Row]) -> list[Row]:
    """Replace the timestamp -1, which aiokafka's builder takes for its own mark."""
    return [(max(0, timestamp), *others) for timestamp, *others in rows]


def as_rows(records: Iterable[Any]) -> list[Row]:
    return [
        (
            record.timestamp,
            None if record.key is None else bytes(record.key),
            None if record.value is None else bytes(record.value),
            [(name, content) for name, content in record.headers],
        )
        for record in records
    ]


@given(ROWS, CODECS, st.integers(0, 2**61), st.integers(-1, 2**31 - 1))
def test_what_goes_in_comes_out(
    rows: list[Row], codec: int, base_offset: int, leader_epoch: int
) -> None:
    batch = sealed(rows, codec)
    batch.stamp(base_offset, leader_epoch)
    again = RecordBatch(bytes(batch.data))
    again.verify()
    records = again.records()
    assert as_rows(records) == rows
    assert [record.offset for record in records] == list(
        range(base_offset, base_offset + len(rows))
    )
    assert (again.count, again.leader_epoch) == (len(rows), leader_epoch)
    assert again.next_offset == base_offset + len(rows)
    assert again.max_timestamp == max(row[0] for row in rows)


@given(ROWS, CODECS, TIMESTAMPS, st.integers(-1, 12))
def test_lookups_agree_with_a_plain_search(
    rows: list[Row], codec: int, timestamp_ms: int, offset: int
) -> None:
    batch = sealed(rows, codec)
    expected = next(
        ((at, row[0]) for at, row in enumerate(rows) if row[0] >= timestamp_ms), None
    )
    assert batch.offset_for_time(timestamp_ms) == expected
    found = batch.record_at(offset)
    assert as_rows([found] if found else []) == (
        rows[offset : offset + 1] if offset >= 0 else []
    )


@given(st.lists(st.tuples(ROWS, CODECS), max_size=4))
def test_batches_stand_one_after_the_other(batches: list[tuple[list[Row], int]]) -> None:
    data = bytearray().join([sealed(rows, codec).data for rows, codec in batches])
    assert [as_rows(batch.records()) for batch in split_batches(data)] == [
        rows for rows, _ in batches
    ]


@given(ROWS, CODECS, st.data())
def test_every_flipped_bit_under_the_checksum_is_seen(
    rows: list[Row], codec: int, data: st.DataObject
) -> None:
    spoiled = bytearray(sealed(rows, codec).data)
    bit = data.draw(st.integers(17 * 8, len(spoiled) * 8 - 1))
    spoiled[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptBatch, match="checksum"):
        RecordBatch(spoiled).verify()


def read_everything(data: bytes | bytearray) -> None:
    """Use a batch in every way that reads it; only the errors of the peer may come out."""
    for use in (
        lambda: split_batches(data),
        lambda: RecordBatch(data).verify(),
        lambda: RecordBatch(data).records(),
        lambda: RecordBatch(data).record_at(3),
        lambda: RecordBatch(data).offset_for_time(0),
        lambda: RecordReader(RecordBatch(data)).next(),
    ):
        try:
            use()
        except (CorruptBatch, Malformed):
            continue


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_worse(data: bytes) -> None:
    read_everything(data)


@given(st.binary(max_size=12), st.binary(min_size=44, max_size=44), st.binary(max_size=120))
def test_garbage_in_the_frame_of_a_batch_is_refused(
    head: bytes, header: bytes, records: bytes
) -> None:
    size = 49 + len(records)
    head = head.ljust(12, b"\x00")
    data = head[:8] + size.to_bytes(4, "big") + head[8:] + b"\x02" + header + records
    read_everything(data)


@given(ROWS, CODECS, st.data())
def test_spoiled_batches_with_a_right_checksum_are_refused(
    rows: list[Row], codec: int, data: st.DataObject
) -> None:
    """What a hostile producer sends: everything fits, except the contents."""
    spoiled = bytearray(sealed(rows, codec).data)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(21, len(spoiled) - 1))
        spoiled[position] = data.draw(st.integers(0, 255))
    store_u32(spoiled, 17, crc32c(spoiled, 0, 21))
    read_everything(spoiled)


@given(ROWS, CODECS)
def test_kafka_python_reads_ours(rows: list[Row], codec: int) -> None:
    if not KAFKA_PYTHON_HAS[codec]:
        codec = 0
    batch = sealed(
        rows, codec, producer_id=5, producer_epoch=1, base_sequence=9, transactional=True
    )
    batch.stamp(40, 2)
    theirs = KafkaPythonRecords(bytes(batch.data)).next_batch()
    assert theirs.validate_crc()
    assert (theirs.base_offset, theirs.leader_epoch) == (40, 2)
    assert (theirs.producer_id, theirs.producer_epoch, theirs.base_sequence) == (5, 1, 9)
    assert theirs.last_sequence == batch.last_sequence
    assert theirs.is_transactional
    assert as_rows(theirs) == rows


@given(ROWS, CODECS, CODECS, st.integers(1, 9))
def test_another_codec_changes_nothing_else(
    rows: list[Row], codec: int, other: int, level: int
) -> None:
    batch = sealed(
        rows, codec, producer_id=5, producer_epoch=1, base_sequence=9, transactional=True
    )
    batch.stamp(40, 2)
    plain = sealed(
        rows, 0, producer_id=5, producer_epoch=1, base_sequence=9, transactional=True
    )
    plain.stamp(40, 2)
    batch.recompress(other, level if other in LEVELS else None)
    again = RecordBatch(bytes(batch.data))
    for one in (batch, again):
        one.verify()
        one.verify_records()
        assert (one.compression, one.size, one.crc) == (other, batch.size, again.crc)
        assert as_rows(one.records()) == rows
    theirs = AiokafkaRecords(bytes(batch.data)).next_batch()
    assert theirs.validate_crc()
    assert as_rows(theirs) == rows
    batch.recompress(0)
    assert bytes(batch.data) == bytes(plain.data)


@given(ROWS, CODECS)
def test_aiokafka_reads_ours(rows: list[Row], codec: int) -> None:
    batch = sealed(rows, codec, producer_id=5, producer_epoch=1, base_sequence=9)
    batch.stamp(40, 2)
    data = bytes(batch.data)
    for theirs in (AiokafkaRecords(data).next_batch(), _DefaultRecordBatchPy(data)):
        assert theirs.validate_crc()
        assert theirs.next_offset == batch.next_offset
        assert (theirs.producer_id, theirs.producer_epoch, theirs.base_sequence) == (5, 1, 9)
        assert as_rows(theirs) == rows


@given(ROWS.map(without_unknown_times), CODECS, st.booleans())
def test_we_read_theirs(rows: list[Row], codec: int, transactional: bool) -> None:
    builders = [AiokafkaBuilder, _DefaultRecordBatchBuilderPy]
    if KAFKA_PYTHON_HAS[codec]:
        builders.append(KafkaPythonBuilder)
    for kind in builders:
        builder = kind(2, codec, int(transactional), 5, 1, 9, 1 << 20)
        for offset, row in enumerate(rows):
            assert builder.append(offset, *row) is not None
        batch = RecordBatch(bytes(builder.build()))
        batch.verify()
        assert as_rows(batch.records()) == rows
        assert batch.is_transactional == transactional
        assert (batch.producer_id, batch.last_sequence) == (5, 9 + len(rows) - 1)


@pytest.mark.parametrize("codec", range(5), ids=NAMES)
def test_large_batches_cross_every_block_border(codec: int) -> None:
    rows: list[Row] = [(at, b"%d" % at, b"some payload %d" % at * 9, []) for at in range(4_000)]
    batch = sealed(rows, codec)
    assert as_rows(batch.records()) == rows
    assert as_rows(AiokafkaRecords(bytes(batch.data)).next_batch()) == rows
