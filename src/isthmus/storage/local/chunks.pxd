# C types of storage/local/chunks.py; the code is there.

cimport cython


@cython.final
cdef class ChunkBudget:
    cdef readonly long long bytes_max
    cdef readonly long long held_bytes
    cdef dict _chunks

    cpdef object hold(self, Chunk chunk, long long cost_bytes)
    cpdef object release(self, Chunk chunk, long long cost_bytes)


@cython.final
cdef class Chunk:
    cdef readonly object segment
    cdef readonly long long position
    cdef readonly long long size
    cdef readonly long long end_offset
    cdef readonly list views
    cdef ChunkBudget _budget
    cdef long long _cost_bytes

    @cython.locals(cost_bytes="long long")
    cpdef object extend(self, list views, long long size, long long end_offset)
    cpdef object drop(self)
    cpdef object take(self)
