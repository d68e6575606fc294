"""Who comes in through a listener's chain, by which way, and what the others are told."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.scram_client import HASHES, ScramClient
from tests.sim import SimCrew
from tests.unit.broker.shore import Shore
from tests.unit.broker.test_users import PBKDF2, SHA512, user
from tests.unit.server.mqtt_wire import Wire, listener_of

from isthmus.broker.authentication import CertificateWay, Chain, Door, Request
from isthmus.broker.delegation import DelegationTerms, DelegationTokens
from isthmus.broker.identity import Identity
from isthmus.broker.passwords import UsersWay
from isthmus.broker.users import User, Users, parse_user
from isthmus.errors import BadCredentials, NotAuthorized, ServerBusy
from isthmus.mqtt.packets import Auth, Connack, Connect
from isthmus.mqtt.properties import AUTH_DATA, AUTH_METHOD
from isthmus.server.mqtt_listener import MqttShore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.broker.identity import Principal

HERE = Identity("10.0.0.1", 5000, "door")


class House:
    """A server's users and the ways in, with threads that the test turns."""

    def __init__(self, *, allow_anonymous: bool = False) -> None:
        self.shore = Shore()
        self.crew = SimCrew()
        self.users = Users(self.shore.runtime, self.shore.log, self.shore.broker, 4096)
        self.users.follow(self.shore.clients.users_changed)
        world = (self.shore.runtime, self.shore.log, self.shore.broker)
        tokens = DelegationTokens(*world, DelegationTerms())
        ways = [CertificateWay(), UsersWay(self.users, tokens, self.crew)]
        self.chain = Chain(ways, allow_anonymous=allow_anonymous)
        self.mqtt = MqttShore(self.shore.clients, connections_max=10)
        self.listener = listener_of(
            self.mqtt, authenticate=Door(self.chain), connections_max=10
        )

    def put(self, user: User) -> None:
        self.users.put(user, lambda error: None)
        self.shore.runtime.settle()

    def remove(self, name: str) -> None:
        self.users.remove(name, lambda error: None)
        self.shore.runtime.settle()

    def ask(
        self, name: str | None, password: bytes | None, identity: Identity = HERE
    ) -> list[Any]:
        answers: list[Any] = []
        self.chain.judge(Request(identity, "c", name, password), answers.append)
        return answers

    def judge(self, name: str | None, password: bytes | None, identity: Identity = HERE) -> Any:
        answers = self.ask(name, password, identity)
        self.settle()
        (answer,) = answers
        return answer

    def settle(self) -> None:
        self.crew.finish()
        self.shore.runtime.settle()

    def connect(self, version: int = 5, client_id: str = "c", **fields: Any) -> Wire:
        wire = Wire(self.mqtt, version, self.listener)
        method = {AUTH_METHOD: fields["method"]} if "method" in fields else {}
        if "data" in fields:
            method[AUTH_DATA] = fields["data"]
        name, password = fields.get("name"), fields.get("password")
        wire.send(Connect(version, client_id, True, 0, name, password, None, method))
        self.settle()
        return wire


@pytest.fixture
def house() -> House:
    house = House()
    house.put(user("ann", b"pw", "fitters"))
    return house


# --- the chain --------------------------------------------------------------------------------


def test_the_first_way_that_can_tell_decides(house: House) -> None:
    by_password: Principal = house.judge("ann", b"pw")
    assert (by_password.user, by_password.way) == ("ann", "users")
    assert by_password.groups == {"fitters"}
    assert (by_password.client_id, by_password.address) == ("c", "10.0.0.1")
    named = Identity("10.0.0.1", 5000, "door", "press-7")
    by_certificate = house.judge("ann", b"wrong", named)
    assert (by_certificate.user, by_certificate.way) == ("press-7", "certificate")


@pytest.mark.parametrize(
    ("name", "password"),
    [("ann", b"px"), ("ann", b""), ("ann", None), ("Ann", b"pw"), ("bob", b"pw"), ("", b"pw")],
)
def test_whoever_does_not_know_the_password_is_told_nothing_more(
    house: House, name: str, password: bytes | None
) -> None:
    error = house.judge(name, password)
    assert type(error) is BadCredentials
    assert str(error) == "the user name or the password is wrong"


def test_a_password_without_a_name_is_nobodys(house: House) -> None:
    """[MQTT 5.0, 3.1.2.9] allows it."""
    assert type(house.judge(None, b"pw")) is BadCredentials


