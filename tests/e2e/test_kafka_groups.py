"""Consumer groups of the classic protocol: members come and go, positions stay."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from tests.e2e.kafka_commands import Kcat
from tests.e2e.kafka_libraries import (
    ConfluentKafka,
    confluent_consumer,
    create_topic,
    poll_records,
)
from tests.e2e.kafka_record import Record
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import Address, ServerProcess, text_of

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

PARTITIONS = 4


def fill(server: Address, log_topic: str, count: int = 100) -> set[bytes]:
    """Produce numbered records with as many keys, and return their values."""
    records = [Record(b"key-%d" % number, b"%d" % number) for number in range(count)]
    ConfluentKafka().produce(server, log_topic, records)
    return {record.value for record in records if record.value is not None}


def member(server: Address, group: str, log_topic: str, **settings: object) -> Consumer:
    """Return a consumer that has joined a group, quick to notice changes."""
    settings = {"heartbeat.interval.ms": 100, "session.timeout.ms": 120_000} | settings
    consumer = confluent_consumer(server, **{"group.id": group, **settings})
    consumer.subscribe([log_topic])
    return consumer


def settle(members: list[Consumer]) -> list[set[int]]:
    """Poll all members until the partitions are shared among them, and return the shares."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        for one in members:
            one.poll(0.05)
        shares = [{place.partition for place in one.assignment()} for one in members]
        if all(shares) and sum(map(len, shares)) == PARTITIONS:
            return shares
        assert time.monotonic() < end, f"partitions are shared as {shares}"


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_partitions_move_when_members_come_and_go(
    strategy: str, shores: Shores, unique: str
) -> None:
    create_topic(shores.kafka, unique, PARTITIONS)
    settings = {"partition.assignment.strategy": strategy}
    first = member(shores.kafka, unique, unique, **settings)
    assert settle([first]) == [{0, 1, 2, 3}]
    second = member(shores.kafka, unique, unique, **settings)
    shares = settle([first, second])
    assert shares[0] | shares[1] == {0, 1, 2, 3}
    assert {len(share) for share in shares} == {2}
    first.close()
    assert settle([second]) == [{0, 1, 2, 3}]
    second.close()


def test_a_member_that_dies_loses_its_partitions(shores: Shores, unique: str) -> None:
    """It leaves no word, so its session has to time out first."""
    if Kcat().missing():
        pytest.skip(Kcat().missing())
    create_topic(shores.kafka, unique, PARTITIONS)
    first = member(shores.kafka, unique, unique)
    command = ["kcat", "-q", "-b", text_of(shores.kafka), "-X", "session.timeout.ms=6000"]
    dying = subprocess.Popen([*command, "-G", unique, unique])
    try:
        wait_until(lambda: first.poll(0.02) or len(first.assignment()) == 2, "sharing")
    finally:
        dying.kill()
        dying.wait()
    assert settle([first]) == [{0, 1, 2, 3}]
    first.close()


def test_a_group_goes_on_where_it_committed(shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique, PARTITIONS)
    values = fill(shores.kafka, unique)
    first = member(shores.kafka, unique, unique)
    seen = poll_records(first, 40)
    first.commit(asynchronous=False)
    first.close()
    second = member(shores.kafka, unique, unique)
    rest = poll_records(second, 60)
    assert second.poll(0.3) is None
    second.close()
    assert {message.value() for message in seen + rest} == values


def test_committed_offsets_and_their_metadata_can_be_read_back(
    shores: Shores, unique: str
) -> None:
    create_topic(shores.kafka, unique)
    fill(shores.kafka, unique, 10)
    consumer = confluent_consumer(shores.kafka, **{"group.id": unique})
    place = TopicPartition(unique, 0, 7, metadata="halfway µ")
    consumer.commit(offsets=[place], asynchronous=False)
    [committed] = consumer.committed([TopicPartition(unique, 0)], TIMEOUT_S)
    assert (committed.offset, committed.metadata) == (7, "halfway µ")
    consumer.close()


def test_a_commit_of_a_former_generation_is_refused(shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique, PARTITIONS)
    fill(shores.kafka, unique)
    quick = {"session.timeout.ms": 6000, "max.poll.interval.ms": 6000}
    first = member(shores.kafka, unique, unique, **quick)
    poll_records(first, 10)
    second = member(shores.kafka, unique, unique)
    end = time.monotonic() + TIMEOUT_S
    while len(second.assignment()) != PARTITIONS:  # `first` does not poll, so it is put out
        second.poll(0.1)
        assert time.monotonic() < end, "the member that does not poll keeps its partitions"
    with pytest.raises(KafkaException):
        first.commit(offsets=[TopicPartition(unique, 0, 1)], asynchronous=False)
    first.close()
    second.close()


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_committed_offsets_outlive_the_server(
    how: str, fresh_server: ServerProcess, unique: str
) -> None:
    create_topic(fresh_server.kafka, unique, PARTITIONS)
    values = fill(fresh_server.kafka, unique)
    first = member(fresh_server.kafka, unique, unique)
    seen = poll_records(first, 30)
    first.commit(asynchronous=False)
    first.close()
    getattr(fresh_server, how)()
    fresh_server.start()
    second = member(fresh_server.kafka, unique, unique)
    rest = poll_records(second, 70)
    assert second.poll(0.3) is None
    second.close()
    assert {message.value() for message in seen + rest} == values
