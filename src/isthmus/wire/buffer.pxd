# C types of wire/buffer. Only `buffer.pyx` touches the pointers; other compiled modules call
# the cpdef methods (a C call, since the classes are final) and may read size, position and end.
# `remaining` is a Python property: where it is hot, write `end - position`.

cimport cython
from cpython.buffer cimport Py_buffer

cpdef int uvarint_size(unsigned long long value) noexcept
cpdef int varint_size(long long value) noexcept
cpdef Py_ssize_t varint_bytes_size(object data) except -1

cpdef object store_i16(object data, Py_ssize_t position, short value)
cpdef object store_i32(object data, Py_ssize_t position, int value)
cpdef object store_u32(object data, Py_ssize_t position, unsigned int value)
cpdef object store_i64(object data, Py_ssize_t position, long long value)


@cython.final
cdef class WriteBuffer:
    cdef unsigned char* _data
    cdef readonly Py_ssize_t size
    cdef Py_ssize_t _capacity  # where a put must stop and ask; `size` while a view is out
    cdef Py_ssize_t _allocated
    cdef Py_ssize_t _views

    cdef int reserve(self, Py_ssize_t more) except -1
    cdef int put_raw(self, const char* data, Py_ssize_t size) except -1
    cdef int _grow(self, Py_ssize_t more) except -1
    cdef int _empty(self) except -1
    cdef unsigned char* _next(self, Py_ssize_t size) except NULL
    cdef unsigned char* _at(self, Py_ssize_t position, Py_ssize_t size) except NULL
    cdef int _put_uvarint(self, unsigned long long value) except -1
    cdef int _put_buffer(self, object data, bint prefixed) except -1

    cpdef object put_u8(self, unsigned char value)
    cpdef object put_u16(self, unsigned short value)
    cpdef object put_u32(self, unsigned int value)
    cpdef object put_u64(self, unsigned long long value)
    cpdef object put_i8(self, signed char value)
    cpdef object put_i16(self, short value)
    cpdef object put_i32(self, int value)
    cpdef object put_i64(self, long long value)
    cpdef object put_f64(self, double value)
    cpdef object put_uvarint(self, unsigned long long value)
    cpdef object put_varint(self, long long value)
    cpdef object put_bytes(self, object data)
    cpdef object put_varint_bytes(self, object data)
    cpdef object patch_u8(self, Py_ssize_t position, unsigned char value)
    cpdef object patch_u16(self, Py_ssize_t position, unsigned short value)
    cpdef object patch_u32(self, Py_ssize_t position, unsigned int value)
    cpdef object patch_i16(self, Py_ssize_t position, short value)
    cpdef object patch_i32(self, Py_ssize_t position, int value)
    cpdef object patch_i64(self, Py_ssize_t position, long long value)
    cpdef object truncate(self, Py_ssize_t size)
    cpdef object clear(self)
    cpdef object take(self)
    cpdef object take_mutable(self)
    cpdef object view(self)


# The collector must not clear a Py_buffer behind our back: its export would never be released.
@cython.final
@cython.no_gc
@cython.freelist(32)
cdef class ReadBuffer:
    cdef const unsigned char* _data
    cdef readonly Py_ssize_t position
    cdef readonly Py_ssize_t end
    cdef Py_buffer _buffer
    cdef bint _attached
    cdef object _memory  # made when the first view is asked for

    cdef const unsigned char* _next(self, Py_ssize_t size) except NULL
    cdef int _uvarint(self, int bytes_max, unsigned long long* value) except -1

    cpdef object attach(self, object data, Py_ssize_t start=*, Py_ssize_t end=*)
    cpdef object detach(self)
    cpdef int u8(self) except -1
    cpdef int u16(self) except -1
    cpdef long long u32(self) except -1
    cpdef unsigned long long u64(self) except? 0
    cpdef int i8(self) except? -1
    cpdef int i16(self) except? -1
    cpdef int i32(self) except? -1
    cpdef long long i64(self) except? -1
    cpdef double f64(self) except? -1
    cpdef unsigned long long uvarint(self, int bytes_max=*) except? 0
    cpdef long long varint(self, int bytes_max=*) except? -1
    cpdef object bytes(self, Py_ssize_t size)
    cpdef object varint_bytes(self)
    cpdef object view(self, Py_ssize_t size)
    cpdef object skip(self, Py_ssize_t size)
    cpdef object seek(self, Py_ssize_t position)
    cpdef int peek(self) except -1
    cpdef bint compare(self, object data) except -1
