# C types of kafka/parts.py; the code is there.

cimport cython

from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer


@cython.final
cdef class Walker:
    cdef readonly ReadBuffer source
    cdef bint is_flexible
    cdef Py_ssize_t elements_left

    cpdef object rewind(self, Py_ssize_t position)
    cpdef Py_ssize_t length(self) except -2
    @cython.locals(source=ReadBuffer, stored="unsigned long long", left="unsigned long long")
    cpdef Py_ssize_t compact(self) except -2
    @cython.locals(count=Py_ssize_t, left=Py_ssize_t)
    cpdef Py_ssize_t count(self, Py_ssize_t bytes_min) except -1
    @cython.locals(size=Py_ssize_t, data=bytes)
    cpdef object text(self)
    cpdef str name(self)
    @cython.locals(number=Py_ssize_t)
    cpdef object skip_tags(self)
    @cython.locals(count="unsigned long long", left="unsigned long long")
    cpdef Py_ssize_t tags(self) except -1
    cpdef unsigned long long tag(self) except? 0
    @cython.locals(size="unsigned long long", left="unsigned long long")
    cpdef Py_ssize_t size(self) except -1


@cython.final
cdef class Writer:
    cdef readonly WriteBuffer out
    cdef bint is_flexible

    cpdef object count(self, Py_ssize_t count)
    @cython.locals(data=bytes, length=Py_ssize_t)
    cpdef object text(self, str text)
    cpdef object tags(self, Py_ssize_t count)
