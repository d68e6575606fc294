"""Metadata: the brokers (there is one), and the log topics with their partitions.

The address is the one that this client connected to, unless something else is configured: what
it can reach once it can reach again, through whatever forwards ports in between. Also here:
FindCoordinator, whose answer is always the same broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.errors import IsthmusError, StorageError, TopicUnknown
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import (
    CLUSTER_OPERATIONS,
    TOPIC_OPERATIONS,
    RequestRefused,
    create,
    is_internal,
    partition_row,
    refusal_of,
)
from isthmus.server.kafka_api.throttles import may_make
from isthmus.storage.names import check_log_topic

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call
    from isthmus.storage.log import LogTopic

NULL_NAME_FIRST_VERSION = 12
GROUP_KEY_TYPE = 0
TRANSACTION_KEY_TYPE = 1
SHARE_KEY_TYPE = 2
MANY_KEYS_FIRST_VERSION = 4  # FindCoordinator [KIP-699]


def metadata(call: Call) -> None:
    """Answer with all log topics, or with those asked for, made where that is allowed."""
    request, shore = call.request, call.shore
    asked = request["topics"]
    if asked is None or (call.version == 0 and not asked):
        rows = [_row(call, log_topic) for _, log_topic in sorted(shore.log.topics.items())]
    else:
        once = dict.fromkeys((one["name"], one["topic_id"]) for one in asked)
        rows = [_asked(call, name, topic_id) for name, topic_id in once]
    host, port = call.connection.address
    response: dict[str, Any] = {
        "brokers": [{"node_id": shore.node_id, "host": host, "port": port}],
        "cluster_id": shore.log.cluster_id,
        "controller_id": shore.node_id,
        "topics": rows,
    }
    if request["include_cluster_authorized_operations"]:
        response["cluster_authorized_operations"] = CLUSTER_OPERATIONS
    call.answer(response)


def _asked(call: Call, name: str | None, topic_id: bytes) -> dict[str, Any]:
    """Return the row of a log topic that the client named, by name or by id [KIP-516]."""
    if name == "" and any(topic_id):
        name = None  # so the Java client sends it, in groups that are subscribed by a pattern
    try:
        if name is not None:
            return _row(call, _found_or_made(call, name))
        if not any(topic_id):
            raise RequestRefused(ErrorCode.INVALID_TOPIC_EXCEPTION, "neither name nor id")
        known = call.shore.topic_ids.name_of(topic_id)
        if known is None:
            raise RequestRefused(ErrorCode.UNKNOWN_TOPIC_ID, "no log topic has this id")
        return _row(call, call.shore.log.topics[known])
    except IsthmusError as error:
        is_nullable = call.version >= NULL_NAME_FIRST_VERSION
        return {
            "error_code": refusal_of(error),
            "name": name if name is not None or is_nullable else "",
            "topic_id": topic_id if name is None else bytes(16),
            "is_internal": name is not None and is_internal(name),
        }


def _found_or_made(call: Call, name: str) -> LogTopic:
    shore = call.shore
    log_topic = shore.log.topics.get(name)
    if log_topic is not None:
        return log_topic
    check_log_topic(name)
    allowed = call.request["allow_auto_topic_creation"] and shore.settings.auto_create_topics
    partitions = shore.settings.partitions_default
    if not allowed or is_internal(name) or not may_make(call, partitions):
        raise TopicUnknown(f"no log topic {name}")
    return create(shore, name, partitions, {})


def _row(call: Call, log_topic: LogTopic) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": log_topic.name,
        "topic_id": log_topic.topic_id,
        "is_internal": is_internal(log_topic.name),
        "partitions": [
            partition_row(call.shore, partition) for partition in log_topic.partitions
        ],
    }
    if call.request["include_topic_authorized_operations"]:
        row["topic_authorized_operations"] = TOPIC_OPERATIONS
    return row


def find_coordinator(call: Call) -> None:
    """Answer with this broker, whatever is to be coordinated.

    The log topic of the coordinator is there afterwards, as tools that look for it expect.
    """
    request, shore = call.request, call.shore
    kept = {
        GROUP_KEY_TYPE: shore.groups.kept,
        TRANSACTION_KEY_TYPE: shore.transactions.kept,
        SHARE_KEY_TYPE: shore.share_states.kept,
    }
    host, port = call.connection.address
    found: dict[str, Any] = {"node_id": shore.node_id, "host": host, "port": port}
    try:
        if request["key_type"] not in kept:
            raise RequestRefused(
                ErrorCode.INVALID_REQUEST, f"no coordinator of kind {request['key_type']}"
            )
        kept[request["key_type"]].ensure()
    except IsthmusError as error:
        is_storage = isinstance(error, StorageError)
        found = {
            "error_code": ErrorCode.COORDINATOR_NOT_AVAILABLE
            if is_storage
            else refusal_of(error),
            "error_message": str(error),
            "node_id": -1,
            "host": "",
            "port": -1,
        }
    if call.version >= MANY_KEYS_FIRST_VERSION:
        keys = request["coordinator_keys"]
        call.answer({"coordinators": [{"key": key, **found} for key in keys]})
    else:
        call.answer(found)
