# C types of delivery.py; the code is there.
cimport cython


@cython.final
cdef class SessionLimits:
    cdef readonly Py_ssize_t queue_max
    cdef Py_ssize_t _output_max
    cdef Py_ssize_t _total_max
    cdef readonly Py_ssize_t output_max
    cdef readonly Py_ssize_t drain_max
    cdef readonly str queue_policy
    cdef readonly bint queue_qos_0
    cdef readonly object overflowed


@cython.final
cdef class Dropped:
    cdef readonly long long queue
    cdef readonly long long expired
    cdef readonly long long too_large
    cdef readonly long long gone
    cdef readonly long long offline
    cdef readonly long long denied

    cpdef add(self, int reason, long long count)


@cython.final
@cython.no_gc  # holds nothing that leads back to it; made and dropped with every QoS 1 message
@cython.freelist(256)
cdef class Delivery:
    cdef public object partition
    cdef public long long offset
    cdef public int qos
    cdef public bint retain
    cdef public bytes identifiers
    cdef public int state
    cdef public object share


@cython.locals(delivery=Delivery)
cpdef Delivery new_delivery(object partition, long long offset, int qos, bint retain,
                            bytes identifiers, object share)


@cython.final
cdef class Run:
    cdef public object partition
    cdef public long long first
    cdef public long long last
    cdef public int qos
    cdef public bint retain
    cdef public bytes identifiers


@cython.final
cdef class DeliveryQueue:
    cdef list _runs
    cdef Py_ssize_t _first
    cdef readonly Py_ssize_t length
    cdef public long long pushed

    @cython.locals(run=Run)
    cpdef void push(
        self, object partition, long long offset, int qos, bint retain, bytes identifiers
    )
    cpdef Run head(self)
    @cython.locals(run=Run)
    cpdef void pop(self)
    cpdef void clear(self)
