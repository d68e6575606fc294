"""Groups whose members change, one by one, from one protocol to the other and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.group_room import ConsumerRoom, reading

from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.consumer_protocol import read_assignment, write_assignment
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.frames import encode_prefixed
from isthmus.kafka.group import Group
from isthmus.kafka.group_states import State

if TYPE_CHECKING:
    from isthmus.kafka.group_types import JoinAnswer, SyncAnswer


class MixedRoom(ConsumerRoom):
    """A group with members of both kinds."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.answers: dict[str, list[JoinAnswer]] = {}

    def enter_classic(
        self,
        member_id: str = "",
        owned: tuple[int, ...] = (),
        generation: int = -1,
        **more: Any,
    ) -> JoinAnswer:
        body = {
            "topics": ["t"],
            "owned_partitions": [{"topic": "t", "partitions": [*owned]}],
            "generation_id": generation,
        }
        metadata = encode_prefixed("ConsumerProtocolSubscription", 2, body)
        more.setdefault("protocols", (("range", metadata),))
        return self.join(member_id=member_id, **more)

    def share(
        self, member: JoinAnswer, instance_id: str | None = None
    ) -> list[int] | ErrorCode:
        """Sync, and return what the member is given."""
        answers: list[SyncAnswer] = []
        identity = (member.member_id, instance_id, member.generation)
        self.table.sync("g", identity, ("consumer", "range"), [], answers.append)
        self.runtime.settle()
        (answer,) = answers
        given = read_assignment(answer.assignment)
        assert given is not None
        return answer.error or given.get("t", [])

    def tells(self, member: JoinAnswer) -> ErrorCode:
        return self.table.heartbeat("g", (member.member_id, None, member.generation))

    def stable_classic(self) -> JoinAnswer:
        """Return a member of a classic group that has both partitions."""
        member = self.join(protocols=(("range", reading("t")), ("sticky", reading("t"))))
        share = write_assignment({"t": [0, 1]}, reading("t"))
        answers: list[SyncAnswer] = []
        identity = (member.member_id, None, member.generation)
        shares = [(member.member_id, share)]
        self.table.sync("g", identity, (None, None), shares, answers.append)
        self.runtime.settle()
        return member


def upgraded() -> tuple[MixedRoom, JoinAnswer]:
    """Return a group with one member of each kind, each with a partition."""
    room = MixedRoom()
    old = room.stable_classic()
    answer = room.enter("m1")
    assert (answer.epoch, answer.assigned) == (2, frozenset()), "the other has all"
    assert room.tells(old) is ErrorCode.REBALANCE_IN_PROGRESS
    old = room.enter_classic(old.member_id)
    assert (old.error, old.generation, old.leader, old.members) == (ErrorCode.NONE, 2, "", ())
    assert room.share(old) == [0]
    assert room.tells(old) is ErrorCode.NONE
    answer = room.beat("m1", 2)
    assert {index for _, index in answer.assigned} == {1}
    return room, old


def test_the_first_new_member_takes_the_group_over() -> None:
    room, old = upgraded()
    assert room.commit("g", 1, (old.member_id, None, 2)) is ErrorCode.NONE
    assert room.commit("g", 1, (old.member_id, None, 1)) is ErrorCode.ILLEGAL_GENERATION
    assert room.offsets.committed("g", old.member_id, 1) is ErrorCode.ILLEGAL_GENERATION
    for _ in range(2):
        room.restart()
        assert len(room.group().members) == 2
        assert room.share(old) == [0], "also who syncs before anybody calls"
        assert room.tells(old) is ErrorCode.NONE
        assert room.beat("m1", 2).epoch == 2


def test_when_the_last_new_member_goes_the_group_is_classic_again() -> None:
    room, old = upgraded()
    assert room.beat("m1", -1).epoch == -1
    group = room.table.described("g")
    assert isinstance(group, Group)
    assert group.state is State.PREPARING
    assert room.tells(old) is not ErrorCode.NONE
    again = room.join(member_id=old.member_id, protocols=(("range", reading("t")),))
    assert (again.generation, again.leader) == (4, old.member_id)
    room.restart()
    assert isinstance(room.table.described("g"), Group)


def test_a_new_member_that_dies_leaves_a_classic_group() -> None:
    room, old = upgraded()
    for _ in range(6):
        room.runtime.advance(8_000)
        room.tells(old)
    assert isinstance(room.table.described("g"), Group)


def test_a_cooperative_member_keeps_what_it_does_not_lose() -> None:
    room = MixedRoom()
    room.enter("m1")
    joined = room.enter_classic()
    assert room.share(joined) == []
    room.beat("m1", 2, owned=room.group().members["m1"].holding.assigned.keys())
    room.beat("m1", 2, owned=frozenset({(room.topic.topic_id, 0)}))
    assert room.tells(joined) is ErrorCode.REBALANCE_IN_PROGRESS, "something became free"
    joined = room.enter_classic(joined.member_id, (), joined.generation)
    assert room.share(joined) == [1]


def test_a_cooperative_member_gives_up_in_two_joins() -> None:
    room, old = upgraded()
    old = room.enter_classic(old.member_id, (0,), old.generation)
    room.enter("m2")
    assert room.tells(old) is ErrorCode.REBALANCE_IN_PROGRESS
    target = room.group().targets[old.member_id]
    old = room.enter_classic(old.member_id, (0,), old.generation)
    kept = sorted(index for _, index in target)
    assert room.share(old) == kept
    if not kept:
        assert room.tells(old) is ErrorCode.REBALANCE_IN_PROGRESS
        old = room.enter_classic(old.member_id, (), old.generation)
        assert room.share(old) == []
    assert room.tells(old) is ErrorCode.NONE


