# C types of kafka/fetch.py; the code is there.

cimport cython

from isthmus.kafka.parts cimport Walker, Writer
from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer

cdef int _START_FIRST_VERSION
cdef int _SESSION_FIRST_VERSION
cdef int _EPOCH_FIRST_VERSION
cdef int _RACK_FIRST_VERSION
cdef int _FLEXIBLE_FIRST_VERSION
cdef int _IDS_FIRST_VERSION
cdef int _REPLICA_STATE_FIRST_VERSION
cdef int _DIRECTORY_FIRST_VERSION
cdef int _HIGH_WATERMARK_FIRST_VERSION
cdef int _ENDPOINTS_FIRST_VERSION
cdef int _UUID_BYTES
cdef Py_ssize_t _SPLICE_BYTES_MIN
cdef bytes _DIVERGING_TAG
cdef bytes _LEADER_TAG


@cython.final
cdef class FetchRequest:
    cdef readonly int max_wait_ms
    cdef readonly int min_bytes
    cdef readonly int max_bytes
    cdef readonly int isolation_level
    cdef readonly int session_id
    cdef readonly int session_epoch
    cdef readonly str name
    cdef readonly bytes topic_id
    cdef readonly int index
    cdef readonly int leader_epoch
    cdef readonly long long offset
    cdef readonly int last_fetched_epoch
    cdef readonly int bytes_max
    cdef bint _forgets
    cdef Py_ssize_t _partitions_left
    cdef Py_ssize_t _topics_left
    cdef int _version
    cdef Walker _walker

    cpdef bint next_topic(self) except -1
    @cython.locals(walker=Walker, source=ReadBuffer, version=int)
    cpdef bint next_partition(self) except -1
    cpdef bint next_forgotten(self) except -1
    cdef object _begin(self)
    @cython.locals(walker=Walker)
    cdef object _read_topic(self, Py_ssize_t partition_bytes_min)
    cdef Py_ssize_t _topic_bytes_min(self)
    cdef Py_ssize_t _partition_bytes_min(self)
    @cython.locals(
        walker=Walker, version=int, tag="unsigned long long", size=Py_ssize_t
    )
    cdef object _skip_partition_tags(self)
    @cython.locals(
        walker=Walker,
        version=int,
        tag="unsigned long long",
        size=Py_ssize_t,
        end=Py_ssize_t,
    )
    cdef object _skip_own_tags(self)


cdef class FetchedPartition:
    cdef readonly int index
    cdef public object error
    cdef public long long high_watermark
    cdef public long long last_stable_offset
    cdef public long long start_offset
    cdef public object diverging
    cdef public int leader_id
    cdef public int leader_epoch
    cdef public object aborted
    cdef public object buffers

    cpdef object clear(self)


@cython.locals(writer=Writer, row=FetchedPartition)
cpdef object put_fetch_response(
    WriteBuffer out,
    int version,
    int session_id,
    object topics,
    object endpoints,
    list splices,
    int throttle_ms=*,
)

@cython.locals(out=WriteBuffer)
cdef object _put_row(Writer writer, int version, FetchedPartition row, list splices)

@cython.locals(size=Py_ssize_t)
cdef object _put_records(Writer writer, object buffers, list splices)

@cython.locals(out=WriteBuffer, has_leader=bint)
cdef object _put_row_tags(Writer writer, FetchedPartition row)

@cython.locals(content=WriteBuffer, inner=Writer)
cdef object _put_endpoints(Writer writer, object endpoints)
