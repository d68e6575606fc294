# C types of broker/retained.py; the code is there.
cimport cython

from isthmus.mqtt.packets cimport Publish
from isthmus.record.batch cimport BatchBuilder, RecordBatch, RecordReader
from isthmus.topics.names cimport TopicNames

cdef list _PLAIN_HEADERS
cdef list _PLAIN_TERMS


@cython.final
cdef class Entry:
    cdef readonly int qos
    cdef readonly long long size
    cdef readonly long long expires_ms
    cdef public long long offset


@cython.final
cdef class Retained:
    cdef object _broker
    cdef object _runtime
    cdef readonly object partition
    cdef long long _count_max
    cdef long long _bytes_max
    cdef BatchBuilder _builder
    cdef _RetainedTicket _open
    cdef Py_ssize_t _appended
    cdef TopicNames _names
    cdef readonly dict _expiring
    cdef long long _swept
    cdef bint _is_sweep_due
    cdef readonly long long size_bytes
    cdef long long _coming_count
    cdef long long _coming_bytes
    cdef readonly long long refused
    cdef readonly long long expired

    cpdef Entry get(self, bytes topic_name)
    @cython.locals(
        now_ms="long long", topic_name=bytes, present=Entry, terms=Entry, entry=Entry,
        size="long long"
    )
    cpdef bint put(self, Publish publish, object waiting=*) except -1
    cdef _append(
        self, bytes topic_name, object payload, object headers, Entry entry, long long now_ms
    )
    cdef bint _exceeds(self, Entry present, long long size) except -1
    cpdef commit(self)
    @cython.locals(place=Py_ssize_t, topic_name=bytes, entry=Entry)
    cpdef stored(self, list puts, long long base_offset)
    cpdef failed(self, list puts)
    @cython.locals(entry=Entry)
    cdef _came(self, list puts)
    @cython.locals(before=Entry)
    cdef _store(self, bytes topic_name, Entry entry)
    cdef object _minute_of(self, Entry entry)
    cdef _load(self)
    @cython.locals(reader=RecordReader, key=bytes, size="long long", headers=bytes, terms=Entry)
    cdef _load_batch(self, RecordBatch batch, dict known)


cpdef Entry terms_of(object headers)
@cython.locals(entry=Entry)
cdef Entry _entry(long long offset, int qos, long long size, long long expires_ms)


@cython.final
cdef class _RetainedTicket:
    cdef Retained _retained
    cdef bint _is_written
    cdef list puts
    cdef list waiting
    cdef readonly bint wants_durable
