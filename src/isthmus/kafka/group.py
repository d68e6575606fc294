"""One consumer group of the classic protocol, as a machine without I/O.

Members join, the leader gets the list of all, hands in who works on what, and everybody gets a
share; then they send heartbeats until the next change. What the group may do when is the table
`NEXT` (group_states.py). Join and sync wait for others: they answer through the one callback
given with the call, exactly once. Time and fresh member ids are arguments; `due_ms` says when
`tick` is next needed. After any call, `take_unstored` says whether the group must be stored,
and what to call then: an assignment is handed out only when a restart would still know it.

Not here: committed offsets and storing (broker/groups.py), the wire form (server/kafka_api/).
Sources: KIP-62 (rebalance timeout), KIP-134 (initial delay), KIP-345 (static members), KIP-394
(member id first), KIP-429 (cooperative: nothing for us to do), KIP-814 (skip assignment).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from isthmus.kafka.consumer_protocol import PROTOCOL_TYPE, subscribed_topics
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group_states import HEARTBEAT_ANSWER, NEXT, Event, State
from isthmus.kafka.group_types import (
    GroupSnapshot,
    Join,
    JoinAnswer,
    JoinedMember,
    Member,
    SyncAnswer,
    common_protocols,
    select_protocol,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NEW_MEMBER_JOIN_MS = 300_000  # a client that never got its member id may have gone away


class Group:
    """One consumer group; see the head of the file for the contract."""

    kind: ClassVar = "classic"

    def __init__(self, *, initial_delay_ms: int = 3_000, members_max: int = 10_000) -> None:
        self.state = State.EMPTY
        self.generation = 0
        self.protocol_type = ""  # empty: nobody ever joined, only offsets were committed
        self.protocol_name: str | None = None
        self.leader: str | None = None
        self.members: dict[str, Member] = {}
        self._initial_delay_ms = initial_delay_ms
        self._members_max = members_max
        self._static: dict[str, str] = {}  # instance id → member id
        self._pending: dict[str, int] = {}  # member ids given out → when they lapse
        self._join_due_ms: int | None = None
        self._initial_left_ms: int | None = None  # not None: the initial delay is running
        self._came_in_delay = False
        self._unsynced: set[str] = set()
        self._sync_due_ms = 0
        self._assigning: Mapping[str, bytes] | None = None  # handed in, not stored yet
        self._unstored = False
        self._when_stored: list[Callable[[int, bool], None]] = []

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in it."""
        return self.state is State.EMPTY

    # --- requests -----------------------------------------------------------------------------

    def join(
        self, join: Join, fresh: str, now_ms: int, reply: Callable[[JoinAnswer], None]
    ) -> None:
        """Let a member in, or in again; `fresh` is what makes a new member id unique."""
        refusal = self._join_refusal(join)
        if refusal:
            reply(JoinAnswer(refusal, join.member_id))
        elif not join.member_id:
            self._join_unknown(
                join, f"{join.instance_id or join.client_id}-{fresh}", now_ms, reply
            )
        elif join.member_id in self._pending:
            del self._pending[join.member_id]
            self._admit(join.member_id, join, now_ms, reply)
        else:
            self._rejoin(join, now_ms, reply)
        self._go_on(now_ms)

    def sync(
        self,
        member_id: str,
        instance_id: str | None,
        generation: int,
        protocol: tuple[str | None, str | None],
        assignments: Iterable[tuple[str, bytes]],
        now_ms: int,
        reply: Callable[[SyncAnswer], None],
    ) -> None:
        """Answer with the member's share, once the leader handed in all shares.

        `protocol` is (type, name) as the member knows them, None where it does not say.
        """
        error = self._member_error(member_id, instance_id, generation)
        own = (self.protocol_type, self.protocol_name)
        if not error and any(
            said not in (None, is_) for said, is_ in zip(protocol, own, strict=True)
        ):
            error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if not error and self.state is State.PREPARING:
            error = ErrorCode.REBALANCE_IN_PROGRESS
        if error:
            reply(SyncAnswer(error))
            return
        member = self.members[member_id]
        member.answer_sync(SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS))  # an older, lost call
        member.sync_reply = reply
        self._unsynced.discard(member_id)
        self._alive(member, now_ms)
        if self.state is State.STABLE:
            self._answer_sync(member)
        elif member_id == self.leader and self._assigning is None:
            self._assigning = dict(assignments)
            self._store(partial(self._assigned, self.generation))

    def heartbeat(
        self, member_id: str, instance_id: str | None, generation: int, now_ms: int
    ) -> ErrorCode:
        """Note that a member lives; return what it must know of the group."""
        error = self._member_error(member_id, instance_id, generation)
        if error:
            return error
        self._alive(self.members[member_id], now_ms)
        return HEARTBEAT_ANSWER[self.state]

    def leave(self, member_id: str, instance_id: str | None, now_ms: int) -> ErrorCode:
        """Let a member go; a static one may be named by its instance id alone [KIP-345]."""
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if member_id in self._pending and instance_id is None:
            del self._pending[member_id]
            self._go_on(now_ms)
            return ErrorCode.NONE
        if not member_id and instance_id is not None:
            member_id = self._static.get(instance_id, "")
        error = self._member_error(member_id, instance_id)
        if not error:
            self._remove([self.members[member_id]], now_ms)
            self._go_on(now_ms)
        return error

    def check_commit(
        self,
        member_id: str,
        instance_id: str | None,
        generation: int,
        now_ms: int,
        *,
        in_transaction: bool = False,
    ) -> ErrorCode:
        """Say whether this member may commit offsets now.

        Who is no member (generation -1, no ids) may while the group has no members: so do
        clients that choose their partitions themselves, and the tools. A commit in a
        transaction is no sign of life, and may come in a rebalance.
        """
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if generation < 0 and self.state is State.EMPTY:
            return ErrorCode.NONE
        error = self._member_error(member_id, instance_id, generation)
        if error or in_transaction:
            return error
        if self.state is State.COMPLETING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        self._alive(self.members[member_id], now_ms)
        return ErrorCode.NONE

    def subscribed(self) -> frozenset[str] | None:
        """Return the log topics that the members read; None where that cannot be known."""
        if not self.members:
            return frozenset()
        if self.protocol_type != PROTOCOL_TYPE or self.protocol_name is None:
            return None
        found: set[str] = set()
        for member in self.members.values():
            topics = subscribed_topics(member.metadata_for(self.protocol_name))
            if topics is None:
                return None
            found |= topics
        return frozenset(found)

    def forgets_since(self, since_ms: int) -> int | None:
        """Return from when on offsets that nobody reads grow old; None: they do not.

        `since_ms` is when the group came to be as it is. Zero: their commits alone count.
        """
        if self.state is State.EMPTY:
            return since_ms if self.protocol_type else 0
        knows_readers = self.state is State.STABLE and self.subscribed() is not None
        return 0 if knows_readers else None

    def delete(self) -> ErrorCode:
        """End the group for good, if it has no members."""
        if self.state is State.DEAD:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if self.state is not State.EMPTY:
            return ErrorCode.NON_EMPTY_GROUP
        self._step(Event.DELETED)
        self._pending.clear()
        return ErrorCode.NONE

    # --- time ---------------------------------------------------------------------------------

    def due_ms(self) -> int | None:
        """Return when `tick` must be called next, or None while nothing can lapse."""
        dues = [*self._pending.values()]
        dues += [member.due_ms for member in self.members.values() if not member.excused]
        if self._join_due_ms is not None:
            dues.append(self._join_due_ms)
        if self._unsynced:
            dues.append(self._sync_due_ms)
        return min(dues, default=None)

    def tick(self, now_ms: int) -> None:
        """Let lapse what is due: ids never used, silent members, waiting for the slow."""
        self._pending = {name: due for name, due in self._pending.items() if due > now_ms}
        late = self._unsynced if self._sync_due_ms <= now_ms else ()
        gone = [
            member
            for member in self.members.values()
            if member.member_id in late or (member.due_ms <= now_ms and not member.excused)
        ]
        if gone:
            self._remove(gone, now_ms)
        self._go_on(now_ms)

    # --- storing ------------------------------------------------------------------------------

    def take_unstored(self) -> list[Callable[[int, bool], None]] | None:
        """Return whom to tell (now_ms, ok) once the group is stored; None: nothing to store."""
        if not self._unstored:
            return None
        waiting, self._when_stored, self._unstored = self._when_stored, [], False
        return waiting

    def snapshot(self) -> GroupSnapshot:
        """Return what a restart must know."""
        shares = self._assigning
        return GroupSnapshot(
            self.protocol_type,
            self.generation,
            self.protocol_name,
            self.leader,
            tuple(
                member.snapshot(
                    self.protocol_name,
                    member.assignment if shares is None else shares.get(member.member_id, b""),
                )
                for member in self.members.values()
            ),
        )

    def restore(self, kept: GroupSnapshot, now_ms: int) -> None:
        """Become the group that was stored; its members have one session timeout to call."""
        self.protocol_type = kept.protocol_type
        self.generation = kept.generation
        self.protocol_name = kept.protocol_name
        self.leader = kept.leader
        for entry in kept.members:
            member = Member.restored(entry, kept)
            self._alive(member, now_ms)
            self.members[member.member_id] = member
            if member.instance_id is not None:
                self._static[member.instance_id] = member.member_id
        self.state = State.STABLE if self.members else State.EMPTY

    def take_over(
        self,
        snapshot: GroupSnapshot,
        protocols: Mapping[str, tuple[tuple[str, bytes], ...]],
        now_ms: int,
    ) -> None:
        """Go on with the members of another group; they are to join again.

        `protocols` are all that each of them knows, by member id.
        """
        self.restore(snapshot, now_ms)
        for member in self.members.values():
            member.protocols = protocols[member.member_id]
        self._store()
        self._rebalance(now_ms)

    def dissolve(self) -> None:
        """Another group goes on with the members: who waits here is to join there."""
        for member in self.members.values():
            member.answer_join(JoinAnswer(ErrorCode.REBALANCE_IN_PROGRESS, member.member_id))
            member.answer_sync(SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS))
        self.state = State.DEAD

    def _store(self, when_stored: Callable[[int, bool], None] | None = None) -> None:
        self._unstored = True
        if when_stored is not None:
            self._when_stored.append(when_stored)

    # --- joining ------------------------------------------------------------------------------

    def _join_refusal(self, join: Join) -> ErrorCode:
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if not join.protocol_type or not join.protocols:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        others = [
            member for member in self.members.values() if member.member_id != join.member_id
        ]
        if others and (
            join.protocol_type != self.protocol_type
            or not common_protocols(others).intersection(name for name, _ in join.protocols)
        ):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        is_more = not join.member_id and join.instance_id not in self._static
        if is_more and len(self.members) + len(self._pending) >= self._members_max:
            return ErrorCode.GROUP_MAX_SIZE_REACHED
        return ErrorCode.NONE

    def _join_unknown(
        self, join: Join, member_id: str, now_ms: int, reply: Callable[[JoinAnswer], None]
    ) -> None:
        """Let in who has no member id yet."""
        if join.instance_id is not None and join.instance_id in self._static:
            self._replace(
                self.members[self._static[join.instance_id]], member_id, join, now_ms, reply
            )
        elif join.needs_known_id and join.instance_id is None:
            self._pending[member_id] = now_ms + join.session_timeout_ms
            reply(JoinAnswer(ErrorCode.MEMBER_ID_REQUIRED, member_id))
        else:
            self._admit(member_id, join, now_ms, reply)

    def _admit(
        self, member_id: str, join: Join, now_ms: int, reply: Callable[[JoinAnswer], None]
    ) -> None:
        """Make a new member of it."""
        if not self.members:
            self.protocol_type = join.protocol_type
        member = self.members[member_id] = Member(member_id, join)
        member.join_reply = reply
        member.due_ms = now_ms + NEW_MEMBER_JOIN_MS
        if join.instance_id is not None:
            self._static[join.instance_id] = member_id
        self._came_in_delay = True
        self._rebalance(now_ms)

    def _rejoin(self, join: Join, now_ms: int, reply: Callable[[JoinAnswer], None]) -> None:
        """Let in again who is a member."""
        error = self._member_error(join.member_id, join.instance_id)
        if error:
            reply(JoinAnswer(error, join.member_id))
            return
        member = self.members[join.member_id]
        leads = self.state is State.STABLE and join.member_id == self.leader
        if self.state is State.PREPARING or leads or member.protocols != join.protocols:
            self._await_join(member, join, now_ms, reply)
            self._rebalance(now_ms)
        else:  # it missed the answer to its last join, nothing has changed since
            self._alive(member, now_ms)
            reply(self._join_answer(member))

    def _replace(
        self,
        member: Member,
        member_id: str,
        join: Join,
        now_ms: int,
        reply: Callable[[JoinAnswer], None],
    ) -> None:
        """Give a static member that came back its place, under a new member id [KIP-345]."""
        was, led = member.member_id, member.member_id == self.leader
        member.answer_join(JoinAnswer(ErrorCode.FENCED_INSTANCE_ID, was))
        member.answer_sync(SyncAnswer(ErrorCode.FENCED_INSTANCE_ID))
        self._unsynced.discard(was)
        self.members = {
            (member_id if name == was else name): one for name, one in self.members.items()
        }
        assert member.instance_id is not None
        member.member_id = self._static[member.instance_id] = member_id
        if led:
            self.leader = member_id
        self._await_join(member, join, now_ms, reply)
        if (
            self.state is not State.STABLE
            or select_protocol(self.members.values()) != self.protocol_name
        ):
            self._rebalance(now_ms)
            return
        # Its assignment stands. A client that cannot be told so must not believe that it leads.
        answer = self._join_answer(member)
        if led and not join.can_skip_assignment:
            answer = answer._replace(leader=was, members=())
        elif led:
            answer = answer._replace(skip_assignment=True, members=self._joined_members())
        self._store(partial(self._replaced, member, reply, answer))

    def _replaced(
        self,
        member: Member,
        reply: Callable[[JoinAnswer], None],
        answer: JoinAnswer,
        now_ms: int,
        ok: bool,
    ) -> None:
        if member.join_reply is not reply:
            return  # it was answered otherwise
        if not ok:
            answer = JoinAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE, member.member_id)
        elif self.state is not State.STABLE:
            return  # a rebalance began: its answer is for this join too
        self._alive(member, now_ms)
        member.answer_join(answer)

    def _await_join(
        self, member: Member, join: Join, now_ms: int, reply: Callable[[JoinAnswer], None]
    ) -> None:
        member.answer_join(JoinAnswer(ErrorCode.REBALANCE_IN_PROGRESS, member.member_id))
        member.join_reply = reply
        member.update(join)
        self._alive(member, now_ms)

    def _rebalance(self, now_ms: int) -> None:
        """Ask everybody to join again, unless that is under way."""
        if self.state is State.PREPARING:
            return
        if self.state is State.COMPLETING:
            self._assigning = None
            for member in self.members.values():
                member.assignment = b""
                self._refuse_sync(member, ErrorCode.REBALANCE_IN_PROGRESS, now_ms)
        longest_ms = self._rebalance_timeout_ms()
        if self.state is State.EMPTY:
            # Wait a little for the others, so that a fleet that starts joins once [KIP-134].
            delay_ms = min(self._initial_delay_ms, longest_ms)
            self._initial_left_ms = longest_ms - delay_ms
            self._came_in_delay = False
            self._join_due_ms = now_ms + delay_ms
        else:
            self._join_due_ms = now_ms + longest_ms
        self._unsynced.clear()
        self._step(Event.REBALANCE)

    def _go_on(self, now_ms: int) -> None:
        """End the joining when all have joined or the time for it is up."""
        if self.state is not State.PREPARING:
            return
        assert self._join_due_ms is not None
        if self._join_due_ms <= now_ms:
            if self._initial_left_ms and self._came_in_delay:
                delay_ms = min(self._initial_delay_ms, self._initial_left_ms)
                self._initial_left_ms -= delay_ms
                self._came_in_delay = False
                self._join_due_ms = now_ms + delay_ms
            else:
                self._complete_join(now_ms)
        elif self._initial_left_ms is None and not self._pending and self._all_joined():
            self._complete_join(now_ms)

    def _all_joined(self) -> bool:
        return all(member.join_reply is not None for member in self.members.values())

    def _complete_join(self, now_ms: int) -> None:
        """Begin a generation with those who joined; only static members may be missing."""
        self._initial_left_ms = None
        for member in [*self.members.values()]:
            if member.join_reply is None and member.instance_id is None:
                self._forget(member)
        joined = [
            name for name, member in self.members.items() if member.join_reply is not None
        ]
        if self.members and not joined:
            # Static members only, and none came: their session timeouts decide.
            self._join_due_ms = now_ms + self._rebalance_timeout_ms()
            return
        self._join_due_ms = None
        self.generation += 1
        if not joined:
            self.leader = self.protocol_name = None
            self._step(Event.NONE_LEFT)
            self._store()
            return
        if self.leader not in joined:
            self.leader = joined[0]
        self.protocol_name = select_protocol(self.members.values())
        self._step(Event.ALL_JOINED)
        self._unsynced = set(self.members)
        self._sync_due_ms = now_ms + self._rebalance_timeout_ms()
        for member in [*self.members.values()]:
            member.is_new = False
            self._alive(member, now_ms)
            member.answer_join(self._join_answer(member))

    # --- assigning ----------------------------------------------------------------------------

    def _assigned(self, generation: int, now_ms: int, ok: bool) -> None:
        """Hand out the shares, now that they are stored."""
        if self.state is not State.COMPLETING or generation != self.generation:
            return  # a rebalance came in between; who waited knows already
        if not ok:
            for member in self.members.values():
                self._refuse_sync(member, ErrorCode.COORDINATOR_NOT_AVAILABLE, now_ms)
            self._rebalance(now_ms)
            return
        assert self._assigning is not None
        shares, self._assigning = self._assigning, None
        self._step(Event.ASSIGNED)
        for member in [*self.members.values()]:
            member.assignment = shares.get(member.member_id, b"")
            if member.sync_reply is not None:
                self._alive(member, now_ms)
                self._answer_sync(member)

    def _answer_sync(self, member: Member) -> None:
        member.answer_sync(
            SyncAnswer(
                ErrorCode.NONE, self.protocol_type, self.protocol_name, member.assignment
            )
        )

    def _refuse_sync(self, member: Member, error: ErrorCode, now_ms: int) -> None:
        """Answer a SyncGroup that waits; the member has a session timeout to act on it."""
        if member.sync_reply is not None:
            self._alive(member, now_ms)
            member.answer_sync(SyncAnswer(error))

    # --- members ------------------------------------------------------------------------------

    def _member_error(
        self, member_id: str, instance_id: str | None, generation: int | None = None
    ) -> ErrorCode:
        """Return what is wrong with this identity, NONE if it is a member's."""
        if self.state is State.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if instance_id is not None and self._static.get(instance_id, member_id) != member_id:
            return ErrorCode.FENCED_INSTANCE_ID
        known = member_id in self.members
        if not known or (instance_id is not None and instance_id not in self._static):
            return ErrorCode.UNKNOWN_MEMBER_ID
        if generation is not None and generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        return ErrorCode.NONE

    def _alive(self, member: Member, now_ms: int) -> None:
        member.due_ms = now_ms + member.session_timeout_ms

    def _remove(self, gone: list[Member], now_ms: int) -> None:
        for member in gone:
            self._forget(member)
        if self.state in (State.STABLE, State.COMPLETING):
            self._rebalance(now_ms)

    def _forget(self, member: Member) -> None:
        del self.members[member.member_id]
        self._unsynced.discard(member.member_id)
        if member.instance_id is not None:
            del self._static[member.instance_id]
        if self.leader == member.member_id:
            self.leader = next(iter(self.members), None)
        member.answer_join(JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, member.member_id))
        member.answer_sync(SyncAnswer(ErrorCode.UNKNOWN_MEMBER_ID))

    def _join_answer(self, member: Member) -> JoinAnswer:
        leads = member.member_id == self.leader and self.state is State.COMPLETING
        return JoinAnswer(
            ErrorCode.NONE,
            member.member_id,
            self.generation,
            self.protocol_type,
            self.protocol_name,
            self.leader or "",
            members=self._joined_members() if leads else (),
        )

    def _joined_members(self) -> tuple[JoinedMember, ...]:
        return tuple(
            JoinedMember(one.member_id, one.instance_id, one.metadata_for(self.protocol_name))
            for one in self.members.values()
        )

    def _rebalance_timeout_ms(self) -> int:
        return max((one.rebalance_timeout_ms for one in self.members.values()), default=0)

    def _step(self, event: Event) -> None:
        self.state = NEXT[self.state][event]
