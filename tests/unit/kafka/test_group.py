"""The consumer group machine: who is answered what, and when."""

from __future__ import annotations

import pytest

from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group import NEW_MEMBER_JOIN_MS, Group
from isthmus.kafka.group_states import NEXT, Event, State
from isthmus.kafka.group_types import GroupSnapshot, Join, JoinAnswer, SyncAnswer

RANGE = (("range", b"r"),)


class Room:
    """A group, a clock, and the answers of its members' calls in order."""

    def __init__(self, *, initial_delay_ms: int = 0, members_max: int = 10) -> None:
        self.group = Group(initial_delay_ms=initial_delay_ms, members_max=members_max)
        self.now = 0
        self.fresh = 0
        self.joined: dict[str, list[JoinAnswer]] = {}
        self.synced: dict[str, list[SyncAnswer]] = {}
        self.stores = 0
        self.store_ok = True
        self.holding = False
        self.held: list = []

    def join(self, who: str, member_id: str = "", **changes) -> JoinAnswer | None:
        """Join as `who`; return the answer if it came at once."""
        known = {"instance_id", "rebalance_timeout_ms", "protocols", "protocol_type"}
        known |= {"needs_known_id", "can_skip_assignment", "session_timeout_ms"}
        assert changes.keys() <= known
        join = Join(member_id, None, who, "/127.0.0.1", 10_000, 60_000, "consumer", RANGE)
        self.fresh += 1
        answers = self.joined.setdefault(who, [])
        before = len(answers)
        self.group.join(join._replace(**changes), str(self.fresh), self.now, answers.append)
        self.store()
        return answers[-1] if len(answers) > before else None

    def sync(self, who: str, member_id: str, shares=(), **changes) -> SyncAnswer | None:
        answers = self.synced.setdefault(who, [])
        before = len(answers)
        self.group.sync(
            member_id,
            changes.get("instance_id"),
            changes.get("generation", self.group.generation),
            changes.get("protocol", (None, None)),
            shares,
            self.now,
            answers.append,
        )
        self.store()
        return answers[-1] if len(answers) > before else None

    def heartbeat(self, member_id: str, instance_id: str | None = None) -> ErrorCode:
        return self.group.heartbeat(member_id, instance_id, self.group.generation, self.now)

    def store(self) -> None:
        waiting = self.group.take_unstored()
        if waiting is None:
            return
        self.stores += 1
        self.group.snapshot()
        if self.holding:
            self.held += waiting
        else:
            self.release(waiting)

    def release(self, waiting: list | None = None) -> None:
        held, self.held = (self.held if waiting is None else waiting), []
        for call in held:
            call(self.now, self.store_ok)
        self.store()

    def advance(self, milliseconds: int) -> None:
        end = self.now + milliseconds
        while (due := self.group.due_ms()) is not None and due <= end:
            self.now = max(self.now, due)
            self.group.tick(self.now)
            self.store()
        self.now = end


def two_members(**changes) -> tuple[Room, str, str]:
    """Return a stable group of two; the first leads."""
    room = Room()
    one = room.join("one", **changes)
    assert one is not None
    assert one.leader == one.member_id
    room.sync("one", one.member_id, [(one.member_id, b"all")])
    assert room.join("two") is None, "waits for the other member"
    assert room.heartbeat(one.member_id) is ErrorCode.REBALANCE_IN_PROGRESS
    again = room.join("one", one.member_id, **changes)
    assert again is not None
    two = room.joined["two"][-1]
    assert again.generation == two.generation == 2
    assert again.leader == two.leader == one.member_id
    assert [member.member_id for member in again.members] == [one.member_id, two.member_id]
    assert two.members == ()
    assert room.sync("two", two.member_id) is None, "waits for the leader"
    shares = [(one.member_id, b"first"), (two.member_id, b"second")]
    assert room.sync("one", one.member_id, shares) == SyncAnswer(
        ErrorCode.NONE, "consumer", "range", b"first"
    )
    assert room.synced["two"][-1].assignment == b"second"
    assert room.group.state is State.STABLE
    return room, one.member_id, two.member_id


