"""Rows of groups of the consumer protocol, in the formats that Apache Kafka writes.

Their keys are types 3 to 8 and 16 of `__consumer_offsets`, beside those of group_records.py; no
value means gone. The layouts are in the schema table; here is only what they mean to us. The
digest of log topics is a number of our own: a Kafka broker that reads it finds another one than
its own, and assigns anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.kafka.consumer_types import (
    ClassicTerms,
    GroupRow,
    Holding,
    HoldingRow,
    MemberState,
    PatternRow,
    Row,
    Subscription,
    SubscriptionRow,
    TargetEpochRow,
    TargetRow,
)
from isthmus.kafka.frames import decode_prefixed, encode_prefixed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.kafka.assignors import TopicPlace
    from isthmus.kafka.consumer_types import Held

_NAMES: Final[dict[type[Row], str]] = {
    GroupRow: "ConsumerGroupMetadata",
    SubscriptionRow: "ConsumerGroupMemberMetadata",
    TargetEpochRow: "ConsumerGroupTargetAssignmentMetadata",
    TargetRow: "ConsumerGroupTargetAssignmentMember",
    HoldingRow: "ConsumerGroupCurrentMemberAssignment",
    PatternRow: "ConsumerGroupRegularExpression",
}
_KINDS: Final[dict[int, type[Row]]] = {
    3: GroupRow,
    5: SubscriptionRow,
    6: TargetEpochRow,
    7: TargetRow,
    8: HoldingRow,
    16: PatternRow,
}


def row_key(group_id: str, row: Row) -> bytes:
    """Return the record key of a row."""
    body = {"group_id": group_id}
    if isinstance(row, PatternRow):
        body["regular_expression"] = row.pattern
    elif isinstance(row, (SubscriptionRow, TargetRow, HoldingRow)):
        body["member_id"] = row.member_id
    return encode_prefixed(f"{_NAMES[type(row)]}Key", 0, body)


def row_value(row: Row, now_ms: int) -> bytes | None:
    """Return the record value of a row that is written at this time (wall clock)."""
    if row[-1] is None:
        return None
    return encode_prefixed(f"{_NAMES[type(row)]}Value", 0, _body(row, now_ms))


def is_row(kind: int) -> bool:
    """Whether records with this type of key are rows of such a group."""
    return kind in _KINDS


def read_row(key: bytes, value: bytes | None) -> tuple[str, Row]:
    """Return the group, and the row that a record is. Raises Malformed."""
    kind = _KINDS[int.from_bytes(key[:2], "big")]
    about = decode_prefixed(f"{_NAMES[kind]}Key", key)
    body = None if value is None else decode_prefixed(f"{_NAMES[kind]}Value", value)
    return about["group_id"], _read(kind, about, body)


def _body(row: Row, now_ms: int) -> dict[str, Any]:
    match row:
        case GroupRow(digest, epoch):
            return {"epoch": epoch, "metadata_hash": digest}
        case TargetEpochRow(epoch):
            return {"assignment_epoch": epoch, "assignment_timestamp": now_ms}
        case TargetRow(_, places):
            return {
                "topic_partitions": _topics(dict.fromkeys(places or (), 0), of_epochs=False)
            }
        case HoldingRow(_, holding):
            assert holding is not None
            return {
                "member_epoch": holding.epoch,
                "previous_member_epoch": holding.previous_epoch,
                "state": int(holding.state),
                "assigned_partitions": _topics(holding.assigned),
                "partitions_pending_revocation": _topics(holding.revoking),
            }
        case PatternRow(_, names):
            return {"topics": sorted(names or ()), "version": 0, "timestamp": now_ms}
        case SubscriptionRow(_, subscription):
            assert subscription is not None
            return _subscription_body(subscription)


def _subscription_body(said: Subscription) -> dict[str, Any]:
    classic = said.classic
    return {
        "classic_member_metadata": None
        if classic is None
        else {
            "session_timeout_ms": classic.session_timeout_ms,
            "supported_protocols": [
                {"name": name, "metadata": metadata} for name, metadata in classic.protocols
            ],
        },
        "instance_id": said.instance_id,
        "rack_id": said.rack_id,
        "client_id": said.client_id,
        "client_host": said.client_host,
        "subscribed_topic_names": sorted(said.topic_names),
        "subscribed_topic_regex": said.pattern,
        "rebalance_timeout_ms": said.rebalance_timeout_ms,
        "server_assignor": said.assignor,
    }


def _read(kind: type[Row], about: dict[str, Any], body: dict[str, Any] | None) -> Row:
    if kind is GroupRow:
        return (
            GroupRow(0, None)
            if body is None
            else GroupRow(body["metadata_hash"], body["epoch"])
        )
    if kind is TargetEpochRow:
        return TargetEpochRow(None if body is None else body["assignment_epoch"])
    if kind is PatternRow:
        pattern = about["regular_expression"]
        return PatternRow(pattern, None if body is None else frozenset(body["topics"]))
    member_id = about["member_id"]
    if kind is TargetRow:
        places = None if body is None else frozenset(_places(body["topic_partitions"], 0))
        return TargetRow(member_id, places)
    if kind is HoldingRow:
        return HoldingRow(member_id, None if body is None else _holding(body))
    return SubscriptionRow(member_id, None if body is None else _subscription(body))


def _holding(body: dict[str, Any]) -> Holding:
    epoch = body["member_epoch"]
    return Holding(
        epoch,
        body["previous_member_epoch"],
        MemberState(body["state"]) if body["state"] in set(MemberState) else MemberState.STABLE,
        _places(body["assigned_partitions"], epoch),
        _places(body["partitions_pending_revocation"], epoch),
    )


def _subscription(body: dict[str, Any]) -> Subscription:
    classic = body["classic_member_metadata"]
    terms = None
    if classic is not None:
        protocols = [(one["name"], one["metadata"]) for one in classic["supported_protocols"]]
        terms = ClassicTerms(classic["session_timeout_ms"], tuple(protocols))
    return Subscription(
        body["instance_id"],
        body["rack_id"],
        body["client_id"],
        body["client_host"],
        body["rebalance_timeout_ms"],
        frozenset(body["subscribed_topic_names"]),
        body["subscribed_topic_regex"] or "",
        body["server_assignor"],
        terms,
    )


def _topics(held: Held, *, of_epochs: bool = True) -> list[dict[str, Any]]:
    """Return partitions by log topic, with the epochs that they were assigned in."""
    topics: dict[bytes, dict[str, Any]] = {}
    for (topic_id, index), epoch in sorted(held.items()):
        row = topics.setdefault(topic_id, {"topic_id": topic_id, "partitions": []})
        row["partitions"].append(index)
        if of_epochs:
            row.setdefault("assignment_epochs", []).append(epoch)
    return [*topics.values()]


def _places(topics: Iterable[dict[str, Any]], epoch: int) -> dict[TopicPlace, int]:
    """Return partitions, each with its epoch; those before KIP-1251 have that of the member."""
    held = {}
    for topic in topics:
        epochs = topic.get("assignment_epochs") or [epoch] * len(topic["partitions"])
        for index, since in zip(topic["partitions"], epochs, strict=False):
            held[topic["topic_id"], index] = since
    return held
