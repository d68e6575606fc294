"""Requests of members of the consumer protocol, to the groups of the table [KIP-848].

`HeartbeatGroups` is what they have in common with share groups (share_groups.py).

A heartbeat is answered when all is durable that it, or one before it, has changed: no member
knows an epoch that a restart would not. The first heartbeat makes the group; one that has no
members and was of the classic protocol changes over, and keeps its offsets; so does one whose
members are consumers, with all of them. Not here: the rules (kafka/consumer_group.py), writing
and timers (groups.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.consumer_types import HeartbeatRefused
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.groups import AnyGroup, GroupTable
    from isthmus.kafka.consumer_types import Heartbeat, HeartbeatAnswer
    from isthmus.runtime import Runtime


class HeartbeatGroups(ABC):
    """The groups of a table whose members call by heartbeats that have epochs."""

    called: ClassVar = "group"

    def __init__(self, runtime: Runtime, groups: GroupTable) -> None:
        self._runtime = runtime
        self._groups = groups

    def heartbeat(
        self,
        group_id: str,
        beat: Heartbeat,
        reply: Callable[[HeartbeatAnswer | HeartbeatRefused], None],
    ) -> None:
        """ConsumerGroupHeartbeat and ShareGroupHeartbeat.

        The answer comes when what it tells is durable.
        """
        try:
            group = self._group_for(group_id, beat)
            answer = group.heartbeat(beat, self._runtime.monotonic_ms())
        except HeartbeatRefused as refused:
            reply(refused)
            return

        def stored(failure: ErrorCode) -> None:
            reply(HeartbeatRefused(failure, "not stored") if failure else answer)

        self._groups.settle(self._groups.instate(group_id, group), stored)

    @abstractmethod
    def _group_for(self, group_id: str, beat: Heartbeat) -> ConsumerGroup:
        """Return the group, a new one where a member begins it. Raises HeartbeatRefused."""

    def _found(self, group_id: str, beat: Heartbeat) -> AnyGroup | None:
        """Return the group of this id, None for one that may begin. Raises HeartbeatRefused."""
        groups = self._groups
        error = groups.refusal()
        state = groups.states.get(group_id)
        if not error and state is None:
            error = ErrorCode.GROUP_ID_NOT_FOUND if beat.epoch else groups.crowding()
        if error:
            raise HeartbeatRefused(error, f"no {self.called} {group_id}")
        return None if state is None else state.group


class ConsumerGroups(HeartbeatGroups):
    """The groups of a table that have the consumer protocol."""

    def _group_for(self, group_id: str, beat: Heartbeat) -> ConsumerGroup:
        groups, group = self._groups, self._found(group_id, beat)
        if isinstance(group, ConsumerGroup):
            if group.kind != ConsumerGroup.kind:
                raise HeartbeatRefused(
                    ErrorCode.GROUP_ID_NOT_FOUND, f"{group_id} is a {group.kind} group"
                )
            return group
        if group is None or (group.is_empty and not beat.epoch):
            return groups.new_consumer_group(group_id)
        upgraded = None if beat.epoch else groups.upgraded(group_id, group)
        if upgraded is None:
            raise HeartbeatRefused(
                ErrorCode.GROUP_ID_NOT_FOUND, f"{group_id} is of the classic protocol"
            )
        return upgraded