def test_every_state_of_the_table_is_reachable_and_dead_is_final() -> None:
    reached = {following for row in NEXT.values() for following in row.values()}
    assert reached == set(State)
    assert NEXT[State.DEAD] == {}
    assert {event for row in NEXT.values() for event in row} == set(Event)


def test_a_group_of_two_gets_its_shares_from_the_leader() -> None:
    room, one, two = two_members()
    assert room.heartbeat(one) is room.heartbeat(two) is ErrorCode.NONE


def test_the_first_join_without_an_id_only_gives_one() -> None:  # KIP-394
    room = Room()
    answer = room.join("one", needs_known_id=True)
    assert answer is not None
    assert answer.error is ErrorCode.MEMBER_ID_REQUIRED
    assert room.group.members == {}
    again = room.join("one", answer.member_id, needs_known_id=True)
    assert again is not None
    assert (again.error, again.member_id) == (ErrorCode.NONE, answer.member_id)


def test_a_member_id_that_was_given_and_never_used_lapses() -> None:
    room = Room()
    answer = room.join("one", needs_known_id=True)
    assert answer is not None
    room.advance(10_000)
    late = room.join("one", answer.member_id)
    assert late is not None
    assert late.error is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.group.due_ms() is None


def test_a_rebalance_waits_for_ids_that_were_given_out() -> None:
    room, one, two = two_members()
    given = room.join("three", needs_known_id=True)
    assert given is not None
    assert room.join("one", one) is None, "the leader asks for a rebalance"
    assert room.join("two", two) is None, "three was told to join and has not yet"
    assert room.join("three", given.member_id) is not None
    assert len(room.joined["one"][-1].members) == 3


def test_an_empty_group_waits_for_company() -> None:  # KIP-134
    room = Room(initial_delay_ms=3_000)
    assert room.join("one") is None
    room.advance(2_999)
    assert room.join("two") is None
    room.advance(1)
    assert room.group.state is State.PREPARING, "two came in the delay: wait once more"
    room.advance(3_000)
    assert room.group.state is State.COMPLETING
    assert room.group.generation == 1
    assert len(room.joined["one"][-1].members) == 2


def test_the_initial_delay_never_exceeds_the_rebalance_timeout() -> None:
    room = Room(initial_delay_ms=3_000)
    for number in range(3):
        room.join(str(number), rebalance_timeout_ms=5_000)
        room.advance(2_000)
    assert room.group.state is State.COMPLETING
    assert len(room.joined["0"][-1].members) == 3


def test_a_dynamic_member_that_does_not_come_back_is_left_out() -> None:
    room, one, two = two_members()
    room.join("three")
    room.join("one", one)
    for _ in range(7):
        room.advance(9_000)
        if room.group.state is State.PREPARING:
            room.heartbeat(two)
    assert room.group.state is State.COMPLETING
    assert two not in room.group.members
    assert room.heartbeat(two) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_silent_member_is_removed_and_the_rest_told() -> None:
    room, one, two = two_members()
    room.advance(6_000)
    room.heartbeat(one)
    room.advance(5_000)
    assert room.heartbeat(two) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.heartbeat(one) is ErrorCode.REBALANCE_IN_PROGRESS
    alone = room.join("one", one)
    assert alone is not None
    assert len(alone.members) == 1


