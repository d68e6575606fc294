# C types of server/kafka_api/call.py; the code is there.

cimport cython


@cython.final
cdef class Call:
    cdef readonly object shore
    cdef readonly object connection
    cdef readonly int api_key
    cdef readonly int version
    cdef readonly int correlation_id
    cdef readonly object client_id
    cdef readonly Py_ssize_t size
    cdef readonly double began_s
    cdef public double worked_s
    cdef public object mutations
    cdef public object request
    cdef public object rights
    cdef object _amendments
    cdef readonly object response
    cdef readonly bint is_abandoned
    cdef public object on_abandon

    cpdef object answer_parts(self, list parts)
