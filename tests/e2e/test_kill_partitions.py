"""SIGKILL under load on many partitions of tiny segments, with everything going on at once.

An idempotent producer with five requests in flight writes numbers to twenty-four partitions (so
the journal is in use, and segments roll all the time), and to a compacted log topic; records
are deleted from a third as they come; an MQTT publisher writes numbers at QoS 2. The server is
killed and started again on the same data while they go on. At the end every partition has the
numbers that were sent, each once, in order, and where the acknowledgement said; the compacted
one has the newest of each key; what was deleted is gone; and QoS 2 was exactly once. A seed
repeats the moments: ISTHMUS_KILL_SEED; ISTHMUS_KILLS is how many there are.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from tests.e2e import raw_mqtt
from tests.e2e.kafka_libraries import (
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
)
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.publishers import QUICK, Publisher
from tests.e2e.raw_mqtt import PUBCOMP, PUBREC, PUBREL, RawMqtt, raw_connection
from tests.e2e.server_process import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message
    from tests.e2e.server_process import Address, ServerProcess

SEED: Final = int(os.environ.get("ISTHMUS_KILL_SEED", "20240229"))
KILLS: Final = int(os.environ.get("ISTHMUS_KILLS", "4"))
MOMENT_S: Final = (0.05, 1.0)
PARTITIONS: Final = 24
KEYS: Final = 7
WINDOW: Final = 20
TINY: Final = {"internal.segment.bytes": "20000", "index.interval.bytes": "500"}
WIDE, TABLE, SHORT = "wide", "table", "short"


class Producer(Publisher):
    """Numbers for every partition of three log topics, as fast as they are acknowledged."""

    def __init__(self, server: Address) -> None:
        self.sent: dict[tuple[str, int], int] = defaultdict(int)
        self.acknowledged: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
        """By place: the offset of each number."""
        self._producer = confluent_producer(
            server,
            **{
                "enable.idempotence": True,
                "max.in.flight.requests.per.connection": 5,
                "batch.num.messages": 20,
                "retry.backoff.ms": 10,
                "linger.ms": 1,
                **QUICK,
            },
        )
        super().__init__()

    def _publish(self) -> None:
        chance = random.Random(SEED)
        while not self._stopping.is_set():
            if len(self._producer) < 500:
                wide = (WIDE, chance.randrange(PARTITIONS))
                place = chance.choice((wide, wide, (TABLE, 0), (SHORT, 0)))
                number = self.sent[place]
                self.sent[place] += 1
                self._producer.produce(
                    place[0],
                    b"%d" % number + bytes(chance.choice((0, 100, 2000))),
                    b"%d" % (number % KEYS),
                    place[1],
                    on_delivery=self._delivered,
                )
            self._producer.poll(0 if len(self._producer) < 500 else 0.01)
        self._producer.flush(TIMEOUT_S)
        for place, count in self.sent.items():
            if len(self.acknowledged[place]) != count:
                self.failures.append(f"{place}: not all of {count} are acknowledged")

    def _delivered(self, error: object, message: Message) -> None:
        if error is not None:
            self.failures.append(error)
        else:
            numbers = self.acknowledged[message.topic(), message.partition()]
            numbers[number_in(message)] = message.offset()
            self.count += 1


class ExactlyOncePublisher(Publisher):
    """Numbers published at QoS 2 with a window, over as many connections as it takes."""

    def __init__(self, server: Address, topic_name: str) -> None:
        self._server = server
        self._topic_name = topic_name
        self._next = 0
        self._under_way: dict[int, bool] = {}  # number: whether it was received (PUBREC)
        super().__init__()

    def _has_more(self) -> bool:
        return not self.failures and (not self._stopping.is_set() or bool(self._under_way))

    def _publish(self) -> None:
        while self._has_more():
            with (
                contextlib.suppress(OSError),
                raw_connection(self._server) as connection,
            ):
                self._publish_over(connection)
            time.sleep(0.02)

    def _publish_over(self, connection: RawMqtt) -> None:
        connection.open("exactly-once", clean=False, session_expiry_s=1000)
        if self.count and not connection.session_present:
            raise AssertionError("the session is lost")
        for number, received in self._under_way.items():  # in order [MQTT-4.4.0-1]
            again = self._release(number) if received else self._packet(number, dup=True)
            connection.send(again)
        while self._has_more():
            while len(self._under_way) < WINDOW and not self._stopping.is_set():
                self._under_way[self._next] = False
                connection.send(self._packet(self._next))
                self._next += 1
            arrived = connection.receive()
            if arrived is None:
                return
            number = next(each for each in self._under_way if _id(each) == arrived.packet_id)
            if arrived.kind == PUBREC:
                self._under_way[number] = True
                connection.send(self._release(number))
            elif arrived.kind == PUBCOMP:
                del self._under_way[number]
                self.count += 1
            else:
                raise AssertionError(f"{arrived} was not asked for")

    def _packet(self, number: int, *, dup: bool = False) -> bytes:
        return raw_mqtt.publish(
            self._topic_name, b"%d" % number, qos=2, packet_id=_id(number), dup=dup
        )

    def _release(self, number: int) -> bytes:
        return raw_mqtt.ack(PUBREL, _id(number))


def _id(number: int) -> int:
    return number % 60_000 + 1


def number_in(message: Message) -> int:
    return int(message.value().rstrip(b"\0"))


def read_all(server: Address, log_topic: str, partition: int) -> list[Message]:
    """Read a partition from its start to its end."""
    consumer = confluent_consumer(server, **QUICK)
    try:
        place = TopicPartition(log_topic, partition)
        start, end = consumer.get_watermark_offsets(place, TIMEOUT_S)
        consumer.assign([TopicPartition(log_topic, partition, start)])
        messages: list[Message] = []
        while start < end and (not messages or messages[-1].offset() < end - 1):
            messages += poll_records(consumer, 1)
        return messages
    finally:
        consumer.close()


def delete_some(server: Address, chance: random.Random, deleted: list[int]) -> None:
    """Delete records of the third log topic; note what surely is gone."""
    admin = AdminClient({"bootstrap.servers": text_of(server), **QUICK})
    consumer = confluent_consumer(server, **QUICK)
    start, end = consumer.get_watermark_offsets(TopicPartition(SHORT, 0), TIMEOUT_S)
    consumer.close()
    offset = chance.randint(start, end)
    [done] = admin.delete_records([TopicPartition(SHORT, 0, offset)]).values()
    assert done.result(TIMEOUT_S).low_watermark >= offset
    deleted.append(offset)


def check(server: Address, producer: Producer, deleted: list[int]) -> None:
    """Compare the log with what was acknowledged; everything is, by now."""
    for (log_topic, partition), offsets in producer.acknowledged.items():
        messages = read_all(server, log_topic, partition)
        found = {number_in(message): message.offset() for message in messages}
        assert len(found) == len(messages), f"{log_topic}-{partition}: a number comes twice"
        assert list(found) == sorted(found), f"{log_topic}-{partition}: out of order"
        where = f"{log_topic}-{partition} (seed {SEED})"
        assert found.items() <= offsets.items(), f"{where}: not where it was said to be"
        if log_topic == WIDE:
            assert list(found) == list(range(producer.sent[WIDE, partition])), f"{where}: a gap"
        elif log_topic == TABLE:
            newest: dict[int, int] = {}
            for number in offsets:
                newest[number % KEYS] = max(number, newest.get(number % KEYS, -1))
            assert set(newest.values()) <= set(found), f"{where}: the newest of a key is gone"
        else:
            first = min(found.values())
            assert first >= max(deleted, default=0), f"{where}: what was deleted is back"
            kept = {number for number, offset in offsets.items() if offset >= first}
            assert kept == set(found), f"{where}: a gap"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_doubled_or_moved(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(settings={"mqtt.session_expiry_max_s": "100000"})
    create_topic(server.kafka, WIDE, PARTITIONS, **TINY)
    compacted: dict[str, Any] = {
        **TINY,
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.01",
    }
    create_topic(server.kafka, TABLE, 1, **compacted)
    create_topic(server.kafka, SHORT, 1, **TINY)
    chance, deleted = random.Random(SEED), [0]
    producer = Producer(server.kafka)
    publisher = ExactlyOncePublisher(server.mqtt, "exactly/once")
    try:
        for _ in range(KILLS):
            wait_until(partial(producer.has_more_than, producer.count + 200), "records")
            wait_until(partial(publisher.has_more_than, publisher.count), "messages")
            delete_some(server.kafka, chance, deleted)
            time.sleep(chance.uniform(*MOMENT_S))
            server.kill()
            server.start()
    finally:
        if not server.is_running():
            server.start()
        producer.stop()
        publisher.stop()
    check(server.kafka, producer, deleted)
    values = [
        int(message.value())
        for message in read_all(server.kafka, "mqtt", 0)
        if message.key() == b"exactly/once"
    ]
    assert values == list(range(publisher.count)), f"QoS 2 (seed {SEED})"
    assert server.terminate() == 0
    lines = server.log_lines()
    assert not [line for line in lines if "Traceback" in line or "are lost" in line]
