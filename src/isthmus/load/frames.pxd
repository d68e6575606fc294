# C types of frames.py; the code is there.
cimport cython

from isthmus.wire.buffer cimport ReadBuffer


@cython.final
cdef class Frames:
    cdef readonly ReadBuffer buffer
    cdef readonly int first
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t end
    cdef Py_ssize_t _size_max

    cpdef object attach(self, object data, Py_ssize_t size)
    cpdef Py_ssize_t detach(self) except -1
    cpdef bytes packet(self)

    @cython.locals(
        buffer=ReadBuffer, start=Py_ssize_t, first=int, size=Py_ssize_t, shift=int, byte=int,
        end=Py_ssize_t
    )
    cpdef int next(self) except -1
