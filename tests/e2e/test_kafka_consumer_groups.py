"""Consumer groups whose members the server assigns (KIP-848), and the way there and back."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import aiokafka
import kafka
import pytest
from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupType, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.e2e.kafka_commands import (
    CLIENTS,
    JavaConsole,
    java_command,
    run_to_end,
    sections,
)
from tests.e2e.kafka_libraries import (
    ConfluentKafka,
    confluent_consumer,
    create_topic,
    poll_records,
)
from tests.e2e.kafka_record import Record
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import ServerProcess, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = 4
ALL = [*range(PARTITIONS)]


@pytest.fixture(scope="module")
def server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server whose members call often, so that changes are quick."""
    settings = {"kafka.group_consumer_heartbeat_interval_ms": "50"}
    server = ServerProcess(tmp_path_factory.mktemp("groups"), settings)
    server.start()
    yield server
    server.stop()


def member(
    server: ServerProcess, group: str, *what: str, kind: str = "consumer", **more: Any
) -> Consumer:
    """Return a consumer that reads `what` in a group."""
    if kind == "classic":
        more = {"heartbeat.interval.ms": 50, "session.timeout.ms": 120_000, **more}
    settings = {"group.id": group, "group.protocol": kind, **more}
    consumer = confluent_consumer(server.kafka, **settings)
    consumer.subscribe([*what])
    return consumer


