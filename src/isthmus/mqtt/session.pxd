# C types of session.py; the code is there.
cimport cython

from isthmus.mqtt.delivery cimport (
    Delivery,
    DeliveryQueue,
    Dropped,
    Run,
    SessionLimits,
    new_delivery,
)
from isthmus.mqtt.incoming cimport Incoming
from isthmus.mqtt.outgoing cimport Outgoing
from isthmus.mqtt.packets cimport Ack, Publish
from isthmus.mqtt.traffic cimport Traffic
from isthmus.wire.buffer cimport WriteBuffer

cdef int ANSWERED
cdef int AWAIT_PUBACK
cdef int AWAIT_PUBCOMP
cdef int PUBACK
cdef int PUBCOMP
cdef int PUBREC
cdef int PUBREL
cdef int _ACKNOWLEDGED_MAX


@cython.final
cdef class Session:
    cdef public object client_id
    cdef public object owner
    cdef public object subscriptions
    cdef public int version
    cdef public bint connected
    cdef public bint paused
    cdef public bint touched
    cdef public long attachment
    cdef public object transmit
    cdef readonly WriteBuffer output
    cdef readonly dict inflight
    cdef readonly DeliveryQueue queue
    cdef readonly Incoming incoming
    cdef Dropped _dropped
    cdef Outgoing _outgoing
    cdef object _owed
    cdef object _recall
    cdef SessionLimits _limits
    cdef Traffic _traffic
    cdef Py_ssize_t _window
    cdef int _maximum_qos
    cdef bint _retain_available
    cdef public bint recalling
    cdef public tuple refills
    cdef public bint persistent
    cdef public bint changed
    cdef public int step
    cdef int _acknowledged
    cdef readonly int next_packet_id

    @cython.locals(repeated=int)
    cpdef bint receive_publish(self, Publish publish) except -1
    @cython.locals(asked=long)
    cpdef acknowledge(self, long attachment, int packet_id, int qos, int reason, str text=*)
    cdef _write_ack(self, int kind, int packet_id, int reason)
    cdef _answer_publish(self, int kind, int packet_id, int reason, str text)
    cpdef bint forget(self, int packet_id) except -1
    cdef void _stepped(self) noexcept
    cpdef stored(self, int packet_id, object partition, long long offset)
    @cython.locals(delivery=Delivery, known=bint, kind=int, expected=int)
    cpdef receive_ack(self, Ack ack)
    cdef _receive_pubrec(self, Ack ack, Delivery delivery)
    cpdef deliver(self, Publish publish, int qos, bint retain, bytes identifiers,
                  object partition, long long offset)
    @cython.locals(queue=DeliveryQueue, limits=SessionLimits)
    cdef bint _may_wait(self, int qos) except -1
    cpdef drop(self, int reason, long long count)
    cpdef bint has_room(self, int qos) noexcept
    cpdef bint waiting(self) noexcept
    @cython.locals(queue=DeliveryQueue, run=Run, publish=Publish, offset="long long",
                   refills=tuple)
    cpdef drain(self)
    @cython.locals(packet_id=int)
    cdef bint _send_owed(self) except -1
    @cython.locals(delivery=Delivery, publish=Publish, outgoing=Outgoing)
    cdef bint _send_again(self, int packet_id) except -1
    @cython.locals(packet_id=int, outgoing=Outgoing)
    cpdef bint send(self, Publish publish, int qos, bint retain, bytes identifiers,
                    object partition, long long offset, object share) except -1
    @cython.locals(packet_id=int)
    cdef int _take_packet_id(self) except -1
