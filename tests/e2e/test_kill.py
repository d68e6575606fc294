"""SIGKILL at random moments under load: nothing that was acknowledged is lost.

Three publishers write numbers, each its own, as fast as their acknowledgements come back: QoS 1
and QoS 2 over MQTT, and an idempotent Kafka producer with acks=all. The server is killed and
started again on the same data; the publishers reconnect and go on. Then the log is read: each
publisher's numbers without a gap, in the order of their first arrival, at most repeated; those
that promise exactly once (QoS 2, the idempotent producer) not even that. A seed repeats the
moments: ISTHMUS_KILL_SEED.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest
from confluent_kafka import TopicPartition
from tests.e2e import raw_mqtt
from tests.e2e.kafka_libraries import confluent_consumer, confluent_producer, poll_records
from tests.e2e.raw_mqtt import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, RawMqtt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.server_process import Address, ServerProcess

KILLS: Final = 20
SEED: Final = int(os.environ.get("ISTHMUS_KILL_SEED", "20240229"))
MOMENT_S: Final = (0.02, 0.6)
WINDOW: Final = 50
QUICK: Final = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 50}


class MqttPublisher:
    """Numbers published with a window, over as many connections as it takes.

    A session that lasts: what is not acknowledged when the connection breaks is sent again
    first, in order, with DUP and its packet identifier, as [MQTT-4.4.0-1] has it.
    """

    def __init__(self, server: Address, topic_name: str, qos: int) -> None:
        self.acknowledged = 0
        """How many numbers, from 0 on, the server has taken over."""
        self.failures: list[str] = []
        self._server = server
        self._topic_name = topic_name
        self._qos = qos
        self._next = 0
        self._waiting: dict[int, int] = {}
        """Packet identifier -> number, in the order of sending."""
        self._released: dict[int, int] = {}
        """The same for QoS 2, between PUBREC and PUBCOMP."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End after everything on its way is acknowledged."""
        self._stopping.set()
        self._thread.join(30)
        assert not self.failures, self.failures
        assert not self._thread.is_alive(), f"{len(self._waiting)} are not acknowledged"
        assert self.acknowledged == self._next

    def _run(self) -> None:
        while not self._done() and not self.failures:
            with (
                contextlib.suppress(OSError),
                raw_mqtt.raw_connection(self._server) as connection,
            ):
                self._publish_over(connection)
            time.sleep(0.02)

    def _done(self) -> bool:
        return self._stopping.is_set() and not self._waiting and not self._released

    def _publish_over(self, connection: RawMqtt) -> None:
        connection.open(self._topic_name, clean=False, session_expiry_s=1000)
        if self.acknowledged and not connection.session_present:
            self.failures.append(f"{self._topic_name}: the server forgot the session")
            return
        connection.send(
            *(raw_mqtt.ack(PUBREL, packet_id) for packet_id in self._released),
            *(
                self._packet(number, packet_id, dup=True)
                for packet_id, number in self._waiting.items()
            ),
        )
        while not self._done():
            self._fill(connection)
            arrived = connection.receive()
            if arrived is None:
                return
            self._take(connection, arrived)

    def _fill(self, connection: RawMqtt) -> None:
        packets = []
        while len(self._waiting) + len(self._released) < WINDOW and not self._stopping.is_set():
            packet_id = self._next % 60_000 + 1
            self._waiting[packet_id] = self._next
            packets.append(self._packet(self._next, packet_id))
            self._next += 1
        connection.send(*packets)

    def _packet(self, number: int, packet_id: int, *, dup: bool = False) -> bytes:
        payload = b"%d" % number
        return raw_mqtt.publish(
            self._topic_name, payload, qos=self._qos, packet_id=packet_id, dup=dup
        )

    def _take(self, connection: RawMqtt, arrived: raw_mqtt.Packet) -> None:
        if arrived.kind == PUBCOMP:
            self._released.pop(arrived.packet_id, None)
            return
        if arrived.kind != (PUBREC if self._qos == 2 else PUBACK):
            self.failures.append(f"{self._topic_name}: unexpected {arrived}")
            return
        number = self._waiting.pop(arrived.packet_id, None)
        if arrived.kind == PUBREC:
            connection.send(raw_mqtt.ack(PUBREL, arrived.packet_id))
            if number is not None:
                self._released[arrived.packet_id] = number
        if number is not None:
            if number != self.acknowledged:
                self.failures.append(f"{number} acknowledged before {self.acknowledged}")
            self.acknowledged = number + 1


