# C types of publisher.py; the code is there.
cimport cython

from isthmus.load.frames cimport Frames
from isthmus.load.latencies cimport Latencies
from isthmus.load.totals cimport Totals
from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer

cdef Py_ssize_t _OUT_BYTES_MAX
cdef int _PUBACK
cdef int _PUBREC
cdef int _PUBCOMP
cdef int _DUP
cdef int _FREE
cdef int _SENT
cdef int _RECEIVED


@cython.final
cdef class Publisher:
    cdef list _heads
    cdef long long[::1] _fans
    cdef bytes _filler
    cdef Totals _totals
    cdef Latencies _latencies
    cdef int _version
    cdef int _qos
    cdef unsigned long long _run
    cdef long long _index
    cdef long long _stride
    cdef long long _made
    cdef long long _start_made
    cdef long long _start_ns
    cdef double _interval_ns
    cdef Frames _frames
    cdef public long long left
    cdef readonly WriteBuffer out
    cdef readonly list control
    cdef Py_ssize_t _slots
    cdef Py_ssize_t _limit
    cdef long long[::1] _dues
    cdef long long[::1] _numbers
    cdef bytearray _states
    cdef long long[::1] _free
    cdef Py_ssize_t _free_at
    cdef Py_ssize_t _free_count

    @cython.locals(made=Py_ssize_t)
    cpdef Py_ssize_t fill(self, long long now_ns, Py_ssize_t count_max) except -1

    @cython.locals(made=Py_ssize_t, due_ns="long long")
    cpdef Py_ssize_t fill_due(self, long long now_ns) except -1

    @cython.locals(frames=Frames, kind=int, rest=Py_ssize_t)
    cpdef Py_ssize_t feed(self, object data, Py_ssize_t size, long long now_ns) except -1

    cdef bint _is_free(self) noexcept
    cdef Py_ssize_t _topic_of(self, long long number) except -1

    @cython.locals(number="long long", topic=Py_ssize_t, slot=Py_ssize_t)
    cdef object _make(self, long long due_ns)

    @cython.locals(out=WriteBuffer)
    cdef object _put(self, Py_ssize_t slot, long long number, long long due_ns)

    @cython.locals(buffer=ReadBuffer, slot=Py_ssize_t, reason=int)
    cdef object _settle(self, int kind, long long now_ns)

    cdef object _release(self, Py_ssize_t slot)

    @cython.locals(at=Py_ssize_t)
    cdef object _free_slot(self, Py_ssize_t slot)
