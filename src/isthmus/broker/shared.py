"""Shared subscriptions: each message goes to one member of the group [MQTT 5.0, 4.8.2].

A group is a name and a topic filter. It owns what waits: a member is given a message only when
that can go out to it at once, so one that is slow or gone holds up nothing that others could
do. What becomes of a message that a member had, when its connection ends:

- at QoS 1, unacknowledged: it comes back, in front of all that waits, and another member gets
  it as a new message;
- at QoS 2, sent: it stays with the member's session until that is back [MQTT-4.8.2-4], and ends
  with it [MQTT-4.8.2-5];
- refused by the client's PUBACK or PUBREC: it is done [MQTT-4.8.2-6].

Who gets a message is the strategy: here `fair`, the next that has room; the others are in
shared_strategies.py. Where a member may not have it by the rules, or takes none so large, one
of the others gets it; where these have no room just now it is *parked* for the one, and up to a
limit what is behind it goes on. Messages published at QoS 2 come to a group when they are
durable, whoever gets them; at which QoS is decided with who [MQTT-4.8.2-3].

With a member whose session is persistent the group outlives the server (session_log.py); while
no member is connected, what is published at QoS 1 and 2 waits. Compiled, as part of the path of
every message.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

from isthmus.broker.subscriptions import encode_identifier
from isthmus.mqtt.delivery import (
    AWAIT_PUBACK,
    DRAIN_BYTES,
    DROP_DENIED,
    DROP_EXPIRED,
    DROP_GONE,
    DROP_OFFLINE,
    DROP_QUEUE,
    DROP_TOO_LARGE,
    Delivery,
    DeliveryQueue,
    Dropped,
)
from isthmus.mqtt.session import EXPIRED, NOT_YET
from isthmus.topics.filter import SHARED_PREFIX

if TYPE_CHECKING:
    from isthmus.broker.broker import Broker
    from isthmus.broker.subscriptions import Subscription
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.session import Session
    from isthmus.storage.log import Partition

PARKED_MAX: Final = 1_000  # messages of a group that wait for one of its members
GIVEN_MAX: Final = 1_000  # messages at a time, a few milliseconds of work

BY_OFFSET: Final = attrgetter("offset")


class Handed:
    """What a group marks the deliveries with that it has handed to sessions."""

    __slots__ = ("qos",)

    def __init__(self, qos: int) -> None:
        self.qos = qos  # of the message; that of the delivery may be lower


class Member:
    """One session's part in a group."""

    __slots__ = (
        "identifiers",
        "is_present",
        "parked",
        "place",
        "qos",
        "retain_as_published",
        "session",
        "weights",
    )

    def __init__(self, session: Session) -> None:
        self.session = session
        self.is_present = False  # its client is connected
        self.place = 0  # among those who are present
        self.qos = 0
        self.retain_as_published = False
        self.identifiers = b""
        self.parked: deque[Delivery] = deque()  # messages that wait for it
        self.weights: Any = None  # for each slot, see HashedGroup

    def take_terms(self, subscription: Subscription) -> None:
        """Get messages as a subscription says, from now on."""
        self.qos = subscription.qos
        self.retain_as_published = subscription.retain_as_published
        self.identifiers = encode_identifier(subscription.identifier)

    def has_room(self, qos: int) -> bool:
        """Whether a message that was published at this QoS can go out to the client now.

        No more in a turn of the loop than what waits in a session's own queue would.
        """
        session = self.session
        if session.output.size >= DRAIN_BYTES:
            return False
        return session.has_room(qos if qos < self.qos else self.qos)


