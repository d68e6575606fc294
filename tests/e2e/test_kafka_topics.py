"""Log topics as Kafka administrators and readers see them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import (
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from tests.e2e.kafka_asker import Asker
from tests.e2e.kafka_commands import JavaConsole
from tests.e2e.kafka_libraries import (
    ConfluentKafka,
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
)
from tests.e2e.kafka_record import Record
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.relay import Relay
from tests.e2e.server_process import text_of

from isthmus.kafka.api import ApiKey
from isthmus.record.batch import split_batches
from isthmus.record.compression import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Shores
    from tests.e2e.server_process import Address, ServerProcess

    from isthmus.record.batch import RecordBatch


@pytest.fixture(scope="module")
def admin(shores: Shores) -> AdminClient:
    return AdminClient({"bootstrap.servers": text_of(shores.kafka)})


def code_of(caught: pytest.ExceptionInfo[KafkaException]) -> int:
    """Return the Kafka error code inside a librdkafka exception."""
    return int(caught.value.args[0].code())


# --- create and delete ----------------------------------------------------------------------


def test_a_topic_has_the_partitions_it_was_created_with(
    admin: AdminClient, shores: Shores, unique: str
) -> None:
    create_topic(shores.kafka, unique, 7)
    topic = admin.list_topics(timeout=TIMEOUT_S).topics[unique]
    assert sorted(topic.partitions) == list(range(7))
    assert all(one.leader >= 0 and one.replicas for one in topic.partitions.values())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"topic": "no/slash"}, KafkaError.TOPIC_EXCEPTION),
        ({"topic": ".."}, KafkaError.TOPIC_EXCEPTION),
        ({"topic": "x" * 250}, KafkaError.TOPIC_EXCEPTION),
        ({"num_partitions": 0}, KafkaError.INVALID_PARTITIONS),
        ({"config": {"no.such.config": "1"}}, KafkaError.INVALID_CONFIG),
        ({"config": {"retention.ms": "soon"}}, KafkaError.INVALID_CONFIG),
    ],
)
def test_a_topic_that_cannot_be_is_refused(
    arguments: dict[str, object], code: int, admin: AdminClient, unique: str
) -> None:
    arguments = {"topic": unique, "num_partitions": 1} | arguments
    [created] = admin.create_topics([NewTopic(**arguments)]).values()  # type: ignore[arg-type]
    with pytest.raises(KafkaException) as caught:
        created.result(TIMEOUT_S)
    assert code_of(caught) == code


def test_a_topic_is_created_once(shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique)
    with pytest.raises(KafkaException) as caught:
        create_topic(shores.kafka, unique)
    assert code_of(caught) == KafkaError.TOPIC_ALREADY_EXISTS


def test_a_deleted_topic_is_gone_and_a_new_one_of_its_name_is_empty(
    admin: AdminClient, shores: Shores, unique: str
) -> None:
    create_topic(shores.kafka, unique)
    ConfluentKafka().produce(shores.kafka, unique, [Record(b"k", b"old")])
    admin.delete_topics([unique])[unique].result(TIMEOUT_S)
    end = time.monotonic() + TIMEOUT_S
    while unique in admin.list_topics(timeout=TIMEOUT_S).topics:
        assert time.monotonic() < end, "a deleted topic stays in the metadata"
    create_topic(shores.kafka, unique)
    ConfluentKafka().produce(shores.kafka, unique, [Record(b"k", b"new")])
    assert ConfluentKafka().consume(shores.kafka, unique, 1) == [Record(b"k", b"new")]


def test_deleting_what_is_not_there_is_refused(admin: AdminClient, unique: str) -> None:
    with pytest.raises(KafkaException) as caught:
        admin.delete_topics([unique])[unique].result(TIMEOUT_S)
    assert code_of(caught) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_producing_creates_a_topic(shores: Shores, unique: str) -> None:
    """auto.create.topics.enable, as Apache Kafka has it by default."""
    ConfluentKafka().produce(shores.kafka, unique, [Record(b"k", b"v")])
    assert ConfluentKafka().consume(shores.kafka, unique, 1) == [Record(b"k", b"v")]


# --- configs --------------------------------------------------------------------------------


def test_configs_are_described_with_defaults(
    admin: AdminClient, shores: Shores, unique: str
) -> None:
    config = {"retention.ms": "123456", "cleanup.policy": "compact"}
    create_topic(shores.kafka, unique, **config)
    resource = ConfigResource(ResourceType.TOPIC, unique)
    [described] = admin.describe_configs([resource]).values()
    configs = described.result(TIMEOUT_S)
    assert configs["retention.ms"].value == "123456"
    assert not configs["retention.ms"].is_default
    assert configs["cleanup.policy"].value == "compact"
    for name in ("segment.bytes", "index.interval.bytes", "delete.retention.ms"):
        assert configs[name].is_default
        assert configs[name].value.isdigit()


def test_broker_configs_are_described(admin: AdminClient) -> None:
    [broker] = admin.list_topics(timeout=TIMEOUT_S).brokers
    [described] = admin.describe_configs(
        [ConfigResource(ResourceType.BROKER, str(broker))]
    ).values()
    assert described.result(TIMEOUT_S)


def test_configs_of_an_unknown_topic_are_refused(admin: AdminClient, unique: str) -> None:
    resource = ConfigResource(ResourceType.TOPIC, unique)
    [described] = admin.describe_configs([resource]).values()
    with pytest.raises(KafkaException) as caught:
        described.result(TIMEOUT_S)
    assert code_of(caught) == KafkaError.UNKNOWN_TOPIC_OR_PART


# --- offsets and times ----------------------------------------------------------------------


def test_an_offset_is_found_by_time(shores: Shores, unique: str) -> None:
    """The answer is exact to the record, inside compressed batches too (KIP-79)."""
    create_topic(shores.kafka, unique)
    now = int(time.time() * 1000)
    times = [now - 60_000 + 1000 * number for number in range(50)]
    producer = confluent_producer(
        shores.kafka, **{"compression.type": "zstd", "linger.ms": 100}
    )
    for number, timestamp in enumerate(times):
        producer.produce(unique, b"%d" % number, b"k", timestamp=timestamp)
    assert producer.flush(TIMEOUT_S) == 0
    consumer = confluent_consumer(shores.kafka)

    def offset_at(timestamp: int) -> int:
        [found] = consumer.offsets_for_times([TopicPartition(unique, 0, timestamp)], TIMEOUT_S)
        return int(found.offset)

    assert offset_at(times[0] - 5000) == 0
    assert offset_at(times[17]) == 17
    assert offset_at(times[17] + 1) == 18
    assert offset_at(times[49]) == 49
    assert offset_at(times[49] + 1) in (-1, OFFSET_INVALID)
    assert consumer.get_watermark_offsets(TopicPartition(unique, 0), TIMEOUT_S) == (0, 50)
    consumer.close()


@pytest.mark.parametrize("program", [ConfluentKafka(), JavaConsole()], ids=lambda one: one.name)
def test_a_log_topic_has_a_codec_of_its_own(
    program: ConfluentKafka | JavaConsole, shores: Shores, unique: str
) -> None:
    if program.missing():
        pytest.skip(program.missing())
    create_topic(shores.kafka, unique, **{"compression.type": "lz4"})
    records = [Record(b"key", b"%04d " % number * 20) for number in range(50)]
    program.produce(shores.kafka, unique, records, "gzip")
    assert ConfluentKafka().consume(shores.kafka, unique, len(records)) == records
    [stored, *_] = fetched(shores.kafka, unique)
    assert NAMES[stored.compression] == "lz4"


def fetched(server: Address, log_topic: str) -> list[RecordBatch]:
    """Return the batches of a log topic as they are sent to readers."""
    asker = Asker(server)
    partition = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}
    wanted = {"topic": log_topic, "partitions": [partition]}
    fetch = {"replica_id": -1, "max_wait_ms": 0, "min_bytes": 0, "topics": [wanted]}
    answer = asker.ask(ApiKey.FETCH, 4, fetch)
    asker.close()
    return split_batches(answer["responses"][0]["partitions"][0]["records"])


def test_reading_can_start_anywhere(shores: Shores, unique: str) -> None:
    """An offset inside a batch as well, where the batch begins before it."""
    create_topic(shores.kafka, unique)
    records = [Record(b"k", b"%d" % number) for number in range(1000)]
    ConfluentKafka().produce(shores.kafka, unique, records, "lz4")
    consumer = confluent_consumer(shores.kafka)
    for start in (0, 1, 499, 999):
        consumer.assign([TopicPartition(unique, 0, start)])
        [message] = poll_records(consumer, 1)
        assert (message.offset(), message.value()) == (start, b"%d" % start)
    consumer.close()


def test_an_offset_beyond_the_log_is_out_of_range(shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique)
    ConfluentKafka().produce(shores.kafka, unique, [Record(b"k", b"v")])
    consumer = confluent_consumer(shores.kafka, **{"auto.offset.reset": "error"})
    consumer.assign([TopicPartition(unique, 0, 100)])
    end = time.monotonic() + TIMEOUT_S
    while (message := consumer.poll(0.1)) is None:
        assert time.monotonic() < end, "no error for an offset that does not exist"
    assert message.error().code() == KafkaError._AUTO_OFFSET_RESET
    consumer.close()


# --- producers ------------------------------------------------------------------------------


def test_a_record_too_large_is_refused(shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique, **{"max.message.bytes": "10000"})
    failed = []
    producer = confluent_producer(shores.kafka)
    producer.produce(unique, b"x" * 20_000, on_delivery=lambda error, _: failed.append(error))
    assert producer.flush(TIMEOUT_S) == 0
    assert failed[0].code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_an_idempotent_producer_keeps_order_over_a_flaky_line(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    """Connections cut under requests in flight: sent again, written once, in order."""
    count = 20_000
    with Relay() as line:
        advertised = f'["tcp://{text_of(line.address)}"]'
        server = start_server(settings={"kafka.advertised_listeners": advertised})
        line.target = server.kafka
        create_topic(line.address, unique)
        producer = confluent_producer(
            line.address,
            **{"enable.idempotence": True, "reconnect.backoff.ms": 10, "retry.backoff.ms": 10},
        )
        for number in range(count):
            producer.produce(unique, b"%d" % number, b"k")
            if number % 2000 == 1999:
                producer.poll(0.02)
                line.cut()
        assert producer.flush(TIMEOUT_S) == 0
        consumer = confluent_consumer(line.address)
        consumer.subscribe([unique])
        values = [int(message.value()) for message in poll_records(consumer, count)]
        assert consumer.poll(0.2) is None
        consumer.close()
    assert values == list(range(count))


# --- the advertised address -----------------------------------------------------------------


def advertised_to(address: Address) -> Address:
    """Return where a client that bootstraps at `address` is told to go."""
    admin = AdminClient({"bootstrap.servers": text_of(address)})
    [broker] = admin.list_topics(timeout=TIMEOUT_S).brokers.values()
    return broker.host, broker.port


def test_the_advertised_address_is_the_one_the_client_used(
    start_server: Callable[..., ServerProcess],
) -> None:
    """A server on all addresses tells each client the one that it reached."""
    server = start_server(kafka=("0.0.0.0", 0), settings={"kafka.allow_anonymous": "true"})
    for host in ("127.0.0.1", "127.0.0.2"):
        assert advertised_to((host, server.kafka[1])) == (host, server.kafka[1])


def test_the_advertised_address_can_be_configured(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(
        settings={"kafka.advertised_listeners": '["tcp://kafka.example:19092"]'}
    )
    assert advertised_to(server.kafka) == ("kafka.example", 19092)
