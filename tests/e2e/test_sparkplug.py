"""A Sparkplug node, and hosts that come late, one of them after a crash of the server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from paho.mqtt.client import MQTTv311
from tests.conformance.raw_client import RawClient, Will
from tests.conformance.test_sparkplug import CERTIFICATES, payload, timestamp_ms_of
from tests.e2e.kafka_libraries import confluent_producer
from tests.e2e.mqtt_programs import (
    Message,
    MosquittoPrograms,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.server_process import ServerProcess


def test_certificates_are_there_for_late_hosts_and_after_a_crash(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    server = start_server(settings={"mqtt.sparkplug": "true"})
    node, device = f"spBv1.0/{unique}/NBIRTH/node", f"spBv1.0/{unique}/DBIRTH/node/device"
    births = [Message(name, payload(1_700_000_000_000, 3), 0) for name in (node, device)]
    kept = {Message(f"{CERTIFICATES}/{one.topic_name}", one.payload, 0, True) for one in births}
    with paho_client(server.mqtt, version=MQTTv311) as host:
        live = paho_subscribe(host, f"{CERTIFICATES}/#")
        with paho_client(server.mqtt, version=MQTTv311) as publisher:
            paho_publish(publisher, births)
        assert {one.topic_name for one in live.wait(2)} == {one.topic_name for one in kept}
    with MosquittoPrograms().subscribe(server.mqtt, f"{CERTIFICATES}/#") as late:
        assert set(late.wait(2)) == kept
    server.kill()
    server.start()
    with MosquittoPrograms().subscribe(
        server.mqtt, f"{CERTIFICATES}/spBv1.0/{unique}/#"
    ) as late:
        assert set(late.wait(2)) == kept
        producer = confluent_producer(server.kafka)
        producer.produce("mqtt", b"born over Kafka", key=f"spBv1.0/{unique}/DBIRTH/node/other")
        assert producer.flush(TIMEOUT_S) == 0
        other = late.wait(3)[-1]
        assert other.topic_name == f"{CERTIFICATES}/spBv1.0/{unique}/DBIRTH/node/other"
        assert other.payload == b"born over Kafka"


def test_the_death_of_a_node_that_is_lost_says_when(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    server = start_server(settings={"mqtt.sparkplug": "true"})
    death = f"spBv1.0/{unique}/NDEATH/node"
    with MosquittoPrograms().subscribe(server.mqtt, death) as host:
        before_ms = time.time_ns() // 1_000_000
        dying = RawClient(server.mqtt, 4)
        dying.open(unique, will=Will(death, payload(1_700_000_000_000, 7), 1))
        dying.cut()
        (message,) = host.wait(1)
        after_ms = time.time_ns() // 1_000_000
    at_ms = timestamp_ms_of(message.payload)
    assert before_ms <= at_ms <= after_ms
    assert message.payload == payload(at_ms, 7)
