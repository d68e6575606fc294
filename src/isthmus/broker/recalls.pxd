# C types of recalls.py; the code is there.
cimport cython

from isthmus.broker.destinations cimport Destinations
from isthmus.broker.permits cimport Permits
from isthmus.mqtt.session cimport Session


@cython.final
cdef class Recalls:
    cdef object _runtime
    cdef Destinations _destinations
    cdef Permits _permits
    cdef object _touch
    cdef object _recent_records
