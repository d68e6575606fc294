"""What the project is for: published over MQTT, read over Kafka, and the other way round.

Every MQTT client meets every Kafka client. The payloads are those that break bridges: empty,
one byte, 1 MiB, every byte value; with user properties on one side, headers on the other.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from tests.e2e.kafka_libraries import ConfluentKafka
from tests.e2e.kafka_programs import KAFKA_PROGRAMS, payloads_for
from tests.e2e.kafka_record import CODECS, KafkaProgram, Record
from tests.e2e.mqtt_programs import (
    Message,
    MqttProgram,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.mqtt_scripted import MQTT_PROGRAMS
from tests.e2e.raw_mqtt import PUBLISH, SUBACK, raw_session, subscribe

if TYPE_CHECKING:
    from tests.e2e.server_process import ServerProcess

USER_PROPERTIES = (("unit", "C"), ("unit", "K"), ("line", "3"))
HEADERS = tuple((name, value.encode()) for name, value in USER_PROPERTIES)

EVERY_PAIR = pytest.mark.parametrize(
    ("mqtt", "kafka"),
    [
        pytest.param(mqtt, kafka, id=f"{mqtt.name}-{kafka.name}")
        for kafka, mqtt in itertools.product(KAFKA_PROGRAMS, MQTT_PROGRAMS)
    ],
)


def require(*programs: MqttProgram | KafkaProgram) -> None:
    """Skip the test where one of the programs is missing."""
    for program in programs:
        if program.missing():
            pytest.skip(program.missing())


def without_ours(record: Record) -> Record:
    """Return a record without the headers that carry what MQTT has and Kafka has not."""
    headers = tuple(pair for pair in record.headers if not pair[0].startswith("mqtt."))
    return Record(record.key, record.value, headers)


@EVERY_PAIR
def test_what_is_published_is_read(
    mqtt: MqttProgram, kafka: KafkaProgram, fresh_server: ServerProcess
) -> None:
    require(mqtt, kafka)
    pairs, headers = (USER_PROPERTIES, HEADERS) if mqtt.user_properties else ((), ())
    payloads = payloads_for(kafka, reading=True)
    mqtt.publish(
        fresh_server.mqtt,
        [Message("plant/7/temp", one, 1, user_properties=pairs) for one in payloads],
    )
    records = kafka.consume(fresh_server.kafka, "mqtt", len(payloads))
    assert [without_ours(record) for record in records] == [
        Record(b"plant/7/temp", payload, headers) for payload in payloads
    ]


@EVERY_PAIR
def test_what_is_produced_is_delivered(
    mqtt: MqttProgram, kafka: KafkaProgram, fresh_server: ServerProcess
) -> None:
    require(mqtt, kafka)
    payloads = payloads_for(kafka)
    pairs = USER_PROPERTIES if mqtt.user_properties else ()
    with mqtt.subscribe(fresh_server.mqtt, "plant/+/command") as inbox:
        kafka.produce(
            fresh_server.kafka,
            "mqtt",
            [Record(b"plant/7/command", payload, HEADERS) for payload in payloads],
        )
        assert inbox.wait(len(payloads)) == [
            Message("plant/7/command", payload, 1, user_properties=pairs)
            for payload in payloads
        ]


@pytest.mark.parametrize("codec", CODECS)
def test_a_compressed_batch_is_delivered(codec: str, fresh_server: ServerProcess) -> None:
    """The batch stays compressed in the log; MQTT subscribers get each record of it."""
    records = [Record(b"k/%d" % (n % 3), b"%04d " % n * 20) for n in range(300)]
    with paho_client(fresh_server.mqtt) as client:
        inbox = paho_subscribe(client, "k/+", 2)
        ConfluentKafka().produce(fresh_server.kafka, "mqtt", records, codec)
        arrived = inbox.wait(len(records))
    assert [(one.topic_name.encode(), one.payload) for one in arrived] == [
        (record.key, record.value) for record in records
    ]
    stored = ConfluentKafka().consume(fresh_server.kafka, "mqtt", len(records))
    assert stored == records
    log = (fresh_server.data / "mqtt-0" / f"{0:020}.log").read_bytes()
    assert len(log) < sum(len(record.value or b"") for record in records) // 2


def test_order_and_duplicates_of_properties_and_headers(fresh_server: ServerProcess) -> None:
    """Names interleave and repeat, so a map on the way would show."""
    pairs = (("b", "1"), ("a", "2"), ("b", "1"), ("a", "0"), ("ü", "µ€"), ("empty", ""))
    headers = tuple((name, value.encode()) for name, value in pairs)
    with paho_client(fresh_server.mqtt) as client:
        inbox = paho_subscribe(client, "to/mqtt")
        paho_publish(client, [Message("to/kafka", b"x", 0, user_properties=pairs)])
        [record] = ConfluentKafka().consume(fresh_server.kafka, "mqtt", 1)
        assert record == Record(b"to/kafka", b"x", headers)
        ConfluentKafka().produce(
            fresh_server.kafka, "mqtt", [Record(b"to/mqtt", b"x", headers)]
        )
        assert inbox.wait(1)[0].user_properties == pairs


def test_quality_and_retain_travel_as_headers(fresh_server: ServerProcess) -> None:
    with paho_client(fresh_server.mqtt) as client:
        paho_publish(
            client, [Message("a", b"0", 0), Message("a", b"1", 1), Message("a", b"2", 2, True)]
        )
        records = ConfluentKafka().consume(fresh_server.kafka, "mqtt", 3)
        assert [dict(record.headers) for record in records] == [
            {},
            {"mqtt.qos": b"1"},
            {"mqtt.qos": b"2", "mqtt.retain": b"1"},
        ]


def test_a_record_with_a_retain_header_is_retained(fresh_server: ServerProcess) -> None:
    record = Record(b"a/b", b"kept", (("mqtt.retain", b"1"),))
    ConfluentKafka().produce(fresh_server.kafka, "mqtt", [record])
    with paho_client(fresh_server.mqtt) as client:
        [message] = paho_subscribe(client, "a/#").wait(1)
    assert (message.payload, message.retain) == (b"kept", True)


def test_a_session_that_was_away_gets_what_kafka_produced(fresh_server: ServerProcess) -> None:
    options = {"clean": False, "session_expiry_s": 100}
    with raw_session(fresh_server.mqtt, "device", **options) as session:
        session.send(subscribe(1, "commands/#", 1))
        session.expect(SUBACK)
    ConfluentKafka().produce(fresh_server.kafka, "mqtt", [Record(b"commands/7", b"go")])
    with raw_session(fresh_server.mqtt, "device", **options) as session:
        assert session.session_present
        assert session.expect(PUBLISH).payload() == b"go"


@pytest.mark.parametrize("key", [None, b"", b"with/+/plus", b"with/#", b"\xff\xfe", b"a\x00b"])
def test_a_record_without_a_topic_name_is_not_delivered(
    key: bytes | None, fresh_server: ServerProcess
) -> None:
    """It is in the log, the producer sees no error, and the next one is delivered."""
    with paho_client(fresh_server.mqtt) as client:
        inbox = paho_subscribe(client, "#")
        records = [Record(key, b"undeliverable"), Record(b"a/b", b"delivered")]
        ConfluentKafka().produce(fresh_server.kafka, "mqtt", records)
        assert [message.payload for message in inbox.wait(1)] == [b"delivered"]
        inbox.stays_at(1, 0.1)
    assert ConfluentKafka().consume(fresh_server.kafka, "mqtt", 2) == records


def test_another_log_topic_is_no_concern_of_mqtt(fresh_server: ServerProcess) -> None:
    with paho_client(fresh_server.mqtt) as client:
        inbox = paho_subscribe(client, "#")
        ConfluentKafka().produce(fresh_server.kafka, "other", [Record(b"a/b", b"x")])
        inbox.stays_at(0)
