"""The footprint rows: memory at rest and per idle connection, connection rate, start.

Connections are plain, with TLS 1.3 and WebSocket. They come a hundred at a time: a hundred wait
for their CONNACK until all are there.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench import load, packets
from bench.apache_kafka import ApacheKafka
from bench.mqtt_client import open_client, read_exactly
from bench.process import BenchError, running
from bench.rows import Measurement, Row
from bench.systems import Isthmus, Mosquitto
from isthmus.load.errors import LoadError
from isthmus.load.mqtt import MqttLoad

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.process import Server, System

SETTLE_SECONDS = 1.0
CONNECTIONS_FIRST = 200
CONNECTIONS_MORE, CONNECTIONS_QUICK = 2000, 300
SECONDS_WHOLE = 1.0  # a shorter measurement is made with the smaller number
SCHEMES = {"tcp": "", "tls": ", TLS 1.3", "ws": ", WebSocket"}


def measure_idle_memory(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the resident MiB of a server that has just come up and has nothing to do."""
    with running(system, directory) as server:
        time.sleep(min(seconds, SETTLE_SECONDS))
        return Measurement(server.rss_bytes() / 2**20)


def connections_for(seconds: float) -> int:
    """Return how many connections are opened."""
    return CONNECTIONS_MORE if seconds >= SECONDS_WHOLE else CONNECTIONS_QUICK


@contextmanager
def idle_clients(server: Server, count: int) -> Iterator[float]:
    """Have so many idle clients connected; give the seconds that it took them."""
    plan = load.plan_for(server, 1.0, 0.0, publishers=0, subscribers=0, idle=count, spin=False)
    clients = MqttLoad(plan)
    try:
        clients.open()
        yield clients.opening_s
    except LoadError as error:
        raise BenchError(str(error)) from error
    finally:
        clients.close()


def measure_connection_memory(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the resident KiB that each further idle connection adds.

    The first connections pay for what a server sets up once; they are there before the first
    look.
    """
    settle, count = min(seconds, SETTLE_SECONDS), connections_for(seconds)
    with running(system, directory) as server, idle_clients(server, CONNECTIONS_FIRST):
        time.sleep(settle)
        before = server.rss_bytes()
        with idle_clients(server, count):
            time.sleep(settle)
            after = server.rss_bytes()
    return Measurement((after - before) / 1024 / count)


def measure_connection_rate(system: System, directory: Path, seconds: float) -> Measurement:
    """Return how many connections a second get their CONNACK; CPU is for a million of them."""
    count = connections_for(seconds)
    with running(system, directory) as server:
        with idle_clients(server, CONNECTIONS_FIRST):
            pass
        cpu_s = server.cpu_s()
        with idle_clients(server, count) as opening_s:
            cpu_s = server.cpu_s() - cpu_s
    return Measurement(count / opening_s, count, cpu_s)


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
        *(row for scheme in SCHEMES for row in connection_rows(scheme)),
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


def connection_rows(scheme: str) -> list[Row]:
    """Return the rows of connections of one kind."""
    peers: list[System] = [Isthmus("synced", scheme), Mosquitto(scheme=scheme)]
    ending, inside = "" if scheme == "tcp" else f"-{scheme}", SCHEMES[scheme]
    return [
        Row(
            f"connection{ending}",
            f"memory per idle MQTT connection{inside}, {CONNECTIONS_MORE:,} connections",
            "KiB",
            peers,
            measure_connection_memory,
            Mosquitto.name,
            *(("< 4 KB", "2 KB") if scheme == "tcp" else ("", "")),
            more_is_better=False,
        ),
        Row(
            f"connect{ending}",
            f"new MQTT connections{inside}, 100 at a time, to their CONNACK",
            "conn/s",
            peers,
            measure_connection_rate,
            Mosquitto.name,
        ),
    ]
