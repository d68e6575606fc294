"""Logging in on the Kafka side, without sockets: mechanisms, order, ends, and once more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.scram_client import ScramClient
from tests.unit.broker.shore import Shore
from tests.unit.server.kafka_peer import Peer, ShoreRoom

from isthmus.broker.authentication import CertificateWay, Chain, Found, Shown
from isthmus.broker.bans import Ban
from isthmus.broker.delegation import DelegationTerms
from isthmus.broker.passwords import UsersWay
from isthmus.broker.users import User, Users, credentials_of
from isthmus.config_listeners import KafkaLimits
from isthmus.errors import NotAuthorized
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_listener import KafkaListener
from isthmus.server.kafka_login import KafkaDoor

if TYPE_CHECKING:
    from collections.abc import Callable

NO_TOPICS: dict[str, Any] = {"topics": []}
FAILED = ErrorCode.SASL_AUTHENTICATION_FAILED
ILLEGAL = ErrorCode.ILLEGAL_SASL_STATE


class Crew:
    """Does slow work at once, or, where it is full, none."""

    is_full = False

    def offload(self, work: Callable[[], Any], done: Callable[..., object]) -> bool:
        if not self.is_full:
            done(work(), None)
        return not self.is_full


class Tokens:
    """A way whose tokens are names, good for ten seconds."""

    name = "jwt"

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.methods = {"OAUTHBEARER": lambda _: self}
        self._now_ms = now_ms

    def judge(self, _: Any, answer: Callable[[Any], object]) -> None:
        answer(None)

    def step(self, data: bytes, answer: Callable[[Any], object]) -> None:
        if data == b"bad":
            answer(NotAuthorized("no token"))
        else:
            answer(
                Shown(Found(data.decode("utf-8", "replace"), until_ms=self._now_ms() + 10_000))
            )


class Room(ShoreRoom):
    """A Kafka shore whose clients log in; ann's password is "pw"."""

    def __init__(
        self,
        delegation: DelegationTerms = DelegationTerms(),  # noqa: B008  # never changed
        **limits: Any,
    ) -> None:
        super().__init__(delegation=delegation)
        self.mqtt = Shore()
        self.guard = self.mqtt.clients.guard
        self.users = Users(self.runtime, self.log, self.appends, 4096)
        self.crew = Crew()
        self.users.follow(self.shore.users_changed)
        self.put("ann", "pw", groups=frozenset({"staff"}))
        ways = [
            CertificateWay(),
            UsersWay(self.users, self.security.delegation, self.crew),
            Tokens(self.runtime.now_ms),
        ]
        names = ("certificate", "users", "jwt")
        own = KafkaLimits(**{"authentication": names, "reauthenticate_s": 60, **limits})
        mechanisms = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
        chain = Chain(ways, allow_anonymous=own.allow_anonymous)
        door = KafkaDoor(chain, own, mechanisms, self.runtime, self.guard)
        self.listener = KafkaListener(self.shore, "sasl", own, door=door)

    def put(self, name: str, password: str, **about: Any) -> None:
        kept = credentials_of(password.encode(), 4096, self.runtime.random_bytes)
        self.users.put(User(name, kept, **about), lambda _: None)
        self.runtime.settle()

    def talk(self, peer: Peer, data: bytes, version: int = 2) -> dict[str, Any]:
        """Send one message of the mechanism; wait for the answer, late as it may be."""
        peer.feed(peer.frame(ApiKey.SASL_AUTHENTICATE, version, {"auth_bytes": data}))
        self.runtime.settle()
        found = peer.answers()
        if not found:
            self.runtime.advance(100)
            found = peer.answers()
        return found[0]

    def begin(self, mechanism: str, peer: Peer | None = None) -> Peer:
        peer = peer or self.peer()
        answer = peer.ask(ApiKey.SASL_HANDSHAKE, 1, {"mechanism": mechanism})
        assert answer["error_code"] == ErrorCode.NONE
        return peer

    def plain(self, data: bytes = b"\0ann\0pw", peer: Peer | None = None) -> Peer:
        peer = self.begin("PLAIN", peer)
        assert self.talk(peer, data)["error_code"] == ErrorCode.NONE
        return peer


def is_served(peer: Peer) -> bool:
    """Whether an ordinary request is answered."""
    peer.feed(peer.frame(ApiKey.METADATA, 9, NO_TOPICS))
    peer.room.runtime.settle()
    if not peer.transport.sent:
        peer.skip_answer()
        assert peer.transport.closed
        return False
    return bool(peer.answers()[0]["brokers"])


def whom(peer: Peer) -> tuple[str, str, frozenset[str]]:
    principal = peer.connection.principal
    assert principal is not None
    return principal.user, principal.way, principal.groups


