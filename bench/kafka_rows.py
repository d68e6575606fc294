"""The Kafka rows: produce, consume from memory and from disk, and MQTT in, Kafka out."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from bench import kafka_load, load
from bench.apache_kafka import ApacheKafka
from bench.bridged import Bridged
from bench.kafka_load import (
    BATCH_RECORDS,
    PARTITIONS,
    PATIENCE_SECONDS,
    VALUE_BYTES,
    RawProducer,
    RawReader,
    StockProducer,
)
from bench.process import running
from bench.rows import Measurement, Row
from bench.systems import Isthmus
from isthmus.config_listeners import parse_address
from isthmus.load.kafka_reader import KafkaReader

if TYPE_CHECKING:
    from pathlib import Path

    from bench.kafka_load import Interval
    from bench.process import Address, System

STORED_BYTES_PER_SECOND = 128 * 1024 * 1024
ACROSS_PER_S = 1000.0
ACROSS_LOG_TOPIC = "mqtt"
MIB = 2**20
TAIL_BYTES = 2 * MIB  # of each partition: what Isthmus keeps in its own memory


def _now_ms() -> int:
    return int(time.time() * 1000)


def _measurement(interval: Interval, cpu_s: float, lost: int) -> Measurement:
    rate = interval.messages / interval.seconds
    return Measurement(
        rate, interval.messages, cpu_s, lost, {"mib_per_s": rate * VALUE_BYTES / MIB}
    )


def measure_produce(system: System, directory: Path, seconds: float) -> Measurement:
    """Produce with confluent-kafka, acks=all."""
    with running(system, directory) as server:
        address = server.kafka_address()
        kafka_load.create_log_topic(address)
        producer = StockProducer(address)
        producer.run(seconds * system.warm_share)
        cpu_before = server.cpu_s()
        interval, lost = producer.run(seconds)
        cpu_s = server.cpu_s() - cpu_before
        producer.close()
        return _measurement(interval, cpu_s, lost)


def measure_produce_raw(system: System, directory: Path, seconds: float) -> Measurement:
    """Produce ready 16 KiB batches over one raw socket, acks=all."""
    with running(system, directory) as server:
        address = server.kafka_address()
        kafka_load.create_log_topic(address)
        producer = RawProducer(address, _now_ms())
        producer.run(seconds * system.warm_share)
        cpu_before = server.cpu_s()
        interval = producer.run(seconds)
        cpu_s = server.cpu_s() - cpu_before
        producer.close()
        return _measurement(interval, cpu_s, 0)


def _fill(address: Address, seconds: float) -> tuple[int, int]:
    """Produce what a reader of `seconds` shall find; return messages and the batch's size."""
    kafka_load.create_log_topic(address)
    producer = RawProducer(address, _now_ms())
    wanted = int(STORED_BYTES_PER_SECOND * seconds) // len(producer.batch)
    producer.run(PATIENCE_SECONDS, wanted)
    producer.close()
    return producer.batches * BATCH_RECORDS, len(producer.batch)


def measure_consume(system: System, directory: Path, seconds: float) -> Measurement:
    """Read with confluent-kafka what was just written; the first pass warms up."""
    with running(system, directory) as server:
        address = server.kafka_address()
        stored, _ = _fill(address, seconds)
        kafka_load.stock_consume(address, stored)
        cpu_before = server.cpu_s()
        received, interval = kafka_load.stock_consume(address, stored)
        return _measurement(interval, server.cpu_s() - cpu_before, stored - received)


