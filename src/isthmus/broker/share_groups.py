"""Requests about share groups, to the groups of the table and the share partitions [KIP-932].

A heartbeat is answered when what it tells is durable, as with consumer groups; the first one
makes the group. Where a group starts can be asked for, and while it has no members it can be
set, or forgotten: what is set makes the group, if there is none.

Not here: giving out records (share_fetches.py), the rules (kafka/share_group.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isthmus.broker.consumer_groups import HeartbeatGroups
from isthmus.kafka.consumer_types import HeartbeatRefused
from isthmus.kafka.errors import ErrorCode, RefusedWithCode
from isthmus.kafka.share_group import ShareGroup
from isthmus.kafka.share_records import ShareKey

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from isthmus.broker.groups import GroupTable, StoredState
    from isthmus.broker.share_sessions import Wanted
    from isthmus.broker.share_states import ShareStates
    from isthmus.kafka.consumer_types import Begun, Heartbeat
    from isthmus.runtime import Runtime


class GroupRefused(RefusedWithCode):
    """A request that a group does not take; `code` is for its client."""


class Started(NamedTuple):
    """Where a share group is in a partition; -1 where that is not decided."""

    start_offset: int = -1
    done_count: int = 0


class ShareGroups(HeartbeatGroups):
    """The share groups of a table."""

    called = "share group"

    def __init__(self, runtime: Runtime, groups: GroupTable, states: ShareStates) -> None:
        super().__init__(runtime, groups)
        self._states = states

    def _group_for(self, group_id: str, beat: Heartbeat) -> ShareGroup:
        group = self._found(group_id, beat)
        if group is None:
            return self._groups.new_share_group(group_id)
        if not isinstance(group, ShareGroup):
            raise HeartbeatRefused(
                ErrorCode.GROUP_ID_NOT_FOUND, f"{group_id} is a {group.kind} group"
            )
        return group

    # --- where groups are ---------------------------------------------------------------------

    def begun(self, group_id: str) -> Mapping[bytes, Begun]:
        """Return what a group has begun to read, empty for one that there is not."""
        state = self._groups.states.get(group_id)
        group = None if state is None else state.group
        return group.initialized if isinstance(group, ShareGroup) else {}

    def started(self, group_id: str, wanted: Wanted) -> Started:
        """Return where a group is in a partition."""
        place = self._states.places.get(ShareKey(group_id, *wanted))
        shared = None if place is None else place.partition
        return Started() if shared is None else Started(shared.start_offset, shared.done_count)

    def refusal(self) -> ErrorCode:
        """Return why nothing can be said of any group now, or NONE."""
        if self._states.is_loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return self._groups.refusal()

    def set_starts(
        self,
        group_id: str,
        starts: Mapping[Wanted, tuple[str, int]],
        reply: Callable[[ErrorCode], None],
    ) -> None:
        """AlterShareGroupOffsets, of partitions that there are: name and start of each.

        Raises GroupRefused; else the answer comes when it is durable.
        """
        state = self._empty(group_id)
        if state is None:
            error = self._groups.crowding()
            if error:
                raise GroupRefused(error, "there are as many groups as may be")
            state = self._groups.instate(group_id, self._groups.new_share_group(group_id))
        group = state.group
        assert isinstance(group, ShareGroup)
        group.make_known()
        for (topic_id, index), (name, _) in starts.items():
            group.initialize(topic_id, name, [index])
        places = [
            self._states.begin(ShareKey(group_id, *wanted), start)
            for wanted, (_, start) in starts.items()
        ]

        def stored(code: ErrorCode) -> None:
            if code:
                reply(code)
            else:
                self._states.snapshot(places, reply)

        self._groups.settle(state, stored)

    def forget_topics(
        self, group_id: str, topic_ids: Collection[bytes], reply: Callable[[ErrorCode], None]
    ) -> None:
        """DeleteShareGroupOffsets, of log topics of which something is known.

        Raises GroupRefused; else the answer comes when it is durable.
        """
        state = self._empty(group_id)
        if state is None:
            raise GroupRefused(ErrorCode.GROUP_ID_NOT_FOUND, f"no share group {group_id}")
        group = state.group
        assert isinstance(group, ShareGroup)
        for topic_id in topic_ids:
            group.forget(topic_id)
        keys = [key for key in self._states.of_group(group_id) if key.topic_id in topic_ids]

        def forgotten(code: ErrorCode) -> None:
            if code:
                reply(code)
            else:
                self._groups.settle(state, reply)

        self._states.drop(keys, forgotten)

    def forget_log_topics(self, there: Callable[[bytes], object]) -> None:
        """Some log topic was deleted: no group has begun to read what is not there."""
        for state in [*self._groups.states.values()]:
            group = state.group
            if not isinstance(group, ShareGroup):
                continue
            gone = [topic_id for topic_id in group.initialized if there(topic_id) is None]
            for topic_id in gone:
                group.forget(topic_id)
            if gone:
                self._groups.settle(state)

    def _empty(self, group_id: str) -> StoredState | None:
        """Return a share group without members, None for no group. Raises GroupRefused."""
        error = self.refusal()
        if error:
            raise GroupRefused(error, "not all is read back yet")
        state = self._groups.states.get(group_id)
        if state is None:
            return None
        if not isinstance(state.group, ShareGroup):
            raise GroupRefused(
                ErrorCode.GROUP_ID_NOT_FOUND, f"{group_id} is a {state.group.kind} group"
            )
        if not state.group.is_empty:
            raise GroupRefused(ErrorCode.NON_EMPTY_GROUP, f"{group_id} has members")
        return state
