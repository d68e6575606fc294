"""Groups of the consumer protocol: answered when durable, there again after a restart."""

from __future__ import annotations

import pytest
from tests.unit.broker.group_room import ANYONE, ConsumerRoom

from isthmus.broker.group_topics import LOOK_MS, PATTERNS_MAX, GroupTopics
from isthmus.errors import NoSpace
from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.consumer_types import HeartbeatAnswer, HeartbeatRefused
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group import Group


def test_a_heartbeat_is_answered_when_its_rows_are_durable() -> None:
    room = ConsumerRoom()
    changes = {"topic_names": frozenset({"t"}), "rebalance_timeout_ms": 60_000}
    first = room.send("m1", 0, **changes)
    again = room.send("m1", 0, **changes)
    assert first == again == [], "nor is one that changes nothing, but tells what is not"
    room.runtime.settle()
    assert first == again == [HeartbeatAnswer("m1", 2, 5_000, first[0].assigned)]
    assert room.send("m1", 2) != []


def test_members_work_on_over_a_restart() -> None:
    room = ConsumerRoom()
    room.enter()
    assert room.commit("g", 5, ("m1", None, 2)) is ErrorCode.NONE
    for _ in range(2):
        room.restart()
        assert room.group().epoch == 2
        assert room.beat("m1", 2).assigned is None
        assert [*room.committed()] == [("t", 0)]
    room.runtime.advance(45_000)
    assert room.group().is_empty
    room.restart()
    assert room.group().is_empty
    assert room.group().epoch == 3


def test_a_failed_write_is_told_and_made_good() -> None:
    room = ConsumerRoom()
    room.appends.error = NoSpace("full")
    refused = room.enter()
    assert isinstance(refused, HeartbeatRefused)
    assert refused.code is ErrorCode.NOT_COORDINATOR
    room.appends.error = None
    assert room.enter().epoch == 2
    room.restart()
    assert [*room.group().members] == ["m1"]


@pytest.mark.parametrize("epoch", [-1, 3])
def test_only_who_joins_begins_a_group(epoch: int) -> None:
    room = ConsumerRoom()
    assert room.beat("m1", epoch).code is ErrorCode.GROUP_ID_NOT_FOUND
    assert room.enter(pattern="(").code is ErrorCode.INVALID_REGULAR_EXPRESSION
    assert room.table.listed() == {}


def test_the_number_of_groups_is_limited() -> None:
    room = ConsumerRoom(groups_max=1)
    room.commit("other", 1)
    assert room.enter().code is ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_a_group_without_members_changes_over_with_its_offsets() -> None:
    room = ConsumerRoom()
    member = room.join()
    room.sync(member)
    assert room.enter().code is ErrorCode.GROUP_ID_NOT_FOUND, "it has members"
    room.leave("g", [(member.member_id, None)])
    room.commit("g", 7)
    assert room.enter().epoch == 2
    room.restart()
    assert isinstance(room.group(), ConsumerGroup)
    assert room.join().error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    identity = (member.member_id, None, 1)
    assert room.table.heartbeat("g", identity) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.leave("g", [identity[:2]]) == [ErrorCode.UNKNOWN_MEMBER_ID]
    assert room.sync(member).error is ErrorCode.UNKNOWN_MEMBER_ID
    room.beat("m1", -1)
    room.sync(room.join())
    room.restart()
    assert isinstance(room.table.described("g"), Group)
    assert [committed.offset for committed in room.committed().values()] == [7]


def test_a_deleted_group_is_gone_for_good() -> None:
    room = ConsumerRoom()
    room.enter()
    room.commit("g", 1, ("m1", None, 2))
    answers: list[ErrorCode] = []
    room.table.delete("g", answers.append)
    room.beat("m1", -1)
    room.table.delete("g", answers.append)
    room.runtime.settle()
    assert answers == [ErrorCode.NON_EMPTY_GROUP, ErrorCode.NONE]
    room.restart()
    assert room.table.listed() == {}


def test_commits_and_fetches_know_the_epoch_of_a_member() -> None:
    room = ConsumerRoom()
    room.enter()
    assert room.commit("g", 1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.commit("g", 1, ("m1", None, 1)) is ErrorCode.STALE_MEMBER_EPOCH
    assert room.commit("g", 1, ("m1", None, 2)) is ErrorCode.NONE
    assert room.offsets.committed("g", "m1", 1) is ErrorCode.STALE_MEMBER_EPOCH
    assert room.offsets.committed("g", "m1", 2)
    assert room.offsets.committed("g", *ANYONE[1:2])


def test_offsets_of_what_nobody_reads_expire() -> None:
    room = ConsumerRoom(retention_ms=3_600_000)
    room.enter()
    for name in ("t", "left"):
        room.commit("g", 1, ("m1", None, 2), (name, 0))
    for _ in range(200):
        room.runtime.advance(40_000)
        assert room.beat("m1", 2).epoch == 2
    assert [*room.committed()] == [("t", 0)]
    room.runtime.advance(10_000_000)
    assert room.table.listed() == {}


def test_patterns_are_those_of_re2_and_match_whole_names() -> None:
    room = ConsumerRoom()
    topics = GroupTopics(room.runtime, room.log)
    room.log.create("t2", 1, {})
    assert topics.matching("t") == {"t"}
    assert topics.matching("(?i)T[0-9]?") == {"t", "t2"}
    room.log.create("t3", 1, {})
    room.runtime.advance(LOOK_MS)
    assert topics.matching("t.") == {"t2", "t3"}
    for wrong in (r"(a)\1", "(?=t)t", "[", "a{2000}"):
        with pytest.raises(HeartbeatRefused) as refused:
            topics.matching(wrong)
        assert refused.value.code is ErrorCode.INVALID_REGULAR_EXPRESSION


def test_what_patterns_matched_is_not_remembered_without_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert PATTERNS_MAX > 1
    monkeypatch.setattr("isthmus.broker.group_topics.PATTERNS_MAX", 2)
    room = ConsumerRoom()
    topics = GroupTopics(room.runtime, room.log)
    for pattern in ("a", "b", "t", "t"):
        found = topics.matching(pattern)
        assert len(topics._matched) <= 2
    assert found == {"t"}
