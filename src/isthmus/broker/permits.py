"""What MQTT clients may do, asked for each message and remembered for each client.

The rules are those of access.py, the same for every protocol; here they meet sessions. While
there are none `is_on` is false, and nobody asks.

To publish is decided once for a client and a topic name. To receive is decided when it is found
out who gets a topic name, so that a message costs nothing; and once more when a message that
had to wait is read back, for the rules, or the client, may have become others meanwhile. When
rules change, all that was found out is found out anew, with the next message. That is so for
sessions at rest as well, for which only what they may receive comes to wait; and nothing, as
long as their user is removed or disabled.

Compiled, as part of the path of every message.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

from isthmus.broker.access_rules import PUBLISH, SUBSCRIBE
from isthmus.topics.filter import parse_shared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.broker.access import Access, Rights
    from isthmus.broker.identity import Principal
    from isthmus.broker.sessions import SessionEntry
    from isthmus.broker.subscriptions import Receiver, Subscriptions
    from isthmus.mqtt.session import Session

logger = logging.getLogger(__name__)

REMEMBERED_MAX: Final = 256  # topic names of one client; then all are forgotten
NAME_BYTES_MAX: Final = 256  # longer names are not remembered
RESTING_MAX: Final = 50_000  # sessions at rest of which something is, 1 KB each


class Remembered:
    """What one client may do, as far as it was asked; stale with another of its first two."""

    __slots__ = ("generation", "is_told", "principal", "publishes", "receives", "rights")

    def __init__(self, generation: int, principal: Principal, rights: Rights) -> None:
        self.generation = generation
        self.principal = principal
        self.rights = rights
        self.publishes: dict[bytes, bool] = {}  # by topic name
        self.receives: dict[bytes, bool] = {}
        self.is_told = False  # the log, that something was denied


class Permits:
    """Asks the rules about sessions."""

    def __init__(self, access: Access, subscriptions: Subscriptions) -> None:
        """Who gets a topic name is found out anew from `subscriptions` when rules change."""
        self._access = access
        self._subscriptions = subscriptions
        self._generation = access.generation
        self._some_are_gone = False
        self._resting: list[SessionEntry] = []  # at rest, or were when something was remembered
        self.is_on = not access.is_open
        access.follow(self._changed)

    def principals_changed(self, entries: Iterable[SessionEntry]) -> None:
        """Some of all sessions are of other users now, by their groups or as these are gone."""
        self._some_are_gone = any(entry.principal.is_gone for entry in entries)
        self._changed()

    def _changed(self) -> None:
        """The rules have become others."""
        self._generation = self._access.generation
        self.is_on = self._some_are_gone or not self._access.is_open
        self._subscriptions.reconsider()

    def passed_on(self, before: Principal, principal: Principal) -> None:
        """A session that was one's is another's, who may have other rights."""
        if self.is_on and principal.whom != before.whom:
            self._subscriptions.tree.outdate()

    def may_publish(self, session: Session, topic_name: bytes) -> bool:
        """Whether a message of the session's client is taken.

        The log tells of the first one that is not, for each client and each set of rules.
        """
        known = self._known_of(session)
        allowed = known.publishes.get(topic_name)
        if allowed is None:
            allowed = _decided(known, PUBLISH, topic_name, known.publishes)
        if not allowed and not known.is_told:
            known.is_told = True
            logger.info(
                "publish denied, as are more perhaps client=%s user=%s topic_name=%r",
                session.client_id,
                known.principal,
                topic_name,
            )
        return allowed

    def may_receive(self, session: Session, topic_name: bytes) -> bool:
        """Whether a message may go to the session's client."""
        known = self._known_of(session)
        allowed = known.receives.get(topic_name)
        if allowed is None:
            allowed = _decided(known, SUBSCRIBE, topic_name, known.receives)
        return allowed

    def may_wait_for(self, session: Session, topic_name: bytes) -> bool:
        """Whether a message may come to wait for a session whose client is not here."""
        return not _entry_of(session).principal.is_gone and self.may_receive(
            session, topic_name
        )

    def may_subscribe(self, session: Session, topic_filter: str) -> bool:
        """Whether the client could receive anything of a topic filter, shared or not."""
        rights = self._known_of(session).rights
        return rights.allows(SUBSCRIBE, parse_shared(topic_filter)[1]).allowed

    def receivable(self, session: Session, topic_filter: str) -> list[str]:
        """Return parts of a topic filter in which is all of it that the client may receive."""
        if not self.is_on:
            return [topic_filter]
        return self._known_of(session).rights.receivable(topic_filter)

    def passing(self, receivers: list[Receiver], topic_name: bytes) -> list[Receiver]:
        """Return those receivers who may have a topic name."""
        return [
            receiver
            for receiver in receivers
            if self.may_wait_for(receiver.session, topic_name)
        ]

    def _known_of(self, session: Session) -> Remembered:
        entry = _entry_of(session)
        principal = entry.principal
        known = entry.permitted
        if (
            known is None
            or known.generation != self._generation
            or known.principal is not principal
        ):
            rights = self._access.rights_of(principal)
            known = entry.permitted = Remembered(self._generation, principal, rights)
            if entry.connection is None:
                self._note_resting(entry)
        return known

    def _note_resting(self, entry: SessionEntry) -> None:
        """Bound what is remembered of sessions at rest, of which there may be very many."""
        if len(self._resting) >= RESTING_MAX:
            for each in self._resting:
                if each.connection is None:
                    each.permitted = None
            self._resting = []
        self._resting.append(entry)


def _decided(
    known: Remembered, operation: str, topic_name: bytes, answers: dict[bytes, bool]
) -> bool:
    """Decide on one topic name, and remember it."""
    name = topic_name.decode("utf-8", "replace")  # of a record of Kafka's it may be anything
    allowed = known.rights.allows(operation, name).allowed
    if len(topic_name) <= NAME_BYTES_MAX:
        if len(answers) >= REMEMBERED_MAX:
            answers.clear()
        answers[topic_name] = allowed
    return allowed


def _entry_of(session: Session) -> SessionEntry:
    return cast("SessionEntry", session.owner)
