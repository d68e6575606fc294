# C types of storage/local/segments.py; the code is there.

cimport cython

from isthmus.storage.local.chunks cimport Chunk
from isthmus.storage.local.segment cimport Segment


@cython.final
cdef class SegmentList:
    cdef readonly object directory
    cdef readonly dict changed
    cdef readonly list dirty
    cdef readonly list chunks
    cdef readonly long long names_version
    cdef readonly long long names_synced
    cdef public long long sealed_bytes
    cdef public long long clean_offset
    cdef public long long gap_end
    cdef public bint is_swapping
    cdef object _budget
    cdef object _files
    cdef object _open
    cdef object _config
    cdef list _segments
    cdef list _bases
    cdef bint _is_closed
    cdef set _reported

    @cython.locals(
        segment=Segment, chunk=Chunk, position="long long", was_dirty=bint
    )
    cpdef object append(self, list batches, list views)
    @cython.locals(segment=Segment, chunk=Chunk)
    cpdef object note_synced(self, object synced, long long names_version)
    @cython.locals(chunk=Chunk)
    cpdef list take_chunks(self)
    @cython.locals(segment=Segment, filled="long long")
    cpdef bint is_full(
        self, long long pending, long long size, long long last_offset, long long timestamp
    ) except -1
