"""One share group, as a machine without I/O [KIP-932].

It is a group of the consumer protocol without reconciling: a partition may have many readers at
one time, so a member gives up nothing first, and comes to each new target at once. Who joins
may read what is there of its log topics; the group notes which partitions it has begun to read,
because what becomes of their records is kept from then on.

Not here: the records (share_partition.py), what all groups with heartbeats have
(consumer_group.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from isthmus.kafka.assignors import SIMPLE, assign_simple
from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.consumer_records import SHARE
from isthmus.kafka.consumer_types import (
    Begun,
    GroupRow,
    GroupState,
    Holding,
    InitializedRow,
    MemberState,
    TargetEpochRow,
    sees_all,
)
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.kafka.assignors import Readers, Shares, TopicPlace
    from isthmus.kafka.consumer_types import (
        ConsumerMember,
        KeptGroup,
        Row,
        Subscription,
        Terms,
        Topics,
    )


class ShareGroup(ConsumerGroup):
    """One share group; the contract is that of `ConsumerGroup`."""

    kind: ClassVar = SHARE

    def __init__(
        self,
        group_id: str,
        topics: Topics,
        terms: Callable[[str], Terms],
        *,
        members_max: int = 200,
    ) -> None:
        super().__init__(group_id, topics, terms, members_max=members_max)
        self.initialized: dict[bytes, Begun] = {}

    @property
    def state(self) -> GroupState:
        """Where the group is: it has members or it has none."""
        state = super().state
        return state if state in (GroupState.DEAD, GroupState.EMPTY) else GroupState.STABLE

    @property
    def assignor(self) -> str:
        """The only one there is."""
        return SIMPLE

    def enter(
        self,
        member_id: str,
        known: ConsumerMember | None,
        said: Subscription,
        owned: frozenset[TopicPlace] | None,
        now_ms: int,
        sees: Callable[[str], bool] = sees_all,
    ) -> tuple[ConsumerMember, bool]:
        """Take in a sign of life; note what the group reads for the first time."""
        entered = super().enter(member_id, known, said, owned, now_ms, sees)
        for name in self.subscribed():
            found = self._topics.find(name)
            if found is not None:
                self.initialize(found[0], name, range(found[1]))
        return entered

    def make_known(self) -> None:
        """Have it kept from now on, whether anybody was in it or not."""
        self._changed(GroupRow)
        self._changed(TargetEpochRow)

    def initialize(self, topic_id: bytes, name: str, indexes: Iterable[int]) -> None:
        """Note that what becomes of records of these partitions is kept from now on."""
        before = self.initialized.get(topic_id, Begun(name, frozenset()))
        after = Begun(name, before.partitions.union(indexes))
        if after != before:
            self.initialized[topic_id] = after
            self._changed(InitializedRow)

    def forget(self, topic_id: bytes) -> None:
        """Note that nothing of a log topic is kept any more."""
        if self.initialized.pop(topic_id, None) is not None:
            self._changed(InitializedRow)

    def all_rows(self) -> list[Row]:
        """Return all rows that there are of the group: those that its end has to remove."""
        return [*super().all_rows(), self._row(InitializedRow, "")]

    def restore(self, kept: KeptGroup, now_ms: int) -> None:
        """Become the group that was kept; its members have one session timeout to call."""
        super().restore(kept, now_ms)
        self.initialized = dict(kept.initialized)

    def check_commit(
        self,
        _member_id: str,
        _instance_id: str | None,
        _epoch: int,
        _now_ms: int,
        *,
        places: Iterable[TopicPlace] = (),
        knows_epochs: bool = True,
    ) -> ErrorCode:
        """Refuse: how far a share group has come is not for its members to say."""
        del places, knows_epochs
        return ErrorCode.GROUP_ID_NOT_FOUND

    def check_fetch(self, _member_id: str | None, _epoch: int) -> ErrorCode:
        """Let anybody be told that nothing was committed."""
        return ErrorCode.NONE

    def forgets_since(self, _since_ms: int) -> None:
        """Return None: it is kept until somebody deletes it."""

    def _row(self, kind: type[Row], name: str) -> Row:
        if kind is InitializedRow:
            return InitializedRow(dict(self.initialized))
        return super()._row(kind, name)

    def _shares(self, readers: Readers) -> Shares:
        return assign_simple(readers, self.reads.partitions())

    def _reconcile(
        self, member: ConsumerMember, _owned: frozenset[TopicPlace] | None, now_ms: int
    ) -> None:
        before = member.holding
        target = self.targets.get(member.member_id, frozenset())
        if before.epoch == self.target_epoch and before.assigned.keys() == target:
            return
        assigned = dict.fromkeys(target, self.target_epoch)
        after = Holding(self.target_epoch, before.epoch, MemberState.STABLE, assigned, {})
        self._hold(member, after, now_ms)
