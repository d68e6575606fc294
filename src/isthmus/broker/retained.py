"""Retained messages: the last one of each topic name, durable in a compacted log topic.

Each retained PUBLISH is a record of `__mqtt_retained` (key: topic name; value and headers as in
any record), written in the same commit as the message itself; an empty payload is a tombstone
[MQTT-3.3.1-6]. Who waits for an acknowledgement of the message waits for both records. The
table in memory is read from there at the start. A retained message that waits for a session is
recalled from that log topic like any other.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from isthmus.broker.mapping import headers_of, publish_of
from isthmus.errors import StorageError
from isthmus.mqtt.packets import Publish
from isthmus.mqtt.properties import MESSAGE_EXPIRY
from isthmus.record.batch import BatchBuilder
from isthmus.topics.names import TopicNames

if TYPE_CHECKING:
    from isthmus.broker.publishing import RetainedAcknowledgement
    from isthmus.errors import IsthmusError
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Partition

logger = logging.getLogger(__name__)

RETAINED_LOG_TOPIC: Final = "__mqtt_retained"
RETAINED_CONFIGS: Final = {
    "cleanup.policy": "compact",
    "max.message.bytes": "300000000",
    "segment.bytes": "16777216",  # all of it is read at the start, so it is compacted soon
}


class Retained:
    """The retained message of each topic name."""

    def __init__(self, runtime: Runtime, partition: Partition, count_max: int) -> None:
        """Read the table from its partition."""
        self._runtime = runtime
        self.partition = partition
        self._count_max = count_max
        self._builder = BatchBuilder()
        self.pending: list[Publish] = []  # put since the last commit
        self._waiting: list[RetainedAcknowledgement] = []  # for these
        self.messages: dict[bytes, tuple[Publish, int, int]] = {}  # publish, offset, expires at
        self._names = TopicNames()  # of `messages`, by level
        self.refused = 0  # beyond the limit, or by the log
        self._load()

    def put(self, publish: Publish, waiting: RetainedAcknowledgement | None = None) -> bool:
        """Store or, with an empty payload, remove; True if a commit is due.

        Then `waiting` is told how it went. What exceeds the limit on their number is not
        retained, and counted.
        """
        topic_name = publish.topic
        if publish.payload:
            if len(self.messages) >= self._count_max and topic_name not in self.messages:
                self.refused += 1
                return False
        elif topic_name not in self.messages and not self.pending:
            return False
        now_ms = self._runtime.now_ms()
        value = publish.payload or None
        self._builder.append(now_ms, topic_name, value, headers_of(publish, None, now_ms))
        self.pending.append(publish)
        if waiting is not None:
            self._waiting.append(waiting)
        return True

    def commit(self) -> None:
        """Append what was put since the last commit."""
        if self.pending:
            ticket = _RetainedTicket(self, self.pending, self._waiting)
            self.pending, self._waiting = [], []
            self.partition.append(self._builder.seal(), ticket, trusted=True)

    def matching(self, topic_filter: str) -> list[tuple[Publish, int]]:
        """Return (publish, offset) of each message whose topic name the filter matches.

        What has expired is forgotten, the others tell the time they have left [MQTT-3.3.2-5,
        MQTT-3.3.2-6].
        """
        now_ms = self._runtime.now_ms()
        found: list[tuple[Publish, int]] = []
        for topic_name in self._names.match(topic_filter):
            publish, offset, expires_ms = self.messages[topic_name]
            if expires_ms == 0:
                found.append((publish, offset))
            elif expires_ms > now_ms:
                found.append((_with_time_left(publish, expires_ms - now_ms), offset))
            else:
                self._forget(topic_name)
        return found

    def _store(self, publish: Publish, offset: int, now_ms: int) -> None:
        if publish.payload:
            if publish.topic not in self.messages:
                self._names.add(publish.topic)
            self.messages[publish.topic] = (publish, offset, _expires_at(publish, now_ms))
        else:
            self._forget(publish.topic)

    def _forget(self, topic_name: bytes) -> None:
        self.messages.pop(topic_name, None)
        self._names.remove(topic_name)

    def stored(self, publishes: list[Publish], base_offset: int) -> None:
        """The batch of these publishes is written from `base_offset` on."""
        now_ms = self._runtime.now_ms()
        for place, publish in enumerate(publishes):
            self._store(publish, base_offset + place, now_ms)

    def _load(self) -> None:
        now_ms = self._runtime.now_ms()
        for batch in self.partition.batches(self.partition.start_offset):
            for record in batch.records():
                assert record.key is not None
                publish = publish_of(record, record.key, now_ms, 0)
                if publish is None:  # expired
                    self._forget(record.key)
                else:
                    self._store(publish, record.offset, now_ms)


def _with_time_left(publish: Publish, left_ms: int) -> Publish:
    """Return the message with the seconds it has left, rounded up."""
    properties = {**(publish.properties or {}), MESSAGE_EXPIRY: (left_ms + 999) // 1000}
    return Publish(
        publish.topic, publish.payload, publish.qos, publish.retain, properties=properties
    )


def _expires_at(publish: Publish, now_ms: int) -> int:
    """Return the moment in ms after which the message is not sent any more; 0: never."""
    if publish.properties and MESSAGE_EXPIRY in publish.properties:
        return now_ms + int(publish.properties[MESSAGE_EXPIRY]) * 1000
    return 0


class _RetainedTicket:
    __slots__ = ("_publishes", "_retained", "_waiting")

    def __init__(
        self,
        retained: Retained,
        publishes: list[Publish],
        waiting: list[RetainedAcknowledgement],
    ) -> None:
        self._retained = retained
        self._publishes = publishes
        self._waiting = waiting

    @property
    def wants_durable(self) -> bool:
        """What was published to be safe is to be retained as safely, whoever waits for it."""
        return any(publish.qos for publish in self._publishes)

    def written(self, base_offset: int) -> None:
        self._retained.stored(self._publishes, base_offset)

    def durable(self) -> None:
        for waiting in self._waiting:
            waiting.settle(None)

    def failed(self, error: IsthmusError) -> None:
        self._retained.refused += len(self._publishes)
        if not isinstance(error, StorageError):  # of those the log tells, once
            logger.warning(
                "messages not retained count=%d error=%s", len(self._publishes), error
            )
        for waiting in self._waiting:
            waiting.settle(error)
