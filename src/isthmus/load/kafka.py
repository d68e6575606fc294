"""A load of stock Kafka clients on one cluster: produce, consume, and account for every record.

The clients are confluent-kafka's, so what is measured is what an application gets: on a fast
server the client itself is soon the limit, and the server's CPU is the figure to compare. One
thread produces, each consumer has its own (kafka_reader.py), librdkafka has many. The values
are the payloads of publisher.py, with their numbers and the moments when they were due.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from isthmus.load.errors import LoadError
from isthmus.load.kafka_reader import ANSWER_S_MAX, KafkaReader
from isthmus.load.latencies import Latencies
from isthmus.load.publisher import CONTROL_BYTES_MAX, HEADER_BYTES
from isthmus.load.report import KafkaReport, Measured
from isthmus.load.subscriber import Subscriber
from isthmus.load.tally import Tally
from isthmus.load.totals import Totals
from isthmus.mqtt.packets import VERSION_5

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from isthmus.config_listeners import Address

CHUNK: Final = 500  # records made between two looks at what has come
TICK_NS: Final = 100_000_000
POLL_S: Final = 0.001
UNTIL_MEASURED: Final = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaPlan:
    """A load of Kafka clients; without `log_topic` one is made for it, and deleted then."""

    address: Address
    log_topic: str = ""
    partitions: int = 6
    producers: int = 1
    consumers: int = 1
    payload_bytes: int = 100
    acks: str = "all"
    batch_bytes: int = 1_000_000
    linger_ms: float = 5.0
    codec: str = "none"
    window: int = 50_000
    rate: float = 0.0
    duration_s: float = 10.0
    count: int = 0
    warm_up_s: float = 0.0
    quiet_s: float = 5.0

    def __post_init__(self) -> None:
        if self.payload_bytes < HEADER_BYTES:
            raise LoadError(
                f"a value needs {HEADER_BYTES} bytes, for the number of the record and the"
                f" moment when it was due; {self.payload_bytes} are too few"
            )
        if self.consumers > self.partitions and not self.log_topic:
            raise LoadError(f"{self.partitions} partitions are too few for every consumer")


class KafkaLoad:
    """All clients of a plan. `notice` is told now and then how much of a phase is done."""

    def __init__(
        self,
        plan: KafkaPlan,
        *,
        notice: Callable[[str, float], None] = lambda _phase, _share: None,
    ) -> None:
        self._plan = plan
        self._notice = notice
        self._run = int.from_bytes(os.urandom(2), "big")
        self._log_topic = plan.log_topic or f"isthmus-bench-{self._run:04x}"
        self._filler = b"." * (plan.payload_bytes - HEADER_BYTES)
        self._readers: list[KafkaReader] = []
        self._producers: list[Producer] = []
        self.totals = Totals()
        self.acknowledged, self.delivered = Latencies(), Latencies()
        self.acknowledged.since_ns = self.delivered.since_ns = UNTIL_MEASURED
        self._arrivals = Subscriber(
            self._filler,
            self.totals,
            self.delivered,
            Tally(),
            version=VERSION_5,
            run=self._run,
            packet_size_max=CONTROL_BYTES_MAX,
        )
        self.errors: Counter[str] = Counter()
        self._start_ns = 0
        self._scheduled = 0  # records since the schedule began
        self._target = UNTIL_MEASURED
        self._progress = 0
        self._progress_ns = 0
        self._measured = Measured()

    # --- phases -------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the log topic and the clients. LoadError where that cannot be."""
        self._notice("connecting", 0.0)
        if not self._plan.log_topic:
            self._administer(
                lambda admin: admin.create_topics(
                    [NewTopic(self._log_topic, self._plan.partitions)]
                )
            )
        consumers = self._plan.consumers
        for number in range(consumers):
            self._readers.append(
                KafkaReader(self._plan.address, self._log_topic, (number, consumers))
            )
        self._producers = [Producer(self._settings()) for _ in range(self._plan.producers)]
        try:
            found = self._producers[0].list_topics(self._log_topic, timeout=ANSWER_S_MAX)
        except KafkaException as error:
            raise self._refused(error) from None
        problem = found.topics[self._log_topic].error
        if problem is not None:
            raise LoadError(f"log topic {self._log_topic}: {problem.str()}")

    def warm_up(self) -> None:
        """Produce what is not measured."""
        if self._plan.warm_up_s:
            self._begin()
            self._drive("warming up", int(self._plan.warm_up_s * 1e9), produce=True)
            self.drain()

    def measure(self) -> None:
        """Produce what is measured, for the plan's duration or count."""
        plan = self._plan
        begin = time.monotonic_ns()
        cpu_s = time.process_time()
        self.acknowledged.since_ns = self.delivered.since_ns = begin
        before = self._done()
        self._begin(plan.count)
        limit_ns = None if plan.count else int(plan.duration_s * 1e9)
        end = self._drive("measuring", limit_ns, produce=True)
        after = self._done()
        if plan.count:
            end = max(self._progress_ns, begin + 1)
        self._measured = Measured(
            seconds=(end - begin) / 1e9,
            published=after[0] - before[0],
            acknowledged=after[1] - before[1],
            delivered=after[2] - before[2],
            cpu_s=time.process_time() - cpu_s,
        )

    def drain(self) -> None:
        """Produce no more, and wait until all is there or nothing more comes."""
        self._progress_ns = time.monotonic_ns()
        self._drive("waiting for the rest", None, produce=False)

    def close(self) -> None:
        """Close all clients, and delete the log topic that was made for them."""
        for reader in self._readers:
            reader.close()
        for producer in self._producers:
            producer.purge()
            producer.poll(0)
        if self._producers and not self._plan.log_topic:
            self._administer(lambda admin: admin.delete_topics([self._log_topic]))

    def run(self) -> KafkaReport:
        """Go through all phases."""
        try:
            self.open()
            self.warm_up()
            self.measure()
            self.drain()
            report = self.report()
        finally:
            self.close()
        return report

    def report(self) -> KafkaReport:
        """Return what became of it."""
        totals = self.totals
        return KafkaReport(
            server=f"kafka {self._plan.address.authority} {self._log_topic}",
            plan=self._plan,
            measured=self._measured,
            totals=totals,
            unacknowledged=totals.published - totals.acknowledged - totals.refused,
            errors=dict(self.errors),
            acknowledged=self.acknowledged,
            delivered=self.delivered,
        )

    # --- turns --------------------------------------------------------------------------------

    def _begin(self, count: int = 0) -> None:
        self._start_ns = self._progress_ns = time.monotonic_ns()
        self._scheduled = 0
        self._target = self.totals.published + count if count else UNTIL_MEASURED

    def _drive(self, phase: str, limit_ns: int | None, *, produce: bool) -> int:
        """Turn until the limit or, without one, until all is done or nothing more comes."""
        begin = now = time.monotonic_ns()
        patience_ns = int(1e9 * max(self._plan.quiet_s, 2 / (self._plan.rate or 2.0)))
        tick_ns = 0
        while limit_ns is None or now - begin < limit_ns:
            if limit_ns is None and (
                self._is_done(produce=produce) or now - self._progress_ns > patience_ns
            ):
                break
            wait_s = self._produce(now) if produce else POLL_S
            for producer in self._producers:
                producer.poll(wait_s)
                wait_s = 0.0
            for reader in self._readers:
                for arrived_ns, value in reader.read():
                    self._arrivals.take(value, arrived_ns)
            now = time.monotonic_ns()
            self._look(now)
            if now > tick_ns:
                tick_ns = now + TICK_NS
                self._notice(phase, self._share(now - begin, limit_ns))
        return now

    def _produce(self, now: int) -> float:
        """Produce what may be produced; return how long to wait then, in seconds."""
        totals, rate = self.totals, self._plan.rate
        on_their_way = totals.published - totals.acknowledged - totals.refused
        room = min(CHUNK, self._plan.window - on_their_way, self._target - totals.published)
        due = room
        if rate:
            due = int((now - self._start_ns) * rate / 1e9) + 1 - self._scheduled
        for _ in range(min(room, due)):
            due_ns = self._start_ns + int(self._scheduled * 1e9 / rate) if rate else now
            if not self._send(due_ns):
                return POLL_S
            self._scheduled += 1
        if room <= 0:
            return POLL_S
        if not rate:
            return 0.0
        next_ns = self._start_ns + int(self._scheduled * 1e9 / rate)
        return min(POLL_S, max(0.0, (next_ns - time.monotonic_ns()) / 1e9))

    def _send(self, due_ns: int) -> bool:
        """Hand one record to its producer; return False where that has no room for it."""
        number = self.totals.published
        header = (self._run << 48 | number).to_bytes(8, "big") + due_ns.to_bytes(8, "big")
        producer = self._producers[number // CHUNK % len(self._producers)]
        try:
            producer.produce(
                self._log_topic, header + self._filler, on_delivery=self._on_delivery
            )
        except BufferError:
            return False
        self.totals.published += 1
        self.totals.expected += bool(self._readers)
        return True

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.totals.refused += 1
            self.totals.expected -= bool(self._readers)
            self.errors[error.str()] += 1
            return
        self.totals.acknowledged += 1
        value = message.value()
        if isinstance(value, bytes):
            due_ns = int.from_bytes(value[8:HEADER_BYTES], "big")
            self.acknowledged.add(due_ns, time.monotonic_ns())

    def _look(self, now: int) -> None:
        totals = self.totals
        progress = totals.published + totals.acknowledged + totals.delivered
        if progress != self._progress:
            self._progress, self._progress_ns = progress, now

    def _is_done(self, *, produce: bool) -> bool:
        totals = self.totals
        if produce and totals.published < self._target:
            return False
        settled = totals.acknowledged + totals.refused
        return settled == totals.published and totals.delivered >= totals.expected

    def _share(self, passed_ns: int, limit_ns: int | None) -> float:
        if limit_ns is not None:
            return passed_ns / limit_ns
        if self._target < UNTIL_MEASURED and self.totals.published < self._target:
            return 1 - (self._target - self.totals.published) / self._plan.count
        return self.totals.delivered / max(1, self.totals.expected)

    def _done(self) -> tuple[int, int, int]:
        return self.totals.published, self.totals.acknowledged, self.totals.delivered

    # --- the cluster --------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "bootstrap.servers": plan.address.authority,
            "client.id": "isthmus-bench",
            "log_level": 0,
            "acks": plan.acks,
            "linger.ms": plan.linger_ms,
            "batch.size": plan.batch_bytes,
            "message.max.bytes": max(1_000_000, plan.payload_bytes + 1_000),
            "compression.type": plan.codec,
            "socket.connection.setup.timeout.ms": 5_000,
        }

    def _administer(self, act: Callable[[AdminClient], dict[str, Any]]) -> None:
        admin = AdminClient({"bootstrap.servers": self._plan.address.authority, "log_level": 0})
        try:
            admin.list_topics(timeout=ANSWER_S_MAX)
            for future in act(admin).values():
                future.result(ANSWER_S_MAX)
        except KafkaException as error:
            raise self._refused(error) from None

    def _refused(self, error: KafkaException) -> LoadError:
        return LoadError(f"kafka {self._plan.address.authority}: {error.args[0].str()}")
