"""After an orderly end and after SIGKILL everything that was acknowledged is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from tests.e2e.kafka_libraries import ConfluentKafka, confluent_producer, create_topic
from tests.e2e.kafka_record import Record
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.raw_mqtt import DISCONNECT, raw_session
from tests.e2e.server_process import text_of

if TYPE_CHECKING:
    from tests.e2e.server_process import ServerProcess

END = pytest.mark.parametrize("end", ["terminate", "kill"])


def restart(server: ServerProcess, end: str) -> None:
    """End the server in one of the two ways and start it again on the same data and ports."""
    if end == "kill":
        server.kill()
    else:
        assert server.terminate() == 0
    server.start()


@END
def test_messages_of_both_shores(end: str, fresh_server: ServerProcess) -> None:
    produced = [Record(b"b/c", b"%d" % number) for number in range(100)]
    with paho_client(fresh_server.mqtt) as client:
        paho_publish(client, [Message("a", b"%d" % n, n % 2 + 1) for n in range(100)])
    ConfluentKafka().produce(fresh_server.kafka, "mqtt", produced, "zstd")
    before = ConfluentKafka().consume(fresh_server.kafka, "mqtt", 200)
    restart(fresh_server, end)
    assert ConfluentKafka().consume(fresh_server.kafka, "mqtt", 200) == before
    # And it goes on after them, on both shores.
    with paho_client(fresh_server.mqtt) as client:
        inbox = paho_subscribe(client, "#")
        ConfluentKafka().produce(fresh_server.kafka, "mqtt", [Record(b"d", b"after")])
        assert inbox.wait(1)[0].payload == b"after"
    assert ConfluentKafka().consume(fresh_server.kafka, "mqtt", 201)[-1].value == b"after"


@END
def test_topics_with_their_settings(end: str, fresh_server: ServerProcess) -> None:
    create_topic(fresh_server.kafka, "wide", 5, **{"retention.ms": "777777"})
    listed = described(fresh_server, "wide")
    restart(fresh_server, end)
    assert described(fresh_server, "wide") == listed
    assert listed[1] == "777777"


def described(server: ServerProcess, log_topic: str) -> tuple[list[int], str]:
    """Return the partitions of a log topic and its `retention.ms`."""
    admin = AdminClient({"bootstrap.servers": text_of(server.kafka)})
    partitions = sorted(admin.list_topics(timeout=TIMEOUT_S).topics[log_topic].partitions)
    [configs] = admin.describe_configs([ConfigResource(ResourceType.TOPIC, log_topic)]).values()
    return partitions, configs.result(TIMEOUT_S)["retention.ms"].value


@END
def test_retained_messages(end: str, fresh_server: ServerProcess) -> None:
    with paho_client(fresh_server.mqtt) as client:
        paho_publish(
            client,
            [
                Message("r/kept", b"old", 1, True),
                Message("r/kept", b"new", 1, True),
                Message("r/cleared", b"x", 1, True),
                Message("r/cleared", b"", 1, True),
            ],
        )
    restart(fresh_server, end)
    with paho_client(fresh_server.mqtt) as client:
        inbox = paho_subscribe(client, "r/#")
        assert [(one.topic_name, one.payload) for one in inbox.wait(1)] == [("r/kept", b"new")]
        inbox.stays_at(1)


@END
def test_an_idempotent_producer_goes_on(end: str, fresh_server: ServerProcess) -> None:
    """Its sequence numbers are known after the restart: no gap, no duplicate."""
    failures: list[object] = []
    producer = confluent_producer(
        fresh_server.kafka,
        **{"enable.idempotence": True, "reconnect.backoff.ms": 10, "retry.backoff.ms": 10},
    )

    def produce(numbers: range) -> None:
        for number in numbers:
            producer.produce(
                "mqtt",
                b"%d" % number,
                b"k",
                on_delivery=lambda error, _: failures.append(error) if error else None,
            )
        assert producer.flush(TIMEOUT_S) == 0

    produce(range(50))
    restart(fresh_server, end)
    produce(range(50, 100))
    assert not failures
    records = ConfluentKafka().consume(fresh_server.kafka, "mqtt", 100)
    assert [int(record.value or b"") for record in records] == list(range(100))


def test_an_orderly_end_says_goodbye(fresh_server: ServerProcess) -> None:
    """MQTT 5 clients get DISCONNECT 0x8B, Server shutting down."""
    with raw_session(fresh_server.mqtt, "device") as session:
        assert fresh_server.terminate() == 0
        last = session.receive()
        assert last is not None
        assert (last.kind, last.body[:1]) == (DISCONNECT, b"\x8b")
        assert session.receive() is None