class KafkaPublisher:
    """Numbers produced by an idempotent producer, which lives through every kill."""

    def __init__(self, server: Address, log_topic: str, key: str) -> None:
        self.acknowledged = 0
        self.failures: list[object] = []
        self._log_topic = log_topic
        self._key = key
        self._producer = confluent_producer(
            server, **{"enable.idempotence": True, "retry.backoff.ms": 10, **QUICK}
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End after everything on its way is acknowledged."""
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert not self.failures, self.failures[:3]

    def _run(self) -> None:
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
        self._producer.flush(20)
        if self.acknowledged != number:
            self.failures.append(f"{self.acknowledged} of {number} are acknowledged")

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self.failures.append(error)
        else:
            self.acknowledged += 1


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
            _, end = consumer.get_watermark_offsets(self._place, 20)
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
def load_on(server: ServerProcess) -> Iterator[dict[str, MqttPublisher | KafkaPublisher]]:
    """Hold the three publishers; at the end everything they sent has to be acknowledged."""
    publishers: dict[str, MqttPublisher | KafkaPublisher] = {
        "qos/1": MqttPublisher(server.mqtt, "qos/1", 1),
        "qos/2": MqttPublisher(server.mqtt, "qos/2", 2),
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


EXACTLY_ONCE: Final = ("qos/2", "acks-all")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nothing_acknowledged_is_lost(fresh_server: ServerProcess) -> None:
    moments, reader = random.Random(SEED), LogReader(fresh_server.kafka, "mqtt")
    with load_on(fresh_server) as publishers:
        for _ in range(KILLS):
            time.sleep(moments.uniform(*MOMENT_S))
            fresh_server.kill()
            promised = {key: one.acknowledged for key, one in publishers.items()}
            fresh_server.start()
            reader.read_on()
            for key, acknowledged in promised.items():
                reader.check(key, acknowledged, exactly_once=key in EXACTLY_ONCE)
    reader.read_on()
    for key, publisher in publishers.items():
        assert publisher.acknowledged > KILLS, f"{key} hardly wrote anything"
        reader.check(key, publisher.acknowledged, exactly_once=key in EXACTLY_ONCE)


@pytest.mark.slow
def test_a_persistent_subscriber_misses_nothing(fresh_server: ServerProcess) -> None:
    """QoS 1 deliveries to a session that lasts, over kills: no gap, at most duplicates."""
    moments, seen = random.Random(SEED + 1), []
    publisher = MqttPublisher(fresh_server.mqtt, "qos/1", 1)
    stopping = threading.Event()

    def subscribe() -> None:
        while not stopping.is_set():
            with (
                contextlib.suppress(OSError),
                raw_mqtt.raw_connection(fresh_server.mqtt) as connection,
            ):
                follow(connection)
            time.sleep(0.02)

    def follow(connection: RawMqtt) -> None:
        connection.open("reader", clean=False, session_expiry_s=1000)
        connection.send(raw_mqtt.subscribe(1, "qos/1", 1))
        connection.socket.settimeout(1)
        while not stopping.is_set() and (arrived := connection.receive()) is not None:
            if arrived.kind == PUBLISH:
                seen.append(int(arrived.payload()))
                connection.send(raw_mqtt.ack(PUBACK, arrived.packet_id))

    with raw_mqtt.raw_session(
        fresh_server.mqtt, "reader", clean=False, session_expiry_s=1000
    ) as session:
        session.send(raw_mqtt.subscribe(1, "qos/1", 1))
        session.expect(raw_mqtt.SUBACK)
    begin = publisher.acknowledged + WINDOW  # what came before the subscription is not owed
    thread = threading.Thread(target=subscribe)
    thread.start()
    try:
        for _ in range(5):
            time.sleep(moments.uniform(*MOMENT_S))
            fresh_server.kill()
            fresh_server.start()
        publisher.stop()
        end = time.monotonic() + 10
        while publisher.acknowledged - 1 not in seen[-10 * WINDOW :] and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        stopping.set()
        thread.join()
    first_seen = list(dict.fromkeys(number for number in seen if number >= begin))
    assert first_seen == list(range(begin, publisher.acknowledged)), f"seed {SEED + 1}"
