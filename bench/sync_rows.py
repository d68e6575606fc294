"""What an acknowledgement costs beyond the disk: a synced append beside a bare fdatasync.

One producer sends one record of 100 bytes, acks=all, and waits for the answer; after every few
of those, the driver appends as many bytes to a file of its own on the same disk and syncs it.
The two take turns all through the measurement, so both see the same minute of the disk.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from bench import kafka_load
from bench.apache_kafka import ApacheKafka
from bench.process import running
from bench.rows import Measurement, Row
from bench.systems import Isthmus
from isthmus.load.latencies import Latencies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.process import System

TURN = 50  # of the one, then of the other


def _time(count: int, call: Callable[[], None], times: Latencies) -> None:
    """Add how long each of `count` calls took."""
    for _ in range(count):
        begin = time.perf_counter_ns()
        call()
        times.add(begin, time.perf_counter_ns())


def measure_synced_append(system: System, directory: Path, seconds: float) -> Measurement:
    """Return the p99 of one record's way into the log and the answer's way back."""
    with running(system, directory) as server:
        address = server.kafka_address()
        kafka_load.create_log_topic(address)
        producer = kafka_load.RawProducer(address, int(time.time() * 1000), records=1)
        descriptor = os.open(directory / "bare", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def bare() -> None:
            os.write(descriptor, producer.batch)
            os.fdatasync(descriptor)

        producer.run(seconds * system.warm_share)
        appends, bares = Latencies(), Latencies()
        cpu_before, end = server.cpu_s(), time.perf_counter() + seconds
        while time.perf_counter() < end:
            _time(TURN, producer.produce_one, appends)
            _time(TURN, bare, bares)
        cpu_s = server.cpu_s() - cpu_before
        os.close(descriptor)
        producer.close()
    p50_ms, p99_ms = (appends.percentile_ns(percent) / 1e6 for percent in (50, 99))
    bare_p50_ms, bare_p99_ms = (bares.percentile_ns(percent) / 1e6 for percent in (50, 99))
    details = {
        "p50_ms": p50_ms,
        "bare_p50_ms": bare_p50_ms,
        "bare_p99_ms": bare_p99_ms,
        "p50_per_bare": p50_ms / bare_p50_ms,
        "p99_per_bare": p99_ms / bare_p99_ms,
    }
    return Measurement(p99_ms, appends.count, cpu_s, 0, details)


def sync_rows() -> list[Row]:
    """Return the row."""
    return [
        Row(
            "synced-append",
            "Kafka produce, one record of 100 B at a time, acks=all: p99",
            "ms",
            [Isthmus("synced"), Isthmus("written"), ApacheKafka()],
            measure_synced_append,
            None,
            "synced: 2x a bare fdatasync's p99",
            "1.5x",
            more_is_better=False,
        )
    ]
