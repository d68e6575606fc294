"""What `__consumer_offsets` holds of a group, in the formats that Apache Kafka writes.

One record per committed offset (key type 1) and one per group (key type 2); no value means
gone. So Kafka's own tools read our log, and a directory can be carried to a Kafka broker. The
layouts are in the schema table; here is only what they mean to us. Not here: when they are
written and read (broker/groups.py).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from isthmus.errors import Malformed
from isthmus.kafka.frames import decode_prefixed, encode_prefixed
from isthmus.kafka.group_types import GroupSnapshot, MemberSnapshot

GROUPS_LOG_TOPIC: Final = "__consumer_offsets"
GROUPS_CONFIGS: Final = {
    "cleanup.policy": "compact",
    "compression.type": "producer",
    "segment.bytes": "104857600",
}
_OFFSET_KEY: Final = 1
_GROUP_KEY: Final = 2
_OFFSET_VERSION: Final = 4  # the first that carries the topic id
_GROUP_VERSION: Final = 3


class CommittedOffset(NamedTuple):
    """How far a group has come in one partition, as its client said."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_ms: int
    topic_id: bytes


class OffsetKey(NamedTuple):
    """Whose offset, and where."""

    group_id: str
    log_topic: str
    partition: int


class StoredGroup(NamedTuple):
    """A group, and since when (wall clock) it is in the state it was stored in."""

    snapshot: GroupSnapshot
    since_ms: int


def partition_of(group_id: str, partitions: int) -> int:
    """Return the partition that holds a group: Java's hash of the id, as Kafka does it."""
    number = 0
    encoded = group_id.encode("utf-16-be", "surrogatepass")
    for position in range(0, len(encoded), 2):
        unit = int.from_bytes(encoded[position : position + 2], "big")
        number = (number * 31 + unit) & 0xFFFF_FFFF
    return (number & 0x7FFF_FFFF) % partitions


def offset_key(key: OffsetKey) -> bytes:
    """Return the record key of a committed offset."""
    body = {"group": key.group_id, "topic": key.log_topic, "partition": key.partition}
    return encode_prefixed("OffsetCommitKey", 0, body)


def offset_value(committed: CommittedOffset) -> bytes:
    """Return the record value of a committed offset."""
    return encode_prefixed(
        "OffsetCommitValue",
        _OFFSET_VERSION,
        {
            "offset": committed.offset,
            "leader_epoch": committed.leader_epoch,
            "metadata": committed.metadata,
            "commit_timestamp": committed.commit_ms,
            "topic_id": committed.topic_id,
        },
    )


def group_key(group_id: str) -> bytes:
    """Return the record key of a group."""
    return encode_prefixed("GroupMetadataKey", 0, {"group": group_id})


def group_value(stored: StoredGroup) -> bytes:
    """Return the record value of a group."""
    snapshot = stored.snapshot
    return encode_prefixed(
        "GroupMetadataValue",
        _GROUP_VERSION,
        {
            "protocol_type": snapshot.protocol_type,
            "generation": snapshot.generation,
            "protocol": snapshot.protocol_name,
            "leader": snapshot.leader,
            "current_state_timestamp": stored.since_ms,
            "members": [
                {
                    "member_id": member.member_id,
                    "group_instance_id": member.instance_id,
                    "client_id": member.client_id,
                    "client_host": member.client_host,
                    "rebalance_timeout": member.rebalance_timeout_ms,
                    "session_timeout": member.session_timeout_ms,
                    "subscription": member.subscription,
                    "assignment": member.assignment,
                }
                for member in snapshot.members
            ],
        },
    )


def read_key(data: bytes) -> OffsetKey | str | None:
    """Return what a record is about: an offset, a group by its id, or nothing known here.

    Raises Malformed.
    """
    if len(data) < 2:
        raise Malformed("a record key of a group is too short")
    kind = int.from_bytes(data[:2], "big")
    if kind == _GROUP_KEY:
        return str(decode_prefixed("GroupMetadataKey", data)["group"])
    if kind > _OFFSET_KEY:
        return None
    name = "OffsetCommitKey" if kind == _OFFSET_KEY else "LegacyOffsetCommitKey"
    body = decode_prefixed(name, data)
    return OffsetKey(body["group"], body["topic"], body["partition"])


def read_offset(data: bytes) -> CommittedOffset:
    """Return the committed offset that a record value holds. Raises Malformed."""
    body = decode_prefixed("OffsetCommitValue", data)
    return CommittedOffset(
        body["offset"],
        body["leader_epoch"],
        body["metadata"],
        body["commit_timestamp"],
        body["topic_id"],
    )


def read_group(data: bytes) -> StoredGroup:
    """Return the group that a record value holds. Raises Malformed."""
    body = decode_prefixed("GroupMetadataValue", data)
    members = tuple(
        MemberSnapshot(
            member["member_id"],
            member["group_instance_id"],
            member["client_id"],
            member["client_host"],
            # version 0 had none: then the session timeout stands for it, as in Kafka
            max(member["rebalance_timeout"], 0) or member["session_timeout"],
            member["session_timeout"],
            member["subscription"],
            member["assignment"],
        )
        for member in body["members"]
    )
    snapshot = GroupSnapshot(
        body["protocol_type"], body["generation"], body["protocol"], body["leader"], members
    )
    return StoredGroup(snapshot, body["current_state_timestamp"])
