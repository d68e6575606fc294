# C types of broker.py; the code is there.
cimport cython

from isthmus.broker.destinations cimport Destinations
from isthmus.broker.permits cimport Permits
from isthmus.broker.publishing cimport (
    Acknowledgement,
    Destination,
    OpenBatch,
    PublishTicket,
    new_acknowledgement,
)
from isthmus.broker.shared cimport ShareGroup
from isthmus.broker.subscriptions cimport Receiver
from isthmus.mqtt.packets cimport Ack, Publish
from isthmus.mqtt.session cimport Session
from isthmus.topics.tree cimport TopicTree

cdef int _NO_MATCHING_SUBSCRIBERS


cdef class Broker:
    cdef readonly object runtime
    cdef readonly object log
    cdef readonly object routes
    cdef readonly object deadlines
    cdef readonly object subscriptions
    cdef readonly object relays
    cdef readonly object retained
    cdef readonly object delayed
    cdef readonly object session_log
    cdef readonly object traffic
    cdef readonly long long published
    cdef readonly long long delivered
    cdef readonly long long undeliverable
    cdef readonly long long lost
    cdef readonly Py_ssize_t backlog_bytes
    cdef TopicTree _tree
    cdef readonly Permits permits
    cdef readonly Destinations destinations
    cdef dict _by_name
    cdef readonly object volatile
    cdef readonly object traces
    cdef readonly bint is_sparkplug_aware
    cdef list _open
    cdef list _touched
    cdef bint _scheduled
    cdef long long _now_ms
    cdef list _relief
    cdef readonly object catching_up
    cdef object _turn

    cpdef bint receive(self, Session session, list packets, object other) except -1
    @cython.locals(destination=Destination, permits=Permits)
    cpdef publish(self, Session session, Publish publish)
    @cython.locals(destination=Destination, open_batch=OpenBatch, ticket=PublishTicket)
    cpdef publish_own(self, Publish publish, object waiting)
    @cython.locals(certificate=Publish)
    cdef Destination _find(self, Session session, Publish publish)
    @cython.locals(open_batch=OpenBatch, ticket=PublishTicket)
    cdef _put(self, Destination destination, Session session, Publish publish)
    cpdef PublishTicket begin(self, OpenBatch open_batch, PublishTicket ticket)
    @cython.locals(session=Session, open_batch=OpenBatch)
    cpdef turn(self)
    cpdef touch(self, Session session)
    cpdef schedule(self)
    @cython.locals(session=Session)
    cdef bint _note_steps(self) except -1
    @cython.locals(open_batch=OpenBatch, ticket=PublishTicket)
    cdef _close(self, list open_batches)
    @cython.locals(ticket=PublishTicket, publish=Publish, session=Session)
    cdef _write_ids(self, list tickets)
    cpdef deliver_written(self, PublishTicket ticket)
    cpdef deliver_durable(self, PublishTicket ticket)
    @cython.locals(waiting=Acknowledgement, session=Session)
    cpdef settle(self, PublishTicket ticket)
    @cython.locals(offset="long long", place=Py_ssize_t, publish=Publish,
                   destination=Destination, receiver=Receiver, session=Session, qos=int,
                   group=ShareGroup,
                   tree=TopicTree,
                   publishes=list, destinations=list, publishers=list)
    cdef _deliver(self, PublishTicket ticket, bint at_qos_2)
    cpdef count_backlog(self, Py_ssize_t size)
