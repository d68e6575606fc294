"""The machine of the consumer protocol: who is told what, who is fenced, what is kept."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.kafka.consumer_room import KnownTopics, beat_of

from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.consumer_records import read_row, row_key, row_value
from isthmus.kafka.consumer_types import (
    GroupState,
    HeartbeatAnswer,
    HeartbeatRefused,
    KeptGroup,
    MemberState,
    Terms,
)
from isthmus.kafka.errors import ErrorCode

SESSION_MS, REVOKE_MS = 45_000, 60_000


class Room:
    """A group that reads log topics of which a test decides."""

    def __init__(self, *, members_max: int = 10, **terms: int) -> None:
        self.topics = KnownTopics(t=4, u=2)
        self.terms = Terms()._replace(**terms)
        self.group = ConsumerGroup(
            "g", self.topics, lambda _: self.terms, members_max=members_max
        )
        self.now = 0

    def beat(self, member_id: str, epoch: int, **changes: Any) -> HeartbeatAnswer:
        if "owned" in changes:
            changes["owned"] = self.places(*changes["owned"])
        return self.group.heartbeat(beat_of(member_id, epoch, **changes), self.now)

    def join(self, member_id: str, *names: str, **changes: Any) -> HeartbeatAnswer:
        said: dict[str, Any] = {
            "topic_names": frozenset(names or ("t",)),
            "rebalance_timeout_ms": REVOKE_MS,
            "owned": (),
            **changes,
        }
        return self.beat(member_id, 0, **said)

    def refused(self, member_id: str, epoch: int, **changes: Any) -> ErrorCode:
        before = self.rows()
        with pytest.raises(HeartbeatRefused) as refused:
            self.beat(member_id, epoch, **changes)
        assert self.rows() == before, "it changes nothing"
        return refused.value.code

    def places(self, *indexes: int) -> frozenset[tuple[bytes, int]]:
        return frozenset((self.topics.ids["t"], index) for index in indexes)

    def rows(self) -> dict[bytes, bytes | None]:
        return {row_key("g", row): row_value(row, 0) for row in self.group.all_rows()}

    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds
        due_ms = self.group.due_ms()
        if due_ms is not None and due_ms <= self.now:
            self.group.tick(self.now)


def indexes(answer: HeartbeatAnswer) -> list[int] | None:
    return None if answer.assigned is None else sorted(index for _, index in answer.assigned)


def two_members(**terms: int) -> Room:
    """Return a group of two, the second of which has what the first has given up."""
    room = Room(**terms)
    assert indexes(room.join("m1")) == [0, 1, 2, 3]
    joined = room.join("m2")
    assert (joined.epoch, indexes(joined)) == (3, []), "it waits for what the other has"
    told = room.beat("m1", 2, owned=(0, 1, 2, 3))
    assert (told.epoch, indexes(told)) == (2, [0, 1])
    assert indexes(room.beat("m2", 3)) is None
    assert room.group.state is GroupState.RECONCILING
    assert room.beat("m1", 2, owned=(0, 1)).epoch == 3
    assert indexes(room.beat("m2", 3)) == [2, 3]
    assert room.group.state is GroupState.STABLE
    return room


def test_partitions_are_given_up_before_they_are_given() -> None:
    room = two_members()
    room.beat("m1", -1)
    answer = room.beat("m2", 3)
    assert (answer.epoch, indexes(answer)) == (4, [0, 1, 2, 3])
    room.beat("m2", -1)
    assert room.group.state is GroupState.EMPTY
    assert room.group.due_ms() is None


def test_epochs_fence_who_does_not_know_them() -> None:
    room = two_members()
    assert room.refused("m1", 9) is ErrorCode.FENCED_MEMBER_EPOCH
    assert room.refused("m1", 1) is ErrorCode.FENCED_MEMBER_EPOCH
    assert room.refused("m9", 3) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.refused("m9", -1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.refused("m1", 2, owned=(0, 1, 2)) is ErrorCode.FENCED_MEMBER_EPOCH
    assert room.beat("m1", 2, owned=(0, 1)).epoch == 3, "the answer before was lost"


def test_who_comes_back_with_nothing_gets_its_share_again() -> None:
    room = two_members()
    answer = room.join("m1")
    assert (answer.epoch, indexes(answer)) == (3, [0, 1])


def test_a_full_heartbeat_is_told_all() -> None:
    room = two_members()
    full = {"topic_names": frozenset("t"), "rebalance_timeout_ms": REVOKE_MS}
    assert indexes(room.beat("m1", 3, owned=(0, 1), **full)) == [0, 1]
    assert indexes(room.beat("m1", 3, **full)) is None


def test_silence_ends_a_membership() -> None:
    room = two_members()
    room.advance(SESSION_MS - 1)
    room.beat("m1", 3)
    room.advance(1)
    assert room.refused("m2", 3) is ErrorCode.UNKNOWN_MEMBER_ID
    assert indexes(room.beat("m1", 3)) == [0, 1, 2, 3]


def test_who_does_not_give_up_in_time_is_put_out() -> None:
    room = Room(session_timeout_ms=10 * REVOKE_MS)
    room.join("m1")
    room.join("m2")
    room.beat("m1", 2, owned=(0, 1, 2, 3))
    for _ in range(2):
        room.advance(REVOKE_MS // 2)
        room.group.members and room.beat("m2", 3)
    assert room.refused("m1", 2) is ErrorCode.UNKNOWN_MEMBER_ID
    assert indexes(room.beat("m2", 4)) is None
    assert sorted(index for _, index in room.group.members["m2"].holding.assigned) == [
        0,
        1,
        2,
        3,
    ]


def test_what_a_member_no_longer_reads_is_taken_at_once() -> None:
    room = two_members()
    answer = room.beat("m1", 3, topic_names=frozenset("u"), owned=(0, 1))
    assert indexes(answer) == []
    assert room.group.members["m1"].holding.state is MemberState.UNREVOKED
    answer = room.beat("m1", 3, owned=())
    assert answer.assigned == {(room.topics.ids["u"], 0), (room.topics.ids["u"], 1)}


def test_log_topics_that_come_grow_and_go_are_assigned() -> None:
    room = Room()
    assert indexes(room.join("m1", "new")) == []
    room.topics.set(new=1)
    answer = room.beat("m1", 2)
    assert (answer.epoch, indexes(answer)) == (3, [0])
    room.topics.set(new=2)
    assert indexes(room.beat("m1", 3)) == [0, 1]
    room.topics.set()
    room.beat("m1", 4, owned=())
    assert not room.group.members["m1"].holding.assigned


def test_a_pattern_reads_what_it_matches() -> None:
    room = Room()
    answer = room.join("m1", topic_names=None, pattern="t|x.*")
    assert indexes(answer) == [0, 1, 2, 3]
    room.topics.set(t=4, xy=1)
    assert len(room.beat("m1", 2).assigned or ()) == 5
    assert room.group.subscribed() == {"t", "xy"}
    assert room.refused("m2", 0, pattern="[") is ErrorCode.INVALID_REGULAR_EXPRESSION
    room.beat("m1", 3, pattern="", topic_names=frozenset("t"), owned=(0,))
    assert room.group.subscribed() == {"t"}


def test_each_member_reads_by_a_pattern_what_it_may_know_of() -> None:
    room = Room()
    by_pattern: dict[str, Any] = {"topic_names": None, "pattern": "t|u"}

    def only(name: str) -> Any:
        return name.__eq__

    def held(member_id: str) -> set[str]:
        places = room.group.members[member_id].holding.assigned
        names = {topic_id: name for name, topic_id in room.topics.ids.items()}
        return {names[topic_id] for topic_id, _ in places}

    room.join("m1", **by_pattern, sees=only("t"))
    room.join("m2", **by_pattern, sees=only("u"))
    assert room.group.subscribed() == {"t", "u"}
    assert (held("m1"), held("m2")) == ({"t"}, {"u"})
    epoch = room.group.epoch
    room.beat("m2", 3, sees=only("u"))
    assert room.group.epoch == epoch, "it sees what it saw"
    epoch = room.beat("m2", 3).epoch  # everything, from now on
    assert epoch == room.group.epoch
    room.beat("m2", epoch, sees=only("none"), owned=())
    assert held("m2") == set()
    assert room.group.subscribed() == {"t"}


def test_what_members_may_know_of_stays_over_a_restart_until_they_are_heard() -> None:
    room = Room()
    room.join("m1", topic_names=None, pattern="t|u", sees="t".__eq__)
    room.join("m2", sees="t".__eq__)
    kept = KeptGroup()
    for row in room.group.all_rows():
        kept.take(row)
    room.group = ConsumerGroup("g", room.topics, lambda _: room.terms)
    room.group.restore(kept, room.now)
    epoch = room.group.epoch
    room.beat("m2", room.group.members["m2"].holding.epoch)
    assert room.group.subscribed() == {"t"}
    assert room.group.epoch == epoch
    room.beat("m1", room.group.members["m1"].holding.epoch)
    assert room.group.subscribed() == {"t", "u"}


def test_most_members_choose_the_assignor() -> None:
    room = Room()
    assert room.group.assignor == "uniform"
    room.join("m1", assignor="range")
    assert room.group.assignor == "range"


def test_the_number_of_members_is_limited() -> None:
    room = Room(members_max=1)
    room.join("m1")
    assert room.refused("m2", 0) is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert room.join("m1").epoch == 2


def test_assignments_are_no_closer_than_the_group_wants() -> None:
    room = Room(assignment_interval_ms=1_000)
    room.join("m1")
    answer = room.join("m2")
    assert (answer.epoch, indexes(answer)) == (2, [])
    assert room.group.state is GroupState.ASSIGNING
    room.advance(1_000)
    assert indexes(room.beat("m1", 2)) == [0, 1]


def test_a_static_member_leaves_and_its_place_is_kept() -> None:
    room = Room()
    static = {"instance_id": "i1"}
    room.join("m1", **static)
    assert room.refused("m2", 0, **static) is ErrorCode.UNRELEASED_INSTANCE_ID
    assert room.refused("m2", 2, **static) is ErrorCode.FENCED_INSTANCE_ID
    assert room.refused("m1", 2, instance_id="i9") is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.beat("m1", -2, **static).epoch == -2
    assert room.refused("m1", 2, **static) is ErrorCode.FENCED_MEMBER_EPOCH
    answer = room.join("m2", **static)
    assert (answer.epoch, indexes(answer)) == (2, [0, 1, 2, 3]), "no new assignment"
    assert room.refused("m1", -1, **static) is ErrorCode.FENCED_INSTANCE_ID
    assert [*room.group.members] == ["m2"]
    room.beat("m2", -1, **static)
    assert room.group.is_empty
    room.join("m3", **static)


def test_a_static_member_that_stays_away_is_put_out() -> None:
    room = Room()
    room.join("m1", instance_id="i1")
    room.beat("m1", -2, instance_id="i1")
    room.advance(SESSION_MS)
    assert room.group.is_empty


@pytest.mark.parametrize(
    ("member_id", "epoch", "index", "code"),
    [
        ("m1", 3, 9, ErrorCode.NONE),
        ("m1", 2, 0, ErrorCode.NONE),  # it has had it since then [KIP-1251]
        ("m2", 2, 2, ErrorCode.STALE_MEMBER_EPOCH),
        ("m1", 2, 2, ErrorCode.STALE_MEMBER_EPOCH),
        ("m1", 4, 0, ErrorCode.STALE_MEMBER_EPOCH),
        ("m9", 3, 0, ErrorCode.UNKNOWN_MEMBER_ID),
        ("", -1, 0, ErrorCode.UNKNOWN_MEMBER_ID),
    ],
)
def test_who_may_commit(member_id: str, epoch: int, index: int, code: ErrorCode) -> None:
    room = two_members()
    places = room.places(index)
    assert room.group.check_commit(member_id, None, epoch, 0, places=places) is code


def test_who_may_commit_to_an_empty_group_and_in_old_requests() -> None:
    room = Room()
    assert room.group.check_commit("", None, -1, 0) is ErrorCode.NONE
    room.join("m1")
    old = room.group.check_commit("m1", None, 2, 0, knows_epochs=False)
    assert old is ErrorCode.UNSUPPORTED_VERSION


def test_who_may_fetch_offsets() -> None:
    room = two_members()
    assert room.group.check_fetch(None, -1) is ErrorCode.NONE
    assert room.group.check_fetch("m1", 3) is ErrorCode.NONE
    assert room.group.check_fetch("m1", 2) is ErrorCode.STALE_MEMBER_EPOCH
    assert room.group.check_fetch("m9", 3) is ErrorCode.UNKNOWN_MEMBER_ID


def test_only_a_group_without_members_ends() -> None:
    room = Room()
    room.join("m1")
    assert room.group.delete() is ErrorCode.NON_EMPTY_GROUP
    room.beat("m1", -1)
    assert room.group.delete() is ErrorCode.NONE
    assert room.group.state is GroupState.DEAD
    assert room.group.delete() is ErrorCode.GROUP_ID_NOT_FOUND


def test_rows_that_were_not_stored_are_due_again() -> None:
    room = Room()
    room.join("m1")
    rows = room.group.take_unstored()
    assert room.group.take_unstored() == []
    room.group.store_again(rows)
    assert room.group.take_unstored() == rows


def test_a_log_topic_that_went_meanwhile_is_noticed_after_a_restart() -> None:
    room = Room()
    room.join("m1")
    kept = KeptGroup()
    for row in room.group.take_unstored():
        kept.take(row)
    room.topics.set()
    room.group = ConsumerGroup("g", room.topics, lambda _: room.terms)
    room.group.restore(kept, room.now)
    answer = room.beat("m1", 2, owned=())
    assert (answer.epoch, answer.assigned) == (3, frozenset())


def test_a_restart_goes_on_with_all_timeouts() -> None:
    room = Room(session_timeout_ms=10 * REVOKE_MS)
    room.join("m1", instance_id="i1")
    room.join("m2")
    room.beat("m1", 2, owned=(0, 1, 2, 3))
    kept = KeptGroup()
    for row in room.group.take_unstored():
        kept.take(read_row(row_key("g", row), row_value(row, 0))[1])
    before = room.rows()
    room.group = ConsumerGroup("g", room.topics, lambda _: room.terms)
    room.group.restore(kept, room.now)
    assert room.rows() == before
    assert room.refused("m3", 0, instance_id="i1") is ErrorCode.UNRELEASED_INSTANCE_ID
    room.advance(REVOKE_MS)
    assert [*room.group.members] == ["m2"], "what was to be given up still is"
