# C types of publishing.py; the code is there.
cimport cython

from isthmus.mqtt.packets cimport Publish
from isthmus.mqtt.session cimport Session
from isthmus.record.batch cimport BatchBuilder


@cython.final
cdef class OpenBatch:
    cdef readonly object partition
    cdef readonly BatchBuilder builder
    cdef public PublishTicket ticket


@cython.final
cdef class Destination:
    cdef readonly bytes topic_name
    cdef readonly bytes key
    cdef readonly bytes topic_header
    cdef readonly OpenBatch open
    cdef readonly list headers
    cdef readonly long long slots
    cdef public long long version
    cdef public list receivers
    cdef public tuple groups


@cython.final
@cython.no_gc  # nothing leads back to it; made and dropped with every QoS 1 message
@cython.freelist(256)
cdef class Acknowledgement:
    cdef readonly Session session
    cdef readonly long attachment
    cdef readonly int packet_id
    cdef readonly int qos
    cdef readonly int reason


@cython.locals(waiting=Acknowledgement)
cpdef Acknowledgement new_acknowledgement(Session session, Publish publish, int reason)


@cython.final
cdef class RetainedAcknowledgement:
    cdef object _broker
    cdef object _waiting
    cdef object _error
    cdef int _due


cdef class PublishTicket:
    cdef readonly object broker
    cdef readonly object partition
    cdef public long long base_offset
    cdef public Py_ssize_t size
    cdef public bint qos_2
    cdef public bint exactly_once
    cdef public list publishes
    cdef public list destinations
    cdef public list publishers
    cdef readonly list acknowledgements
    cdef readonly list others


@cython.final
cdef class RelayTicket:
    cdef object _broker
    cdef object _partition
    cdef object _batch
    cdef object _inner
    cdef long long _base_offset
    cdef bint _is_relayed
