"""Logging in on the Kafka side: SASL, by the ways and users that MQTT has [KIP-43, KIP-152].

A `KafkaDoor` belongs to a listener, a `Login` to a connection. Until its client has shown who
it is, a connection is asked for nothing but ApiVersions and what SASL takes. Who is known by a
certificate, or may come without a name, need not begin SASL, and may.

A client names a mechanism (SaslHandshake); what the mechanism says then travels in
SaslAuthenticate, or, after the oldest handshake, bare. A client that has logged in may do so
again, as the same user, and has to before its session is over [KIP-368].

Without I/O: the requests are in kafka_api/sasl.py. Who somebody is, is found out by
broker/authentication.py; here is what PLAIN says of it [RFC 4616].
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.broker.authentication import Request, Shown, principal_of
from isthmus.broker.identity import CERTIFICATE, Principal
from isthmus.errors import BadCredentials, IsthmusError, NotAuthorized, ServerBusy
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.broker.authentication import Answer, Chain, Conversation
    from isthmus.broker.guard import Guard
    from isthmus.broker.identity import Identity
    from isthmus.config_listeners import KafkaLimits
    from isthmus.runtime import Runtime

PLAIN: Final = "PLAIN"
AGAIN_MS_MIN: Final = 1000  # between two times that a client begins to log in anew
TOKEN_BYTES_MAX: Final = 1 << 19  # of a request before anybody is known
FIRST: Final = frozenset((ApiKey.API_VERSIONS, ApiKey.SASL_HANDSHAKE))


class KafkaDoor:
    """How the clients of one listener show who they are."""

    def __init__(
        self,
        chain: Chain,
        limits: KafkaLimits,
        mechanisms: Sequence[str],
        runtime: Runtime,
        guard: Guard,
    ) -> None:
        """`chain` finds out who somebody is; `guard` keeps count of those who fail to."""
        self.chain = chain
        self.limits = limits
        self.mechanisms = mechanisms
        self.runtime = runtime
        self.guard = guard

    def begin(self, identity: Identity) -> Login:
        """Return the login of a new connection."""
        principal = None
        if identity.user and self.chain.asks(CERTIFICATE):
            principal = Principal(identity.user, "", identity, way=CERTIFICATE)
        elif self.chain.allow_anonymous:
            principal = Principal("", "", identity)
        return Login(self, identity, principal)


class Said(NamedTuple):
    """What a client is answered: a message of the mechanism, or why it does not come in."""

    data: bytes = b""
    error: IsthmusError | None = None
    is_over: bool = False  # with success
    lifetime_ms: int = 0  # then, until it has to log in again; 0: never


class State(Enum):
    """How far a connection is."""

    FIRST = "nothing of SASL was said"
    TALKING = "the mechanism talks in SaslAuthenticate"
    RAW = "the mechanism talks bare"
    DONE = "the client is in"


class Login:
    """One connection's way in, and when it has to be gone again."""

    def __init__(
        self, door: KafkaDoor, identity: Identity, principal: Principal | None
    ) -> None:
        """`principal` is whom the client may do as without SASL."""
        self.principal = principal
        self.mechanism = ""
        self._door = door
        self._identity = identity
        self._state = State.FIRST
        self.asked = ""  # the mechanism of the handshake
        self._talk: tuple[str, Conversation] | None = None
        self._expires_ms = 0  # by the clock that never goes back; 0: never
        self._again_ms = 0  # when it may begin to log in anew, by the same clock

    @property
    def is_talking(self) -> bool:
        """Whether a mechanism is under way, or was begun."""
        return self._state is State.TALKING

    @property
    def is_raw(self) -> bool:
        """Whether what comes now is no request, but bare messages of the mechanism."""
        return self._state is State.RAW

    @property
    def mechanisms(self) -> Sequence[str]:
        """What the listener offers."""
        return self._door.mechanisms

    @property
    def failure_delay_ms(self) -> int:
        """How long a client waits for the news that it does not come in."""
        return self._door.limits.authentication_failure_delay_ms

    def admits(self, api_key: int) -> bool:
        """Whether a request may be served now. All that follows ordinary ones are, too."""
        if self._state is State.TALKING:
            return api_key == ApiKey.SASL_AUTHENTICATE
        if self.principal is None:
            return api_key in FIRST
        if api_key == ApiKey.SASL_HANDSHAKE:
            return True
        if self._state is State.FIRST and api_key != ApiKey.API_VERSIONS:
            self._state = State.DONE
        return not self._expires_ms or self._door.runtime.monotonic_ms() < self._expires_ms

    def handshake(self, mechanism: str, version: int) -> ErrorCode:
        """Begin a mechanism, where it is offered and there is a place for it."""
        now_ms = self._door.runtime.monotonic_ms()
        if not self._door.mechanisms:
            return ErrorCode.ILLEGAL_SASL_STATE
        is_again = self._state is State.DONE
        if is_again and (not self.mechanism or now_ms < self._again_ms):
            return ErrorCode.ILLEGAL_SASL_STATE
        if mechanism not in self._door.mechanisms:
            return ErrorCode.UNSUPPORTED_SASL_MECHANISM
        if is_again:
            self._again_ms = now_ms + AGAIN_MS_MIN
        self.asked = mechanism
        self._talk = None
        self._state = State.TALKING if version else State.RAW
        return ErrorCode.NONE

    def step(self, data: bytes, client_id: str, answer: Callable[[Said], object]) -> None:
        """Take a message of the client; `answer` with what it is told, now or later."""
        request = Request(self._identity, client_id)
        decided = partial(self._decided, answer)
        try:
            if self.mechanism and self.asked != self.mechanism:
                raise NotAuthorized(f"{self.asked} after {self.mechanism}")
            if self.asked == PLAIN:
                user, password = parse_plain(data)
                request = request._replace(user_name=user, password=password)
                self._door.chain.judge(request, decided)
                return
            if self._talk is None:
                self._talk = self._door.chain.begin(self.asked, request)
        except IsthmusError as error:
            decided(error)
            return
        way, conversation = self._talk

        def said(what: Answer) -> None:
            if isinstance(what, Shown):
                decided(principal_of(what.found, request, way), what.data or b"")
            elif isinstance(what, IsthmusError):
                decided(what)
            else:
                answer(Said(what))

        conversation.step(data, said)

    def _decided(
        self,
        answer: Callable[[Said], object],
        verdict: Principal | IsthmusError,
        data: bytes = b"",
    ) -> None:
        guard = self._door.guard
        if isinstance(verdict, Principal):
            banned = guard.refuses_user(verdict.user)
            before = self.principal if self.mechanism else None
            if banned is not None:
                verdict = banned
            elif before is not None and before.user != verdict.user:
                verdict = NotAuthorized(f"{verdict.user} is not {before.user}")
        if isinstance(verdict, IsthmusError):
            if not isinstance(verdict, ServerBusy):
                guard.failed(self._identity)
            answer(Said(error=verdict))
            return
        self.principal = verdict
        self.mechanism = self.asked
        self._state = State.DONE
        self._talk = None
        answer(Said(data, is_over=True, lifetime_ms=self._begin_session(verdict)))

    def _begin_session(self, principal: Principal) -> int:
        """Return how long the client is in; 0: for good."""
        runtime = self._door.runtime
        lives_ms = self._door.limits.reauthenticate_s * 1000
        if principal.until_ms:
            token_ms = max(1, principal.until_ms - runtime.now_ms())
            lives_ms = min(lives_ms, token_ms) if lives_ms else token_ms
        self._expires_ms = runtime.monotonic_ms() + lives_ms if lives_ms else 0
        return lives_ms


def parse_plain(data: bytes) -> tuple[str, bytes]:
    """Return user name and password of a PLAIN message [RFC 4616, 2]. Raises BadCredentials."""
    parts = data.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise BadCredentials("a PLAIN message that is none")
    if parts[0] and parts[0] != parts[1]:
        raise BadCredentials("PLAIN of one user on behalf of another")
    try:
        return parts[1].decode(), parts[2]
    except UnicodeDecodeError:
        raise BadCredentials("a PLAIN user name that is not UTF-8") from None
