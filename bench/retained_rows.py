"""The rows of retained messages: a million of them, and somebody who subscribes to all.

A thousand plants have a thousand sensors each, and report in turn, so that what stands together
in the tree of names lies far apart in the log.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import packets
from bench.mqtt_client import open_client, read_exactly
from bench.process import BenchError, running
from bench.rows import Measurement, Row
from bench.systems import Isthmus, Mosquitto

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from bench.process import System

COUNT, COUNT_QUICK = 1_000_000, 20_000
SECONDS_WHOLE = 1.0  # a shorter measurement is made with the smaller number
PLANTS = 1_000
PAYLOAD_BYTES = 64
BLOCK = 1_000
RETAIN = 0x01


def fill(client: socket.socket, count: int) -> int:
    """Publish `count` retained messages and wait until all are; return the size of a packet."""
    size = 0
    for first in range(0, count, BLOCK):
        block = bytearray()
        for number in range(first, min(first + BLOCK, count)):
            name = f"fleet/{number % PLANTS:03d}/sensor/{number // PLANTS:05d}"
            payload = f"{number:08d}".encode().ljust(PAYLOAD_BYTES, b".")
            packet = bytearray(packets.publish(name, payload, qos=0))
            packet[0] |= RETAIN
            block += packet
            size = len(packet)
        client.sendall(block)
        client.sendall(packets.publish("bench/done", b"x", qos=1, packet_id=1))
        if read_exactly(client, packets.PUBACK_SIZE) != packets.puback(1):
            raise BenchError("the answer to a PUBLISH is not its PUBACK")
    return size


def measure_greeting(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the seconds from SUBSCRIBE to the last retained message; the first in details."""
    count = COUNT if seconds >= SECONDS_WHOLE else COUNT_QUICK
    with running(system, directory) as server:
        address = server.mqtt_address()
        before = server.rss_bytes()
        publisher = open_client(address, "bench-retained-pub")
        size = fill(publisher, count)
        kept = server.rss_bytes() - before
        subscriber = open_client(address, "bench-retained-sub")
        cpu_s = server.cpu_s()
        begin = time.perf_counter()
        subscriber.sendall(packets.subscribe("fleet/#", qos=0))
        read_exactly(subscriber, 5)  # SUBACK
        read_exactly(subscriber, size)
        first_s = time.perf_counter() - begin
        left = (count - 1) * size
        while left:
            left -= len(read_exactly(subscriber, min(left, 1 << 16)))
        last_s = time.perf_counter() - begin
        cpu_s = server.cpu_s() - cpu_s
        publisher.close()
        subscriber.close()
    details = {"first_ms": first_s * 1000, "bytes_each": kept / count}
    return Measurement(last_s, count, cpu_s, details=details)


def retained_rows() -> list[Row]:
    """Return the rows in the order of the budget."""
    return [
        Row(
            "retained",
            f"{COUNT:,} retained messages to a new subscriber, until the last",
            "s",
            [Isthmus("written"), Mosquitto()],
            measure_greeting,
            Mosquitto.name,
            more_is_better=False,
        )
    ]
