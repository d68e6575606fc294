"""The record batch: the bytes of KIP-98, what a view may do to them, and what it refuses."""

from __future__ import annotations

import pytest

from isthmus.errors import CorruptBatch, Malformed
from isthmus.record import batch as batch_module
from isthmus.record.batch import (
    HEADER_BYTES,
    BatchBuilder,
    Record,
    RecordBatch,
    RecordReader,
    encode_headers,
    split_batches,
)
from isthmus.wire.buffer import WriteBuffer, store_i16, store_i32, store_i64, store_u32
from isthmus.wire.crc32c import crc32c

NOW_MS = 1_700_000_000_000


def batch_of(count: int, compression: int = 0) -> RecordBatch:
    builder = BatchBuilder()
    for number in range(count):
        builder.append(NOW_MS + number, b"key-%d" % number, b"value-%d" % number)
    return builder.seal(compression)


def with_records(records: bytes, count: int, attributes: int = 0) -> RecordBatch:
    """Return a batch with a right checksum around any bytes."""
    data = bytearray(batch_of(1).data[:HEADER_BYTES]) + records
    store_i32(data, 8, len(data) - 12)
    store_i16(data, 21, attributes)
    store_i32(data, 23, max(0, count - 1))
    store_i32(data, 57, count)
    store_u32(data, 17, crc32c(data, 0, 21))
    return RecordBatch(data)


def record_bytes(
    *, delta: int = 0, timestamp_delta: int = 0, rest: bytes = b"\x01\x01\x00"
) -> bytes:
    body = WriteBuffer()
    body.put_u8(0)
    body.put_varint(timestamp_delta)
    body.put_varint(delta)
    body.put_bytes(rest)
    framed = WriteBuffer()
    framed.put_varint_bytes(body.take())
    return framed.take()


def fields(record: Record) -> tuple[object, ...]:
    return record.offset, record.timestamp, record.key, record.value, list(record.headers)


def test_the_bytes_are_those_of_the_specification() -> None:
    builder = BatchBuilder()
    assert builder.append(NOW_MS, b"k", None) == 0
    assert builder.append(NOW_MS - 2, None, b"vv", [("h", b"1"), ("é", None)]) == 1
    assert (builder.count, builder.size) == (2, 61 + 8 + 17)
    batch = builder.seal(
        producer_id=7, producer_epoch=3, base_sequence=11, transactional=True, control=True
    )
    assert bytes(batch.data) == b"".join(
        (
            bytes(8),  # base offset
            (61 + 25 - 12).to_bytes(4, "big"),
            b"\xff\xff\xff\xff",  # leader epoch
            b"\x02",
            crc32c(batch.data[21:]).to_bytes(4, "big"),
            b"\x00\x30",  # transactional, control
            b"\x00\x00\x00\x01",  # last offset delta
            NOW_MS.to_bytes(8, "big"),
            NOW_MS.to_bytes(8, "big"),  # the largest, not the last
            b"\x00\x00\x00\x00\x00\x00\x00\x07",
            b"\x00\x03",
            b"\x00\x00\x00\x0b",
            b"\x00\x00\x00\x02",
            b"\x0e" b"\x00" b"\x00" b"\x00" b"\x02k" b"\x01" b"\x00",
            b"\x20" b"\x00" b"\x03" b"\x02" b"\x01" b"\x04vv",
            b"\x04" b"\x02h" b"\x021" b"\x04\xc3\xa9" b"\x01",
        )
    )  # fmt: skip


def test_the_header_is_read_once() -> None:
    builder = BatchBuilder()
    for number in range(3):
        builder.append(NOW_MS + number, None, b"")
    batch = builder.seal(4, producer_id=7, producer_epoch=3, base_sequence=2**31 - 2)
    assert (batch.base_offset, batch.last_offset, batch.next_offset) == (0, 2, 3)
    assert (batch.size, batch.leader_epoch, batch.magic) == (len(batch.data), -1, 2)
    assert (batch.last_offset_delta, batch.count, batch.compression) == (2, 3, 4)
    assert (batch.base_timestamp, batch.max_timestamp) == (NOW_MS, NOW_MS + 2)
    assert (batch.producer_id, batch.producer_epoch) == (7, 3)
    assert (batch.base_sequence, batch.last_sequence) == (2**31 - 2, 0)  # it wraps
    assert not (batch.is_transactional or batch.is_control or batch.log_append_time)


