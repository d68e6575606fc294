"""Letting a client in, where the verdict takes time: what the connection does meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import Wire, listener_of

from isthmus.broker.guard import Streaks
from isthmus.broker.identity import Identity, Principal
from isthmus.errors import (
    AuthenticationMethodUnknown,
    BadCredentials,
    IsthmusError,
    NotAuthorized,
    ServerBusy,
    ServerShuttingDown,
)
from isthmus.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
)
from isthmus.mqtt.properties import (
    AUTH_DATA,
    AUTH_METHOD,
    MAXIMUM_PACKET_SIZE,
    REQUEST_RESPONSE_INFO,
    RESPONSE_INFO,
    SESSION_EXPIRY,
)
from isthmus.server.mqtt_listener import (
    MqttShore,
)

if TYPE_CHECKING:
    from isthmus.mqtt.opening import Opening

NOBODY = Identity("", 0, "")


class Judge:
    """An authenticator whose verdicts the test gives."""

    def __init__(self) -> None:
        self.openings: list[Opening] = []

    def __call__(self, identity: Identity, opening: Opening) -> None:
        self.openings.append(opening)


@pytest.fixture
def shore() -> MqttShore:
    return MqttShore(Shore().clients, connections_max=3)


@pytest.fixture
def judge() -> Judge:
    return Judge()


class Guarded(Wire):
    """A client's end of a connection whose listener asks a judge."""

    def __init__(self, shore: MqttShore, judge: Judge, version: int = 5) -> None:
        super().__init__(shore, version, listener_of(shore, authenticate=judge))


def someone(user: str = "ann") -> Principal:
    return Principal(user, "c", NOBODY)


def settle(wire: Wire) -> list[Any]:
    wire.shore.clients.runtime.settle()
    return wire.packets()


def by_method() -> Connect:
    return Connect(5, "c", properties={AUTH_METHOD: "m"})


@pytest.mark.parametrize("version", [3, 4, 5])
def test_what_follows_a_connect_waits_for_its_verdict(
    shore: MqttShore, judge: Judge, version: int
) -> None:
    """[MQTT-3.1.4-5]"""
    wire = Guarded(shore, judge, version)
    wire.send(Connect(version, "c"), Subscribe(1, [("t", 0)], None), Publish(b"t", b"x"))
    assert wire.packets() == []
    assert shore.clients.sessions.entries == {}
    assert not wire.transport.reading
    judge.openings[0].accept(someone())
    connack, suback, publish = settle(wire)
    assert (connack.reason, suback.reasons, publish.payload) == (0, [0], b"x")
    assert wire.transport.reading


@pytest.mark.parametrize(("version", "reason"), [(3, 4), (4, 4), (5, 0x86)])
def test_what_follows_a_refused_connect_is_not_done(
    shore: MqttShore, judge: Judge, version: int, reason: int
) -> None:
    """[MQTT-3.1.4-2, MQTT-3.1.4-6, MQTT-4.12.0-4; MQTT 3.1.1: MQTT-3.1.4-5]"""
    wire = Guarded(shore, judge, version)
    wire.send(Connect(version, "c"), Publish(b"t", b"x"))
    judge.openings[0].refuse(BadCredentials("who is that?"))
    (connack,) = settle(wire)
    assert connack.reason == reason
    assert wire.transport.closed
    assert shore.clients.sessions.entries == {}
    assert shore.clients._broker.published == 0


def test_a_verdict_that_is_known_at_once_needs_no_turn(shore: MqttShore) -> None:
    listener = listener_of(shore, authenticate=lambda _, opening: opening.accept(someone()))
    wire = Wire(shore, 5, listener)
    wire.send(Connect(5, "c"), Pingreq())
    assert [type(packet) for packet in wire.packets()] == [Connack, Pingresp]
    assert wire.transport.reading


