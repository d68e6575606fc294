"""ListOffsets and OffsetForLeaderEpoch: which offset is where.

By time the answer is exact per record, also within a compressed batch. The special timestamps
below zero are Kafka's; those about tiered storage have no offset here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.fetches import epoch_end, epoch_error
from isthmus.errors import IsthmusError
from isthmus.kafka.errors import ErrorCode, code_of

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call
    from isthmus.storage.log import Partition

READ_COMMITTED: Final = 1
LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3  # [KIP-734]
EARLIEST_LOCAL: Final = -4  # [KIP-405]
LATEST_TIERED: Final = -5  # [KIP-1005]
EARLIEST_PENDING_UPLOAD: Final = -6  # [KIP-1023]
FIRST_VERSION: Final = {
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}
EPOCH_FIRST_VERSION: Final = 4
_EPOCH = struct.Struct(">i")
_EPOCH_POSITION: Final = 12  # in a record batch

Found = tuple[int, int] | None  # offset and timestamp, -1 where it has none


def list_offsets(call: Call) -> None:
    """Answer with the offset of each time asked for."""
    is_committed = call.request["isolation_level"] == READ_COMMITTED
    topics = []
    for topic in call.request["topics"]:
        rows = [
            _listed(call, topic["name"], one, is_committed=is_committed)
            for one in topic["partitions"]
        ]
        topics.append({"name": topic["name"], "partitions": rows})
    call.answer({"topics": topics})


def _listed(
    call: Call, name: str, asked: dict[str, Any], *, is_committed: bool
) -> dict[str, Any]:
    row: dict[str, Any] = {"partition_index": asked["partition_index"]}
    timestamp = asked["timestamp"]
    partition = call.shore.log.partition(name, asked["partition_index"])
    if partition is None:
        row["error_code"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return row
    error = epoch_error(partition, asked["current_leader_epoch"])
    if not error and call.version < FIRST_VERSION.get(timestamp, 0):
        error = ErrorCode.UNSUPPORTED_VERSION
    if error:
        row["error_code"] = error
        return row
    limit = partition.last_stable_offset if is_committed else partition.end_offset
    try:
        found = _find(partition, timestamp, limit)
        if found is not None:
            row["offset"], row["timestamp"] = found
            if call.version >= EPOCH_FIRST_VERSION:
                row["leader_epoch"] = _epoch_at(partition, found[0])
    except IsthmusError as failure:
        row["error_code"] = code_of(failure)
    return row


def _find(partition: Partition, timestamp: int, limit: int) -> Found:
    if timestamp == LATEST:
        return limit, -1
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return partition.start_offset, -1
    if timestamp in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        return None
    if timestamp == MAX_TIMESTAMP:
        found = partition.offset_for_max_time()
    else:
        found = partition.offset_for_time(timestamp)
    return found if found is not None and found[0] < limit else None


def _epoch_at(partition: Partition, offset: int) -> int:
    """Return the leader epoch under which the record was written."""
    if offset < partition.end_offset:
        buffers = partition.read(offset, 1).buffers
        if buffers:
            return int(_EPOCH.unpack_from(buffers[0], _EPOCH_POSITION)[0])
    return partition.leader_epoch


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
