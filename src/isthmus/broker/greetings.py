"""Retained messages for new subscriptions, handed out as each session has room.

Subscribing begins a greeting: a walk over the retained messages that the topic filter matches.
It gives the session's queue a few at a time, and goes on when these have left the queue. So
what a greeting keeps is bounded, whether ten messages match or a million; no limit on the queue
drops one of them; and what comes live meanwhile has its place in the queue between them.

Of one topic name, what is retained comes before what is published after the SUBSCRIBE: a name
whose retained message is newer than the greeting is left out, for it has come live.

A greeting of a persistent session goes on when the client is back; if the server ended in
between it begins anew, so that some messages come twice and none is lost (docs/adr/0022).
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, Final, cast

from isthmus.broker.subscriptions import encode_identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.broker import Broker
    from isthmus.broker.permits import Permits
    from isthmus.broker.retained import Entry, Retained
    from isthmus.broker.sessions import SessionEntry
    from isthmus.broker.subscriptions import Subscription
    from isthmus.mqtt.session import Session
    from isthmus.topics.names import Walk

GREET_MS_MAX: Final = 5  # at a time, over all sessions
MESSAGES_MAX: Final = 128  # of one greeting in the queue
STEPS_MAX: Final = 2_048  # of a walk at a time, about a millisecond
GATHERED_FIRST: Final = 128  # messages that are put into the order of the log at a time
GATHERED_GROWTH: Final = 8
GATHERED_MIN: Final = 32_768  # that a greeting may come to
GATHERED_ALL: Final = 1 << 20  # what they share beyond that
PART_BITS: Final = 12  # of offsets that stand near one another: some read of the log have them

_OFFSET: Final = attrgetter("offset")


class Greeting:
    """The retained messages of one new subscription that are still to be sent."""

    __slots__ = (
        "_entries",
        "_gathered",
        "_given",
        "_order",
        "_parts",
        "_walks",
        "_wanted",
        "before",
        "is_done",
        "is_logged",
        "subscription",
    )

    def __init__(self, subscription: Subscription, before: int) -> None:
        self.subscription = subscription
        self.before = before  # the offset from which on messages have come live
        self.is_done = False
        self.is_logged = False  # the session log says that it is under way
        self._walks: list[Walk] | None = None  # still to be gone, begun with its turn
        self._wanted = GATHERED_FIRST
        self._gathered = 0
        self._parts: dict[int, list[Entry]] = {}  # what was gathered, by parts of the log
        self._order: list[int] = []  # of the parts that are to be given, the next one last
        self._entries: list[Entry] = []  # of the part that is given now
        self._given = 0  # of these

    def next(
        self, retained: Retained, permits: Permits, count_max: int, gathered_max: int
    ) -> list[Entry]:
        """Return the next messages; few or none where it takes more steps to find them.

        The walk finds them by their names, but they are read from the log. So they are given in
        the log's order: the first few at once, then many more of them are gathered, at most
        `gathered_max`; each time, the whole log may have to be read. Only what the client may
        receive is walked to, as far as it can be told by filters.
        """
        walks = self._walks
        if walks is None:
            subscription = self.subscription
            parts = permits.receivable(subscription.session, subscription.topic_filter)
            walks = self._walks = [retained.walk(part) for part in parts]
        if not self._order and not self._entries and not self._gather(walks, gathered_max):
            return []
        found: list[Entry] = []
        while len(found) < count_max and (self._order or self._entries):
            if not self._entries:
                self._entries = self._parts.pop(self._order.pop())
                self._entries.sort(key=_OFFSET)
            part = self._entries[self._given : self._given + count_max - len(found)]
            found += part
            self._given += len(part)
            if self._given == len(self._entries):
                self._entries = []
                self._given = 0
        self.is_done = not walks and not self._order and not self._entries
        return found

    def _gather(self, walks: list[Walk], gathered_max: int) -> bool:
        """Walk on for a while; say whether there is something to be given, or nothing left."""
        wanted = min(self._wanted, gathered_max)
        if walks:
            entries = walks[-1].take(wanted - self._gathered, STEPS_MAX)
            self._gathered += len(entries)
            for entry in entries:
                self._parts.setdefault(entry.offset >> PART_BITS, []).append(entry)
            if walks[-1].is_done:
                walks.pop()
        if self._gathered < wanted and walks:
            return False
        self._order = sorted(self._parts, reverse=True)
        self._gathered = 0
        self._wanted = GATHERED_GROWTH * wanted
        return True


class Greeted:
    """The greetings of one session, the oldest first, and how far the queue has to come."""

    __slots__ = ("greetings", "number")

    def __init__(self) -> None:
        self.greetings: deque[Greeting] = deque()
        self.number = 0  # of the delivery after those of a greeting that wait


class Greetings:
    """All greetings that are under way."""

    def __init__(self, broker: Broker, queue_length_max: int) -> None:
        self._broker = broker
        # Half of a short queue is left to what comes live.
        self._messages_max = max(1, min(MESSAGES_MAX, queue_length_max // 2))
        self._greeted: dict[Session, Greeted] = {}
        self._ready: dict[Session, None] = {}  # that may have more, in their order
        self._is_due = False
        self._resume: Callable[[Session], None] = self._drained

    def __len__(self) -> int:
        return len(self._greeted)

    def begin(self, subscriptions: Iterable[Subscription]) -> None:
        """Greet new subscriptions; where that is soon done, it is done now.

        Where it is not, and the session is to outlive the server, that is written down.
        """
        begun = self._add(subscriptions)
        for greeting in begun:
            self._ready[greeting.subscription.session] = None
        if not self._is_due:
            self._greet()
        for greeting in begun:
            if not greeting.is_done and greeting.subscription.session.persistent:
                greeting.is_logged = True
                self._broker.session_log.subscribed(greeting.subscription, ungreeted=True)

    def prepare(self, subscriptions: Iterable[Subscription]) -> None:
        """Have new subscriptions greeted when `proceed` is called.

        If they are to outlive the server, that they are not greeted was written down before.
        """
        for greeting in self._add(subscriptions):
            greeting.is_logged = greeting.subscription.session.persistent

    def proceed(self, session: Session) -> None:
        """Greet what was prepared."""
        if session in self._greeted:
            self._ready[session] = None
            self._greet_later()

    def _add(self, subscriptions: Iterable[Subscription]) -> list[Greeting]:
        before = self._broker.retained.partition.end_offset
        begun = [Greeting(subscription, before) for subscription in subscriptions]
        for greeting in begun:
            session = greeting.subscription.session
            greeted = self._greeted.get(session)
            if greeted is None:
                greeted = self._greeted[session] = Greeted()
                session.refills = (*session.refills, self._resume)
            greeted.greetings.append(greeting)
        return begun

    def forget(self, session: Session) -> None:
        """The session is over."""
        session.refills = tuple(each for each in session.refills if each is not self._resume)
        self._greeted.pop(session, None)
        self._ready.pop(session, None)

    def _drained(self, session: Session) -> None:
        """The queue of a session was emptied as far as there was room."""
        queue = session.queue
        if queue.pushed - queue.length >= self._greeted[session].number:
            self._ready[session] = None
            self._greet_later()

    def _greet_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._broker.runtime.defer(self._greet)

    def _greet(self) -> None:
        """Go on with the greetings of each session in its turn.

        With a million messages that takes long, so it stops after a while and goes on in the
        next turn of the loop.
        """
        runtime = self._broker.runtime
        self._is_due = True  # what is drained here is not to be told of again
        end_ms = runtime.monotonic_ms() + GREET_MS_MAX
        while self._ready and runtime.monotonic_ms() <= end_ms:
            session = next(iter(self._ready))
            del self._ready[session]
            if session.connected:
                self._go_on(session, self._greeted[session])
        self._is_due = False
        if self._ready:
            self._greet_later()

    def _go_on(self, session: Session, greeted: Greeted) -> None:
        """Let the next messages of a session's greeting wait, then send what there is room for.

        That the session is drained brings it back here, as soon as they are on their way.
        """
        greeting = greeted.greetings[0]
        is_current = self._is_current(greeting.subscription)
        if is_current:
            self._push(session, greeting)
            greeted.number = session.queue.pushed
        if not is_current or greeting.is_done:
            self._end(session, greeted, is_current=is_current)
        session.drain()
        self._broker.touch(session)

    def _end(self, session: Session, greeted: Greeted, *, is_current: bool) -> None:
        """The oldest greeting of a session is over."""
        greeting = greeted.greetings.popleft()
        greeting.is_done = True
        if not greeted.greetings:
            self.forget(session)
        session_log = self._broker.session_log
        if greeting.is_logged and is_current and session.persistent:
            session_log.subscribed(greeting.subscription)
        elif session.changed:
            session_log.note(cast("SessionEntry", session.owner))

    def _is_current(self, subscription: Subscription) -> bool:
        """Whether the client has not unsubscribed, or subscribed anew."""
        session, topic_filter = subscription.session, subscription.topic_filter
        return self._broker.subscriptions.find(session, topic_filter) is subscription

    def _push(self, session: Session, greeting: Greeting) -> None:
        """Let the next messages wait, with RETAIN set [MQTT-3.3.1-8]."""
        retained = self._broker.retained
        subscription = greeting.subscription
        now_ms = self._broker.runtime.now_ms()
        gathered_max = max(GATHERED_MIN, GATHERED_ALL // len(self._greeted))
        permits = self._broker.permits
        entries = [
            entry
            for entry in greeting.next(retained, permits, self._messages_max, gathered_max)
            if entry.offset < greeting.before and not entry.has_expired(now_ms)
        ]
        identifiers = encode_identifier(subscription.identifier)
        for entry in entries:
            qos = min(entry.qos, subscription.qos)
            session.queue.push(retained.partition, entry.offset, qos, True, identifiers)
        if entries:
            session.changed = True
