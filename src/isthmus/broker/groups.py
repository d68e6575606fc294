"""All consumer groups: their machines, their timers, and what is kept of them.

A group is a `Group` machine plus the offsets it has committed. Both are kept in the log
(state_log.py): nothing is answered before its record is durable, and nobody is told of an
offset that a restart would not know. At the start the records are read once; until that is done
every request is told so, and its client tries again.

A group without members forgets its offsets after the retention time, and then goes itself. Not
here: the rules of the protocol (kafka/group.py), its wire form (server/kafka_api/groups.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from isthmus.broker.state_log import StateLog
from isthmus.errors import Malformed
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group import Group, State
from isthmus.kafka.group_records import (
    GROUPS_CONFIGS,
    GROUPS_LOG_TOPIC,
    CommittedOffset,
    OffsetKey,
    StoredGroup,
    group_key,
    group_value,
    offset_key,
    offset_value,
    read_group,
    read_key,
    read_offset,
)
from isthmus.kafka.group_types import JoinAnswer, SyncAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.appends import Appends
    from isthmus.broker.state_log import Rows
    from isthmus.kafka.group_types import Join
    from isthmus.record.batch import Record, RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

logger = logging.getLogger(__name__)

EXPIRY_CHECK_MS = 600_000

Place = tuple[str, int]  # log topic and partition


class StoredState:
    """One group with all that belongs to it."""

    __slots__ = (
        "cancel_timer",
        "group",
        "group_id",
        "offsets",
        "since_ms",
        "timer_due_ms",
        "writing",
    )

    def __init__(self, group_id: str, group: Group, now_ms: int) -> None:
        self.group_id = group_id
        self.group = group
        self.offsets: dict[Place, CommittedOffset] = {}
        self.since_ms = now_ms  # wall clock: stored last, or made
        self.timer_due_ms: int | None = None
        self.cancel_timer: Callable[[], None] | None = None
        self.writing = 0  # records on their way to the disk

    @property
    def is_blank(self) -> bool:
        """Whether nothing would be lost with it."""
        return (
            self.group.state is State.EMPTY
            and not (self.group.protocol_type or self.offsets or self.writing)
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
        groups_max: int = 100_000,
        retention_ms: int = 604_800_000,
        partitions: int = 1,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._appends = appends
        self._initial_delay_ms = initial_delay_ms
        self._members_max = members_max
        self._groups_max = groups_max
        self._retention_ms = retention_ms
        self._groups: dict[str, StoredState] = {}
        self._found: dict[str, StoredGroup] = {}
        self._is_loading = True
        self._kept = StateLog(
            runtime, log, appends, GROUPS_LOG_TOPIC, GROUPS_CONFIGS, partitions
        )
        self._kept.load(self._replay, self._restore)
        runtime.later(EXPIRY_CHECK_MS, self._expire)

    # --- the protocol -------------------------------------------------------------------------

    def join(self, group_id: str, join: Join, reply: Callable[[JoinAnswer], None]) -> None:
        """JoinGroup: the answer comes when the members have gathered."""
        state = self._groups.get(group_id)
        error = self._member_refusal(group_id)
        if not error and state is None:
            error = ErrorCode.UNKNOWN_MEMBER_ID if join.member_id else self._crowding()
        if error:
            reply(JoinAnswer(error, join.member_id))
            return
        if state is None:
            state = self._open(group_id)
        fresh = self._runtime.random_bytes(16).hex()
        state.group.join(join, fresh, self._runtime.monotonic_ms(), reply)
        self._settle(state)

    def sync(
        self,
        group_id: str,
        member: tuple[str, str | None, int],
        protocol: tuple[str | None, str | None],
        assignments: Iterable[tuple[str, bytes]],
        reply: Callable[[SyncAnswer], None],
    ) -> None:
        """SyncGroup, of the `member` (id, instance id, generation)."""
        error = self._member_refusal(group_id)
        state = self._groups.get(group_id)
        if error or state is None:
            reply(SyncAnswer(error or ErrorCode.UNKNOWN_MEMBER_ID))
            return
        now_ms = self._runtime.monotonic_ms()
        state.group.sync(*member, protocol, assignments, now_ms, reply)
        self._settle(state)

    def heartbeat(self, group_id: str, member: tuple[str, str | None, int]) -> ErrorCode:
        """Heartbeat, of the `member` (id, instance id, generation)."""
        error = self._member_refusal(group_id)
        state = self._groups.get(group_id)
        if error or state is None:
            return error or ErrorCode.UNKNOWN_MEMBER_ID
        return state.group.heartbeat(*member, self._runtime.monotonic_ms())

    def leave(
        self, group_id: str, members: Iterable[tuple[str, str | None]]
    ) -> list[ErrorCode] | ErrorCode:
        """LeaveGroup, of each (member id, instance id): one code each, or one for all."""
        error = self._member_refusal(group_id)
        if error:
            return error
        state = self._groups.get(group_id)
        if state is None:
            return [ErrorCode.UNKNOWN_MEMBER_ID for _ in members]
        now_ms = self._runtime.monotonic_ms()
        codes = [state.group.leave(name, instance, now_ms) for name, instance in members]
        self._settle(state)
        return codes

    # --- offsets ------------------------------------------------------------------------------

    def commit(
        self,
        group_id: str,
        member: tuple[str, str | None, int],
        offsets: dict[Place, CommittedOffset],
        reply: Callable[[ErrorCode], None],
    ) -> None:
        """OffsetCommit: answered when durable; all is refused or nothing."""
        state = self._groups.get(group_id)
        error = self._refusal()
        if not error and state is None:
            error = ErrorCode.ILLEGAL_GENERATION if member[2] >= 0 else self._crowding()
        if not error and state is not None:
            error = state.group.check_commit(*member, self._runtime.monotonic_ms())
        if error or not offsets:
            reply(error)
            return
        committing = self._open(group_id) if state is None else state

        def stored(failure: ErrorCode) -> None:
            if not failure:
                for place, committed in offsets.items():
                    if not self._is_of_another(place, committed):
                        committing.offsets[place] = committed
            reply(failure)
            self._drop_if_blank(committing)

        rows: Rows = [
            (offset_key(OffsetKey(group_id, *place)), offset_value(committed))
            for place, committed in offsets.items()
        ]
        self._write(committing, rows, stored)

    def offsets(self, group_id: str) -> dict[Place, CommittedOffset] | ErrorCode:
        """OffsetFetch: return all that the group has committed, empty for an unknown group."""
        error = self._refusal()
        if error:
            return error
        state = self._groups.get(group_id)
        return {} if state is None else state.offsets

    def delete_offsets(
        self, group_id: str, places: Iterable[Place], reply: Callable[[ErrorCode], None]
    ) -> None:
        """Forget committed offsets, durably."""
        state = self._groups.get(group_id)
        gone = [] if state is None else [place for place in places if place in state.offsets]
        if state is None or not gone:
            reply(ErrorCode.NONE)
            return

        def stored(failure: ErrorCode) -> None:
            if not failure:
                for place in gone:
                    state.offsets.pop(place, None)
            reply(failure)
            self._drop_if_blank(state)

        rows: Rows = [(offset_key(OffsetKey(group_id, *place)), None) for place in gone]
        self._write(state, rows, stored)

    def forget_log_topic(self, name: str) -> None:
        """A log topic was deleted: what groups committed in it means nothing any more."""
        for state in self._groups.values():
            places = [place for place in state.offsets if place[0] == name]
            if places:
                self.delete_offsets(state.group_id, places, _ignore)

    # --- administration -----------------------------------------------------------------------

    def listed(self) -> dict[str, Group] | ErrorCode:
        """ListGroups: return all groups by id."""
        if self._is_loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return {group_id: state.group for group_id, state in self._groups.items()}

    def described(self, group_id: str) -> Group | ErrorCode:
        """DescribeGroups: return one group."""
        error = self._refusal()
        state = self._groups.get(group_id)
        if error or state is None:
            return error or ErrorCode.GROUP_ID_NOT_FOUND
        return state.group

    def delete(self, group_id: str, reply: Callable[[ErrorCode], None]) -> None:
        """DeleteGroups: answered when it is durable."""
        error = self._refusal()
        state = self._groups.get(group_id)
        if not error and state is not None and state.writing:
            error = ErrorCode.COORDINATOR_NOT_AVAILABLE  # try again: it is being committed to
        if not error:
            error = ErrorCode.GROUP_ID_NOT_FOUND if state is None else state.group.delete()
        if error or state is None:
            reply(error)
            return
        self._drop(state, reply)

    # --- inside -------------------------------------------------------------------------------

    def _refusal(self) -> ErrorCode:
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if self._is_loading else ErrorCode.NONE

    def _member_refusal(self, group_id: str) -> ErrorCode:
        """Refuse members to the group without a name, as Kafka does.

        It keeps offsets only: Java consumers before 2.2 commit to it when given no group.
        """
        return self._refusal() if group_id else ErrorCode.INVALID_GROUP_ID

    def _crowding(self) -> ErrorCode:
        """Return NONE while one more group fits."""
        crowded = len(self._groups) >= self._groups_max
        return ErrorCode.COORDINATOR_NOT_AVAILABLE if crowded else ErrorCode.NONE

    def _open(self, group_id: str) -> StoredState:
        group = Group(initial_delay_ms=self._initial_delay_ms, members_max=self._members_max)
        state = StoredState(group_id, group, self._runtime.now_ms())
        self._groups[group_id] = state
        return state

    def _settle(self, state: StoredState) -> None:
        """After each call of a group: store what it wants stored, and set its timer."""
        waiting = state.group.take_unstored()
        if waiting is not None:
            state.since_ms = self._runtime.now_ms()
            value = group_value(StoredGroup(state.group.snapshot(), state.since_ms))

            def stored(failure: ErrorCode) -> None:
                now_ms = self._runtime.monotonic_ms()
                for call in waiting:
                    call(now_ms, not failure)
                self._settle(state)

            self._write(state, [(group_key(state.group_id), value)], stored)
        self._set_timer(state)
        self._drop_if_blank(state)

    def _drop_if_blank(self, state: StoredState) -> None:
        """Forget a group that came into being by a request that was then refused."""
        if state.is_blank and self._groups.get(state.group_id) is state:
            del self._groups[state.group_id]

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
        self._settle(state)

    def _drop(self, state: StoredState, reply: Callable[[ErrorCode], None]) -> None:
        """Remove a dead group and all that is kept of it."""
        del self._groups[state.group_id]
        if state.cancel_timer is not None:
            state.cancel_timer()
        rows: Rows = [
            (offset_key(OffsetKey(state.group_id, *place)), None) for place in state.offsets
        ]
        rows.append((group_key(state.group_id), None))
        self._write(state, rows, reply)

    def _expire(self) -> None:
        """Forget the offsets of groups that were long without members, then the groups."""
        oldest_ms = self._runtime.now_ms() - self._retention_ms
        for state in [*self._groups.values()]:
            group = state.group
            if group.state is not State.EMPTY or state.writing or self._is_loading:
                continue
            # A group that had members counts from when the last one left, as in Kafka.
            had_members = bool(group.protocol_type)
            places = [
                place
                for place, committed in state.offsets.items()
                if max(committed.commit_ms, state.since_ms if had_members else 0) < oldest_ms
            ]
            if len(places) == len(state.offsets) and state.since_ms < oldest_ms:
                if not group.delete():
                    logger.info("group expired group=%s", state.group_id)
                    self._drop(state, _ignore)
            elif places:
                self.delete_offsets(state.group_id, places, _ignore)
        self._runtime.later(EXPIRY_CHECK_MS, self._expire)

    # --- the log ------------------------------------------------------------------------------

    def _write(self, state: StoredState, rows: Rows, done: Callable[[ErrorCode], None]) -> None:
        state.writing += 1

        def written(code: ErrorCode) -> None:
            state.writing -= 1
            done(code)

        self._kept.write(state.group_id, rows, written)

    def _replay(self, _index: int, batch: RecordBatch) -> None:
        """Take in one batch, newer than all before with the same keys."""
        for record in () if batch.is_control else batch.records():
            self._replay_record(record)

    def _replay_record(self, record: Record) -> None:
        try:
            about = read_key(record.key or b"")
            if isinstance(about, OffsetKey):
                place = (about.log_topic, about.partition)
                if record.value is None:
                    if about.group_id in self._groups:
                        self._groups[about.group_id].offsets.pop(place, None)
                    return
                state = self._groups.get(about.group_id) or self._open(about.group_id)
                state.offsets[place] = read_offset(record.value)
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
        now_ms = self._runtime.monotonic_ms()
        for group_id, stored in found.items():
            state = self._groups.get(group_id) or self._open(group_id)
            if stored.since_ms >= 0:
                state.since_ms = stored.since_ms
            state.group.restore(stored.snapshot, now_ms)
        for state in [*self._groups.values()]:
            for place, committed in [*state.offsets.items()]:
                if self._is_of_another(place, committed):
                    del state.offsets[place]
            self._set_timer(state)
            self._drop_if_blank(state)
        logger.info("groups loaded count=%d", len(self._groups))

    def _is_of_another(self, place: Place, committed: CommittedOffset) -> bool:
        """Whether the offset is of a log topic that was deleted, whatever has its name now."""
        log_topic = self._log.topics.get(place[0])
        if not any(committed.topic_id):
            return False
        return log_topic is None or committed.topic_id != log_topic.topic_id


def _ignore(_: Any) -> None:
    """What becomes of it is in the log."""
