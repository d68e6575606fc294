# C types of catching_up.py; the code is there.
cimport cython

from isthmus.broker.destinations cimport Destinations
from isthmus.broker.permits cimport Permits
from isthmus.mqtt.session cimport Session


@cython.final
cdef class CatchingUp:
    cdef object _runtime
    cdef Destinations _destinations
    cdef Permits _permits
    cdef object _touch
    cdef object _recent_records
    cdef object _ready
    cdef dict _held
    cdef long long _hold_end_ms
    cdef list _parked
    cdef list _behind
    cdef tuple _at
    cdef dict _partition_numbers
    cdef long long _number
    cdef int _loads
    cdef int _reads_left
    cdef tuple _absent
    cdef bint _is_due

    cpdef begin(self, Session session)
    @cython.locals(partition_number=int, is_ahead=bint)
    cdef _park(self, Session session, object partition, long long offset)
    cdef _go_on_later(self)
    @cython.locals(session=Session, end_ms="long long", goes_on=bint)
    cpdef _go_on(self)
    cdef _send_held(self, long long now_ms)
    cdef bint _read_next(self) except -1
    @cython.locals(session=Session)
    cdef _read(self, object first)
    cdef _fail(self, Session session, object error)
