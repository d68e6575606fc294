cimport cython

from isthmus.mqtt.packets cimport Ack, Publish
from isthmus.mqtt.properties cimport (
    check_topic,
    encode_properties,
    read_binary,
    read_properties,
)
from isthmus.wire.buffer cimport ReadBuffer, WriteBuffer, uvarint_size

cdef int _CONNECT
cdef int _PUBLISH
cdef int _PUBACK
cdef int _PUBREL
cdef int _PUBCOMP
cdef int _SUBSCRIBE
cdef int _UNSUBSCRIBE
cdef int _VERSION_3_1
cdef int _VERSION_5
cdef Py_ssize_t _LENGTH_MAX
cdef bytes _FLAGS


@cython.final
cdef class Decoder:
    cdef public Py_ssize_t packet_size_max
    cdef public int version
    cdef public object error
    cdef bint _of_server
    cdef dict _readers
    cdef ReadBuffer _buffer
    cdef ReadBuffer _body
    cdef bytes _topic
    cdef bytearray _partial
    cdef Py_ssize_t _wanted
    cdef Py_ssize_t _filters
    cdef public bint is_held

    @cython.locals(found=list, size=Py_ssize_t, start=Py_ssize_t)
    cpdef list feed(self, data)

    cpdef list go_on(self)
    cdef _hold(self, data, Py_ssize_t size)

    @cython.locals(buffer=ReadBuffer, first=int, size=Py_ssize_t, end=Py_ssize_t)
    cdef Py_ssize_t _read(self, object data, Py_ssize_t start, list found) except -1

    @cython.locals(partial=bytearray, taken=Py_ssize_t, lacking=Py_ssize_t)
    cdef Py_ssize_t _complete(self, object data, Py_ssize_t size, list found) except -1

    cdef bint _is_long(self, int packet_type, packet) except -1

    cdef int _check_type(self, int packet_type) except -1

    @cython.locals(buffer=ReadBuffer, size=Py_ssize_t, shift=int, byte=int)
    cdef Py_ssize_t _long_size(self, Py_ssize_t low) except -2

    @cython.locals(buffer=ReadBuffer, qos=int, topic=bytes, packet_id=int, publish=Publish)
    cdef Publish _publish(self, object data, int first, Py_ssize_t end)

    @cython.locals(buffer=ReadBuffer, size=Py_ssize_t, topic=bytes)
    cdef bytes _read_topic(self, Py_ssize_t end)

    @cython.locals(buffer=ReadBuffer, body=ReadBuffer)
    cdef object _read_properties(self, object data, int packet_type, Py_ssize_t end)

    @cython.locals(buffer=ReadBuffer, packet_type=int, size=Py_ssize_t, ack=Ack)
    cdef Ack _ack(self, object data, int first, Py_ssize_t end)

    @cython.locals(packet_type=int, body=ReadBuffer)
    cdef object _control(self, object data, int first, Py_ssize_t end)

    @cython.locals(level=int)
    cdef int _read_level(self, ReadBuffer body) except -1

    @cython.locals(used=int)
    cdef int _check_flags(self, int first) except -1

    cdef int _check_end(self, int packet_type, Py_ssize_t left) except -1


cpdef object encode(object packet, int version, WriteBuffer out)

@cython.locals(size=Py_ssize_t)
cpdef object encode_publish(WriteBuffer out, int version, bytes topic, object payload, int qos,
                            bint retain, bint dup, int packet_id, bytes properties)

@cython.locals(long_form=bint)
cpdef object encode_ack(
    WriteBuffer out, int version, int packet_type, int packet_id, int reason
)

cdef object _encode_publish(Publish packet, int version, WriteBuffer out)
