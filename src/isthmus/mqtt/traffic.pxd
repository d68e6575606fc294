# C types of traffic.py; the code is there.
cimport cython
from isthmus.mqtt.delivery cimport Dropped


@cython.final
cdef class Traffic:
    cdef public long long bytes_received
    cdef public long long bytes_sent
    cdef public long long connects
    cdef public long long packets_received
    cdef public long long packets_sent
    cdef readonly long long publishes_received
    cdef readonly long long publishes_received_1
    cdef readonly long long publishes_received_2
    cdef readonly long long publishes_sent
    cdef readonly long long publishes_sent_1
    cdef readonly long long publishes_sent_2
    cdef readonly long long publish_bytes_received
    cdef readonly long long publish_bytes_sent
    cdef readonly Dropped drops

    cpdef void publish_received(self, int qos, long long size)
    cpdef void publish_sent(self, int qos, long long size)
