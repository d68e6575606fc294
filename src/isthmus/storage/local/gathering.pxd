# C types of storage/local/gathering.py; the code is there.

cimport cython


@cython.final
cdef class Gathering:
    cdef readonly bint is_on
    cdef long long _ceiling
    cdef bint _has_held
    cdef long long _score
    cdef long long _sure
    cdef double _until_s
    cdef long long _wanted

    @cython.locals(outstanding="long long")
    cpdef object ended(
        self, double now_s, double seconds, long long answered, long long waiting
    )
    cpdef bint holds(self, double now_s, long long waiting) except -1
    cdef object _give_up(self)
