"""How far groups have come: offsets committed, told, deleted, and forgotten in time.

A commit is answered when it is durable, and nobody is told of an offset that a restart would
not know. Whether a member may commit is its group's business (kafka/group.py); the groups
themselves, and the log behind them, are in groups.py. An offset is forgotten, a retention time
after its commit, when nobody reads its log topic any more: its group has had no members for as
long, or its members read other log topics. A group that has nothing left goes with its offsets.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from isthmus.broker.pending_offsets import UNSTABLE
from isthmus.kafka.consumer_group import ConsumerGroup
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group_records import CommittedOffset, OffsetKey, offset_key, offset_value
from isthmus.kafka.share_group import ShareGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from isthmus.broker.groups import GroupTable, Place, StoredState
    from isthmus.broker.state_log import Rows
    from isthmus.kafka.transaction import Producer
    from isthmus.runtime import Runtime

logger = logging.getLogger(__name__)

EXPIRY_CHECK_MS = 600_000
ANYONE = ("", None, -1)  # a member that does not say who it is


class GroupOffsets:
    """The committed offsets of all groups of a table."""

    def __init__(
        self, runtime: Runtime, groups: GroupTable, *, retention_ms: int = 604_800_000
    ) -> None:
        self._runtime = runtime
        self._groups = groups
        self._retention_ms = retention_ms
        runtime.later(EXPIRY_CHECK_MS, self._expire)

    def commit(
        self,
        group_id: str,
        member: tuple[str, str | None, int],
        offsets: Mapping[Place, CommittedOffset],
        reply: Callable[[ErrorCode], None],
        *,
        knows_epochs: bool = True,
        producer: Producer | None = None,
    ) -> None:
        """OffsetCommit of the `member` (id, instance id, generation): all or nothing.

        Who commits to a group that is not there makes it, unless it claims to be a member.
        `knows_epochs`: the request is of a version that knows epochs of members [KIP-848].
        With a `producer` this is TxnOffsetCommit: the offsets count when its transaction
        commits, and old clients do not say there who they are.
        """
        error = self._groups.refusal()
        state = self._groups.states.get(group_id)
        if not error and state is None and member[2] >= 0:
            error = ErrorCode.GROUP_ID_NOT_FOUND
        if not error and state is not None:
            in_transaction = producer is not None
            now_ms = self._runtime.monotonic_ms()
            if in_transaction and member == ANYONE and state.group.kind != ShareGroup.kind:
                error = ErrorCode.NONE
            elif isinstance(state.group, ConsumerGroup):
                places = [(of.topic_id, place[1]) for place, of in offsets.items()]
                error = state.group.check_commit(
                    *member, now_ms, places=places, knows_epochs=knows_epochs
                )
            else:
                error = state.group.check_commit(*member, now_ms, in_transaction=in_transaction)
        if error:
            reply(error)
            return
        self.store(group_id, offsets, reply, producer=producer)

    def store(
        self,
        group_id: str,
        offsets: Mapping[Place, CommittedOffset],
        reply: Callable[[ErrorCode], None],
        *,
        producer: Producer | None = None,
    ) -> None:
        """Write offsets of whoever was found to be entitled; answered when durable."""
        state = self._groups.states.get(group_id)
        error = self._groups.crowding() if state is None else ErrorCode.NONE
        if error or not offsets:
            reply(error)
            return
        groups = self._groups
        committing = groups.open(group_id) if state is None else state
        number = groups.pending.number
        held = None if producer is None else groups.hold(producer[0], committing, offsets)

        def stored(failure: ErrorCode) -> None:
            if held is not None:
                if failure:
                    groups.release(held, commits=False)
            elif not failure:
                groups.pending.overtake(group_id, offsets, number)
                for place, committed in offsets.items():
                    if not self._groups.is_of_another(place, committed):
                        committing.offsets[place] = committed
            reply(failure)
            self._groups.drop_if_blank(committing)

        rows: Rows = [
            (offset_key(OffsetKey(group_id, *place)), offset_value(committed))
            for place, committed in offsets.items()
        ]
        self._groups.write(committing, rows, stored, producer=producer)

    def committed(
        self,
        group_id: str,
        member_id: str | None = None,
        epoch: int = -1,
        *,
        stable: bool = False,
    ) -> dict[Place, CommittedOffset] | ErrorCode:
        """OffsetFetch: return all that the group has committed, empty for an unknown group.

        A member of the consumer protocol has to be at the epoch it shows. `stable`: UNSTABLE in
        place of what an open transaction may be about to change.
        """
        error = self._groups.refusal()
        state = self._groups.states.get(group_id)
        if not error and state is not None and isinstance(state.group, ConsumerGroup):
            error = state.group.check_fetch(member_id, epoch)
        if error:
            return error
        if state is None:
            return {}
        unstable = self._groups.pending.unstable(group_id) if stable else None
        if not unstable:
            return state.offsets
        return {**state.offsets, **dict.fromkeys(unstable, UNSTABLE)}

    def delete(
        self,
        group_id: str,
        places: Iterable[Place],
        reply: Callable[[dict[Place, ErrorCode] | ErrorCode], None],
    ) -> None:
        """OffsetDelete: a code for each place, or one for all [KIP-496].

        What members read keeps its offsets. A group whose members read what the server cannot
        know keeps all of them.
        """
        error = self._groups.refusal()
        state = self._groups.states.get(group_id)
        if not error and not group_id:
            error = ErrorCode.INVALID_GROUP_ID
        if error or state is None or isinstance(state.group, ShareGroup):
            reply(error or ErrorCode.GROUP_ID_NOT_FOUND)
            return
        subscribed = state.group.subscribed()
        if subscribed is None:
            reply(ErrorCode.NON_EMPTY_GROUP)
            return
        codes = {
            place: ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
            if place[0] in subscribed
            else ErrorCode.NONE
            for place in places
        }
        gone = [place for place, code in codes.items() if not code]
        self._forget(state, gone, lambda failure: reply(failure or codes))

    def forget_log_topic(self, name: str) -> None:
        """A log topic was deleted: what groups committed in it means nothing any more."""
        for state in [*self._groups.states.values()]:
            self._forget(state, [place for place in state.offsets if place[0] == name], _ignore)

    def _forget(
        self, state: StoredState, places: Iterable[Place], reply: Callable[[ErrorCode], None]
    ) -> None:
        """Forget committed offsets, durably."""
        gone = [place for place in places if place in state.offsets]
        if not gone:
            reply(ErrorCode.NONE)
            return
        number = self._groups.pending.number

        def stored(failure: ErrorCode) -> None:
            if not failure:
                self._groups.pending.overtake(state.group_id, gone, number)
                for place in gone:
                    state.offsets.pop(place, None)
            reply(failure)
            self._groups.drop_if_blank(state)

        rows: Rows = [(offset_key(OffsetKey(state.group_id, *place)), None) for place in gone]
        self._groups.write(state, rows, stored)

    # --- forgetting in time -------------------------------------------------------------------

    def _expire(self) -> None:
        if not self._groups.refusal():
            oldest_ms = self._runtime.now_ms() - self._retention_ms
            for state in [*self._groups.states.values()]:
                if not state.writing:
                    self._expire_group(state, oldest_ms)
        self._runtime.later(EXPIRY_CHECK_MS, self._expire)

    def _expire_group(self, state: StoredState, oldest_ms: int) -> None:
        group = state.group
        since_ms = group.forgets_since(state.since_ms)
        if since_ms is None:
            return
        read = group.subscribed() or frozenset()
        places = [
            place
            for place, committed in state.offsets.items()
            if place[0] not in read and max(committed.commit_ms, since_ms) < oldest_ms
        ]
        is_forgotten = len(places) == len(state.offsets) and state.since_ms < oldest_ms
        if group.is_empty and is_forgotten:
            if not group.delete():
                logger.info("group expired group=%s", state.group_id)
                self._groups.drop(state, _ignore)
        else:
            self._forget(state, places, _ignore)


def _ignore(_: Any) -> None:
    """What becomes of it is in the log."""
