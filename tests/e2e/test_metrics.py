"""`/metrics` of a server that has done something, read as Prometheus reads it."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.kafka_libraries import (
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
)
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import text_of

if TYPE_CHECKING:
    from prometheus_client.samples import Sample
    from tests.e2e.server_process import ServerProcess


def samples(server: ServerProcess) -> list[Sample]:
    """Scrape the page."""
    url = f"http://{text_of(server.http)}/metrics"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        text = answer.read().decode()
    return [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]


def value(server: ServerProcess, name: str, **labels: str) -> float:
    """Return one number of the page; 0 where it is not there yet."""
    found = [
        each.value
        for each in samples(server)
        if each.name == name and labels.items() <= each.labels.items()
    ]
    return sum(found)


def test_what_clients_of_both_shores_do_is_counted(
    own_server: ServerProcess, unique: str
) -> None:
    server = own_server
    create_topic(server.kafka, unique)
    with paho_client(server.mqtt, f"{unique}-s") as subscriber:
        inbox = paho_subscribe(subscriber, unique, 2)
        with paho_client(server.mqtt, f"{unique}-p") as publisher:
            paho_publish(publisher, [Message(unique, b"12345", qos) for qos in (0, 1, 2, 2)])
            inbox.wait(4)
            assert value(server, "isthmus_mqtt_sessions", state="connected") == 2
    producer = confluent_producer(server.kafka)
    for number in range(100):
        producer.produce(unique, b"%d" % number)
    assert producer.flush(TIMEOUT_S) == 0
    consumer = confluent_consumer(server.kafka, **{"group.id": unique})
    consumer.subscribe([unique])
    last = poll_records(consumer, 100)[59]
    consumer.commit(last, asynchronous=False)
    wait_until(
        lambda: value(server, "isthmus_kafka_group_lag_records", group=unique) == 40,
        "that the group is 40 records behind",
    )
    assert value(server, "isthmus_kafka_groups", state="stable") == 1
    consumer.close()
    for qos, count in (("0", 1), ("1", 1), ("2", 2)):
        assert value(server, "isthmus_mqtt_messages_received_total", qos=qos) == count
        assert value(server, "isthmus_mqtt_messages_sent_total", qos=qos) == count
    assert value(server, "isthmus_kafka_request_seconds_count", request="produce") >= 1
    assert value(server, "isthmus_kafka_request_seconds_sum", request="fetch") > 0
    assert value(server, "isthmus_log_sync_seconds_count") >= 1
    assert value(server, "isthmus_log_written_bytes_total") > 100
    assert value(server, "isthmus_log_journal_written_bytes_total") > 100
    assert value(server, "isthmus_log_topic_offsets_total", log_topic=unique) == 100
    assert value(server, "isthmus_loop_held_seconds_count") >= 1
    assert value(server, "process_resident_memory_bytes") > 1 << 20
    assert value(server, "process_open_fds") > 3


def test_who_is_refused_is_counted_with_the_reason(own_server: ServerProcess) -> None:
    producer = confluent_producer(own_server.kafka, **{"message.timeout.ms": 3000})
    producer.produce("not/a/topic", b"x")
    producer.flush(TIMEOUT_S)
    wait_until(
        lambda: value(own_server, "isthmus_kafka_request_errors_total", request="metadata") > 0,
        "that an invalid name is counted",
    )
