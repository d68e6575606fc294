"""What clients ask for with topic filters: SUBSCRIBE, UNSUBSCRIBE, and what they get unasked.

A topic filter costs some microseconds, and a packet may have ten thousand. So only some are
taken in a turn of the loop: the answer comes when all are, retained messages behind it, and
what the client has sent behind the packet waits until then (`Decoder.is_held`). A packet that
is acted on is a generator, which yields where others may have their turn.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeVar

from isthmus.broker.subscriptions import Subscription
from isthmus.errors import (
    IdentifiersNotSupported,
    SharedNotSupported,
    TopicInvalid,
    WildcardsNotSupported,
)
from isthmus.mqtt.control import FILTERS_AT_A_TIME, NO_LOCAL
from isthmus.mqtt.packets import Suback, Unsuback
from isthmus.mqtt.properties import SUBSCRIPTION_ID
from isthmus.mqtt.reasons import SUBACK_FAILURE, ReasonCode, name_of
from isthmus.mqtt.session import REFUSED_FROM
from isthmus.topics.filter import SHARED_PREFIX, check_topic_filter, has_wildcard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isthmus.broker.automatic import AutomaticSubscription
    from isthmus.broker.broker import Broker
    from isthmus.broker.events import Events
    from isthmus.broker.greetings import Greetings
    from isthmus.broker.sessions import Connection, SessionEntry
    from isthmus.mqtt.handshake import Offer
    from isthmus.mqtt.packets import Subscribe, Unsubscribe
    from isthmus.mqtt.session import Session

logger = logging.getLogger(__name__)

FILTER_SHOWN_MAX: Final = 100  # characters of a filter in a Reason String
_QOS: Final = 0x03  # bits of the subscription options [MQTT 5.0, 3.8.3.1]
_RETAIN_AS_PUBLISHED: Final = 0x08
_RETAIN_ONLY_IF_NEW: Final = 1
_RETAIN_NEVER: Final = 2

One = TypeVar("One")


class Subscribing:
    """Acts on what clients say about topic filters."""

    def __init__(
        self,
        broker: Broker,
        greetings: Greetings,
        events: Events,
        automatic: Sequence[AutomaticSubscription],
        *,
        subscriptions_max: int,
    ) -> None:
        """`automatic`: what new sessions begin with; `subscriptions_max`: of one session."""
        self._broker = broker
        self._greetings = greetings
        self._events = events
        self._automatic = automatic
        self.subscriptions_max = subscriptions_max
        self._under_way: dict[SessionEntry, Iterator[None]] = {}

    def subscribe(self, entry: SessionEntry, connection: Connection, packet: Subscribe) -> None:
        """Answer each filter in its order [MQTT-3.8.4-6], then send retained messages.

        Raises ProtocolError.
        """
        if entry.session.version == 5:
            check_offered(connection.offer, packet)
        self._go_on(entry, self._subscribe(entry, connection, packet))

    def unsubscribe(
        self, entry: SessionEntry, connection: Connection, packet: Unsubscribe
    ) -> None:
        """Answer each filter in its order [MQTT-3.11.3-1]."""
        self._go_on(entry, self._unsubscribe(entry, connection, packet))

    def go_on(self, entry: SessionEntry) -> bool:
        """Go on with a packet of very many filters; say whether some are left for later.

        Nothing else that the client sent may be acted on before.
        """
        work = self._under_way.pop(entry, None)
        if work is not None:
            self._go_on(entry, work)
            self._broker.touch(entry.session)
        return entry in self._under_way

    def forget(self, entry: SessionEntry) -> None:
        """The connection is gone: what it had under way is not done."""
        self._under_way.pop(entry, None)

    def _go_on(self, entry: SessionEntry, work: Iterator[None]) -> None:
        for _ in work:
            self._under_way[entry] = work
            return

    # --- SUBSCRIBE ----------------------------------------------------------------------------

    def _subscribe(
        self, entry: SessionEntry, connection: Connection, packet: Subscribe
    ) -> Iterator[None]:
        session, offer = entry.session, connection.offer
        identifier = identifier_in(packet)
        is_long = len(packet.entries) > FILTERS_AT_A_TIME
        reasons: list[int] = []
        ungreeted: list[Subscription] = []
        prepared = 0  # of those to be greeted
        text = ""  # why the first filter was refused that was
        for some in _in_turns(packet.entries):
            for said, options in some:
                reason = self._add(
                    entry, offer, said, options, identifier, ungreeted, is_long=is_long
                )
                if reason >= REFUSED_FROM:
                    text = text or f"{said[:FILTER_SHOWN_MAX]}: {name_of(reason)}"
                    if session.version < 5:
                        reason = SUBACK_FAILURE
                reasons.append(reason)
            if is_long:
                self._greetings.prepare(ungreeted[prepared:])
                prepared = len(ungreeted)
                yield
        session.answer(Suback(packet.packet_id, reasons, None), text)
        granted_now = [
            (topic_filter, reason)
            for (topic_filter, _), reason in zip(packet.entries, reasons, strict=True)
            if reason < SUBACK_FAILURE
        ]
        if granted_now:
            self._events.subscribed(entry, connection, granted_now)
        self._broker.volatile.greet(ungreeted)
        if is_long:
            self._greetings.proceed(session)
        else:
            self._greetings.begin(ungreeted)

    def subscribe_automatically(self, entry: SessionEntry, connection: Connection) -> None:
        """Give a new session the subscriptions that the configuration has for it."""
        ungreeted: list[Subscription] = []
        granted_now: list[tuple[str, int]] = []
        for subscription in self._automatic:
            topic_filter = subscription.topic_filter_for(entry.principal)
            if topic_filter is None:
                continue
            offer, options = connection.offer, subscription.options
            reason = self._add(entry, offer, topic_filter, options, 0, ungreeted)
            if reason < REFUSED_FROM:
                granted_now.append((topic_filter, reason))
                continue
            logger.debug(
                "automatic subscription refused client=%s filter=%s reason=%s",
                entry.session.client_id,
                topic_filter,
                name_of(reason),
            )
        if granted_now:
            self._events.subscribed(entry, connection, granted_now)
        self._broker.volatile.greet(ungreeted)
        self._greetings.begin(ungreeted)

    def _add(
        self,
        entry: SessionEntry,
        offer: Offer,
        said: str,
        options: int,
        identifier: int,
        ungreeted: list[Subscription],
        *,
        is_long: bool = False,
    ) -> int:
        """Subscribe to one filter; return the QoS granted, or the reason code that refuses it.

        The subscription is added to `ungreeted` if retained messages are to be sent. With
        `is_long` they come in other turns, so it is written down that they are to come.
        """
        session = entry.session
        topic_filter = self._broker.destinations.rewritings.topic_filter(said)
        reason = self._check_filter(session, offer, topic_filter)
        if reason != ReasonCode.SUCCESS:
            return reason
        own = granted(offer, options, is_bridge=entry.is_bridge)
        subscription = Subscription(session, topic_filter, own, identifier)
        new = self._broker.subscriptions.add(subscription)
        greeted = wants_retained(subscription, is_new=new)
        if greeted:
            ungreeted.append(subscription)
        if session.persistent:
            self._broker.session_log.subscribed(subscription, ungreeted=greeted and is_long)
        return subscription.qos

    def _check_filter(self, session: Session, offer: Offer, topic_filter: str) -> int:
        """Return 0, or the reason code that refuses the filter."""
        if not is_topic_filter(topic_filter):
            return ReasonCode.TOPIC_FILTER_INVALID
        if not offer.shared_available and topic_filter.startswith(SHARED_PREFIX):
            return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if not offer.wildcard_available and has_wildcard(topic_filter):
            return ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
        permits = self._broker.permits
        if permits.is_on and not permits.may_subscribe(session, topic_filter):
            return ReasonCode.NOT_AUTHORIZED
        if (
            len(session.subscriptions) >= self.subscriptions_max
            and self._broker.subscriptions.find(session, topic_filter) is None
        ):
            return ReasonCode.QUOTA_EXCEEDED
        return ReasonCode.SUCCESS

    # --- UNSUBSCRIBE --------------------------------------------------------------------------

    def _unsubscribe(
        self, entry: SessionEntry, connection: Connection, packet: Unsubscribe
    ) -> Iterator[None]:
        session = entry.session
        is_long = len(packet.filters) > FILTERS_AT_A_TIME
        reasons: list[int] = []
        for some in _in_turns(packet.filters):
            reasons += [self._remove(session, said) for said in some]
            if is_long:
                yield
        session.answer(Unsuback(packet.packet_id, reasons, None))
        gone = [
            topic_filter
            for topic_filter, reason in zip(packet.filters, reasons, strict=True)
            if reason == ReasonCode.SUCCESS
        ]
        if gone:
            self._events.unsubscribed(entry, connection, gone)

    def _remove(self, session: Session, said: str) -> int:
        """End one subscription; return the reason code of the answer."""
        meant = self._broker.destinations.rewritings.topic_filter(said)
        # The session may have it from before there was a rule for it.
        for topic_filter in dict.fromkeys((meant, said)):
            if self._broker.subscriptions.remove(session, topic_filter):
                if session.persistent:
                    self._broker.session_log.unsubscribed(session, topic_filter)
                return ReasonCode.SUCCESS
        if is_topic_filter(said):
            return ReasonCode.NO_SUBSCRIPTION_EXISTED
        return ReasonCode.TOPIC_FILTER_INVALID


def _in_turns(all_of_them: Sequence[One]) -> Iterator[Sequence[One]]:
    """Return parts, each of as many as one turn of the loop has time for."""
    if len(all_of_them) <= FILTERS_AT_A_TIME:
        yield all_of_them
        return
    for begin in range(0, len(all_of_them), FILTERS_AT_A_TIME):
        yield all_of_them[begin : begin + FILTERS_AT_A_TIME]


def identifier_in(packet: Subscribe) -> int:
    """Return the Subscription Identifier of a packet; 0: it has none."""
    identifier: int = (packet.properties or {}).get(SUBSCRIPTION_ID, 0)
    return identifier


def is_topic_filter(text: str) -> bool:
    """Say whether a client may subscribe to this."""
    try:
        check_topic_filter(text)
    except TopicInvalid:
        return False
    return True


def check_offered(offer: Offer, packet: Subscribe) -> None:
    """Raise the ProtocolError of a client that asks for what CONNACK said is not there.

    Only MQTT 5 clients were told [MQTT 5.0, 3.2.2.3.11 to 3.2.2.3.13].
    """
    if identifier_in(packet) and not offer.identifiers_available:
        raise IdentifiersNotSupported("this server has no subscription identifiers")
    if offer.shared_available and offer.wildcard_available:
        return
    for topic_filter, _ in packet.entries:
        if not is_topic_filter(topic_filter):
            continue  # its answer is in SUBACK
        if not offer.shared_available and topic_filter.startswith(SHARED_PREFIX):
            raise SharedNotSupported("this server has no shared subscriptions")
        if not offer.wildcard_available and has_wildcard(topic_filter):
            raise WildcardsNotSupported("this server has no wildcard subscriptions")


def wants_retained(subscription: Subscription, *, is_new: bool) -> bool:
    """Say whether a subscription gets what is retained [MQTT-3.3.1-9 to MQTT-3.3.1-11].

    A shared one does not [MQTT 5.0, 4.8.2].
    """
    handling = subscription.retain_handling
    if subscription.is_shared or handling == _RETAIN_NEVER:
        return False
    return is_new or handling != _RETAIN_ONLY_IF_NEW


def granted(offer: Offer, options: int, *, is_bridge: bool) -> int:
    """Return the options that a subscription gets for those that were asked for.

    A lower QoS where the server has no higher one [MQTT-3.2.2-10]. Bridges get nothing back
    that they published, or two brokers would send each other the same message for ever.
    """
    qos = min(options & _QOS, offer.maximum_qos)
    return options & ~_QOS | qos | (NO_LOCAL | _RETAIN_AS_PUBLISHED if is_bridge else 0)
