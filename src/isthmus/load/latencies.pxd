# C types of latencies.py; the code is there.
cimport cython

cdef long long _ELAPSED_NS_MAX


@cython.final
cdef class Latencies:
    cdef long long[::1] _counts
    cdef public long long count
    cdef public long long max_ns
    cdef public long long since_ns

    @cython.locals(elapsed="long long", shift=int)
    cpdef object add(self, long long due_ns, long long now_ns)
