# C types of permits.py; the code is there.
cimport cython

from isthmus.mqtt.session cimport Session
from isthmus.topics.tree cimport TopicTree


@cython.final
cdef class Permits:
    cdef readonly bint is_on
    cdef object _access
    cdef TopicTree _tree

    cpdef bint may_publish(self, Session session, bytes topic_name) except -1
    cpdef bint may_receive(self, Session session, bytes topic_name) except -1
    cdef object _rights_of(self, Session session)


cdef object _entry_of(Session session)