def test_who_does_not_join_or_sync_in_time_is_put_out() -> None:
    room, old = upgraded()
    room.enter("m2")
    assert room.tells(old) is ErrorCode.REBALANCE_IN_PROGRESS
    for _ in range(8):
        room.runtime.advance(8_000)
        room.tells(old)
        for name in ("m1", "m2"):
            member = room.group().members[name]
            room.beat(name, member.holding.epoch)
    assert room.tells(old) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_classic_member_notices_log_topics_that_come() -> None:
    room = MixedRoom(migration="upgrade")
    room.enter("m1")
    body = {"topics": ["t", "later"]}
    metadata = encode_prefixed("ConsumerProtocolSubscription", 1, body)
    member = room.enter_classic(protocols=(("range", metadata),))
    room.beat("m1", -1)
    member = room.enter_classic(member.member_id, protocols=(("range", metadata),))
    assert room.tells(member) is ErrorCode.NONE
    room.log.create("later", 1, {})
    assert room.tells(member) is ErrorCode.REBALANCE_IN_PROGRESS
    assert room.group().epoch > member.generation
    epoch = room.group().epoch
    room.runtime.settle()
    room.restart()
    assert room.group().epoch == epoch, "it is kept, too"


def test_members_of_the_classic_protocol_are_told_what_they_may_not() -> None:
    room = MixedRoom()
    room.enter("m1")
    wrong = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert room.enter_classic(protocol_type="connect").error is wrong
    assert room.enter_classic(protocols=()).error is wrong
    assert room.enter_classic(protocols=(("range", b"?"),)).error is wrong
    given = room.enter_classic(needs_known_id=True)
    assert given.error is ErrorCode.MEMBER_ID_REQUIRED
    member = room.enter_classic(given.member_id, needs_known_id=True)
    assert member.error is ErrorCode.NONE
    assert room.enter_classic(protocols=(("other", reading("t")),)).error is wrong
    stale = member._replace(generation=1)
    assert room.share(stale) is ErrorCode.ILLEGAL_GENERATION
    assert room.tells(stale) is ErrorCode.ILLEGAL_GENERATION
    assert room.share(member._replace(member_id="x")) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.share(member._replace(member_id="m1")) is ErrorCode.UNKNOWN_MEMBER_ID
    answers: list[SyncAnswer] = []
    identity = (member.member_id, None, member.generation)
    room.table.sync("g", identity, ("consumer", "other"), [], answers.append)
    assert answers[0].error is wrong
    codes = room.leave("g", [("x", None), ("m1", None), (member.member_id, None)])
    unknown = ErrorCode.UNKNOWN_MEMBER_ID
    assert codes == [unknown, unknown, ErrorCode.NONE]


def test_static_members_of_the_classic_protocol() -> None:
    room = MixedRoom()
    room.enter("m1")
    first = room.enter_classic(instance_id="i1")
    assert room.enter_classic("other", instance_id="i1").error is ErrorCode.FENCED_INSTANCE_ID
    assert room.enter_classic("x", instance_id="i9").error is ErrorCode.UNKNOWN_MEMBER_ID
    second = room.enter_classic(instance_id="i1")
    assert second.member_id != first.member_id
    assert len(room.group().members) == 2
    assert room.share(first, "i1") is ErrorCode.FENCED_INSTANCE_ID
    assert room.share(second, "i9") is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.share(second, "i1") == []
    new = room.enter("m2", instance_id="i1")
    assert new.member_id == "m2", "it takes the place over, in the new protocol"
    assert room.leave("g", [("", "i1"), ("", "i9")]) == [
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
    ]


def test_a_full_group_takes_no_classic_member_either() -> None:
    room = MixedRoom(members_max=1)
    room.enter("m1")
    assert room.enter_classic().error is ErrorCode.GROUP_MAX_SIZE_REACHED


@pytest.mark.parametrize("policy", ["disabled", "downgrade"])
def test_an_upgrade_has_to_be_allowed(policy: str) -> None:
    room = MixedRoom(migration=policy)
    old = room.stable_classic()
    assert room.enter("m1").code is ErrorCode.GROUP_ID_NOT_FOUND
    assert room.tells(old) is ErrorCode.NONE


def test_a_downgrade_has_to_be_allowed() -> None:
    room = MixedRoom(migration="upgrade")
    room.enter("m1")
    old = room.enter_classic()
    room.beat("m1", -1)
    assert isinstance(room.table.described("g"), ConsumerGroup)
    assert room.tells(old) is ErrorCode.REBALANCE_IN_PROGRESS


@pytest.mark.parametrize(("metadata", "kind"), [(b"?", "consumer"), (b"", "connect")])
def test_a_group_that_is_not_understood_stays_classic(metadata: bytes, kind: str) -> None:
    room = MixedRoom()
    member = room.join(protocols=(("range", metadata),), protocol_type=kind)
    room.sync(member)
    assert room.enter("m1").code is ErrorCode.GROUP_ID_NOT_FOUND
    assert room.tells(member) is ErrorCode.NONE


def test_who_waits_in_a_classic_group_joins_the_new_one() -> None:
    room = MixedRoom()
    room.stable_classic()
    waiting: list[JoinAnswer] = []
    join = room.joining(protocols=(("range", reading("t")),))
    room.table.join("g", join, waiting.append)
    room.enter("m1")
    assert [answer.error for answer in waiting] == [ErrorCode.REBALANCE_IN_PROGRESS]
    assert len(room.group().members) == 3
