# C types of incoming.py; the code is there.
cimport cython

from isthmus.mqtt.packets cimport Publish

@cython.final
cdef class Incoming:
    cdef dict _ids
    cdef long _unacknowledged
    cdef long _quota
    cdef dict _aliases
    cdef int _aliases_max
    cdef readonly dict places
    cdef public list released

    cpdef end(self)
    cpdef bint is_empty(self) noexcept
    cpdef begin(self, long quota, int aliases_max)
    cpdef resolve_alias(self, Publish publish)
    cpdef int take(self, int packet_id, int qos, long attachment) except -1
    cpdef void count_down(self) noexcept
    cpdef long asked_by(self, int packet_id) except -1
    cpdef bint is_taken(self, int packet_id) except -1
    cpdef answered(self, int packet_id)
    cpdef place(self, int packet_id, object partition, long long offset)
    cpdef release(self, int packet_id)
    cpdef bint forget(self, int packet_id) except -1
