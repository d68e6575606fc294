"""Letting a client in, where that may take time or several questions: CONNECT, AUTH, a verdict.

A machine without I/O. Whoever decides (the authenticator, a function) is given the `Opening`
and calls `ask`, `accept` or `refuse`, at once or when it knows more; `ask` is followed by the
client's AUTH, and then the authenticator is called again. A client that came with an
authentication method may begin anew once it is in, and its messages go on meanwhile [MQTT 5.0,
4.12.1]. A verdict for a connection that is gone by then is not heard.

Not here: what is in the data of a method, and who is a user: whom the authenticator accepts is
handed on as it is.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import UnexpectedPacket
from isthmus.mqtt.packets import Auth
from isthmus.mqtt.properties import AUTH_DATA, AUTH_METHOD
from isthmus.mqtt.reasons import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.errors import IsthmusError
    from isthmus.mqtt.packets import AnyPacket, Connect


class State(Enum):
    """Who is to speak next, before the client is in and after."""

    DECIDING = "deciding"
    ASKED = "asked"
    OPEN = "open"
    DECIDING_AGAIN = "deciding again"
    ASKED_AGAIN = "asked again"
    CLOSED = "closed"


class Event(Enum):
    """What the authenticator says, and what the client says."""

    ASK = "ask"
    ACCEPT = "accept"
    REFUSE = "refuse"
    ANSWER = "answer"
    BEGIN_ANEW = "begin anew"


NEXT: Final[dict[State, dict[Event, State]]] = {
    State.DECIDING: {
        Event.ASK: State.ASKED,
        Event.ACCEPT: State.OPEN,
        Event.REFUSE: State.CLOSED,
    },
    State.ASKED: {Event.ANSWER: State.DECIDING},
    State.OPEN: {Event.BEGIN_ANEW: State.DECIDING_AGAIN},
    State.DECIDING_AGAIN: {
        Event.ASK: State.ASKED_AGAIN,
        Event.ACCEPT: State.OPEN,
        Event.REFUSE: State.CLOSED,
    },
    State.ASKED_AGAIN: {Event.ANSWER: State.DECIDING_AGAIN},
    State.CLOSED: {},
}


class Opening:
    """One client at the door: what it said, and what may be said to it."""

    __slots__ = (
        "_accepted",
        "_authenticate",
        "_refused",
        "_renewed",
        "_send",
        "client_id",
        "connect",
        "data",
        "memory",
        "method",
        "state",
    )

    def __init__(
        self,
        connect: Connect,
        client_id: str,
        authenticate: Callable[[Opening], None],
        *,
        send: Callable[[Auth], None],
        accepted: Callable[[Any, dict[int, Any]], None],
        renewed: Callable[[Any], None],
        refused: Callable[[IsthmusError], None],
    ) -> None:
        """Take up a CONNECT; `begin` asks for the first verdict.

        `client_id` is the client's own or the one it is given. `send` takes the AUTH packets;
        `accepted(whom, properties)` is called when the client is let in, with what CONNACK has
        to say of it, `renewed(whom)` when it has shown anew who it is, `refused(error)` when it
        is to go.
        """
        properties = connect.properties or {}
        self.connect = connect
        self.client_id = client_id
        self.method: str | None = properties.get(AUTH_METHOD)
        self.data: bytes | None = properties.get(AUTH_DATA)  # of the newest packet
        self.memory: Any = None  # the authenticator's own, until the client begins anew
        self.state = State.DECIDING
        self._authenticate = authenticate
        self._send = send
        self._accepted = accepted
        self._renewed = renewed
        self._refused = refused

    # --- the connection calls these -----------------------------------------------------------

    def begin(self) -> None:
        """Have the client's CONNECT judged."""
        self._authenticate(self)

    @property
    def is_deciding(self) -> bool:
        """Whether nothing can be done with the client until there is a verdict."""
        return self.state is State.DECIDING

    @property
    def goes_on(self) -> bool:
        """Whether there is anything left to say."""
        if self.state is State.OPEN:
            return self.method is not None
        return self.state is not State.CLOSED

    def receive(self, packet: AnyPacket) -> None:
        """Take an AUTH; nothing else may come before CONNACK [MQTT-3.1.2-30].

        Raises UnexpectedPacket for it, or for an AUTH that nobody asked for [MQTT-4.12.0-7], or
        with another method than that of CONNECT [MQTT-4.12.0-5, MQTT-4.12.1-1].
        """
        if not isinstance(packet, Auth):
            raise UnexpectedPacket("another packet than AUTH while a client authenticates")
        properties = packet.properties or {}
        anew = packet.reason == ReasonCode.RE_AUTHENTICATE
        following = NEXT[self.state].get(Event.BEGIN_ANEW if anew else Event.ANSWER)
        if following is None or self.method is None:
            raise UnexpectedPacket("an AUTH that nobody asked for")
        if properties.get(AUTH_METHOD) != self.method:
            raise UnexpectedPacket("an AUTH with another method than CONNECT")
        self.state = following
        self.data = properties.get(AUTH_DATA)
        if anew:
            self.memory = None
        self._authenticate(self)

    def end(self) -> None:
        """The connection is gone; whatever is decided from now on is not heard."""
        self.state = State.CLOSED

    # --- the authenticator calls these --------------------------------------------------------

    def ask(self, data: bytes | None = None) -> None:
        """Ask the client to go on, which needs a method [MQTT-4.12.0-2, MQTT-4.12.0-6]."""
        assert self.method is not None or self.state is State.CLOSED
        if self._step(Event.ASK):
            self._send(Auth(ReasonCode.CONTINUE_AUTHENTICATION, self._properties(data)))

    def accept(self, whom: object, data: bytes | None = None) -> None:
        """Let the client in as somebody, or say that it may stay."""
        again = self.state is State.DECIDING_AGAIN
        if not self._step(Event.ACCEPT):
            return
        if not again:
            self._accepted(whom, self._properties(data))
            return
        self._renewed(whom)
        if self.goes_on:  # it may have become somebody whom this session is not for
            self._send(Auth(ReasonCode.SUCCESS, self._properties(data)))

    def refuse(self, error: IsthmusError) -> None:
        """Send the client away [MQTT-4.12.0-4, MQTT-4.12.1-2]."""
        if self._step(Event.REFUSE):
            self._refused(error)

    def _step(self, event: Event) -> bool:
        """Go on to the next state; False where the connection is gone."""
        if self.state is State.CLOSED:
            return False
        self.state = NEXT[self.state][event]  # a KeyError is the authenticator's fault
        return True

    def _properties(self, data: bytes | None) -> dict[int, Any]:
        """Return what goes beside a verdict: the method, as it came [MQTT-4.12.0-5]."""
        if self.method is None:
            return {}
        return {AUTH_METHOD: self.method} | ({} if data is None else {AUTH_DATA: data})
