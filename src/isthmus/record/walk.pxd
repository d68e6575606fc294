# C types of record/walk.py; the code is there.

cimport cython

from isthmus.wire.buffer cimport ReadBuffer
from isthmus.wire.crc32c cimport crc32c

cdef int _HEADER_BYTES
cdef int _MAGIC
cdef int _LENGTH_FROM
cdef int _MAGIC_POSITION
cdef int _ATTRIBUTES_POSITION
cdef int _COUNT_POSITION
cdef int _COMPRESSION_MASK
cdef int _CODEC_MAX
cdef long long _SANE_MAX


@cython.final
cdef class Span:
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t end
    cdef readonly long long next_offset
    cdef readonly Py_ssize_t wanted


@cython.final
cdef class _Header:
    cdef long long base_offset
    cdef long long count
    cdef long long next_offset
    cdef long long size
    cdef unsigned int crc

    @cython.locals(magic=int, codec=int, last_delta="long long")
    cdef bint read(self, ReadBuffer buffer, Py_ssize_t position) except -1
    @cython.locals(bytes_left=Py_ssize_t)
    cdef int is_borne_out(self, ReadBuffer buffer, Py_ssize_t position) except -2


@cython.locals(
    buffer=ReadBuffer,
    header=_Header,
    position=Py_ssize_t,
    start=Py_ssize_t,
    end=Py_ssize_t,
    wanted=Py_ssize_t,
    bytes_left=Py_ssize_t,
    is_gap=bint,
    verdict=int,
)
cpdef Span walk_batches(
    object data,
    long long next_offset,
    long long offset,
    long long limit,
    long long bytes_max,
    long long gap_end=*,
)

@cython.locals(
    buffer=ReadBuffer, header=_Header, next_offset="long long", position=Py_ssize_t
)
cpdef long long offset_after(object data) except -2

@cython.locals(buffer=ReadBuffer, header=_Header, position=Py_ssize_t)
cpdef bint holds_records(object data) except -1

@cython.locals(buffer=ReadBuffer, header=_Header, position=Py_ssize_t)
cpdef Py_ssize_t batch_position(object data, long long offset) except -2