def measure_consume_tail(system: System, directory: Path, seconds: float) -> Measurement:
    """Fetch the newest records of each partition over one raw socket, again and again."""
    with running(system, directory) as server:
        address = server.kafka_address()
        stored, batch_size = _fill(address, seconds)
        newest = TAIL_BYTES // batch_size * BATCH_RECORDS
        reader = RawReader(address, batch_size, max(0, stored // PARTITIONS - newest))
        reader.run(seconds * system.warm_share, again=True)
        cpu_before = server.cpu_s()
        interval = reader.run(seconds, again=True)
        cpu_s = server.cpu_s() - cpu_before
        reader.close()
        return _measurement(interval, cpu_s, 0)


def measure_consume_memory(system: System, directory: Path, seconds: float) -> Measurement:
    """Fetch over one raw socket what was just written, again and again."""
    with running(system, directory) as server:
        address = server.kafka_address()
        _, batch_size = _fill(address, seconds)
        reader = RawReader(address, batch_size)
        reader.run(seconds * system.warm_share, again=True)
        cpu_before = server.cpu_s()
        interval = reader.run(seconds, again=True)
        cpu_s = server.cpu_s() - cpu_before
        reader.close()
        return _measurement(interval, cpu_s, 0)


def measure_consume_disk(system: System, directory: Path, seconds: float) -> Measurement:
    """Fetch over one raw socket, after a restart and with the page cache emptied.

    All is read once before: a virtual machine's memory is given to it at the first touch, and
    pages that nobody has touched yet cost whoever gets them several times what reading does.
    """
    with running(system, directory) as server:
        stored, batch_size = _fill(server.kafka_address(), seconds)
    evict(directory)
    with running(system, directory) as server:
        address = server.kafka_address()
        kafka_load.wait_for_leaders(address)
        _read_once(address, batch_size)
        evict(directory)
        cpu_before = server.cpu_s()
        interval = _read_once(address, batch_size)
        cpu_s = server.cpu_s() - cpu_before
        return _measurement(interval, cpu_s, stored - interval.messages)


def _read_once(address: Address, batch_size: int) -> Interval:
    reader = RawReader(address, batch_size)
    interval = reader.run(PATIENCE_SECONDS, again=False)
    reader.close()
    return interval


def evict(directory: Path) -> None:
    """Write back and drop from the page cache every file below `directory`."""
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


# --- MQTT in, Kafka out -----------------------------------------------------------------------


def measure_across(system: System, directory: Path, seconds: float) -> Measurement:
    """Publish over MQTT at a fixed rate, read with confluent-kafka, from when it was due."""
    with running(system, directory) as server:
        host, port = server.kafka_address()
        reader = KafkaReader(parse_address(f"tcp://{host}:{port}"), ACROSS_LOG_TOPIC)
        try:
            plan = load.plan_for(
                server,
                seconds,
                seconds * max(0.1, system.warm_share),
                subscribers=0,
                rate=ACROSS_PER_S,
                payload_bytes=VALUE_BYTES,
                topic="bench/across",
                spin=False,
            )
            report, cpu_s = load.drive(server, plan, reader)
        finally:
            reader.close()
    return load.latency_measurement(report, cpu_s)


def kafka_rows() -> list[Row]:
    """Return the rows in the order of the budget."""
    ours: list[System] = [Isthmus("written"), Isthmus("synced")]
    systems = [*ours, ApacheKafka()]
    peer, bar, aim = ApacheKafka.name, "synced 1x; per CPU s 3x", "2x; 6x"
    return [
        Row(
            "kafka-produce",
            "Kafka produce 100 B, acks=all, 6 partitions, confluent-kafka",
            "msg/s",
            systems,
            measure_produce,
            peer,
            bar,
            aim,
        ),
        Row(
            "kafka-produce-raw",
            "Kafka produce 100 B, acks=all, 6 partitions, 16 KiB batches, raw socket",
            "msg/s",
            systems,
            measure_produce_raw,
            peer,
            bar,
            aim,
        ),
        Row(
            "kafka-consume",
            "Kafka consume 100 B from memory, confluent-kafka",
            "msg/s",
            systems,
            measure_consume,
            peer,
            "1x; per CPU s 3x",
            aim,
        ),
        Row(
            "kafka-tail",
            "Kafka fetch 100 B, the newest 2 MiB of each partition, raw socket",
            "msg/s",
            systems,
            measure_consume_tail,
            peer,
            "1x; per CPU s 3x",
            aim,
        ),
        Row(
            "kafka-memory",
            "Kafka fetch 100 B from the page cache, raw socket",
            "msg/s",
            systems,
            measure_consume_memory,
            peer,
            "1x; per CPU s 3x",
            aim,
        ),
        Row(
            "kafka-disk",
            "Kafka fetch 100 B from disk, after a restart, raw socket",
            "msg/s",
            systems,
            measure_consume_disk,
            peer,
            "1x; per CPU s 3x",
            aim,
        ),
        Row(
            "across",
            "MQTT publish to Kafka consumer at 1,000 msg/s, 100 B: p99",
            "ms",
            [*ours, Bridged("bench/#")],
            measure_across,
            Bridged.name,
            "< 5 ms",
            "< 1 ms",
            more_is_better=False,
        ),
    ]
