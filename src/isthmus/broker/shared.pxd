# C types of shared.py; the code is there.
cimport cython

from isthmus.broker.permits cimport Permits
from isthmus.mqtt.delivery cimport Delivery, DeliveryQueue, Run
from isthmus.mqtt.packets cimport Publish
from isthmus.mqtt.session cimport Session


@cython.final
cdef class Handed:
    cdef readonly int qos


@cython.final
cdef class Member:
    cdef readonly Session session
    cdef public bint is_present
    cdef public Py_ssize_t place
    cdef readonly int qos
    cdef readonly bint retain_as_published
    cdef readonly bytes identifiers
    cdef readonly object parked
    cdef public object weights

    @cython.locals(session=Session)
    cdef bint has_room(self, int qos) except -1


cdef class ShareGroup:
    cdef readonly str name
    cdef readonly str topic_filter
    cdef readonly dict members
    cdef readonly DeliveryQueue queue
    cdef readonly list returned
    cdef readonly object dropped
    cdef public bint changed
    cdef object _broker
    cdef Permits _permits
    cdef Py_ssize_t _queue_max
    cdef list _present
    cdef Py_ssize_t _turn
    cdef list _handed
    cdef bint _is_due
    cdef Py_ssize_t _parked
    cdef object _refill

    @cython.locals(member=Member)
    cpdef _refilled(self, Session session)
    cdef _arrive(self, Member member)
    @cython.locals(other=Member, each=Delivery)
    cdef _go(self, Member member)
    @cython.locals(delivery=Delivery, session=Session, handed=Handed)
    cdef _take_back(self, Member member)
    cdef bint _is_ours(self, Delivery delivery) except -1
    cdef bint waiting(self) noexcept
    @cython.locals(member=Member)
    cpdef deliver(self, Publish publish, bytes key, object partition, long long offset)
    @cython.locals(session=Session)
    cdef _let_wait(self, Publish publish, object partition, long long offset)
    cdef _wait(self, int qos, object partition, long long offset)
    cdef Py_ssize_t _waiting_count(self) noexcept
    @cython.locals(count=Py_ssize_t, member=Member)
    cdef Member _choose(self, int qos)
    @cython.locals(other=Member, full=Member, why=int)
    cdef _give(self, Member member, Publish publish, object partition, long long offset)
    @cython.locals(session=Session, qos=int, handed=bint)
    cdef int _hand(
        self, Member member, Publish publish, object partition, long long offset
    ) except -1
    cdef bint _may_have(self, Member member, bytes topic_name) except -1
    cdef _park(self, Member member, int qos, object partition, long long offset)
    @cython.locals(member=Member)
    cdef _unpark(self)
    @cython.locals(parked=Delivery, publish=Publish)
    cdef _give_parked(self, Member member)
    @cython.locals(member=Member)
    cdef _give_all_parked(self)
    cdef bint _is_held(self) noexcept
    cdef _give_on(self, Member member)
    @cython.locals(head=Delivery, member=Member, publish=Publish)
    cpdef drain(self)
    @cython.locals(run=Run)
    cdef Delivery _head(self)
    cdef _pop(self)
    @cython.locals(publish=Publish)
    cdef Publish _recall(self, Session session, Delivery waiting)
    @cython.locals(member=Member, each=Delivery, delivery=Delivery)
    cpdef list unfinished(self)
