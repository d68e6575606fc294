"""Whether a batch may be appended: the rules of its log topic, checked once, at the edge.

The rules are those of Apache Kafka's `LogValidator`. The header answers most of them; then the
records are walked, decompressed where they are compressed, because behind a valid checksum may
stand what no reader gets past. Believed is a header that states a smaller maximum timestamp
than its records have: only its own producer is misled by that.

A batch that this server has built itself (`check_trusted`) may be a control batch, is not bound
in time, and its checksum is not computed a second time. Sequence numbers are not looked at
here, see producers.py.

What has passed is stored as it came, byte for byte, unless the log topic has LogAppendTime or
names a codec (`compression.type`): then the batch is rewritten in place. Control batches are
never compressed. What a batch may become when it is decompressed is bounded for all batches
alike (`record.batch.RECORDS_BYTES_MAX`).

Here, too, stands which records may be deleted: those of log topics from which old records go
anyway. Compiled, see `validation.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.errors import (
    BatchRefused,
    BatchTooLarge,
    CorruptBatch,
    OffsetOutOfRange,
    PolicyViolation,
    TimestampInvalid,
)
from isthmus.record.batch import RecordReader
from isthmus.storage.topic_configs import AS_SENT

if TYPE_CHECKING:
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition
    from isthmus.storage.topic_configs import TopicConfig

END: Final = -1  # in place of an offset
RECORD_ERRORS_MAX: Final = 100  # named in one refusal; the rest is left out
_CONTROL: Final = 0x20
_TRANSACTIONAL: Final = 0x10
_LOG_APPEND_TIME: Final = 0x08
_UNUSUAL: Final = _CONTROL | _TRANSACTIONAL | _LOG_APPEND_TIME


def check_batch(batch: RecordBatch, config: TopicConfig, now_ms: int) -> None:
    """Raise BatchRefused, BatchTooLarge, TimestampInvalid or CorruptBatch; else make it fit.

    The batch changes only where the log topic has LogAppendTime, then it gets `now_ms`, or a
    codec that is not the producer's.
    """
    _check_size(batch, config)
    batch.verify()
    if batch.count != batch.last_offset_delta + 1:
        raise BatchRefused(
            f"{batch.count} records but the last offset delta is {batch.last_offset_delta}"
        )
    if batch.attributes & _UNUSUAL or batch.producer_id >= 0:
        _check_producer(batch)
    _check_records(batch)
    if config.compacts:
        _check_keys(batch)
    if config.rewrites:
        if not config.log_append_time:
            _check_timestamps(batch, config, now_ms)
        _rewrite(batch, config, now_ms)
    else:
        _check_timestamps(batch, config, now_ms)


def check_trusted(batch: RecordBatch, config: TopicConfig, now_ms: int) -> None:
    """Do the same for a batch that this server has built. Raises BatchTooLarge."""
    _check_size(batch, config)
    if config.rewrites:
        _rewrite(batch, config, now_ms)


def _rewrite(batch: RecordBatch, config: TopicConfig, now_ms: int) -> None:
    """Give a batch the codec and the time of its log topic; both are under the checksum."""
    codec = config.codec
    if codec not in (AS_SENT, batch.compression) and not batch.attributes & _CONTROL:
        batch.recompress(codec, config.codec_level)
        _check_size(batch, config)
    if config.log_append_time:
        batch.set_log_append_time(now_ms)


def _check_timestamps(batch: RecordBatch, config: TopicConfig, now_ms: int) -> None:
    latest = now_ms + config.after_ms_max
    if batch.max_timestamp > latest or (
        min(batch.base_timestamp, batch.max_timestamp) < now_ms - config.before_ms_max
    ):
        _refuse_timestamps(batch, now_ms - config.before_ms_max, latest)


def _check_size(batch: RecordBatch, config: TopicConfig) -> None:
    if batch.size > config.batch_bytes_max:
        raise BatchTooLarge(
            f"a batch of {batch.size} bytes, max.message.bytes is {config.batch_bytes_max}"
        )


def _check_producer(batch: RecordBatch) -> None:
    if batch.attributes & _CONTROL:
        raise BatchRefused("clients may not write control batches")
    if batch.attributes & _LOG_APPEND_TIME:
        raise BatchRefused("the time of arrival is not the client's to set")
    if batch.producer_id >= 0:
        if batch.base_sequence < 0 or batch.producer_epoch < 0:
            raise BatchRefused(
                f"producer {batch.producer_id} sent epoch {batch.producer_epoch} and "
                f"sequence {batch.base_sequence}"
            )
    elif batch.attributes & _TRANSACTIONAL:
        raise BatchRefused("a transactional batch without a producer id")


def _check_records(batch: RecordBatch) -> None:
    try:
        batch.verify_records()
    except CorruptBatch as error:  # not damaged on the way: it would come again as it is
        raise BatchRefused(f"the records cannot be read: {error}") from None


def _check_keys(batch: RecordBatch) -> None:
    """Every record of a compacted log topic needs a key: it says what it replaces."""
    reader = RecordReader(batch)
    faults = []
    while reader.advance():
        if reader.record().key is None:
            faults.append((reader.offset - batch.base_offset, "a record without a key"))
    if faults:
        message = f"{len(faults)} records without a key, in a compacted log topic"
        raise _naming(BatchRefused(message), faults)


def _refuse_timestamps(batch: RecordBatch, earliest: int, latest: int) -> None:
    reader = RecordReader(batch)
    faults = []
    while reader.advance():
        if not earliest <= reader.timestamp <= latest:
            why = f"timestamp {reader.timestamp} is not from {earliest} to {latest}"
            faults.append((reader.offset - batch.base_offset, why))
    message = f"timestamps up to {batch.max_timestamp} are not all from {earliest} to {latest}"
    raise _naming(TimestampInvalid(message), faults)


def _naming(refusal: BatchRefused, faults: list[tuple[int, str]]) -> BatchRefused:
    refusal.record_errors = tuple(faults[:RECORD_ERRORS_MAX])
    return refusal


def check_start(partition: Partition, offset: int) -> int:
    """Return where a partition is to begin for `delete_before(offset)`.

    Raises PolicyViolation where records only go when newer ones replace them, OffsetOutOfRange
    for an offset after the end, or below zero and not `END`.
    """
    if not partition.config.deletes:
        raise PolicyViolation(
            f"records of {partition.log_topic} cannot be deleted: cleanup.policy is not delete"
        )
    if offset == END:
        return partition.end_offset
    if not 0 <= offset <= partition.end_offset:
        raise OffsetOutOfRange(f"offset {offset} is not from 0 to {partition.end_offset}")
    return offset
