cimport cython


cdef class Packet:
    cdef readonly int type


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Publish:
    cdef public int type
    cdef public bytes topic
    cdef public bytes payload
    cdef public int qos
    cdef public bint retain
    cdef public bint dup
    cdef public int packet_id
    cdef public object properties


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Ack:
    cdef public int type
    cdef public int packet_id
    cdef public int reason
    cdef public object properties


@cython.final
cdef class Will(Packet):
    cdef public bytes topic
    cdef public bytes payload
    cdef public int qos
    cdef public bint retain
    cdef public object properties


@cython.final
cdef class Connect(Packet):
    cdef public int protocol_version
    cdef public bint is_bridge
    cdef public str client_id
    cdef public bint clean_start
    cdef public int keep_alive_s
    cdef public str username
    cdef public bytes password
    cdef public Will will
    cdef public object properties


@cython.final
cdef class Connack(Packet):
    cdef public bint session_present
    cdef public int reason
    cdef public object properties


@cython.final
cdef class Subscribe(Packet):
    cdef public int packet_id
    cdef public list entries
    cdef public object properties


@cython.final
cdef class Suback(Packet):
    cdef public int packet_id
    cdef public list reasons
    cdef public object properties


@cython.final
cdef class Unsubscribe(Packet):
    cdef public int packet_id
    cdef public list filters
    cdef public object properties


@cython.final
cdef class Unsuback(Packet):
    cdef public int packet_id
    cdef public list reasons
    cdef public object properties


@cython.final
cdef class Pingreq(Packet):
    pass


@cython.final
cdef class Pingresp(Packet):
    pass


@cython.final
cdef class Disconnect(Packet):
    cdef public int reason
    cdef public object properties


@cython.final
cdef class Auth(Packet):
    cdef public int reason
    cdef public object properties
