"""The table of groups: what is stored when, what a restart knows, what is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.broker.kafka_room import KafkaRoom

from isthmus.broker.groups import EXPIRY_CHECK_MS, GroupTable
from isthmus.broker.state_log import LOAD_BYTES
from isthmus.errors import NoSpace
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group import State
from isthmus.kafka.group_records import (
    GROUPS_LOG_TOPIC,
    CommittedOffset,
    partition_of,
    read_group,
    read_key,
)
from isthmus.kafka.group_types import Join, JoinAnswer, SyncAnswer
from isthmus.record.batch import BatchBuilder, split_batches

ANYONE = ("", None, -1)
HOUR_MS = 3_600_000


class GroupRoom(KafkaRoom):
    """A table of groups over a log in memory."""

    def __init__(self, **settings: int) -> None:
        super().__init__()
        self.topic = self.log.create("t", 2, {})
        self.settings = {"initial_delay_ms": 0, **settings}
        self.restart()

    def restart(self) -> None:
        """Forget all but the log."""
        self.table = GroupTable(self.runtime, self.log, self.appends, **self.settings)
        self.runtime.settle()

    def at(self, offset: int, *, topic_id: bytes | None = None) -> CommittedOffset:
        of = self.topic.topic_id if topic_id is None else topic_id
        return CommittedOffset(offset, 0, "note", self.runtime.now_ms(), of)

    def commit(
        self, group_id: str, offset: int, member: Any = ANYONE, place: Any = ("t", 0)
    ) -> ErrorCode:
        answers: list[ErrorCode] = []
        self.table.commit(group_id, member, {place: self.at(offset)}, answers.append)
        self.runtime.settle()
        (answer,) = answers
        return answer

    def join(self, group_id: str = "g", member_id: str = "", **changes: Any) -> JoinAnswer:
        join = Join(
            member_id, None, "c", "/h", 10_000, 60_000, "consumer", (("range", b"m"),)
        )._replace(**changes)
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


def test_a_committed_offset_is_answered_when_durable_and_found_after_a_restart() -> None:
    room = GroupRoom()
    answers: list[ErrorCode] = []
    room.table.commit("g", ANYONE, {("t", 0): room.at(7)}, answers.append)
    assert answers == []
    assert room.table.offsets("g") == {}, "nobody is told what a restart may not know"
    room.runtime.settle()
    assert answers == [ErrorCode.NONE]
    for _ in range(2):
        offsets = room.table.offsets("g")
        assert isinstance(offsets, dict)
        assert offsets["t", 0][:3] == (7, 0, "note")
        room.restart()


def test_a_failed_write_is_told_and_changes_nothing() -> None:
    room = GroupRoom()
    room.appends.error = NoSpace("full")
    assert room.commit("g", 7) is ErrorCode.NOT_COORDINATOR, "which clients try again"
    assert room.table.offsets("g") == {}
    assert room.table.listed() == {}, "a group that never was"


def test_a_group_is_stored_as_kafka_does() -> None:
    room = GroupRoom()
    member = room.join()
    assert room.sync(member).assignment == b"share"
    room.commit("g", 3, (member.member_id, None, 1))
    (group_row, offset_row) = room.records()
    assert group_row[0] == "g"
    assert group_row[1] is not None
    stored = read_group(group_row[1]).snapshot
    assert (stored.generation, stored.leader) == (1, member.member_id)
    assert stored.members[0].assignment == b"share"
    assert stored.members[0].subscription == b"m"
    assert offset_row[0] == ("g", "t", 0)


def test_members_work_on_over_a_restart() -> None:
    room = GroupRoom()
    member = room.join()
    room.sync(member)
    room.restart()
    identity = (member.member_id, None, 1)
    assert room.table.heartbeat("g", identity) is ErrorCode.NONE
    assert room.commit("g", 3, identity) is ErrorCode.NONE
    room.runtime.advance(10_000)
    assert room.table.heartbeat("g", identity) is ErrorCode.UNKNOWN_MEMBER_ID


def test_the_session_timeout_runs_by_itself() -> None:
    room = GroupRoom()
    member = room.join()
    room.sync(member)
    identity = (member.member_id, None, 1)
    for _ in range(5):
        room.runtime.advance(9_000)
        assert room.table.heartbeat("g", identity) is ErrorCode.NONE
    room.runtime.advance(10_000)
    group = room.table.described("g")
    assert not isinstance(group, ErrorCode)
    assert group.state is State.EMPTY
    room.restart()
    group = room.table.described("g")
    assert not isinstance(group, ErrorCode)
    assert (group.state, group.generation) == (State.EMPTY, 2)


def test_requests_about_no_group_are_refused() -> None:
    room = GroupRoom()
    assert room.join("", needs_known_id=True).error is ErrorCode.INVALID_GROUP_ID
    assert room.join("g", "nobody").error is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.sync(JoinAnswer(ErrorCode.NONE, "x", 1)).error is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.table.heartbeat("g", ("x", None, 1)) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.table.leave("g", [("x", None)]) == [ErrorCode.UNKNOWN_MEMBER_ID]
    assert room.table.leave("", [("x", None)]) is ErrorCode.INVALID_GROUP_ID
    assert room.commit("g", 1, ("x", None, 3)) is ErrorCode.ILLEGAL_GENERATION
    assert room.table.offsets("") == {}
    assert room.table.described("g") is ErrorCode.GROUP_ID_NOT_FOUND
    assert room.table.listed() == {}


def test_the_group_without_a_name_keeps_offsets_and_has_no_members() -> None:
    # So old Java consumers commit that are given no group.
    room = GroupRoom()
    assert room.commit("", 1) is ErrorCode.NONE
    offsets = room.table.offsets("")
    assert isinstance(offsets, dict)
    assert [committed.offset for committed in offsets.values()] == [1]
    assert room.join("", needs_known_id=True).error is ErrorCode.INVALID_GROUP_ID
    assert room.table.heartbeat("", ("x", None, 1)) is ErrorCode.INVALID_GROUP_ID


def test_a_refused_join_leaves_no_group_behind() -> None:
    room = GroupRoom()
    assert room.join("g", protocols=()).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    given = room.join("h", needs_known_id=True)
    assert given.error is ErrorCode.MEMBER_ID_REQUIRED
    assert list(room.table.listed()) == ["h"]
    room.runtime.advance(10_000)
    assert room.table.listed() == {}


def test_the_number_of_groups_is_limited() -> None:
    room = GroupRoom(groups_max=1)
    assert room.commit("one", 1) is ErrorCode.NONE
    assert room.commit("two", 1) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert room.join("three").error is ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_members_leave_one_by_one() -> None:
    room = GroupRoom()
    member = room.join()
    codes = room.table.leave("g", [("nobody", None), (member.member_id, None)])
    assert codes == [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.NONE]
    room.runtime.settle()
    assert room.records()[-1][0] == "g"


def test_a_deleted_group_is_gone_for_good() -> None:
    room = GroupRoom()
    member = room.join()
    answers: list[ErrorCode] = []
    room.table.delete("g", answers.append)
    assert answers == [ErrorCode.NON_EMPTY_GROUP]
    room.table.leave("g", [(member.member_id, None)])
    room.commit("g", 5)
    room.table.delete("g", answers.append)
    room.runtime.settle()
    room.table.delete("g", answers.append)
    assert answers[1:] == [ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND]
    for _ in range(2):
        assert room.table.listed() == {}
        assert room.table.offsets("g") == {}
        room.restart()


def test_a_group_that_is_committed_to_is_not_deleted_under_it() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    answers: list[ErrorCode] = []
    room.table.commit("g", ANYONE, {("t", 0): room.at(2)}, answers.append)
    room.table.delete("g", answers.append)
    room.runtime.settle()
    assert answers == [ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NONE]


def test_offsets_of_a_deleted_log_topic_go_with_it() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    room.commit("g", 1, place=("other", 0))
    room.log.delete("t")
    room.table.forget_log_topic("t")
    room.runtime.settle()
    assert room.table.offsets("g") == {}
    room.restart()
    assert room.table.listed() == {}


def test_offsets_of_an_earlier_log_topic_of_the_same_name_are_not_found() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    room.log.delete("t")
    room.topic = room.log.create("t", 2, {})
    room.restart()
    assert room.table.offsets("g") == {}
    assert room.commit("g", 2) is ErrorCode.NONE
    assert room.table.offsets("g") != {}


def test_offsets_without_a_topic_id_are_kept() -> None:
    room = GroupRoom()
    answers: list[ErrorCode] = []
    room.table.commit("g", ANYONE, {("t", 0): room.at(4, topic_id=bytes(16))}, answers.append)
    room.runtime.settle()
    room.restart()
    assert room.table.offsets("g") != {}


def test_an_empty_group_forgets_after_the_retention_time() -> None:
    room = GroupRoom(retention_ms=2 * HOUR_MS)
    member = room.join()
    room.sync(member)
    room.commit("g", 1, (member.member_id, None, 1))
    for _ in range(3 * 360):
        room.runtime.advance(9_999)
        assert room.table.heartbeat("g", (member.member_id, None, 1)) is ErrorCode.NONE
    room.runtime.advance(10_000)
    assert room.table.offsets("g"), "its time counts from when the last member went"
    room.runtime.advance(2 * HOUR_MS - EXPIRY_CHECK_MS)
    assert room.table.offsets("g")
    room.runtime.advance(2 * EXPIRY_CHECK_MS)
    for _ in range(2):
        assert room.table.offsets("g") == {}
        assert room.table.listed() == {}
        room.restart()


def test_offsets_without_members_expire_one_by_one() -> None:
    room = GroupRoom(retention_ms=2 * HOUR_MS)
    room.commit("g", 1, place=("t", 0))
    room.runtime.advance(HOUR_MS + EXPIRY_CHECK_MS)
    room.commit("g", 1, place=("t", 1))
    room.runtime.advance(HOUR_MS)
    assert list(room.table.offsets("g")) == [("t", 1)]
    room.runtime.advance(2 * HOUR_MS)
    assert room.table.listed() == {}


def test_groups_that_are_being_loaded_say_so() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    note = "x" * 4_000
    for number in range(LOAD_BYTES // 4_000 + 1):
        offset = room.at(number)._replace(metadata=note)
        room.table.commit("g", ANYONE, {("t", 1): offset}, lambda _: None)
    room.runtime.settle()
    room.table = GroupTable(room.runtime, room.log, room.appends)
    assert room.table.offsets("g") is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert room.table.listed() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert room.table.heartbeat("g", ANYONE) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    room.runtime.settle()
    assert len(room.table.offsets("g")) == 2


def test_records_that_nobody_here_wrote_are_skipped() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    partition = room.log.partition(GROUPS_LOG_TOPIC, 0)
    assert partition is not None
    builder = BatchBuilder()
    for key in (b"", b"\x00", b"\x00\x03\x00\x01g", b"\x00\x01\x00\x09g", b"\x00\x02\x00\x01h"):
        builder.append(room.runtime.now_ms(), key, b"\x00\x01?")
    room.appends.append(partition, builder.seal(), None)
    room.runtime.settle()
    room.restart()
    assert list(room.table.listed()) == ["g"]


@pytest.mark.parametrize(
    ("group_id", "hashed"), [("test", 3556498), ("", 0), ("console-consumer-1", 35782224)]
)
def test_a_group_lives_where_kafka_would_put_it(group_id: str, hashed: int) -> None:
    assert partition_of(group_id, 1 << 31) == hashed
    assert partition_of(group_id, 50) == hashed % 50
