# C types of destinations.py; the code is there.
cimport cython

from isthmus.broker.publishing cimport Destination, OpenBatch
from isthmus.mqtt.packets cimport Publish
from isthmus.mqtt.session cimport Session
from isthmus.topics.tree cimport TopicTree


@cython.final
cdef class Destinations:
    cdef readonly dict by_name
    cdef readonly object rewritings
    cdef bint _is_rewriting
    cdef readonly dict reserved
    cdef set _stored
    cdef list _detours
    cdef dict _others
    cdef list _forgotten
    cdef object _log
    cdef object _routes
    cdef object _subscriptions
    cdef TopicTree _tree
    cdef object _permits
    cdef object _new_topics
    cdef dict _open_batches

    cpdef bytes meant(self, bytes said)
    cpdef Destination find(self, Session session, Publish publish)
    @cython.locals(destination=Destination)
    cpdef Destination known(self, bytes topic_name)
    @cython.locals(open_batch=OpenBatch)
    cpdef Destination resolve(self, bytes topic_name)
    cpdef refresh(self, Destination destination)
    @cython.locals(destination=Destination)
    cpdef bytes key_of(self, bytes topic_name)
    @cython.locals(known=Destination)
    cpdef bytes topic_name_of(self, str log_topic, object record)
    cpdef Destination of_record(self, str log_topic, object record)
    @cython.locals(destination=Destination)
    cpdef Destination match(self, str log_topic, object record)
