# C types of websocket_frames.py; the code is there.
cimport cython

from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer

cdef int LENGTH_BYTES_MAX
cdef int _BINARY
cdef int _SIZE_IN_2
cdef int _SIZE_IN_8
cdef int _SIZE_IN_8_FROM

@cython.locals(read=ReadBuffer, frames=WriteBuffer, start=Py_ssize_t, size=Py_ssize_t)
cpdef bytes frames_of(object packets)
