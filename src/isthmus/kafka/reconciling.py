"""One step of a member from what it has towards what it is to have [KIP-848].

First a member gives up what it is to lose, and says so; only then does it come to the new
epoch, and gets of the rest what nobody else holds. So no partition ever has two readers, and
who has nothing to give up waits for nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.kafka.consumer_types import Held, Holding, MemberState

if TYPE_CHECKING:
    from collections.abc import Collection

    from isthmus.kafka.assignors import TopicPlace


def next_holding(
    now: Holding,
    target_epoch: int,
    target: frozenset[TopicPlace],
    topic_ids: frozenset[bytes],
    held: Collection[TopicPlace],
    owned: frozenset[TopicPlace] | None,
) -> Holding:
    """Return what the member has after this heartbeat; the same object where nothing changes.

    `topic_ids` are those that it reads now, `held` is what anybody holds, `owned` what the
    member says that it still works on (None: it does not say).
    """
    if now.state is MemberState.UNREVOKED:
        if _still_owns(now.revoking, owned):
            return _without_unread(now, topic_ids)
        return _towards(
            now, min(now.epoch + 1, target_epoch), target_epoch, target, topic_ids, held, owned
        )
    if now.state is MemberState.STABLE and now.epoch == target_epoch:
        return _without_unread(now, topic_ids)
    return _towards(now, now.epoch, target_epoch, target, topic_ids, held, owned)


def _still_owns(revoking: Held, owned: frozenset[TopicPlace] | None) -> bool:
    return owned is None or not owned.isdisjoint(revoking)


def _without_unread(now: Holding, topic_ids: frozenset[bytes]) -> Holding:
    """Take away at once what the member no longer reads."""
    unread = {
        place: epoch for place, epoch in now.assigned.items() if place[0] not in topic_ids
    }
    if not unread:
        return now
    kept = {place: epoch for place, epoch in now.assigned.items() if place not in unread}
    return now._replace(
        state=MemberState.UNREVOKED, assigned=kept, revoking=now.revoking | unread
    )


def _towards(
    now: Holding,
    epoch: int,
    target_epoch: int,
    target: frozenset[TopicPlace],
    topic_ids: frozenset[bytes],
    held: Collection[TopicPlace],
    owned: frozenset[TopicPlace] | None,
) -> Holding:
    wanted = {place for place in target if place[0] in topic_ids}
    kept = {place: since for place, since in now.assigned.items() if place in wanted}
    revoking = {place: since for place, since in now.assigned.items() if place not in wanted}
    if revoking and _still_owns(revoking, owned):
        return Holding(epoch, now.epoch, MemberState.UNREVOKED, kept, revoking)
    missing = wanted - kept.keys()
    free = {place: target_epoch for place in missing if place not in held}
    state = MemberState.STABLE if len(free) == len(missing) else MemberState.UNRELEASED
    reached = Holding(target_epoch, now.epoch, state, kept | free, {})
    is_same = reached._replace(previous_epoch=now.previous_epoch) == now
    return now if is_same else reached
