"""All consumer groups: their machines, their timers, and what is kept of them.

A group is a `Group` machine plus the offsets it has committed. Both are kept in the log
(state_log.py), and nothing is answered before its record is durable. At the start the records
are read once; until that is done every request is told so, and its client tries again.

Not here: what is done with offsets (group_offsets.py), the rules of the protocol
(kafka/group.py), its wire form (server/kafka_api/groups.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

from isthmus.broker.group_topics import GroupTopics
from isthmus.broker.pending_offsets import PendingOffsets
from isthmus.broker.state_log import StateLog
from isthmus.errors import Malformed
from isthmus.kafka import classic_members
from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.consumer_records import is_row, read_row, row_key, row_value
from isthmus.kafka.consumer_types import KeptGroup, Terms
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group import Group
from isthmus.kafka.group_records import (
    GROUPS_CONFIGS,
    GROUPS_LOG_TOPIC,
    CommittedOffset,
    OffsetKey,
    StoredGroup,
    group_key,
    group_value,
    offset_key,
    read_group,
    read_key,
    read_offset,
)
from isthmus.kafka.group_states import State
from isthmus.kafka.group_types import JoinAnswer, SyncAnswer
from isthmus.kafka.share_group import ShareGroup
from isthmus.kafka.transaction import NO_PRODUCER_ID
from isthmus.record.markers import read_marker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from isthmus.broker.appends import Appends
    from isthmus.broker.pending_offsets import Held
    from isthmus.broker.state_log import Rows
    from isthmus.kafka.group_types import Join
    from isthmus.kafka.transaction import Producer
    from isthmus.record.batch import Record, RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

logger = logging.getLogger(__name__)

Place = tuple[str, int]  # log topic and partition
AnyGroup: TypeAlias = Group | ConsumerGroup


class StoredState:
    """One group with all that belongs to it."""

    __slots__ = (
        "after",
        "cancel_timer",
        "gone",
        "group",
        "group_id",
        "offsets",
        "since_ms",
        "timer_due_ms",
        "when_written",
        "writing",
    )

    def __init__(self, group_id: str, group: AnyGroup, now_ms: int) -> None:
        self.group_id = group_id
        self.group = group
        self.offsets: dict[Place, CommittedOffset] = {}
        self.since_ms = now_ms  # wall clock: stored last, or made
        self.timer_due_ms: int | None = None
        self.cancel_timer: Callable[[], None] | None = None
        self.writing = 0  # records on their way to the disk, or in an open transaction
        self.when_written: list[Callable[[], None]] = []
        self.gone: Rows = []  # of the group that was here, due with the first of the new one
        # Who is answered when the newest rows of a ConsumerGroup are durable; None: they are.
        self.after: list[Callable[[ErrorCode], None]] | None = None

    @property
    def is_blank(self) -> bool:
        """Whether nothing would be lost with it."""
        return (
            isinstance(self.group, Group)
            and self.group.state is State.EMPTY
            and not (self.group.protocol_type or self.offsets or self.writing or self.gone)
            and self.group.due_ms() is None
        )


class GroupTable:
    """Finds groups, drives their timers and stores what they say must be stored."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        appends: Appends,
        *,
        initial_delay_ms: int = 500,
        members_max: int = 10_000,
        share_members_max: int = 200,
        groups_max: int = 100_000,
        partitions: int = 1,
        terms: Callable[[str], Terms] = lambda _: Terms(),
        share_terms: Callable[[str], Terms] = lambda _: Terms(),
        migration: str = "bidirectional",
        dropped: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Read back the groups; `terms` are those of groups that have members with epochs.

        `dropped` is told which group is no more.
        """
        self._runtime = runtime
        self._log = log
        self._appends = appends
        self._initial_delay_ms = initial_delay_ms
        self._members_max = members_max
        self._groups_max = groups_max
        self._share_members_max = share_members_max
        self._terms = terms
        self._share_terms = share_terms
        self._dropped = dropped
        self._upgrades = migration in ("bidirectional", "upgrade")
        self._downgrades = migration in ("bidirectional", "downgrade")
        self._topics = GroupTopics(runtime, log)
        self.states: dict[str, StoredState] = {}
        self.pending = PendingOffsets()
        self._rows: dict[tuple[str, str], KeptGroup] = {}  # by id and kind
        self._found: dict[str, StoredGroup] = {}
        self._is_loading = True
        self.kept = StateLog(
            runtime, log, appends, GROUPS_LOG_TOPIC, GROUPS_CONFIGS, partitions
        )
        self.kept.load(self._replay, self._restore)

    # --- the protocol -------------------------------------------------------------------------

    def join(self, group_id: str, join: Join, reply: Callable[[JoinAnswer], None]) -> None:
        """JoinGroup: the answer comes when the members have gathered."""
        state = self.states.get(group_id)
        error = self._member_refusal(group_id, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        if not error and state is None:
            error = ErrorCode.UNKNOWN_MEMBER_ID if join.member_id else self.crowding()
        if error:
            reply(JoinAnswer(error, join.member_id))
            return
        if state is None:
            state = self.open(group_id)
        group = state.group
        fresh = self._runtime.random_bytes(16).hex()
        now_ms = self._runtime.monotonic_ms()
        if isinstance(group, ConsumerGroup) and group.is_empty:
            group = self._begin_classic(state)
        if isinstance(group, ConsumerGroup):
            joined = classic_members.join(group, join, fresh, now_ms)
            self.settle(
                state,
                lambda failure: reply(
                    JoinAnswer(failure, join.member_id) if failure else joined
                ),
            )
            return
        group.join(join, fresh, now_ms, reply)
        self.settle(state)

    def sync(
        self,
        group_id: str,
        member: tuple[str, str | None, int],
        protocol: tuple[str | None, str | None],
        assignments: Iterable[tuple[str, bytes]],
        reply: Callable[[SyncAnswer], None],
    ) -> None:
        """SyncGroup, of the `member` (id, instance id, generation)."""
        error = self._member_refusal(group_id, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        state = self.states.get(group_id)
        if error or state is None:
            reply(SyncAnswer(error or ErrorCode.UNKNOWN_MEMBER_ID))
            return
        now_ms = self._runtime.monotonic_ms()
        if isinstance(state.group, ConsumerGroup):
            synced = classic_members.sync(state.group, member, protocol, now_ms)
            self.settle(
                state, lambda failure: reply(SyncAnswer(failure) if failure else synced)
            )
            return
        state.group.sync(*member, protocol, assignments, now_ms, reply)
        self.settle(state)

    def heartbeat(self, group_id: str, member: tuple[str, str | None, int]) -> ErrorCode:
        """Heartbeat, of the `member` (id, instance id, generation)."""
        error = self._member_refusal(group_id)
        state = self.states.get(group_id)
        if error or state is None:
            return error or ErrorCode.UNKNOWN_MEMBER_ID
        now_ms = self._runtime.monotonic_ms()
        if isinstance(state.group, ConsumerGroup):
            code = classic_members.heartbeat(state.group, member, now_ms)
            self.settle(state)
            return code
        return state.group.heartbeat(*member, now_ms)

    def leave(
        self,
        group_id: str,
        members: Iterable[tuple[str, str | None]],
        reply: Callable[[list[ErrorCode] | ErrorCode], None],
    ) -> None:
        """LeaveGroup, of each (member id, instance id): one code each, or one for all.

        Answered when it is durable, or members would be back after a crash, and waited for.
        """
        error = self._member_refusal(group_id, ErrorCode.NONE)
        state = self.states.get(group_id)
        if error or state is None or isinstance(state.group, ShareGroup):
            reply(error or [ErrorCode.UNKNOWN_MEMBER_ID for _ in members])
            return
        now_ms, group = self._runtime.monotonic_ms(), state.group
        if isinstance(group, ConsumerGroup):
            codes = [classic_members.leave(group, *identity) for identity in members]
        else:
            codes = [group.leave(name, instance, now_ms) for name, instance in members]
        self.settle(state, lambda failure: reply(failure or codes))

    # --- administration -----------------------------------------------------------------------

    def listed(self) -> dict[str, AnyGroup] | ErrorCode:
        """ListGroups: return all groups by id."""
        if self._is_loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return {group_id: state.group for group_id, state in self.states.items()}

    def described(self, group_id: str) -> AnyGroup | ErrorCode:
        """DescribeGroups, ConsumerGroupDescribe: return one group."""
        error = self.refusal()
        state = self.states.get(group_id)
        if error or state is None:
            return error or ErrorCode.GROUP_ID_NOT_FOUND
        return state.group

    def delete(self, group_id: str, reply: Callable[[ErrorCode], None]) -> None:
        """DeleteGroups: answered when it is durable."""
        error = self.refusal()
        state = self.states.get(group_id)
        if not error and state is not None and state.writing:
            if not self.pending.unstable(group_id):
                state.when_written.append(lambda: self.delete(group_id, reply))
                return
            error = ErrorCode.COORDINATOR_NOT_AVAILABLE  # try again: a transaction is open
        if not error:
            error = ErrorCode.GROUP_ID_NOT_FOUND if state is None else state.group.delete()
        if error or state is None:
            reply(error)
            return
        self.drop(state, reply)

    # --- for those who keep something of a group ----------------------------------------------

    def refusal(self) -> ErrorCode:
        """Return why nothing can be said of any group now, or NONE."""
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if self._is_loading else ErrorCode.NONE

    def _member_refusal(
        self, group_id: str, of_share: ErrorCode = ErrorCode.UNKNOWN_MEMBER_ID
    ) -> ErrorCode:
        """Refuse members to share groups, and to the group without a name, as Kafka does.

        That keeps offsets only: Java consumers before 2.2 commit to it when given no group.
        """
        if not group_id:
            return ErrorCode.INVALID_GROUP_ID
        state = self.states.get(group_id)
        if state is not None and isinstance(state.group, ShareGroup):
            return of_share
        return self.refusal()

    def crowding(self) -> ErrorCode:
        """Return NONE while one more group fits."""
        crowded = len(self.states) >= self._groups_max
        return ErrorCode.COORDINATOR_NOT_AVAILABLE if crowded else ErrorCode.NONE

    def open(self, group_id: str) -> StoredState:
        """Make a group of this id."""
        state = StoredState(group_id, self._new_group(), self._runtime.now_ms())
        self.states[group_id] = state
        return state

    def _new_group(self) -> Group:
        return Group(initial_delay_ms=self._initial_delay_ms, members_max=self._members_max)

    def new_consumer_group(self, group_id: str) -> ConsumerGroup:
        """Return a group of the consumer protocol that nobody knows yet."""
        return ConsumerGroup(group_id, self._topics, self._terms, members_max=self._members_max)

    def new_share_group(self, group_id: str) -> ShareGroup:
        """Return a share group that nobody knows yet."""
        members_max = self._share_members_max
        return ShareGroup(group_id, self._topics, self._share_terms, members_max=members_max)

    def settle(
        self, state: StoredState, reply: Callable[[ErrorCode], None] | None = None
    ) -> None:
        """After each call of a group: store what it wants stored, and set its timer.

        `reply` is called once all is durable that the call has changed, and in a group of the
        consumer protocol what one before it has.
        """
        group = state.group
        if isinstance(group, ConsumerGroup) and group.is_only_classic and self._downgrades:
            group = self._begin_classic(state)
        if isinstance(group, ConsumerGroup):
            self._store_rows(state, group, reply)
        else:
            self._store_snapshot(state, group, reply)
        self._set_timer(state)
        self.drop_if_blank(state)

    def _store_snapshot(
        self, state: StoredState, group: Group, reply: Callable[[ErrorCode], None] | None
    ) -> None:
        waiting = group.take_unstored()
        if waiting is None:
            if reply is not None:
                reply(ErrorCode.NONE)
            return
        state.since_ms = self._runtime.now_ms()
        value = group_value(StoredGroup(group.snapshot(), state.since_ms))

        def stored(failure: ErrorCode) -> None:
            now_ms = self._runtime.monotonic_ms()
            for call in waiting:
                call(now_ms, not failure)
            if reply is not None:
                reply(failure)
            self.settle(state)

        self.write(state, [(group_key(state.group_id), value)], stored)

    def _store_rows(
        self,
        state: StoredState,
        group: ConsumerGroup,
        reply: Callable[[ErrorCode], None] | None,
    ) -> None:
        rows = group.take_unstored()
        if not rows:
            if reply is not None and state.after is not None:
                state.after.append(reply)
            elif reply is not None:
                reply(ErrorCode.NONE)
            return
        waiting = state.after = [] if reply is None else [reply]

        def stored(failure: ErrorCode) -> None:
            if state.after is waiting:
                state.after = None
            if failure:
                group.store_again(rows)
            for call in waiting:
                call(failure)

        now_ms = self._runtime.now_ms()
        kind = group.kind
        records: Rows = [
            (row_key(state.group_id, row, kind), row_value(row, now_ms, kind)) for row in rows
        ]
        self.write(state, records, stored)

    def drop_if_blank(self, state: StoredState) -> None:
        """Forget a group that came into being by a request that was then refused."""
        if state.is_blank and self.states.get(state.group_id) is state:
            del self.states[state.group_id]

    def _set_timer(self, state: StoredState) -> None:
        due_ms = state.group.due_ms()
        set_for_ms = state.timer_due_ms
        if set_for_ms is not None and due_ms is not None and set_for_ms <= due_ms:
            return  # it finds out when it runs: heartbeats only ever move it away
        if state.cancel_timer is not None:
            state.cancel_timer()
        state.cancel_timer, state.timer_due_ms = None, due_ms
        if due_ms is not None:
            delay_ms = max(due_ms - self._runtime.monotonic_ms(), 0)
            state.cancel_timer = self._runtime.later(delay_ms, lambda: self._tick(state))

    def _tick(self, state: StoredState) -> None:
        state.cancel_timer = state.timer_due_ms = None
        state.group.tick(self._runtime.monotonic_ms())
        self.settle(state)

    def drop(self, state: StoredState, reply: Callable[[ErrorCode], None]) -> None:
        """Remove a dead group and all that is kept of it."""
        del self.states[state.group_id]
        if state.cancel_timer is not None:
            state.cancel_timer()
        rows: Rows = [
            (offset_key(OffsetKey(state.group_id, *place)), None) for place in state.offsets
        ]
        rows += self._tombstones(state)
        self.write(state, rows, reply)
        self._dropped(state.group_id)

    def _tombstones(self, state: StoredState) -> Rows:
        """Return what takes away all that is kept of a group but its offsets."""
        if isinstance(state.group, ConsumerGroup):
            rows = state.group.all_rows()
            return [(row_key(state.group_id, row, state.group.kind), None) for row in rows]
        return [(group_key(state.group_id), None)]

    # --- from one protocol to the other -------------------------------------------------------

    def instate(self, group_id: str, group: ConsumerGroup) -> StoredState:
        """Let this be the group of this id, from now on; one without members makes room."""
        state = self.states.get(group_id) or self.open(group_id)
        if state.group is not group:
            self._replace(state, group)
        return state

    def upgraded(self, group_id: str, group: Group) -> ConsumerGroup | None:
        """Return a group of the consumer protocol with the members of a classic one.

        None where that is not allowed, or the members are of another kind.
        """
        into = self.new_consumer_group(group_id)
        now_ms = self._runtime.monotonic_ms()
        is_done = self._upgrades and classic_members.to_consumer(group, into, now_ms)
        return into if is_done else None

    def _begin_classic(self, state: StoredState) -> Group:
        """Give a group of the consumer protocol the classic one, with members that know it."""
        group, was = self._new_group(), state.group
        if isinstance(was, ConsumerGroup) and not was.is_empty:
            classic_members.to_classic(was, group, self._runtime.monotonic_ms())
        self._replace(state, group)
        return group

    def _replace(self, state: StoredState, group: AnyGroup) -> None:
        was = state.group
        if isinstance(was, ConsumerGroup) or was.protocol_type:  # else it was never stored
            state.gone = self._tombstones(state)
        if isinstance(was, Group):
            was.dissolve()
        state.group = group

    # --- the log ------------------------------------------------------------------------------

    def write(
        self,
        state: StoredState,
        rows: Rows,
        done: Callable[[ErrorCode], None],
        *,
        producer: Producer | None = None,
    ) -> None:
        """Append records about a group; `done` when all are durable, or one failed.

        `producer`: they belong to its transaction.
        """
        state.writing += 1
        gone: Rows = []
        if producer is None:
            gone, state.gone = state.gone, gone

        def written(code: ErrorCode) -> None:
            state.writing -= 1
            if code and not state.gone:
                state.gone = gone
            done(code)
            waiting, state.when_written = state.when_written, []
            for call in waiting:
                call()

        self.kept.write(state.group_id, gone + rows, written, producer=producer)

    def log_place(self, group_id: str) -> Place:
        """Return where records about a group are kept. Raises what `Log.create` raises."""
        return GROUPS_LOG_TOPIC, self.kept.partition_for(group_id).index

    # --- offsets in transactions --------------------------------------------------------------

    def hold(
        self, producer_id: int, state: StoredState, offsets: Mapping[Place, CommittedOffset]
    ) -> Held:
        """Keep offsets for as long as it is open whether their transaction commits."""
        state.writing += 1
        return self.pending.hold(producer_id, state.group_id, offsets)

    def release(self, held: Held, *, commits: bool) -> None:
        """Let offsets count, or not."""
        self.pending.release(held)
        state = self.states[held.group_id]
        state.writing -= 1
        for place, committed in held.offsets.items() if commits else ():
            if place not in held.overtaken and not self.is_of_another(place, committed):
                state.offsets[place] = committed
        if not self._is_loading:
            self.drop_if_blank(state)

    def decide(self, index: int, producer_id: int, *, commits: bool) -> None:
        """A marker stands in a partition of the log of groups, for all that it holds."""
        for held in [*self.pending.held.get(producer_id, ())]:
            if self.log_place(held.group_id)[1] == index:
                self.release(held, commits=commits)

    # --- the start ----------------------------------------------------------------------------

    def _replay(self, index: int, batch: RecordBatch) -> None:
        """Take in one batch, newer than all before with the same keys."""
        if batch.is_control:
            marker = read_marker(batch)
            if marker is not None:
                self.decide(index, batch.producer_id, commits=marker.commits)
            return
        producer_id = batch.producer_id if batch.is_transactional else NO_PRODUCER_ID
        for record in batch.records():
            self._replay_record(record, producer_id)

    def _replay_record(self, record: Record, producer_id: int) -> None:
        try:
            key = record.key or b""
            if is_row(int.from_bytes(key[:2], "big")):
                group, row = read_row(key, record.value)
                self._rows.setdefault(group, KeptGroup()).take(row)
                return
            about = read_key(key)
            if isinstance(about, OffsetKey):
                place = (about.log_topic, about.partition)
                if producer_id == NO_PRODUCER_ID:
                    self.pending.overtake(about.group_id, [place], self.pending.number)
                if record.value is None:
                    if about.group_id in self.states:
                        self.states[about.group_id].offsets.pop(place, None)
                    return
                state = self.states.get(about.group_id) or self.open(about.group_id)
                committed = read_offset(record.value)
                if producer_id == NO_PRODUCER_ID:
                    state.offsets[place] = committed
                else:
                    self.hold(producer_id, state, {place: committed})
            elif about is not None:
                if record.value is None:
                    self._found.pop(about, None)
                else:
                    self._found[about] = read_group(record.value)
        except Malformed as error:
            logger.warning("group record skipped offset=%d error=%s", record.offset, error)

    def _restore(self) -> None:
        """Bring the groups to life after the last record was read."""
        found, self._found, self._is_loading = self._found, {}, False
        rows, self._rows = self._rows, {}
        now_ms = self._runtime.monotonic_ms()
        for group_id, stored in found.items():
            state = self.states.get(group_id) or self.open(group_id)
            if stored.since_ms >= 0:
                state.since_ms = stored.since_ms
            classic = state.group = self._new_group()
            classic.restore(stored.snapshot, now_ms)
        for (group_id, kind), kept in rows.items():
            if kept.epoch is not None:
                state = self.states.get(group_id) or self.open(group_id)
                is_share = kind == ShareGroup.kind
                make = self.new_share_group if is_share else self.new_consumer_group
                group = state.group = make(group_id)
                group.restore(kept, now_ms)
        for state in [*self.states.values()]:
            for place, committed in [*state.offsets.items()]:
                if self.is_of_another(place, committed):
                    del state.offsets[place]
            self._set_timer(state)
            self.drop_if_blank(state)
        logger.info("groups loaded count=%d", len(self.states))

    def is_of_another(self, place: Place, committed: CommittedOffset) -> bool:
        """Whether it is of a log topic that was deleted, whatever has its name now."""
        log_topic = self._log.topics.get(place[0])
        if not any(committed.topic_id):
            return False
        return log_topic is None or committed.topic_id != log_topic.topic_id
