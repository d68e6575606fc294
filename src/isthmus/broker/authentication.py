"""Who somebody is: the ways of finding out that a listener has, asked one after the other.

A `Request` is what somebody shows; each `Way` of the listener's `Chain` looks at it and says
who that is, that it is to go, or that it cannot tell (None), now or later. The first that can
tell decides. Whom nobody can tell is refused; somebody who shows nothing at all comes in
without a name where the listener says so. A method of several messages (SASL: SCRAM and the
like) belongs to the way that offers it.

No protocol is known here: `Door`, at the end, is what an MQTT client finds, and the Kafka side
asks the same chain.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from isthmus.broker.identity import CERTIFICATE, Principal
from isthmus.errors import (
    AuthenticationMethodUnknown,
    BadCredentials,
    IsthmusError,
    NotAuthorized,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from isthmus.broker.identity import Identity
    from isthmus.mqtt.opening import Opening


class Request(NamedTuple):
    """What somebody shows of who it is."""

    identity: Identity
    client_id: str
    user_name: str | None = None
    password: bytes | None = None

    def __repr__(self) -> str:
        """Show everything but the password: asyncio logs what it failed to call."""
        return f"Request(identity={self.identity}, client_id={self.client_id!r})"


class Found(NamedTuple):
    """Who somebody is, as one way has found out."""

    user: str
    groups: frozenset[str] = frozenset()
    until_ms: int = 0  # by the wall clock; 0: for good
    way: str = ""  # where it is another than the one that was asked


class Shown(NamedTuple):
    """Who somebody is, and what the method's last message to it is."""

    found: Found
    data: bytes | None = None


Verdict = Found | IsthmusError | None
Answer = Shown | bytes | IsthmusError


class Conversation(Protocol):
    """A method of several messages, under way with one client."""

    def step(self, data: bytes, answer: Callable[[Answer], object]) -> None:
        """Take a message of the client; `answer` with the next one to it, or with the end."""


class Way(Protocol):
    """One way of finding out who somebody is."""

    name: str

    @property
    def methods(self) -> Mapping[str, Callable[[Request], Conversation]]:
        """The methods of several messages that this offers, by the names that SASL has."""

    def judge(self, request: Request, answer: Callable[[Verdict], object]) -> None:
        """Say who it is, that it is to go, or (None) that this cannot tell."""


class CertificateWay:
    """Who has shown a certificate or a key to the transport is whom that names."""

    name = CERTIFICATE
    methods: Mapping[str, Callable[[Request], Conversation]] = {}

    def judge(self, request: Request, answer: Callable[[Verdict], object]) -> None:
        """Say whom the certificate names; without one this cannot tell."""
        user = request.identity.user
        answer(Found(user) if user else None)


class Chain:
    """The ways of one listener, in their order."""

    def __init__(self, ways: Sequence[Way], *, allow_anonymous: bool) -> None:
        self._ways = ways
        self.allow_anonymous = allow_anonymous

    def asks(self, name: str) -> bool:
        """Whether a way is one of them."""
        return any(way.name == name for way in self._ways)

    def judge(
        self, request: Request, decided: Callable[[Principal | IsthmusError], object]
    ) -> None:
        """Find out who somebody is, or why it is to go."""
        self._ask(0, request, decided)

    def begin(self, method: str, request: Request) -> tuple[str, Conversation]:
        """Begin a method of several messages: the way that has it, and its conversation.

        Raises AuthenticationMethodUnknown.
        """
        for way in self._ways:
            if method in way.methods:
                return way.name, way.methods[method](request)
        raise AuthenticationMethodUnknown("the authentication method is not offered here")

    def _ask(
        self,
        place: int,
        request: Request,
        decided: Callable[[Principal | IsthmusError], object],
    ) -> None:
        if place == len(self._ways):
            decided(self._undecided(request))
            return
        way = self._ways[place]

        def answer(verdict: Verdict) -> None:
            if verdict is None:
                self._ask(place + 1, request, decided)
            elif isinstance(verdict, IsthmusError):
                decided(verdict)
            else:
                decided(principal_of(verdict, request, way.name))

        way.judge(request, answer)

    def _undecided(self, request: Request) -> Principal | IsthmusError:
        if request.user_name is not None or request.password is not None:
            return BadCredentials("the user name or the password is wrong")
        if not self.allow_anonymous:
            return NotAuthorized("nobody comes in here without showing who it is")
        return Principal("", request.client_id, request.identity)


def principal_of(found: Found, request: Request, way: str) -> Principal:
    """Return whom a request is from."""
    return Principal(
        found.user,
        request.client_id,
        request.identity,
        groups=found.groups,
        way=found.way or way,
        until_ms=found.until_ms,
    )


class Door:
    """What decides about the MQTT clients of one listener: call it with an opening."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def __call__(self, identity: Identity, opening: Opening) -> None:
        """Have a client judged by what its CONNECT or its newest AUTH says."""
        connect = opening.connect
        request = Request(identity, opening.client_id, connect.username, connect.password)
        if opening.method is None:
            self._chain.judge(request, partial(_decide, opening))
            return
        try:
            if opening.memory is None:
                opening.memory = self._chain.begin(opening.method, request)
        except AuthenticationMethodUnknown as error:
            opening.refuse(error)
            return
        if opening.data is None:  # the client waits for the first word
            opening.ask()
            return
        way, conversation = opening.memory

        def answer(said: Answer) -> None:
            if isinstance(said, IsthmusError):
                opening.refuse(said)
            elif isinstance(said, Shown):
                opening.accept(principal_of(said.found, request, way), said.data)
            else:
                opening.ask(said)

        conversation.step(opening.data, answer)


def _decide(opening: Opening, verdict: Principal | IsthmusError) -> None:
    if isinstance(verdict, IsthmusError):
        opening.refuse(verdict)
    else:
        opening.accept(verdict)
