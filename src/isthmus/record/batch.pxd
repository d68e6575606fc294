# C types of record/batch.py; the code is there. Fields are read-only for Python and plain C
# fields for compiled callers, who should prefer them to the properties.

cimport cython

from isthmus.wire.buffer cimport (
    ReadBuffer,
    WriteBuffer,
    store_i16,
    store_i32,
    store_i64,
    store_u32,
    varint_bytes_size,
    varint_size,
)
from isthmus.wire.crc32c cimport crc32c
from isthmus.wire.records cimport skip_plain_records

cdef int _HEADER_BYTES
cdef int _COMPRESSION_MASK
cdef int _LOG_APPEND_TIME
cdef int _TRANSACTIONAL
cdef int _CONTROL
cdef int _LENGTH_POSITION
cdef int _EPOCH_POSITION
cdef int _CRC_POSITION
cdef int _ATTRIBUTES_POSITION
cdef int _LAST_DELTA_POSITION
cdef int _BASE_TIMESTAMP_POSITION
cdef int _MAX_TIMESTAMP_POSITION
cdef int _PRODUCER_ID_POSITION
cdef int _PRODUCER_EPOCH_POSITION
cdef int _BASE_SEQUENCE_POSITION
cdef int _COUNT_POSITION
cdef int _LENGTH_FROM
cdef int _MAGIC
cdef int _CODEC_MAX
cdef int _RECORD_BYTES_MIN
cdef int _HEADER_PAIR_BYTES_MIN
cdef int _I32_VARINT_BYTES
cdef long long _SANE_MAX
cdef bytes _BLANK_HEADER
cdef bytes _NO_HEADERS


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Record:
    cdef readonly long long offset
    cdef readonly long long timestamp
    cdef readonly object key
    cdef readonly object value
    cdef readonly object headers


@cython.final
cdef class RecordBatch:
    cdef readonly object data
    cdef readonly long long base_offset
    cdef readonly long long last_offset
    cdef readonly long long next_offset
    cdef readonly long long size
    cdef readonly int leader_epoch
    cdef readonly int magic
    cdef readonly unsigned int crc
    cdef readonly int attributes
    cdef readonly int last_offset_delta
    cdef readonly long long base_timestamp
    cdef readonly long long max_timestamp
    cdef readonly long long producer_id
    cdef readonly int producer_epoch
    cdef readonly int base_sequence
    cdef readonly int count

    cpdef object stamp(self, long long base_offset, int leader_epoch)
    cpdef object set_log_append_time(self, long long timestamp_ms)
    cpdef object recompress(self, int codec, object level=*)
    @cython.locals(crc="unsigned int")
    cpdef object verify(self)
    cpdef object verify_records(self)
    @cython.locals(reader=RecordReader, records=list)
    cpdef list records(self)
    @cython.locals(reader=RecordReader)
    cpdef object record_at(self, long long offset)
    @cython.locals(reader=RecordReader)
    cpdef object offset_for_time(self, long long timestamp_ms)


@cython.final
cdef class RecordReader:
    cdef RecordBatch _batch
    cdef ReadBuffer _buffer
    cdef Py_ssize_t _body
    cdef Py_ssize_t _end
    cdef int _left
    cdef int _delta
    cdef readonly long long offset
    cdef readonly long long timestamp

    cpdef object next(self)
    cpdef bint advance(self) except -1
    cpdef bint advance_to(self, long long offset) except -1
    cpdef Record record(self)
    @cython.locals(buffer=ReadBuffer, size="long long")
    cpdef tuple outline(self)
    @cython.locals(buffer=ReadBuffer, most=int, plain=int)
    cpdef object check_all(self)
    cpdef object check(self)

    @cython.locals(batch=RecordBatch, codec=int, bytes_left=Py_ssize_t)
    cdef int _open(self) except -1
    @cython.locals(
        batch=RecordBatch,
        buffer=ReadBuffer,
        size="long long",
        start=Py_ssize_t,
        timestamp_delta="long long",
        delta="long long",
    )
    cdef int _advance(self) except -1
    @cython.locals(buffer=ReadBuffer, count="long long", size="long long")
    cdef int _check(self) except -1
    @cython.locals(buffer=ReadBuffer, record=Record, count="long long")
    cdef Record _record(self)
    @cython.locals(buffer=ReadBuffer, bytes_left=Py_ssize_t, headers=list)
    cdef list _headers(self, long long count)


@cython.locals(size="long long")
cdef int _skip_bytes(ReadBuffer buffer) except -1


@cython.final
cdef class BatchBuilder:
    cdef WriteBuffer _buffer
    cdef long long _base_timestamp
    cdef long long _max_timestamp
    cdef readonly int count
    cdef readonly Py_ssize_t size

    @cython.locals(
        buffer=WriteBuffer,
        delta=int,
        base="long long",
        since="long long",
        size=Py_ssize_t,
        encoded=bytes,
    )
    cpdef int append(
        self, long long timestamp_ms, object key, object value, object headers=*
    ) except -1


@cython.locals(
    buffer=ReadBuffer,
    batches=list,
    position=Py_ssize_t,
    bytes_left=Py_ssize_t,
    size="long long",
)
cpdef list split_batches(object data)

@cython.locals(buffer=WriteBuffer)
cpdef bytes encode_headers(object headers)
