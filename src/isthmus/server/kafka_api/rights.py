"""What a client may do, asked around the handlers: before one begins, and before it answers.

A guard looks at a request with the rights of whoever sent it. What is not allowed is taken out
of the request, and its rows, with Kafka's own errors, are put into the answer; or the guard
answers itself, and the handler never sees the request. So handlers know nothing of rights.
Produce and Fetch alone look themselves, as their requests are walked by hand.

No topic that somebody may not describe is told from one that is not there. While there are no
rules none of this is called. Which guard stands before which request is in `guards.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.access_rules import (
    ALTER,
    ALTER_CONFIGS,
    CLUSTER,
    CLUSTER_ACTION,
    CLUSTER_NAME,
    CONSUMER_GROUP,
    CREATE,
    DELETE,
    DESCRIBE,
    DESCRIBE_CONFIGS,
    IDEMPOTENT_WRITE,
    LOG,
    READ,
    TRANSACTION,
    WRITE,
)
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.acl_forms import OPERATION_NUMBERS
from isthmus.server.kafka_api.log_topics import bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.access import Rights
    from isthmus.server.kafka_api.call import Call

    Row = dict[str, Any]

DENIED: Final = {
    LOG: ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    CONSUMER_GROUP: ErrorCode.GROUP_AUTHORIZATION_FAILED,
    TRANSACTION: ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    CLUSTER: ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
}
OF_KIND: Final = {  # what can be asked for with something of a kind [KIP-430]
    LOG: (READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS),
    CONSUMER_GROUP: (READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS),
    CLUSTER: (
        *(CREATE, ALTER, DESCRIBE, CLUSTER_ACTION),
        *(DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE),
    ),
}


class Asking:
    """One request, and what may be done by whoever sent it."""

    __slots__ = ("call", "rights")

    def __init__(self, call: Call, rights: Rights) -> None:
        self.call = call
        self.rights = rights

    def may(self, operation: str, kind: str, name: str) -> bool:
        """Whether it may do something."""
        return self.rights.allows(operation, name, kind).allowed

    def on_cluster(self, operation: str) -> bool:
        """Whether it may do something with the cluster."""
        return self.may(operation, CLUSTER, CLUSTER_NAME)

    def authorized(self, kind: str, name: str) -> int:
        """Return what it may do with something, as Kafka's bit field [KIP-430]."""
        allowed = (each for each in OF_KIND[kind] if self.may(each, kind, name))
        return bits(OPERATION_NUMBERS[each] for each in allowed)

    def name_of(self, topic: Row) -> str | None:
        """Return the name of a log topic that a request names, by its name or its id."""
        name: str | None = topic.get("name")
        if name:
            return name
        return self.call.shore.topic_ids.name_of(topic.get("topic_id", b""))

    def may_topic(self, operation: str, topic: Row) -> bool:
        """Whether it may do something with a log topic; an id that nothing has tells itself."""
        name = self.name_of(topic)
        return name is None or self.may(operation, LOG, name)

    def part(
        self, items: Iterable[Any], allowed: Callable[[Any], bool]
    ) -> tuple[list[Any], list[Any]]:
        """Return what is allowed of some items, and what is not."""
        kept: list[Any] = []
        denied: list[Any] = []
        for each in items:
            (kept if allowed(each) else denied).append(each)
        return kept, denied

    def add_rows(self, field: str, rows: list[Row]) -> None:
        """Put rows into the answer, behind those of what is allowed."""
        if rows:
            self.call.amend(lambda body: body.update({field: [*body.get(field, ()), *rows]}))

    def keep_rows(self, field: str, allowed: Callable[[Row], bool]) -> None:
        """Leave only those rows in the answer that it may see."""
        self.call.amend(
            lambda body: body.update(
                {field: [row for row in body.get(field, ()) if allowed(row)]}
            )
        )

    def topics(
        self,
        operation: str,
        answered: str,
        row: Callable[[Row, ErrorCode], Row],
        asked: str = "topics",
    ) -> bool:
        """Take log topics out of a request with which an operation is not allowed."""
        request = self.call.request
        kept, denied = self.part(request[asked], lambda one: self.may_topic(operation, one))
        if denied:
            request[asked] = kept
            self.add_rows(answered, [row(one, DENIED[LOG]) for one in denied])
        return True

    def all_topics(self, code: ErrorCode, row: Callable[[Row, ErrorCode], Row]) -> bool:
        """Answer with an error for each log topic of a request."""
        self.call.answer({"topics": [row(one, code) for one in self.call.request["topics"]]})
        return False

    def refuse(self, code: ErrorCode, **more: Any) -> bool:
        """Answer with an error."""
        self.call.answer({"error_code": code, **more})
        return False


def partition_rows(
    topic: Row, code: ErrorCode, key: str = "partition_index", **more: Any
) -> Row:
    """Return the row of a log topic, with an error for each partition that was asked about."""
    named: Row = {each: topic[each] for each in ("name", "topic_id") if each in topic}
    rows = [{key: one[key], "error_code": code, **more} for one in topic["partitions"]]
    return {**named, "partitions": rows}


def numbered_rows(topic: Row, code: ErrorCode, asked: str = "partition_indexes") -> Row:
    """Return the same of a log topic whose partitions are a list of numbers."""
    named: Row = {each: topic[each] for each in ("name", "topic_id") if each in topic}
    rows = [{"partition_index": index, "error_code": code} for index in topic[asked]]
    return {**named, "partitions": rows}