@pytest.mark.parametrize("allow", [True, False])
def test_who_shows_nothing_comes_in_where_that_is_allowed(allow: bool) -> None:
    house = House(allow_anonymous=allow)
    found = house.judge(None, None)
    if allow:
        assert (found.user, found.way, found.is_anonymous) == ("", "", True)
    else:
        assert type(found) is NotAuthorized
    assert type(house.judge("nobody", b"")) is BadCredentials


def test_a_disabled_user_is_told_as_little(house: House) -> None:
    house.put(user("ann", is_enabled=False))
    assert type(house.judge("ann", b"pw")) is BadCredentials


# --- work -------------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Which hashes were computed, with how many rounds."""
    done: list[tuple[str, int]] = []
    plain = hashlib.pbkdf2_hmac

    def counting(name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        done.append((name, iterations))
        return plain(name, password, salt, iterations)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting)
    return done


def test_a_password_is_not_checked_on_the_loop(
    house: House, hashed: list[tuple[str, int]]
) -> None:
    answers = house.ask("ann", b"pw")
    assert answers == [] and hashed == []
    house.settle()
    assert len(answers) == 1 and len(hashed) == 1


def test_a_password_that_was_right_is_not_checked_again(
    house: House, hashed: list[tuple[str, int]]
) -> None:
    """Ten thousand clients of one user that come back at once cost one check."""
    house.judge("ann", b"pw")
    for _ in range(10):
        assert house.ask("ann", b"pw")[0].user == "ann"  # at once
    assert len(hashed) == 1
    assert type(house.judge("ann", b"px")) is BadCredentials
    assert len(hashed) == 2
    house.put(user("ann", b"px"))
    assert type(house.judge("ann", b"pw")) is BadCredentials
    assert len(hashed) == 2 + 2 + 1  # two for what is kept of the new one


def test_a_user_who_is_not_there_costs_what_one_who_is_does(
    house: House, hashed: list[tuple[str, int]]
) -> None:
    house.put(parse_user("bob", PBKDF2))
    costs = {("sha256", 4096), ("sha512", 101)}
    for name in ("ann", "bob", *map(str, range(20))):
        hashed.clear()
        assert type(house.judge(name, b"wrong")) is BadCredentials
        assert len(hashed) == 1 and hashed[0] in costs
    hashed.clear()
    for number in range(20):
        house.judge(str(number), b"wrong")
    assert set(hashed) == costs


def test_more_passwords_than_can_wait_are_not_checked(house: House) -> None:
    house.crew.waiting_max = 1
    first, second = house.ask("ann", b"pw"), house.ask("ann", b"pw")
    assert [type(answer) for answer in second] == [ServerBusy]
    house.settle()
    assert first[0].user == "ann"


def test_a_user_that_changes_while_its_password_is_checked_is_not_let_in(
    house: House,
) -> None:
    answers = house.ask("ann", b"pw")
    house.users.remove("ann", lambda error: None)
    house.shore.runtime.settle()
    house.settle()
    assert [type(answer) for answer in answers] == [BadCredentials]


def test_a_check_that_fails_lets_nobody_in(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> bytes:
        raise MemoryError("pw")

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", fail)
    assert type(house.judge("ann", b"pw")) is ServerBusy
    assert caplog.messages == ["password not checked user=ann error=MemoryError"]


def test_a_foreign_password_is_kept_as_ours_once_it_is_known(house: House) -> None:
    house.put(parse_user("bob", SHA512 + ":fitters"))
    assert type(house.judge("bob", b"px")) is BadCredentials
    bob = house.users.find("bob")
    assert bob is not None and bob.is_foreign
    assert house.judge("bob", b"pw").user == "bob"
    bob = house.users.find("bob")
    assert {each.mechanism for each in bob.credentials} == {*HASHES}
    assert bob.groups == {"fitters"}
    assert house.ask("bob", b"pw")[0].user == "bob"  # and is still known


def test_a_request_shows_no_password() -> None:
    """asyncio logs what it failed to call, with its arguments."""
    assert "geheim" not in repr(Request(HERE, "c", "ann", b"geheim"))


# --- MQTT -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "wrong", "nothing"), [(3, 4, 5), (4, 4, 5), (5, 0x86, 0x87)]
)
def test_the_codes_of_connack(house: House, version: int, wrong: int, nothing: int) -> None:
    """[MQTT-3.1.4-2; MQTT 3.1.1: 3.2.2.3]"""
    reasons = []
    for fields in ({"name": "ann", "password": b"pw"}, {"name": "ann", "password": b"px"}, {}):
        (connack,) = house.connect(version, **fields).packets()
        reasons.append(connack.reason)
    assert reasons == [0, wrong, nothing]


