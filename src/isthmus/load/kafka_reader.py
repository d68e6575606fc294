"""A stock Kafka client that reads what a load produces, or publishes over MQTT.

It reads in a thread of its own, which notes when a record came. A load that looked for records
itself would either sleep while they come or take the core from librdkafka's own threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from isthmus.load.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Message

    from isthmus.config_listeners import Address

ANSWER_S_MAX: Final = 5.0
TURN_S: Final = 0.1
AT_A_TIME: Final = 1_000


class KafkaReader:
    """A consumer of one log topic that begins at its end, of all of it or of a share.

    `share` (i, n): of the partitions whose number modulo n is i.
    """

    def __init__(
        self, address: Address, log_topic: str, share: tuple[int, int] = (0, 1)
    ) -> None:
        """LoadError where nobody answers, or there is no such log topic."""
        self.name = f"kafka {address.authority} {log_topic}"
        self._consumer = Consumer(
            {
                "bootstrap.servers": address.authority,
                "client.id": "isthmus-bench",
                "group.id": "isthmus-bench",
                "enable.auto.commit": False,
                "log_level": 0,
                "socket.connection.setup.timeout.ms": 5_000,
            }
        )
        try:
            self._consumer.assign(self._ends(log_topic, *share))
        except KafkaException as error:
            self._consumer.close()
            raise LoadError(f"{self.name}: {error.args[0].str()}") from None
        self._arrived: deque[tuple[int, bytes]] = deque()
        self._failure = ""
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._consume, name="kafka reader")
        self._thread.start()

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Yield when each value came, and the value; LoadError where no more can come."""
        while self._arrived:
            yield self._arrived.popleft()
        if self._failure:
            raise LoadError(f"{self.name}: {self._failure}")

    def close(self) -> None:
        """Close the connections."""
        self._is_closed.set()
        self._thread.join()
        self._consumer.close()

    def _ends(self, log_topic: str, rest: int, divisor: int) -> list[TopicPartition]:
        found = self._consumer.list_topics(log_topic, timeout=ANSWER_S_MAX).topics[log_topic]
        if found.error is not None:
            raise KafkaException(found.error)
        chosen = [number for number in found.partitions if number % divisor == rest]
        places = [TopicPartition(log_topic, number) for number in chosen]
        for place in places:
            _, place.offset = self._consumer.get_watermark_offsets(place, timeout=ANSWER_S_MAX)
        return places

    def _consume(self) -> None:
        while not self._is_closed.is_set():
            first = self._consumer.poll(TURN_S)
            if first is not None:
                self._take(first)
                for message in self._consumer.consume(AT_A_TIME, timeout=0):
                    self._take(message)

    def _take(self, message: Message) -> None:
        error, value = message.error(), message.value()
        if error is None:
            payload = value if isinstance(value, bytes) else b""
            self._arrived.append((time.monotonic_ns(), payload))
        elif not error.retriable() and error.code() != KafkaError._PARTITION_EOF:
            self._failure = error.str()
