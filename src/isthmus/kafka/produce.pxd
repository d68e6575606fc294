# C types of kafka/produce.py; the code is there.

cimport cython

from isthmus.kafka.parts cimport Walker, Writer
from isthmus.wire.buffer cimport WriteBuffer

cdef int _START_OFFSET_FIRST_VERSION
cdef int _RECORD_ERRORS_FIRST_VERSION
cdef int _FLEXIBLE_FIRST_VERSION
cdef int _LEADER_FIRST_VERSION
cdef int _IDS_FIRST_VERSION
cdef int _UUID_BYTES
cdef bytes _LEADER_TAG


@cython.final
cdef class ProduceRequest:
    cdef readonly object transactional_id
    cdef readonly int acks
    cdef readonly int timeout_ms
    cdef readonly str name
    cdef readonly bytes topic_id
    cdef readonly int index
    cdef Walker _walker
    cdef object _memory
    cdef Py_ssize_t _partitions_left
    cdef Py_ssize_t _records_bytes
    cdef Py_ssize_t _records_position
    cdef Py_ssize_t _topics_left
    cdef bint _uses_ids

    @cython.locals(walker=Walker)
    cpdef bint next_topic(self) except -1
    @cython.locals(walker=Walker)
    cpdef bint next_partition(self) except -1
    @cython.locals(start=Py_ssize_t)
    cpdef object records(self)
    cdef Py_ssize_t _topic_bytes_min(self)


cdef class ProducedPartition:
    cdef public int index
    cdef public int error_code
    cdef public object error_message
    cdef public object record_errors
    cdef public long long base_offset
    cdef public long long log_append_time_ms
    cdef public long long start_offset
    cdef public int leader_id
    cdef public int leader_epoch


@cython.locals(writer=Writer, row=ProducedPartition)
cpdef object put_produce_response(
    WriteBuffer out, int version, object topics, int throttle_ms=*
)

@cython.locals(out=WriteBuffer)
cdef object _put_row(Writer writer, int version, ProducedPartition row)
