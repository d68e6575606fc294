"""Share groups (KIP-932): real clients and tools, and SIGKILL."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import AcknowledgeType, ShareConsumer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from tests.e2e.answers.shares import ACCEPT, said
from tests.e2e.kafka_asker import Asker
from tests.e2e.kafka_commands import (
    CLIENTS,
    JavaConsole,
    java_command,
    run_to_end,
    sections,
)
from tests.e2e.kafka_libraries import ConfluentKafka, create_topic
from tests.e2e.kafka_record import Record
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import text_of
from tests.unit.broker.kafka_room import batch_of

from isthmus.kafka.api import ApiKey

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores
    from tests.e2e.server_process import Address, ServerProcess

COUNT = 200


def test_the_java_client_and_its_tools(shores: Shores, unique: str) -> None:
    if JavaConsole().missing():
        pytest.skip(JavaConsole().missing())
    program = str(CLIENTS / "Shares.java")
    output = run_to_end([*java_command(program), text_of(shores.kafka), unique]).decode()
    told = sections(output)
    group = f"{unique}-all"
    shares = [row[-1] for row in told["members"] if row[0] == group]
    read = {place for share in shares for place in share.split(":")[1].split(",")}
    assert read == {"0", "1", "2"}
    assert [group, "Empty"] in told["list"]
    for when, lag in (("offsets", 0), ("after", 300)):
        rows = [row for row in told[when] if row[0] == group]
        assert sum(int(row[-1]) for row in rows) == lag
    assert len([row for row in told["reset"] if row[0] == group]) == 3
    assert told["delete offsets"][-1] == [unique, "Successful"]
    assert told["delete"][0][-1] == "successful."
    shown = {row[0] for row in told["console"] if row[0].startswith("all-")}
    assert len(shown) == 300
    assert "end" in told


def test_librdkafka_shares_records(shores: Shores, unique: str) -> None:
    """It acknowledges with the next poll, or as it is told."""
    create_topic(shores.kafka, unique, 3)
    values = [b"%d" % number for number in range(60)]
    confluent = ConfluentKafka()
    confluent.produce(shores.kafka, unique, [Record(None, value) for value in values])
    admin = AdminClient({"bootstrap.servers": text_of(shores.kafka)})
    earliest = ConfigEntry(
        "share.auto.offset.reset",
        "earliest",
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(ResourceType.GROUP, unique, incremental_configs=[earliest])
    for change in admin.incremental_alter_configs([resource]).values():
        change.result(TIMEOUT_S)
    settings = {"bootstrap.servers": text_of(shores.kafka), "group.id": unique}
    explicit = {**settings, "share.acknowledgement.mode": "explicit"}
    seen: list[bytes] = []

    def take(member: ShareConsumer, kind: AcknowledgeType | None) -> list[bytes]:
        found = []
        for message in member.poll(timeout=0.2):
            assert message.error() is None
            found.append(message.value())
            if kind is not None:
                member.acknowledge(message, kind)
        return found

    with ShareConsumer(explicit) as unwilling:
        unwilling.subscribe([unique])
        wait_until(lambda: take(unwilling, AcknowledgeType.RELEASE), "records to give back")
        unwilling.commit_sync(TIMEOUT_S)
    with ShareConsumer(settings) as member:
        member.subscribe([unique])
        wait_until(lambda: seen.extend(take(member, None)) or len(seen) >= 60, "all records")
        assert sorted(seen) == sorted(values)
        assert not any((member.commit_sync(TIMEOUT_S) or {}).values())


class Worker:
    """A member of a share group, request by request."""

    def __init__(self, server: Address, log_topic: str) -> None:
        self._asker = Asker(server)
        self._about = {"group_id": log_topic, "member_id": "m"}
        self._epoch = 0
        asked = {"topics": [{"name": log_topic}]}
        (found,) = self._asker.ask(ApiKey.METADATA, 12, asked)["topics"]
        self._topic_id = found["topic_id"]
        beat = {**self._about, "member_epoch": 0, "subscribed_topic_names": [log_topic]}
        answer = self._asker.ask(ApiKey.SHARE_GROUP_HEARTBEAT, 1, beat)
        assert answer["error_code"] == 0

    def fetch(self) -> list[tuple[int, int]]:
        """Return which records the member was given, first and last of each run."""
        topics = [{"topic_id": self._topic_id, "partitions": [{"partition_index": 0}]}]
        limits = {
            "max_wait_ms": 100,
            "min_bytes": 1,
            "max_bytes": 1 << 20,
            "max_records": COUNT,
        }
        body = {**self._about, **limits, "share_session_epoch": self._epoch, "topics": topics}
        answer = self._asker.ask(ApiKey.SHARE_FETCH, 2, body)
        assert answer["error_code"] == 0
        self._epoch += 1
        rows = [row for topic in answer["responses"] for row in topic["partitions"]]
        assert not any(row["error_code"] for row in rows)
        runs = [one for row in rows for one in row["acquired_records"]]
        return [(one["first_offset"], one["last_offset"]) for one in runs]

    def accept(self, offset: int) -> None:
        """Have done with a record."""
        row = {"partition_index": 0, "acknowledgement_batches": [said(offset, offset, ACCEPT)]}
        topics = [{"topic_id": self._topic_id, "partitions": [row]}]
        body = {**self._about, "share_session_epoch": self._epoch, "topics": topics}
        answer = self._asker.ask(ApiKey.SHARE_ACKNOWLEDGE, 2, body)
        self._epoch += 1
        assert answer["responses"][0]["partitions"][0]["error_code"] == 0

    def close(self) -> None:
        self._asker.close()


def test_nothing_acknowledged_is_lost_with_the_server(
    fresh_server: ServerProcess, unique: str
) -> None:
    create_topic(fresh_server.kafka, unique, 1)
    with closing(Worker(fresh_server.kafka, unique)) as worker:
        assert worker.fetch() == [], "from here on"
        records = bytes(batch_of(1_700_000_000_000, *[b"v"] * COUNT).data)
        topic = {"name": unique, "partition_data": [{"index": 0, "records": records}]}
        body = {"acks": -1, "timeout_ms": 30_000, "topic_data": [topic]}
        with closing(Asker(fresh_server.kafka)) as producer:
            producer.ask(ApiKey.PRODUCE, 9, body)
        given: list[tuple[int, int]] = []
        wait_until(lambda: given.extend(worker.fetch()) or given, "records")
        assert given == [(0, COUNT - 1)]
        for offset in range(0, COUNT, 2):
            worker.accept(offset)
    fresh_server.kill()
    fresh_server.start()
    with closing(Worker(fresh_server.kafka, unique)) as worker:
        again: list[tuple[int, int]] = []
        wait_until(lambda: again.extend(worker.fetch()) or again, "what is not done with")
    assert again == [(offset, offset) for offset in range(1, COUNT, 2)]