def test_plain_over_the_users_of_the_server() -> None:
    room = Room()
    peer = room.peer()
    offered = peer.ask(ApiKey.SASL_HANDSHAKE, 1, {"mechanism": "PLAIN"})["mechanisms"]
    assert offered == ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
    answer = room.talk(peer, b"ann\0ann\0pw")
    assert answer["error_code"] == ErrorCode.NONE
    assert (answer["auth_bytes"], answer["session_lifetime_ms"]) == (b"", 60_000)
    assert whom(peer) == ("ann", "users", frozenset({"staff"}))
    assert is_served(peer)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_scram_shows_that_the_server_knows_the_password_too(
    mechanism: str, version: int
) -> None:
    room = Room()
    peer = room.begin(mechanism)
    client = ScramClient(mechanism, "ann", "pw")
    challenge = room.talk(peer, client.first(), version)["auth_bytes"]
    last = room.talk(peer, client.final(challenge), version)
    assert client.is_server(last["auth_bytes"])
    assert last["session_lifetime_ms"] == (60_000 if version else 0)
    assert whom(peer)[0] == "ann" and is_served(peer)


@pytest.mark.parametrize(
    ("mechanism", "data"),
    [
        ("PLAIN", b"\0ann\0wrong"),
        ("PLAIN", b"\0nobody\0pw"),
        ("PLAIN", b"bob\0ann\0pw"),
        ("PLAIN", b"\0\0pw"),
        ("PLAIN", b"\0ann\0"),
        ("PLAIN", b"ann"),
        ("PLAIN", b"\0\xff\0pw"),
        ("SCRAM-SHA-256", b"nonsense"),
        ("OAUTHBEARER", b"bad"),
    ],
)
def test_who_does_not_come_in_hears_of_it_later_and_is_gone(
    mechanism: str, data: bytes
) -> None:
    room = Room()
    peer = room.begin(mechanism)
    peer.feed(peer.frame(ApiKey.SASL_AUTHENTICATE, 2, {"auth_bytes": data}))
    room.runtime.settle()
    assert not peer.answers() and not peer.transport.closed
    room.runtime.advance(100)
    (answer,) = peer.answers()
    assert answer["error_code"] == FAILED
    assert answer["error_message"].endswith(mechanism)
    assert "pw" not in answer["error_message"]
    assert peer.transport.closed


def test_the_oldest_handshake_is_followed_by_bare_messages() -> None:
    room = Room()
    for data, comes_in in ((b"\0ann\0pw", True), (b"\0ann\0no", False)):
        peer = room.peer()
        assert peer.ask(ApiKey.SASL_HANDSHAKE, 0, {"mechanism": "PLAIN"})["error_code"] == 0
        peer.feed(len(data).to_bytes(4, "big") + data)
        room.runtime.settle()
        assert bytes(peer.transport.sent) == (bytes(4) if comes_in else b"")
        peer.transport.sent.clear()
        room.runtime.advance(100)
        assert peer.transport.closed is not comes_in
        assert not comes_in or is_served(peer)


def test_where_nothing_is_allowed_one_may_log_in() -> None:
    room = Room()
    room.security.access.replace((), default=False, super_users=("ann",))
    assert is_served(room.plain())


def test_nothing_else_is_served_before() -> None:
    room = Room()
    peer = room.peer()
    for _ in range(2):
        assert peer.ask(ApiKey.API_VERSIONS, 3, SOFTWARE)["error_code"] == ErrorCode.NONE
    assert not is_served(peer)
    for api_key, body in ((ApiKey.METADATA, NO_TOPICS), (ApiKey.API_VERSIONS, SOFTWARE)):
        peer = room.begin("PLAIN")
        peer.feed(peer.frame(api_key, 3, body))
        assert peer.transport.closed and not peer.transport.sent
    peer = room.peer()
    peer.feed(peer.frame(ApiKey.SASL_AUTHENTICATE, 1, {"auth_bytes": b"\0ann\0pw"}))
    assert peer.transport.closed and not peer.transport.sent


SOFTWARE = {"client_software_name": "a", "client_software_version": "1"}


def test_a_mechanism_that_is_not_offered() -> None:
    room = Room()
    peer = room.peer()
    answer = peer.ask(ApiKey.SASL_HANDSHAKE, 1, {"mechanism": "GSSAPI"})
    assert answer["error_code"] == ErrorCode.UNSUPPORTED_SASL_MECHANISM
    assert "PLAIN" in answer["mechanisms"]
    assert peer.transport.closed


