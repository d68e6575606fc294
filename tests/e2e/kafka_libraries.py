"""The Kafka clients that are Python libraries: confluent-kafka, aiokafka and kafka-python.

confluent-kafka serves the tests of single features as well, so its consumer, its producer and
its administrator are at hand here as functions.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import aiokafka
import aiokafka.codec
import confluent_kafka
import kafka
import kafka.codec
from confluent_kafka.admin import AdminClient, NewTopic
from tests.e2e.kafka_record import BYTES_MAX, CODECS, Record
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import Address, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN_TOPIC: Final = confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART


def create_topic(server: Address, log_topic: str, partitions: int = 1, **config: str) -> None:
    """Create a log topic and return once a client can see it."""
    admin = AdminClient({"bootstrap.servers": text_of(server)})
    [created] = admin.create_topics([NewTopic(log_topic, partitions, config=config)]).values()
    created.result(TIMEOUT_S)
    wait_until(
        lambda: log_topic in admin.list_topics(timeout=TIMEOUT_S).topics,
        f"that {log_topic} shows after it was created",
    )


# --- confluent-kafka ------------------------------------------------------------------------


def confluent_producer(server: Address, **settings: Any) -> confluent_kafka.Producer:
    """Return a producer of librdkafka that waits for all acknowledgements."""
    return confluent_kafka.Producer(
        {
            "bootstrap.servers": text_of(server),
            "acks": "all",
            "message.max.bytes": BYTES_MAX,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            **settings,
        }
    )


def confluent_consumer(server: Address, **settings: Any) -> confluent_kafka.Consumer:
    """Return a consumer of librdkafka that reads from the beginning and commits nothing."""
    return confluent_kafka.Consumer(
        {
            "bootstrap.servers": text_of(server),
            "group.id": f"confluent-{uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": BYTES_MAX,
            "fetch.wait.max.ms": 50,
            "topic.metadata.refresh.interval.ms": 500,
            **settings,
        }
    )


def record_of(message: confluent_kafka.Message) -> Record:
    """Return a message of librdkafka in our form."""
    assert message.error() is None, message.error()
    return Record(message.key(), message.value(), tuple(message.headers() or ()))


def poll_records(
    consumer: confluent_kafka.Consumer, count: int
) -> list[confluent_kafka.Message]:
    """Poll until `count` messages have come, or fail saying how many did."""
    messages: list[confluent_kafka.Message] = []
    end = time.monotonic() + TIMEOUT_S
    while len(messages) < count and time.monotonic() < end:
        for message in consumer.consume(min(count - len(messages), 10_000), 0.1):
            error = message.error()
            if error is None:
                messages.append(message)
            else:
                assert error.retriable() or error.code() == UNKNOWN_TOPIC, error
    assert len(messages) >= count, f"{len(messages)} of {count} records after {TIMEOUT_S} s"
    return messages


class ConfluentKafka:
    """confluent-kafka: librdkafka, idempotent."""

    name = "confluent-kafka"
    codecs = CODECS
    text_only = False

    def missing(self) -> str:
        return ""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        failures: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                failures.append(error)

        producer = confluent_producer(
            server, **{"compression.type": codec, "enable.idempotence": True}
        )
        for record in records:
            producer.produce(
                log_topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                on_delivery=delivered,
            )
        assert producer.flush(TIMEOUT_S) == 0, "not everything is acknowledged"
        assert not failures, failures[:3]

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        consumer = confluent_consumer(server)
        try:
            consumer.subscribe([log_topic])
            return [record_of(message) for message in poll_records(consumer, count)]
        finally:
            consumer.close()


# --- aiokafka -------------------------------------------------------------------------------


class AioKafka:
    """aiokafka, on an event loop of its own."""

    name = "aiokafka"
    codecs = tuple(codec for codec in CODECS if getattr(aiokafka.codec, f"has_{codec}")())
    text_only = False

    def missing(self) -> str:
        return ""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        async def run() -> None:
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=text_of(server),
                acks="all",
                enable_idempotence=True,
                max_request_size=BYTES_MAX,
                compression_type=None if codec == "none" else codec,
            )
            await producer.start()
            try:
                sent = [
                    await producer.send(
                        log_topic, record.value, key=record.key, headers=list(record.headers)
                    )
                    for record in records
                ]
                await asyncio.wait_for(asyncio.gather(*sent), TIMEOUT_S)
            finally:
                await producer.stop()

        asyncio.run(run())

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        async def run() -> list[Record]:
            consumer = aiokafka.AIOKafkaConsumer(
                log_topic,
                bootstrap_servers=text_of(server),
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=BYTES_MAX,
                fetch_max_wait_ms=50,
            )
            await consumer.start()
            try:
                records = []
                while len(records) < count:
                    batches = await consumer.getmany(timeout_ms=200)
                    records += [record for batch in batches.values() for record in batch]
                return [
                    Record(record.key, record.value, tuple(record.headers))
                    for record in records
                ]
            finally:
                await consumer.stop()

        return asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


# --- kafka-python ---------------------------------------------------------------------------


class KafkaPython:
    """kafka-python."""

    name = "kafka-python"
    codecs = tuple(codec for codec in CODECS if getattr(kafka.codec, f"has_{codec}")())
    text_only = False

    def missing(self) -> str:
        return ""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        producer = kafka.KafkaProducer(
            bootstrap_servers=text_of(server),
            acks="all",
            max_request_size=BYTES_MAX,
            linger_ms=5,
            compression_type=None if codec == "none" else codec,
        )
        try:
            sent = [
                producer.send(log_topic, record.value, record.key, list(record.headers))
                for record in records
            ]
            producer.flush(TIMEOUT_S)
            for future in sent:
                future.get(TIMEOUT_S)
        finally:
            producer.close()

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        consumer = kafka.KafkaConsumer(
            log_topic,
            bootstrap_servers=text_of(server),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=BYTES_MAX,
            fetch_max_wait_ms=50,
            max_poll_records=10_000,
        )
        try:
            records: list[Record] = []
            end = time.monotonic() + TIMEOUT_S
            while len(records) < count:
                assert time.monotonic() < end, f"{len(records)} of {count} records"
                for batch in consumer.poll(200).values():
                    records += [
                        Record(record.key, record.value, tuple(record.headers))
                        for record in batch
                    ]
            return records
        finally:
            consumer.close()
