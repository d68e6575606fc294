# C types of permits.py; the code is there.
cimport cython

from isthmus.mqtt.session cimport Session


@cython.final
cdef class Remembered:
    cdef readonly long long generation
    cdef readonly object principal
    cdef readonly object rights
    cdef readonly dict publishes
    cdef readonly dict receives
    cdef public bint is_told


@cython.final
cdef class Permits:
    cdef readonly bint is_on
    cdef object _access
    cdef object _subscriptions
    cdef long long _generation
    cdef bint _some_are_gone
    cdef list _resting

    @cython.locals(known=Remembered)
    cpdef bint may_publish(self, Session session, bytes topic_name) except -1
    @cython.locals(known=Remembered)
    cpdef bint may_receive(self, Session session, bytes topic_name) except -1
    @cython.locals(known=Remembered)
    cdef Remembered _known_of(self, Session session)


cdef object _decided(Remembered known, str operation, bytes topic_name, dict answers)
cdef object _entry_of(Session session)
