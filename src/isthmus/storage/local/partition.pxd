# C types of storage/local/partition.py; the code is there.

cimport cython

from isthmus.record.batch cimport RecordBatch
from isthmus.storage.local.segments cimport SegmentList
from isthmus.storage.local.sync cimport Syncer, SyncWork
from isthmus.storage.local.tail cimport Tail


@cython.final
cdef class LocalPartition:
    cdef readonly str log_topic
    cdef readonly bytes topic_id
    cdef readonly int index
    cdef readonly object config
    cdef readonly long long start_offset
    cdef readonly long long end_offset
    cdef readonly long long durable_offset
    cdef readonly int leader_epoch
    cdef readonly object producers
    cdef readonly SegmentList segments
    cdef readonly Tail tail
    cdef object _cancel_flush
    cdef object _closed
    cdef bint _cut_needed
    cdef public list _queue
    cdef long long _queue_bytes
    cdef public long long _queue_end
    cdef long long _queue_newest
    cdef readonly object _reader
    cdef readonly long long records_unsynced
    cdef object _restart
    cdef object _shared
    cdef object _unsynced
    cdef object _waiting_durable
    cdef object _waiting_written

    @cython.locals(end="long long")
    cpdef object commit(self)
    @cython.locals(
        before="long long",
        size_before="long long",
        sealed="long long",
        size="long long",
        batch=RecordBatch,
    )
    cdef object _write(self, list batches)
    @cython.locals(batch=RecordBatch, views=list, ends=list)
    cdef object _put(self, list batches)
    cdef object _prepare(self, long long base_offset)
    cdef object _cut_back(self)
    cdef object _take_back(self)
    @cython.locals(batch=RecordBatch, base_offset="long long", tickets=list)
    cdef object _answer(self, list queue, object failure, long long end)
    cdef object _flush_later(self)
    cdef object _stop_flush(self)
    cdef bint _is_awaited(self) except -1
    @cython.locals(work=SyncWork)
    cpdef object begin_sync(self)
    cpdef object end_sync(self, SyncWork work)
    cpdef object fail_sync(self, SyncWork work)
    cdef object _advance_durable(self, long long offset)
