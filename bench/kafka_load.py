"""The Kafka load: a stock client (confluent-kafka), and raw sockets where it is the bottleneck.

The stock client shows what a user gets, and on a fast server it measures itself; CPU per
million messages is the figure to read there. The raw load sends one ready batch over and over
with five requests in flight, as the Java producer does, and reads what it fetches
without a look at it. It does read it, where discarding in the kernel would do: somebody has to
be the first to touch bytes that come from a disk, and no client gets around that.
"""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench import kafka_wire
from bench.mqtt_client import RECEIVE_BYTES, read_exactly
from bench.process import BenchError

if TYPE_CHECKING:
    from bench.process import Address

LOG_TOPIC = "bench"
PARTITIONS = 6
VALUE_BYTES = 100
BATCH_RECORDS = 150
IN_FLIGHT = 5
PRODUCE_CALL = 1000
CONSUME_CALL = 10_000
PATIENCE_SECONDS = 30.0
QUIET_SECONDS_MAX = 5.0
RETRY_SECONDS = 0.02
NO_LEADER_YET = (3, 6)  # UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER
FIRST_CALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened between two looks at the clock."""

    messages: int
    seconds: float


def servers(address: Address) -> str:
    """Return the bootstrap servers setting."""
    return f"{address[0]}:{address[1]}"


def create_log_topic(
    address: Address, log_topic: str = LOG_TOPIC, partitions: int = PARTITIONS
) -> None:
    """Create a log topic, one replica, and wait for its leaders."""
    admin = AdminClient({"bootstrap.servers": servers(address), "log_level": 0})
    deadline = time.perf_counter() + FIRST_CALL_SECONDS
    while True:
        try:
            created = admin.create_topics([NewTopic(log_topic, partitions, 1)])
            created[log_topic].result(PATIENCE_SECONDS)
            break
        except KafkaException as error:
            if time.perf_counter() > deadline:
                raise BenchError(f"no log topic: {error}") from error
            time.sleep(0.2)
    wait_for_leaders(address, log_topic, partitions)


def wait_for_leaders(
    address: Address, log_topic: str = LOG_TOPIC, partitions: int = PARTITIONS
) -> None:
    """Return once every partition of a log topic has a leader."""
    admin = AdminClient({"bootstrap.servers": servers(address), "log_level": 0})
    deadline = time.perf_counter() + FIRST_CALL_SECONDS
    while True:
        found = admin.list_topics(log_topic, timeout=PATIENCE_SECONDS).topics[log_topic]
        if len(found.partitions) == partitions and all(
            partition.leader >= 0 for partition in found.partitions.values()
        ):
            return
        if time.perf_counter() > deadline:
            raise BenchError("the partitions of the log topic have no leaders")
        time.sleep(0.05)


# --- the stock client -------------------------------------------------------------------------


class StockProducer:
    """A confluent-kafka producer, acks=all, that reports only failures."""

    def __init__(self, address: Address) -> None:
        self._failed = 0
        self._messages = [{"value": b"." * VALUE_BYTES}] * PRODUCE_CALL
        self._producer = Producer(
            {
                "bootstrap.servers": servers(address),
                "log_level": 0,
                "acks": "all",
                "linger.ms": 5,
                "queue.buffering.max.messages": 500_000,
                "delivery.report.only.error": True,
            }
        )

    def run(self, seconds: float) -> tuple[Interval, int]:
        """Produce for `seconds` and wait for the last acknowledgement; return also the lost."""
        queued, begin = 0, time.perf_counter()
        while time.perf_counter() < begin + seconds:
            taken = self._producer.produce_batch(
                LOG_TOPIC, [*self._messages], on_delivery=self._report
            )
            queued += taken
            self._producer.poll(0 if taken == PRODUCE_CALL else 0.01)
        left = self._producer.flush(PATIENCE_SECONDS)
        lost = left + self._failed
        return Interval(queued - lost, time.perf_counter() - begin), lost

    def close(self) -> None:
        """Leave the server before it ends."""
        self._producer.close()

    def _report(self, error: object, message: object) -> None:
        del message
        if error is not None:
            self._failed += 1


def stock_consume(address: Address, count: int) -> tuple[int, Interval]:
    """Read the log topic from its beginning with confluent-kafka, up to `count` messages.

    Return how many came, and the interval from the first call that brought some to the last.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": servers(address),
            "log_level": 0,
            "group.id": "bench",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 256 * 1024,
            "fetch.queue.backoff.ms": 5,
        }
    )
    begin = last = time.perf_counter()
    first = received = 0
    try:
        consumer.assign([TopicPartition(LOG_TOPIC, number, 0) for number in range(PARTITIONS)])
        while received < count and time.perf_counter() < last + QUIET_SECONDS_MAX:
            # consume() waits until it has as many as it is asked for: ask for no more than come
            messages = consumer.consume(min(CONSUME_CALL, count - received), timeout=0.5)
            for message in messages:
                if message.error() is not None:
                    raise BenchError(f"consume: {message.error()}")
            if messages:
                received += len(messages)
                last = time.perf_counter()
            if messages and not first:
                first, begin = received, last
    finally:
        consumer.close()
    return received, Interval(received - first, last - begin)


