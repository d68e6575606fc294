"""Clients that copy a log topic in transactions: read, write, and commit how far they are.

Each reads `source` as a member of the group `copier`, writes the same values to `target` and
commits its offsets in the same transaction. Every third transaction is aborted and done again,
where the program lets one say so. Nobody here wrote these clients.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiokafka
import kafka
from kafka.structs import OffsetAndMetadata
from tests.e2e.kafka_commands import JavaConsole, java_command, run_to_end
from tests.e2e.kafka_libraries import confluent_consumer, confluent_producer, poll_records
from tests.e2e.kafka_scripted import BUILT_PROGRAMS, Built, KafkaJs
from tests.e2e.mqtt_programs import CLIENTS
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import Address, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import Message

ABORTED: Final = 3
"""Each transaction of which the number can be divided by this is aborted and repeated."""
SIZE: Final = 5
# How a consumer reads that commits in transactions, as kafka-python and aiokafka name it.
READING: Final[dict[str, Any]] = {
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "max_poll_records": SIZE,
}


class Copier(Protocol):
    """A client with transactions."""

    name: str

    def missing(self) -> str:
        """Why it cannot be tried here, or nothing."""

    def copy(self, server: Address, source: str, target: str, count: int) -> None:
        """Copy the first `count` records."""


class ConfluentCopier:
    """confluent-kafka: librdkafka, which speaks the classic form."""

    name = "confluent-kafka"

    def missing(self) -> str:
        return ""

    def copy(self, server: Address, source: str, target: str, count: int) -> None:
        consumer = confluent_consumer(server, **{"group.id": f"copier-{target}"})
        producer = confluent_producer(server, **{"transactional.id": f"copier-{target}"})
        producer.init_transactions(TIMEOUT_S)
        consumer.subscribe([source])
        try:
            for number in range(count // SIZE):
                messages = poll_records(consumer, SIZE)
                if number % ABORTED == 0:
                    self._write(producer, target, messages)
                    producer.flush(TIMEOUT_S)
                    producer.abort_transaction(TIMEOUT_S)
                self._write(producer, target, messages)
                position = consumer.position(consumer.assignment())
                member = consumer.consumer_group_metadata()
                producer.send_offsets_to_transaction(position, member, TIMEOUT_S)
                producer.commit_transaction(TIMEOUT_S)
        finally:
            consumer.close()

    def _write(self, producer: object, target: str, messages: Sequence[Message]) -> None:
        producer.begin_transaction()  # type: ignore[attr-defined]
        for message in messages:
            producer.produce(target, message.value())  # type: ignore[attr-defined]


class AioKafkaCopier:
    """aiokafka, in the classic form."""

    name = "aiokafka"

    def missing(self) -> str:
        return ""

    def copy(self, server: Address, source: str, target: str, count: int) -> None:
        asyncio.run(asyncio.wait_for(self._copy(server, source, target, count), TIMEOUT_S))

    async def _copy(self, server: Address, source: str, target: str, count: int) -> None:
        group = f"copier-{target}"
        consumer = aiokafka.AIOKafkaConsumer(
            source, group_id=group, bootstrap_servers=text_of(server), **READING
        )
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=text_of(server), transactional_id=group
        )
        await consumer.start()
        await producer.start()
        try:
            done = number = 0
            while done < count:
                batches = await consumer.getmany(timeout_ms=200)
                records = [record for batch in batches.values() for record in batch]
                if not records:
                    continue
                if number % ABORTED == 0:
                    await producer.begin_transaction()
                    for record in records:
                        await producer.send_and_wait(target, record.value)
                    await producer.abort_transaction()
                async with producer.transaction():
                    for record in records:
                        await producer.send(target, record.value)
                    offsets = {place: batch[-1].offset + 1 for place, batch in batches.items()}
                    await producer.send_offsets_to_transaction(offsets, group)
                done += len(records)
                number += 1
        finally:
            await producer.stop()
            await consumer.stop()


class KafkaPythonCopier:
    """kafka-python."""

    name = "kafka-python"

    def missing(self) -> str:
        return ""

    def copy(self, server: Address, source: str, target: str, count: int) -> None:
        group = f"copier-{target}"
        consumer = kafka.KafkaConsumer(
            source, group_id=group, bootstrap_servers=text_of(server), **READING
        )
        producer = kafka.KafkaProducer(
            bootstrap_servers=text_of(server), transactional_id=group
        )
        try:
            producer.init_transactions()
            done = number = 0
            while done < count:
                batches = consumer.poll(200)
                records = [record for batch in batches.values() for record in batch]
                if not records:
                    continue
                if number % ABORTED == 0:
                    producer.begin_transaction()
                    for record in records:
                        producer.send(target, record.value).get(TIMEOUT_S)
                    producer.abort_transaction()
                producer.begin_transaction()
                for record in records:
                    producer.send(target, record.value)
                offsets = {
                    place: OffsetAndMetadata(batch[-1].offset + 1, "", -1)
                    for place, batch in batches.items()
                }
                producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
                producer.commit_transaction()
                done += len(records)
                number += 1
        finally:
            producer.close()
            consumer.close()


class KafkaJsCopier(KafkaJs):
    """kafkajs, in the classic form."""

    def copy(self, server: Address, source: str, target: str, count: int) -> None:
        script = str(CLIENTS / "kafka_copier.js")
        numbers = (str(count), str(SIZE), str(ABORTED))
        run_to_end(["node", script, text_of(server), source, target, *numbers])


class BuiltCopier(Built):
    """franz-go and krafka in the newer form, sarama in the classic one."""

    def copy(self, server: Address, source: str, target: str, count: int) -> None:
        numbers = (str(count), str(SIZE), str(ABORTED))
        run_to_end(self.command(server, "copy", source, target, *numbers))


class JavaCopier(JavaConsole):
    """The program that Apache Kafka's own system tests copy with; it aborts as it likes."""

    name = "java"

    def copy(self, server: Address, source: str, target: str, count: int) -> None:
        command = java_command("org.apache.kafka.tools.TransactionalMessageCopier")
        command += ["--broker-list", text_of(server), "--max-messages", str(count)]
        command += ["--input-topic", source, "--input-partition", "0"]
        command += ["--output-topic", target, "--consumer-group", f"copier-{target}"]
        command += ["--transactional-id", f"copier-{target}", "--transaction-size", str(SIZE)]
        run_to_end([*command, "--enable-random-aborts", "--group-mode", "--use-group-metadata"])


COPIERS: Final[tuple[Copier, ...]] = (
    ConfluentCopier(),
    AioKafkaCopier(),
    KafkaPythonCopier(),
    KafkaJsCopier(),
    *map(BuiltCopier, BUILT_PROGRAMS),
    JavaCopier(),
)
