"""Produce: the client's own batches go into the log, stamped but otherwise untouched.

Each partition gets exactly one batch (the protocol's rule since version 3), as a view of the
request's memory. The answer goes out when every partition has one: with acks=1 when the
batch is written, with acks=all when it is as durable as its log topic asks [DESIGN 3]. With
acks=0 there is no answer at all, and the only way to tell of an error is to hang up.

Most rules about a batch are the log's own (storage/validation.py). Also here: InitProducerId.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from isthmus.errors import BatchRefused, CorruptBatch, IsthmusError, TopicInvalid, TopicUnknown
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import HEADER_BYTES, RecordBatch
from isthmus.server.kafka_api.log_topics import RequestRefused, is_internal, refusal_of

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call
    from isthmus.storage.log import Partition

ACKS_NONE = 0
ACKS_WRITTEN = 1
ACKS_ALL = -1
IDS_FIRST_VERSION = 13
ZSTD = 4
ZSTD_FIRST_VERSION = 7  # [KIP-110]
MAGIC = 2
MAGIC_POSITION = 16
_LENGTH = struct.Struct(">i")
_LENGTH_POSITION = 8


class Produce:
    """One request, until all its partitions have an answer."""

    __slots__ = ("acks", "call", "left", "responses")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.acks: int = call.request["acks"]
        self.left = 1  # one for the walk itself, so that it ends before the answer
        self.responses: list[dict[str, Any]] = []

    def answered(self) -> None:
        """One partition has its answer; send it with the last."""
        self.left -= 1
        if self.left == 0 and self.acks != ACKS_NONE:
            self.call.answer({"responses": self.responses})


class BatchTicket:
    """Waits for the batch of one partition and fills its row of the response."""

    __slots__ = ("_batch", "_partition", "_produce", "_row")

    def __init__(
        self, produce: Produce, partition: Partition, batch: RecordBatch, row: dict[str, Any]
    ) -> None:
        self._produce: Produce | None = produce
        self._partition = partition
        self._batch: RecordBatch | None = batch
        self._row = row

    @property
    def wants_durable(self) -> bool:
        """Whether the answer waits for the disk."""
        return self._produce is not None and self._produce.acks == ACKS_ALL

    def written(self, base_offset: int) -> None:
        """The batch has its offset."""
        row, batch = self._row, self._batch
        assert batch is not None
        self._batch = None
        row["base_offset"] = base_offset
        row["log_start_offset"] = self._partition.start_offset
        if batch.log_append_time:
            row["log_append_time_ms"] = batch.max_timestamp
        if self._produce is not None and self._produce.acks != ACKS_ALL:
            self._finish()

    def durable(self) -> None:
        """The batch is safe."""
        self._finish()

    def failed(self, error: IsthmusError) -> None:
        """The batch was refused, or cannot be confirmed."""
        if self._produce is not None:
            _refuse(self._produce, self._row, error)
            self._finish()

    def _finish(self) -> None:
        produce, self._produce = self._produce, None
        if produce is not None:
            produce.answered()


def produce(call: Call) -> None:
    """Append what the request holds; answer when all of it is as safe as asked."""
    request = call.request
    under_way = Produce(call)
    refusal = _refusal(request)
    for topic in request["topic_data"]:
        rows: list[dict[str, Any]] = []
        name = topic["name"]
        if call.version >= IDS_FIRST_VERSION:
            name = call.shore.topic_ids.name_of(topic["topic_id"])
            under_way.responses.append(
                {"topic_id": topic["topic_id"], "partition_responses": rows}
            )
        else:
            under_way.responses.append({"name": name, "partition_responses": rows})
        for one in topic["partition_data"]:
            row = {"index": one["index"], "base_offset": -1}
            rows.append(row)
            if refusal is not None:
                _refuse(under_way, row, refusal)
            else:
                _append(under_way, name, one["records"], row)
    if under_way.acks == ACKS_NONE:
        call.answer_nothing()
    under_way.answered()


def _refusal(request: dict[str, Any]) -> RequestRefused | None:
    """Return what is wrong with the request as a whole."""
    acks = request["acks"]
    if acks not in (ACKS_NONE, ACKS_WRITTEN, ACKS_ALL):
        return RequestRefused(ErrorCode.INVALID_REQUIRED_ACKS, f"acks={acks}: 0, 1 or all")
    if request["transactional_id"] is not None:
        return RequestRefused(
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "transactions are not served by this version",
        )
    return None


def _append(
    under_way: Produce, name: str | None, records: memoryview | None, row: dict[str, Any]
) -> None:
    """Append the one batch of a partition."""
    call = under_way.call
    try:
        if name is None:
            raise RequestRefused(ErrorCode.UNKNOWN_TOPIC_ID, "no log topic has this id")
        if is_internal(name):
            raise TopicInvalid(f"{name} is written by the server only")
        partition = call.shore.log.partition(name, row["index"])
        if partition is None:
            raise TopicUnknown(f"no partition {row['index']} of a log topic {name}")
        batch = _batch_of(records, call.version)
    except IsthmusError as error:
        _refuse(under_way, row, error)
        return
    under_way.left += 1
    ticket = BatchTicket(under_way, partition, batch, row)
    call.shore.broker.append(partition, batch, ticket)


def _batch_of(records: memoryview | None, version: int) -> RecordBatch:
    """Return the one batch in `records`. Raises BatchRefused or CorruptBatch."""
    if records is None or len(records) < HEADER_BYTES:
        raise BatchRefused("exactly one record batch per partition, here is none")
    if records[MAGIC_POSITION] != MAGIC:
        raise BatchRefused("records of versions 0 and 1 are not taken any more")
    size = _LENGTH.unpack_from(records, _LENGTH_POSITION)[0] + 12
    if HEADER_BYTES <= size < len(records):
        raise BatchRefused("exactly one record batch per partition, here are more")
    if size != len(records):
        raise CorruptBatch(f"a batch says it has {size} bytes and has {len(records)}")
    batch = RecordBatch(records)
    if batch.is_transactional:
        raise RequestRefused(
            ErrorCode.INVALID_TXN_STATE, "transactions are not served by this version"
        )
    if batch.compression == ZSTD and version < ZSTD_FIRST_VERSION:
        raise RequestRefused(
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"zstd in Produce version {version}"
        )
    return batch


def _refuse(under_way: Produce, row: dict[str, Any], error: IsthmusError) -> None:
    """Put an error into the row of a partition; hang up where nothing can be answered."""
    row["error_code"] = refusal_of(error)
    row["error_message"] = str(error)
    row["base_offset"] = -1
    faults = getattr(error, "record_errors", ())
    if faults:  # [KIP-467]
        row["record_errors"] = [
            {"batch_index": index, "batch_index_error_message": why} for index, why in faults
        ]
    if under_way.acks == ACKS_NONE:
        under_way.call.connection.drop(f"produce with acks=0 failed: {error}")


def init_producer_id(call: Call) -> None:
    """Give an idempotent producer its id [KIP-98].

    63 random bits, like a UUID: unique over restarts and servers with nothing to store. A
    producer that has an id already and asks again (to begin a new epoch, KIP-360) gets another.
    """
    request = call.request
    if request["transactional_id"] is not None:
        # What clients take for final, unlike most codes; see also FindCoordinator.
        denied = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        call.answer({"error_code": denied, "producer_epoch": -1})
        return
    producer_id = int.from_bytes(call.shore.runtime.random_bytes(8), "big") >> 1
    call.answer({"producer_id": producer_id, "producer_epoch": 0})
