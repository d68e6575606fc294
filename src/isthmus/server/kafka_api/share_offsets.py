"""DescribeShareGroupOffsets, AlterShareGroupOffsets, DeleteShareGroupOffsets [KIP-932].

A share group has no committed offsets; it has a start in each partition, before which all is
done with. Its lag is what lies behind the start and is not done with [KIP-1226].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.share_groups import GroupRefused
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.share_groups import where_enabled

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call

LAG_FIRST_VERSION: Final = 1
NO_ID: Final = bytes(16)


@where_enabled
def describe_share_group_offsets(call: Call) -> None:
    """Answer with where groups are."""
    error = call.shore.share_groups.refusal()
    rows = []
    for group in call.request["groups"]:
        row: dict[str, Any] = {"group_id": group["group_id"], "error_code": error}
        if not error:
            row["topics"] = _topics(call, group["group_id"], group["topics"])
        rows.append(row)
    call.answer({"groups": rows})


def _topics(
    call: Call, group_id: str, topics: list[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """Return where a group is in these log topics; None: in all that it has begun to read."""
    ids = call.shore.topic_ids
    if topics is None:
        topics = [
            {"topic_name": name, "partitions": sorted(indexes)}
            for topic_id, (name, indexes) in call.shore.share_groups.begun(group_id).items()
            if ids.name_of(topic_id) == name
        ]
    return [
        {
            "topic_name": topic["topic_name"],
            "topic_id": ids.id_of(topic["topic_name"]),
            "partitions": [
                _partition(call, group_id, topic["topic_name"], index)
                for index in topic["partitions"]
            ],
        }
        for topic in topics
    ]


def _partition(call: Call, group_id: str, name: str, index: int) -> dict[str, Any]:
    shore = call.shore
    started = shore.share_groups.started(group_id, (shore.topic_ids.id_of(name), index))
    row = {"partition_index": index, "start_offset": started.start_offset, "lag": -1}
    partition = shore.log.partition(name, index)
    if partition is not None:
        row["leader_epoch"] = partition.leader_epoch
        if started.start_offset >= 0 and call.version >= LAG_FIRST_VERSION:
            row["lag"] = partition.end_offset - started.start_offset - started.done_count
    return row


@where_enabled
def alter_share_group_offsets(call: Call) -> None:
    """Set where a group without members starts; it is made, if there is none."""
    request, shore = call.request, call.shore
    starts: dict[tuple[bytes, int], tuple[str, int]] = {}
    waiting, topics = [], []
    for topic in request["topics"]:
        name, rows = topic["topic_name"], []
        topic_id = shore.topic_ids.id_of(name)
        for one in topic["partitions"]:
            index = one["partition_index"]
            row: dict[str, Any] = {"partition_index": index, "error_code": ErrorCode.NONE}
            rows.append(row)
            if shore.log.partition(name, index) is None:
                row["error_code"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                row["error_message"] = f"no partition {index} of {name}"
            else:
                starts[topic_id, index] = (name, max(one["start_offset"], 0))
                waiting.append(row)
        topics.append({"topic_name": name, "topic_id": topic_id, "partitions": rows})

    def stored(code: ErrorCode) -> None:
        for row in waiting:
            row["error_code"] = code
        call.answer({"responses": topics})

    try:
        shore.share_groups.set_starts(request["group_id"], starts, stored)
    except GroupRefused as refused:
        call.answer({"error_code": refused.code, "error_message": str(refused)})


@where_enabled
def delete_share_group_offsets(call: Call) -> None:
    """Forget where a group without members is in log topics."""
    request, shore = call.request, call.shore
    names = [topic["topic_name"] for topic in request["topics"]]
    ids = {name: shore.topic_ids.id_of(name) for name in names}

    def answer(code: ErrorCode) -> None:
        rows = []
        for name in names:
            row: dict[str, Any] = {"topic_name": name, "topic_id": ids[name]}
            row["error_code"] = code
            if ids[name] not in known:
                row["error_code"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                row["error_message"] = f"nothing is kept of {name}"
                row["topic_id"] = NO_ID
            rows.append(row)
        call.answer({"responses": rows})

    begun = shore.share_groups.begun(request["group_id"])
    known = {topic_id for topic_id in ids.values() if topic_id in begun}
    try:
        shore.share_groups.forget_topics(request["group_id"], known, answer)
    except GroupRefused as refused:
        call.answer({"error_code": refused.code, "error_message": str(refused)})
