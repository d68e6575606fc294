"""The strategies of shared subscriptions beside `fair`: who of a group gets a message.

`sticky`, the same one as long as it has room; `hash`, the one to whom the key belongs, so that
what has one key comes in its order. What a group is, and what becomes of a message, is in
shared.py. Compiled, as part of the path of every message.
"""

from __future__ import annotations

from bisect import insort
from hashlib import shake_128
from typing import TYPE_CHECKING, Final
from zlib import crc32

from isthmus.broker.shared import BY_OFFSET, GIVEN_MAX, Member, ShareGroup
from isthmus.mqtt.delivery import Delivery
from isthmus.mqtt.session import NOT_YET

if TYPE_CHECKING:
    from isthmus.broker.broker import Broker
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.session import Session

SLOTS: Final = 256  # that keys fall into
PARKED_MAX: Final = 1_000  # messages of a group that wait for the member of their key


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
        self._parked = 0

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
        self._unpark()
        ShareGroup._go(self, member)
        for slot, owner in enumerate(self._owners):
            if owner is member:
                self._owners[slot] = self._heaviest(slot)

    def _heaviest(self, slot: int) -> Member | None:
        found: Member | None = None
        for member in self._present:
            if found is None or member.weights[slot] > found.weights[slot]:
                found = member
        return found

    def _unpark(self) -> None:
        """Have all that is parked go out by its key anew, in front of all that waits."""
        for member in self._present:
            for parked in member.parked:
                insort(self.returned, parked, key=BY_OFFSET)
            member.parked.clear()
        self._parked = 0

    def _waiting_count(self) -> int:
        return ShareGroup._waiting_count(self) + self._parked

    def deliver(self, publish: Publish, key: bytes, partition: object, offset: int) -> None:
        """Give a message to the member of its key, or let it wait."""
        member: Member | None = None
        if not self.waiting() and self._parked < PARKED_MAX:
            member = self._owners[crc32(key) % SLOTS]
        if member is None or self._waiting_count() >= self._queue_max:
            self._wait(publish.qos, partition, offset)
        else:
            self._give(member, publish, partition, offset)

    def _give(self, member: Member, publish: Publish, partition: object, offset: int) -> None:
        """Send a message to the member of its key, behind those that wait for it."""
        if member.parked or not member.has_room(publish.qos):
            member.parked.append(Delivery(partition, offset, publish.qos, False, b""))
            self._parked += 1
            self.changed = True
        else:
            ShareGroup._give(self, member, publish, partition, offset)

    def _give_on(self, member: Member) -> None:
        self._give_parked(member)
        if self.waiting():
            self.drain()

    def _give_parked(self, member: Member) -> None:
        """Send a member what is parked for it, at most `PARKED_MAX`, as far as it has room."""
        while member.parked:
            parked = member.parked[0]
            if not member.has_room(parked.qos):
                return
            publish = self._recall(member.session, parked)
            if publish is NOT_YET:
                return
            member.parked.popleft()
            self._parked -= 1
            self.changed = True
            if publish is not None:
                ShareGroup._give(self, member, publish, parked.partition, parked.offset)

    def drain(self) -> None:
        """Give out what waits by its keys."""
        for member in self._present:
            self._give_parked(member)
        for _ in range(GIVEN_MAX):
            if not self.returned and (self.queue.length == 0 or self._parked >= PARKED_MAX):
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
            owner = self._owners[crc32(key) % SLOTS]
            assert owner is not None, "some member is present"
            self._give(owner, publish, head.partition, head.offset)
        self._drain_later()

    def _reader(self) -> Session | None:
        """Return the session of a member, for whom a message may be read to see its key."""
        for member in self._present:
            if not member.session.recalling:
                return member.session
        return None

    def unfinished(self) -> list[Delivery]:
        """Return what is neither in the queue nor done; what is parked is among it."""
        found = ShareGroup.unfinished(self)
        for member in self._present:
            found += [each for each in member.parked if each.qos > 0]
        return found


STRATEGIES: Final[dict[str, type[ShareGroup]]] = {
    "fair": ShareGroup,
    "sticky": StickyGroup,
    "hash": HashedGroup,
}
