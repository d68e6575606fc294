"""Log topics by id: the way back from what newer Kafka clients send instead of a name.

The log knows its topics by name and gives each an id that is never reused [KIP-516]. This is
only a memory of that; it is checked against the log at each use, so nobody keeps it up to date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.storage.log import Log

NO_TOPIC_ID = bytes(16)


class TopicIds:
    """Finds names by topic id."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._names: dict[bytes, str] = {}

    def name_of(self, topic_id: bytes) -> str | None:
        """Return the name of the log topic with this id, None where there is none."""
        name = self._names.get(topic_id)
        if name is not None:
            log_topic = self._log.topics.get(name)
            if log_topic is not None and log_topic.topic_id == topic_id:
                return name
        self._names = {topic.topic_id: name for name, topic in self._log.topics.items()}
        return self._names.get(topic_id)

    def id_of(self, name: str) -> bytes:
        """Return the id of a log topic, the zero id where there is none."""
        log_topic = self._log.topics.get(name)
        return NO_TOPIC_ID if log_topic is None else log_topic.topic_id
