"""CreateTopics and DeleteTopics.

Each log topic of a request succeeds or fails alone, with a code and a sentence. There is one
copy of everything: a replication factor above one is refused, or taken as one where the server
is configured to accept what deploy scripts ask for.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from isthmus.errors import IsthmusError, TopicExists
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.configs import effective
from isthmus.server.kafka_api.log_topics import (
    PARTITIONS_MAX,
    RequestRefused,
    accepts_replicas,
    changeable,
    check_assignments,
    check_new_name,
    create,
    refusal_of,
)
from isthmus.server.kafka_api.throttles import take_partitions
from isthmus.storage.topic_configs import check_configs

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call
    from isthmus.server.kafka_shore import KafkaShore

BY_ID_FIRST_VERSION = 6
BY_SERVER = -1  # partitions or replicas: as the server sees fit [KIP-464]


def create_topics(call: Call) -> None:
    """Make log topics, or only say whether that would go."""
    request = call.request
    times = Counter(wanted["name"] for wanted in request["topics"])
    answered: dict[str, dict[str, Any]] = {}
    for wanted in request["topics"]:
        name = wanted["name"]
        try:
            if times[name] > 1:
                raise RequestRefused(ErrorCode.INVALID_REQUEST, f"{name} is named twice")
            answered[name] = _create(call, wanted)
        except IsthmusError as error:
            answered[name] = {
                "name": name,
                "error_code": refusal_of(error),
                "error_message": str(error),
            }
    call.answer({"topics": [*answered.values()]})


def _create(call: Call, wanted: dict[str, Any]) -> dict[str, Any]:
    shore, name = call.shore, wanted["name"]
    if name in shore.log.topics:
        raise TopicExists(f"log topic {name} exists")
    check_new_name(shore, name)
    partitions = _partitions_of(shore, wanted)
    configs: dict[str, str] = {}
    for config in wanted["configs"]:
        if config["value"] is None:
            raise RequestRefused(ErrorCode.INVALID_CONFIG, f"{config['name']} has no value")
        configs[config["name"]] = config["value"]
    check_configs(configs)
    take_partitions(call, partitions)
    row: dict[str, Any] = {
        "name": name,
        "error_message": None,
        "num_partitions": partitions,
        "replication_factor": 1,
    }
    if not call.request["validate_only"]:
        log_topic = create(shore, name, partitions, configs)
        row["topic_id"] = log_topic.topic_id
    row["configs"] = [
        {
            "name": one.name,
            "value": one.value,
            "read_only": False,
            "config_source": one.source,
            "is_sensitive": False,
        }
        for one in effective(shore, configs)
    ]
    return row


def _partitions_of(shore: KafkaShore, wanted: dict[str, Any]) -> int:
    """Return how many partitions are wanted; check what is said about replicas."""
    partitions, replicas = wanted["num_partitions"], wanted["replication_factor"]
    if wanted["assignments"]:
        if (partitions, replicas) != (BY_SERVER, BY_SERVER):
            raise RequestRefused(
                ErrorCode.INVALID_REQUEST,
                "an assignment goes without number of partitions and replication factor",
            )
        return _assigned_partitions(shore, wanted["assignments"])
    if replicas != BY_SERVER and replicas < 1:
        raise RequestRefused(
            ErrorCode.INVALID_REPLICATION_FACTOR, f"replication factor {replicas}"
        )
    if replicas > 1 and not accepts_replicas(shore):
        raise RequestRefused(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"replication factor {replicas}, and there is 1 broker",
        )
    if partitions == BY_SERVER:
        return shore.settings.partitions_default
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise RequestRefused(
            ErrorCode.INVALID_PARTITIONS,
            f"{partitions} partitions: a log topic has 1 to {PARTITIONS_MAX}",
        )
    return int(partitions)


def _assigned_partitions(shore: KafkaShore, assignments: list[dict[str, Any]]) -> int:
    indexes = sorted(one["partition_index"] for one in assignments)
    if indexes != list(range(len(indexes))):
        raise RequestRefused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, "partitions are numbered from 0 on"
        )
    check_assignments(shore, assignments)
    return len(indexes)


def delete_topics(call: Call) -> None:
    """Delete log topics, by name or by id."""
    request = call.request
    if call.version >= BY_ID_FIRST_VERSION:
        asked = [(one["name"], one["topic_id"]) for one in request["topics"]]
    else:
        asked = [(name, bytes(16)) for name in request["topic_names"]]
    times = Counter(asked)
    rows = [_delete(call, *named, is_twice=times[named] > 1) for named in times]
    call.answer({"responses": rows})


def _delete(call: Call, name: str | None, topic_id: bytes, *, is_twice: bool) -> dict[str, Any]:
    shore = call.shore
    row: dict[str, Any] = {"name": name, "topic_id": topic_id}
    try:
        if is_twice:
            raise RequestRefused(ErrorCode.INVALID_REQUEST, "named twice")
        if (name is not None) == any(topic_id):
            raise RequestRefused(ErrorCode.INVALID_REQUEST, "either a name or an id")
        known = shore.topic_ids.name_of(topic_id) if name is None else name
        if known is None:
            raise RequestRefused(ErrorCode.UNKNOWN_TOPIC_ID, "no log topic has this id")
        log_topic = changeable(shore, known)
        row["name"], row["topic_id"] = known, log_topic.topic_id
        take_partitions(call, len(log_topic.partitions))
        shore.log.delete(known)
        shore.forget_log_topic(known)
    except IsthmusError as error:
        row["error_code"] = refusal_of(error)
        row["error_message"] = str(error)
    return row
