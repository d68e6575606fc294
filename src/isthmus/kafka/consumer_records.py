"""Rows of consumer and share groups, in the formats that Apache Kafka writes.

Their keys are types 3 to 8 and 16 of `__consumer_offsets`, 10 to 15 for share groups, beside
those of group_records.py; no value means gone. The layouts are in the schema table; here is
only what they mean to us. The digest of log topics is a number of our own: a Kafka broker that
reads it finds another one than its own, and assigns anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.kafka.consumer_types import (
    Begun,
    ClassicTerms,
    GroupRow,
    Holding,
    HoldingRow,
    InitializedRow,
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

CONSUMER: Final = "consumer"  # kinds of groups
SHARE: Final = "share"
_FAMILIES: Final = {CONSUMER: "ConsumerGroup", SHARE: "ShareGroup"}
_NAMES: Final[dict[type[Row], str]] = {
    GroupRow: "Metadata",
    SubscriptionRow: "MemberMetadata",
    TargetEpochRow: "TargetAssignmentMetadata",
    TargetRow: "TargetAssignmentMember",
    HoldingRow: "CurrentMemberAssignment",
    PatternRow: "RegularExpression",
    InitializedRow: "StatePartitionMetadata",
}
_KINDS: Final[dict[int, tuple[str, type[Row]]]] = {
    3: (CONSUMER, GroupRow),
    5: (CONSUMER, SubscriptionRow),
    6: (CONSUMER, TargetEpochRow),
    7: (CONSUMER, TargetRow),
    8: (CONSUMER, HoldingRow),
    16: (CONSUMER, PatternRow),
    10: (SHARE, SubscriptionRow),
    11: (SHARE, GroupRow),
    12: (SHARE, TargetEpochRow),
    13: (SHARE, TargetRow),
    14: (SHARE, HoldingRow),
    15: (SHARE, InitializedRow),
}
# What members of share groups neither say nor have.
_NOT_SHARED: Final = {
    *("classic_member_metadata", "instance_id", "subscribed_topic_regex"),
    *("rebalance_timeout_ms", "server_assignor", "partitions_pending_revocation"),
}


def row_key(group_id: str, row: Row, kind: str = CONSUMER) -> bytes:
    """Return the record key of a row of a group of this kind."""
    body = {"group_id": group_id}
    if isinstance(row, PatternRow):
        body["regular_expression"] = row.pattern
    elif isinstance(row, (SubscriptionRow, TargetRow, HoldingRow)):
        body["member_id"] = row.member_id
    return encode_prefixed(f"{_FAMILIES[kind]}{_NAMES[type(row)]}Key", 0, body)


def row_value(row: Row, now_ms: int, kind: str = CONSUMER) -> bytes | None:
    """Return the record value of a row that is written at this time (wall clock)."""
    if row[-1] is None:
        return None
    body = _body(row, now_ms, kind)
    if kind == SHARE:
        body = {name: value for name, value in body.items() if name not in _NOT_SHARED}
    return encode_prefixed(f"{_FAMILIES[kind]}{_NAMES[type(row)]}Value", 0, body)


def is_row(kind: int) -> bool:
    """Whether records with this type of key are rows of such a group."""
    return kind in _KINDS


def read_row(key: bytes, value: bytes | None) -> tuple[tuple[str, str], Row]:
    """Return id and kind of the group, and the row that a record is. Raises Malformed."""
    kind, row = _KINDS[int.from_bytes(key[:2], "big")]
    name = f"{_FAMILIES[kind]}{_NAMES[row]}"
    about = decode_prefixed(f"{name}Key", key)
    body = None if value is None else decode_prefixed(f"{name}Value", value)
    return (about["group_id"], kind), _read(row, about, body)


def _body(row: Row, now_ms: int, kind: str) -> dict[str, Any]:
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
                "assigned_partitions": _topics(holding.assigned, of_epochs=kind == CONSUMER),
                "partitions_pending_revocation": _topics(holding.revoking),
            }
        case InitializedRow(topics):
            rows = [
                {"topic_id": topic_id, "topic_name": name, "partitions": sorted(indexes)}
                for topic_id, (name, indexes) in (topics or {}).items()
            ]
            return {"initialized_topics": rows}
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
    if kind is InitializedRow:
        topics = () if body is None else body["initialized_topics"]
        return InitializedRow(
            {
                one["topic_id"]: Begun(one["topic_name"], frozenset(one["partitions"]))
                for one in topics
            }
        )
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
        _places(body.get("partitions_pending_revocation", ()), epoch),
    )


def _subscription(body: dict[str, Any]) -> Subscription:
    classic = body.get("classic_member_metadata")
    terms = None
    if classic is not None:
        protocols = [(one["name"], one["metadata"]) for one in classic["supported_protocols"]]
        terms = ClassicTerms(classic["session_timeout_ms"], tuple(protocols))
    return Subscription(
        body.get("instance_id"),
        body["rack_id"],
        body["client_id"],
        body["client_host"],
        body.get("rebalance_timeout_ms", -1),
        frozenset(body["subscribed_topic_names"]),
        body.get("subscribed_topic_regex") or "",
        body.get("server_assignor"),
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
