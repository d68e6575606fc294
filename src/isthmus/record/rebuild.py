"""Record batches of which some records are left out: what compaction leaves of a batch.

A batch keeps its place when records go: base offset, last offset, producer, sequence numbers,
leader epoch, kind of timestamps, codec and the mark of a transaction stay, and so does every
byte of a record that is kept. Only the count, the largest timestamp and the checksum are new.
So a consumer sees the same offsets as before with gaps between them, and a replay of the batch
headers leads to the same producer state.

A batch may get a *delete horizon* (KIP-534): the moment from which on its tombstones may go.
Kafka keeps it in the header: bit 6 of the attributes says that the base timestamp is the
horizon, and the records' timestamps count from there. Readers that do not know of it read the
same timestamps. Not here: which records are kept (storage/local/cleaner.py).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.errors import CorruptBatch, Malformed
from isthmus.record.batch import HEADER_BYTES, MAGIC, RECORDS_BYTES_MAX
from isthmus.record.compression import NONE, compress, decompress
from isthmus.wire.buffer import ReadBuffer, WriteBuffer, varint_size
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isthmus.record.batch import RecordBatch

_HEADER = struct.Struct(">qiibIhiqqqhii")
_DELETE_HORIZON: Final = 0x40
_COMPRESSION_MASK: Final = 0x07
_CRC_POSITION: Final = 17
_ATTRIBUTES_POSITION: Final = 21
_LENGTH_FROM: Final = 12
_I32_VARINT_BYTES: Final = 5


class StoredRecord(NamedTuple):
    """One record as it lies in its batch."""

    offset: int
    timestamp: int
    key: bytes | None
    has_value: bool  # False: a tombstone
    data: memoryview  # all of it, its length in front
    tail: memoryview  # from the offset delta on


def delete_horizon(batch: RecordBatch) -> int | None:
    """Return the time in ms from which on the batch's tombstones may go; None: not set."""
    return batch.base_timestamp if batch.attributes & _DELETE_HORIZON else None


def stored_records(batch: RecordBatch) -> Iterator[StoredRecord]:
    """Yield the records of a batch, whose checksum is right, in order. Raises CorruptBatch."""
    buffer = ReadBuffer()
    body = batch.data[HEADER_BYTES:]
    if batch.compression != NONE:
        body = decompress(batch.compression, body, RECORDS_BYTES_MAX)
    buffer.attach(body)
    for _ in range(batch.count):
        try:
            record = _next_record(batch, buffer, body)
        except Malformed as error:
            raise CorruptBatch(f"a record is cut short: {error}") from None
        yield record
    if buffer.remaining:
        raise CorruptBatch(f"{buffer.remaining} bytes after the last record")


def _next_record(batch: RecordBatch, buffer: ReadBuffer, body: memoryview) -> StoredRecord:
    start = buffer.position
    size = buffer.varint(_I32_VARINT_BYTES)
    end = buffer.position + size
    buffer.skip(1)  # a record's own attributes: unused so far
    timestamp = batch.base_timestamp + buffer.varint()
    tail = buffer.position
    offset = batch.base_offset + buffer.varint(_I32_VARINT_BYTES)
    key = buffer.varint_bytes()
    has_value = buffer.varint(_I32_VARINT_BYTES) >= 0
    if buffer.position > end:
        raise CorruptBatch(f"a record of {size} bytes ends within its first fields")
    buffer.seek(end)
    if batch.log_append_time:
        timestamp = batch.max_timestamp
    return StoredRecord(offset, timestamp, key, has_value, body[start:end], body[tail:end])


def rebuilt(
    batch: RecordBatch, kept: Sequence[StoredRecord], horizon_ms: int | None = None
) -> bytes:
    """Return the batch with only the records `kept`, at least one, in their order.

    `horizon_ms` is a delete horizon for a batch that has none yet.
    """
    assert kept
    base_timestamp, attributes = batch.base_timestamp, batch.attributes
    if horizon_ms is None:
        records = b"".join(record.data for record in kept)
    else:
        base_timestamp, attributes = horizon_ms, attributes | _DELETE_HORIZON
        records = _with_base(kept, horizon_ms)
    newest = batch.max_timestamp
    if not batch.log_append_time:
        newest = max(record.timestamp for record in kept)
    body = compress(batch.compression, records)
    return _sealed(batch, attributes, base_timestamp, newest, len(kept), body)


def emptied(batch: RecordBatch) -> bytes:
    """Return the batch without records: what is left is the place and the producer's state."""
    attributes = batch.attributes & ~(_COMPRESSION_MASK | _DELETE_HORIZON)
    return _sealed(batch, attributes, batch.max_timestamp, batch.max_timestamp, 0, b"")


def _with_base(records: Sequence[StoredRecord], base_timestamp: int) -> bytes:
    """Return records whose timestamps count from `base_timestamp`."""
    buffer = WriteBuffer()
    for record in records:
        delta = record.timestamp - base_timestamp
        buffer.put_varint(1 + varint_size(delta) + len(record.tail))
        buffer.put_u8(0)
        buffer.put_varint(delta)
        buffer.put_bytes(record.tail)
    return buffer.take()


def _sealed(
    batch: RecordBatch,
    attributes: int,
    base_timestamp: int,
    max_timestamp: int,
    count: int,
    body: bytes,
) -> bytes:
    data = bytearray(
        _HEADER.pack(
            batch.base_offset,
            HEADER_BYTES - _LENGTH_FROM + len(body),
            batch.leader_epoch,
            MAGIC,
            0,
            attributes,
            batch.last_offset_delta,
            base_timestamp,
            max_timestamp,
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence,
            count,
        )
    )
    data += body
    crc = crc32c(data, 0, _ATTRIBUTES_POSITION)
    data[_CRC_POSITION:_ATTRIBUTES_POSITION] = crc.to_bytes(4, "big")
    return bytes(data)
