"""OffsetCommit, OffsetFetch, OffsetDelete: how far groups have come.

From version 10 on log topics are named by id. A commit is answered when it is durable,
partition by partition; what a client notes beside an offset comes back as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.pending_offsets import UNSTABLE
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group_records import CommittedOffset

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call

BY_ID: Final = 10
KNOWS_EPOCHS: Final = 9  # of members, and that there is no such group [KIP-848]
MANY_GROUPS: Final = 8  # OffsetFetch [KIP-709]
GROUP_ERROR: Final = 2  # OffsetFetch: an error of the group as a whole
METADATA_CHARACTERS_MAX: Final = 4_096

Offsets = dict[tuple[str, int], CommittedOffset]


def offset_commit(call: Call) -> None:
    """Store offsets of a group."""
    request = call.request
    offsets: Offsets = {}
    waiting: list[dict[str, Any]] = []  # rows whose code the group decides
    topics = [commit_topic(call, topic, offsets, waiting) for topic in request["topics"]]

    def reply(code: ErrorCode) -> None:
        if code is ErrorCode.GROUP_ID_NOT_FOUND and call.version < KNOWS_EPOCHS:
            code = ErrorCode.ILLEGAL_GENERATION
        for row in waiting:
            row["error_code"] = code
        call.answer({"topics": topics})

    if not waiting:
        call.answer({"topics": topics})
        return
    member = (
        request["member_id"],
        request["group_instance_id"],
        request["generation_id_or_member_epoch"],
    )
    knows_epochs = call.version >= KNOWS_EPOCHS
    call.shore.group_offsets.commit(
        request["group_id"], member, offsets, reply, knows_epochs=knows_epochs
    )


def commit_topic(
    call: Call, topic: dict[str, Any], offsets: Offsets, waiting: list[dict[str, Any]]
) -> dict[str, Any]:
    """Gather the offsets of one log topic; return its part of the response."""
    shore, by_id = call.shore, call.version >= BY_ID
    name = shore.topic_ids.name_of(topic["topic_id"]) if by_id else topic["name"]
    log_topic = None if name is None else shore.log.topics.get(name)
    now_ms = shore.runtime.now_ms()
    rows = []
    for one in topic["partitions"]:
        index = one["partition_index"]
        row = {"partition_index": index, "error_code": ErrorCode.NONE}
        rows.append(row)
        note = one["committed_metadata"] or ""
        if name is None:
            row["error_code"] = ErrorCode.UNKNOWN_TOPIC_ID
        elif log_topic is None or not 0 <= index < len(log_topic.partitions):
            row["error_code"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        elif len(note) > METADATA_CHARACTERS_MAX:
            row["error_code"] = ErrorCode.OFFSET_METADATA_TOO_LARGE
        else:
            waiting.append(row)
            offsets[name, index] = CommittedOffset(
                one["committed_offset"],
                one["committed_leader_epoch"],
                note,
                now_ms,
                log_topic.topic_id,
            )
    named = {"topic_id": topic["topic_id"]} if by_id else {"name": topic["name"]}
    return {**named, "partitions": rows}


def offset_fetch(call: Call) -> None:
    """Answer with what groups have committed."""
    request = call.request
    if call.version >= MANY_GROUPS:
        groups = [
            _fetch_group(
                call, one["group_id"], one["topics"], (one["member_id"], one["member_epoch"])
            )
            for one in request["groups"]
        ]
        call.answer({"groups": groups})
        return
    found = _fetch_group(call, request["group_id"], request["topics"])
    error = found.get("error_code", ErrorCode.NONE)
    response = {"topics": found["topics"]}
    if error and call.version >= GROUP_ERROR:
        response["error_code"] = error
    elif error:
        response["topics"] = [
            {
                "name": topic["name"],
                "partitions": [
                    {**_offset_row(index, None), "error_code": error}
                    for index in topic["partition_indexes"]
                ],
            }
            for topic in request["topics"]
        ]
    call.answer(response)


def _fetch_group(
    call: Call,
    group_id: str,
    topics: list[dict[str, Any]] | None,
    member: tuple[str | None, int] = (None, -1),
) -> dict[str, Any]:
    """Return one group's part of the response; `topics` None means all."""
    named = {"group_id": group_id} if call.version >= MANY_GROUPS else {}
    stable = call.request["require_stable"]
    offsets = call.shore.group_offsets.committed(group_id, *member, stable=stable)
    if isinstance(offsets, ErrorCode):
        return {**named, "error_code": offsets, "topics": []}
    if topics is None:
        return {**named, "topics": _all_topics(call, offsets)}
    return {**named, "topics": [_fetch_topic(call, offsets, topic) for topic in topics]}


def _fetch_topic(call: Call, offsets: Offsets, topic: dict[str, Any]) -> dict[str, Any]:
    indexes = topic["partition_indexes"]
    if call.version < BY_ID:
        name = topic["name"]
        rows = [_offset_row(index, offsets.get((name, index))) for index in indexes]
        return {"name": name, "partitions": rows}
    known = call.shore.topic_ids.name_of(topic["topic_id"])
    if known is None:
        unknown = {"error_code": ErrorCode.UNKNOWN_TOPIC_ID}
        rows = [{**_offset_row(index, None), **unknown} for index in indexes]
    else:
        rows = [_offset_row(index, offsets.get((known, index))) for index in indexes]
    return {"topic_id": topic["topic_id"], "partitions": rows}


def _all_topics(call: Call, offsets: Offsets) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for (name, index), committed in sorted(offsets.items()):
        found.setdefault(name, []).append(_offset_row(index, committed))
    if call.version < BY_ID:
        return [{"name": name, "partitions": rows} for name, rows in found.items()]
    return [
        {"topic_id": call.shore.topic_ids.id_of(name), "partitions": rows}
        for name, rows in found.items()
        if name in call.shore.log.topics
    ]


def _offset_row(index: int, committed: CommittedOffset | None) -> dict[str, Any]:
    if committed is None or committed is UNSTABLE:
        code = ErrorCode.NONE if committed is None else ErrorCode.UNSTABLE_OFFSET_COMMIT
        nothing = {"committed_offset": -1, "metadata": ""}
        return {"partition_index": index, **nothing, "error_code": code}
    return {
        "partition_index": index,
        "committed_offset": committed.offset,
        "committed_leader_epoch": committed.leader_epoch,
        "metadata": committed.metadata,
    }


def offset_delete(call: Call) -> None:
    """Forget offsets of a group that reads the log topics no more [KIP-496]."""
    places: dict[tuple[str, int], dict[str, Any]] = {}
    topics = []
    for topic in call.request["topics"]:
        name, rows = topic["name"], []
        for one in topic["partitions"]:
            index = one["partition_index"]
            row = {"partition_index": index, "error_code": ErrorCode.NONE}
            rows.append(row)
            if call.shore.log.partition(name, index) is None:
                row["error_code"] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                places[name, index] = row
        topics.append({"name": name, "partitions": rows})

    def reply(codes: dict[tuple[str, int], ErrorCode] | ErrorCode) -> None:
        if isinstance(codes, ErrorCode):
            call.answer({"error_code": codes})
            return
        for place, code in codes.items():
            places[place]["error_code"] = code
        call.answer({"topics": topics})

    call.shore.group_offsets.delete(call.request["group_id"], places, reply)
