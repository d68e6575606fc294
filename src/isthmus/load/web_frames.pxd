# C types of web_frames.py; the code is there.
cimport cython

from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer

cdef int _CONTINUATION
cdef int _BINARY
cdef int _CLOSE
cdef int _PING
cdef int _PONG


@cython.final
cdef class WebFrames:
    cdef ReadBuffer _read
    cdef bytes _cut
    cdef long long _left
    cdef readonly WriteBuffer out
    cdef readonly list pings
    cdef readonly bint is_closed

    @cython.locals(read=ReadBuffer, start=Py_ssize_t)
    cpdef object feed(self, object data, Py_ssize_t size)

    @cython.locals(size="long long")
    cdef object _pass_on(self)

    @cython.locals(read=ReadBuffer, there=Py_ssize_t, opcode=int, size="long long")
    cdef bint _next(self) except -1
