"""The guards of requests about log topics that are more than a list of them.

See `guards.py`. A log topic that may not be described is not there for a client that asks for
all, and answers with an error where it is named, whether it is there or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.access_rules import (
    CLUSTER,
    CLUSTER_NAME,
    CREATE,
    DELETE,
    DESCRIBE,
    DESCRIBE_CONFIGS,
    LOG,
)
from isthmus.server.kafka_api.log_topics import is_internal
from isthmus.server.kafka_api.rights import DENIED

if TYPE_CHECKING:
    from isthmus.server.kafka_api.rights import Asking, Row

NO_TOPIC: Final = DENIED[LOG]
FAILED: Final = "Authorization failed."
NO_ID: Final = bytes(16)
DELETED_BY_ID_FIRST_VERSION: Final = 6


def metadata(asking: Asking) -> bool:
    """What may be described; and what is to be made of itself needs the right to create."""
    call = asking.call
    request = call.request
    field = "topic_authorized_operations"
    asked = request["topics"]
    rows: list[Row] = []
    is_all = asked is None or (call.version == 0 and not asked)
    if not is_all:
        request["topics"], denied = asking.part(asked, lambda one: _is_shown(asking, one))
        rows = [_hidden(one) for one in denied]
    is_nothing = not is_all and not request["topics"]

    def amend(body: dict[str, Any]) -> None:
        topics = [] if is_nothing else body["topics"]  # nothing at all is everything in v0
        if is_all:
            topics = [row for row in topics if asking.may(DESCRIBE, LOG, row["name"])]
        for row in topics:
            if field in row:
                row[field] = asking.authorized(LOG, row["name"])
        body["topics"] = [*topics, *rows]
        if "cluster_authorized_operations" in body:
            may = asking.on_cluster(DESCRIBE)
            allowed = asking.authorized(CLUSTER, CLUSTER_NAME) if may else 0
            body["cluster_authorized_operations"] = allowed

    call.amend(amend)
    return True


def _is_shown(asking: Asking, topic: Row) -> bool:
    """Whether a log topic that is named may be told of, or made."""
    if not asking.may_topic(DESCRIBE, topic):
        return False
    shore, name = asking.call.shore, topic["name"]
    if name is None or name in shore.log.topics or is_internal(name):
        return True
    makes = asking.call.request["allow_auto_topic_creation"]
    if not (makes and shore.settings.auto_create_topics):
        return True
    return asking.on_cluster(CREATE) or asking.may(CREATE, LOG, name)


def _hidden(topic: Row) -> Row:
    """Return the row of a log topic that may not be described, as it was named."""
    name = topic["name"]
    row: Row = {"error_code": NO_TOPIC, "name": name, "topic_id": NO_ID}
    if name is None:
        row["topic_id"] = topic["topic_id"]
    return row


def describe_topic_partitions(asking: Asking) -> bool:
    """The same; where none is named all are meant."""
    request = asking.call.request
    named = request["topics"]
    rows: list[Row] = []
    if named:
        request["topics"], denied = asking.part(
            named, lambda one: asking.may(DESCRIBE, LOG, one["name"])
        )
        rows = [_hidden(one) for one in denied]
        if not request["topics"]:
            asking.call.answer({"topics": rows})
            return False

    def amend(body: dict[str, Any]) -> None:
        topics = [
            row for row in body.get("topics", ()) if asking.may(DESCRIBE, LOG, row["name"])
        ]
        for row in topics:
            if "topic_authorized_operations" in row:
                row["topic_authorized_operations"] = asking.authorized(LOG, row["name"])
        body["topics"] = [*topics, *rows]

    asking.call.amend(amend)
    return True


def create_topics(asking: Asking) -> bool:
    """By a right on the cluster or on the name; its settings are told by another one."""
    request = asking.call.request
    if not asking.on_cluster(CREATE):
        request["topics"], denied = asking.part(
            request["topics"], lambda one: asking.may(CREATE, LOG, one["name"])
        )
        rows = [
            {
                "name": one["name"],
                "error_code": NO_TOPIC,
                "error_message": FAILED,
                "configs": None,
            }
            for one in denied
        ]
        asking.add_rows("topics", rows)

    def hide(body: dict[str, Any]) -> None:
        for row in body.get("topics", ()):
            if row.get("error_code") or asking.may(DESCRIBE_CONFIGS, LOG, row["name"]):
                continue
            row.update(num_partitions=-1, replication_factor=-1, configs=None)
            row["topic_config_error_code"] = NO_TOPIC

    asking.call.amend(hide)
    return True


def delete_topics(asking: Asking) -> bool:
    """What may be deleted; what may not even be described is told by what it was named."""
    call = asking.call
    request = call.request
    field = "topics" if call.version >= DELETED_BY_ID_FIRST_VERSION else "topic_names"

    def named(one: Any) -> str | None:
        return asking.name_of(one) if isinstance(one, dict) else str(one)

    def may(one: Any) -> bool:
        name = named(one)
        return name is None or asking.may(DELETE, LOG, name)

    request[field], denied = asking.part(request[field], may)
    rows: list[Row] = []
    for one in denied:
        name = named(one)
        assert name is not None, "what nothing has is not denied"
        row: Row = {"name": name, "error_code": NO_TOPIC, "error_message": FAILED}
        log_topic = call.shore.log.topics.get(name)
        if asking.may(DESCRIBE, LOG, name):
            row["topic_id"] = NO_ID if log_topic is None else log_topic.topic_id
        elif isinstance(one, dict) and not one["name"]:
            row.update(name=None, topic_id=one["topic_id"])
        rows.append(row)
    asking.add_rows("responses", rows)
    return True


def offset_for_leader_epoch(asking: Asking) -> bool:
    """Of log topics that may be described."""
    request = asking.call.request
    request["topics"], denied = asking.part(
        request["topics"], lambda one: asking.may(DESCRIBE, LOG, one["topic"])
    )
    rows = [
        {
            "topic": one["topic"],
            "partitions": [
                {"partition": each["partition"], "error_code": NO_TOPIC}
                for each in one["partitions"]
            ],
        }
        for one in denied
    ]
    asking.add_rows("topics", rows)
    return True
