"""Old records go: by DeleteRecords, by retention; and what readers of both kinds make of it."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from tests.e2e.kafka_commands import JavaConsole, java_command
from tests.e2e.kafka_libraries import (
    ConfluentKafka,
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
)
from tests.e2e.kafka_record import Record
from tests.e2e.mqtt_programs import Inbox, Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import text_of
from tests.e2e.test_restart_sessions import lasting_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.conftest import Shores
    from tests.e2e.server_process import Address, ServerProcess

ALL = -1
SMALL = {"segment.bytes": "1048576", "file.delete.delay.ms": "0"}
EAGER = {"storage.local.retention_check_s": "1"}


@pytest.fixture(scope="module")
def admin(shores: Shores) -> AdminClient:
    return AdminClient({"bootstrap.servers": text_of(shores.kafka)})


def numbered(count: int, size: int = 0) -> list[Record]:
    return [Record(b"k", b"%d " % number + bytes(size)) for number in range(count)]


def numbers(messages: list[Any]) -> list[int]:
    return [int(message.value().split()[0]) for message in messages]


def delete_records(admin: AdminClient, log_topic: str, offset: int) -> int:
    """Delete what comes before an offset and return the low watermark."""
    [deleted] = admin.delete_records([TopicPartition(log_topic, 0, offset)]).values()
    return int(deleted.result(TIMEOUT_S).low_watermark)


def watermarks(server: Address, log_topic: str) -> tuple[int, int]:
    consumer = confluent_consumer(server)
    try:
        found = consumer.get_watermark_offsets(TopicPartition(log_topic, 0), TIMEOUT_S)
        return int(found[0]), int(found[1])
    finally:
        consumer.close()


# --- DeleteRecords --------------------------------------------------------------------------


def test_deleted_records_are_gone(admin: AdminClient, shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique)
    ConfluentKafka().produce(shores.kafka, unique, numbered(100), "zstd")
    assert delete_records(admin, unique, 42) == 42
    assert watermarks(shores.kafka, unique) == (42, 100)
    consumer = confluent_consumer(shores.kafka)
    consumer.assign([TopicPartition(unique, 0, 0)])  # behind the start: sent to the earliest
    assert numbers(poll_records(consumer, 58)) == [*range(42, 100)]
    [found] = consumer.offsets_for_times([TopicPartition(unique, 0, 1)], TIMEOUT_S)
    assert found.offset == 42
    consumer.close()


def test_the_start_never_goes_back(admin: AdminClient, shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique)
    ConfluentKafka().produce(shores.kafka, unique, numbered(10))
    assert delete_records(admin, unique, 7) == 7
    assert delete_records(admin, unique, 3) == 7
    assert delete_records(admin, unique, 0) == 7


def test_all_records_may_be_deleted(admin: AdminClient, shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique)
    ConfluentKafka().produce(shores.kafka, unique, numbered(10))
    assert delete_records(admin, unique, ALL) == 10
    assert watermarks(shores.kafka, unique) == (10, 10)
    ConfluentKafka().produce(shores.kafka, unique, [Record(b"k", b"10 ")])
    consumer = confluent_consumer(shores.kafka)
    consumer.assign([TopicPartition(unique, 0, 0)])
    [message] = poll_records(consumer, 1)
    assert (message.offset(), numbers([message])) == (10, [10])
    consumer.close()


@pytest.mark.parametrize(
    ("policy", "offset", "code"),
    [
        ("delete", 11, KafkaError.OFFSET_OUT_OF_RANGE),
        ("compact", 5, KafkaError.POLICY_VIOLATION),
        ("compact", 11, KafkaError.POLICY_VIOLATION),
        ("compact,delete", 5, KafkaError.NO_ERROR),
    ],
)
def test_what_cannot_be_deleted_is_refused(
    policy: str, offset: int, code: int, admin: AdminClient, shores: Shores, unique: str
) -> None:
    create_topic(shores.kafka, unique, **{"cleanup.policy": policy})
    ConfluentKafka().produce(shores.kafka, unique, numbered(10))
    found = KafkaError.NO_ERROR
    try:
        delete_records(admin, unique, offset)
    except KafkaException as error:
        found = error.args[0].code()
    assert found == code
    assert watermarks(shores.kafka, unique)[0] == (offset if code == 0 else 0)


def test_records_of_an_internal_log_topic_stay(admin: AdminClient, shores: Shores) -> None:
    consumer = confluent_consumer(shores.kafka)  # a group, so that there is one
    create_topic(shores.kafka, f"{id(consumer)}")
    consumer.subscribe([f"{id(consumer)}"])
    wait_until(lambda: consumer.poll(0.1) or consumer.assignment(), "an assignment")
    consumer.close()
    with pytest.raises(KafkaException) as caught:
        delete_records(admin, "__consumer_offsets", 0)
    assert caught.value.args[0].code() == KafkaError.TOPIC_EXCEPTION


def test_kafka_delete_records_deletes(shores: Shores, unique: str, tmp_path: Path) -> None:
    missing = JavaConsole().missing()
    if missing:
        pytest.skip(missing)
    create_topic(shores.kafka, unique, 2)
    file = tmp_path / "offsets.json"
    asked = [
        {"topic": unique, "partition": 0, "offset": 0},
        {"topic": unique, "partition": 1, "offset": 1},
    ]
    file.write_text(json.dumps({"version": 1, "partitions": asked}))
    tool = java_command("org.apache.kafka.tools.DeleteRecordsCommand")
    tool += ["--bootstrap-server", text_of(shores.kafka), "--offset-json-file", str(file)]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert f"partition: {unique}-0\tlow_watermark: 0" in done.stdout
    assert "offset out of range" in done.stdout or "OffsetOutOfRange" in done.stdout


# --- retention, by a process of our own -----------------------------------------------------


def segments(server: ServerProcess, log_topic: str) -> list[int]:
    files = (server.data / f"{log_topic}-0").glob("*.log")
    return sorted(int(file.stem) for file in files)


def test_a_partition_stays_below_its_retention_bytes(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(settings=EAGER)
    create_topic(server.kafka, "t", **SMALL, **{"retention.bytes": "3000000"})
    producer = confluent_producer(server.kafka, **{"batch.size": 65536})
    for number in range(1000):
        producer.produce("t", b"%d " % number + bytes(10_000), b"k")
        producer.poll(0)
    assert producer.flush(TIMEOUT_S) == 0
    wait_until(lambda: watermarks(server.kafka, "t")[0] > 500, "retention")
    directory = server.data / "t-0"

    def is_small() -> bool:
        try:
            return sum(file.stat().st_size for file in directory.iterdir()) < 4_500_000
        except FileNotFoundError:  # it went just now; more may go
            return False

    wait_until(is_small, "that the files are gone")
    start, end = watermarks(server.kafka, "t")
    assert end == 1000
    assert end - start >= 280  # never less than what is to be kept
    consumer = confluent_consumer(server.kafka)
    consumer.assign([TopicPartition("t", 0, 0)])
    assert numbers(poll_records(consumer, end - start)) == [*range(start, end)]
    consumer.close()
    server.kill()
    server.start()
    assert watermarks(server.kafka, "t") == (start, end)


def test_an_old_partition_is_emptied_and_goes_on(
    start_server: Callable[..., ServerProcess],
) -> None:
    """By the default of the server: the log topic says nothing."""
    server = start_server(settings=EAGER | {"storage.local.retention_s": "1"})
    create_topic(server.kafka, "t", **SMALL)
    create_topic(server.kafka, "own", **SMALL, **{"retention.ms": "-1"})
    for name in ("t", "own"):
        ConfluentKafka().produce(server.kafka, name, numbered(10))
    wait_until(lambda: watermarks(server.kafka, "t") == (10, 10), "that all has expired")
    assert watermarks(server.kafka, "own") == (0, 10)
    wait_until(lambda: segments(server, "t") == [10], "that the files are gone")
    server.kill()
    server.start()
    assert watermarks(server.kafka, "t") == (10, 10)
    create_topic(server.kafka, "later", **{"retention.ms": "-1"})
    ConfluentKafka().produce(server.kafka, "t", [Record(b"k", b"10 ")])
    assert watermarks(server.kafka, "t")[1] == 11
    admin = AdminClient({"bootstrap.servers": text_of(server.kafka)})
    [described] = admin.describe_configs([ConfigResource(ResourceType.TOPIC, "t")]).values()
    assert described.result(TIMEOUT_S)["retention.ms"].value == "1000"


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_deleted_records_stay_deleted(
    end: str, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server()
    create_topic(server.kafka, "t")
    ConfluentKafka().produce(server.kafka, "t", numbered(100))
    admin = AdminClient({"bootstrap.servers": text_of(server.kafka)})
    assert delete_records(admin, "t", 42) == 42
    getattr(server, end)()
    server.start()
    assert watermarks(server.kafka, "t") == (42, 100)


@pytest.mark.parametrize("has_restarted", [False, True])
def test_a_session_gets_what_is_left_of_what_waited_for_it(
    has_restarted: bool, start_server: Callable[..., ServerProcess]
) -> None:
    """Its queue holds places in the log: those that are gone are passed over."""
    server = start_server()
    inbox = Inbox()
    with lasting_client(server.mqtt, 5, inbox) as (client, _):
        paho_subscribe(client, "plant/#", 1)
    with paho_client(server.mqtt) as client:
        paho_publish(client, [Message("plant/a", b"%d" % number) for number in range(20)])
    admin = AdminClient({"bootstrap.servers": text_of(server.kafka)})
    assert delete_records(admin, "mqtt", 15) == 15
    if has_restarted:
        server.kill()
        server.start()
    with lasting_client(server.mqtt, 5, inbox) as (_, present):
        assert present
        payloads = [message.payload for message in inbox.wait(5)]
        inbox.stays_at(5)
    assert payloads == [b"%d" % number for number in range(15, 20)]


def test_retention_does_not_disturb_who_reads_and_writes(
    start_server: Callable[..., ServerProcess],
) -> None:
    """Everything that a reader is not too slow for comes, in order, and nothing twice."""
    server = start_server(settings=EAGER)
    create_topic(server.kafka, "t", **SMALL, **{"retention.bytes": "2000000"})
    consumer = confluent_consumer(server.kafka)
    consumer.assign([TopicPartition("t", 0, 0)])
    producer = confluent_producer(server.kafka)
    last, sent, end = -1, 0, time.monotonic() + TIMEOUT_S
    while watermarks(server.kafka, "t")[0] < 1500:
        assert time.monotonic() < end, "retention"
        for _ in range(300):
            producer.produce("t", b"%d " % sent + bytes(5000), b"k")
            sent += 1
        assert producer.flush(TIMEOUT_S) == 0
        while last < sent - 1:
            for message in consumer.consume(500, 0.1):
                assert message.error() is None, message.error()
                [number] = numbers([message])
                assert number == message.offset() > last
                last = number
    assert last == sent - 1
    consumer.close()
