"""Kafka Streams counts words with exactly_once_v2, and everything is killed in between.

Lines are written all the time; Streams and the server are killed by turns, then both. Each
word's counts have to come out as 1, 2, 3 and so on, without a gap and without a repetition: a
count that is missing was lost, one that comes again was counted from an older state.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import pytest
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tests.e2e.kafka_commands import java_command
from tests.e2e.kafka_libraries import confluent_consumer, confluent_producer, create_topic
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.publishers import QUICK
from tests.e2e.server_process import text_of
from tests.interop.conftest import HERE
from tests.interop.log_topics import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.server_process import Address, ServerProcess
    from tests.interop.programs import Program

WORDS: Final = ("isthmus", "log", "shore", "device", "plant", "line", "tide")
LINES_AT_ONCE: Final = 5
COUNTS: Final = 300
"""How many counts have to come before the next thing is killed."""
PARTITIONS: Final = 2


class Tale:
    """Writes lines, and reads what Streams makes of them."""

    def __init__(self, server: Address, application: str) -> None:
        self._lines = f"{application}-lines"
        counts = f"{application}-counts"
        for log_topic in (self._lines, counts):
            create_topic(server, log_topic, PARTITIONS)
        self._producer = confluent_producer(server, **QUICK, **{"enable.idempotence": True})
        committed = {"isolation.level": "read_committed", "log_level": 0}
        self._consumer = confluent_consumer(server, **QUICK, **committed)
        places = [TopicPartition(counts, partition, 0) for partition in range(PARTITIONS)]
        self._consumer.assign(places)
        self._chance = random.Random(application)
        self.written: dict[str, int] = defaultdict(int)
        self.counted: dict[str, list[int]] = defaultdict(list)

    def goes_on(self) -> None:
        """Write on until `COUNTS` more of them have come."""
        wanted = self.total() + COUNTS

        def has_come() -> bool:
            self._write()
            self._read()
            return self.total() >= wanted

        wait_until(has_come, lambda: f"that Streams comes from {wanted - COUNTS} to {wanted}")

    def ends(self) -> None:
        """Read until everything that was written is counted."""
        assert self._producer.flush(TIMEOUT_S) == 0, "not everything is acknowledged"
        expected = sum(self.written.values())

        def is_over() -> bool:
            self._read()
            return self.total() >= expected

        wait_until(is_over, lambda: f"that of {expected} words more than {self.total()} count")

    def total(self) -> int:
        return sum(map(len, self.counted.values()))

    def close(self) -> None:
        self._consumer.close()

    def _write(self) -> None:
        for _ in range(LINES_AT_ONCE):
            words = self._chance.choices(WORDS, k=4)
            self._producer.produce(self._lines, " ".join(words))
            for word in words:
                self.written[word] += 1
        self._producer.poll(0)

    def _read(self) -> None:
        for message in self._consumer.consume(1000, 0.05):
            if (error := message.error()) is not None:
                assert error.retriable(), error
                continue
            word, count = message.value().decode().split()
            self.counted[word].append(int(count))


@pytest.mark.usefixtures("jars")
def test_words_are_counted_once_whatever_is_killed(
    server: ServerProcess, programs: Callable[..., Program], unique: str, tmp_path: Path
) -> None:
    tale = Tale(server.kafka, unique)
    command = java_command(str(HERE / "WordCount.java"))

    def streams(directory: str) -> Program:
        where = str(tmp_path / directory)
        program = programs("streams", *command, text_of(server.kafka), unique, where)
        tale.goes_on()
        return program

    first = streams("there")
    first.kill()
    second = streams("elsewhere")  # which brings back the whole store
    server.kill()
    server.start()
    tale.goes_on()
    server.kill()
    second.kill()
    server.start()
    third = streams("elsewhere")
    third.terminate()
    streams("elsewhere")
    tale.ends()
    tale.close()
    assert tale.counted == {
        word: list(range(1, count + 1)) for word, count in tale.written.items()
    }
    admin = AdminClient({"bootstrap.servers": text_of(server.kafka)})
    changelog, repartition = f"{unique}-store-changelog", f"{unique}-words-repartition"
    assert settings_of(admin, changelog)["cleanup.policy"] == "compact"
    assert settings_of(admin, repartition)["retention.ms"] == "-1"
    wait_until(
        lambda: all(starts_of(admin, repartition)), "that Streams deletes what it has read"
    )


def starts_of(admin: AdminClient, log_topic: str) -> list[int]:
    """Return the offset with which each partition begins."""
    earliest = {
        TopicPartition(log_topic, partition): OffsetSpec.earliest()
        for partition in range(PARTITIONS)
    }
    asked = admin.list_offsets(earliest, isolation_level=IsolationLevel.READ_UNCOMMITTED)
    return [one.result(TIMEOUT_S).offset for one in asked.values()]
