"""CreatePartitions and DescribeTopicPartitions: how many partitions a log topic has.

A log topic only grows. A key of the old ones may belong to a new partition afterwards, as in
Apache Kafka, so a reader that relies on the order per key has read what was before first.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import IsthmusError
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import (
    PARTITIONS_MAX,
    TOPIC_OPERATIONS,
    RequestRefused,
    changeable,
    check_assignments,
    existing,
    is_internal,
    partition_row,
    refusal_of,
)
from isthmus.server.kafka_api.throttles import take_partitions
from isthmus.storage.names import check_log_topic

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call

ROWS_MAX: Final = 2000  # of one answer, whatever is asked: max.request.partition.size.limit


def create_partitions(call: Call) -> None:
    """Give log topics more partitions, or only say whether that would go [KIP-195]."""
    request = call.request
    times = Counter(wanted["name"] for wanted in request["topics"])
    answered: dict[str, dict[str, Any]] = {}
    for wanted in request["topics"]:
        name = wanted["name"]
        answered[name] = row = {"name": name, "error_message": None}
        try:
            if times[name] > 1:
                raise RequestRefused(ErrorCode.INVALID_REQUEST, f"{name} is named twice")
            _grow(call, wanted)
        except IsthmusError as error:
            row["error_code"] = refusal_of(error)
            row["error_message"] = str(error)
    call.answer({"results": [*answered.values()]})


def _grow(call: Call, wanted: dict[str, Any]) -> None:
    shore, name, count = call.shore, wanted["name"], wanted["count"]
    before = len(changeable(shore, name).partitions)
    if not before < count <= PARTITIONS_MAX:
        raise RequestRefused(
            ErrorCode.INVALID_PARTITIONS,
            f"{name} has {before} partitions; {count} asked, {PARTITIONS_MAX} possible",
        )
    assignments = wanted["assignments"]
    if assignments is not None:
        if len(assignments) != count - before:
            raise RequestRefused(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"{len(assignments)} assignments for {count - before} new partitions",
            )
        check_assignments(shore, assignments)
    take_partitions(call, count - before)
    if not call.request["validate_only"]:
        shore.log.add_partitions(name, count)
        shore.broker.forget_log_topic()


def describe_topic_partitions(call: Call) -> None:
    """Answer with the partitions of log topics, a bounded number at a time [KIP-966].

    What comes after the bound is told by a cursor, with which the client asks again.
    """
    request = call.request
    cursor = request["cursor"]
    first_name, first_index = "", 0
    if cursor is not None:
        first_name, first_index = cursor["topic_name"], cursor["partition_index"]
    topics = call.shore.log.topics
    names = {one["name"] for one in request["topics"]}
    is_wrong = first_index < 0 or (names and cursor is not None and first_name not in names)
    if is_wrong:
        wrong = ErrorCode.INVALID_REQUEST
        call.answer({"topics": [{"name": name, "error_code": wrong} for name in sorted(names)]})
        return
    left = max(1, min(ROWS_MAX, request["response_partition_limit"]))
    rows: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"topics": rows}
    for name in sorted(name for name in names or topics if name >= first_name):
        start = first_index if name == first_name else 0
        if left == 0:
            answer["next_cursor"] = {"topic_name": name, "partition_index": start}
            break
        row = _described(call, name, start, left)
        rows.append(row)
        listed = len(row.get("partitions", ()))
        left -= listed
        if listed and start + listed < len(topics[name].partitions):
            answer["next_cursor"] = {"topic_name": name, "partition_index": start + listed}
            break
    call.answer(answer)


def _described(call: Call, name: str, start: int, count: int) -> dict[str, Any]:
    try:
        check_log_topic(name)
        log_topic = existing(call.shore, name)
    except IsthmusError as error:
        return {"name": name, "error_code": refusal_of(error)}
    return {
        "name": name,
        "topic_id": log_topic.topic_id,
        "is_internal": is_internal(name),
        "partitions": [
            partition_row(call.shore, partition)
            | {"eligible_leader_replicas": [], "last_known_elr": []}
            for partition in log_topic.partitions[start : start + count]
        ],
        "topic_authorized_operations": TOPIC_OPERATIONS,
    }
