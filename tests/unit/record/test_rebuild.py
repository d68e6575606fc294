"""Batches of which records are left out: what stays as it was, what is new, who can read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords

from isthmus.errors import CorruptBatch
from isthmus.record.batch import BatchBuilder, RecordBatch
from isthmus.record.rebuild import delete_horizon, emptied, rebuilt, stored_records

MAYBE_BYTES = st.none() | st.binary(max_size=40)
HEADERS = st.lists(st.tuples(st.text(max_size=5), MAYBE_BYTES), max_size=2)
ROWS = st.lists(
    st.tuples(st.integers(0, 2**45), MAYBE_BYTES, MAYBE_BYTES, HEADERS, st.booleans()),
    min_size=1,
    max_size=9,
)
CODECS = st.sampled_from(range(5))
KEPT_FIELDS = (
    "base_offset",
    "last_offset",
    "leader_epoch",
    "producer_id",
    "producer_epoch",
    "base_sequence",
    "last_sequence",
    "is_transactional",
    "is_control",
    "log_append_time",
)


def sealed(rows, codec=0, *, log_append_time=None, **fields):
    builder = BatchBuilder()
    for row in rows:
        builder.append(*row[:4])
    batch = builder.seal(codec, **fields)
    batch.stamp(1000, 7)
    if log_append_time is not None:
        batch.set_log_append_time(log_append_time)
    return batch


def fields_of(batch):
    return {name: getattr(batch, name) for name in KEPT_FIELDS}


def essence(batch):
    return [
        (each.offset, each.timestamp, each.key, each.value, list(each.headers))
        for each in batch.records()
    ]


@given(ROWS, CODECS, st.none() | st.integers(0, 2**45), st.none() | st.integers(0, 2**45))
def test_the_records_kept_are_as_they_were(rows, codec, horizon_ms, log_append_time):
    numbered = {"producer_id": 5, "producer_epoch": 2, "base_sequence": 2**31 - 2}
    batch = sealed(rows, codec, transactional=True, log_append_time=log_append_time, **numbered)
    chosen = [row[4] for row in rows]
    kept = [record for record, is_kept in zip(stored_records(batch), chosen, strict=True)]
    kept = [record for record, is_kept in zip(kept, chosen, strict=True) if is_kept]
    if not kept:
        return
    left = RecordBatch(rebuilt(batch, kept, horizon_ms))
    left.verify()
    assert fields_of(left) == fields_of(batch)
    assert left.compression == codec
    expected = [row for row, is_kept in zip(essence(batch), chosen, strict=True) if is_kept]
    assert essence(left) == expected
    assert left.count == len(expected)
    newest = max(row[1] for row in expected)
    assert left.max_timestamp == (newest if log_append_time is None else log_append_time)
    assert delete_horizon(left) == horizon_ms
    again = RecordBatch(rebuilt(left, list(stored_records(left))))
    assert (essence(again), delete_horizon(again)) == (expected, horizon_ms)


@given(ROWS, st.sampled_from([0, 1]), st.none() | st.integers(0, 2**45))
def test_another_reader_agrees(rows, codec, horizon_ms):
    kept = [each for each in stored_records(sealed(rows, codec)) if each.offset % 2 == 0]
    left = rebuilt(sealed(rows, codec), kept, horizon_ms)
    read = [
        (each.offset, each.timestamp, each.key, each.value, each.headers)
        for batch in iter(MemoryRecords(left).next_batch, None)
        for each in batch
    ]
    assert read == essence(RecordBatch(left))


@given(ROWS, CODECS)
def test_a_batch_without_records_keeps_its_place_and_its_producer(rows, codec):
    batch = sealed(rows, codec, producer_id=5, producer_epoch=2, base_sequence=9)
    left = RecordBatch(emptied(batch))
    left.verify()
    assert fields_of(left) == fields_of(batch)
    assert (left.size, left.count, left.records(), left.compression) == (61, 0, [], 0)
    assert delete_horizon(left) is None
    assert emptied(left) == bytes(left.data)


def test_the_mark_of_mqtt_batches_stays():
    batch = sealed([(1, b"k", b"v", ())], base_sequence=-2)
    kept = list(stored_records(batch))
    assert RecordBatch(rebuilt(batch, kept)).base_sequence == -2


@pytest.mark.parametrize("position", [60, 61])  # count of records, length of the first
def test_records_that_cannot_be_read_are_said_to_be_so(position):
    batch = sealed([(1, b"key", b"value", ())])
    data = bytearray(batch.data)
    data[position] ^= 0x7F
    with pytest.raises(CorruptBatch):
        list(stored_records(RecordBatch(bytes(data))))
