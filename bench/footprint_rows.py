"""The footprint rows: memory at rest, memory per idle connection, start to the first PUBACK."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import packets
from bench.apache_kafka import ApacheKafka
from bench.mqtt_load import open_client, read_exactly
from bench.process import BenchError, running
from bench.rows import Measurement, Row
from bench.systems import Isthmus, Mosquitto

if TYPE_CHECKING:
    from pathlib import Path

    from bench.process import System

SETTLE_SECONDS = 1.0
CONNECTIONS_FIRST = 200
CONNECTIONS_MORE = 2000


def measure_idle_memory(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the resident MiB of a server that has just come up and has nothing to do."""
    with running(system, directory) as server:
        time.sleep(min(seconds, SETTLE_SECONDS))
        return Measurement(server.rss_bytes() / 2**20)


def measure_connection_memory(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the resident KiB that each further idle connection adds.

    The first connections pay for what a server sets up once; they are there before the first
    look.
    """
    with running(system, directory) as server:
        address = server.mqtt_address()
        connections = [
            open_client(address, f"bench-first-{number}") for number in range(CONNECTIONS_FIRST)
        ]
        settle = min(seconds, SETTLE_SECONDS)
        time.sleep(settle)
        before = server.rss_bytes()
        connections += [
            open_client(address, f"bench-idle-{number}") for number in range(CONNECTIONS_MORE)
        ]
        time.sleep(settle)
        after = server.rss_bytes()
        for connection in connections:
            connection.close()
    return Measurement((after - before) / 1024 / CONNECTIONS_MORE)


def measure_start(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the milliseconds from starting the process to its first PUBACK."""
    del seconds
    begin = time.perf_counter()
    with running(system, directory) as server:
        client = open_client(server.mqtt_address(), "bench-first")
        client.sendall(packets.publish("bench/first", b"up", qos=1, packet_id=1))
        if read_exactly(client, packets.PUBACK_SIZE) != packets.puback(1):
            raise BenchError("the first answer is not the PUBACK of the first PUBLISH")
        elapsed = time.perf_counter() - begin
        client.close()
    return Measurement(elapsed * 1000)


def footprint_rows() -> list[Row]:
    """Return the rows in the order of the budget; durability matters to the start alone."""
    peers: list[System] = [Isthmus("synced"), Mosquitto()]
    return [
        Row(
            "memory",
            "idle memory (resident)",
            "MiB",
            [*peers, ApacheKafka()],
            measure_idle_memory,
            Mosquitto.name,
            "< 60 MB",
            "40 MB",
            more_is_better=False,
        ),
        Row(
            "connection",
            f"memory per idle MQTT connection, {CONNECTIONS_MORE:,} connections",
            "KiB",
            peers,
            measure_connection_memory,
            Mosquitto.name,
            "< 4 KB",
            "2 KB",
            more_is_better=False,
        ),
        Row(
            "start",
            "start of the process to the first PUBACK",
            "ms",
            [Isthmus("written"), *peers],
            measure_start,
            Mosquitto.name,
            "< 500 ms",
            "200 ms",
            more_is_better=False,
        ),
    ]