def test_a_new_member_that_waits_for_its_first_answer_is_given_long() -> None:
    room, one, _ = two_members()
    room.join("three", session_timeout_ms=1_000, rebalance_timeout_ms=2 * NEW_MEMBER_JOIN_MS)
    for _ in range(NEW_MEMBER_JOIN_MS // 5_000):
        room.advance(5_000)
        room.heartbeat(one)
    assert room.joined["three"][-1].error is ErrorCode.UNKNOWN_MEMBER_ID


def test_members_that_wait_for_us_are_not_silent() -> None:
    room, one, _ = two_members()
    room.join("one", one, session_timeout_ms=1_000, rebalance_timeout_ms=40_000)
    room.advance(9_000)
    assert one in room.group.members


def test_a_member_that_never_syncs_is_expelled() -> None:
    room, one, two = two_members()
    room.join("two", two, protocols=(("range", b"new"),))
    room.join("one", one)
    assert room.group.state is State.COMPLETING
    room.sync("one", one, [(one, b"x")])
    for _ in range(12):
        room.advance(5_000)
        room.heartbeat(one)
        room.heartbeat(two)
    assert room.heartbeat(two) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.group.state is State.PREPARING


def test_the_last_one_to_leave_empties_the_group_and_that_is_stored() -> None:
    room, one, two = two_members()
    stores = room.stores
    assert room.group.leave(one, None, room.now) is ErrorCode.NONE
    room.join("two", two)
    assert room.group.leader == two
    assert room.group.leave(two, None, room.now) is ErrorCode.NONE
    room.store()
    assert room.group.state is State.EMPTY
    assert room.stores == stores + 1
    assert room.group.snapshot() == GroupSnapshot("consumer", 4, None, None, ())


def test_the_protocol_that_all_know_and_most_prefer_is_chosen() -> None:
    room = Room(initial_delay_ms=10)
    room.join("one", protocols=(("a", b""), ("b", b""), ("c", b"")))
    room.join("two", protocols=(("c", b""), ("b", b"2")))
    room.join("three", protocols=(("b", b"3"), ("c", b"")))
    room.advance(100)
    assert room.group.protocol_name in ("b", "c")
    assert {room.joined[who][-1].protocol_name for who in ("one", "two", "three")} == {
        room.group.protocol_name
    }
    alien = room.join("four", protocols=(("a", b""),))
    assert alien is not None
    assert alien.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    other_type = room.join("five", protocol_type="connect")
    assert other_type is not None
    assert other_type.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


@pytest.mark.parametrize("changes", [{"protocols": ()}, {"protocol_type": ""}])
def test_a_join_without_protocols_is_refused(changes: dict) -> None:
    answer = Room().join("one", **changes)
    assert answer is not None
    assert answer.error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_the_number_of_members_is_limited() -> None:
    room = Room(initial_delay_ms=10, members_max=2)
    room.join("one")
    room.join("two")
    answer = room.join("three")
    assert answer is not None
    assert answer.error is ErrorCode.GROUP_MAX_SIZE_REACHED


def test_a_lost_answer_is_given_again() -> None:
    room, one, two = two_members()
    follower = room.join("two", two)
    assert follower is not None
    assert (follower.error, follower.generation) == (ErrorCode.NONE, 2)
    assert room.group.state is State.STABLE
    assert room.join("one", one) is None, "but a leader that joins wants a rebalance"
    assert room.group.state is State.PREPARING
    room.join("two", two)
    leader = room.join("one", one)
    assert leader is not None
    assert len(leader.members) == 2, "missed before the assignment: all of it again"


def test_a_second_call_of_the_same_member_frees_the_first() -> None:
    room, one, two = two_members()
    room.join("one", one)
    room.join("one", one)
    assert room.joined["one"][-1].error is ErrorCode.REBALANCE_IN_PROGRESS
    room.join("two", two)
    assert room.joined["one"][-1].error is ErrorCode.NONE
    room.sync("two", two)
    room.sync("two", two)
    assert [answer.error for answer in room.synced["two"][-1:]] == [
        ErrorCode.REBALANCE_IN_PROGRESS
    ]


def test_nothing_is_assigned_before_it_is_stored() -> None:
    room = Room()
    one = room.join("one")
    assert one is not None
    room.holding = True
    assert room.sync("one", one.member_id, [(one.member_id, b"x")]) is None
    assert room.group.snapshot().members[0].assignment == b"x", "this is what is stored"
    room.release()
    assert room.synced["one"][-1].assignment == b"x"


def test_an_assignment_that_cannot_be_stored_starts_a_rebalance() -> None:
    room = Room()
    one = room.join("one")
    assert one is not None
    room.store_ok = False
    answer = room.sync("one", one.member_id, [(one.member_id, b"x")])
    assert answer is not None
    assert answer.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert room.heartbeat(one.member_id) is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_rebalance_overtakes_an_assignment_on_its_way_to_the_disk() -> None:
    room = Room()
    one = room.join("one")
    assert one is not None
    room.holding = True
    room.sync("one", one.member_id, [(one.member_id, b"old")])
    room.join("two")
    assert room.synced["one"][-1].error is ErrorCode.REBALANCE_IN_PROGRESS
    room.join("one", one.member_id)
    room.release()
    assert room.group.state is State.COMPLETING
    assert room.group.members[one.member_id].assignment == b""


def test_sync_is_refused_with_the_reason() -> None:
    room, one, two = two_members()
    assert room.sync("x", "nobody") == SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID)
    assert room.sync("two", two, generation=1) == SyncAnswer(ErrorCode.ILLEGAL_GENERATION)
    for wrong in (("connect", None), (None, "sticky")):
        refused = room.sync("two", two, protocol=wrong)
        assert refused == SyncAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    assert room.sync("two", two, protocol=("consumer", "range")) is not None
    room.join("one", one)
    assert room.sync("two", two) == SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)