def shares(members: list[Consumer], log_topic: str, *sizes: int) -> list[list[int]]:
    """Poll until the members share the partitions in these sizes, and return the shares."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        for one in members:
            one.poll(0.02)
        found = [
            sorted(place.partition for place in one.assignment() if place.topic == log_topic)
            for one in members
        ]
        if sorted(map(len, found)) == sorted(sizes):
            assert sorted(index for share in found for index in share) == ALL
            return found
        assert time.monotonic() < end, f"partitions are shared as {found}"


def described(server: ServerProcess, group: str) -> tuple[ConsumerGroupState, Any]:
    admin = AdminClient({"bootstrap.servers": text_of(server.kafka)})
    found = admin.describe_consumer_groups([group])[group].result(TIMEOUT_S)
    return found.state, found.type


@pytest.mark.parametrize("assignor", ["uniform", "range"])
def test_members_come_and_go(assignor: str, server: ServerProcess, unique: str) -> None:
    create_topic(server.kafka, unique, PARTITIONS)
    how = {"group.remote.assignor": assignor}
    first = member(server, unique, unique, **how)
    shares([first], unique, 4)
    second = member(server, unique, unique, **how)
    third = member(server, unique, unique, **how)
    shares([first, second, third], unique, 2, 1, 1)
    assert described(server, unique) == (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER)
    second.close()
    shares([first, third], unique, 2, 2)
    first.close()
    shares([third], unique, 4)
    third.close()
    assert described(server, unique)[0] == ConsumerGroupState.EMPTY


def test_a_static_member_comes_back_to_its_partitions(
    server: ServerProcess, unique: str
) -> None:
    create_topic(server.kafka, unique, PARTITIONS)
    other = member(server, unique, unique)
    static = member(server, unique, unique, **{"group.instance.id": "here"})
    before = shares([other, static], unique, 2, 2)
    static.close()
    static = member(server, unique, unique, **{"group.instance.id": "here"})
    assert shares([other, static], unique, 2, 2) == before
    for one in (other, static):
        one.close()


def test_a_pattern_finds_log_topics_that_come_later(server: ServerProcess, unique: str) -> None:
    create_topic(server.kafka, f"{unique}-a", PARTITIONS)
    consumer = member(server, unique, f"^{re.escape(unique)}-[ab]$")
    shares([consumer], f"{unique}-a", 4)
    create_topic(server.kafka, f"{unique}-b", PARTITIONS)
    create_topic(server.kafka, f"{unique}-c", PARTITIONS)
    shares([consumer], f"{unique}-b", 4)
    assert {place.topic[-1] for place in consumer.assignment()} == {"a", "b"}
    consumer.close()


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_group_is_upgraded_and_downgraded_member_by_member(
    strategy: str, server: ServerProcess, unique: str
) -> None:
    create_topic(server.kafka, unique, PARTITIONS)
    old = {"kind": "classic", "partition.assignment.strategy": strategy}
    one, two = member(server, unique, unique, **old), member(server, unique, unique, **old)
    shares([one, two], unique, 2, 2)
    assert described(server, unique)[1] == ConsumerGroupType.CLASSIC
    three = member(server, unique, unique)
    shares([one, two, three], unique, 2, 1, 1)
    assert described(server, unique)[1] == ConsumerGroupType.CONSUMER
    one.close()
    shares([two, three], unique, 2, 2)
    two.close()
    shares([three], unique, 4)
    four = member(server, unique, unique, **old)
    shares([three, four], unique, 2, 2)
    three.close()
    shares([four], unique, 4)
    assert described(server, unique) == (ConsumerGroupState.STABLE, ConsumerGroupType.CLASSIC)
    four.close()


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_groups_and_offsets_outlive_the_server(
    how: str, fresh_server: ServerProcess, unique: str
) -> None:
    create_topic(fresh_server.kafka, unique, PARTITIONS)
    records = [Record(b"key-%d" % number, b"%d" % number) for number in range(100)]
    ConfluentKafka().produce(fresh_server.kafka, unique, records)
    consumer = member(fresh_server, unique, unique)
    seen = {message.value() for message in poll_records(consumer, 30)}
    consumer.commit(asynchronous=False)
    getattr(fresh_server, how)()
    fresh_server.start()
    seen |= {message.value() for message in poll_records(consumer, 70)}
    assert len(seen) == 100, "the member works on, with the epoch that it had"
    consumer.commit(asynchronous=False)
    places = [TopicPartition(unique, index) for index in ALL]
    committed = consumer.committed(places, TIMEOUT_S)
    assert sum(place.offset for place in committed) == 100
    consumer.close()
    wait_until(lambda: described(fresh_server, unique)[0] == ConsumerGroupState.EMPTY, "end")


def test_the_java_client_and_its_tool(server: ServerProcess, unique: str) -> None:
    if JavaConsole().missing():
        pytest.skip(JavaConsole().missing())
    program = str(CLIENTS / "Groups.java")
    output = run_to_end([*java_command(program), text_of(server.kafka), unique]).decode()
    told = sections(output)
    group = f"{unique}-new"
    assert [group, "Consumer", "Stable"] in told["list"]
    members = [row[-1] for row in told["members"] if row[0] == group]
    assert sorted(members) == [f"{unique}:0,1", f"{unique}:2,3"]
    (state,) = [row for row in told["state"] if row[0] == group]
    assert state[-3:] == ["range", "Stable", "2"]
    lags = {row[2]: row[3] for row in told["lag"] if row[0] == group}
    assert sorted(lags.values()) == ["-", "-", "-", "3"]
    for done in ("reset", "delete offsets"):
        assert len([row for row in told[done] if unique in row]) == PARTITIONS
    assert told["delete"][0][-1] == "successful."
    assert "end" in told


def classic_reader(kind: str, server: ServerProcess, group: str, log_topic: str) -> int:
    """Read a log topic to its end in a classic group; return how much was committed."""
    if kind == "kafka-python":
        consumer = kafka.KafkaConsumer(
            log_topic,
            bootstrap_servers=text_of(server.kafka),
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        seen = 0
        wait = time.monotonic() + TIMEOUT_S
        while seen < 20 and time.monotonic() < wait:
            seen += sum(map(len, consumer.poll(timeout_ms=100).values()))
        consumer.commit()
        consumer.close()
        return seen

    async def read() -> int:
        consumer = aiokafka.AIOKafkaConsumer(
            log_topic,
            bootstrap_servers=text_of(server.kafka),
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        seen = 0
        async with asyncio.timeout(TIMEOUT_S):
            while seen < 20:
                seen += sum(map(len, (await consumer.getmany(timeout_ms=100)).values()))
        await consumer.commit()
        await consumer.stop()
        return seen

    return asyncio.run(read())


@pytest.mark.parametrize("kind", ["kafka-python", "aiokafka"])
def test_a_group_goes_on_in_the_other_protocol(
    kind: str, server: ServerProcess, unique: str
) -> None:
    create_topic(server.kafka, unique, PARTITIONS)
    records = [Record(b"key-%d" % number, b"%d" % number) for number in range(20)]
    ConfluentKafka().produce(server.kafka, unique, records)
    assert classic_reader(kind, server, unique, unique) == 20
    ConfluentKafka().produce(server.kafka, unique, [Record(b"k", b"new")])
    consumer = member(server, unique, unique)
    (message,) = poll_records(consumer, 1)
    assert message.value() == b"new"
    consumer.close()