def test_a_batch_of_no_producer_has_no_sequence() -> None:
    batch = batch_of(2)
    assert (batch.producer_id, batch.producer_epoch) == (-1, -1)
    assert (batch.base_sequence, batch.last_sequence) == (-1, -1)


def test_a_builder_is_used_again() -> None:
    builder = BatchBuilder()
    builder.append(NOW_MS + 50, b"a", b"1")
    first = builder.seal()
    assert (builder.count, builder.size) == (0, HEADER_BYTES)
    builder.append(NOW_MS, b"b", b"2")
    second = builder.seal()
    assert [fields(record) for record in first.records()] == [(0, NOW_MS + 50, b"a", b"1", [])]
    assert [fields(record) for record in second.records()] == [(0, NOW_MS, b"b", b"2", [])]
    assert (second.base_timestamp, second.max_timestamp) == (NOW_MS, NOW_MS)


def test_a_refused_record_leaves_no_trace() -> None:
    builder = BatchBuilder()
    builder.append(NOW_MS, b"a", b"1")
    with pytest.raises(TypeError):
        builder.append(NOW_MS + 9, b"key", "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        builder.append(NOW_MS + 9, b"key", b"1", [("h", 5)])  # type: ignore[list-item]
    batch = builder.seal()
    batch.verify()
    assert (batch.count, batch.max_timestamp, len(batch.records())) == (1, NOW_MS, 1)


def test_stamping_writes_in_place_outside_of_the_checksum() -> None:
    batch = batch_of(3)
    before = bytes(batch.data)
    batch.stamp(1_000, 5)
    assert (batch.base_offset, batch.last_offset, batch.next_offset) == (1_000, 1_002, 1_003)
    assert batch.leader_epoch == 5
    assert batch.data[:8] == (1_000).to_bytes(8, "big")
    assert batch.data[12:16] == b"\x00\x00\x00\x05"
    assert (batch.data[8:12], batch.data[16:]) == (before[8:12], before[16:])
    batch.verify()
    assert RecordBatch(batch.data).base_offset == 1_000
    assert [record.offset for record in batch.records()] == [1_000, 1_001, 1_002]


def test_a_view_of_read_only_bytes_cannot_be_stamped() -> None:
    batch = RecordBatch(bytes(batch_of(1).data))
    with pytest.raises(BufferError):
        batch.stamp(1, 1)
    assert batch.base_offset == 0


def test_log_append_time_replaces_all_timestamps() -> None:
    batch = batch_of(3, compression=1)
    batch.set_log_append_time(NOW_MS + 500)
    batch.verify()
    again = RecordBatch(batch.data)
    assert again.log_append_time
    assert again.max_timestamp == NOW_MS + 500
    assert again.base_timestamp == NOW_MS
    assert again.compression == 1
    assert {record.timestamp for record in again.records()} == {NOW_MS + 500}
    assert again.offset_for_time(NOW_MS + 500) == (0, NOW_MS + 500)


@pytest.mark.parametrize("compression", range(5))
def test_single_records_are_found(compression: int) -> None:
    batch = batch_of(50, compression)
    batch.stamp(100, 0)
    found = batch.record_at(149)
    assert found is not None
    assert fields(found) == (149, NOW_MS + 49, b"key-49", b"value-49", [])
    assert batch.record_at(99) is None
    assert batch.record_at(150) is None
    assert batch.offset_for_time(NOW_MS - 1) == (100, NOW_MS)
    assert batch.offset_for_time(NOW_MS + 20) == (120, NOW_MS + 20)
    assert batch.offset_for_time(NOW_MS + 50) is None


def test_the_first_record_at_or_after_a_time_is_meant_not_the_nearest() -> None:
    builder = BatchBuilder()
    for timestamp_ms in (50, 90, 70, 90):
        builder.append(timestamp_ms, None, None)
    batch = builder.seal()
    assert batch.offset_for_time(60) == (1, 90)
    assert batch.offset_for_time(91) is None


def test_a_reader_walks_and_builds_only_what_is_wanted() -> None:
    batch = batch_of(4)
    batch.stamp(10, 0)
    reader = RecordReader(batch)
    assert reader.advance()
    assert (reader.offset, reader.timestamp) == (10, NOW_MS)
    assert reader.advance_to(12)
    assert reader.record().value == reader.record().value == b"value-2"
    last = reader.next()
    assert last is not None
    assert last.key == b"key-3"
    assert reader.next() is None
    assert not reader.advance_to(0)


def test_an_outline_says_what_a_record_is_without_building_it() -> None:
    builder = BatchBuilder()
    headers = [("a", b"1"), ("b", None)]
    builder.append(NOW_MS, b"key", b"value", headers)
    builder.append(NOW_MS, None, None)
    reader = RecordReader(builder.seal())
    assert reader.advance()
    assert reader.outline() == (b"key", 5, encode_headers(headers))
    assert reader.record().headers == headers
    assert reader.advance()
    assert reader.outline() == (None, -1, encode_headers(()))


@pytest.mark.parametrize("rest", [b"\x04kk\x14\x00", b"\x14kk\x00"])
def test_an_outline_of_a_record_that_is_cut_short(rest: bytes) -> None:
    reader = RecordReader(with_records(record_bytes(rest=rest), 1))
    assert reader.advance()
    with pytest.raises(CorruptBatch):
        reader.outline()


def test_compaction_may_leave_gaps() -> None:
    data = bytearray(with_records(record_bytes(delta=1) + record_bytes(delta=4), 2).data)
    store_i32(data, 23, 6)  # last offset delta
    store_u32(data, 17, crc32c(data, 0, 21))
    batch = RecordBatch(data)
    batch.verify()
    assert [record.offset for record in batch.records()] == [1, 4]
    assert batch.record_at(3) is None
    assert batch.record_at(4) is not None
    assert batch.next_offset == 7


def test_batches_are_split_as_views() -> None:
    data = bytearray().join([batch_of(1).data, batch_of(3).data, batch_of(2).data])
    batches = split_batches(data)
    assert [batch.count for batch in batches] == [1, 3, 2]
    batches[1].stamp(77, 0)
    assert split_batches(data)[1].base_offset == 77
    assert split_batches(b"") == []


@pytest.mark.parametrize("spoil", [b"x", bytes(61), bytes(11), b"\xff" * 80])
def test_only_whole_batches_are_split(spoil: bytes) -> None:
    with pytest.raises(CorruptBatch):
        split_batches(bytes(batch_of(2).data) + spoil)
    with pytest.raises(CorruptBatch):
        split_batches(batch_of(2).data[:-1])


@pytest.mark.parametrize("magic", [0, 1, 3])
def test_other_versions_are_refused(magic: int) -> None:
    data = bytearray(batch_of(1).data)
    data[16] = magic
    with pytest.raises(CorruptBatch, match=f"version {magic}"):
        RecordBatch(data)


def test_a_view_holds_exactly_one_batch() -> None:
    data = bytes(batch_of(1).data)
    for wrong in (data[:-1], data + b"x"):
        with pytest.raises(CorruptBatch, match="says it has"):
            RecordBatch(wrong)
    with pytest.raises(Malformed, match="here are 60"):
        RecordBatch(data[:60])


@pytest.mark.parametrize(
    ("position", "value", "complaint"),
    [
        (21, b"\x00\x05", "codec 5"),
        (23, b"\xff\xff\xff\xff", "last offset delta is -1"),
        (57, b"\xff\xff\xff\xff", "-1 records"),
        (57, b"\x00\x00\x00\x03", "3 records in 1 . 1 offsets"),
    ],
)
def test_a_header_that_contradicts_itself_is_corrupt(
    position: int, value: bytes, complaint: str
) -> None:
    data = bytearray(batch_of(2).data)
    data[position : position + len(value)] = value
    with pytest.raises(CorruptBatch, match="checksum"):
        RecordBatch(data).verify()
    store_u32(data, 17, crc32c(data, 0, 21))
    with pytest.raises(CorruptBatch, match=complaint):
        RecordBatch(data).verify()


@pytest.mark.parametrize(
    ("records", "count", "complaint"),
    [
        (b"", 1, "1 records claimed in 0 bytes"),
        (record_bytes() * 2, 2**31 - 1, "2147483647 records claimed"),
        (record_bytes() * 2, -1, "-1 records claimed"),
        (record_bytes(), 0, "7 bytes after the last record"),
        (record_bytes() + b"\x00" * 7, 1, "7 bytes after the last record"),
        (record_bytes() * 2, 2, "offset delta 0 after 0"),
        (record_bytes(delta=1), 1, "offset delta 1 after -1, at most 0"),
        (record_bytes(delta=-1), 1, "offset delta -1"),
        (record_bytes(timestamp_delta=2**63 - 1), 1, "timestamp delta"),
        (record_bytes(rest=b"") + bytes(4), 1, "ends within its first fields"),
        (record_bytes(rest=b"\x01\x01\x00\x00"), 1, "ends at 68 instead of 69"),
        (record_bytes(rest=b"\x40\x01\x00"), 1, "cut short: 32 bytes wanted"),
        (record_bytes(rest=b"\x01\x40\x00"), 1, "cut short: 32 bytes wanted"),
        (record_bytes(rest=b"\x01\x01\x40"), 1, "32 headers claimed"),
        (record_bytes(rest=b"\x01\x01\xfe\xff\xff\xff\x0f"), 1, "2147483647 headers claimed"),
        (record_bytes(rest=b"\x01\x01\x01"), 1, "-1 headers claimed"),
        (record_bytes(rest=b"\x01\x01\x02\x01\x01"), 1, "header has no name"),
        (b"\xff" * 9, 1, "cut short: varint at 61"),
        (b"\x01" * 9, 1, "cut short: -1 bytes wanted"),
        (b"\x80\x01" + bytes(9), 1, "cut short: 64 bytes wanted"),
    ],
)
def test_records_that_do_not_add_up(records: bytes, count: int, complaint: str) -> None:
    with pytest.raises(CorruptBatch, match=complaint):
        with_records(records, count).records()
    with pytest.raises(CorruptBatch, match=complaint):
        with_records(records, count).verify_records()


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("headers", [[], [0], [2], [0, 1, 2, 3, 4]])
def test_records_that_add_up_are_verified(compression: int, headers: list[int]) -> None:
    builder = BatchBuilder()
    for number in range(5):
        pairs = [("name", b"value")] if number in headers else []
        builder.append(NOW_MS, None, b"value", pairs)
    batch = builder.seal(compression)
    batch.verify_records()
    data = bytearray(batch.data)
    store_i32(data, 23, 5)  # last offset delta
    with pytest.raises(CorruptBatch, match="offset delta is 4, not 5"):
        RecordBatch(data).verify_records()


def test_a_header_name_that_is_no_text_stops_nobody() -> None:
    batch = with_records(record_bytes(rest=b"\x01\x01\x02\x04a\xff\x02b"), 1)
    assert list(batch.records()[0].headers) == [("a\ufffd", b"b")]


def test_numbers_beyond_reason_are_corrupt_not_wrapped() -> None:
    for position in (0, 27):  # base offset, base timestamp
        data = bytearray(batch_of(2).data)
        store_i64(data, position, 2**63 - 1)
        with pytest.raises(CorruptBatch, match=r"base \w+ is"):
            RecordBatch(data).records()


def test_a_decompression_bomb_is_corrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = BatchBuilder()
    builder.append(NOW_MS, None, bytes(100_000))
    batch = builder.seal(1)
    monkeypatch.setattr(batch_module, "RECORDS_BYTES_MAX", 100_000)
    with pytest.raises(CorruptBatch):
        batch.records()
    assert len(RecordBatch(batch.data).data) < 1_000


def test_a_record_shows_itself() -> None:
    record = Record(5, NOW_MS, b"k", None, [("h", b"1")])
    assert repr(record) == (
        f"Record(offset=5, timestamp={NOW_MS}, key=b'k', value=None, headers=[('h', b'1')])"
    )
