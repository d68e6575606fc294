"""What MQTT clients ask for besides messages: to connect, to subscribe, to leave.

Joins the session table, what clients say about topic filters (subscribing.py) and the retained
messages; the broker next door moves the messages themselves. A connection calls `open` with its
CONNECT, `receive` with all that follows once it was `opened`, and `lost` when it is gone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from isthmus.broker.events import Events
from isthmus.broker.greetings import Greetings
from isthmus.broker.guard import Guard, Streaks
from isthmus.broker.identity import CERTIFICATE, Principal
from isthmus.broker.passwords import USERS
from isthmus.broker.session_recovery import recover
from isthmus.broker.sessions import SessionTable, end_connection
from isthmus.broker.sparkplug import is_node_death, stamped
from isthmus.broker.subscribing import Subscribing
from isthmus.errors import (
    AuthenticationMethodUnknown,
    BadCredentials,
    NotAuthorized,
    QuotaExceeded,
    TooLarge,
    UnexpectedPacket,
)
from isthmus.mqtt.control import FILTERS_AT_A_TIME
from isthmus.mqtt.delivery import SessionLimits
from isthmus.mqtt.handshake import Terms, agree, fits, tell_response_information
from isthmus.mqtt.opening import Opening
from isthmus.mqtt.packets import (
    AUTH,
    DISCONNECT,
    PINGREQ,
    SUBSCRIBE,
    UNSUBSCRIBE,
    VERSION_5,
    Connect,
    Pingresp,
    Publish,
)
from isthmus.mqtt.properties import AUTH_METHOD, SESSION_EXPIRY, WILL_DELAY
from isthmus.mqtt.reasons import ReasonCode, reason_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.broker.automatic import AutomaticSubscription
    from isthmus.broker.broker import Broker
    from isthmus.broker.sessions import Connection, SessionEntry
    from isthmus.broker.subscriptions import Subscription
    from isthmus.broker.users import Users
    from isthmus.errors import IsthmusError, Redirected
    from isthmus.mqtt.packets import Disconnect, Will
    from isthmus.mqtt.session import Session


class Clients:
    """All MQTT clients of the server."""

    def __init__(
        self,
        broker: Broker,
        *,
        queue_length_max: int,
        queue_policy: str,
        queue_qos_0: bool,
        output_bytes_max: int,
        output_total_bytes_max: int,
        subscriptions_max: int,
        sessions_max: int,
        will_grace_s: int,
        redirected: Redirected | None = None,
        automatic: Sequence[AutomaticSubscription] = (),
        flapping: Streaks = Streaks(),  # noqa: B008  # never changed
        failures: Streaks = Streaks(),  # noqa: B008
        users: Users | None = None,
    ) -> None:
        """Take up the sessions of the last run.

        `redirected`: what every client is told instead of being let in. `automatic`: the
        subscriptions that new sessions begin with. `flapping` and `failures` are how often one
        may connect, and fail to authenticate (`guard.py`). `users`: those of the server.
        """
        self._broker = broker
        self.runtime = broker.runtime
        self.congested = broker.congested
        self.traffic = broker.traffic
        self.traces = broker.traces
        self._events = Events(broker.runtime, broker.say, self._is_wanted)
        self._redirected = redirected
        self._automatic = automatic
        self.greetings = Greetings(broker, queue_length_max)
        self.subscribing = Subscribing(
            broker,
            self.greetings,
            self._events,
            automatic,
            subscriptions_max=subscriptions_max,
        )
        self._overflowing: dict[Session, None] = {}  # to be disconnected in this turn
        limits = SessionLimits(
            queue_length_max,
            output_bytes_max,
            queue_policy,
            total_max=output_total_bytes_max,
            queue_qos_0=queue_qos_0,
            overflowed=self._overflowed,
        )
        self.sessions = self._table(limits, sessions_max, will_grace_s)
        self.guard = Guard(broker, self.sessions, flapping=flapping, failures=failures)
        self._users = users
        ungreeted = recover(broker, self.sessions, self._as_now)
        if users is not None:
            users.follow(self.users_changed)
        broker.session_log.start()
        self.greetings.begin(ungreeted)

    def _table(
        self, limits: SessionLimits, sessions_max: int, will_grace_s: int
    ) -> SessionTable:
        broker = self._broker
        return SessionTable(
            broker.runtime,
            broker.deadlines,
            self._publish_will,
            broker.session_log.note,
            self._ended,
            broker.catching_up.recall,
            limits,
            broker.traffic,
            sessions_max=sessions_max,
            will_grace_s=will_grace_s,
        )

    # --- connections --------------------------------------------------------------------------

    def open(self, connect: Connect, connection: Connection) -> Opening | None:
        """Have a CONNECT judged; `connection` hears of it, now or later.

        Returns what takes the client's AUTH packets, None where none may come. Raises the
        IsthmusError that refuses a CONNECT at once. Where nobody asks who it is, everyone is
        let in who comes without a method [MQTT-4.12.0-1].
        """
        if self._redirected is not None:
            raise self._redirected
        spare_client_id = "auto-" + self._broker.runtime.random_bytes(8).hex()
        terms = agree(connect, connection.offer, spare_client_id)
        identity = connection.identity
        self.guard.check(terms.client_id, identity.user or connect.username or "", identity)
        if connection.authenticate is None:
            if AUTH_METHOD in (connect.properties or {}):
                raise AuthenticationMethodUnknown("no authentication method is known here")
            way = CERTIFICATE if identity.user else ""
            whom = Principal(identity.user, terms.client_id, identity, way=way)
            self._accept(terms, connection, whom, {})
            return None
        opening = Opening(
            connect,
            terms.client_id,
            partial(connection.authenticate, identity),
            send=connection.send_auth,
            accepted=partial(self._accept, terms, connection),
            renewed=partial(self._renew, terms.client_id, connection),
            refused=partial(self._refuse, connect, connection),
        )
        opening.begin()
        return opening if opening.goes_on else None

    def _accept(
        self,
        terms: Terms,
        connection: Connection,
        principal: Principal,
        properties: dict[int, Any],
    ) -> None:
        """Give a client its session, sending CONNACK and what the session owes.

        Where a session is taken over, it is by the one that was accepted last; that of a user
        by the same user only, that of somebody without a name by anybody.
        """
        terms.properties.update(properties)
        tell_response_information(terms, principal.user)
        is_larger = properties or terms.response_information
        if is_larger and not fits(terms.connack(False), VERSION_5, terms.packet_size_max):
            connection.close(TooLarge("the client takes no CONNACK"))  # [MQTT-3.1.2-24]
            return
        banned = self.guard.refuses_user(principal.user)
        if banned is not None:
            connection.close(banned)
            return
        if self.sessions.owner_of(terms.client_id) not in ("", principal.user):
            connection.close(NotAuthorized("the session of this client id is another user's"))
            return
        if not self.sessions.has_room(terms.client_id):
            connection.close(QuotaExceeded("the server has as many sessions as it keeps"))
            return
        before = self.sessions.entries.get(terms.client_id)
        whose = before.principal if before is not None else principal
        entry, present = self.sessions.connect(terms, connection, principal)
        self._broker.permits.passed_on(whose, principal)
        session = entry.session
        session.answer(terms.connack(present))
        session.resume()
        if session.waiting() or session.refills:
            self._broker.catching_up.begin(session)
        self._broker.touch(session)
        connection.opened(entry, terms)
        self._events.connected(entry, connection, present=present)
        if self._automatic and not present:
            self.subscribing.subscribe_automatically(entry, connection)

    def _refuse(self, connect: Connect, connection: Connection, error: IsthmusError) -> None:
        """Send somebody away who could not show who it is, or is not to come in.

        A guess is what was wrong with something that was shown.
        """
        shown = connect.username is not None or connect.password is not None
        by_method = AUTH_METHOD in (connect.properties or {})
        if (shown or by_method) and isinstance(error, BadCredentials | NotAuthorized):
            self.guard.failed(connection.identity)
        connection.close(error)

    def _renew(self, client_id: str, connection: Connection, principal: Principal) -> None:
        """Take somebody who has shown anew who it is [MQTT 5.0, 4.12.1]."""
        entry = self.sessions.entries[client_id]
        if principal.user == entry.principal.user:
            self._broker.permits.passed_on(entry.principal, principal)
            self.sessions.set_principal(entry, principal)
        else:
            connection.close(NotAuthorized("authenticated again, and as another user"))

    def users_changed(self, names: set[str]) -> None:
        """Send away who is in as one of these users of the server.

        They are other users now, or none; who still is one comes back as what it is. Until then
        what comes to wait for their sessions is what they may receive now.
        """
        is_other = False
        for entry in [*self.sessions.entries.values()]:
            principal, connection = entry.principal, entry.connection
            if principal.way == USERS and principal.user in names:
                entry.principal = self._as_now(principal)
                is_other = is_other or entry.principal is not principal
                if connection:
                    connection.close(NotAuthorized("the user was changed or removed"))
        if is_other:
            self._broker.permits.principals_changed(self.sessions.entries.values())

    def _as_now(self, principal: Principal) -> Principal:
        """Return somebody of before as what the server's user of that name is now."""
        if self._users is None or principal.way != USERS:
            return principal
        user = self._users.find(principal.user)
        if user is None:
            return principal.but(groups=principal.groups, is_gone=True)
        return principal.but(groups=user.groups, is_gone=not user.is_enabled)

    def receive(
        self, entry: SessionEntry, connection: Connection, packets: Sequence[Any]
    ) -> bool:
        """Act on packets in their order; False once the client has said goodbye.

        Raises ProtocolError for a packet that has no place here.
        """
        return self._broker.receive(
            entry.session,
            packets,
            lambda packet: self._receive_other(entry, connection, packet),
        )

    def _receive_other(self, entry: SessionEntry, connection: Connection, packet: Any) -> bool:
        kind = packet.type
        session = entry.session
        if kind == PINGREQ:
            session.answer(Pingresp())
        elif kind == SUBSCRIBE:
            self._broker.commit()  # a message published before is retained by now
            if session.connected:
                self.subscribing.subscribe(entry, connection, packet)
        elif kind == UNSUBSCRIBE:
            self.subscribing.unsubscribe(entry, connection, packet)
        elif kind == AUTH:
            connection.authenticate_again(packet)
        elif kind == DISCONNECT:
            self._disconnect(entry, connection, packet)
            return False
        else:
            raise UnexpectedPacket(f"a packet of type {kind} from a connected client")
        return True

    def resume(self, entry: SessionEntry) -> None:
        """The connection takes output again."""
        session = entry.session
        session.paused = False
        self._broker.catching_up.begin(session)
        self._broker.touch(session)

    def lost(
        self, entry: SessionEntry, connection: Connection, error: IsthmusError | None = None
    ) -> None:
        """A connection ends without the client's DISCONNECT: its will is due [MQTT-3.1.2-8].

        `error`: why the server ends it.
        """
        reason = None if error is None else reason_in(DISCONNECT, error)
        self._leave(entry, connection, reason, with_will=True)

    def _leave(
        self,
        entry: SessionEntry,
        connection: Connection,
        reason: int | None,
        *,
        with_will: bool,
    ) -> None:
        if entry.connection is connection:
            self.subscribing.forget(entry)
            self._events.disconnected(entry, connection, reason)
            self.sessions.disconnect(entry, connection, with_will=with_will)

    def _overflowed(self, session: Session) -> None:
        """More waits for a session than may: its connection ends, once the turn is over."""
        if not self._overflowing:
            self.runtime.defer(self._end_overflowing)
        self._overflowing[session] = None

    def _end_overflowing(self) -> None:
        overflowing, self._overflowing = self._overflowing, {}
        for session in overflowing:
            end_connection(session, QuotaExceeded("more deliveries wait than may"))

    def _disconnect(
        self, entry: SessionEntry, connection: Connection, packet: Disconnect
    ) -> None:
        expiry_s = (packet.properties or {}).get(SESSION_EXPIRY)
        if expiry_s is not None:
            if entry.expiry_s == 0 and expiry_s != 0:
                raise UnexpectedPacket(  # [MQTT-3.14.2.2.2]
                    "DISCONNECT sets a session expiry where CONNECT had none"
                )
            entry.expiry_s = min(expiry_s, connection.offer.session_expiry_max_s)
        with_will = (
            packet.reason == ReasonCode.DISCONNECT_WITH_WILL
            or packet.reason >= ReasonCode.UNSPECIFIED_ERROR
        )
        self._leave(entry, connection, packet.reason, with_will=with_will)

    def _publish_will(self, entry: SessionEntry, will: Will) -> None:
        properties = dict(will.properties or {})
        properties.pop(WILL_DELAY, None)
        publish = Publish(will.topic, will.payload, will.qos, will.retain)
        if self._broker.is_sparkplug_aware and is_node_death(will.topic):
            publish.payload = stamped(will.payload, self.runtime.now_ms())
        if properties:
            publish.properties = properties
        if self.traces.is_on:
            client_id, address = entry.session.client_id, entry.principal.address
            self.traces.came("WILL", publish, client_id, address)
        self._broker.publish(entry.session, publish)

    def _ended(self, session: Session) -> None:
        self.greetings.forget(session)
        self._broker.session_log.end(session)
        self._drop(self._broker.subscriptions.take_all(session))

    def _drop(self, left: list[Subscription]) -> None:
        """Remove the subscriptions of a session that has ended, some in each turn."""
        self._broker.subscriptions.drop(left[-FILTERS_AT_A_TIME:])
        del left[-FILTERS_AT_A_TIME:]
        if left:
            self.runtime.defer(partial(self._drop, left))

    def _is_wanted(self, topic_name: str) -> bool:
        """Whether anybody has subscribed to a topic name."""
        return any(self._broker.subscriptions.receivers(topic_name))
