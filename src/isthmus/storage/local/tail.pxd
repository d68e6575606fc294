# C types of storage/local/tail.py; the code is there.

cimport cython

cdef long long _BATCH_COST_BYTES


@cython.final
cdef class TailBudget:
    cdef readonly long long tail_bytes_max
    cdef readonly long long total_bytes_max
    cdef public long long total_bytes
    cdef dict _tails

    cpdef object use(self, Tail tail, long long grown_bytes)
    cpdef object forget(self, Tail tail, long long freed_bytes)


@cython.final
cdef class Tail:
    cdef readonly long long start_offset
    cdef TailBudget _budget
    cdef list _views
    cdef list _next_offsets
    cdef list _ends
    cdef long long _base_bytes

    @cython.locals(before="long long", after="long long", end="long long")
    cpdef object extend(self, list views, list next_offsets)
    @cython.locals(
        first=Py_ssize_t, end=Py_ssize_t, before="long long", fitting=Py_ssize_t
    )
    cpdef list read(self, long long offset, long long bytes_max, long long limit)
    @cython.locals(cost="long long")
    cpdef object clear(self)
    @cython.locals(count=Py_ssize_t)
    cpdef object cut(self, long long offset)
    cdef Py_ssize_t _cost(self, Py_ssize_t count) except -1
    @cython.locals(keep="long long", total="long long", count=Py_ssize_t)
    cdef object _trim(self)
    cdef object _drop(self, Py_ssize_t count)
