# C types of outgoing.py; the code is there.
cimport cython

from isthmus.mqtt.codec cimport encode_ack, encode_publish
from isthmus.mqtt.packets cimport Publish
from isthmus.mqtt.traffic cimport Traffic
from isthmus.wire.buffer cimport WriteBuffer, uvarint_size


@cython.final
cdef class Outgoing:
    cdef readonly WriteBuffer output
    cdef int _version
    cdef Py_ssize_t _packet_size_max
    cdef bint _problem_info
    cdef object _aliases
    cdef Traffic _traffic

    cpdef ack(self, int kind, int packet_id, int reason)
    cpdef answer(self, object packet, str text)
    cdef bint _takes(self, Py_ssize_t size) noexcept
    @cython.locals(properties=bytes, topic=bytes, named=bytes, with_alias=bytes, alias=int,
                   traffic=Traffic)
    cpdef bint publish(self, Publish publish, int qos, bint retain, bint dup, int packet_id,
                       bytes identifiers) except -1
    @cython.locals(size=Py_ssize_t, body=Py_ssize_t)
    cdef bint _fits(self, bytes topic, bytes payload, int qos, bytes properties) except -1