def test_where_nobody_logs_in_there_is_no_place_for_sasl() -> None:
    peer = ShoreRoom().peer()
    answer = peer.ask(ApiKey.SASL_HANDSHAKE, 1, {"mechanism": "PLAIN"})
    assert (answer["error_code"], answer["mechanisms"]) == (ILLEGAL, [])
    answer = peer.ask(ApiKey.SASL_AUTHENTICATE, 2, {"auth_bytes": b"x"})
    assert answer["error_code"] == ILLEGAL
    assert is_served(peer)


def test_logging_in_again_in_time_keeps_a_client_in() -> None:
    room = Room()
    peer = room.plain()
    handshake = partial(peer.ask, ApiKey.SASL_HANDSHAKE, 1, {"mechanism": "PLAIN"})
    room.plain(peer=peer)
    assert handshake()["error_code"] == ILLEGAL  # a second time within a second
    room.runtime.advance(55_000)
    room.plain(peer=peer)
    room.runtime.advance(55_000)
    assert is_served(peer)
    room.runtime.advance(6_000)
    assert not is_served(peer)


def test_it_may_be_too_late_for_all_but_logging_in_again() -> None:
    room = Room()
    peer = room.plain()
    room.runtime.advance(61_000)
    assert is_served(room.plain(peer=peer))


@pytest.mark.parametrize(
    ("mechanism", "data"), [("PLAIN", b"\0bob\0pw"), ("OAUTHBEARER", b"ann")]
)
def test_whoever_logs_in_again_stays_who_it_is(mechanism: str, data: bytes) -> None:
    room = Room()
    room.put("bob", "pw")
    peer = room.plain()
    room.runtime.advance(2_000)
    room.begin(mechanism, peer)
    assert room.talk(peer, data)["error_code"] == FAILED
    assert peer.transport.closed


def test_a_token_ends_the_session_before_the_server_does() -> None:
    room = Room()
    peer = room.begin("OAUTHBEARER")
    assert room.talk(peer, b"ann")["session_lifetime_ms"] == 10_000
    assert whom(peer)[:2] == ("ann", "jwt")
    room.runtime.advance(9_000)
    assert is_served(peer)
    room.runtime.advance(1_000)
    assert not is_served(peer)


def test_who_may_come_without_a_name_may_still_log_in() -> None:
    room = Room(allow_anonymous=True, reauthenticate_s=0)
    peer = room.peer()
    assert is_served(peer) and whom(peer)[0] == ""
    assert peer.ask(ApiKey.SASL_HANDSHAKE, 1, {"mechanism": "PLAIN"})["error_code"] == ILLEGAL
    peer = room.begin("PLAIN")
    assert room.talk(peer, b"\0ann\0pw")["session_lifetime_ms"] == 0
    assert whom(peer)[0] == "ann"


def test_silence_is_cut_and_makes_room() -> None:
    room = Room(handshakes_max=1, connect_timeout_s=5)
    peer = room.peer()
    assert room.peer().transport.closed
    room.runtime.advance(5_000)
    assert peer.transport.closed
    peer.connection.connection_lost(None)
    peer = room.plain()
    assert not room.peer().transport.closed  # who is in is not on its way any more
    room.runtime.advance(6_000)
    assert is_served(peer)


def test_a_stranger_sends_little() -> None:
    peer = Room().peer()
    peer.feed(((1 << 19) + 1).to_bytes(4, "big"))
    assert peer.transport.closed


def test_who_fails_too_often_and_who_is_banned_stay_outside() -> None:
    room = Room()
    counted: list[Any] = []
    room.guard.failures.count = counted.append  # type: ignore[method-assign]
    room.talk(room.begin("PLAIN"), b"\0ann\0no")
    assert counted == ["10.0.0.9"]
    room.guard.ban(Ban("user", "ann"))
    assert room.talk(room.begin("PLAIN"), b"\0ann\0pw")["error_code"] == FAILED


def test_a_server_that_is_busy_says_nothing_that_would_be_final() -> None:
    room = Room()
    room.crew.is_full = True
    peer = room.begin("PLAIN")
    peer.feed(peer.frame(ApiKey.SASL_AUTHENTICATE, 2, {"auth_bytes": b"\0ann\0pw"}))
    room.runtime.settle()
    assert peer.transport.closed and not peer.transport.sent


def test_a_user_that_changes_and_one_that_is_banned_lose_their_connections() -> None:
    room = Room()
    room.put("bob", "pw")
    ann, bob = room.plain(), room.plain(b"\0bob\0pw")
    room.put("ann", "other")
    room.runtime.settle()
    assert ann.transport.closed and not bob.transport.closed
    room.shore.refuses_user = lambda user: NotAuthorized("banned") if user == "bob" else None
    room.shore.banned()
    assert bob.transport.closed
