"""Any history of a consumer group against a model: who must be answered, and with what.

The model knows nothing of states or timers. It knows the promises: each call is answered
exactly once; nobody waits for ever; a generation's members agree on leader and protocol; only
the leader gets the list; each gets the share that the leader gave it, and never another
generation's; a stored group is the same group.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group import Group
from isthmus.kafka.group_states import State
from isthmus.kafka.group_types import Join, JoinAnswer, SyncAnswer

CLIENTS = 5
SESSION_MS = 10_000
REBALANCE_MS = 30_000
PROTOCOLS = st.sampled_from(
    [(("a", b"1"),), (("a", b"2"), ("b", b"2")), (("b", b"3"), ("a", b"3"))]
)


class Client:
    """A consumer that does what its answers say; a call that waits blocks it."""

    def __init__(self, number: int, *, is_static: bool) -> None:
        self.name = f"c{number}"
        self.instance_id = f"s{number}" if is_static else None
        self.member_id = ""
        self.generation = -1
        self.answer: JoinAnswer | None = None  # of the join whose sync is still to come
        self.synced = False
        self.waiting: str | None = None
        self.since_ms = 0


class GroupMachine(RuleBasedStateMachine):
    """Clients come, work, fall silent and crash; the disk is slow and sometimes full."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.fresh = 0
        self.group = Group(initial_delay_ms=3_000)
        self.clients = [Client(number, is_static=number < 2) for number in range(CLIENTS)]
        self.unstored: list = []
        self.generations: dict[int, tuple[str, str | None]] = {}
        self.shares: dict[tuple[int, str], bytes] = {}
        self.leaders: dict[int, str] = {}

    def gather(self) -> None:
        waiting = self.group.take_unstored()
        if waiting is not None:
            self.unstored += waiting

    # --- what happens -------------------------------------------------------------------------

    @rule(number=st.integers(0, CLIENTS - 1), protocols=PROTOCOLS, first=st.booleans())
    def join(self, number: int, protocols: tuple, first: bool) -> None:
        client = self.clients[number]
        if client.waiting is not None:
            return
        client.waiting, client.since_ms, client.answer = "join", self.now, None
        call = client
        self.fresh += 1

        def reply(answer: JoinAnswer) -> None:
            assert self.clients[number] is not call or call.waiting == "join", "answered twice"
            call.waiting = None
            self.joined(call, answer)

        join = Join(
            client.member_id,
            client.instance_id,
            client.name,
            "/host",
            SESSION_MS,
            REBALANCE_MS,
            "consumer",
            protocols,
            needs_known_id=first,
        )
        self.group.join(join, str(self.fresh), self.now, reply)
        self.gather()

    def joined(self, client: Client, answer: JoinAnswer) -> None:
        if answer.error is ErrorCode.MEMBER_ID_REQUIRED:
            assert client.instance_id is None
            client.member_id = answer.member_id
        elif answer.error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            client.member_id = ""
        elif answer.error is ErrorCode.NONE:
            client.member_id, client.generation = answer.member_id, answer.generation
            client.answer, client.synced = answer, False
            agreed = self.generations.setdefault(
                answer.generation,
                (self.leaders.get(answer.generation, ""), answer.protocol_name),
            )
            assert agreed[1] == answer.protocol_name
            if answer.members:
                assert answer.leader == answer.member_id
                names = [member.member_id for member in answer.members]
                assert len(set(names)) == len(names)
                assert answer.member_id in names

    @rule(number=st.integers(0, CLIENTS - 1), salt=st.integers(0, 9))
    def sync(self, number: int, salt: int) -> None:
        client = self.clients[number]
        if client.waiting is not None or client.answer is None:
            return
        answer, generation = client.answer, client.generation
        shares = []
        if answer.members and (generation not in self.leaders):
            self.leaders[generation] = client.member_id
            for member in answer.members:
                share = f"{generation}:{member.member_id}:{salt}".encode()
                shares.append((member.member_id, share))
                self.shares[generation, member.member_id] = share
        elif answer.members:
            return  # this leader has handed in its shares; it would not do so again
        client.waiting, client.since_ms = "sync", self.now
        member_id = client.member_id

        def reply(synced: SyncAnswer) -> None:
            assert client.waiting == "sync", "answered twice"
            client.waiting = None
            if synced.error is ErrorCode.NONE:
                client.synced = True
                if synced.assignment:
                    # A static member keeps the share it had under its former member id.
                    given = [
                        share
                        for (of, name), share in self.shares.items()
                        if of == generation and (name == member_id or client.instance_id)
                    ]
                    assert synced.assignment in given
            elif synced.error is ErrorCode.UNKNOWN_MEMBER_ID:
                client.member_id = ""

        self.group.sync(
            member_id,
            client.instance_id,
            generation,
            ("consumer", answer.protocol_name),
            shares,
            self.now,
            reply,
        )
        self.gather()

    @rule(number=st.integers(0, CLIENTS - 1))
    def heartbeat(self, number: int) -> None:
        client = self.clients[number]
        if client.waiting is not None:
            return
        error = self.group.heartbeat(
            client.member_id, client.instance_id, client.generation, self.now
        )
        if error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            client.member_id = ""
        elif error is ErrorCode.NONE:
            assert client.member_id in self.group.members
            assert client.generation == self.group.generation

    @rule(number=st.integers(0, CLIENTS - 1))
    def leave(self, number: int) -> None:
        client = self.clients[number]
        if client.waiting is None and client.member_id:
            self.group.leave(client.member_id, client.instance_id, self.now)
            self.gather()
            assert client.member_id not in self.group.members or client.instance_id
            client.member_id, client.answer = "", None

    @rule(number=st.integers(0, CLIENTS - 1))
    def crash(self, number: int) -> None:
        """The client is gone; another process of the same name may come."""
        self.clients[number] = Client(number, is_static=number < 2)

    @rule(milliseconds=st.sampled_from([10, 1_000, 4_000, 11_000, 31_000]))
    def time_passes(self, milliseconds: int) -> None:
        end = self.now + milliseconds
        while (due := self.group.due_ms()) is not None and due <= end:
            assert due >= self.now or self.group.due_ms() is not None
            self.now = max(self.now, due)
            self.group.tick(self.now)
            self.gather()
            following = self.group.due_ms()
            assert following is None or following > self.now, "time stands still"
        self.now = end

    @precondition(lambda self: self.unstored)
    @rule(ok=st.sampled_from([True, True, True, False]))
    def stored(self, ok: bool) -> None:
        waiting, self.unstored = self.unstored, []
        for call in waiting:
            call(self.now, ok)
        self.gather()

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        longest_ms = 300_000 + 2 * REBALANCE_MS
        for client in self.clients:
            if client.waiting == "join":
                assert self.now - client.since_ms <= longest_ms or self.unstored
            elif client.waiting == "sync":
                assert self.now - client.since_ms <= 2 * REBALANCE_MS or self.unstored

    @invariant()
    def who_waits_is_known(self) -> None:
        waiting = {one.join_reply is not None for one in self.group.members.values()}
        if self.group.state in (State.EMPTY, State.DEAD):
            assert not self.group.members
        if self.group.state is State.STABLE:
            assert not any(one.sync_reply for one in self.group.members.values())
        if True in waiting:
            assert self.group.state in (State.PREPARING, State.STABLE)

    @invariant()
    def something_always_moves_a_rebalance(self) -> None:
        if self.group.state in (State.PREPARING, State.COMPLETING):
            assert self.group.due_ms() is not None or self.unstored

    @invariant()
    def a_stored_group_is_the_same_group(self) -> None:
        if self.group.state is not State.STABLE:
            return
        kept = self.group.snapshot()
        other = Group()
        other.restore(kept, self.now)
        assert other.snapshot() == kept
        for member in kept.members:
            assert (
                other.heartbeat(member.member_id, member.instance_id, kept.generation, self.now)
                is ErrorCode.NONE
            )


TestGroupMachine = GroupMachine.TestCase
TestGroupMachine.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
