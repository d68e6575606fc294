"""SIGKILL at random moments under load: nothing that was acknowledged is lost.

Two publishers write numbers, each its own, as fast as their acknowledgements come back: QoS 1
over MQTT, and an idempotent Kafka producer with acks=all. The server is killed and started
again on the same data; the publishers reconnect and go on. Then the log is read: no gap in its
offsets, no gap in the numbers up to the last acknowledged, first arrivals in order, at most
duplicates; and from the producer, which promises exactly once, not even those. A seed repeats
the moments: ISTHMUS_KILL_SEED.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from confluent_kafka import TopicPartition
from tests.e2e import raw_mqtt
from tests.e2e.kafka_libraries import confluent_consumer, confluent_producer, poll_records
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.publishers import QUICK, Publisher
from tests.e2e.raw_mqtt import PUBACK, RawMqtt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.server_process import Address, ServerProcess

SEED: Final = int(os.environ.get("ISTHMUS_KILL_SEED", "20240229"))
MOMENT_S: Final = (0.02, 0.6)
WINDOW: Final = 50


class MqttPublisher(Publisher):
    """Numbers published at QoS 1 with a window, over as many connections as it takes.

    What is not acknowledged when a connection breaks is sent again first, in order, with DUP
    and the same packet identifiers [MQTT-4.4.0-1].
    """

    def __init__(self, server: Address, topic_name: str) -> None:
        self._server = server
        self._topic_name = topic_name
        self._next = 0
        self._give_up_s = time.monotonic() + TIMEOUT_S
        super().__init__()

    def _publish(self) -> None:
        while self._has_more() and not self.failures and time.monotonic() < self._give_up_s:
            with (
                contextlib.suppress(OSError),
                raw_mqtt.raw_connection(self._server) as connection,
            ):
                self._publish_over(connection)
            time.sleep(0.02)
        if self.count != self._next:
            self.failures.append(f"{self.count} of {self._next} are acknowledged")

    def _has_more(self) -> bool:
        return not self._stopping.is_set() or self.count < self._next

    def _publish_over(self, connection: RawMqtt) -> None:
        connection.open(self._topic_name, clean=False, session_expiry_s=1000)
        again = range(self.count, self._next)
        connection.send(*(self._packet(number, dup=True) for number in again))
        while self._has_more():
            first = self._next
            if not self._stopping.is_set():
                self._next = max(self.count + WINDOW, first)
            connection.send(*(self._packet(number) for number in range(first, self._next)))
            arrived = connection.receive()
            if arrived is None:
                return
            if (arrived.kind, arrived.packet_id) != (PUBACK, self._id_of(self.count)):
                self.failures.append(f"{arrived} is not the next PUBACK [MQTT-4.6.0-2]")
                return
            self.count += 1
            self._give_up_s = time.monotonic() + TIMEOUT_S

    def _packet(self, number: int, *, dup: bool = False) -> bytes:
        identifier = self._id_of(number)
        return raw_mqtt.publish(
            self._topic_name, b"%d" % number, qos=1, packet_id=identifier, dup=dup
        )

    def _id_of(self, number: int) -> int:
        return number % 60_000 + 1


class KafkaPublisher(Publisher):
    """Numbers produced by an idempotent producer, which lives through every kill."""

    def __init__(self, server: Address, log_topic: str, key: str) -> None:
        self._log_topic = log_topic
        self._key = key
        self._producer = confluent_producer(
            server, **{"enable.idempotence": True, "retry.backoff.ms": 10, **QUICK}
        )
        super().__init__()

    def _publish(self) -> None:
        number = 0
        while not self._stopping.is_set():
            if len(self._producer) < 1000:
                self._producer.produce(
                    self._log_topic, b"%d" % number, self._key, on_delivery=self._delivered
                )
                number += 1
                self._producer.poll(0.0005)
            else:
                self._producer.poll(0.01)
        self._producer.flush(TIMEOUT_S)
        if self.count != number:
            self.failures.append(f"{self.count} of {number} are acknowledged")

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self.failures.append(error)
        else:
            self.count += 1


class LogReader:
    """What stands in the one partition of a log topic, read on from where it was."""

    def __init__(self, server: Address, log_topic: str) -> None:
        self.numbers: dict[str, list[int]] = {}
        self._server = server
        self._place = TopicPartition(log_topic, 0, 0)

    def read_on(self) -> None:
        """Read to the end of the log; every offset has to be there, once."""
        consumer = confluent_consumer(self._server, **QUICK)
        try:
            _, end = consumer.get_watermark_offsets(self._place, TIMEOUT_S)
            if end > self._place.offset:
                consumer.assign([self._place])
                messages = poll_records(consumer, end - self._place.offset)
                offsets = [message.offset() for message in messages]
                assert offsets == list(range(self._place.offset, end))
                for message in messages:
                    key = message.key().decode()
                    self.numbers.setdefault(key, []).append(int(message.value()))
                self._place.offset = end
        finally:
            consumer.close()

    def check(self, key: str, acknowledged: int, *, exactly_once: bool) -> None:
        """Check one publisher's numbers: no gap up to what was acknowledged, and in order."""
        numbers = self.numbers.get(key, [])
        first_seen = list(dict.fromkeys(numbers))
        assert first_seen == list(range(len(first_seen))), f"{key}: a gap, or out of order"
        assert len(first_seen) >= acknowledged, (
            f"{key}: {acknowledged} acknowledged, {len(first_seen)} in the log (seed {SEED})"
        )
        if exactly_once:
            assert numbers == first_seen, f"{key}: {len(numbers) - len(first_seen)} duplicates"


@contextlib.contextmanager
def load_on(server: ServerProcess) -> Iterator[dict[str, Publisher]]:
    """Hold the two publishers; at the end everything they sent has to be acknowledged."""
    publishers: dict[str, Publisher] = {
        "qos/1": MqttPublisher(server.mqtt, "qos/1"),
        "acks-all": KafkaPublisher(server.kafka, "mqtt", "acks-all"),
    }
    try:
        yield publishers
    except BaseException:
        if not server.is_running():
            server.start()
        raise
    finally:
        for publisher in publishers.values():
            publisher.stop()


EXACTLY_ONCE: Final = ("acks-all",)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("durability", "kills"), [("synced", 20), ("written", 5)])
def test_nothing_acknowledged_is_lost(
    durability: str, kills: int, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server(settings={"storage.local.durability": durability})
    moments, reader = random.Random(SEED), LogReader(server.kafka, "mqtt")
    promised: dict[str, int] = {}
    with load_on(server) as publishers:
        for _ in range(kills):
            for key, publisher in publishers.items():  # under load means: from both shores
                more = partial(publisher.has_more_than, promised.get(key, 0))
                wait_until(more, f"progress of {key}")
            time.sleep(moments.uniform(*MOMENT_S))
            server.kill()
            promised = {key: one.count for key, one in publishers.items()}
            server.start()
            reader.read_on()
            for key, acknowledged in promised.items():
                reader.check(key, acknowledged, exactly_once=key in EXACTLY_ONCE)
    reader.read_on()
    for key, publisher in publishers.items():
        reader.check(key, publisher.count, exactly_once=key in EXACTLY_ONCE)
