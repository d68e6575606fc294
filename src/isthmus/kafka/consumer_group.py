"""One group of the consumer protocol, as a machine without I/O [KIP-848].

Members say in heartbeats what they read and what they still work on; the group decides who is
to have which partitions, and leads each member there, heartbeat by heartbeat. Three epochs only
grow. That of the group: somebody came, went, or reads other log topics, or these have changed.
That of the target assignment: which epoch of the group it was made for. That of a member: which
target it has come to; a member that shows another one than it was told is fenced.

`heartbeat` answers at once, or raises HeartbeatRefused and has changed nothing. Time is an
argument; `due_ms` says when `tick` is next needed. After any call, `take_unstored` gives the
rows that have changed: an answer may go out when they are durable, and `store_again` takes them
back where that failed. What was kept is handed to `restore`.

Not here: how a member comes to its target (reconciling.py), who is to have what (assignors.py),
what is read (read_topics.py), the forms of the rows (consumer_records.py), offsets and the log
(broker/).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from isthmus.kafka.assignors import ASSIGNORS, DEFAULT_ASSIGNOR, Reader
from isthmus.kafka.consumer_records import CONSUMER
from isthmus.kafka.consumer_types import (
    NEW_HOLDING,
    ConsumerMember,
    GroupRow,
    GroupState,
    HeartbeatAnswer,
    HeartbeatRefused,
    Holding,
    HoldingRow,
    InitializedRow,
    MemberState,
    PatternRow,
    Row,
    Subscription,
    SubscriptionRow,
    TargetEpochRow,
    TargetRow,
    sees_all,
)
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.read_topics import ReadTopics
from isthmus.kafka.reconciling import next_holding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.kafka.assignors import Readers, Shares, TopicPlace
    from isthmus.kafka.consumer_types import Heartbeat, KeptGroup, Terms, Topics

LEAVE = -1  # member epochs of a last heartbeat
LEAVE_FOR_A_WHILE = -2  # a static member that means to come back
NEW_SUBSCRIPTION = Subscription(None, None, "", "", -1, frozenset(), "", None)


class ConsumerGroup:
    """One group of the consumer protocol; see the head of the file for the contract."""

    kind: ClassVar = CONSUMER

    def __init__(
        self,
        group_id: str,
        topics: Topics,
        terms: Callable[[str], Terms],
        *,
        members_max: int = 10_000,
    ) -> None:
        """`terms` are those of a group by its id, now: they may change."""
        self.epoch = 1
        self.target_epoch = 0
        self.members: dict[str, ConsumerMember] = {}
        self.targets: dict[str, frozenset[TopicPlace]] = {}
        self._group_id = group_id
        self._terms = terms
        self._topics = topics
        self.reads = ReadTopics(topics)
        self._members_max = members_max
        self._is_dead = False
        self._static: dict[str, str] = {}  # instance id → member id
        self._held: set[TopicPlace] = set()
        self._assigned_ms: int | None = None  # monotonic
        self._unstored: dict[tuple[type[Row], str], None] = {}  # in the order of the changes

    @property
    def state(self) -> GroupState:
        """Where the group is, by Kafka's name."""
        if self._is_dead:
            return GroupState.DEAD
        if not self.members:
            return GroupState.EMPTY
        if self.epoch > self.target_epoch:
            return GroupState.ASSIGNING
        reached = (self.target_epoch, MemberState.STABLE)
        if all((one.holding.epoch, one.holding.state) == reached for one in self._all()):
            return GroupState.STABLE
        return GroupState.RECONCILING

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in it."""
        return not self.members

    @property
    def is_full(self) -> bool:
        """Whether nobody new may come."""
        return len(self.members) >= self._members_max

    @property
    def is_only_classic(self) -> bool:
        """Whether it has members, and none of them speaks the consumer protocol."""
        speakers = (one for one in self._all() if one.subscription.classic is None)
        return bool(self.members) and next(speakers, None) is None

    @property
    def assignor(self) -> str:
        """The assignor that most members ask for."""
        wishes = [one.subscription.assignor for one in self._all()]
        votes = Counter(wish for wish in wishes if wish is not None)
        return votes.most_common(1)[0][0] if votes else DEFAULT_ASSIGNOR

    # --- requests -----------------------------------------------------------------------------

    def heartbeat(self, beat: Heartbeat, now_ms: int) -> HeartbeatAnswer:
        """Take in what a member says; return what it is to know. Raises HeartbeatRefused."""
        if beat.epoch < 0:
            self._leave(beat)
            return HeartbeatAnswer(beat.member_id, beat.epoch)
        known = self._find(beat)
        if known is None and self.is_full:
            raise HeartbeatRefused(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"{self._group_id} has all members it may have",
            )
        if beat.pattern:
            self._topics.matching(beat.pattern)
        was = NEW_SUBSCRIPTION if known is None else known.subscription
        member, has_changed = self.enter(
            beat.member_id, known, _said(was, beat), beat.owned, now_ms, beat.sees
        )
        holding = member.holding
        return HeartbeatAnswer(
            member.member_id,
            holding.epoch,
            self._terms(self._group_id).heartbeat_interval_ms,
            frozenset(holding.assigned) if beat.is_full or has_changed else None,
        )

    def enter(
        self,
        member_id: str,
        known: ConsumerMember | None,
        said: Subscription,
        owned: frozenset[TopicPlace] | None,
        now_ms: int,
        sees: Callable[[str], bool] = sees_all,
    ) -> tuple[ConsumerMember, bool]:
        """Take in a sign of life, in either protocol; say whether its share has changed.

        `known` is the member as it was, None where it is new; under another id it is a static
        one that gives its place.
        """
        member = self._admit(member_id, known)
        member.sees = sees
        reads_other = self._update(member, said)
        if self._look_at_topics() or reads_other or known is None:
            self._bump()
        if self.epoch > self.target_epoch:
            self._assign(now_ms)
        before = member.holding.assigned.keys()
        self._reconcile(member, owned, now_ms)
        self.is_alive(member, now_ms)
        return member, member.holding.assigned.keys() != before

    def is_alive(self, member: ConsumerMember, now_ms: int) -> None:
        """Note that a member lives."""
        classic = member.subscription.classic
        terms = self._terms(self._group_id) if classic is None else classic
        member.due_ms = now_ms + terms.session_timeout_ms

    def check_commit(
        self,
        member_id: str,
        instance_id: str | None,
        epoch: int,
        _now_ms: int,
        *,
        places: Iterable[TopicPlace] = (),
        knows_epochs: bool = True,
    ) -> ErrorCode:
        """Say whether this member may commit offsets of these places now.

        An epoch before the member's will do for what it has had since then [KIP-1251]. Who is
        no member (epoch -1) may while the group is empty.
        """
        if epoch < 0 and not self.members:
            return ErrorCode.NONE
        member = self.members.get(member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        holding = member.holding
        if member.subscription.classic is not None:
            is_current = epoch == holding.epoch
            return ErrorCode.NONE if is_current else ErrorCode.ILLEGAL_GENERATION
        if not knows_epochs:
            return ErrorCode.UNSUPPORTED_VERSION
        if epoch == holding.epoch:
            return ErrorCode.NONE
        since = holding.assigned | holding.revoking
        if epoch > holding.epoch or any(epoch < since.get(one, epoch + 1) for one in places):
            return ErrorCode.STALE_MEMBER_EPOCH
        return ErrorCode.NONE

    def check_fetch(self, member_id: str | None, epoch: int) -> ErrorCode:
        """Say whether who says to be this member may be told the offsets."""
        if member_id is None and epoch < 0:
            return ErrorCode.NONE
        member = self.members.get(member_id or "")
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if epoch == member.holding.epoch:
            return ErrorCode.NONE
        is_classic = member.subscription.classic is not None
        return ErrorCode.ILLEGAL_GENERATION if is_classic else ErrorCode.STALE_MEMBER_EPOCH

    def subscribed(self) -> frozenset[str]:
        """Return the log topics that the members read."""
        return self.reads.names(self._subscriptions())

    def forgets_since(self, _since_ms: int) -> int | None:
        """Return 0: only their commits count for offsets of what nobody reads."""
        return 0

    def delete(self) -> ErrorCode:
        """End the group for good, if it has no members."""
        if self._is_dead:
            return ErrorCode.GROUP_ID_NOT_FOUND
        if self.members:
            return ErrorCode.NON_EMPTY_GROUP
        self._is_dead = True
        return ErrorCode.NONE

    # --- time ---------------------------------------------------------------------------------

    def due_ms(self) -> int | None:
        """Return when `tick` must be called next, or None while nothing can lapse."""
        dues = [member.due_ms for member in self._all()]
        dues += [member.act_due_ms for member in self._all() if member.act_due_ms is not None]
        return min(dues, default=None)

    def tick(self, now_ms: int) -> None:
        """Put out who was silent, or did not give up what it was to."""
        late = [
            member
            for member in self._all()
            if member.due_ms <= now_ms
            or (member.act_due_ms is not None and member.act_due_ms <= now_ms)
        ]
        if late:
            self.remove(late)

    # --- storing ------------------------------------------------------------------------------

    def take_unstored(self) -> list[Row]:
        """Return the rows that have changed since the last call.

        What is gone comes first, holdings before targets before subscriptions: so Apache Kafka
        expects to read them.
        """
        rows = [self._row(kind, name) for kind, name in self._unstored]
        self._unstored.clear()
        gone = [row for row in rows if row[-1] is None]
        there = [row for row in rows if row[-1] is not None]
        return sorted(gone, key=_place, reverse=True) + sorted(there, key=_place)

    def store_again(self, rows: Iterable[Row]) -> None:
        """These rows are not durable: they are due again with the next change."""
        self._unstored.update(dict.fromkeys((type(row), _name(row)) for row in rows))

    def all_rows(self) -> list[Row]:
        """Return all rows that there are of the group: those that its end has to remove."""
        kinds = ((SubscriptionRow, self.members), (TargetRow, self.targets))
        named = [self._row(kind, name) for kind, names in kinds for name in names]
        named += [self._row(HoldingRow, name) for name in self.members]
        named += [self._row(PatternRow, pattern) for pattern in self.reads.matched]
        return [*named, self._row(GroupRow, ""), self._row(TargetEpochRow, "")]

    def restore(self, kept: KeptGroup, now_ms: int) -> None:
        """Become the group that was kept; its members have one session timeout to call."""
        self.epoch, self.reads.digest = kept.epoch or 1, kept.digest
        self.target_epoch = kept.target_epoch
        self.reads.matched = dict(kept.patterns)
        for member_id, subscription in kept.subscriptions.items():
            member = self._admit(member_id, None)
            member.subscription = subscription
            member.matched = kept.patterns.get(subscription.pattern, frozenset())
            if subscription.instance_id is not None:
                self._static[subscription.instance_id] = member_id
            self._hold(member, kept.holdings.get(member_id, NEW_HOLDING), now_ms)
            self.is_alive(member, now_ms)
            if member_id in kept.targets:
                self.targets[member_id] = kept.targets[member_id]
        self._unstored.clear()

    def _changed(self, kind: type[Row], name: str = "") -> None:
        self._unstored[kind, name] = None

    def _row(self, kind: type[Row], name: str) -> Row:
        """Return a row as it is to be now."""
        member = self.members.get(name)
        if kind is SubscriptionRow:
            return SubscriptionRow(name, None if member is None else member.subscription)
        if kind is HoldingRow:
            return HoldingRow(name, None if member is None else member.holding)
        if kind is TargetRow:
            return TargetRow(name, self.targets.get(name))
        if kind is PatternRow:
            return PatternRow(name, self.reads.matched.get(name))
        if kind is TargetEpochRow:
            return TargetEpochRow(self.target_epoch)
        return GroupRow(self.reads.digest, self.epoch)

    # --- members ------------------------------------------------------------------------------

    def _all(self) -> Iterable[ConsumerMember]:
        return self.members.values()

    def look(self) -> None:
        """Notice log topics that have come, grown or gone."""
        if self._look_at_topics():
            self._bump()

    def by_name(self, places: Iterable[TopicPlace]) -> dict[str, list[int]]:
        """Return partitions by the names of their log topics."""
        return self.reads.by_name(self._subscriptions(), places)

    def _subscriptions(self) -> Iterable[Subscription]:
        return (member.subscription for member in self.members.values())

    def _look_at_topics(self) -> bool:
        """Look up what is read; return whether that is not what it was."""
        is_other, patterns = self.reads.look(self.members.values())
        for pattern in patterns:
            self._changed(PatternRow, pattern)
        return is_other

    def static_member(self, instance_id: str) -> ConsumerMember | None:
        """Return the member that has this instance id."""
        return self.members.get(self._static.get(instance_id, ""))

    def waits_for_others(self, member: ConsumerMember) -> bool:
        """Whether others hold all that a member is to have and has not."""
        target = self.targets.get(member.member_id, frozenset())
        return self._held.issuperset(target - member.holding.assigned.keys())

    def _find(self, beat: Heartbeat) -> ConsumerMember | None:
        """Return the member that this is, None for a new one. Raises HeartbeatRefused."""
        member = self.members.get(beat.member_id)
        if beat.instance_id is not None:
            member = self._find_static(beat.instance_id, beat)
        elif member is None and beat.epoch != 0:
            raise HeartbeatRefused(
                ErrorCode.UNKNOWN_MEMBER_ID,
                f"{beat.member_id} is no member of group {self._group_id}",
            )
        if member is not None and beat.epoch > 0:
            _check_epoch(member.holding, beat)
        return member

    def _find_static(self, instance_id: str, beat: Heartbeat) -> ConsumerMember | None:
        holder = self._static.get(instance_id)
        if beat.epoch == 0:
            if holder is None:
                return self.members.get(beat.member_id)
            member = self.members[holder]
            is_classic = member.subscription.classic is not None
            if member.holding.epoch != LEAVE_FOR_A_WHILE and not is_classic:
                raise HeartbeatRefused(
                    ErrorCode.UNRELEASED_INSTANCE_ID,
                    f"instance {instance_id} is {holder}, and has not left",
                )
            return member
        if holder is None:
            raise HeartbeatRefused(
                ErrorCode.UNKNOWN_MEMBER_ID, f"instance {instance_id} is not known"
            )
        if holder != beat.member_id:
            raise HeartbeatRefused(
                ErrorCode.FENCED_INSTANCE_ID, f"instance {instance_id} is {holder} now"
            )
        return self.members[holder]

    def _admit(self, member_id: str, known: ConsumerMember | None) -> ConsumerMember:
        """Return the member of this id: new, as it was, or in the place of a static one."""
        if known is not None and known.member_id == member_id:
            return known
        member = self.members[member_id] = ConsumerMember(member_id, NEW_SUBSCRIPTION)
        if known is not None:
            was = known.member_id
            member.subscription = known.subscription
            member.holding = known.holding._replace(epoch=0, previous_epoch=0)
            del self.members[was]
            if was in self.targets:
                self.targets[member_id] = self.targets.pop(was)
            for kind in (SubscriptionRow, TargetRow, HoldingRow):
                self._changed(kind, was)
            self._changed(TargetRow, member_id)
            if member.subscription.instance_id is not None:
                self._static[member.subscription.instance_id] = member_id
        for kind in (SubscriptionRow, HoldingRow):
            self._changed(kind, member_id)
        return member

    def _update(self, member: ConsumerMember, said: Subscription) -> bool:
        """Take over what the member says; return whether it reads other things now."""
        was = member.subscription
        if said == was:
            return False
        member.subscription = said
        self._changed(SubscriptionRow, member.member_id)
        if said.instance_id is not None:
            self._static[said.instance_id] = member.member_id
        if (said.topic_names, said.pattern) == (was.topic_names, was.pattern):
            return False
        self.reads.forget()
        return True

    def _leave(self, beat: Heartbeat) -> None:
        member = self._find(beat)
        assert member is not None
        if beat.epoch == LEAVE_FOR_A_WHILE:  # its place stays, until the session times out
            held = member.holding.assigned
            gone = Holding(LEAVE_FOR_A_WHILE, 0, MemberState.STABLE, held, {})
            self._hold(member, gone, 0)
        else:
            self.remove([member])

    def remove(self, gone: Iterable[ConsumerMember]) -> None:
        """Put out members: their partitions are free."""
        for member in gone:
            name, instance_id = member.member_id, member.subscription.instance_id
            del self.members[name]
            self.targets.pop(name, None)
            self._held -= member.holding.all_places
            if instance_id is not None:
                del self._static[instance_id]
            for kind in (SubscriptionRow, TargetRow, HoldingRow):
                self._changed(kind, name)
        self.reads.forget()
        self._look_at_topics()
        self._bump()

    def _bump(self) -> None:
        self.epoch += 1
        self._changed(GroupRow)

    # --- assigning ----------------------------------------------------------------------------

    def _assign(self, now_ms: int) -> None:
        """Decide anew who is to have what, unless that was done just now."""
        interval_ms = self._terms(self._group_id).assignment_interval_ms
        if self._assigned_ms is not None and now_ms < self._assigned_ms + interval_ms:
            return
        self._assigned_ms = now_ms
        readers = {
            member.member_id: Reader(
                member.subscription.instance_id,
                self.reads.ids(member),
                self.targets.get(member.member_id, frozenset()),
            )
            for member in self._all()
        }
        shares = self._shares(readers)
        for member_id, share in shares.items():
            target = frozenset(share)
            if self.targets.get(member_id) != target:
                self.targets[member_id] = target
                self._changed(TargetRow, member_id)
        self.target_epoch = self.epoch
        self._changed(TargetEpochRow)

    def _shares(self, readers: Readers) -> Shares:
        return ASSIGNORS[self.assignor](readers, self.reads.partitions())

    def _reconcile(
        self, member: ConsumerMember, owned: frozenset[TopicPlace] | None, now_ms: int
    ) -> None:
        """Bring a member one step towards its target."""
        target = self.targets.get(member.member_id, frozenset())
        before = member.holding
        topic_ids = self.reads.ids(member)
        after = next_holding(before, self.target_epoch, target, topic_ids, self._held, owned)
        if after is not before:
            self._hold(member, after, now_ms)

    def _hold(self, member: ConsumerMember, holding: Holding, now_ms: int) -> None:
        self._held -= member.holding.all_places
        self._held |= holding.all_places
        member.holding = holding
        member.act_due_ms = None
        is_classic = member.subscription.classic is not None
        if holding.state is MemberState.UNREVOKED and not is_classic:
            member.act_due_ms = now_ms + member.subscription.rebalance_timeout_ms
        self._changed(HoldingRow, member.member_id)


def _said(was: Subscription, beat: Heartbeat) -> Subscription:
    """Return what a member has said by now: what a heartbeat leaves out is as it was."""
    timeout_ms = beat.rebalance_timeout_ms
    return Subscription(
        was.instance_id if beat.instance_id is None else beat.instance_id,
        was.rack_id if beat.rack_id is None else beat.rack_id,
        beat.client_id,
        beat.client_host,
        was.rebalance_timeout_ms if timeout_ms < 0 else timeout_ms,
        was.topic_names if beat.topic_names is None else beat.topic_names,
        was.pattern if beat.pattern is None else beat.pattern,
        was.assignor if beat.assignor is None else beat.assignor,
    )


def _check_epoch(holding: Holding, beat: Heartbeat) -> None:
    """Let pass who knows its epoch, or whose last answer was lost. Raises HeartbeatRefused."""
    if beat.epoch == holding.epoch:
        return
    missed_one = (
        beat.epoch == holding.previous_epoch
        and beat.owned is not None
        and beat.owned <= holding.assigned.keys()
    )
    if beat.epoch > holding.epoch or not missed_one:
        raise HeartbeatRefused(
            ErrorCode.FENCED_MEMBER_EPOCH,
            f"member epoch {beat.epoch}, and the group knows {holding.epoch}: join again",
        )


_ORDER = (
    *(SubscriptionRow, PatternRow, GroupRow),
    *(TargetRow, TargetEpochRow, HoldingRow, InitializedRow),
)


def _place(row: Row) -> int:
    return _ORDER.index(type(row))


def _name(row: Row) -> str:
    return row[0] if isinstance(row[0], str) else ""
