"""Members of the consumer protocol come, go, die and change their minds, in any order.

The clients here do as real ones: they give up what is no longer theirs before they say so, and
take what is new only afterwards. Some are of the classic protocol, eager or cooperative.
Answers get lost, partitions and log topics come and go.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.kafka.consumer_room import KnownTopics, beat_of

from isthmus.kafka import classic_members
from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.consumer_protocol import read_assignment
from isthmus.kafka.consumer_records import read_row, row_key, row_value
from isthmus.kafka.consumer_types import GroupState, HeartbeatRefused, KeptGroup, Terms
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.frames import encode_prefixed
from isthmus.kafka.group_types import Join

TERMS = Terms(session_timeout_ms=10_000, heartbeat_interval_ms=1_000)
REJOIN = {ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.UNKNOWN_MEMBER_ID}


def encoded(group: ConsumerGroup) -> dict[bytes, bytes | None]:
    return {row_key("g", row): row_value(row, 1) for row in group.all_rows()}


class Client:
    """A consumer: what it was told, what it works on, what it has not done yet."""

    def __init__(self, name: str, topic_names: frozenset[str], assignor: str | None) -> None:
        self.name = name
        self.topic_names = topic_names
        self.assignor = assignor
        self.epoch = 0
        self.owned: frozenset[Any] = frozenset()
        self.target: frozenset[Any] = frozenset()

    def work(self) -> None:
        """Give up, or take what is new where there is nothing to give up."""
        if self.owned <= self.target:
            self.owned = self.target
        else:
            self.owned &= self.target

    def start_over(self) -> None:
        self.epoch, self.owned, self.target = 0, frozenset(), frozenset()

    def call(self, group: ConsumerGroup, now: int, *, is_lost: bool) -> None:
        """Send a heartbeat, and take in its answer where that comes."""
        beat = beat_of(
            self.name,
            self.epoch,
            topic_names=self.topic_names,
            assignor=self.assignor,
            owned=self.owned,
            rebalance_timeout_ms=5_000,
        )
        try:
            answer = group.heartbeat(beat, now)
        except HeartbeatRefused as refused:
            assert refused.code in REJOIN
            self.start_over()
            return
        if not is_lost:
            self.epoch = answer.epoch
            assert answer.assigned is not None, "it has said all"
            self.target = answer.assigned

    def leave(self, group: ConsumerGroup, now: int) -> None:
        if self.epoch > 0:
            group.heartbeat(beat_of(self.name, -1), now)


class ClassicClient(Client):
    """One of the classic protocol; with the assignor `range` it gives up all it has first."""

    def __init__(self, name: str, topic_names: frozenset[str], assignor: str | None) -> None:
        super().__init__(name, topic_names, assignor)
        self.next = "join"
        self.subscribed = topic_names

    def work(self) -> None:
        """It works on what it is given as soon as that comes."""

    def start_over(self) -> None:
        super().start_over()
        self.next = "join"

    def call(self, group: ConsumerGroup, now: int, *, is_lost: bool) -> None:
        identity = (self.name, None, self.epoch)
        if self.next == "join":
            self._join(group, now, is_lost=is_lost)
        elif self.next == "sync":
            answer = classic_members.sync(group, identity, ("consumer", "p"), now)
            if self._goes_on(answer.error) and not is_lost:
                self._take(group, answer.assignment)
        else:
            goes_on = self._goes_on(classic_members.heartbeat(group, identity, now))
            if goes_on and self.topic_names != self.subscribed:
                self.next = "join"

    def _metadata(self, group: ConsumerGroup) -> bytes:
        owned = group.by_name(self.owned)
        body = {
            "topics": sorted(self.topic_names),
            "owned_partitions": [
                {"topic": name, "partitions": rows} for name, rows in owned.items()
            ],
            "generation_id": self.epoch or -1,
        }
        return encode_prefixed("ConsumerProtocolSubscription", 2, body)

    def _join(self, group: ConsumerGroup, now: int, *, is_lost: bool) -> None:
        if self.assignor == "range":
            self.owned = frozenset()
        protocols = (("p", self._metadata(group)),)
        join = Join(self.name, None, "c", "/h", 10_000, 5_000, "consumer", protocols)
        answer = classic_members.join(group, join, "fresh", now)
        assert answer.error is ErrorCode.NONE
        if not is_lost:
            self.subscribed = self.topic_names
            self.epoch, self.next = answer.generation, "sync"

    def _goes_on(self, error: ErrorCode) -> bool:
        if error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.next = "join"
        elif error:
            assert error in {ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION}
            self.start_over()
        return not error

    def _take(self, group: ConsumerGroup, assignment: bytes) -> None:
        given = read_assignment(assignment)
        assert given is not None
        target = group.reads.places(given)
        self.next = "heartbeat" if self.owned <= target else "join"
        self.owned = target

    def leave(self, group: ConsumerGroup, now: int) -> None:
        classic_members.leave(group, self.name, None)


class ConsumerGroupMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.topics = KnownTopics(a=3, b=2)
        self.group = ConsumerGroup("g", self.topics, lambda _: TERMS)
        self.now = 0
        self.clients: list[Client] = []
        self.records: list[tuple[bytes, bytes | None]] = []
        self.epochs = (0, 0)
        self.number = 0

    # --- what happens -------------------------------------------------------------------------

    @precondition(lambda self: len(self.clients) < 4)
    @rule(
        topic_names=st.frozensets(st.sampled_from("abc")),
        assignor=st.sampled_from([None, "range", "uniform"]),
        kind=st.sampled_from([Client, Client, ClassicClient]),
    )
    def come(
        self, topic_names: frozenset[str], assignor: str | None, kind: type[Client]
    ) -> None:
        self.number += 1
        client = kind(f"m{self.number}", topic_names, assignor)
        self.clients.append(client)
        self.beat(client)

    @precondition(lambda self: self.clients)
    @rule(
        data=st.data(), works=st.booleans(), is_lost=st.booleans(), wait_ms=st.integers(0, 3000)
    )
    def go_on(self, data: st.DataObject, *, works: bool, is_lost: bool, wait_ms: int) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self.pass_by(wait_ms)
        if works:
            client.work()
        self.beat(client, is_lost=is_lost)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), topic_names=st.frozensets(st.sampled_from("abc")))
    def change(self, data: st.DataObject, topic_names: frozenset[str]) -> None:
        client = data.draw(st.sampled_from(self.clients))
        client.topic_names = topic_names
        self.beat(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), says_so=st.booleans())
    def go(self, data: st.DataObject, *, says_so: bool) -> None:
        client = data.draw(st.sampled_from(self.clients))
        self.clients.remove(client)
        if says_so and client.name in self.group.members:
            client.leave(self.group, self.now)
            self.store()

    @rule(counts=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)))
    def other_topics(self, counts: dict[str, int]) -> None:
        self.topics.set(**counts)

    @rule()
    def restart(self) -> None:
        self.group = self.restored()

    # --- what holds ---------------------------------------------------------------------------

    @invariant()
    def nothing_is_held_twice(self) -> None:
        members = self.group.members.values()
        held = [place for one in members for place in one.holding.all_places]
        assert len(held) == len(set(held))
        owned = [
            place
            for client in self.clients
            if client.name in self.group.members
            for place in client.owned
        ]
        assert len(owned) == len(set(owned)), "two clients work on one partition"

    @invariant()
    def epochs_only_grow(self) -> None:
        now = (self.group.epoch, self.group.target_epoch)
        assert now >= self.epochs and self.group.target_epoch <= self.group.epoch
        self.epochs = now

    @invariant()
    def a_restart_knows_the_same(self) -> None:
        assert encoded(self.restored()) == encoded(self.group)

    def teardown(self) -> None:
        """In the end every partition that anybody reads has one who works on it."""
        for _ in range(100):
            for client in self.clients:
                client.work()
                self.beat(client)
            self.pass_by(200)
        wanted = {
            (self.topics.ids[name], index)
            for client in self.clients
            for name in client.topic_names & self.topics.ids.keys()
            for index in range(self.topics.counts[name])
        }
        owned = [place for client in self.clients for place in client.owned]
        assert sorted(owned) == sorted(wanted)
        for client in self.clients:
            read = {self.topics.ids.get(name) for name in client.topic_names}
            assert {place[0] for place in client.owned} <= read
        assert self.group.state is (GroupState.STABLE if self.clients else GroupState.EMPTY)

    # --- how ----------------------------------------------------------------------------------

    def beat(self, client: Client, *, is_lost: bool = False) -> None:
        client.call(self.group, self.now, is_lost=is_lost)
        self.store()

    def pass_by(self, milliseconds: int) -> None:
        self.now += milliseconds
        due_ms = self.group.due_ms()
        if due_ms is not None and due_ms <= self.now:
            self.group.tick(self.now)
            self.store()
            for client in self.clients:
                if client.name not in self.group.members:
                    client.start_over()  # its own clock has told it

    def store(self) -> None:
        for row in self.group.take_unstored():
            self.records.append((row_key("g", row), row_value(row, 1)))

    def restored(self) -> ConsumerGroup:
        kept = KeptGroup()
        for key, value in self.records:
            group, row = read_row(key, value)
            assert group == ("g", "consumer")
            kept.take(row)
        group = ConsumerGroup("g", self.topics, lambda _: TERMS)
        group.restore(kept, self.now)
        return group


ConsumerGroupMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None
)
TestConsumerGroup = ConsumerGroupMachine.TestCase
