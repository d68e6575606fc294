"""SIGKILL at random moments while records are written in transactions: each is there once.

A client writes numbers to a log topic and, in the same transaction, how far it is as the offset
of a group; in the classic form and in the newer one by turns. The server is killed and started
again on the same data; the client connects again, takes over from itself and goes on where the
group is. In the end the log topic has to hold number for number: one that is missing was
committed and lost, one too many was lost and committed. A seed repeats the moments:
ISTHMUS_KILL_SEED; ISTHMUS_KILLS is how many there are. The requests are asked by hand, because
librdkafka waits for long where its coordinator goes between two of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
from confluent_kafka import TopicPartition
from tests.e2e.kafka_asker import Asker
from tests.e2e.kafka_libraries import confluent_consumer, create_topic, poll_records
from tests.e2e.patience import wait_until
from tests.e2e.publishers import Publisher

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import BatchBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.server_process import Address, ServerProcess

SEED: Final = int(os.environ.get("ISTHMUS_KILL_SEED", "20240229"))
KILLS: Final = int(os.environ.get("ISTHMUS_KILLS", "3"))
MOMENT_S: Final = (0.0, 0.1)
RECORDS: Final = 500 * KILLS
SIZE: Final = 5
NAME: Final = "writer"
LOG_TOPIC: Final = "numbers"
BUSY: Final = (
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.UNSTABLE_OFFSET_COMMIT,
)


class Refused(Exception):
    """An answer with an error: who gets it takes over from itself."""


class Writer(Publisher):
    """Writes all numbers, over as many connections as it takes; `count` are committed."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._aborts = random.Random(SEED)
        self.refusals: list[Refused] = []
        super().__init__()

    def _publish(self) -> None:
        for bumps in itertools.cycle((True, False)):
            if self.count >= RECORDS or self._stopping.is_set():
                return
            try:
                with contextlib.closing(Asker(self._server)) as asker:
                    Session(asker, bumps=bumps).go_on(self)
            except OSError:
                time.sleep(0.01)
            except Refused as refused:
                self.refusals.append(refused)

    def is_over(self) -> bool:
        return self.count >= RECORDS or self._stopping.is_set() or bool(self.failures)

    def goes_on_after(self, count: int) -> bool:
        """Whether more is committed; or never will be, which `stop` tells."""
        return self.count > count or bool(self.failures)

    def wants_abort(self) -> bool:
        return self._aborts.random() < 0.1


class Session:
    """What one connection does, in one of the two forms."""

    def __init__(self, asker: Asker, *, bumps: bool) -> None:
        self._asker = asker
        self._bumps = bumps
        self._own: dict[str, Any] = {}
        self._sequence = 0

    def _ask(
        self, api_key: int, version: int, body: dict[str, Any], *path: Any
    ) -> dict[str, Any]:
        """Return what `path` leads to in the answer, once it has no error."""
        while True:
            found: Any = self._asker.ask(api_key, version, body)
            for step in path:
                found = found[step]
            code = found.get("error_code", found.get("partition_error_code"))
            if not code:
                return dict(found)
            if code not in BUSY:
                raise Refused(f"{ApiKey(api_key).name}: {ErrorCode(code).name}")
            time.sleep(0.002)

    def go_on(self, writer: Writer) -> None:
        """Take over, then write from where the group is."""
        self._own = {"transactional_id": NAME}
        body: dict[str, Any] = {**self._own, "transaction_timeout_ms": 60_000}
        self._become(self._ask(ApiKey.INIT_PRODUCER_ID, 5, body))
        wanted = [{"name": LOG_TOPIC, "partition_indexes": [0]}]
        body = {"group_id": NAME, "topics": wanted, "require_stable": True}
        row = self._ask(ApiKey.OFFSET_FETCH, 7, body, "topics", 0, "partitions", 0)
        writer.count = max(row["committed_offset"], 0)
        while not writer.is_over():
            following = writer.count + SIZE
            self._write(writer.count, following)
            commits = not writer.wants_abort()
            version = 5 if self._bumps else 4
            ended = self._ask(ApiKey.END_TXN, version, {**self._own, "committed": commits})
            if self._bumps:
                self._become(ended)
            if commits:
                writer.count = following

    def _become(self, answer: dict[str, Any]) -> None:
        self._own["producer_id"] = answer["producer_id"]
        self._own["producer_epoch"] = answer["producer_epoch"]
        self._sequence = 0

    def _write(self, first: int, end: int) -> None:
        if not self._bumps:
            own = {f"v3_and_below_{name}": value for name, value in self._own.items()}
            own["v3_and_below_topics"] = [{"name": LOG_TOPIC, "partitions": [0]}]
            path = ("results_by_topic_v3_and_below", 0, "results_by_partition", 0)
            self._ask(ApiKey.ADD_PARTITIONS_TO_TXN, 3, own, *path)
            self._ask(ApiKey.ADD_OFFSETS_TO_TXN, 3, {**self._own, "group_id": NAME})
        builder = BatchBuilder()
        for number in range(first, end):
            builder.append(int(time.time() * 1000), b"k", b"%d" % number)
        producer = (self._own["producer_id"], self._own["producer_epoch"])
        batch = builder.seal(0, *producer, self._sequence, transactional=True)
        self._sequence += SIZE
        one = {"index": 0, "records": bytes(batch.data)}
        topics = [{"name": LOG_TOPIC, "partition_data": [one]}]
        body = {"acks": -1, "transactional_id": NAME, "topic_data": topics}
        version = 12 if self._bumps else 11
        self._ask(ApiKey.PRODUCE, version, body, "responses", 0, "partition_responses", 0)
        row = {"partition_index": 0, "committed_offset": end, "committed_metadata": ""}
        topics = [{"name": LOG_TOPIC, "partitions": [row]}]
        body = {**self._own, "group_id": NAME, "topics": topics}
        version = 5 if self._bumps else 3
        self._ask(ApiKey.TXN_OFFSET_COMMIT, version, body, "topics", 0, "partitions", 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_record_is_there_once_whatever_happens_to_the_server(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server()
    moments = random.Random(SEED)
    create_topic(server.kafka, LOG_TOPIC)
    writer = Writer(server.kafka)
    try:
        for _ in range(KILLS):
            more = partial(writer.goes_on_after, min(writer.count, RECORDS - 1))
            wait_until(more, "a commit after the last start")  # so each kill meets transactions
            time.sleep(moments.uniform(*MOMENT_S))
            server.kill()
            server.start()
        while not writer.is_over():
            more = partial(writer.goes_on_after, min(writer.count, RECORDS - 1))
            wait_until(more, lambda: f"more than {writer.count}; {writer.refusals}")
    finally:
        if not server.is_running():
            server.start()
        writer.stop()
    assert not writer.refusals, writer.refusals[:3]
    reader = confluent_consumer(server.kafka, **{"isolation.level": "read_committed"})
    reader.assign([TopicPartition(LOG_TOPIC, 0, 0)])
    values = [message.value() for message in poll_records(reader, RECORDS)]
    assert values == [b"%d" % number for number in range(RECORDS)], f"seed {SEED}"
    rest = reader.consume(1, 1.0)
    reader.close()
    assert not rest, f"{rest[0].value()!r} is one too many (seed {SEED})"
