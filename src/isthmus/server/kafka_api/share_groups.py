"""ShareGroupHeartbeat, ShareGroupDescribe: the wire form of share groups' members [KIP-932].

What a heartbeat may say is checked here; what it means is in kafka/share_group.py, the groups
are in broker/share_groups.py.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from isthmus.broker.features import SHARE
from isthmus.broker.group_configs import ShareTerms
from isthmus.broker.share_sessions import Member
from isthmus.kafka.consumer_group import LEAVE
from isthmus.kafka.consumer_types import Heartbeat, HeartbeatRefused
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.share_group import ShareGroup
from isthmus.server.kafka_api.consumer_groups import heartbeat_answer, named_places
from isthmus.server.kafka_api.log_topics import GROUP_OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.config import KafkaSettings
    from isthmus.kafka.consumer_types import ConsumerMember, HeartbeatAnswer
    from isthmus.server.kafka_api.call import Call


def share_terms(settings: KafkaSettings) -> ShareTerms:
    """Return what holds for share groups, unless a group says otherwise."""
    return ShareTerms(
        settings.group_share_session_timeout_ms,
        settings.group_share_heartbeat_interval_ms,
        settings.group_share_assignment_interval_ms,
        settings.group_share_record_lock_duration_ms,
        settings.group_share_delivery_count_limit,
        settings.group_share_partition_max_record_locks,
    )


def where_enabled(serve: Callable[[Call], None]) -> Callable[[Call], None]:
    """Refuse a request of share groups while that feature is off, as Apache Kafka does."""

    @wraps(serve)
    def handle(call: Call) -> None:
        if call.shore.features.level(SHARE):
            serve(call)
            return
        request, refused = call.request, {"error_code": ErrorCode.UNSUPPORTED_VERSION}
        groups = request.get("groups", ())
        names = request.get("group_ids", [one["group_id"] for one in groups])
        rows = [{"group_id": name, **refused} for name in names]
        call.answer({"groups": rows} if rows else {**refused})

    return handle


@where_enabled
def share_group_heartbeat(call: Call) -> None:
    """Take in what a member says, and tell it what it is to know."""
    request = call.request
    group_id, member_id = request["group_id"], request["member_id"]

    def reply(answer: HeartbeatAnswer | HeartbeatRefused) -> None:
        if request["member_epoch"] == LEAVE and not isinstance(answer, HeartbeatRefused):
            member = Member(group_id, member_id)
            call.shore.share_sessions.close(member)
            call.shore.share_fetches.release(member)
        call.answer(heartbeat_answer(answer))

    try:
        _check(request)
    except HeartbeatRefused as refused:
        reply(refused)
        return
    names = request["subscribed_topic_names"]
    beat = Heartbeat(
        member_id,
        request["member_epoch"],
        None,
        request["rack_id"],
        call.client_id or "",
        f"/{call.connection.identity.address}",
        rebalance_timeout_ms=0,
        topic_names=None if names is None else frozenset(names),
        pattern=None,
        assignor=None,
        owned=frozenset(),
    )
    call.shore.share_groups.heartbeat(group_id, beat, reply)


def _check(request: dict[str, Any]) -> None:
    """Raise HeartbeatRefused where a heartbeat says what it may not."""
    why = ""
    if not request["group_id"]:
        why = "a group has a name"
    elif not request["member_id"]:
        why = "a member has an id"
    elif request["rack_id"] == "":
        why = "rack_id is empty"
    elif request["member_epoch"] < LEAVE:
        why = f"there is no member epoch {request['member_epoch']}"
    elif request["member_epoch"] == 0 and not request["subscribed_topic_names"]:
        why = "who joins says what it reads"
    if why:
        raise HeartbeatRefused(ErrorCode.INVALID_REQUEST, why)


@where_enabled
def share_group_describe(call: Call) -> None:
    """Answer with state and members of each group asked for."""
    call.answer({"groups": [_described(call, name) for name in call.request["group_ids"]]})


def _described(call: Call, group_id: str) -> dict[str, Any]:
    if not group_id:
        return {"group_id": group_id, "error_code": ErrorCode.INVALID_GROUP_ID}
    group = call.shore.groups.described(group_id)
    if not isinstance(group, ShareGroup):
        error = group if isinstance(group, ErrorCode) else ErrorCode.GROUP_ID_NOT_FOUND
        text = f"there is no share group {group_id}"
        return {"group_id": group_id, "error_code": error, "error_message": text}
    row: dict[str, Any] = {
        "group_id": group_id,
        "group_state": group.state.value,
        "group_epoch": group.epoch,
        "assignment_epoch": group.target_epoch,
        "assignor_name": group.assignor,
        "members": [_member(call, one) for one in group.members.values()],
    }
    if call.request["include_authorized_operations"]:
        row["authorized_operations"] = GROUP_OPERATIONS
    return row


def _member(call: Call, member: ConsumerMember) -> dict[str, Any]:
    said = member.subscription
    return {
        "member_id": member.member_id,
        "rack_id": said.rack_id,
        "member_epoch": member.holding.epoch,
        "client_id": said.client_id,
        "client_host": said.client_host,
        "subscribed_topic_names": sorted(said.topic_names),
        "assignment": {"topic_partitions": named_places(call, member.holding.assigned)},
    }
