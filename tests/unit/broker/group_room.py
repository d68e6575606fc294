"""A table of groups over a log in memory, with their offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.unit.broker.kafka_room import KafkaRoom
from tests.unit.kafka.consumer_room import beat_of

from isthmus.broker.consumer_groups import ConsumerGroups
from isthmus.broker.group_offsets import GroupOffsets
from isthmus.broker.groups import GroupTable
from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.frames import encode_prefixed
from isthmus.kafka.group_records import GROUPS_LOG_TOPIC, CommittedOffset, read_key
from isthmus.kafka.group_types import Join, JoinAnswer, SyncAnswer
from isthmus.record.batch import split_batches

if TYPE_CHECKING:
    from isthmus.kafka.errors import ErrorCode

ANYONE = ("", None, -1)


class GroupRoom(KafkaRoom):
    """A table of groups over a log in memory."""

    def __init__(self, **settings: int) -> None:
        super().__init__()
        self.topic = self.log.create("t", 2, {})
        self.retention = {
            name: settings.pop(name) for name in ["retention_ms"] if name in settings
        }
        self.settings = {"initial_delay_ms": 0, **settings}
        self.restart()

    def restart(self) -> None:
        """Forget all but the log."""
        self.begin()
        self.runtime.settle()

    def begin(self) -> None:
        """Start without letting a turn end."""
        self.table = GroupTable(self.runtime, self.log, self.appends, **self.settings)
        self.offsets = GroupOffsets(self.runtime, self.table, **self.retention)

    def at(self, offset: int, *, topic_id: bytes | None = None) -> CommittedOffset:
        of = self.topic.topic_id if topic_id is None else topic_id
        return CommittedOffset(offset, 0, "note", self.runtime.now_ms(), of)

    def commit(
        self, group_id: str, offset: int, member: Any = ANYONE, place: Any = ("t", 0)
    ) -> ErrorCode:
        answers: list[ErrorCode] = []
        self.offsets.commit(group_id, member, {place: self.at(offset)}, answers.append)
        self.runtime.settle()
        (answer,) = answers
        return answer

    def leave(
        self, group_id: str, members: list[tuple[str, str | None]]
    ) -> list[ErrorCode] | ErrorCode:
        answers: list[list[ErrorCode] | ErrorCode] = []
        self.table.leave(group_id, members, answers.append)
        self.runtime.settle()
        (answer,) = answers
        return answer

    def joining(self, member_id: str = "", **changes: Any) -> Join:
        protocols = (("range", b"m"),)
        join = Join(member_id, None, "c", "/h", 10_000, 60_000, "consumer", protocols)
        return join._replace(**changes)

    def join(self, group_id: str = "g", member_id: str = "", **changes: Any) -> JoinAnswer:
        join = self.joining(member_id, **changes)
        answers: list[JoinAnswer] = []
        self.table.join(group_id, join, answers.append)
        self.runtime.settle()
        (answer,) = answers
        return answer

    def sync(self, member: JoinAnswer, group_id: str = "g") -> SyncAnswer:
        answers: list[SyncAnswer] = []
        self.table.sync(
            group_id,
            (member.member_id, None, member.generation),
            (None, None),
            [(member.member_id, b"share")],
            answers.append,
        )
        self.runtime.settle()
        (answer,) = answers
        return answer

    def committed(self, group_id: str = "g") -> dict[Any, CommittedOffset]:
        found = self.offsets.committed(group_id)
        assert isinstance(found, dict)
        return found

    def records(self) -> list[tuple[Any, bytes | None]]:
        partition = self.log.partition(GROUPS_LOG_TOPIC, 0)
        assert partition is not None
        buffers = partition.read(0, 1 << 30).buffers
        batches = [batch for buffer in buffers for batch in split_batches(buffer)]
        return [
            (read_key(record.key or b""), record.value)
            for batch in batches
            for record in batch.records()
        ]


class ConsumerRoom(GroupRoom):
    """A table of groups, and the way in for members of the consumer protocol."""

    def begin(self) -> None:
        super().begin()
        self.groups = ConsumerGroups(self.runtime, self.table)

    def send(self, member_id: str, epoch: int, **changes: Any) -> list[Any]:
        """Send a heartbeat, and return where its answer will be."""
        answers: list[Any] = []
        self.groups.heartbeat("g", beat_of(member_id, epoch, **changes), answers.append)
        return answers

    def beat(self, member_id: str, epoch: int, **changes: Any) -> Any:
        answers = self.send(member_id, epoch, **changes)
        self.runtime.settle()
        (answer,) = answers
        return answer

    def enter(self, member_id: str = "m1", **changes: Any) -> Any:
        names = frozenset({"t"})
        said = {"topic_names": names, "rebalance_timeout_ms": 60_000, "owned": frozenset()}
        return self.beat(member_id, 0, **{**said, **changes})

    def group(self) -> ConsumerGroup:
        group = self.table.described("g")
        assert isinstance(group, ConsumerGroup)
        return group


def reading(*log_topics: str) -> bytes:
    """Return what a member says that reads these."""
    return encode_prefixed("ConsumerProtocolSubscription", 0, {"topics": [*log_topics]})
