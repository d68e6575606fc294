"""ConsumerGroupHeartbeat, ConsumerGroupDescribe: the wire form of the consumer protocol.

What a heartbeat may say is checked here [KIP-848]; what it means is in kafka/consumer_group.py,
the groups are in broker/consumer_groups.py.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.features import GROUP
from isthmus.kafka.assignors import ASSIGNORS
from isthmus.kafka.consumer_group import LEAVE_FOR_A_WHILE, ConsumerGroup
from isthmus.kafka.consumer_types import Heartbeat, HeartbeatRefused, Terms, sees_all
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import GROUP_OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.config import KafkaSettings
    from isthmus.kafka.assignors import TopicPlace
    from isthmus.kafka.consumer_types import ConsumerMember, HeartbeatAnswer
    from isthmus.server.kafka_api.call import Call

IDS_FROM_CLIENTS: Final = 1  # ConsumerGroupHeartbeat [KIP-1082]
MEMBER_TYPE_CLASSIC: Final = 0
MEMBER_TYPE_CONSUMER: Final = 1


def consumer_terms(settings: KafkaSettings) -> Terms:
    """Return what holds for groups of the consumer protocol, unless a group says otherwise."""
    return Terms(
        settings.group_consumer_session_timeout_ms,
        settings.group_consumer_heartbeat_interval_ms,
        settings.group_consumer_assignment_interval_ms,
    )


def consumer_group_heartbeat(call: Call) -> None:
    """Take in what a member says, and tell it what it is to know."""

    def reply(answer: HeartbeatAnswer | HeartbeatRefused) -> None:
        call.answer(heartbeat_answer(answer))

    try:
        _check(call)
    except HeartbeatRefused as refused:
        reply(refused)
        return
    call.shore.consumer_groups.heartbeat(call.request["group_id"], _beat(call), reply)


def heartbeat_answer(answer: HeartbeatAnswer | HeartbeatRefused) -> dict[str, Any]:
    """Return an answer in its wire form."""
    if isinstance(answer, HeartbeatRefused):
        return {"error_code": answer.code, "error_message": str(answer)}
    body: dict[str, Any] = {
        "member_id": answer.member_id,
        "member_epoch": answer.epoch,
        "heartbeat_interval_ms": answer.heartbeat_interval_ms,
    }
    if answer.assigned is not None:
        body["assignment"] = {"topic_partitions": by_topic(answer.assigned)}
    return body


def _check(call: Call) -> None:
    """Raise HeartbeatRefused where a heartbeat says what it may not."""
    request, epoch = call.request, call.request["member_epoch"]
    if not call.shore.features.level(GROUP):
        raise HeartbeatRefused(ErrorCode.UNSUPPORTED_VERSION, f"{GROUP} is off")
    if not request["group_id"]:
        raise _invalid("a group has a name")
    if not request["member_id"] and (epoch != 0 or call.version >= IDS_FROM_CLIENTS):
        raise _invalid("a member has an id")
    for name in ("instance_id", "rack_id"):
        if request[name] == "":
            raise _invalid(f"{name} is empty")
    if epoch < LEAVE_FOR_A_WHILE:
        raise _invalid(f"there is no member epoch {epoch}")
    if epoch == LEAVE_FOR_A_WHILE and request["instance_id"] is None:
        raise _invalid("only who has an instance id leaves for a while")
    if epoch == 0:
        _check_join(request)
    assignor = request["server_assignor"]
    if assignor is not None and assignor not in ASSIGNORS:
        raise HeartbeatRefused(
            ErrorCode.UNSUPPORTED_ASSIGNOR, f"{assignor} is none of {', '.join(ASSIGNORS)}"
        )


def _check_join(request: dict[str, Any]) -> None:
    if request["rebalance_timeout_ms"] < 0:
        raise _invalid("who joins says how long it may take to give up partitions")
    if request["topic_partitions"] is None or request["topic_partitions"]:
        raise _invalid("who joins has no partitions, and says so")
    if request["subscribed_topic_names"] is None and request["subscribed_topic_regex"] is None:
        raise _invalid("who joins says what it reads, by names or by a pattern")


def _invalid(text: str) -> HeartbeatRefused:
    return HeartbeatRefused(ErrorCode.INVALID_REQUEST, text)


def _beat(call: Call) -> Heartbeat:
    request = call.request
    names, owned = request["subscribed_topic_names"], request["topic_partitions"]
    fresh = call.shore.runtime.random_bytes(16)
    return Heartbeat(
        request["member_id"] or base64.urlsafe_b64encode(fresh).decode().rstrip("="),
        request["member_epoch"],
        request["instance_id"],
        request["rack_id"],
        call.client_id or "",
        f"/{call.connection.identity.address}",
        request["rebalance_timeout_ms"],
        None if names is None else frozenset(names),
        request["subscribed_topic_regex"],
        request["server_assignor"],
        None
        if owned is None
        else frozenset(
            (one["topic_id"], index) for one in owned for index in one["partitions"]
        ),
        sees_all if call.rights is None else call.rights.may_describe,
    )


def consumer_group_describe(call: Call) -> None:
    """Answer with state and members of each group asked for."""
    call.answer({"groups": [_described(call, name) for name in call.request["group_ids"]]})


def _described(call: Call, group_id: str) -> dict[str, Any]:
    if not call.shore.features.level(GROUP):
        return {"group_id": group_id, "error_code": ErrorCode.UNSUPPORTED_VERSION}
    group = call.shore.groups.described(group_id)
    if not group_id:
        return {"group_id": group_id, "error_code": ErrorCode.INVALID_GROUP_ID}
    if not isinstance(group, ConsumerGroup) or group.kind != ConsumerGroup.kind:
        error = group if isinstance(group, ErrorCode) else ErrorCode.GROUP_ID_NOT_FOUND
        text = f"there is no group {group_id} of the consumer protocol"
        return {"group_id": group_id, "error_code": error, "error_message": text}
    row: dict[str, Any] = {
        "group_id": group_id,
        "group_state": group.state.value,
        "group_epoch": group.epoch,
        "assignment_epoch": group.target_epoch,
        "assignor_name": group.assignor,
        "members": [_member(call, group, one) for one in group.members.values()],
    }
    if call.request["include_authorized_operations"]:
        row["authorized_operations"] = GROUP_OPERATIONS
    return row


def _member(call: Call, group: ConsumerGroup, member: ConsumerMember) -> dict[str, Any]:
    said = member.subscription
    target = group.targets.get(member.member_id, frozenset())
    return {
        "member_id": member.member_id,
        "instance_id": said.instance_id,
        "rack_id": said.rack_id,
        "member_epoch": member.holding.epoch,
        "client_id": said.client_id,
        "client_host": said.client_host,
        "subscribed_topic_names": sorted(said.topic_names),
        "subscribed_topic_regex": said.pattern,
        "assignment": {"topic_partitions": named_places(call, member.holding.assigned)},
        "target_assignment": {"topic_partitions": named_places(call, target)},
        "member_type": MEMBER_TYPE_CONSUMER if said.classic is None else MEMBER_TYPE_CLASSIC,
    }


def by_topic(places: Iterable[TopicPlace]) -> list[dict[str, Any]]:
    """Return partitions gathered by log topic."""
    topics: dict[bytes, list[int]] = {}
    for topic_id, index in sorted(places):
        topics.setdefault(topic_id, []).append(index)
    return [{"topic_id": name, "partitions": indexes} for name, indexes in topics.items()]


def named_places(call: Call, places: Iterable[TopicPlace]) -> list[dict[str, Any]]:
    """Return partitions with the names of log topics, of those that are still there."""
    names = call.shore.topic_ids
    rows = by_topic(places)
    return [
        {**row, "topic_name": name}
        for row in rows
        if (name := names.name_of(row["topic_id"])) is not None
    ]