# --- raw sockets ------------------------------------------------------------------------------


def _open(address: Address) -> socket.socket:
    connection = socket.create_connection(address, PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class RawProducer:
    """One connection, one ready batch, the partitions in turn, five requests in flight."""

    def __init__(
        self, address: Address, timestamp_ms: int, records: int = BATCH_RECORDS
    ) -> None:
        self._connection = _open(address)
        self.batch = kafka_wire.record_batch([b"." * VALUE_BYTES] * records, timestamp_ms)
        self._requests = [
            kafka_wire.produce_request(LOG_TOPIC, partition, self.batch)
            for partition in range(PARTITIONS)
        ]
        self._response_size = kafka_wire.produce_response_size(LOG_TOPIC)
        self.batches = 0
        for request in self._requests:
            self._produce_first(request)

    def run(self, seconds: float, batches_max: int = 1 << 62) -> Interval:
        """Produce for `seconds` or `batches_max`; return what was acknowledged by then."""
        begin = time.perf_counter()
        acknowledged = sent = 0
        while acknowledged < sent or (
            sent < batches_max and time.perf_counter() < begin + seconds
        ):
            while (
                sent - acknowledged < IN_FLIGHT
                and sent < batches_max
                and time.perf_counter() < begin + seconds
            ):
                self._connection.sendall(self._requests[(self.batches + sent) % PARTITIONS])
                sent += 1
            if acknowledged < sent:
                self._acknowledge()
                acknowledged += 1
        self.batches += sent
        return Interval(sent * BATCH_RECORDS, time.perf_counter() - begin)

    def produce_one(self) -> None:
        """Produce the batch to the first partition and wait for its acknowledgement."""
        self._connection.sendall(self._requests[0])
        self._acknowledge()

    def _produce_first(self, request: bytes) -> None:
        """Send one batch until its partition takes it; a new leader may not know it is one."""
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while True:
            self._connection.sendall(request)
            error = self._response_error()
            if not error:
                self.batches += 1
                return
            if error not in NO_LEADER_YET or time.perf_counter() > deadline:
                raise BenchError(f"the first Produce failed with code {error}")
            time.sleep(RETRY_SECONDS)

    def _acknowledge(self) -> None:
        error = self._response_error()
        if error:
            raise BenchError(f"Produce failed with code {error}")

    def _response_error(self) -> int:
        response = read_exactly(self._connection, self._response_size)
        return kafka_wire.produce_error(response, LOG_TOPIC)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class RawReader:
    """One connection that fetches the partitions in turn, two requests in flight."""

    def __init__(self, address: Address, batch_size: int, start_offset: int = 0) -> None:
        self._connection = _open(address)
        self._batch_size = batch_size
        self._start_offset = start_offset
        self._head_size = kafka_wire.fetch_head_size(LOG_TOPIC)
        self._scrap = bytearray(RECEIVE_BYTES)
        self._offsets = [start_offset] * PARTITIONS
        self._patient_until = time.perf_counter() + PATIENCE_SECONDS

    def run(self, seconds: float, *, again: bool) -> Interval:
        """Read all partitions once or, with `again`, from the start anew until time is up."""
        begin = time.perf_counter()
        until = begin + seconds if again else math.inf
        messages = 0
        waiting, pending = deque(range(PARTITIONS)), deque[int]()
        while True:
            while waiting and len(pending) < 2 and time.perf_counter() < until:
                partition = waiting.popleft()
                self._ask(partition)
                pending.append(partition)
            if not pending:
                return Interval(messages, time.perf_counter() - begin)
            partition = pending.popleft()
            count, at_end = self._take(partition)
            messages += count
            if at_end and not again:
                continue  # asked once more, the server would wait for records
            if at_end:
                self._offsets[partition] = self._start_offset
            waiting.append(partition)

    def _ask(self, partition: int) -> None:
        request = kafka_wire.fetch_request(LOG_TOPIC, partition, self._offsets[partition])
        self._connection.sendall(request)

    def _take(self, partition: int) -> tuple[int, bool]:
        """Read one answer; return its messages and whether the partition's end is reached."""
        head = kafka_wire.fetch_head(read_exactly(self._connection, self._head_size), LOG_TOPIC)
        if head.error in NO_LEADER_YET and time.perf_counter() < self._patient_until:
            time.sleep(RETRY_SECONDS)
            return 0, False
        if head.error:
            raise BenchError(f"Fetch failed with code {head.error}")
        rest = head.records_bytes
        while rest:
            size = min(rest, RECEIVE_BYTES)
            taken = self._connection.recv_into(self._scrap, size)
            if not taken:
                raise BenchError("the server closed the connection")
            rest -= taken
        count = head.records_bytes // self._batch_size * BATCH_RECORDS
        self._offsets[partition] += count
        return count, self._offsets[partition] >= head.high_watermark

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
