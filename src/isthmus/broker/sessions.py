"""All sessions: find or make one for a CONNECT, take over, expire, send wills.

A session lives until its expiry interval has passed without a connection [MQTT-3.1.2-23]; a
will is published when its connection ends without a proper DISCONNECT, after its delay or at
the end of the session, whichever is first [MQTT-3.1.2-8, MQTT-3.1.3-9]. Sessions of the run
before have lost their connections with it: their wills wait a while for them to come back. What
a session does with packets is in `mqtt/session.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, cast

from isthmus.broker.session_ends import SessionEnds
from isthmus.errors import NotAuthorized, SessionTakenOver
from isthmus.mqtt.properties import WILL_DELAY
from isthmus.mqtt.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.identity import Identity, Principal
    from isthmus.broker.permits import Remembered
    from isthmus.broker.session_ends import Shelf
    from isthmus.broker.timers import Deadline, Deadlines
    from isthmus.errors import IsthmusError
    from isthmus.mqtt.delivery import SessionLimits
    from isthmus.mqtt.handshake import Offer, Terms
    from isthmus.mqtt.opening import Opening
    from isthmus.mqtt.packets import Auth, Publish, Will
    from isthmus.mqtt.traffic import Traffic
    from isthmus.runtime import Runtime

EXPIRY_NEVER: Final = 0xFFFF_FFFF  # [MQTT-3.1.2.11.2]


class Connection(Protocol):
    """What the broker needs of the connection of a client."""

    identity: Identity  # where it comes from
    connected_at_ms: int  # when it was let in

    @property
    def offer(self) -> Offer:
        """What its listener allows."""

    @property
    def authenticate(self) -> Callable[[Identity, Opening], None] | None:
        """What decides who comes in through its listener; None: whoever connects."""

    @property
    def keep_alive_s(self) -> int:
        """Seconds that the client may be silent; 0: for ever."""

    def transmit(self, data: bytes) -> None:
        """Send bytes to the client."""

    def send_auth(self, packet: Auth) -> None:
        """Send an AUTH, which belongs to no session."""

    def opened(self, entry: SessionEntry, terms: Terms) -> None:
        """The client was let in, and CONNACK is on its way."""

    def authenticate_again(self, packet: Auth) -> None:
        """The client that was let in sends AUTH. Raises UnexpectedPacket."""

    def close(self, error: IsthmusError) -> None:
        """Tell the client why, as its protocol version can, and close."""


class SessionEntry:
    """A session with what the broker keeps about its client."""

    __slots__ = (
        "connection",
        "detached_at_ms",
        "end_due",
        "expiry_s",
        "is_bridge",
        "number",
        "permitted",
        "principal",
        "principal_due",
        "session",
        "will",
        "will_due",
    )

    def __init__(self, session: Session, number: int, principal: Principal) -> None:
        self.session = session
        self.principal = principal  # who connected last
        self.principal_due: Deadline | None = None  # when that does not hold any more
        self.number = number  # grows in the order in which sessions begin
        self.permitted: Remembered | None = None  # what permits.py remembers
        self.connection: Connection | None = None
        self.expiry_s = 0
        self.is_bridge = False
        self.detached_at_ms = 0  # 0: connected
        self.will: Will | None = None
        self.will_due: Deadline | None = None  # a will that waits for its delay
        self.end_due: Deadline | Shelf | None = None  # see session_ends.py


class SessionTable:
    """Sessions by client id."""

    def __init__(
        self,
        runtime: Runtime,
        deadlines: Deadlines,
        publish_will: Callable[[SessionEntry, Will], None],
        changed: Callable[[SessionEntry], None],
        ended: Callable[[Session], None],
        recall: Callable[..., Publish | None],
        limits: SessionLimits,
        traffic: Traffic,
        *,
        sessions_max: int,
        will_grace_s: int,
    ) -> None:
        """Make an empty table.

        `publish_will(entry, will)` is called when a will is due, `changed(entry)` when a client
        has connected or is gone or its will was sent, `ended(session)` when a session is over
        and its subscriptions go. For `will_grace_s` the wills of restored sessions are kept.
        """
        self._runtime = runtime
        self._deadlines = deadlines
        self._publish_will = publish_will
        self._changed = changed
        self._ended = ended
        self._recall = recall
        self.limits = limits
        self._traffic = traffic
        self._sessions_max = sessions_max
        self.connected = 0  # of the entries
        self.expired = 0  # sessions whose time was over
        self._will_grace_ms = will_grace_s * 1000
        self.entries: dict[str, SessionEntry] = {}  # in the order of their numbers
        self._begun = 0
        self._ends = SessionEnds(runtime, deadlines, self._expire)

    def connect(
        self, terms: Terms, connection: Connection, principal: Principal
    ) -> tuple[SessionEntry, bool]:
        """Return the entry for an accepted CONNECT, and whether its session was there before.

        An open connection of the same client is closed first [MQTT-3.1.4-3].
        """
        entry = self.entries.get(terms.client_id)
        if entry is not None and entry.connection is not None:
            earlier = entry.connection
            earlier.close(SessionTakenOver("another connection took the session over"))
            self.disconnect(entry, earlier, with_will=True)
            entry = self.entries.get(terms.client_id)
        if entry is not None and terms.clean_start:
            self._end(entry)
            entry = None
        present = entry is not None
        if entry is None:
            entry = self._add(terms.client_id, principal)
        self._cancel_deadlines(entry)  # a will that waits is not sent [MQTT-3.1.3-9]
        entry.connection = connection
        self.connected += 1
        self.limits.share_out(self.connected)
        self.set_principal(entry, principal)
        entry.detached_at_ms = 0
        entry.expiry_s = terms.session_expiry_s
        entry.is_bridge = terms.is_bridge
        entry.will = terms.will
        entry.session.attach(terms, connection.transmit)
        entry.session.persistent = entry.expiry_s > 0
        self._changed(entry)
        return entry, present

    def has_room(self, client_id: str) -> bool:
        """Whether a client may have a session; who has one already may."""
        return client_id in self.entries or len(self.entries) < self._sessions_max

    def set_principal(self, entry: SessionEntry, principal: Principal) -> None:
        """Take somebody for the client of a connection, for as long as that holds."""
        entry.principal = principal
        if entry.principal_due is not None:
            self._deadlines.cancel(entry.principal_due)
            entry.principal_due = None
        if principal.until_ms:
            left_ms = max(principal.until_ms - self._runtime.now_ms(), 0)
            entry.principal_due = self._deadlines.after(left_ms, _send_away, entry)

    def owner_of(self, client_id: str) -> str:
        """Return the user whose session it is; empty: anybody's, or there is none."""
        entry = self.entries.get(client_id)
        return entry.principal.user if entry is not None else ""

    def restore(
        self, client_id: str, expiry_s: int, detached_at_ms: int, principal: Principal
    ) -> SessionEntry:
        """Add a session of an earlier run of the server; see `end_if_expired`."""
        entry = self._add(client_id, principal)
        entry.expiry_s = expiry_s
        entry.detached_at_ms = detached_at_ms
        entry.session.persistent = True
        return entry

    def end_if_expired(self, entry: SessionEntry) -> bool:
        """Begin to count what is left of a restored session's time, if anything is left."""
        passed_ms = max(self._runtime.now_ms() - entry.detached_at_ms, 0)
        if entry.expiry_s != EXPIRY_NEVER and passed_ms >= entry.expiry_s * 1000:
            self._expire(entry)
            return True
        self._wait(entry, passed_ms, self._will_grace_ms)
        return False

    def _add(self, client_id: str, principal: Principal) -> SessionEntry:
        session = Session(client_id, self._recall, self.limits, self._traffic)
        entry = self.entries[client_id] = SessionEntry(session, self._begun, principal)
        self._begun += 1
        session.owner = entry
        return entry

    def disconnect(
        self, entry: SessionEntry, connection: Connection, *, with_will: bool
    ) -> None:
        """The connection of an entry is gone or about to go: it gets what it was owed by now.

        CONNACK may be among that [MQTT-3.2.0-1]. Does nothing if another connection has taken
        over.
        """
        if entry.connection is not connection:
            return
        entry.connection = None
        self.connected -= 1
        self.limits.share_out(self.connected)
        self._cancel_deadlines(entry)
        entry.permitted = None  # somebody else may come back
        if entry.session.output.size:
            connection.transmit(entry.session.output.take())
        entry.session.detach()
        entry.detached_at_ms = self._runtime.now_ms()
        if not with_will:
            entry.will = None
        if entry.expiry_s == 0:
            self._end(entry)
        else:
            self._changed(entry)
            self._wait(entry, 0, 0)

    def _wait(self, entry: SessionEntry, passed_ms: int, grace_ms: int) -> None:
        """Have a session without a connection end when its time is over, and its will sent.

        `passed_ms`: since it lost its connection; `grace_ms`: what a will waits at least.
        """
        if entry.expiry_s != EXPIRY_NEVER:
            self._ends.begin(entry, entry.expiry_s * 1000 - passed_ms)
        if entry.will is not None:
            left_ms = max(_delay_s(entry.will) * 1000 - passed_ms, grace_ms)
            if left_ms == 0:
                self._send_will(entry)
            else:  # or with the end of the session, if that comes before
                entry.will_due = self._deadlines.after(left_ms, self._send_will, entry)

    def end(self, entry: SessionEntry) -> None:
        """End a session that has no connection any more, if nothing else has."""
        if self.entries.get(entry.session.client_id) is entry:
            self._end(entry)

    def _expire(self, entry: SessionEntry) -> None:
        self.expired += 1
        self._end(entry)

    def _end(self, entry: SessionEntry) -> None:
        """The session is over; a will that still waits is sent now [MQTT-3.1.3-9]."""
        self._cancel_deadlines(entry)
        self._send_will(entry)
        if self.entries.get(entry.session.client_id) is entry:
            del self.entries[entry.session.client_id]
        entry.session.queue.clear()
        self._ended(entry.session)

    def _send_will(self, entry: SessionEntry) -> None:
        if entry.will is not None:
            will, entry.will = entry.will, None
            self._publish_will(entry, will)
            self._changed(entry)

    def _cancel_deadlines(self, entry: SessionEntry) -> None:
        self._ends.cancel(entry)
        for deadline in (entry.will_due, entry.principal_due):
            if deadline is not None:
                self._deadlines.cancel(deadline)
        entry.will_due = entry.principal_due = None


def _send_away(entry: SessionEntry) -> None:
    """End a connection whose client has to show anew who it is."""
    if entry.connection is not None:
        entry.connection.close(NotAuthorized("what showed who the client is has run out"))


def _delay_s(will: Will | None) -> int:
    """Return the Will Delay Interval [MQTT-3.1.3.2.2]."""
    if will is None or not will.properties:
        return 0
    return int(will.properties.get(WILL_DELAY, 0))


def end_connection(session: Session, error: IsthmusError) -> None:
    """Close the connection of a session, if it has one."""
    entry = cast("SessionEntry", session.owner)
    if entry.connection is not None:
        entry.connection.close(error)
