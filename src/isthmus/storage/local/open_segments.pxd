# C types of storage/local/open_segments.py; the code is there.

cimport cython


@cython.final
cdef class OpenSegments:
    cdef readonly Py_ssize_t limit
    cdef public bint crowded
    cdef readonly long long index_bytes_max
    cdef readonly dict _open
    cdef long long _index_bytes

    @cython.locals(index_bytes="long long")
    cpdef object use(self, object segment)
    cpdef object forget(self, object segment)
    cdef object _make_room(self, object segment)
