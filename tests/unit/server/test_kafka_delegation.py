"""Delegation tokens over the wire, without sockets: had, renewed, ended, seen, logged in by."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from tests.scram_client import ScramClient
from tests.unit.server.kafka_peer import versions
from tests.unit.server.test_kafka_sasl import Room as SaslRoom

from isthmus.broker import delegation
from isthmus.broker.access_rules import parse_rules
from isthmus.broker.delegation import DELEGATION, DelegationTerms, DelegationTokens
from isthmus.broker.identity import Principal
from isthmus.cli.log_decoders import token_record
from isthmus.errors import NoSpace
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import Record

if TYPE_CHECKING:
    from tests.unit.server.kafka_peer import Peer

MASTER_KEY = b"m" * 32
DAY_MS = 86_400_000
TERMS = DelegationTerms(MASTER_KEY, 7 * DAY_MS, DAY_MS, 3_600_000)
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")

NONE = ErrorCode.NONE
NOT_ALLOWED = ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED
NOT_FOUND = ErrorCode.DELEGATION_TOKEN_NOT_FOUND
EXPIRED = ErrorCode.DELEGATION_TOKEN_EXPIRED
MISMATCH = ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH
DENIED = ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED
DISABLED = ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED


def users(*names: str) -> list[dict[str, str]]:
    return [{"principal_type": "User", "principal_name": name} for name in names]


class Room(SaslRoom):
    """A server with a master key, whose clients log in; nobody asks what they may do."""

    def __init__(self, terms: DelegationTerms = TERMS, **limits: Any) -> None:
        super().__init__(terms, **limits)
        self.tokens = self.security.delegation

    def of(self, user: str = "ann", way: str = "users") -> Peer:
        """Return the connection of somebody who has logged in."""
        peer = self.peer()
        peer.connection.principal = Principal(user, "", peer.connection.identity, way=way)
        peer.connection.login.principal = peer.connection.principal  # type: ignore[union-attr]
        return peer

    def create(self, user: str = "ann", version: int = 3, **more: Any) -> dict[str, Any]:
        body = {"renewers": [], "max_lifetime_ms": -1, **more}
        return self.of(user).ask(ApiKey.CREATE_DELEGATION_TOKEN, version, body)

    def renew(self, made: dict[str, Any], period_ms: int = -1, user: str = "ann") -> Any:
        body = {"hmac": made["hmac"], "renew_period_ms": period_ms}
        answer = self.of(user).ask(ApiKey.RENEW_DELEGATION_TOKEN, 2, body)
        return answer["error_code"], answer["expiry_timestamp_ms"] - self.runtime.now_ms()

    def expire(self, made: dict[str, Any], period_ms: int = -1, user: str = "ann") -> Any:
        body = {"hmac": made["hmac"], "expiry_time_period_ms": period_ms}
        answer = self.of(user).ask(ApiKey.EXPIRE_DELEGATION_TOKEN, 2, body)
        return answer["error_code"], answer["expiry_timestamp_ms"] - self.runtime.now_ms()

    def described(self, *owners: str, user: str = "ann") -> list[str]:
        wanted = users(*owners) if owners else None
        answer = self.of(user).ask(ApiKey.DESCRIBE_DELEGATION_TOKEN, 3, {"owners": wanted})
        assert answer["error_code"] == NONE
        return [one["principal_name"] for one in answer["tokens"]]

    def log_in(
        self, made: dict[str, Any], mechanism: str = "SCRAM-SHA-256", peer: Peer | None = None
    ) -> tuple[Peer, dict[str, Any]]:
        """Log in by a token; return the connection and the last answer."""
        peer = self.begin(mechanism, peer)
        password = hmac_text(made)
        client = ScramClient(mechanism, made["token_id"], password, more=",tokenauth=true")
        challenge = self.talk(peer, client.first())["auth_bytes"]
        answer = self.talk(peer, client.final(challenge))
        if answer["error_code"] == NONE:
            assert client.is_server(answer["auth_bytes"])
        return peer, answer


def hmac_text(made: dict[str, Any]) -> str:
    return b64encode(made["hmac"]).decode()


@pytest.mark.parametrize("version", versions(ApiKey.CREATE_DELEGATION_TOKEN))
def test_a_token_is_made_of_its_id_and_the_master_key(version: int) -> None:
    room = Room()
    now_ms = room.runtime.now_ms()
    made = room.create(version=version, renewers=users("bob", "bob"))
    assert made["error_code"] == NONE
    assert (made["principal_type"], made["principal_name"]) == ("User", "ann")
    if version >= 3:
        assert made["token_requester_principal_name"] == "ann"
    assert made["issue_timestamp_ms"] == now_ms
    assert made["expiry_timestamp_ms"] == now_ms + DAY_MS
    assert made["max_timestamp_ms"] == now_ms + 7 * DAY_MS
    assert made["hmac"] == hmac.digest(MASTER_KEY, made["token_id"].encode(), "sha512")
    assert room.create(max_lifetime_ms=1000)["expiry_timestamp_ms"] == now_ms + 1000
    assert room.create(max_lifetime_ms=1 << 60)["max_timestamp_ms"] == now_ms + 7 * DAY_MS


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_whoever_has_a_token_is_its_owner_until_it_expires(mechanism: str) -> None:
    room = Room(reauthenticate_s=0)
    made = room.create(max_lifetime_ms=5000)
    for _ in range(2):  # the second time nothing slow is to be done
        peer, answer = room.log_in(made, mechanism)
        assert (answer["error_code"], answer["session_lifetime_ms"]) == (NONE, 5000)
        principal = peer.connection.principal
        assert principal is not None
        assert (principal.user, principal.way) == ("ann", DELEGATION)
        assert principal.groups == {"staff"}
    wrong = {**made, "hmac": b"x" * 64}
    assert room.log_in(wrong, mechanism)[1]["error_code"] != NONE
    room.runtime.advance(5001)
    assert room.log_in(made, mechanism)[1]["error_code"] != NONE


def test_nobody_logs_in_by_an_id_without_saying_that_it_is_one() -> None:
    room = Room()
    made = room.create()
    for more, user, password in (
        ("", made["token_id"], hmac_text(made)),
        (",tokenauth=false", made["token_id"], hmac_text(made)),
        (",tokenauth=true", "ann", "pw"),
        (",tokenauth=true", "no-token", "pw"),
    ):
        peer = room.begin("SCRAM-SHA-256")
        client = ScramClient("SCRAM-SHA-256", user, password, more=more)
        challenge = room.talk(peer, client.first())["auth_bytes"]
        answer = room.talk(peer, client.final(challenge))
        assert answer["error_code"] == ErrorCode.SASL_AUTHENTICATION_FAILED, more
    peer = room.begin("SCRAM-SHA-256")
    client = ScramClient("SCRAM-SHA-256", "ann", "pw", more=",tokenauth=false")
    challenge = room.talk(peer, client.first())["auth_bytes"]
    assert room.talk(peer, client.final(challenge))["error_code"] == NONE


def test_a_token_that_is_not_there_is_challenged_alike() -> None:
    room = Room()
    made = room.create()
    salts: list[list[str]] = []
    for token_id in (made["token_id"], "no-such-token"):
        salts.append([])
        for _ in range(2):
            peer = room.begin("SCRAM-SHA-256")
            client = ScramClient("SCRAM-SHA-256", token_id, "pw", more=",tokenauth=true")
            client.final(room.talk(peer, client.first())["auth_bytes"])
            assert client.challenge["i"] == "4096"
            salts[-1].append(client.challenge["s"])
    assert [len(set(each)) for each in salts] == [1, 1]
    assert salts[0] != salts[1]


def test_a_server_that_is_busy_checks_a_token_another_time() -> None:
    room = Room()
    made = room.create()
    room.crew.is_full = True
    peer = room.begin("SCRAM-SHA-256")
    client = ScramClient("SCRAM-SHA-256", made["token_id"], "pw", more=",tokenauth=true")
    peer.feed(peer.frame(ApiKey.SASL_AUTHENTICATE, 2, {"auth_bytes": client.first()}))
    assert peer.transport.closed
    room.crew.is_full = False
    assert room.log_in(made)[1]["error_code"] == NONE


def test_the_token_of_a_user_who_is_disabled_does_not_let_in() -> None:
    room = Room()
    made = room.create()
    ann = room.security.users.find("ann") or room.users.find("ann")
    assert ann is not None
    room.users.put(ann.but(is_enabled=False), lambda _: None)
    room.runtime.settle()
    assert room.log_in(made)[1]["error_code"] != NONE


def test_a_session_of_a_token_goes_on_with_the_renewed_token() -> None:
    room = Room(reauthenticate_s=0)
    made = room.create(max_lifetime_ms=8000)
    assert room.expire(made, 4000) == (NONE, 4000)
    peer, answer = room.log_in(made)
    assert answer["session_lifetime_ms"] == 4000
    room.runtime.advance(3000)
    assert room.renew(made, 3000) == (NONE, 3000)
    room.runtime.advance(500)
    assert room.log_in(made, peer=peer)[1]["session_lifetime_ms"] == 2500
    room.runtime.advance(2400)
    assert peer.ask(ApiKey.METADATA, 9, {"topics": []})["brokers"]


def test_renewals_go_up_to_the_end() -> None:
    room = Room()
    made = room.create(max_lifetime_ms=DAY_MS + 1000, renewers=users("bob"))
    room.runtime.advance(500)
    assert room.renew(made, 100) == (NONE, 100)
    assert room.renew(made, user="bob") == (NONE, DAY_MS)
    assert room.renew(made, 1 << 60) == (NONE, DAY_MS)
    room.runtime.advance(DAY_MS - 1)
    assert room.renew(made) == (NONE, 501)
    room.runtime.advance(502)
    assert room.renew(made)[0] == EXPIRED
    assert room.expire(made, 0)[0] == EXPIRED
    assert room.expire(made) == (NONE, 0)  # as at Apache Kafka


def test_a_token_ends_when_it_is_wanted() -> None:
    room = Room()
    made = room.create(renewers=users("bob"))
    assert room.expire(made, 1000, user="bob") == (NONE, 1000)
    assert room.expire(made, user="eve")[0] == MISMATCH
    assert room.renew(made, user="eve")[0] == MISMATCH
    assert room.expire(made) == (NONE, 0)
    assert room.described() == []
    assert room.expire(made)[0] == room.renew(made)[0] == NOT_FOUND
    assert room.log_in(made)[1]["error_code"] != NONE


def test_what_has_expired_is_swept() -> None:
    room = Room()
    room.create(max_lifetime_ms=1000)
    room.create(max_lifetime_ms=7_000_000)
    room.runtime.advance(3_599_000)
    assert len(room.described()) == 2
    room.runtime.advance(2_000)
    assert len(room.described()) == 1


def test_many_that_have_expired_go_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegation, "SWEPT_MAX", 2)
    room = Room()
    for _ in range(5):
        room.create(max_lifetime_ms=1000)
    room.runtime.advance(3_600_000)
    assert len(room.described()) == 3
    room.runtime.advance(2_000)
    assert room.described() == []


def test_the_end_of_a_token_comes_before_all_that_is_on_its_way() -> None:
    room = Room()
    made = room.create()
    (token,) = room.tokens
    told: list[Any] = []
    room.tokens.extend(token, 5000, told.append)
    room.tokens.remove([token], told.append)
    assert room.tokens.find(token.id) is None, "from now on"
    room.runtime.settle()
    assert told == [None, None]
    assert room.tokens.by_hmac(made["hmac"]) is None
    assert room.log_in(made)[1]["error_code"] != NONE


def test_a_token_that_cannot_be_ended_stays() -> None:
    room = Room()
    room.create()
    (token,) = room.tokens
    room.tokens._appends.error = NoSpace("the disk is full")  # type: ignore[attr-defined]
    told: list[Any] = []
    room.tokens.remove([token], told.append)
    room.runtime.settle()
    assert isinstance(told[0], NoSpace)
    assert list(room.tokens) == [token]


def test_who_may_not_ask_for_tokens() -> None:
    room = Room()
    made = room.create()
    asked = [
        (ApiKey.CREATE_DELEGATION_TOKEN, 3, {"renewers": [], "max_lifetime_ms": -1}),
        (ApiKey.RENEW_DELEGATION_TOKEN, 2, {"hmac": made["hmac"], "renew_period_ms": -1}),
        (ApiKey.EXPIRE_DELEGATION_TOKEN, 2, {"hmac": made["hmac"], "expiry_time_period_ms": 0}),
        (ApiKey.DESCRIBE_DELEGATION_TOKEN, 3, {"owners": None}),
    ]
    for peer in (room.of("ann", DELEGATION), room.of("")):
        for key, version, body in asked:
            assert peer.ask(key, version, body)["error_code"] == NOT_ALLOWED
    disabled = Room(DelegationTerms())
    for key, version, body in asked:
        assert disabled.of().ask(key, version, body)["error_code"] == DISABLED


def test_principals_are_users() -> None:
    room = Room()
    groups = [{"principal_type": "Group", "principal_name": "g"}]
    owner = {"owner_principal_type": "Group", "owner_principal_name": "g"}
    for more in ({"renewers": groups}, owner):
        assert room.create(**more)["error_code"] == ErrorCode.INVALID_PRINCIPAL_TYPE
    many = users(*(f"u{number}" for number in range(1001)))
    assert room.create(renewers=many)["error_code"] == ErrorCode.POLICY_VIOLATION


def test_nobody_takes_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegation, "REQUESTED_MAX", 2)
    monkeypatch.setattr(delegation, "TOKENS_MAX", 3)
    room = Room()
    full = ErrorCode.POLICY_VIOLATION
    made = [room.create() for _ in range(3)]
    assert [one["error_code"] for one in made] == [NONE, NONE, full]
    assert [room.create("bob")["error_code"] for _ in range(2)] == [NONE, full]
    room.renew(made[0])
    room.expire(made[0])
    assert [room.create()["error_code"] for _ in range(2)] == [NONE, full]


def test_tokens_of_others_take_a_right() -> None:
    room = Room()
    text = "allow user:ann create-tokens user:User:bob\nallow user:eve describe token:*\n"
    text += "allow user:joe describe-tokens user:User:bob"
    room.security.access.replace(parse_rules(text, "rules"), default=False)
    for_bob = {"owner_principal_type": "User", "owner_principal_name": "bob"}
    assert room.create("eve", **for_bob)["error_code"] == DENIED
    made = room.create("ann", **for_bob)
    assert made["error_code"] == NONE
    assert made["principal_name"] == "bob"
    assert made["token_requester_principal_name"] == "ann"
    assert room.log_in(made)[0].connection.principal.user == "bob"  # type: ignore[union-attr]
    room.create("ann")
    room.create("zoe", renewers=users("bob"))
    assert room.renew(made, user="ann")[0] == MISMATCH
    assert room.renew(made, user="bob")[0] == NONE
    assert room.described(user="ann") == ["bob", "ann"]
    assert room.described(user="bob") == ["bob", "zoe"]
    assert room.described(user="eve") == ["bob", "ann", "zoe"]
    assert room.described(user="joe") == ["bob"]
    assert room.described("ann", user="eve") == ["bob", "ann"]
    assert room.described("zoe", "bob", user="eve") == ["bob", "zoe"]
    assert room.described(user="nobody") == []


@pytest.mark.parametrize("version", versions(ApiKey.DESCRIBE_DELEGATION_TOKEN))
def test_no_owners_are_no_tokens(version: int) -> None:
    room = Room()
    room.create()
    for owners, count in (([], 0), (None, 1), (users("bob"), 0), (users("ann"), 1)):
        key, body = ApiKey.DESCRIBE_DELEGATION_TOKEN, {"owners": owners}
        assert len(room.of().ask(key, version, body)["tokens"]) == count


def test_tokens_outlive_the_server_and_its_disk_knows_no_hmac() -> None:
    room = SaslRoom()
    world = (room.runtime, room.log, room.appends)
    first = DelegationTokens(*world, TERMS)
    for renewers in (("bob",), ()):
        first.issue("ann", "ann", renewers, -1, lambda token, error: None)
    room.runtime.settle()
    token, ended = first
    first.remove([ended], lambda _: None)
    first.extend(token, 5000, lambda _: None)
    room.runtime.settle()
    partition = room.log.topics["__delegation_tokens"].partitions[0]
    stored = b"".join(map(bytes, partition.read(0, 1 << 20).buffers))
    assert token.id.encode() in stored
    assert token.hmac not in stored and token.password not in stored

    decoded = [
        token_record(record) for batch in partition.batches(0) for record in batch.records()
    ]
    assert decoded[0]["renewers"] == ("bob",)
    assert decoded[2] == {"token": ended.id, "removed": True}
    assert "undecodable" in token_record(Record(0, 0, b"id", b"of a later form"))

    again = DelegationTokens(*world, TERMS)
    assert list(again) == list(first) == [again.by_hmac(token.hmac)]
    assert next(iter(again)).expires_ms == room.runtime.now_ms() + 5000
    changed = DelegationTokens(*world, TERMS._replace(master_key=b"o" * 32))
    assert changed.find(token.id) is not None
    assert changed.by_hmac(token.hmac) is None
