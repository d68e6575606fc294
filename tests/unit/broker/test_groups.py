"""The table of groups: what is stored when, what a restart knows."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.broker.group_room import ANYONE, GroupRoom

from isthmus.broker.state_log import LOAD_BYTES
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group_records import GROUPS_LOG_TOPIC, partition_of, read_group
from isthmus.kafka.group_states import State
from isthmus.kafka.group_types import JoinAnswer
from isthmus.record.batch import BatchBuilder


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
    assert room.leave("g", [("x", None)]) == [ErrorCode.UNKNOWN_MEMBER_ID]
    assert room.leave("", [("x", None)]) is ErrorCode.INVALID_GROUP_ID
    assert room.commit("g", 1, ("x", None, 3)) is ErrorCode.GROUP_ID_NOT_FOUND
    assert room.offsets.committed("") == {}
    assert room.table.described("g") is ErrorCode.GROUP_ID_NOT_FOUND
    assert room.table.listed() == {}


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
    codes = room.leave("g", [("nobody", None), (member.member_id, None)])
    assert codes == [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.NONE]
    room.runtime.settle()
    assert room.records()[-1][0] == "g"


def test_who_has_left_is_told_so_when_nobody_would_bring_it_back() -> None:
    room = GroupRoom()
    member = room.join()
    room.runtime.settle()
    answers: list[Any] = []
    room.table.leave("g", [(member.member_id, None)], answers.append)
    assert answers == []
    room.runtime.settle()
    assert answers == [[ErrorCode.NONE]]
    room.restart()
    assert room.table.states["g"].group.due_ms() is None, "nobody is waited for"


def test_a_deleted_group_is_gone_for_good() -> None:
    room = GroupRoom()
    member = room.join()
    answers: list[ErrorCode] = []
    room.table.delete("g", answers.append)
    assert answers == [ErrorCode.NON_EMPTY_GROUP]
    room.leave("g", [(member.member_id, None)])
    room.commit("g", 5)
    room.table.delete("g", answers.append)
    room.runtime.settle()
    room.table.delete("g", answers.append)
    assert answers[1:] == [ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND]
    for _ in range(2):
        assert room.table.listed() == {}
        assert room.offsets.committed("g") == {}
        room.restart()


def test_a_group_is_deleted_behind_what_is_being_written_of_it() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    answers: list[str] = []
    room.offsets.commit(
        "g", ANYONE, {("t", 0): room.at(2)}, lambda code: answers.append(f"commit: {code:d}")
    )
    room.table.delete("g", lambda code: answers.append(f"delete: {code:d}"))
    assert answers == []
    room.runtime.settle()
    assert answers == ["commit: 0", "delete: 0"]
    for _ in range(2):
        assert room.table.listed() == {}
        room.restart()


def test_a_group_is_not_deleted_under_an_open_transaction() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    answers: list[ErrorCode] = []
    offsets = {("t", 0): room.at(2)}
    room.offsets.commit("g", ANYONE, offsets, answers.append, producer=(7, 0))
    room.runtime.settle()
    room.table.delete("g", answers.append)
    assert answers == [ErrorCode.NONE, ErrorCode.COORDINATOR_NOT_AVAILABLE]
    room.table.decide(room.table.log_place("g")[1], 7, commits=True)
    room.table.delete("g", answers.append)
    room.runtime.settle()
    assert answers[2:] == [ErrorCode.NONE]


def test_groups_that_are_being_loaded_say_so() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    note = "x" * 4_000
    for number in range(LOAD_BYTES // 4_000 + 1):
        offset = room.at(number)._replace(metadata=note)
        room.offsets.commit("g", ANYONE, {("t", 1): offset}, lambda _: None)
    room.runtime.settle()
    room.begin()
    assert room.offsets.committed("g") is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert room.table.listed() is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert room.table.heartbeat("g", ANYONE) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    room.runtime.settle()
    assert len(room.offsets.committed("g")) == 2


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
