"""What the records of the server's own log topics say, for people.

Those of groups, sessions, retained messages, bans, rules of access and delegation tokens are
written in forms of their own (kafka/group_records.py, broker/session_records.py, mapping.py,
bans.py, kept_rules.py, delegation.py); each decoder here turns a record into a small dict. A
record that cannot be decoded is told as such and stops nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from isthmus.broker.bans import BANS_LOG_TOPIC, read_terms
from isthmus.broker.client_metrics import METRICS_LOG_TOPIC
from isthmus.broker.delegation import TOKENS_LOG_TOPIC, read_kept
from isthmus.broker.features import FEATURES_LOG_TOPIC
from isthmus.broker.group_configs import CONFIGS_LOG_TOPIC
from isthmus.broker.kept_rules import ACCESS_LOG_TOPIC, read_added
from isthmus.broker.quotas import QUOTAS_LOG_TOPIC
from isthmus.broker.retained import RETAINED_LOG_TOPIC
from isthmus.broker.server_configs import SERVER_LOG_TOPIC
from isthmus.broker.session_log import SESSIONS_LOG_TOPIC
from isthmus.broker.session_records import (
    CHECKPOINT_KEY,
    GROUP_KEY,
    KIND_FILTER,
    KIND_QUEUE,
    KIND_WILL,
    MARKS_KEY,
    GroupState,
    Marks,
    QueuePart,
    SessionState,
    SubscriptionTerms,
    WillTerms,
    decode,
    split_key,
)
from isthmus.broker.users import SECRET_KEY, USERS_LOG_TOPIC, parse_user
from isthmus.errors import ConfigError, CorruptBatch, Malformed
from isthmus.kafka.consumer_records import is_row, read_row
from isthmus.kafka.group_records import (
    GROUPS_LOG_TOPIC,
    OffsetKey,
    read_group,
    read_key,
    read_offset,
)
from isthmus.kafka.share_records import SHARE_LOG_TOPIC, read_share
from isthmus.record.markers import read_marker
from isthmus.storage.local.checkpoints import id_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.record.batch import Record, RecordBatch


def decoded(log_topic: str, batch: RecordBatch, record: Record) -> dict[str, Any] | None:
    """Return what a record says, or None where that is its user's business."""
    try:
        if batch.is_control:
            return marker(batch)
        decoder = DECODERS.get(log_topic)
        return None if decoder is None else decoder(record)
    except (CorruptBatch, Malformed, UnicodeDecodeError) as error:
        return {"undecodable": str(error)}


def marker(batch: RecordBatch) -> dict[str, Any]:
    """The end of a transaction."""
    found = read_marker(batch)
    if found is None:
        return {"marker": "of a kind not known here"}
    ends = "commit" if found.commits else "abort"
    return {"marker": ends, "coordinator_epoch": found.coordinator_epoch}


def group_record(record: Record) -> dict[str, Any]:
    """A committed offset, a group with its members, or a row of one (KIP-848)."""
    if is_row(int.from_bytes((record.key or b"")[:2], "big")):
        (group_id, kind), row = read_row(record.key or b"", record.value)
        which = {"group_id": group_id, "kind": kind, "row": type(row).__name__}
        return {**which, **plain(row._asdict())}
    key = read_key(record.key or b"")
    if key is None:
        return {"undecodable": "a key of a kind not known here"}
    if isinstance(key, OffsetKey):
        about: dict[str, Any] = key._asdict()
        if record.value is None:
            return {**about, "removed": True}
        offset = read_offset(record.value)
        return {**about, **offset._asdict(), "topic_id": id_text(offset.topic_id)}
    if record.value is None:
        return {"group_id": key, "removed": True}
    group = read_group(record.value)
    snapshot = group.snapshot
    return {
        "group_id": key,
        "protocol_type": snapshot.protocol_type,
        "protocol": snapshot.protocol_name,
        "generation": snapshot.generation,
        "leader": snapshot.leader,
        "since_ms": group.since_ms,
        "members": [member.member_id for member in snapshot.members],
    }


def share_record(record: Record) -> dict[str, Any]:
    """What is kept of a partition for a share group (KIP-932)."""
    key, said = read_share(record.key or b"", record.value)
    about: dict[str, Any] = {**key._asdict(), "topic_id": id_text(key.topic_id)}
    if said is None:
        return {**about, "removed": True}
    batches = [{**one._asdict(), "state": one.state.name.lower()} for one in said.batches]
    return {**about, "row": type(said).__name__, **said._asdict(), "batches": batches}


def group_configs_record(record: Record) -> dict[str, Any]:
    """The settings of one group."""
    return settings_of({"group_id": (record.key or b"").decode()}, record)


def server_configs_record(record: Record) -> dict[str, Any]:
    """What was set for all brokers, or for this one."""
    return settings_of({"broker": (record.key or b"").decode() or "all"}, record)


def features_record(record: Record) -> dict[str, Any]:
    """The levels of all features."""
    return settings_of({"features": (record.key or b"").decode()}, record)


def client_metrics_record(record: Record) -> dict[str, Any]:
    """A subscription to metrics of clients."""
    return settings_of({"subscription": (record.key or b"").decode()}, record)


def quota_record(record: Record) -> dict[str, Any]:
    """The limits of one entity."""
    return settings_of({"entity": (record.key or b"").decode()}, record)


