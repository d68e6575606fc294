"""Produce: the client's own batches go into the log, stamped but otherwise untouched.

Each partition gets exactly one batch (the protocol's rule since version 3), as a view of the
request's memory. The answer goes out when every partition has one: with acks=1 when the
batch is written, with acks=all when it is as durable as its log topic asks [DESIGN 3]. With
acks=0 there is no answer at all, and the only way to tell of an error is to hang up.

Most rules about a batch are the log's own (storage/validation.py). Whether a transaction may be
written to is found out in transactions.py. Compiled, see `produce.pxd`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from isthmus.broker.access_rules import TRANSACTION, WRITE
from isthmus.errors import (
    BatchRefused,
    BatchTooLarge,
    CorruptBatch,
    IsthmusError,
    TopicInvalid,
    TopicUnknown,
)
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.frames import encode_produce_response
from isthmus.kafka.produce import IDS_FIRST_VERSION, ProducedPartition
from isthmus.record.batch import HEADER_BYTES, RECORDS_BYTES_MAX, RecordBatch
from isthmus.record.compression import INFLATED, NONE
from isthmus.server.kafka_api.log_topics import RequestRefused, is_internal, refusal_of
from isthmus.server.kafka_api.throttles import of_produce, of_time
from isthmus.server.kafka_api.transactions import append_in_transaction

if TYPE_CHECKING:
    from isthmus.broker.access import Rights
    from isthmus.kafka.produce import ProduceRequest
    from isthmus.server.kafka_api.call import Call
    from isthmus.storage.log import Partition

ACKS_NONE = 0
ACKS_WRITTEN = 1
ACKS_ALL = -1
ZSTD = 4
ZSTD_FIRST_VERSION = 7  # [KIP-110]
MAGIC = 2
MAGIC_POSITION = 16
INFLATED_RATIO_MAX = 16  # of a request, beyond what one batch may become
ERROR_CHARACTERS_MAX = 1_000  # a name that is no log topic's may be as long as a string can
_ACKS_ALL = ACKS_ALL  # the same as C constants
_HEADER_BYTES = HEADER_BYTES
_LENGTH = struct.Struct(">i")
_LENGTH_POSITION = 8


class Produce:
    """One request, until all its partitions have an answer."""

    __slots__ = ("acks", "call", "left", "topics", "wait_ms")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.acks: int = call.request.acks
        # What the client is told to wait, where it is beyond a quota.
        self.wait_ms: int = of_produce(call) if call.shore.quotas.is_any else 0
        self.left = 1  # one for the walk itself, so that it ends before the answer
        self.topics: list[tuple[str | bytes, list[ProducedPartition]]] = []

    def answered(self) -> None:
        """One partition has its answer; send it with the last."""
        self.left -= 1
        if self.left:
            return
        call, is_answered = self.call, self.acks != ACKS_NONE
        if call.shore.quotas.is_any and is_answered:
            self.wait_ms = max(self.wait_ms, of_time(call))
        if is_answered:
            head = call.version, call.correlation_id
            call.answer_parts([encode_produce_response(*head, self.topics, self.wait_ms)])


class BatchTicket(ProducedPartition):
    """Waits for the batch of one partition, and is the partition's row of the response."""

    __slots__ = ("_batch", "_partition", "_produce", "wants_durable")

    def __init__(
        self, produce: Produce, index: int, partition: Partition, batch: RecordBatch
    ) -> None:
        super().__init__(index)
        self._produce: Produce | None = produce
        self._partition = partition
        self._batch: RecordBatch | None = batch
        self.wants_durable = produce.acks == _ACKS_ALL

    def written(self, base_offset: int) -> None:
        """The batch has its offset."""
        batch = self._batch
        assert batch is not None
        self._batch = None
        self.base_offset = base_offset
        self.start_offset = self._partition.start_offset
        if batch.log_append_time:
            self.log_append_time_ms = batch.max_timestamp
        if not self.wants_durable:
            self._finish()

    def durable(self) -> None:
        """The batch is safe."""
        self._finish()

    def failed(self, error: IsthmusError) -> None:
        """The batch was refused, or cannot be confirmed."""
        if self._produce is not None:
            if not isinstance(error, BatchTooLarge | CorruptBatch):
                self.start_offset = self._partition.start_offset
            _refuse(self._produce, self, error)
            self._finish()

    def _finish(self) -> None:
        produce, self._produce = self._produce, None
        if produce is not None:
            produce.answered()