class ShareGroup:
    """A group whose members get messages in turn: the strategy `fair`."""

    def __init__(
        self, broker: Broker, name: str, topic_filter: str, *, queue_max: int = 10_000
    ) -> None:
        self.name = name
        self.topic_filter = topic_filter
        self.members: dict[Session, Member] = {}
        self.queue = DeliveryQueue()
        self.returned: list[Delivery] = []  # goes out before the queue, in the log's order
        self.dropped = Dropped()
        self.changed = False  # since it was written down
        self._broker = broker
        self._permits = broker.permits
        self._queue_max = queue_max
        self._present: list[Member] = []
        self._turn = -1  # the place of the member that got the last one
        self._handed = [Handed(qos) for qos in range(3)]
        self._is_due = False
        self._parked = 0  # of all members
        self._refill = self._refilled

    @property
    def shared_filter(self) -> str:
        """What its members subscribe to."""
        return f"{SHARED_PREFIX}{self.name}/{self.topic_filter}"

    # --- members ------------------------------------------------------------------------------

    def join(self, subscription: Subscription) -> None:
        """Have a session as a member, or on other terms than before."""
        session = subscription.session
        member = self.members.get(session)
        if member is None:
            member = self.members[session] = Member(session)
            session.refills = (*session.refills, self._refill)
        member.take_terms(subscription)
        if session.connected and not member.is_present:
            self._arrive(member)

    def leave(self, session: Session) -> None:
        """Have a session no more; what is on its way to it stays there [MQTT-3.10.4-3]."""
        member = self.members.pop(session)
        session.refills = tuple(each for each in session.refills if each is not self._refill)
        if member.is_present:
            for delivery in session.inflight.values():
                if self._is_ours(delivery):
                    delivery.share = None
            session.changed = True
            self._go(member)

    def _refilled(self, session: Session) -> None:
        """A member has room, perhaps; or its connection has begun or ended."""
        member = self.members[session]
        if session.connected != member.is_present:
            if session.connected:
                self._arrive(member)
            else:
                self._take_back(member)
                self._go(member)
        elif member.is_present:
            self._give_on(member)

    def _arrive(self, member: Member) -> None:
        member.is_present = True
        member.place = len(self._present)
        self._present.append(member)
        self._drain_later()

    def _go(self, member: Member) -> None:
        """A member is there no more: others get what was for it, at the end of the turn.

        Not at once, because with a server that ends they are about to go, too.
        """
        self._unpark()
        member.is_present = False
        self._present.remove(member)
        for place, other in enumerate(self._present):
            other.place = place
        if not self._present:  # QoS 0 does not wait for absent clients [MQTT-3.1.2-5]
            kept = [each for each in self.returned if each.qos > 0]
            self.drop(DROP_OFFLINE, len(self.returned) - len(kept) + self.queue.drop_qos_0())
            self.returned = kept
        self._drain_later()

    def _take_back(self, member: Member) -> None:
        """Take what the client of a member has not acknowledged at QoS 1."""
        session = member.session
        for packet_id, delivery in list(session.inflight.items()):
            if delivery.state == AWAIT_PUBACK and self._is_ours(delivery):
                del session.inflight[packet_id]
                delivery.qos = delivery.share.qos
                insort(self.returned, delivery, key=BY_OFFSET)
                self.changed = True

    def _is_ours(self, delivery: Delivery) -> bool:
        return delivery.share is not None and delivery.share in self._handed

    # --- messages -----------------------------------------------------------------------------

    @property
    def waiting_count(self) -> int:
        """How many messages wait for a member that has room."""
        return self._waiting_count()

    def waiting(self) -> bool:
        """Whether anything waits for a member that has room."""
        return self.queue.length > 0 or len(self.returned) > 0

    def deliver(self, publish: Publish, _key: bytes, partition: object, offset: int) -> None:
        """Give a message to a member, or let it wait as the place in the log where it stands.

        At QoS 0 it does not wait while no member is connected; what exceeds the limit of the
        queue is dropped and counted.
        """
        if not self.waiting() and self._parked < PARKED_MAX:
            member = self._choose(publish.qos)
            if member is not None:
                self._give(member, publish, partition, offset)
                return
        self._let_wait(publish, partition, offset)

    def _let_wait(self, publish: Publish, partition: object, offset: int) -> None:
        """Let a message wait, unless all are away and none of them may have it."""
        if self._permits.is_on and not self._present:
            for session in self.members:
                if self._permits.may_wait_for(session, publish.topic):
                    break
            else:
                self.drop(DROP_DENIED, 1)
                return
        self._wait(publish.qos, partition, offset)

    def _wait(self, qos: int, partition: object, offset: int) -> None:
        if qos == 0 and not self._present:
            self.drop(DROP_OFFLINE, 1)
        elif self._waiting_count() >= self._queue_max:
            self.drop(DROP_QUEUE, 1)
        else:
            self.queue.push(partition, offset, qos, False, b"")
            self.changed = True

    def _waiting_count(self) -> int:
        return self.queue.length + len(self.returned) + self._parked

    def _choose(self, qos: int) -> Member | None:
        """Return the next member that has room for a message of this QoS, None if none has."""
        count = len(self._present)
        for _ in range(count):
            self._turn = self._turn + 1 if self._turn + 1 < count else 0
            member = self._present[self._turn]
            if member.has_room(qos):
                return member
        return None

    def _give(self, member: Member, publish: Publish, partition: object, offset: int) -> None:
        """Send a message to a member or, where that does not take it, to one that does."""
        why = self._hand(member, publish, partition, offset)
        if why == 0:
            return
        full: Member | None = None
        for other in self._present:
            if other is member:
                continue
            if not other.has_room(publish.qos):
                if full is None and self._may_have(other, publish.topic):
                    full = other
            elif self._hand(other, publish, partition, offset) == 0:
                self._turn = other.place  # it goes on from who has got one
                return
        if full is None:
            self.drop(why, 1)
        else:
            self._park(full, publish.qos, partition, offset)

    def _may_have(self, member: Member, topic_name: bytes) -> bool:
        return not self._permits.is_on or self._permits.may_receive(member.session, topic_name)

    def _hand(self, member: Member, publish: Publish, partition: object, offset: int) -> int:
        """Send a message to a member that has room; return 0, or why it is not for its client.

        That is DROP_TOO_LARGE or DROP_DENIED.
        """
        session = member.session
        if self._permits.is_on and not self._permits.may_receive(session, publish.topic):
            return DROP_DENIED
        qos = publish.qos if publish.qos < member.qos else member.qos
        handed = session.send(
            publish,
            qos,
            publish.retain and member.retain_as_published,
            member.identifiers,
            partition,
            offset,
            self._handed[publish.qos],
        )
        if not handed:
            return DROP_TOO_LARGE
        if qos:
            self.changed = True
            if qos == 2:  # nobody else may get it, not after a crash either
                self._broker.session_log.note_group(self)
        if not session.touched:
            self._broker.touch(session)
        return 0

    def drop(self, reason: int, count: int) -> None:
        """Messages are given up; see `Dropped` for the reasons."""
        self.dropped.add(reason, count)
        self._broker.traffic.drops.add(reason, count)

    # --- what waits ---------------------------------------------------------------------------

    def _park(self, member: Member, qos: int, partition: object, offset: int) -> None:
        """Let a message wait for one member."""
        member.parked.append(Delivery(partition, offset, qos, False, b""))
        self._parked += 1
        self.changed = True

    def _unpark(self) -> None:
        """Have all that is parked go out anew, in front of all that waits."""
        if self._parked:
            for member in self._present:
                for parked in member.parked:
                    insort(self.returned, parked, key=BY_OFFSET)
                member.parked.clear()
            self._parked = 0

    def reconsider(self) -> None:
        """The rules have become others: what is parked may be for other members."""
        if self._parked:
            self._unpark()
            self._drain_later()

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

    def _give_all_parked(self) -> None:
        if self._parked:
            for member in self._present:
                self._give_parked(member)

    def _is_held(self) -> bool:
        """Whether nothing more of what waits can be given out."""
        is_full = self._parked >= PARKED_MAX
        return not self.returned and (is_full or self.queue.length == 0)

    def _drain_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._broker.runtime.defer(self._drain_due)

    def _drain_due(self) -> None:
        self._is_due = False
        self.drain()

    def _give_on(self, member: Member) -> None:
        """Give out what waits, to a member first that may have room."""
        self._give_parked(member)
        if self.waiting():
            self._turn = member.place - 1
            self.drain()

    def drain(self) -> None:
        """Give out what waits, in its order, as far as members have room.

        With much to do it goes on in the next turn of the loop.
        """
        self._give_all_parked()
        for _ in range(GIVEN_MAX):
            if self._is_held():
                return
            head = self._head()
            member = self._choose(head.qos)
            if member is None:
                return
            publish = self._recall(member.session, head)
            if publish is NOT_YET:
                return
            self._pop()
            if publish is not None:
                self._give(member, publish, head.partition, head.offset)
        self._drain_later()

    def _head(self) -> Delivery:
        """Return what goes out next."""
        if self.returned:
            return self.returned[0]
        run = self.queue.head()
        return Delivery(run.partition, run.first, run.qos, False, b"")

    def _pop(self) -> None:
        """Take it out."""
        if self.returned:
            del self.returned[0]
        else:
            self.queue.pop()
        self.changed = True

    def _recall(self, session: Session, waiting: Delivery) -> Publish | None:
        """Return the message of a place, which `session` may get; None if it is dropped.

        NOT_YET: it has to be read, and until then the session has no room for another.
        """
        partition = cast("Partition", waiting.partition)
        publish = self._broker.catching_up.recall(
            session, partition, waiting.offset, shared=True
        )
        if publish is None or publish is EXPIRED:
            self.drop(DROP_GONE if publish is None else DROP_EXPIRED, 1)
            return None
        if publish is not NOT_YET:
            publish.qos = waiting.qos
        return publish

    # --- over restarts ------------------------------------------------------------------------

    def end(self) -> None:
        """The last member has left: what waits is for nobody."""
        self.drop(DROP_GONE, self._waiting_count())
        self.queue.clear()
        self.returned.clear()
        self._broker.session_log.end_group(self)

    def unfinished(self) -> list[Delivery]:
        """Return what is neither in the queue nor done.

        That is what came back, what is parked, and QoS 1 in flight. Where the server ends now,
        it is to be delivered anew. QoS is that of the messages.
        """
        found = [each for each in self.returned if each.qos > 0]
        for member in self._present:
            found += [each for each in member.parked if each.qos > 0]
            for delivery in member.session.inflight.values():
                if delivery.state == AWAIT_PUBACK and self._is_ours(delivery):
                    place = delivery.partition, delivery.offset
                    found.append(Delivery(*place, delivery.share.qos, False, b""))
        return found

    def restore(self, partition: object, offset: int, qos: int) -> None:
        """Have a message wait in front that was unfinished when the server ended."""
        insort(self.returned, Delivery(partition, offset, qos, False, b""), key=BY_OFFSET)
