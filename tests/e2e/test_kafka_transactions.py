"""Transactions with clients that nobody here wrote: each record once, MQTT at the commit."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from tests.e2e.kafka_commands import CLIENTS, JavaConsole, java_command, run_to_end
from tests.e2e.kafka_copiers import COPIERS, Copier
from tests.e2e.kafka_libraries import (
    ConfluentKafka,
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
)
from tests.e2e.kafka_record import Record
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.raw_mqtt import PUBLISH, SUBACK, raw_session, subscribe
from tests.e2e.server_process import Address, text_of

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores
    from tests.e2e.server_process import ServerProcess

COUNT = 40


def values_in(server: Address, log_topic: str, count: int) -> list[bytes]:
    """Return what a reader of committed records gets, up to the stable end."""
    consumer = confluent_consumer(server, **{"isolation.level": "read_committed"})
    try:
        consumer.assign([TopicPartition(log_topic, 0, 0)])
        return [message.value() for message in poll_records(consumer, count)]
    finally:
        consumer.close()


@pytest.mark.parametrize("copier", [pytest.param(one, id=one.name) for one in COPIERS])
def test_each_record_is_copied_once(copier: Copier, shores: Shores, unique: str) -> None:
    if copier.missing():
        pytest.skip(copier.missing())
    target = f"{unique}-copy"
    create_topic(shores.kafka, unique)
    create_topic(shores.kafka, target)
    values = [b"%d" % number for number in range(COUNT)]
    ConfluentKafka().produce(shores.kafka, unique, [Record(b"k", one) for one in values])
    copier.copy(shores.kafka, unique, target, COUNT)
    # One more of another transaction: what is behind it would show as well.
    producer = confluent_producer(shores.kafka, **{"transactional.id": unique})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(target, b"end")
    producer.commit_transaction(TIMEOUT_S)
    assert values_in(shores.kafka, target, COUNT + 1) == [*values, b"end"]
    consumer = confluent_consumer(shores.kafka, **{"group.id": f"copier-{target}"})
    (place,) = consumer.committed([TopicPartition(unique, 0)], TIMEOUT_S)
    assert place.offset == COUNT
    consumer.close()


def test_subscribers_get_what_commits_when_it_commits(own_server: ServerProcess) -> None:
    producer = confluent_producer(
        own_server.kafka, **{"transactional.id": "shore", "linger.ms": 0}
    )
    producer.init_transactions(TIMEOUT_S)
    with raw_session(own_server.mqtt, "reader") as mqtt:
        mqtt.send(subscribe(1, "tx/#", 0))
        mqtt.expect(SUBACK)
        producer.begin_transaction()
        producer.produce("mqtt", b"dropped", b"tx/a")
        producer.flush(TIMEOUT_S)
        producer.abort_transaction(TIMEOUT_S)
        producer.begin_transaction()
        producer.produce("mqtt", b"first", b"tx/a")
        producer.flush(TIMEOUT_S)
        ConfluentKafka().produce(own_server.kafka, "mqtt", [Record(b"tx/b", b"between")])
        got = [mqtt.expect(PUBLISH)]
        producer.commit_transaction(TIMEOUT_S)
        got.append(mqtt.expect(PUBLISH))
    assert [each.payload() for each in got] == [b"between", b"first"]


def tool_said(server: Address, *runs: str) -> list[list[dict[str, str]]]:
    """Run kafka-transactions in one JVM; return the rows that each run prints, by column."""
    command = [*java_command("-")[:-1], str(CLIENTS / "Repeated.java")]
    lines = "".join(f"--bootstrap-server {text_of(server)} {each}\n" for each in runs)
    tool = "org.apache.kafka.tools.TransactionsCommand"
    said = run_to_end([*command, tool], lines.encode()).decode()
    found = []
    for part in said.split("== ")[1:]:
        printed = [line.split("\t") for line in part.splitlines()[1:]]
        head, rows = printed[:1], printed[1:]
        found.append(
            [
                {name.strip(): value.strip() for name, value in zip(head[0], row, strict=True)}
                for row in rows
            ]
        )
    return found


@pytest.mark.skipif(not shutil.which("javac"), reason="no Java compiler installed")
def test_the_tool_for_transactions_sees_and_ends_them(shores: Shores, unique: str) -> None:
    if JavaConsole().missing():
        pytest.skip(JavaConsole().missing())
    create_topic(shores.kafka, unique)
    producer = confluent_producer(shores.kafka, **{"transactional.id": unique, "linger.ms": 0})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(unique, b"open")
    producer.flush(TIMEOUT_S)
    place = f"--topic {unique} --partition 0"
    listed, described, written, hanging, aborted, left = tool_said(
        shores.kafka,
        f"list --transactional-id-pattern {unique}",
        f"describe --transactional-id {unique}",
        f"describe-producers {place}",
        f"find-hanging --max-transaction-timeout 0 --topic {unique}",
        f"abort {place} --start-offset 0",
        f"describe-producers {place}",
    )
    assert [row["TransactionalId"] for row in listed] == [unique]
    assert [row["TransactionState"] for row in listed + described] == ["Ongoing"] * 2
    assert described[0]["TopicPartitions"] == f"{unique}-0"
    assert [row["CurrentTransactionStartOffset"] for row in written] == ["0"]
    assert hanging == []  # its coordinator knows of it
    assert aborted == []
    assert [row["CurrentTransactionStartOffset"] for row in left] == ["None"]
    ConfluentKafka().produce(shores.kafka, unique, [Record(b"k", b"after")])
    assert values_in(shores.kafka, unique, 1) == [b"after"]
    producer.abort_transaction(TIMEOUT_S)