def produce(call: Call) -> None:
    """Append what the request holds; answer when all of it is as safe as asked."""
    request: ProduceRequest = call.request
    under_way = Produce(call)
    refusal = _refusal(request)
    by_id = call.version >= IDS_FIRST_VERSION
    inflated_before = INFLATED.bytes
    while request.next_topic():
        rows: list[ProducedPartition] = []
        name: str | None = request.name
        if by_id:
            name = call.shore.topic_ids.name_of(request.topic_id)
        under_way.topics.append((request.topic_id if by_id else request.name, rows))
        denied = refusal
        if call.rights is not None and denied is None:
            denied = _denial(call.rights, request.transactional_id, name)
        while request.next_partition():
            try:
                if denied is not None:
                    raise denied
                partition = _partition_of(call, name, request.index)
                batch = _batch_of(request, call.version)
                if batch.compression != NONE:
                    _check_inflated(call, inflated_before)
            except IsthmusError as error:
                row = ProducedPartition(request.index)
                _refuse(under_way, row, error.with_traceback(None))
                rows.append(row)
                continue
            under_way.left += 1
            ticket = BatchTicket(under_way, request.index, partition, batch)
            rows.append(ticket)
            if batch.is_transactional:
                append_in_transaction(call, partition, batch, ticket)
            else:
                call.shore.broker.append(partition, batch, ticket)
    if under_way.acks == ACKS_NONE:
        call.answer_parts([])
    under_way.answered()


def _refusal(request: ProduceRequest) -> RequestRefused | None:
    """Return what is wrong with the request as a whole."""
    if request.acks not in (ACKS_NONE, ACKS_WRITTEN, ACKS_ALL):
        return RequestRefused(
            ErrorCode.INVALID_REQUIRED_ACKS, f"acks={request.acks}: 0, 1 or all"
        )
    return None


def _denial(
    rights: Rights, transactional_id: str | None, name: str | None
) -> RequestRefused | None:
    """Return why the client may not write to a log topic, or not in its transaction."""
    if transactional_id is not None and not rights.allows(WRITE, transactional_id, TRANSACTION):
        return RequestRefused(
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "not this transaction's producer"
        )
    if name is not None and not rights.allows(WRITE, name):
        return RequestRefused(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "not to be written to")
    return None


def _partition_of(call: Call, name: str | None, index: int) -> Partition:
    """Return a partition that clients may write to. Raises IsthmusError."""
    if name is None:
        raise RequestRefused(ErrorCode.UNKNOWN_TOPIC_ID, "no log topic has this id")
    if is_internal(name):
        raise TopicInvalid(f"{name} is written by the server only")
    partition: Partition | None = call.shore.log.partition(name, index)
    if partition is None:
        raise TopicUnknown(f"no partition {index} of a log topic {name}")
    return partition


def _batch_of(request: ProduceRequest, version: int) -> RecordBatch:
    """Return the one batch for the partition that the request stands at.

    Raises BatchRefused, CorruptBatch or RequestRefused.
    """
    records = request.records()
    if records is None or len(records) < _HEADER_BYTES:
        raise BatchRefused("exactly one record batch per partition, here is none")
    if records[MAGIC_POSITION] < MAGIC:
        raise BatchRefused("records of versions 0 and 1 are not taken any more")
    if records[MAGIC_POSITION] > MAGIC:
        raise CorruptBatch(f"there are no records of version {records[MAGIC_POSITION]}")
    size = _LENGTH.unpack_from(records, _LENGTH_POSITION)[0] + 12
    if _HEADER_BYTES <= size < len(records):
        raise BatchRefused("exactly one record batch per partition, here are more")
    if size != len(records):
        raise CorruptBatch(f"a batch says it has {size} bytes and has {len(records)}")
    batch = RecordBatch(records)
    if batch.is_transactional and request.transactional_id is None:
        denied = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        raise RequestRefused(denied, "a transactional batch without a transactional id")
    if batch.compression == ZSTD and version < ZSTD_FIRST_VERSION:
        raise RequestRefused(
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"zstd in Produce version {version}"
        )
    return batch


def _check_inflated(call: Call, before: int) -> None:
    """Raise BatchTooLarge once the batches of a request have become far more than came.

    Each is looked into before it is stored, and while that lasts nobody else is served.
    """
    if INFLATED.bytes - before > RECORDS_BYTES_MAX + INFLATED_RATIO_MAX * call.size:
        raise BatchTooLarge(
            f"a request of {call.size} bytes has become {INFLATED.bytes - before} already"
        )


def _refuse(under_way: Produce, row: ProducedPartition, error: IsthmusError) -> None:
    """Put an error into the row of a partition; hang up where nothing can be answered."""
    row.error_code = refusal_of(error)
    row.error_message = str(error)[:ERROR_CHARACTERS_MAX]
    row.record_errors = getattr(error, "record_errors", ())  # [KIP-467]
    row.base_offset = -1
    under_way.call.shore.counts.note_error(under_way.call.api_key, row.error_code)
    if under_way.acks == ACKS_NONE:
        under_way.call.connection.drop(f"produce with acks=0 failed: {error}")