def scram(
    house: House, client: ScramClient, mechanism: str = "SCRAM-SHA-256", *, asked: bool = False
) -> tuple[Wire, list[Any]]:
    """Have a client come in by SCRAM; what it was told last."""
    if asked:
        wire = house.connect(method=mechanism)
        assert wire.packets() == [Auth(0x18, {AUTH_METHOD: mechanism})]
        wire.send(Auth(0x18, {AUTH_METHOD: mechanism, AUTH_DATA: client.first()}))
    else:
        wire = house.connect(method=mechanism, data=client.first())
    return wire, answer(wire, client, mechanism)


def answer(wire: Wire, client: ScramClient, mechanism: str = "SCRAM-SHA-256") -> list[Any]:
    (challenge,) = wire.packets()
    assert isinstance(challenge, Auth)
    assert challenge.properties[AUTH_METHOD] == mechanism
    final = client.final(challenge.properties[AUTH_DATA])
    wire.send(Auth(0x18, {AUTH_METHOD: mechanism, AUTH_DATA: final}))
    return wire.packets()


@pytest.mark.parametrize("mechanism", HASHES)
@pytest.mark.parametrize("asked", [True, False])
def test_a_client_comes_in_by_scram(house: House, mechanism: str, asked: bool) -> None:
    """[MQTT-4.12.0-2, MQTT-4.12.0-3, MQTT-4.12.0-5]"""
    client = ScramClient(mechanism, "ann", "pw")
    _, (connack,) = scram(house, client, mechanism, asked=asked)
    assert (type(connack), connack.reason) == (Connack, 0)
    assert connack.properties[AUTH_METHOD] == mechanism
    assert client.is_server(connack.properties[AUTH_DATA])
    principal = house.shore.clients.sessions.entries["c"].principal
    assert (principal.user, principal.way) == ("ann", "users")
    assert not house.crew.waiting


def test_scram_tells_nobody_which_users_there_are(house: House) -> None:
    house.put(user("off", b"pw", is_enabled=False))
    house.put(parse_user("old", PBKDF2))
    said = []
    for name, password in (("ann", "px"), ("bob", "pw"), ("off", "pw"), ("old", "pässword")):
        client = ScramClient("SCRAM-SHA-256", name, password)
        wire, (connack,) = scram(house, client)
        said.append((connack.reason, connack.properties, client.challenge["i"]))
        assert len(client.challenge["s"]) == 24
        assert wire.transport.closed
    assert said[0][0] == 0x87
    assert said.count(said[0]) == 4


def test_an_unknown_method_is_refused(house: House) -> None:
    """[MQTT-4.12.0-1]"""
    (connack,) = house.connect(method="SCRAM-SHA-1", data=b"n,,n=ann,r=x").packets()
    assert connack.reason == 0x8C


def test_a_client_shows_again_who_it_is(house: House) -> None:
    """[MQTT-4.12.1-1, MQTT-4.12.1-2]"""
    wire, _ = scram(house, ScramClient("SCRAM-SHA-256", "ann", "pw"))
    before = house.shore.clients.sessions.entries["c"].principal
    for nonce, password, reason in (("2", "pw", 0), ("3", "pw", 0), ("4", "px", 0x87)):
        client = ScramClient("SCRAM-SHA-256", "ann", password, nonce)
        method = {AUTH_METHOD: "SCRAM-SHA-256"}
        wire.send(Auth(0x19, method | {AUTH_DATA: client.first()}))
        (said,) = answer(wire, client)
        assert said.reason == reason
        if reason == 0:
            assert client.is_server(said.properties[AUTH_DATA])
            assert house.shore.clients.sessions.entries["c"].principal is not before
    assert wire.transport.closed


def test_whoever_is_in_as_a_user_that_changes_is_sent_away(house: House) -> None:
    house.put(user("bob", b"b"))
    wires = {
        name: house.connect(client_id=name, name=name, password=password)
        for name, password in (("ann", b"pw"), ("bob", b"b"))
    }
    named = Wire(house.mqtt, 5, house.listener)
    named.connection.identity.user = (
        "ann"  # by its certificate, of which the users know nothing
    )
    named.connect("n")
    for wire in wires.values():
        wire.packets()
    house.put(user("bob", b"another"))
    assert [packet.reason for packet in wires["bob"].packets()] == [0x87]
    assert wires["bob"].transport.closed
    assert wires["ann"].packets() == []
    house.remove("ann")
    assert [packet.reason for packet in wires["ann"].packets()] == [0x87]
    assert not named.transport.closed
