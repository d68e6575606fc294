"""The MQTT rows: throughput at QoS 0 and 1, fan-out, fan-in, and latency at a fixed rate."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import latency, machine, packets
from bench.mqtt_load import (
    AckingSubscriber,
    Load,
    Publisher,
    Subscriber,
    open_client,
    open_subscriber,
)
from bench.process import running
from bench.rows import Measurement, Row
from bench.systems import Isthmus, Mosquitto, NullBroker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.process import Address, System

PAYLOAD_BYTES = 64
RING = 10_000
WINDOW = 100
MANY_BURST = 50
TOPIC_FILTER = "bench/#"

LATENCY_PUBLISHERS = 500
LATENCY_PER_S = 20_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Who publishes and subscribes, and how. `topics` is topic names per publisher."""

    publishers: int = 1
    subscribers: int = 1
    qos: int = 0
    topics: int = 1

    def block(self, publisher: int) -> packets.Block:
        """Return the ring that this publisher sends."""
        names = [f"bench/{publisher:03d}/{number:05d}" for number in range(self.topics)]
        return packets.publish_block(names, PAYLOAD_BYTES, self.qos, RING)

    def load(self, address: Address) -> Load:
        """Connect everyone, the subscribers first."""
        blocks = [self.block(number) for number in range(self.publishers)]
        kind = AckingSubscriber if self.qos else Subscriber
        subscribers = [
            kind(address, f"bench-sub-{number}", TOPIC_FILTER, blocks[0])
            for number in range(self.subscribers)
        ]
        publishers = [
            Publisher(address, f"bench-pub-{number}", block)
            for number, block in enumerate(blocks)
        ]
        return Load(
            publishers,
            subscribers,
            window=WINDOW if self.qos else 0,
            burst=MANY_BURST if self.publishers > 1 else 0,
        )

    def measure(self, system: System, directory: Path, seconds: float) -> Measurement:
        """Drive a fresh server at full speed and count."""
        windowed = self.qos and self.publishers == 1 and isinstance(system, Isthmus)
        sync_ms = machine.sync_ms(directory) if windowed else 0.0
        with running(system, directory) as server:
            load = self.load(server.mqtt_address())
            gc.disable()
            try:
                load.check()
                load.run(seconds * system.warm_share)
                cpu_before = server.cpu_s()
                interval = load.run(seconds)
                cpu_s = server.cpu_s() - cpu_before
                load.drain()
            finally:
                gc.enable()
                load.close()
            details = {"rss_mib": server.rss_bytes() / 2**20}
        if windowed:
            sync_ms = min(sync_ms, machine.sync_ms(directory))
            details["window_per_fdatasync"] = WINDOW / sync_ms * 1000
        rate = interval.messages / interval.seconds
        return Measurement(rate, interval.messages, cpu_s, load.lost(), details)


def measure_latency(system: System, directory: Path, seconds: float) -> Measurement:
    """Measure 500 publishers that share 20,000 messages per second, QoS 0, one subscriber."""
    count = int(LATENCY_PER_S * seconds)
    names = [f"bench/{number:03d}/temperature" for number in range(LATENCY_PUBLISHERS)]
    outgoing = latency.numbered_packets(names, PAYLOAD_BYTES, count)
    with running(system, directory) as server:
        address = server.mqtt_address()
        subscriber = open_subscriber(address, "bench-sub", TOPIC_FILTER, 0)
        publishers = [
            open_client(address, f"bench-pub-{number}") for number in range(LATENCY_PUBLISHERS)
        ]
        gc.disable()
        try:
            cpu_before = server.cpu_s()
            found = latency.run_open_loop(
                publishers, subscriber, outgoing, PAYLOAD_BYTES, LATENCY_PER_S
            )
            cpu_s = server.cpu_s() - cpu_before
        finally:
            gc.enable()
            for connection in (subscriber, *publishers):
                connection.close()
    return latency_measurement(found, count, cpu_s)


def latency_measurement(found: latency.Latencies, count: int, cpu_s: float) -> Measurement:
    """Put p99 in the column, the other percentiles beside it."""
    return Measurement(
        found.percentile(99),
        count,
        cpu_s,
        found.lost,
        {
            "p50_ms": found.percentile(50),
            "p99_ms": found.percentile(99),
            "p99.9_ms": found.percentile(99.9),
            "max_ms": found.percentile(100),
        },
    )


def mqtt_rows() -> list[Row]:
    """Return the rows in the order of the budget."""
    servers: list[System] = [Isthmus("written"), Isthmus("synced"), Mosquitto()]

    def throughput(key: str, title: str, shape: Shape, bar: str, aim: str) -> Row:
        block = shape.block(0)
        systems: Sequence[System] = [*servers, NullBroker(block.size, shape.qos, RING)]
        return Row(key, title, "msg/s", systems, shape.measure, Mosquitto.name, bar, aim)

    one = "written 6x; synced 70 % of window / fdatasync"
    one_aim = "10x; 90 %"
    latency_block = packets.publish_block(
        ["bench/000/temperature"], PAYLOAD_BYTES, qos=0, count=1
    )
    return [
        throughput(
            "qos0", "QoS 0, 1 publisher, 1 subscriber, 64 B", Shape(), "written 8x", "20x"
        ),
        throughput(
            "qos0-topics",
            "QoS 0, 1 publisher, 1 subscriber, 64 B, 10,000 topic names in turn",
            Shape(topics=RING),
            "",
            "",
        ),
        throughput(
            "qos1",
            "QoS 1, 1 publisher, window 100, no subscriber",
            Shape(subscribers=0, qos=1),
            one,
            one_aim,
        ),
        throughput(
            "qos1-sub",
            "QoS 1, 1 publisher, window 100, 1 QoS 1 subscriber",
            Shape(qos=1),
            one,
            one_aim,
        ),
        throughput(
            "qos1-10",
            "QoS 1, 10 publishers, window 100 each, no subscriber",
            Shape(publishers=10, subscribers=0, qos=1),
            "synced 8x",
            "15x",
        ),
        throughput(
            "fan-out", "QoS 0, 1 publisher, 8 subscribers", Shape(subscribers=8), "8x", "20x"
        ),
        throughput(
            "fan-in", "QoS 0, 100 publishers, 1 subscriber", Shape(publishers=100), "8x", "20x"
        ),
        Row(
            "latency",
            "500 publishers at 20,000 msg/s together, QoS 0, 1 subscriber: p99",
            "ms",
            [
                *servers[:-1],
                Mosquitto(no_delay=True),
                NullBroker(latency_block.size, 0, 1),
            ],
            measure_latency,
            Mosquitto.name,
            "<= 1x",
            "0.5x",
            more_is_better=False,
        ),
    ]
