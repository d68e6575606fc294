"""ListOffsets and OffsetForLeaderEpoch: which offset is where.

By time the answer is exact per record, also within a compressed batch. The special timestamps
below zero are Kafka's; those about tiered storage have no offset here. To look for a time may
take the disk, so the answers of the partitions come one by one and the response with the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.fetches import epoch_end, epoch_error
from isthmus.kafka.errors import ErrorCode, code_of

if TYPE_CHECKING:
    from isthmus.errors import IsthmusError
    from isthmus.server.kafka_api.call import Call
    from isthmus.storage.log import Partition, TimeFound

READ_COMMITTED: Final = 1
LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3  # [KIP-734]
EARLIEST_LOCAL: Final = -4  # [KIP-405]
LATEST_TIERED: Final = -5  # [KIP-1005]
EARLIEST_PENDING_UPLOAD: Final = -6  # [KIP-1023]
SPECIAL: Final = frozenset(  # what needs no looking
    (LATEST, EARLIEST, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD)
)
FIRST_VERSION: Final = {  # where a time below zero that is not named means nothing
    LATEST: 0,
    EARLIEST: 0,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}
NEVER: Final = 1 << 15
EPOCH_FIRST_VERSION: Final = 4


class _Answer:
    """A response of which some rows may still be to come."""

    __slots__ = ("_body", "_call", "_left")

    def __init__(self, call: Call, body: dict[str, Any], rows: int) -> None:
        self._call = call
        self._body = body
        self._left = rows + 1

    def row_is_done(self) -> None:
        """One row more is as it shall be, or all have been begun."""
        self._left -= 1
        if self._left == 0:
            self._call.answer(self._body)


def list_offsets(call: Call) -> None:
    """Answer with the offset of each time asked for."""
    topics = [
        {
            "name": topic["name"],
            "partitions": [
                {"partition_index": asked["partition_index"]} for asked in topic["partitions"]
            ],
        }
        for topic in call.request["topics"]
    ]
    answer = _Answer(call, {"topics": topics}, sum(len(each["partitions"]) for each in topics))
    for topic, rows in zip(call.request["topics"], topics, strict=True):
        for asked, row in zip(topic["partitions"], rows["partitions"], strict=True):
            _list(call, topic["name"], asked, row, answer)
    answer.row_is_done()


def _list(
    call: Call, name: str, asked: dict[str, Any], row: dict[str, Any], answer: _Answer
) -> None:
    timestamp = asked["timestamp"]
    partition = call.shore.log.partition(name, asked["partition_index"])
    if partition is None:
        row["error_code"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        answer.row_is_done()
        return
    error = epoch_error(partition, asked["current_leader_epoch"])
    if not error and timestamp < 0 and call.version < FIRST_VERSION.get(timestamp, NEVER):
        error = ErrorCode.UNSUPPORTED_VERSION
    if error:
        row["error_code"] = error
        answer.row_is_done()
        return
    is_committed = call.request["isolation_level"] == READ_COMMITTED
    limit = partition.last_stable_offset if is_committed else partition.end_offset

    def tell(found: TimeFound, error: IsthmusError | None) -> None:
        if error is not None:
            row["error_code"] = code_of(error)
        elif found is not None and (timestamp in SPECIAL or found[0] < limit):
            row["offset"], row["timestamp"] = found
            if call.version >= EPOCH_FIRST_VERSION:
                row["leader_epoch"] = _epoch_at(partition, found[0])
        answer.row_is_done()

    if timestamp == MAX_TIMESTAMP:
        partition.offset_for_max_time(tell)
    elif timestamp in SPECIAL:
        tell(_special(partition, timestamp, limit), None)
    else:
        partition.offset_for_time(timestamp, tell)


def _special(partition: Partition, timestamp: int, limit: int) -> TimeFound:
    """Return the offset that one of Kafka's special timestamps stands for."""
    if timestamp == LATEST:
        return limit, -1
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return partition.start_offset, -1
    return None


def _epoch_at(partition: Partition, offset: int) -> int:
    """Return the leader epoch under which the record was written, or would be now."""
    epoch = partition.epoch_at(offset) if offset < partition.end_offset else -1
    return partition.leader_epoch if epoch < 0 else epoch


def offset_for_leader_epoch(call: Call) -> None:
    """Answer where each epoch ended, so that clients notice what was cut off [KIP-320]."""
    topics = []
    for topic in call.request["topics"]:
        rows = []
        for one in topic["partitions"]:
            row: dict[str, Any] = {"partition": one["partition"]}
            partition = call.shore.log.partition(topic["topic"], one["partition"])
            if partition is None:
                row["error_code"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                row["error_code"] = epoch_error(partition, one["current_leader_epoch"])
                if not row["error_code"]:
                    ended = epoch_end(partition, one["leader_epoch"])
                    row["leader_epoch"], row["end_offset"] = ended
            rows.append(row)
        topics.append({"topic": topic["topic"], "partitions": rows})
    call.answer({"topics": topics})
