cimport cython

from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer

cdef Py_ssize_t _END
cdef tuple _KINDS
cdef tuple _ALLOWED
cdef tuple _POSITIVE

@cython.locals(size=Py_ssize_t, end=Py_ssize_t, identifier=int, kind=int, properties=dict)
cpdef object read_properties(ReadBuffer body, int packet_type)

@cython.locals(start=Py_ssize_t, size=Py_ssize_t, value="unsigned int")
cpdef long long read_varint(ReadBuffer body) except -1

@cython.locals(raw=bytes)
cpdef str read_text(ReadBuffer body)

cpdef bytes read_binary(ReadBuffer body)

@cython.locals(plain=bint, byte="unsigned char")
cpdef int check_topic(bytes topic) except -1

@cython.locals(name=str)
cdef object _read_value(ReadBuffer body, int kind)

@cython.locals(pairs=list)
cdef int _add_pair(dict properties, object pair) except -1

cdef int _check_value(int identifier, int kind, object value) except -1

@cython.locals(out=WriteBuffer, identifier=int)
cpdef bytes encode_properties(dict properties)

@cython.locals(encoded=bytes)
cpdef int write_properties(WriteBuffer out, object properties) except -1

cpdef int write_text(WriteBuffer out, str text) except -1

cpdef int write_binary(WriteBuffer out, bytes data) except -1

@cython.locals(kind=int)
cdef int _write_property(WriteBuffer out, int identifier, object value) except -1