def test_a_static_member_comes_back_without_a_rebalance() -> None:  # KIP-345
    room, one, two = two_members(instance_id="a")
    back = room.join("one", instance_id="a")
    assert back is not None
    assert back.error is ErrorCode.NONE
    assert back.member_id != one
    assert (back.generation, back.leader, back.members) == (2, one, ()), "it must not lead now"
    assert room.group.leader == back.member_id
    assert room.group.state is State.STABLE
    assert room.heartbeat(two) is ErrorCode.NONE
    assert room.heartbeat(one, "a") is ErrorCode.FENCED_INSTANCE_ID
    again = room.sync("one", back.member_id, instance_id="a")
    assert again is not None
    assert again.assignment == b"first"


def test_a_static_leader_that_understands_is_told_to_skip_assigning() -> None:  # KIP-814
    room, _, two = two_members(instance_id="a")
    back = room.join("one", instance_id="a", can_skip_assignment=True)
    assert back is not None
    assert back.skip_assignment
    assert back.leader == back.member_id
    assert [member.member_id for member in back.members] == [back.member_id, two]


def test_a_static_member_starts_a_rebalance_if_it_changes_the_protocol() -> None:
    room, _, _ = two_members(instance_id="a")
    assert (
        room.join("one", instance_id="a", protocols=(("new", b""), ("range", b""))) is not None
    )
    assert room.group.state is State.STABLE, "the same protocol is chosen as before"
    room = Room()
    both = (("a", b""), ("b", b""))
    one = room.join("one", instance_id="a", protocols=both)
    assert one is not None
    room.sync("one", one.member_id, [(one.member_id, b"x")])
    back = room.join("one", instance_id="a", protocols=both[1:])
    assert back is not None
    assert (back.generation, back.protocol_name) == (2, "b")


def test_a_static_member_that_cannot_be_stored_is_told_so() -> None:
    room, _, _ = two_members(instance_id="a")
    room.store_ok = False
    back = room.join("one", instance_id="a")
    assert back is not None
    assert back.error is ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_a_rebalance_overtakes_a_static_member_on_its_way_to_the_disk() -> None:
    room, _, two = two_members(instance_id="a")
    room.holding = True
    assert room.join("one", instance_id="a") is None
    room.join("two", two, protocols=(("range", b"new"),))
    room.release()
    back = room.joined["one"][-1]
    assert (back.error, back.generation) == (ErrorCode.NONE, 3)


def test_a_replaced_static_member_frees_the_calls_of_the_old_one() -> None:
    room = Room(initial_delay_ms=10)
    room.join("one", instance_id="a")
    room.join("late", instance_id="a")
    assert room.joined["one"][-1].error is ErrorCode.FENCED_INSTANCE_ID
    room.advance(100)
    assert room.joined["late"][-1].error is ErrorCode.NONE
    assert len(room.group.members) == 1


