"""The record batch, version 2: what producers send, the disk keeps and consumers get (KIP-98).

    position  field                 position  field
           0  base offset     i64         35  max timestamp      i64
           8  batch length    i32         43  producer id        i64
          12  leader epoch    i32         51  producer epoch     i16
          16  magic (2)       i8          53  base sequence      i32
          17  CRC-32C         u32         57  count of records   i32
          21  attributes      i16         61  records, compressed as the attributes say
          23  last delta      i32
          27  base timestamp  i64         the CRC covers everything from 21 on

`RecordBatch` is a view: it reads the header once and never copies. Offset and leader epoch lie
outside the CRC, so the log stamps them in place and every other byte stays as the producer sent
it, unless its log topic asks for times or a codec of its own. `RecordReader` walks the records
inside, `BatchBuilder` makes new batches. All three take part in the path of every message and
are compiled, see `batch.pxd`.

Whatever is in a batch may be hostile: lengths and counts are compared with the bytes that are
left before anything is built from them. Not here: whether a batch may be appended (storage/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from isthmus.errors import CorruptBatch, Malformed
from isthmus.record.compression import compress, decompress
from isthmus.wire.buffer import (
    ReadBuffer,
    WriteBuffer,
    store_i16,
    store_i32,
    store_i64,
    store_u32,
    varint_bytes_size,
    varint_size,
)
from isthmus.wire.crc32c import crc32c
from isthmus.wire.records import skip_plain_records

if TYPE_CHECKING:
    from collections.abc import Sequence

Data: TypeAlias = "bytes | bytearray | memoryview"
Headers: TypeAlias = "Sequence[tuple[str, bytes | None]]"

HEADER_BYTES: Final = 61
MAGIC: Final = 2  # the version of the format
RECORDS_BYTES_MAX: Final = 64 * 1024 * 1024  # what one batch may become when decompressed
SEQUENCE_MAX: Final = 2**31 - 1

_COMPRESSION_MASK: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20

_HEADER_BYTES: Final = HEADER_BYTES  # the same as a C constant, like all below
_LENGTH_POSITION: Final = 8
_EPOCH_POSITION: Final = 12
_CRC_POSITION: Final = 17
_ATTRIBUTES_POSITION: Final = 21
_LAST_DELTA_POSITION: Final = 23
_BASE_TIMESTAMP_POSITION: Final = 27
_MAX_TIMESTAMP_POSITION: Final = 35
_PRODUCER_ID_POSITION: Final = 43
_PRODUCER_EPOCH_POSITION: Final = 51
_BASE_SEQUENCE_POSITION: Final = 53
_COUNT_POSITION: Final = 57
_LENGTH_FROM: Final = 12  # the batch length counts from here

_MAGIC: Final = MAGIC
_CODEC_MAX: Final = 4
_RECORD_BYTES_MIN: Final = 7
_HEADER_PAIR_BYTES_MIN: Final = 2
_I32_VARINT_BYTES: Final = 5
_SANE_MAX: Final = 2**62  # sums of two numbers below this cannot leave 64 bits
_BLANK_HEADER: Final = bytes(12) + b"\xff\xff\xff\xff\x02" + bytes(44)  # no epoch, version 2

_NO_HEADERS: Final = b"\x00"


class Record:
    """One record, taken out of its batch."""

    __slots__ = ("headers", "key", "offset", "timestamp", "value")

    def __init__(
        self,
        offset: int,
        timestamp: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
    ) -> None:
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value
        self.headers = headers

    def __repr__(self) -> str:
        return (
            f"Record(offset={self.offset}, timestamp={self.timestamp}, key={self.key!r}, "
            f"value={self.value!r}, headers={self.headers!r})"
        )


class RecordBatch:
    """Exactly one batch, as a view of somebody's bytes."""

    __slots__ = (
        "attributes",
        "base_offset",
        "base_sequence",
        "base_timestamp",
        "count",
        "crc",
        "data",
        "last_offset",
        "last_offset_delta",
        "leader_epoch",
        "magic",
        "max_timestamp",
        "next_offset",
        "producer_epoch",
        "producer_id",
        "size",
    )

    def __init__(self, data: Data) -> None:
        """Read the header; nothing else is checked, see `verify`.

        Raises Malformed where not even a header is there, CorruptBatch where it is of another
        version or of another length than `data`.
        """
        buffer = ReadBuffer()
        buffer.attach(data)
        if buffer.end < _HEADER_BYTES:
            raise Malformed(f"a batch has a header of 61 bytes, here are {buffer.end}")
        self.data = data if type(data) is memoryview else memoryview(data)
        self.base_offset = buffer.i64()
        self.size = buffer.i32() + _LENGTH_FROM
        self.leader_epoch = buffer.i32()
        self.magic = buffer.i8()
        self.crc = buffer.u32()
        self.attributes = buffer.i16()
        self.last_offset_delta = buffer.i32()
        self.base_timestamp = buffer.i64()
        self.max_timestamp = buffer.i64()
        self.producer_id = buffer.i64()
        self.producer_epoch = buffer.i16()
        self.base_sequence = buffer.i32()
        self.count = buffer.i32()
        self.last_offset = self.base_offset + self.last_offset_delta
        self.next_offset = self.last_offset + 1
        if self.magic != _MAGIC:
            raise CorruptBatch(f"record batches of version {self.magic} are not spoken here")
        if self.size != buffer.end:
            raise CorruptBatch(f"a batch says it has {self.size} bytes and has {buffer.end}")

    @property
    def compression(self) -> int:
        """Number of the codec, see `record.compression`."""
        return self.attributes & _COMPRESSION_MASK

    @property
    def log_append_time(self) -> bool:
        """Whether all records carry the time of their arrival, `max_timestamp` (KIP-32)."""
        return self.attributes & _LOG_APPEND_TIME != 0

    @property
    def is_transactional(self) -> bool:
        """Whether the records belong to a transaction (KIP-98)."""
        return self.attributes & _TRANSACTIONAL != 0

    @property
    def is_control(self) -> bool:
        """Whether the record is a transaction's marker and not for consumers (KIP-98)."""
        return self.attributes & _CONTROL != 0

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record; wraps to 0, and is -1 where there is none."""
        if self.base_sequence < 0:
            return -1
        return (self.base_sequence + self.last_offset_delta) & SEQUENCE_MAX

    def stamp(self, base_offset: int, leader_epoch: int) -> None:
        """Write the batch's place in the log into its bytes; the CRC does not cover it."""
        store_i64(self.data, 0, base_offset)
        store_i32(self.data, _EPOCH_POSITION, leader_epoch)
        self.base_offset = base_offset
        self.leader_epoch = leader_epoch
        self.last_offset = base_offset + self.last_offset_delta
        self.next_offset = self.last_offset + 1

    def set_log_append_time(self, timestamp_ms: int) -> None:
        """Give all records one timestamp (KIP-32); this changes what the CRC covers."""
        self.attributes = self.attributes | _LOG_APPEND_TIME
        self.max_timestamp = timestamp_ms
        store_i16(self.data, _ATTRIBUTES_POSITION, self.attributes)
        store_i64(self.data, _MAX_TIMESTAMP_POSITION, timestamp_ms)
        self.crc = crc32c(self.data, 0, _ATTRIBUTES_POSITION)
        store_u32(self.data, _CRC_POSITION, self.crc)

    def recompress(self, codec: int, level: int | None = None) -> None:
        """Have the records compressed by another codec, in bytes of the batch's own.

        All else in the header stays but length, attributes and checksum. Raises CorruptBatch.
        """
        packed = self.data[_HEADER_BYTES:]
        records = decompress(self.compression, packed, RECORDS_BYTES_MAX)
        data = bytearray(self.data[:_HEADER_BYTES])
        data += compress(codec, records, level)
        self.attributes = (self.attributes & ~_COMPRESSION_MASK) | codec
        self.size = len(data)
        store_i32(data, _LENGTH_POSITION, self.size - _LENGTH_FROM)
        store_i16(data, _ATTRIBUTES_POSITION, self.attributes)
        self.crc = crc32c(data, 0, _ATTRIBUTES_POSITION)
        store_u32(data, _CRC_POSITION, self.crc)
        self.data = memoryview(data)

    def verify(self) -> None:
        """Check the checksum, and that the header does not contradict itself.

        Raises CorruptBatch. The records are not looked at. A count below the number of offsets
        is fine here: compaction leaves such batches behind.
        """
        crc = crc32c(self.data, 0, _ATTRIBUTES_POSITION)
        if crc != self.crc:
            raise CorruptBatch(f"checksum is {crc:#010x}, the batch says {self.crc:#010x}")
        if self.attributes & _COMPRESSION_MASK > _CODEC_MAX:
            raise CorruptBatch(f"compression codec {self.compression} does not exist")
        if self.last_offset_delta < 0:
            raise CorruptBatch(f"last offset delta is {self.last_offset_delta}")
        if self.count < 0 or self.count - 1 > self.last_offset_delta:
            raise CorruptBatch(f"{self.count} records in {self.last_offset_delta} + 1 offsets")

    def verify_records(self) -> None:
        """Walk all records, building none. Raises CorruptBatch.

        Behind a valid checksum may stand what no reader gets past, and all that follows in the
        partition would be out of reach with it.
        """
        RecordReader(self).check_all()

    def records(self) -> list[Record]:
        """Return all records. Raises CorruptBatch."""
        reader = RecordReader(self)
        records = []
        while reader.advance():
            records.append(reader.record())
        return records

    def record_at(self, offset: int) -> Record | None:
        """Return the record of this offset if the batch has one. Raises CorruptBatch."""
        if not self.base_offset <= offset <= self.last_offset:
            return None
        reader = RecordReader(self)
        if reader.advance_to(offset) and reader.offset == offset:
            return reader.record()
        return None

    def offset_for_time(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after `timestamp_ms`.

        Exact per record; decompresses when it must. Raises CorruptBatch.
        """
        if self.max_timestamp < timestamp_ms:
            return None
        reader = RecordReader(self)
        while reader.advance():
            if reader.timestamp >= timestamp_ms:
                return reader.offset, reader.timestamp
        return None


class RecordReader:
    """Walks the records of one batch in order, without building those that nobody wants.

    `advance` steps to the next record and knows its offset and timestamp; `record` builds it.
    All methods raise CorruptBatch, after which the reader is of no more use.
    """

    __slots__ = ("_batch", "_body", "_buffer", "_delta", "_end", "_left", "offset", "timestamp")

    def __init__(self, batch: RecordBatch) -> None:
        self._batch = batch
        self._buffer = ReadBuffer()
        self._open()
        self._left = self._batch.count
        self._end = self._buffer.position
        self._body = self._end
        self._delta = -1
        self.offset = -1
        self.timestamp = -1

    def next(self) -> Record | None:
        """Step to the next record and return it; None after the last."""
        if not self.advance():
            return None
        return self.record()

    def advance(self) -> bool:
        """Step to the next record, whose `offset` and `timestamp` are known then."""
        if self._left == 0:
            if self._end != self._buffer.end:
                raise CorruptBatch(
                    f"{self._buffer.end - self._end} bytes after the last record"
                )
            return False
        try:
            self._advance()
        except Malformed as error:
            raise CorruptBatch(f"a record is cut short: {error}") from None
        self._left -= 1
        return True

    def advance_to(self, offset: int) -> bool:
        """Step on to the first record whose offset is at least `offset`."""
        while self.advance():
            if self.offset >= offset:
                return True
        return False

    def record(self) -> Record:
        """Build the record that `advance` stepped to; may be called again."""
        assert self._body < self._end, "advance() comes first"
        try:
            return self._record()
        except Malformed as error:
            raise CorruptBatch(f"a record is cut short: {error}") from None

    def outline(self) -> tuple[bytes | None, int, bytes]:
        """Return the key, the size of the value and the headers of where `advance` stepped to.

        The size is -1 where the value is None; the headers are as `encode_headers` has written
        them, and not looked at.
        """
        buffer = self._buffer
        try:
            buffer.seek(self._body)
            key = buffer.varint_bytes()
            size = buffer.varint(_I32_VARINT_BYTES)
            buffer.skip(max(size, 0))
            return key, size, buffer.bytes(self._end - buffer.position)
        except Malformed as error:
            raise CorruptBatch(f"a record is cut short: {error}") from None

    def _open(self) -> None:
        batch = self._batch
        codec = batch.attributes & _COMPRESSION_MASK
        if codec == 0:
            self._buffer.attach(batch.data, _HEADER_BYTES)
        else:
            packed = batch.data[_HEADER_BYTES:]
            self._buffer.attach(decompress(codec, packed, RECORDS_BYTES_MAX))
        bytes_left = self._buffer.end - self._buffer.position
        if batch.count < 0 or batch.count > bytes_left // _RECORD_BYTES_MIN:
            raise CorruptBatch(f"{batch.count} records claimed in {bytes_left} bytes")
        if not -_SANE_MAX < batch.base_offset < _SANE_MAX:
            raise CorruptBatch(f"base offset is {batch.base_offset}")
        if not -_SANE_MAX < batch.base_timestamp < _SANE_MAX:
            raise CorruptBatch(f"base timestamp is {batch.base_timestamp}")

    def check_all(self) -> None:
        """Walk all records, without building one; the last must be as far as the batch says."""
        buffer = self._buffer
        buffer.seek(self._end)
        most = min(self._left, self._batch.last_offset_delta - self._delta)
        plain = skip_plain_records(buffer, most, self._delta + 1)
        self._end = buffer.position
        self._delta += plain
        self._left -= plain
        try:
            while self._left > 0:
                self._advance()
                self._left -= 1
                self._check()
        except Malformed as error:
            raise CorruptBatch(f"a record is cut short: {error}") from None
        self.advance()  # to the end, behind which nothing may follow
        claimed = self._batch.last_offset_delta
        if self._delta != claimed:
            raise CorruptBatch(f"the last offset delta is {self._delta}, not {claimed}")

    def check(self) -> None:
        """Walk the record that `advance` stepped to, without building it."""
        try:
            self._check()
        except Malformed as error:
            raise CorruptBatch(f"a record is cut short: {error}") from None

    def _check(self) -> None:
        buffer = self._buffer
        buffer.seek(self._body)
        _skip_bytes(buffer)
        _skip_bytes(buffer)
        count = buffer.varint(_I32_VARINT_BYTES)
        if count < 0 or count > (self._end - buffer.position) // _HEADER_PAIR_BYTES_MIN:
            raise CorruptBatch(f"{count} headers claimed")
        for _ in range(count):
            size = buffer.varint(_I32_VARINT_BYTES)
            if size < 0:
                raise CorruptBatch("a record header has no name")
            buffer.skip(size)
            _skip_bytes(buffer)
        if buffer.position != self._end:
            raise CorruptBatch(f"a record ends at {buffer.position} instead of {self._end}")

    def _advance(self) -> None:
        batch = self._batch
        buffer = self._buffer
        buffer.seek(self._end)
        size = buffer.varint(_I32_VARINT_BYTES)
        start = buffer.position
        buffer.skip(size)
        self._end = buffer.position
        buffer.seek(start)
        buffer.skip(1)  # a record's own attributes: unused so far
        timestamp_delta = buffer.varint()
        delta = buffer.varint(_I32_VARINT_BYTES)
        self._body = buffer.position
        if self._body >= self._end:
            raise CorruptBatch(f"a record of {size} bytes ends within its first fields")
        if delta <= self._delta or delta > batch.last_offset_delta:
            raise CorruptBatch(
                f"offset delta {delta} after {self._delta}, at most {batch.last_offset_delta}"
            )
        if not -_SANE_MAX < timestamp_delta < _SANE_MAX:
            raise CorruptBatch(f"timestamp delta is {timestamp_delta}")
        self._delta = delta
        self.offset = batch.base_offset + delta
        if batch.attributes & _LOG_APPEND_TIME:
            self.timestamp = batch.max_timestamp
        else:
            self.timestamp = batch.base_timestamp + timestamp_delta

    def _record(self) -> Record:
        buffer = self._buffer
        buffer.seek(self._body)
        key = buffer.varint_bytes()
        value = buffer.varint_bytes()
        count = buffer.varint(_I32_VARINT_BYTES)
        headers: Headers = () if count == 0 else self._headers(count)
        if buffer.position != self._end:
            raise CorruptBatch(f"a record ends at {buffer.position} instead of {self._end}")
        record = Record.__new__(Record)  # compiled, this is four times as fast as a call
        record.offset = self.offset
        record.timestamp = self.timestamp
        record.key = key
        record.value = value
        record.headers = headers
        return record

    def _headers(self, count: int) -> Headers:
        buffer = self._buffer
        bytes_left = self._end - buffer.position
        if count < 0 or count > bytes_left // _HEADER_PAIR_BYTES_MIN:
            raise CorruptBatch(f"{count} headers claimed in {bytes_left} bytes")
        headers = []
        for _ in range(count):
            name = buffer.varint_bytes()
            if name is None:
                raise CorruptBatch("a record header has no name")
            # Kafka's own clients decode so, and a name that is no UTF-8 must not stop the rest.
            headers.append((name.decode("utf-8", "replace"), buffer.varint_bytes()))
        return headers


def _skip_bytes(buffer: ReadBuffer) -> None:
    """Step over a length and as many bytes; a length below 0 stands for none."""
    size = buffer.varint(_I32_VARINT_BYTES)
    if size > 0:
        buffer.skip(size)


class BatchBuilder:
    """Gathers records and seals them into a batch, again and again in the same memory."""

    __slots__ = ("_base_timestamp", "_buffer", "_max_timestamp", "count", "size")

    def __init__(self) -> None:
        self._buffer = WriteBuffer()
        self._buffer.put_bytes(_BLANK_HEADER)
        self._base_timestamp = -1
        self._max_timestamp = -1
        self.count = 0
        self.size = _HEADER_BYTES

    def append(
        self,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | bytes = (),
    ) -> int:
        """Add one record and return its number within the batch, the offset delta.

        `headers` may come as `encode_headers` has written them, for those that recur.
        """
        delta = self.count
        base = timestamp_ms if delta == 0 else self._base_timestamp
        since = timestamp_ms - base
        size = 1 + varint_size(since) + varint_size(delta)
        size += varint_bytes_size(key) + varint_bytes_size(value)
        encoded = _NO_HEADERS
        if headers:
            encoded = headers if isinstance(headers, bytes) else encode_headers(headers)
        size += len(encoded)
        buffer = self._buffer
        buffer.put_varint(size)
        buffer.put_u8(0)
        buffer.put_varint(since)
        buffer.put_varint(delta)
        buffer.put_varint_bytes(key)
        buffer.put_varint_bytes(value)
        buffer.put_bytes(encoded)
        if delta == 0 or timestamp_ms > self._max_timestamp:
            self._max_timestamp = timestamp_ms
        self._base_timestamp = base
        self.count = delta + 1
        self.size = buffer.size
        return delta

    def seal(
        self,
        compression: int = 0,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        *,
        transactional: bool = False,
        control: bool = False,
    ) -> RecordBatch:
        """Return what was appended as one batch, in bytes of its own, and start anew.

        Base offset and leader epoch are 0 and -1 until the log stamps the batch.
        """
        assert self.count > 0, "a batch has at least one record"
        buffer = self._buffer
        attributes = compression
        if transactional:
            attributes |= _TRANSACTIONAL
        if control:
            attributes |= _CONTROL
        if compression != 0:
            with buffer.view() as whole, whole[_HEADER_BYTES:] as records:
                packed = compress(compression, records)
            buffer.truncate(_HEADER_BYTES)
            buffer.put_bytes(packed)
        buffer.patch_i32(_LENGTH_POSITION, buffer.size - _LENGTH_FROM)
        buffer.patch_i16(_ATTRIBUTES_POSITION, attributes)
        buffer.patch_i32(_LAST_DELTA_POSITION, self.count - 1)
        buffer.patch_i64(_BASE_TIMESTAMP_POSITION, self._base_timestamp)
        buffer.patch_i64(_MAX_TIMESTAMP_POSITION, self._max_timestamp)
        buffer.patch_i64(_PRODUCER_ID_POSITION, producer_id)
        buffer.patch_i16(_PRODUCER_EPOCH_POSITION, producer_epoch)
        buffer.patch_i32(_BASE_SEQUENCE_POSITION, base_sequence)
        buffer.patch_i32(_COUNT_POSITION, self.count)
        data = buffer.take_mutable()
        store_u32(data, _CRC_POSITION, crc32c(data, 0, _ATTRIBUTES_POSITION))
        buffer.put_bytes(_BLANK_HEADER)
        self.count = 0
        self.size = _HEADER_BYTES
        return RecordBatch(data)


def split_batches(data: Data) -> list[RecordBatch]:
    """Return the batches that lie in `data` one after the other, as views of it.

    Raises CorruptBatch where anything else is found, also after the last batch.
    """
    view = data if type(data) is memoryview else memoryview(data)
    buffer = ReadBuffer()
    buffer.attach(view)
    batches = []
    position = 0
    while position < buffer.end:
        bytes_left = buffer.end - position
        if bytes_left < _HEADER_BYTES:
            raise CorruptBatch(f"{bytes_left} bytes at {position} are no record batch")
        buffer.seek(position + _LENGTH_POSITION)
        size = buffer.i32() + _LENGTH_FROM
        if size < _HEADER_BYTES or size > bytes_left:
            raise CorruptBatch(f"a batch of {size} bytes at {position}, {bytes_left} left")
        batches.append(RecordBatch(view[position : position + size]))
        position += size
    return batches


def encode_headers(headers: Headers) -> bytes:
    """Return a record's headers as they stand at its end: their count, then name and value."""
    buffer = WriteBuffer()
    buffer.put_varint(len(headers))
    for name, content in headers:
        buffer.put_varint_bytes(name.encode())
        buffer.put_varint_bytes(content)
    return buffer.take()