def test_a_verdict_for_a_client_that_is_gone_lets_nobody_in(
    shore: MqttShore, judge: Judge
) -> None:
    wire = Guarded(shore, judge)
    wire.send(Connect(5, "c"))
    wire.connection.connection_lost(None)
    judge.openings[0].accept(someone())
    assert settle(wire) == []
    assert shore.clients.sessions.entries == {}


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda shore: shore.clients.runtime.advance(10_000), 0x80),
        (lambda shore: shore.close(ServerShuttingDown("")), 0x88),
    ],
    ids=["time-out", "shutdown"],
)
def test_who_waits_for_a_verdict_is_told_of_the_end(
    shore: MqttShore, judge: Judge, end: Any, reason: int
) -> None:
    wire = Guarded(shore, judge)
    wire.send(Connect(5, "c"))
    end(shore)
    assert [packet.reason for packet in settle(wire)] == [reason]
    judge.openings[0].accept(someone())
    assert settle(wire) == []


def test_the_session_belongs_to_whom_was_accepted_last(shore: MqttShore, judge: Judge) -> None:
    """[MQTT-3.1.4-3]"""
    first, second = Guarded(shore, judge), Guarded(shore, judge)
    for wire in (first, second):
        wire.send(Connect(5, "c"))
    judge.openings[1].accept(someone())
    assert [packet.reason for packet in settle(second)] == [0]
    judge.openings[0].accept(someone())
    assert [packet.reason for packet in settle(first)] == [0]
    assert [packet.reason for packet in second.packets()] == [0x8E]


def test_a_client_answers_until_it_is_let_in(shore: MqttShore, judge: Judge) -> None:
    """[MQTT-4.12.0-2, MQTT-4.12.0-3, MQTT-4.12.0-5, MQTT-3.15.2-2, MQTT-3.15.2-3]: a question
    has its method and its data, and nothing else."""
    wire = Guarded(shore, judge)
    wire.send(by_method())
    for round_number in range(3):
        opening = judge.openings[round_number]
        opening.ask(b"%d" % round_number)
        (question,) = settle(wire)
        assert question == Auth(0x18, {AUTH_METHOD: "m", AUTH_DATA: b"%d" % round_number})
        wire.send(Auth(0x18, {AUTH_METHOD: "m", AUTH_DATA: b"a%d" % round_number}))
        assert opening.data == b"a%d" % round_number
        assert not wire.transport.reading
    opening.accept(someone(), b"welcome")
    (connack,) = settle(wire)
    assert connack.properties[AUTH_METHOD] == "m"
    assert connack.properties[AUTH_DATA] == b"welcome"
    wire.send(Pingreq())
    assert wire.packets() == [Pingresp()]


@pytest.mark.parametrize("asked_first", [True, False])
@pytest.mark.parametrize(
    "packets",
    [
        [Publish(b"t", b"x")],
        [Pingreq()],
        [Auth(0x19, {AUTH_METHOD: "m"})],
        [Auth(0x18, {AUTH_METHOD: "another"})],
        [Auth(0x18, {AUTH_METHOD: "m"}), Publish(b"t", b"x")],
    ],
)
def test_only_its_answers_may_come_before_connack(
    shore: MqttShore, judge: Judge, packets: list[Any], asked_first: bool
) -> None:
    """[MQTT-3.1.2-30, MQTT-4.12.0-5]: sent behind CONNECT, or after the question."""
    wire = Guarded(shore, judge)
    if asked_first:
        wire.send(by_method())
        judge.openings[0].ask()
        settle(wire)
        wire.send(*packets)
    else:
        wire.send(by_method(), *packets)
        judge.openings[0].ask()
    *_, connack = settle(wire)
    assert (type(connack), connack.reason) == (Connack, 0x82)
    assert wire.transport.closed
    assert shore.clients._broker.published == 0


def test_a_client_may_go_instead_of_answering(shore: MqttShore, judge: Judge) -> None:
    wire = Guarded(shore, judge)
    wire.send(by_method())
    judge.openings[0].ask()
    settle(wire)
    wire.send(Disconnect())
    assert wire.packets() == []
    assert wire.transport.closed
    judge.openings[0].accept(someone())
    assert shore.clients.sessions.entries == {}


