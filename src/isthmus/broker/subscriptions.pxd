# C types of subscriptions.py; the code is there.
cimport cython

from isthmus.mqtt.session cimport Session


@cython.final
cdef class Subscription:
    cdef readonly Session session
    cdef public str topic_filter
    cdef readonly int options
    cdef readonly int identifier


@cython.final
cdef class Receiver:
    cdef readonly Session session
    cdef readonly int qos
    cdef readonly bint no_local
    cdef readonly Receiver own
    cdef readonly bint retain_as_published
    cdef readonly bytes identifiers
