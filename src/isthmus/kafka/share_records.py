"""What `__share_group_state` holds of a share partition, as Apache Kafka writes it.

A snapshot (key type 0) says all, an update (key type 1) what has changed since the newest
snapshot; a snapshot without a value means gone. Updates of one share partition all have the
same key, so this log topic is not compacted: what snapshots have made superfluous is cut off at
its beginning. The layouts are in the schema table. Not here: when they are written and read
(broker/share_states.py).
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus.errors import Malformed
from isthmus.kafka.frames import decode_prefixed, encode_prefixed
from isthmus.kafka.share_partition import RecordState, StateBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARE_LOG_TOPIC: Final = "__share_group_state"
SHARE_CONFIGS: Final = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "retention.ms": "-1",
    "segment.bytes": "104857600",
}
UNKNOWN: Final = -1  # a start offset that is not decided yet, or has not changed
_SNAPSHOT_KEY: Final = 0
_STATES: Final = {int(state): state for state in RecordState}


class ShareKey(NamedTuple):
    """One partition, for one share group."""

    group_id: str
    topic_id: bytes
    partition: int

    @property
    def text(self) -> str:
        """What decides which partition of the log topic it is kept in, as in Kafka."""
        topic_id = urlsafe_b64encode(self.topic_id).decode().rstrip("=")
        return f"{self.group_id}:{topic_id}:{self.partition}"


class ShareSnapshot(NamedTuple):
    """All that is kept of a share partition."""

    snapshot_epoch: int
    state_epoch: int  # grows when its start is set from outside
    leader_epoch: int
    start_offset: int
    done_count: int
    created_ms: int  # wall clock
    batches: Sequence[StateBatch]


class ShareUpdate(NamedTuple):
    """What has changed since the newest snapshot."""

    snapshot_epoch: int
    leader_epoch: int
    start_offset: int
    done_count: int
    batches: Sequence[StateBatch]


def snapshot_key(key: ShareKey) -> bytes:
    """Return the record key of snapshots."""
    return encode_prefixed("ShareSnapshotKey", 0, _about(key))


def snapshot_value(kept: ShareSnapshot, now_ms: int) -> bytes:
    """Return the record value of a snapshot that is written at this time (wall clock)."""
    body = {
        "snapshot_epoch": kept.snapshot_epoch,
        "state_epoch": kept.state_epoch,
        "leader_epoch": kept.leader_epoch,
        "start_offset": kept.start_offset,
        "delivery_complete_count": kept.done_count,
        "create_timestamp": kept.created_ms,
        "write_timestamp": now_ms,
        "state_batches": _rows(kept.batches),
    }
    return encode_prefixed("ShareSnapshotValue", 0, body)


def update_key(key: ShareKey) -> bytes:
    """Return the record key of updates."""
    return encode_prefixed("ShareUpdateKey", 0, _about(key))


def update_value(changed: ShareUpdate) -> bytes:
    """Return the record value of an update."""
    body = {
        "snapshot_epoch": changed.snapshot_epoch,
        "leader_epoch": changed.leader_epoch,
        "start_offset": changed.start_offset,
        "delivery_complete_count": changed.done_count,
        "state_batches": _rows(changed.batches),
    }
    return encode_prefixed("ShareUpdateValue", 0, body)


def read_share(
    key: bytes, value: bytes | None
) -> tuple[ShareKey, ShareSnapshot | ShareUpdate | None]:
    """Return what a record says of which share partition; None: gone. Raises Malformed."""
    kind = "Snapshot" if int.from_bytes(key[:2], "big") == _SNAPSHOT_KEY else "Update"
    about = decode_prefixed(f"Share{kind}Key", key)
    place = ShareKey(about["group_id"], about["topic_id"], about["partition"])
    if value is None:
        return place, None
    body = decode_prefixed(f"Share{kind}Value", value)
    said = (body["leader_epoch"], body["start_offset"], body["delivery_complete_count"])
    batches = [_batch(one) for one in body["state_batches"]]
    if kind == "Update":
        return place, ShareUpdate(body["snapshot_epoch"], *said, batches)
    epochs = (body["snapshot_epoch"], body["state_epoch"])
    return place, ShareSnapshot(*epochs, *said, body["create_timestamp"], batches)


def _about(key: ShareKey) -> dict[str, Any]:
    return {"group_id": key.group_id, "topic_id": key.topic_id, "partition": key.partition}


def _rows(batches: Sequence[StateBatch]) -> list[dict[str, int]]:
    return [
        {
            "first_offset": one.first,
            "last_offset": one.last,
            "delivery_state": int(one.state),
            "delivery_count": one.deliveries,
        }
        for one in batches
    ]


def _batch(row: dict[str, int]) -> StateBatch:
    state = _STATES.get(row["delivery_state"])
    if state is None or not 0 <= row["first_offset"] <= row["last_offset"]:
        raise Malformed(f"no state of records: {row}")
    return StateBatch(row["first_offset"], row["last_offset"], state, row["delivery_count"])
