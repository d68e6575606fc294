"""Who is subscribed to what, and who gets a given topic name.

A subscription is kept in the tree of filters; a receiver is what the deliveries of one topic
name need to know of one session. A session with several matching filters gets one copy, at the
highest QoS that it was granted, with all its subscription identifiers [MQTT-3.3.4-2,
MQTT-3.3.4-3]. Of a shared subscription the tree has the group (shared.py), once for all its
members; what they get by it is apart from all else.

A hundred thousand sessions at rest have little but their subscriptions. So these hang on the
session, a few as a tuple; and subscriptions with one filter have one string for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from isthmus.mqtt.codec import encode_properties
from isthmus.mqtt.control import FILTERS_AT_A_TIME
from isthmus.mqtt.properties import SUBSCRIPTION_ID
from isthmus.topics.filter import SHARED_PREFIX, parse_shared
from isthmus.topics.tree import TopicTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.shared import ShareGroup
    from isthmus.mqtt.session import Session


FEW_MAX: Final = 8  # subscriptions of a session that are a tuple
AUTOMATIC: Final = 0x40  # an option of ours: the configuration asked for it, not the client


class Subscription:
    """One topic filter of one session, with its options [MQTT-3.8.3.1]."""

    __slots__ = ("identifier", "options", "session", "topic_filter")

    def __init__(
        self, session: Session, topic_filter: str, options: int, identifier: int
    ) -> None:
        self.session = session
        self.topic_filter = topic_filter
        self.options = options
        self.identifier = identifier  # 0: none

    @property
    def is_shared(self) -> bool:
        return self.topic_filter.startswith(SHARED_PREFIX)

    @property
    def qos(self) -> int:
        return self.options & 0x03

    @property
    def no_local(self) -> bool:
        return bool(self.options & 0x04)

    @property
    def retain_as_published(self) -> bool:
        return bool(self.options & 0x08)

    @property
    def retain_handling(self) -> int:
        return self.options >> 4 & 0x03

    @property
    def is_automatic(self) -> bool:
        return bool(self.options & AUTOMATIC)


class Receiver:
    """How one session gets the messages of one topic name, by all its matching subscriptions.

    `no_local` says that some of these do not count for what the session itself publishes;
    `own` is how it gets that, None: not at all [MQTT-3.8.3-3].
    """

    __slots__ = ("identifiers", "no_local", "own", "qos", "retain_as_published", "session")

    def __init__(self, subscriptions: list[Subscription]) -> None:
        local = [one for one in subscriptions if not one.no_local]
        self.session = subscriptions[0].session
        self.qos = max([one.qos for one in subscriptions])
        self.no_local = len(local) < len(subscriptions)
        self.own = Receiver(local) if self.no_local and local else None
        self.retain_as_published = any(one.retain_as_published for one in subscriptions)
        self.identifiers = b"".join(
            [encode_identifier(one.identifier) for one in subscriptions]
        )


def encode_identifier(identifier: int) -> bytes:
    """Return one encoded Subscription Identifier property; nothing for 0."""
    return encode_properties({SUBSCRIPTION_ID: [identifier]}) if identifier else b""


class Subscriptions:
    """All subscriptions of all sessions."""

    def __init__(self, make_group: Callable[[str, str], ShareGroup]) -> None:
        """`make_group(name, topic_filter)` makes the group of a first shared subscription."""
        self.tree = TopicTree()
        self.groups: dict[str, ShareGroup] = {}  # by shared topic filter
        self._make_group = make_group

    def add(self, subscription: Subscription) -> bool:
        """Add a subscription; False if it takes the place of one [MQTT-3.8.4-3]."""
        before = self.find(subscription.session, subscription.topic_filter)
        if subscription.is_shared:
            self._hang(subscription, before)
            self._join(subscription)
            return before is None
        if before is not None:
            self.tree.remove(before.topic_filter, before)
        other = self.tree.value_of(subscription.topic_filter)
        if isinstance(other, Subscription):
            subscription.topic_filter = other.topic_filter  # the same one, not another like it
        self._hang(subscription, before)
        self.tree.add(subscription.topic_filter, subscription)
        return before is None

    def restore(self, session: Session, own: list[Subscription]) -> None:
        """Give a session that has none its subscriptions of an earlier run, in their order.

        What was checked then is not checked again.
        """
        few = len(own) <= FEW_MAX
        session.subscriptions = tuple(own) if few else {one.topic_filter: one for one in own}
        for subscription in own:
            if subscription.is_shared:
                self._join(subscription)
            else:
                self.tree.put(subscription.topic_filter, subscription)

    def _hang(self, subscription: Subscription, before: Subscription | None) -> None:
        """Have a session own a subscription, in the place of one or behind the others."""
        session = subscription.session
        own = session.subscriptions
        if isinstance(own, dict):
            own[subscription.topic_filter] = subscription
        elif before is not None:
            session.subscriptions = tuple(
                [subscription if one is before else one for one in own]
            )
        elif len(own) < FEW_MAX:
            session.subscriptions = (*own, subscription)
        else:
            session.subscriptions = {one.topic_filter: one for one in (*own, subscription)}

    def _join(self, subscription: Subscription) -> None:
        topic_filter = subscription.topic_filter
        group = self.groups.get(topic_filter)
        if group is None:
            name, inner = parse_shared(topic_filter)
            group = self.groups[topic_filter] = self._make_group(name, inner)
            self.tree.add(inner, group)
        group.join(subscription)

    def remove(self, session: Session, topic_filter: str) -> bool:
        """Remove one subscription; False if there is none."""
        subscription = self.find(session, topic_filter)
        if subscription is None:
            return False
        own = session.subscriptions
        if isinstance(own, dict):
            del own[topic_filter]
        else:
            session.subscriptions = tuple([one for one in own if one is not subscription])
        self._remove(subscription)
        return True

    def take_all(self, session: Session) -> list[Subscription]:
        """Return the subscriptions of a session that ends; nothing comes by them any more.

        They are for `drop` to remove, which may take more than one turn of the loop.
        """
        own = [*self.of(session).values()]
        session.subscriptions = ()
        if len(own) > FILTERS_AT_A_TIME:
            self.tree.outdate()  # what caches it is not to wait for the last one's removal
        return own

    def drop(self, subscriptions: Iterable[Subscription]) -> None:
        """Remove some of a session that has ended."""
        for subscription in subscriptions:
            self._remove(subscription)

    def _remove(self, subscription: Subscription) -> None:
        topic_filter = subscription.topic_filter
        if not subscription.is_shared:
            self.tree.remove(topic_filter, subscription)
            return
        group = self.groups[topic_filter]
        group.leave(subscription.session)
        if not group.members:
            del self.groups[topic_filter]
            self.tree.remove(group.topic_filter, group)
            group.end()

    def reconsider(self) -> None:
        """The rules have become others: who gets what is to be found out anew."""
        self.tree.outdate()
        for group in self.groups.values():
            group.reconsider()

    def of(self, session: Session) -> dict[str, Subscription]:
        """Return a session's subscriptions by topic filter, in the order they came in."""
        own = session.subscriptions
        return own if isinstance(own, dict) else {one.topic_filter: one for one in own}

    def find(self, session: Session, topic_filter: str) -> Subscription | None:
        """Return a session's subscription with this filter; None: it has none."""
        own = session.subscriptions
        if isinstance(own, dict):
            found: Subscription | None = own.get(topic_filter)
            return found
        for one in own:
            if one.topic_filter == topic_filter:
                return cast("Subscription", one)
        return None

    def has_no_local(self, session: Session) -> bool:
        """Whether some of what a session publishes itself may not come back to it."""
        return any(one.no_local for one in self.of(session).values())

    def receivers(self, topic_name: str) -> tuple[list[Receiver], tuple[ShareGroup, ...]]:
        """Return who gets a topic name: each session once, and each group."""
        by_session: dict[Session, list[Subscription]] = {}
        groups: list[ShareGroup] = []
        for value in self.tree.match(topic_name):
            if isinstance(value, Subscription):
                if value.session.subscriptions:  # else it has ended
                    by_session.setdefault(value.session, []).append(value)
            else:
                groups.append(cast("ShareGroup", value))
        receivers = [Receiver(subscriptions) for subscriptions in by_session.values()]
        return receivers, tuple(groups)
