# C types of server/kafka_api/produce.py; the code is there.

cimport cython

from isthmus.kafka.produce cimport ProducedPartition, ProduceRequest
from isthmus.record.batch cimport RecordBatch
from isthmus.server.kafka_api.call cimport Call

cdef int _ACKS_ALL
cdef int _HEADER_BYTES


@cython.final
cdef class Produce:
    cdef readonly Call call
    cdef readonly int acks
    cdef int wait_ms
    cdef Py_ssize_t left
    cdef list topics

    cdef object answered(self)


@cython.final
cdef class BatchTicket(ProducedPartition):
    cdef readonly bint wants_durable
    cdef RecordBatch _batch
    cdef object _partition
    cdef Produce _produce

    @cython.locals(batch=RecordBatch)
    cpdef object written(self, long long base_offset)
    cpdef object durable(self)
    cpdef object failed(self, object error)
    cdef object _finish(self)


@cython.locals(
    request=ProduceRequest,
    under_way=Produce,
    denied=object,
    by_id=bint,
    inflated_before=object,
    rows=list,
    row=ProducedPartition,
    ticket=BatchTicket,
    partition=object,
    batch=RecordBatch,
)
cpdef object produce(Call call)
cdef object _refusal(ProduceRequest request)
cdef object _partition_of(Call call, object name, int index)
@cython.locals(batch=RecordBatch)
cdef RecordBatch _batch_of(ProduceRequest request, int version)
cdef object _check_inflated(Call call, object before)
cdef object _refuse(Produce under_way, ProducedPartition row, object error)
