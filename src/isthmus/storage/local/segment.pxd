# C types of storage/local/segment.py; the code is there.

cimport cython

from isthmus.record.batch cimport RecordBatch
from isthmus.storage.local.open_segments cimport OpenSegments


@cython.final
cdef class Segment:
    cdef readonly long long base_offset
    cdef public long long next_offset
    cdef readonly object path
    cdef readonly str suffix
    cdef readonly long long gap_end
    cdef public long long size
    cdef public long long synced_size
    cdef public long long max_timestamp
    cdef public long long max_timestamp_offset
    cdef public object first_timestamp
    cdef public bint newest_known
    cdef public bint has_aborts
    cdef public dict changed
    cdef readonly dict unsynced_indexes
    cdef readonly object verified
    cdef public int pins
    cdef public long long written_ms
    cdef object _files
    cdef OpenSegments _open
    cdef long long _index_interval
    cdef public int _descriptor
    cdef bint _closing
    cdef long long _since_entry
    cdef readonly object _offset_index
    cdef readonly object _time_index
    cdef object _aborted

    cpdef int descriptor(self) except -1
    cpdef object unpin(self)
    @cython.locals(descriptor=int, position="long long", batch=RecordBatch)
    cpdef object append(self, object batches, object views)
    cdef object _note_time(self, RecordBatch batch)
    cdef object _add_entries(
        self, object offset_index, long long last_offset, long long position
    )
    cpdef tuple _indexes(self)
    @cython.locals(twin=Segment)
    cpdef Segment twin(self)
    cpdef object adopt(self, Segment twin)
    cdef object _take_newest(self, Segment other)
    cpdef object release(self, Segment twin)
    cpdef object let_go(self)
