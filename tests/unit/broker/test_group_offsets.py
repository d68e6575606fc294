"""The offsets of groups: answered when durable, deleted, forgotten in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.group_room import ANYONE, GroupRoom, reading

from isthmus.broker.group_offsets import EXPIRY_CHECK_MS
from isthmus.errors import NoSpace
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from isthmus.kafka.group_types import JoinAnswer

HOUR_MS = 3_600_000


def test_a_committed_offset_is_answered_when_durable_and_found_after_a_restart() -> None:
    room = GroupRoom()
    answers: list[ErrorCode] = []
    room.offsets.commit("g", ANYONE, {("t", 0): room.at(7)}, answers.append)
    assert answers == []
    assert room.offsets.committed("g") == {}, "nobody is told what a restart may not know"
    room.runtime.settle()
    assert answers == [ErrorCode.NONE]
    for _ in range(2):
        offsets = room.offsets.committed("g")
        assert isinstance(offsets, dict)
        assert offsets["t", 0][:3] == (7, 0, "note")
        room.restart()


def test_a_failed_write_is_told_and_changes_nothing() -> None:
    room = GroupRoom()
    room.appends.error = NoSpace("full")
    assert room.commit("g", 7) is ErrorCode.NOT_COORDINATOR, "which clients try again"
    assert room.offsets.committed("g") == {}
    assert room.table.listed() == {}, "a group that never was"


def test_the_group_without_a_name_keeps_offsets_and_has_no_members() -> None:
    # So old Java consumers commit that are given no group.
    room = GroupRoom()
    assert room.commit("", 1) is ErrorCode.NONE
    offsets = room.offsets.committed("")
    assert isinstance(offsets, dict)
    assert [committed.offset for committed in offsets.values()] == [1]
    assert room.join("", needs_known_id=True).error is ErrorCode.INVALID_GROUP_ID
    assert room.table.heartbeat("", ("x", None, 1)) is ErrorCode.INVALID_GROUP_ID


def test_offsets_of_a_deleted_log_topic_go_with_it() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    room.commit("g", 1, place=("other", 0))
    room.log.delete("t")
    room.offsets.forget_log_topic("t")
    room.runtime.settle()
    assert room.offsets.committed("g") == {}
    room.restart()
    assert room.table.listed() == {}


def test_offsets_of_an_earlier_log_topic_of_the_same_name_are_not_found() -> None:
    room = GroupRoom()
    room.commit("g", 1)
    room.log.delete("t")
    room.topic = room.log.create("t", 2, {})
    room.restart()
    assert room.offsets.committed("g") == {}
    assert room.commit("g", 2) is ErrorCode.NONE
    assert room.offsets.committed("g") != {}


def test_offsets_without_a_topic_id_are_kept() -> None:
    room = GroupRoom()
    answers: list[ErrorCode] = []
    room.offsets.commit("g", ANYONE, {("t", 0): room.at(4, topic_id=bytes(16))}, answers.append)
    room.runtime.settle()
    room.restart()
    assert room.offsets.committed("g") != {}


def test_an_empty_group_forgets_after_the_retention_time() -> None:
    room = GroupRoom(retention_ms=2 * HOUR_MS)
    member = room.join()
    room.sync(member)
    room.commit("g", 1, (member.member_id, None, 1))
    for _ in range(3 * 360):
        room.runtime.advance(9_999)
        assert room.table.heartbeat("g", (member.member_id, None, 1)) is ErrorCode.NONE
    room.runtime.advance(10_000)
    assert room.offsets.committed("g"), "its time counts from when the last member went"
    room.runtime.advance(2 * HOUR_MS - EXPIRY_CHECK_MS)
    assert room.offsets.committed("g")
    room.runtime.advance(2 * EXPIRY_CHECK_MS)
    for _ in range(2):
        assert room.offsets.committed("g") == {}
        assert room.table.listed() == {}
        room.restart()


def test_offsets_without_members_expire_one_by_one() -> None:
    room = GroupRoom(retention_ms=2 * HOUR_MS)
    room.commit("g", 1, place=("t", 0))
    room.runtime.advance(HOUR_MS + EXPIRY_CHECK_MS)
    room.commit("g", 1, place=("t", 1))
    room.runtime.advance(HOUR_MS)
    assert list(room.offsets.committed("g")) == [("t", 1)]
    room.runtime.advance(2 * HOUR_MS)
    assert room.table.listed() == {}


def live_member(
    room: GroupRoom, metadata: bytes, protocol_type: str = "consumer"
) -> JoinAnswer:
    member = room.join(protocols=(("range", metadata),), protocol_type=protocol_type)
    assert room.sync(member).error is ErrorCode.NONE
    return member


def test_what_a_live_group_no_longer_reads_is_forgotten() -> None:
    room = GroupRoom(retention_ms=2 * HOUR_MS)
    member = live_member(room, reading("t"))
    identity = (member.member_id, None, 1)
    room.commit("g", 1, identity, ("t", 0))
    room.commit("g", 1, identity, ("left", 0))
    for _ in range(3 * 400):
        room.runtime.advance(9_000)
        assert room.table.heartbeat("g", identity) is ErrorCode.NONE
    assert list(room.committed()) == [("t", 0)]


def test_a_live_group_that_cannot_be_understood_forgets_nothing() -> None:
    room = GroupRoom(retention_ms=HOUR_MS)
    member = live_member(room, b"?")
    identity = (member.member_id, None, 1)
    room.commit("g", 1, identity)
    for _ in range(2 * 400):
        room.runtime.advance(9_000)
        assert room.table.heartbeat("g", identity) is ErrorCode.NONE
    assert room.committed()


def delete(room: GroupRoom, group_id: str, *places: Any) -> Any:
    answers: list[Any] = []
    room.offsets.delete(group_id, places, answers.append)
    room.runtime.settle()
    (answer,) = answers
    return answer


def test_only_offsets_that_nobody_uses_are_deleted() -> None:
    room = GroupRoom()
    member = live_member(room, reading("t"))
    identity = (member.member_id, None, 1)
    for place in (("t", 0), ("left", 0)):
        room.commit("g", 1, identity, place)
    assert delete(room, "g", ("t", 0), ("left", 0), ("left", 7)) == {
        ("t", 0): ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC,
        ("left", 0): ErrorCode.NONE,
        ("left", 7): ErrorCode.NONE,
    }
    for _ in range(2):
        assert list(room.committed()) == [("t", 0)]
        room.restart()
    room.leave("g", [(member.member_id, None)])
    assert delete(room, "g", ("t", 0)) == {("t", 0): ErrorCode.NONE}
    assert room.committed() == {}


@pytest.mark.parametrize(("metadata", "protocol_type"), [(b"", "connect"), (b"?", "consumer")])
def test_offsets_of_members_that_cannot_be_understood_stay(
    metadata: bytes, protocol_type: str
) -> None:
    room = GroupRoom()
    live_member(room, metadata, protocol_type)
    assert delete(room, "g", ("t", 0)) is ErrorCode.NON_EMPTY_GROUP


def test_offsets_of_no_group_cannot_be_deleted() -> None:
    room = GroupRoom()
    assert delete(room, "g", ("t", 0)) is ErrorCode.GROUP_ID_NOT_FOUND
    assert delete(room, "", ("t", 0)) is ErrorCode.INVALID_GROUP_ID
    room.commit("g", 1)
    room.appends.error = NoSpace("full")
    assert delete(room, "g", ("t", 0)) is ErrorCode.NOT_COORDINATOR
    assert room.committed()
