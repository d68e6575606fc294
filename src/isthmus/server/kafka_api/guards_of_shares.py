"""The guards of requests of share groups.

See `guards.py`. ShareFetch and ShareAcknowledge look themselves at what may be read, partition
by partition; here is only whether the group may be read from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.access_rules import CONSUMER_GROUP, DELETE, DESCRIBE, LOG, READ
from isthmus.server.kafka_api.rights import DENIED

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.kafka.errors import ErrorCode
    from isthmus.server.kafka_api.rights import Asking, Row

NO_GROUP: Final = DENIED[CONSUMER_GROUP]
NO_TOPIC: Final = DENIED[LOG]


def of_group(asking: Asking, operation: str = READ) -> bool:
    """Of a group that one may do this with; who names none is told so by the handler."""
    group_id = asking.call.request["group_id"]
    if group_id is None or asking.may(operation, CONSUMER_GROUP, group_id):
        return True
    return asking.refuse(NO_GROUP)


def describe_offsets(asking: Asking) -> bool:
    """Of groups that one may describe, and log topics likewise."""
    request = asking.call.request
    groups, denied = asking.part(
        request["groups"], lambda one: asking.may(DESCRIBE, CONSUMER_GROUP, one["group_id"])
    )
    hidden: dict[str, list[Row]] = {}
    for one in groups:
        if one["topics"] is not None:
            one["topics"], others = asking.part(
                one["topics"], lambda topic: _may(asking, DESCRIBE, topic)
            )
            hidden[one["group_id"]] = [_undescribed(topic) for topic in others]
    request["groups"] = groups

    def amend(body: dict[str, Any]) -> None:
        for row in body["groups"]:
            seen = [one for one in row.get("topics", ()) if _may(asking, DESCRIBE, one)]
            row["topics"] = [*seen, *hidden.get(row["group_id"], ())]

    asking.call.amend(amend)
    rows = [{"group_id": one["group_id"], "error_code": NO_GROUP} for one in denied]
    asking.add_rows("groups", rows)
    return True


def alter_offsets(asking: Asking) -> bool:
    """Of a group and log topics that one may read."""
    return of_group(asking) and _topics(asking, _unaltered)


def delete_offsets(asking: Asking) -> bool:
    """Of a group that one may delete, for log topics that one may read."""
    return of_group(asking, DELETE) and _topics(asking, _undeleted)


def _topics(asking: Asking, row: Callable[[Row, ErrorCode], Row]) -> bool:
    request = asking.call.request
    request["topics"], denied = asking.part(
        request["topics"], lambda topic: _may(asking, READ, topic)
    )
    asking.add_rows("responses", [row(topic, NO_TOPIC) for topic in denied])
    return True


def _may(asking: Asking, operation: str, topic: Row) -> bool:
    return asking.may(operation, LOG, topic["topic_name"])


def _undescribed(topic: Row) -> Row:
    rows = [
        {"partition_index": index, "start_offset": -1, "error_code": NO_TOPIC}
        for index in topic["partitions"]
    ]
    return {"topic_name": topic["topic_name"], "partitions": rows}


def _unaltered(topic: Row, code: ErrorCode) -> Row:
    rows = [
        {"partition_index": one["partition_index"], "error_code": code}
        for one in topic["partitions"]
    ]
    return {"topic_name": topic["topic_name"], "partitions": rows}


def _undeleted(topic: Row, code: ErrorCode) -> Row:
    return {"topic_name": topic["topic_name"], "error_code": code}
