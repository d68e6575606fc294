# C types of tally.py; the code is there.
cimport cython

cdef bytearray _FULL


@cython.final
cdef class Tally:
    cdef dict _pages
    cdef bytearray _page
    cdef long long _index

    @cython.locals(page=bytearray, at=Py_ssize_t, bit=int, byte=int)
    cpdef bint add(self, long long number) except -1

    cdef object _turn_to(self, long long index)
