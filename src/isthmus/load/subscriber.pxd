# C types of subscriber.py; the code is there.
cimport cython

from isthmus.load.frames cimport Frames
from isthmus.load.latencies cimport Latencies
from isthmus.load.tally cimport Tally
from isthmus.load.totals cimport Totals
from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer

cdef Py_ssize_t _HEADER_BYTES
cdef int _PUBLISH
cdef int _PUBREL
cdef unsigned long long _NUMBER_MAX


@cython.final
cdef class Subscriber:
    cdef bytes _filler
    cdef Py_ssize_t _payload_bytes
    cdef Totals _totals
    cdef Latencies _latencies
    cdef Tally _arrived
    cdef int _version
    cdef unsigned long long _run
    cdef Frames _frames
    cdef set _unreleased
    cdef readonly WriteBuffer out
    cdef readonly list control

    @cython.locals(frames=Frames, kind=int, rest=Py_ssize_t)
    cpdef Py_ssize_t feed(self, object data, Py_ssize_t size, long long now_ns) except -1

    @cython.locals(buffer=ReadBuffer)
    cpdef object take(self, bytes payload, long long now_ns)

    @cython.locals(frames=Frames, buffer=ReadBuffer, qos=int, packet_id=int)
    cdef object _receive(self, long long now_ns)

    @cython.locals(
        buffer=ReadBuffer, totals=Totals, header="unsigned long long", due_ns="long long"
    )
    cdef object _count(self, Py_ssize_t payload_bytes, long long now_ns)

    @cython.locals(packet_id=int)
    cdef object _complete(self)
