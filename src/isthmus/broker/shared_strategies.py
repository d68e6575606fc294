"""The strategies of shared subscriptions beside `fair`: who of a group gets a message.

`sticky`, the same one as long as it has room; `hash`, the one to whom the key belongs, so that
what has one key comes in its order. What a group is, and what becomes of a message, is in
shared.py. Compiled, as part of the path of every message.
"""

from __future__ import annotations

from hashlib import shake_128
from typing import TYPE_CHECKING, Final
from zlib import crc32

from isthmus.broker.shared import GIVEN_MAX, PARKED_MAX, Member, ShareGroup
from isthmus.mqtt.session import NOT_YET

if TYPE_CHECKING:
    from isthmus.broker.broker import Broker
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.session import Session

SLOTS: Final = 256  # that keys fall into


class StickyGroup(ShareGroup):
    """A group whose messages go to one member until that has no room."""

    def __init__(
        self, broker: Broker, name: str, topic_filter: str, *, queue_max: int = 10_000
    ) -> None:
        super().__init__(broker, name, topic_filter, queue_max=queue_max)
        self._current: Member | None = None

    def _choose(self, qos: int) -> Member | None:
        current = self._current
        if current is None or not current.is_present or not current.has_room(qos):
            self._current = ShareGroup._choose(self, qos)
        return self._current


class HashedGroup(ShareGroup):
    """A group in which each key belongs to one of the connected members.

    Keys fall into slots, and a slot belongs to the member of the largest weight, so that with
    members that come and go no more keys change hands than must. What a member has no room for
    is parked, and only it waits: up to a limit the queue goes on behind it.
    """

    def __init__(
        self, broker: Broker, name: str, topic_filter: str, *, queue_max: int = 10_000
    ) -> None:
        super().__init__(broker, name, topic_filter, queue_max=queue_max)
        self._owners: list[Member | None] = [None] * SLOTS

    def _arrive(self, member: Member) -> None:
        self._unpark()
        if member.weights is None:
            digest = shake_128(member.session.client_id.encode()).digest(4 * SLOTS)
            member.weights = memoryview(digest).cast("I")
        for slot, owner in enumerate(self._owners):
            if owner is None or member.weights[slot] > owner.weights[slot]:
                self._owners[slot] = member
        ShareGroup._arrive(self, member)

    def _go(self, member: Member) -> None:
        ShareGroup._go(self, member)
        for slot, owner in enumerate(self._owners):
            if owner is member:
                self._owners[slot] = self._heaviest(slot, None)

    def _heaviest(self, slot: int, topic_name: bytes | None) -> Member | None:
        """Return to whom a slot belongs, of those who may have a topic name if one is given."""
        found: Member | None = None
        for member in self._present:
            if (found is None or member.weights[slot] > found.weights[slot]) and (
                topic_name is None or self._may_have(member, topic_name)
            ):
                found = member
        return found

    def _owner(self, key: bytes, topic_name: bytes) -> Member | None:
        """Return to whom a key belongs; where that may not have it, to whom it would then."""
        slot = crc32(key) % SLOTS
        owner = self._owners[slot]
        if owner is None or self._may_have(owner, topic_name):
            return owner
        return self._heaviest(slot, topic_name) or owner

    def deliver(self, publish: Publish, key: bytes, partition: object, offset: int) -> None:
        """Give a message to the member of its key, or let it wait."""
        member: Member | None = None
        if not self.waiting() and self._parked < PARKED_MAX:
            member = self._owner(key, publish.topic)
        if member is None or self._waiting_count() >= self._queue_max:
            self._let_wait(publish, partition, offset)
        else:
            self._give(member, publish, partition, offset)

    def _give(self, member: Member, publish: Publish, partition: object, offset: int) -> None:
        """Send a message to the member of its key, behind those that wait for it."""
        is_held = member.parked or not member.has_room(publish.qos)
        if is_held and self._may_have(member, publish.topic):
            self._park(member, publish.qos, partition, offset)
        else:
            ShareGroup._give(self, member, publish, partition, offset)

    def _give_on(self, member: Member) -> None:
        self._give_parked(member)
        if self.waiting():
            self.drain()

    def drain(self) -> None:
        """Give out what waits by its keys."""
        self._give_all_parked()
        for _ in range(GIVEN_MAX):
            if self._is_held():
                return
            reader = self._reader()
            if reader is None:
                return
            head = self._head()
            publish = self._recall(reader, head)
            if publish is NOT_YET:
                return
            self._pop()
            if publish is None:
                continue
            key = self._broker.destinations.key_of(publish.topic)
            owner = self._owner(key, publish.topic)
            assert owner is not None, "some member is present"
            self._give(owner, publish, head.partition, head.offset)
        self._drain_later()

    def _reader(self) -> Session | None:
        """Return the session of a member, for whom a message may be read to see its key."""
        for member in self._present:
            if not member.session.recalling:
                return member.session
        return None


STRATEGIES: Final[dict[str, type[ShareGroup]]] = {
    "fair": ShareGroup,
    "sticky": StickyGroup,
    "hash": HashedGroup,
}
