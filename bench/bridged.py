"""Mosquitto, Apache Kafka and a bridge between them: how people go from MQTT to Kafka today."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import kafka_load
from bench.apache_kafka import ApacheKafka
from bench.process import spawn
from bench.systems import Mosquitto, ready_line

if TYPE_CHECKING:
    from bench.process import Server

LOG_TOPIC = "mqtt"
PARTITIONS = 1


class Bridged:
    """The three of them as one system; CPU and memory are those of all."""

    name = "mosquitto + kafka"
    warm_share = 2.0

    def __init__(self, topic_filter: str) -> None:
        self._topic_filter = topic_filter
        self._mosquitto = Mosquitto(no_delay=True)
        self._kafka = ApacheKafka()

    def version(self) -> str:
        """Return the versions of both; raise BenchError where one of them cannot run here."""
        return f"mosquitto {self._mosquitto.version()}, kafka {self._kafka.version()}"

    def start(self, directory: Path) -> Server:
        """Start Kafka, Mosquitto, and last the bridge, which has subscribed then."""
        server = self._kafka.start(directory)
        try:
            assert server.kafka is not None
            kafka_load.create_log_topic(server.kafka, LOG_TOPIC, PARTITIONS)
            mosquitto = self._mosquitto.start(directory)
            server.others.append(mosquitto)
            server.mqtt = mosquitto.mqtt_address()
            ports = [str(server.mqtt[1]), str(server.kafka[1])]
            command = [sys.executable, "-m", "bench.bridge_program", *ports]
            root = str(Path(__file__).parents[1])
            bridge = spawn(
                [*command, self._topic_filter, LOG_TOPIC], directory, {"PYTHONPATH": root}
            )
            server.others.append(bridge)
            ready_line(bridge)
        except BaseException:
            server.stop()
            raise
        return server
