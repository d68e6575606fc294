# C types of kafka/codec; the module itself is ordinary Python.

cimport cython

from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer

cdef int _BOOL
cdef int _INT8
cdef int _INT16
cdef int _UINT16
cdef int _INT32
cdef int _UINT32
cdef int _INT64
cdef int _FLOAT64
cdef int _UUID
cdef int _STRING
cdef int _BYTES
cdef int _RECORDS
cdef int _STRUCT
cdef int _ARRAY
cdef object _ABSENT
cdef dict _PLANS


@cython.final
cdef class FieldPlan:
    cdef readonly Py_ssize_t bytes_min
    cdef readonly object default
    cdef FieldPlan element
    cdef bint is_compact
    cdef bint is_ignorable
    cdef bint is_nullable
    cdef readonly int kind
    cdef readonly str name
    cdef StructPlan struct
    cdef readonly long tag

    cdef object fresh_default(self)
    cdef bint is_default(self, object value) except -1


@cython.final
cdef class StructPlan:
    cdef list absent
    cdef dict blank
    cdef dict by_tag
    cdef Py_ssize_t bytes_min
    cdef list changeable
    cdef list fields
    cdef bint is_flexible
    cdef str path
    cdef list tagged

    @cython.locals(body=dict, field=FieldPlan)
    cdef dict defaults(self)
    @cython.locals(field=FieldPlan)
    cdef bint is_default(self, dict body) except -1
    @cython.locals(field=FieldPlan)
    cdef object check_others(self, dict body)


cdef StructPlan _plan(str message, int version)
cdef StructPlan _build(str message, int version)


@cython.final
cdef class _Decoder:
    cdef Py_ssize_t _elements_left
    cdef ReadBuffer _source

    @cython.locals(body=dict, field=FieldPlan)
    cdef dict struct(self, StructPlan plan)
    @cython.locals(kind=int, source=ReadBuffer)
    cdef object _value(self, FieldPlan field)
    @cython.locals(source=ReadBuffer)
    cdef object _small(self, int kind)
    @cython.locals(source=ReadBuffer, length=Py_ssize_t, data=bytes)
    cdef object _sized(self, FieldPlan field)
    @cython.locals(stored="unsigned long long", left="unsigned long long")
    cdef Py_ssize_t _compact_length(self) except -2
    cdef object _null(self, FieldPlan field)
    @cython.locals(element=FieldPlan, count=Py_ssize_t, left=Py_ssize_t)
    cdef list _array(self, FieldPlan field)
    @cython.locals(
        source=ReadBuffer,
        count="unsigned long long",
        left="unsigned long long",
        tag="unsigned long long",
        size="unsigned long long",
        field=FieldPlan,
        end=Py_ssize_t,
    )
    cdef object _tagged(self, StructPlan plan, dict body)


@cython.locals(body=dict)
cpdef dict decode(str message, int version, object data, Py_ssize_t position=*)
@cython.locals(plan=StructPlan, source=ReadBuffer, decoder=_Decoder)
cpdef tuple decode_head(str message, int version, object data, Py_ssize_t position=*)


@cython.final
cdef class _Encoder:
    cdef WriteBuffer _out
    cdef list _splices

    @cython.locals(seen=Py_ssize_t, field=FieldPlan)
    cdef object struct(self, StructPlan plan, dict body)
    @cython.locals(kind=int, out=WriteBuffer)
    cdef object _value(self, FieldPlan field, object value)
    @cython.locals(out=WriteBuffer)
    cdef object _small(self, int kind, object value)
    cdef object _struct_field(self, FieldPlan field, object value)
    cdef object _null(self, FieldPlan field)
    @cython.locals(data=bytes)
    cdef object _string(self, FieldPlan field, object value)
    cdef object _length(self, FieldPlan field, Py_ssize_t length)
    @cython.locals(parts=list)
    cdef object _bytes(self, FieldPlan field, object value)
    @cython.locals(element=FieldPlan)
    cdef object _array(self, FieldPlan field, object value)
    @cython.locals(seen=Py_ssize_t, told=list, field=FieldPlan)
    cdef Py_ssize_t _tagged(self, StructPlan plan, dict body) except -1
    @cython.locals(out=WriteBuffer, start=Py_ssize_t, size=Py_ssize_t, data=bytes)
    cdef object _prefixed(self, FieldPlan field, object value)


@cython.locals(start=Py_ssize_t, encoder=_Encoder)
cpdef object encode(
    str message, int version, dict body, WriteBuffer out, list splices=*
)
