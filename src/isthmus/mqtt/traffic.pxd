# C types of traffic.py; the code is there.
cimport cython


@cython.final
cdef class Traffic:
    cdef public long long bytes_received
    cdef public long long bytes_sent
    cdef public long long connects
    cdef public long long packets_received
    cdef public long long packets_sent
    cdef public long long publishes_received
    cdef public long long publishes_sent
    cdef public long long publish_bytes_received
    cdef public long long publish_bytes_sent
    cdef public long long dropped
