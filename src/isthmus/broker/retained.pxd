# C types of broker/retained.py; the code is there.
cimport cython


@cython.final
cdef class Entry:
    cdef readonly int qos
    cdef readonly long long size
    cdef readonly long long expires_ms
    cdef public long long offset