def test_messages_go_on_while_a_client_authenticates_again(
    shore: MqttShore, judge: Judge
) -> None:
    """[MQTT-4.12.1-1]"""
    wire = Guarded(shore, judge)
    wire.send(by_method())
    judge.openings[0].accept(someone())
    settle(wire)
    wire.send(Auth(0x19, {AUTH_METHOD: "m"}), Subscribe(1, [("t", 0)]), Publish(b"t", b"x"))
    assert [type(packet) for packet in wire.packets()] == [Suback, Publish]
    judge.openings[1].ask(b"?")
    assert settle(wire) == [Auth(0x18, {AUTH_METHOD: "m", AUTH_DATA: b"?"})]
    wire.send(Auth(0x18, {AUTH_METHOD: "m"}), Pingreq())
    judge.openings[2].accept(someone())
    assert settle(wire) == [Pingresp(), Auth(0x00, {AUTH_METHOD: "m"})]


@pytest.mark.parametrize("error", [BadCredentials, NotAuthorized, AuthenticationMethodUnknown])
def test_a_client_that_fails_to_authenticate_again_is_sent_away(
    shore: MqttShore, judge: Judge, error: type[IsthmusError]
) -> None:
    """[MQTT-4.12.1-2]"""
    wire = Guarded(shore, judge)
    wire.send(by_method())
    judge.openings[0].accept(someone())
    settle(wire)
    wire.send(Auth(0x19, {AUTH_METHOD: "m"}))
    judge.openings[1].refuse(error("no longer"))
    assert [packet.reason for packet in settle(wire)] == [0x87]
    assert wire.transport.closed


@pytest.mark.parametrize("reason", [0x18, 0x19])
def test_an_auth_of_a_client_without_a_method_ends_its_connection(
    shore: MqttShore, reason: int
) -> None:
    """[MQTT-4.12.0-7]"""
    wire = Wire(shore)
    wire.connect()
    wire.send(Auth(reason, {AUTH_METHOD: "m"}))
    assert [packet.reason for packet in wire.packets()] == [0x82]


@pytest.mark.parametrize("step", ["ask", "accept"])
def test_an_answer_that_the_client_does_not_take_refuses_it(
    shore: MqttShore, judge: Judge, step: str
) -> None:
    """[MQTT-3.1.2-24]"""
    wire = Guarded(shore, judge)
    wire.send(Connect(5, "c", properties={AUTH_METHOD: "m", MAXIMUM_PACKET_SIZE: 40}))
    opening = judge.openings[0]
    if step == "ask":
        opening.ask(bytes(100))
    else:
        opening.accept(someone(), bytes(100))
    assert [packet.reason for packet in settle(wire)] == [0x95]
    assert shore.clients.sessions.entries == {}


@pytest.mark.parametrize(
    ("owner", "taker", "reason"),
    [("ann", "ann", 0), ("", "ann", 0), ("ann", "bob", 0x87), ("ann", "", 0x87)],
)
@pytest.mark.parametrize("clean_start", [True, False])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_session_belongs_to_its_user(
    judge: Judge, owner: str, taker: str, reason: int, clean_start: bool, restarted: bool
) -> None:
    """Nobody else is given it, nor ends it; what somebody without a name left is anybody's."""
    broker = Shore()
    shore = MqttShore(broker.clients, connections_max=3)
    wire = Guarded(shore, judge)
    wire.send(Connect(5, "c", True, properties={SESSION_EXPIRY: 100}))
    judge.openings[0].accept(someone(owner))
    settle(wire)
    if restarted:
        shore = MqttShore(broker.end().clients, connections_max=3)
    other = Guarded(shore, judge)
    other.send(Connect(5, "c", clean_start, properties={SESSION_EXPIRY: 100}))
    judge.openings[1].accept(someone(taker))
    connack = settle(other)[0]
    assert connack.reason == reason
    assert connack.session_present == (reason == 0 and not clean_start)
    assert shore.clients.sessions.owner_of("c") == (taker if reason == 0 else owner)


def test_a_client_stays_who_it_is(shore: MqttShore, judge: Judge) -> None:
    """Whom it shows anew may have other groups, but no other name [MQTT-4.12.1-2]."""
    wire = Guarded(shore, judge)
    wire.send(by_method())
    judge.openings[0].accept(someone())
    wire.send(Auth(0x19, {AUTH_METHOD: "m"}))
    settle(wire)
    again = Principal("ann", "c", NOBODY, groups=frozenset({"fitters"}))
    judge.openings[1].accept(again)
    assert settle(wire) == [Auth(0x00, {AUTH_METHOD: "m"})]
    assert shore.clients.sessions.entries["c"].principal is again
    wire.send(Auth(0x19, {AUTH_METHOD: "m"}))
    judge.openings[2].accept(someone("bob"))
    assert [packet.reason for packet in settle(wire)] == [0x87]
    assert wire.transport.closed


