# C types of totals.py; the code is there.
cimport cython


@cython.final
cdef class Totals:
    cdef public long long published
    cdef public long long acknowledged
    cdef public long long refused
    cdef public long long expected
    cdef public long long delivered
    cdef public long long doubled
    cdef public long long corrupted
    cdef public long long foreign
    cdef public long long strange
