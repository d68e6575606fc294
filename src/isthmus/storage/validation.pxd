# C types of storage/validation.py; the code is there.

cimport cython

from isthmus.record.batch cimport RecordBatch, RecordReader

cdef int _CONTROL
cdef int _TRANSACTIONAL
cdef int _LOG_APPEND_TIME
cdef int _UNUSUAL


cpdef object check_batch(RecordBatch batch, object config, long long now_ms)
cpdef object check_trusted(RecordBatch batch, object config, long long now_ms)
cdef object _rewrite(RecordBatch batch, object config, long long now_ms)
@cython.locals(latest="long long", earliest="long long")
cdef object _check_timestamps(RecordBatch batch, object config, long long now_ms)
cdef object _check_size(RecordBatch batch, object config)
cdef object _check_producer(RecordBatch batch)
cdef object _check_records(RecordBatch batch)