def test_whom_a_certificate_names_is_somebody(shore: MqttShore) -> None:
    """Also where nobody asks; who shows none has no name."""
    for client_id, user, way in (("a", "", ""), ("b", "press-7", "certificate")):
        wire = Wire(shore)
        wire.connection.identity.user = user
        wire.connect(client_id)
        principal = shore.clients.sessions.entries[client_id].principal
        assert (principal.user, principal.way) == (user, way)
        assert (principal.client_id, principal.address) == (client_id, "127.0.0.1")
        assert (principal.listener, principal.is_anonymous) == ("door", not user)


def test_a_client_stays_as_long_as_what_it_has_shown_holds(
    shore: MqttShore, judge: Judge
) -> None:
    """Showing it anew in time makes it longer; the deadline of before is not heard."""
    runtime = shore.clients.runtime

    def until(seconds: int) -> Principal:
        return Principal("ann", "c", NOBODY, until_ms=runtime.now_ms() + seconds * 1000)

    wire = Guarded(shore, judge)
    wire.send(by_method())
    judge.openings[0].accept(until(10))
    settle(wire)
    runtime.advance(9_000)
    wire.send(Auth(0x19, {AUTH_METHOD: "m"}))
    judge.openings[1].accept(until(10))
    settle(wire)
    runtime.advance(9_999)
    assert not wire.transport.closed
    runtime.advance(1)
    assert [packet.reason for packet in settle(wire)] == [0x87]
    assert wire.transport.closed


def test_who_is_gone_leaves_no_deadline(shore: MqttShore, judge: Judge) -> None:
    """Only that of its session."""
    deadlines = shore.clients._broker.deadlines
    for expiry_s, left in ((0, 0), (100, 1)):
        wire = Guarded(shore, judge)
        wire.send(Connect(5, "c", properties={SESSION_EXPIRY: expiry_s}))
        judge.openings[-1].accept(Principal("ann", "c", NOBODY, until_ms=1 << 50))
        assert len(deadlines) == 1
        wire.connection.connection_lost(None)
        assert len(deadlines) == left


@pytest.mark.parametrize(
    ("connect", "error", "counts"),
    [
        (Connect(5, "c", username="ann", password=b"x"), BadCredentials, True),
        (Connect(5, "c", username="ann", password=b"x"), NotAuthorized, True),
        (by_method(), NotAuthorized, True),
        (by_method(), AuthenticationMethodUnknown, False),
        (Connect(5, "c"), NotAuthorized, False),
        (Connect(5, "c", username="ann", password=b"x"), ServerBusy, False),
    ],
)
def test_what_counts_as_a_guess(
    judge: Judge, connect: Connect, error: type[IsthmusError], counts: bool
) -> None:
    broker = Shore(failures=Streaks(most=1, window_s=60, blocked_s=60))
    shore = MqttShore(broker.clients, connections_max=9)
    for number in range(2):
        wire = Guarded(shore, judge)
        wire.send(connect)
        judge.openings[number].refuse(error("no"))
    banned = broker.clients.guard.refuses("127.0.0.1") is not None
    assert banned == counts


def test_response_information_has_the_user_that_it_is(judge: Judge) -> None:
    """[MQTT-3.1.2-28]: not the one that a CONNECT says."""
    shore = MqttShore(Shore().clients, connections_max=9)
    listener = listener_of(shore, authenticate=judge)
    listener.offer = replace(listener.offer, response_information="answers/%u")
    wire = Wire(shore, 5, listener)
    asking = {REQUEST_RESPONSE_INFO: 1}
    wire.send(Connect(5, "c", username="bob", properties=asking))
    judge.openings[0].accept(someone("ann"))
    (connack,) = settle(wire)
    assert connack.properties[RESPONSE_INFO] == "answers/ann"