def settings_of(about: dict[str, Any], record: Record) -> dict[str, Any]:
    """Return a value that is settings as JSON, or their end."""
    if record.value is None:
        return {**about, "removed": True}
    try:
        return {**about, "settings": msgspec.json.decode(record.value)}
    except msgspec.DecodeError as error:
        return {**about, "undecodable": str(error)}


def plain(value: Any) -> Any:
    """Return the fields of a row as JSON has them; partitions as topic id:partition."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, bytes):
        return id_text(value)
    if isinstance(value, tuple):
        return f"{id_text(value[0])}:{value[1]}"
    if isinstance(value, Mapping):
        return {plain(name): plain(one) for name, one in value.items()}
    return sorted(map(plain, value)) if isinstance(value, frozenset) else value


def session_record(record: Record) -> dict[str, Any]:
    """A session or group, a subscription, queue or will of it, or how far all was matched."""
    key, value = record.key or b"", record.value
    if key.startswith((MARKS_KEY, CHECKPOINT_KEY)):
        what = "marks" if key.startswith(MARKS_KEY) else "checkpoint"
        return {what: True, **fields_of(value, Marks)}
    owner, rest = split_key(key)
    kind_of_state: type[Any] = SessionState
    about: dict[str, Any] = {"client_id": owner.decode()}
    if owner.startswith(GROUP_KEY):
        name, _, topic_filter = owner[len(GROUP_KEY) :].decode().partition("\0")
        kind_of_state, about = GroupState, {"group": name, "topic_filter": topic_filter}
    if not rest:
        return {**about, **fields_of(value, kind_of_state)}
    kind, name = rest[:1], rest[1:].decode()
    if kind == KIND_FILTER:
        return {**about, "topic_filter": name, **fields_of(value, SubscriptionTerms)}
    if kind == KIND_QUEUE:
        return {**about, "queue_from": name, **fields_of(value, QueuePart)}
    if kind == KIND_WILL:
        return {**about, "will": True, **fields_of(value, WillTerms)}
    return {**about, "undecodable": f"a key of kind {kind!r}"}


def fields_of(data: bytes | None, kind: type[Any]) -> dict[str, Any]:
    """Return a value of `__mqtt_sessions` by the names of its fields."""
    if data is None:
        return {"removed": True}
    value = decode(data, kind)
    if value is None:
        return {"undecodable": "a value of another form"}
    names = [name for name in value.__struct_fields__ if name != "form"]
    return {name: msgspec.to_builtins(getattr(value, name)) for name in names}


def retained_record(record: Record) -> dict[str, Any]:
    """A retained message, or that there is none any more."""
    about: dict[str, Any] = {"topic_name": (record.key or b"").decode()}
    if record.value is None:
        return {**about, "removed": True}
    return {**about, "retained_bytes": len(record.value)}


def user_record(record: Record) -> dict[str, Any]:
    """A user, without what is kept of the password, or that it was removed."""
    if record.key == SECRET_KEY:
        return {"secret": True}
    about: dict[str, Any] = {"user": (record.key or b"").decode()}
    if record.value is None:
        return {**about, "removed": True}
    try:
        user = parse_user(about["user"], record.value.decode())
    except ConfigError as error:
        return {**about, "undecodable": str(error)}
    return {**about, "groups": sorted(user.groups), "enabled": user.is_enabled}


def ban_record(record: Record) -> dict[str, Any]:
    """A ban, or its end."""
    kind, _, who = (record.key or b"").decode().partition(":")
    about: dict[str, Any] = {"banned": kind, "who": who}
    if record.value is None:
        return {**about, "removed": True}
    terms = read_terms(record.value)
    if terms is None:
        return {**about, "undecodable": "a value of another form"}
    return {
        **about,
        "since_ms": terms.since_ms,
        "until_ms": terms.until_ms,
        "reason": terms.reason,
    }


def rule_record(record: Record) -> dict[str, Any]:
    """A rule of access that the server keeps, or its end."""
    about: dict[str, Any] = {"rule": (record.key or b"").decode()}
    if record.value is None:
        return {**about, "removed": True}
    added = read_added(record.value)
    if added is None:
        return {**about, "undecodable": "a value of another form"}
    return {**about, "added_by": added.by, "added_at_ms": added.at_ms}


def token_record(record: Record) -> dict[str, Any]:
    """A delegation token, or its end."""
    about: dict[str, Any] = {"token": (record.key or b"").decode()}
    if record.value is None:
        return {**about, "removed": True}
    kept = read_kept(record.value)
    if kept is None:
        return {**about, "undecodable": "a value of another form"}
    fields = msgspec.structs.asdict(kept)
    del fields["form"]
    return {**about, **fields}


DECODERS: Final[Mapping[str, Callable[[Record], dict[str, Any]]]] = {
    GROUPS_LOG_TOPIC: group_record,
    SHARE_LOG_TOPIC: share_record,
    SESSIONS_LOG_TOPIC: session_record,
    RETAINED_LOG_TOPIC: retained_record,
    BANS_LOG_TOPIC: ban_record,
    USERS_LOG_TOPIC: user_record,
    ACCESS_LOG_TOPIC: rule_record,
    TOKENS_LOG_TOPIC: token_record,
    CONFIGS_LOG_TOPIC: group_configs_record,
    SERVER_LOG_TOPIC: server_configs_record,
    QUOTAS_LOG_TOPIC: quota_record,
    METRICS_LOG_TOPIC: client_metrics_record,
    FEATURES_LOG_TOPIC: features_record,
}


def text_of(data: bytes | None) -> str | None:
    """Return bytes as text, or as `base64:…` where they are none."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(data).decode()