def test_static_members_survive_missing_one_rebalance() -> None:
    room, one, two = two_members(instance_id="a")
    room.join("three")
    room.join("two", two)
    for _ in range(13):
        room.advance(5_000)
        room.heartbeat(one, "a")
    assert room.group.state is State.COMPLETING
    assert one in room.group.members
    assert room.group.leader == two, "who did not come cannot lead"


def test_static_members_alone_and_silent_end_by_their_session() -> None:
    room = Room()
    one = room.join("one", instance_id="a")
    assert one is not None
    room.advance(10_001)
    assert room.group.state is State.EMPTY


def test_members_leave_by_id_or_by_instance() -> None:
    room, one, two = two_members(instance_id="a")
    assert room.group.leave("nobody", None, 0) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.group.leave("", "z", 0) is ErrorCode.UNKNOWN_MEMBER_ID
    assert room.group.leave(two, "a", 0) is ErrorCode.FENCED_INSTANCE_ID
    assert room.group.leave("", "a", 0) is ErrorCode.NONE
    assert room.group.leave(one, None, 0) is ErrorCode.UNKNOWN_MEMBER_ID
    given = room.join("three", needs_known_id=True)
    assert given is not None
    assert room.group.leave(given.member_id, None, 0) is ErrorCode.NONE


def test_who_may_commit_offsets() -> None:
    room = Room()
    check = room.group.check_commit
    assert check("", None, -1, 0) is ErrorCode.NONE, "no members: whoever asks"
    assert check("", None, 3, 0) is ErrorCode.UNKNOWN_MEMBER_ID
    one = room.join("one")
    assert one is not None
    assert check(one.member_id, None, 1, 0) is ErrorCode.REBALANCE_IN_PROGRESS
    room.sync("one", one.member_id)
    assert check(one.member_id, None, 1, 0) is ErrorCode.NONE
    assert check(one.member_id, None, 0, 0) is ErrorCode.ILLEGAL_GENERATION
    assert check("", None, -1, 0) is ErrorCode.UNKNOWN_MEMBER_ID
    assert check(one.member_id, "a", 1, 0) is ErrorCode.UNKNOWN_MEMBER_ID


def test_committing_is_a_sign_of_life() -> None:
    room, one, _ = two_members()
    room.advance(9_000)
    assert room.group.check_commit(one, None, 2, room.now) is ErrorCode.NONE
    room.advance(9_000)
    assert one in room.group.members


def test_only_a_group_without_members_can_be_deleted() -> None:
    room, one, two = two_members()
    assert room.group.delete() is ErrorCode.NON_EMPTY_GROUP
    room.group.leave(one, None, 0)
    room.group.leave(two, None, 0)
    assert room.group.delete() is ErrorCode.NONE
    assert room.group.delete() is ErrorCode.GROUP_ID_NOT_FOUND
    assert room.heartbeat(one) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    dead = room.join("three")
    assert dead is not None
    assert dead.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert room.group.leave("x", None, 0) is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert room.group.check_commit("", None, -1, 0) is ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_a_group_goes_on_after_a_restart() -> None:
    room, one, two = two_members(instance_id="a")
    other = Room()
    other.group.restore(room.group.snapshot(), 0)
    assert other.group.state is State.STABLE
    assert other.group.snapshot() == room.group.snapshot()
    assert other.heartbeat(two) is ErrorCode.NONE
    assert other.heartbeat(one, "a") is ErrorCode.NONE
    answer = other.sync("two", two)
    assert answer is not None
    assert answer.assignment == b"second"
    other.advance(10_000)
    assert other.group.state is State.EMPTY, "nobody called"


def test_an_empty_group_is_restored_empty() -> None:
    group = Group()
    group.restore(GroupSnapshot("consumer", 7, None, None, ()), 0)
    assert (group.state, group.generation, group.due_ms()) == (State.EMPTY, 7, None)
