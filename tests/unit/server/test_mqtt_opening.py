"""Letting a client in, where the verdict takes time: what the connection does meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import Wire

from isthmus.errors import (
    AuthenticationMethodUnknown,
    BadCredentials,
    IsthmusError,
    NotAuthorized,
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
)
from isthmus.server.mqtt import (
    MqttShore,
)

if TYPE_CHECKING:
    from isthmus.mqtt.opening import Opening


class Judge:
    """An authenticator whose verdicts the test gives."""

    def __init__(self) -> None:
        self.openings: list[Opening] = []

    def __call__(self, opening: Opening) -> None:
        self.openings.append(opening)


@pytest.fixture
def shore() -> MqttShore:
    return MqttShore(Shore().clients, connections_max=3)


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
def guarded(judge: Judge) -> MqttShore:
    return MqttShore(Shore(authenticate=judge).clients, connections_max=3)


def settle(wire: Wire) -> list[Any]:
    wire.shore.clients.runtime.settle()
    return wire.packets()


def by_method() -> Connect:
    return Connect(5, "c", properties={AUTH_METHOD: "m"})


@pytest.mark.parametrize("version", [3, 4, 5])
def test_what_follows_a_connect_waits_for_its_verdict(
    guarded: MqttShore, judge: Judge, version: int
) -> None:
    """[MQTT-3.1.4-5]"""
    wire = Wire(guarded, version)
    wire.send(Connect(version, "c"), Subscribe(1, [("t", 0)], None), Publish(b"t", b"x"))
    assert wire.packets() == []
    assert guarded.clients.sessions.entries == {}
    assert not wire.transport.reading
    judge.openings[0].accept()
    connack, suback, publish = settle(wire)
    assert (connack.reason, suback.reasons, publish.payload) == (0, [0], b"x")
    assert wire.transport.reading


@pytest.mark.parametrize(("version", "reason"), [(3, 4), (4, 4), (5, 0x86)])
def test_what_follows_a_refused_connect_is_not_done(
    guarded: MqttShore, judge: Judge, version: int, reason: int
) -> None:
    """[MQTT-3.1.4-2, MQTT-3.1.4-6, MQTT-4.12.0-4; MQTT 3.1.1: MQTT-3.1.4-5]"""
    wire = Wire(guarded, version)
    wire.send(Connect(version, "c"), Publish(b"t", b"x"))
    judge.openings[0].refuse(BadCredentials("who is that?"))
    (connack,) = settle(wire)
    assert connack.reason == reason
    assert wire.transport.closed
    assert guarded.clients.sessions.entries == {}
    assert guarded.clients._broker.published == 0


def test_a_verdict_that_is_known_at_once_needs_no_turn(guarded: MqttShore) -> None:
    guarded.clients._authenticate = lambda opening: opening.accept()
    wire = Wire(guarded)
    wire.send(Connect(5, "c"), Pingreq())
    assert [type(packet) for packet in wire.packets()] == [Connack, Pingresp]
    assert wire.transport.reading


def test_a_verdict_for_a_client_that_is_gone_lets_nobody_in(
    guarded: MqttShore, judge: Judge
) -> None:
    wire = Wire(guarded)
    wire.send(Connect(5, "c"))
    wire.connection.connection_lost(None)
    judge.openings[0].accept()
    assert settle(wire) == []
    assert guarded.clients.sessions.entries == {}


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda shore: shore.clients.runtime.advance(10_000), 0x80),
        (lambda shore: shore.close(ServerShuttingDown("")), 0x88),
    ],
    ids=["time-out", "shutdown"],
)
def test_who_waits_for_a_verdict_is_told_of_the_end(
    guarded: MqttShore, judge: Judge, end: Any, reason: int
) -> None:
    wire = Wire(guarded)
    wire.send(Connect(5, "c"))
    end(guarded)
    assert [packet.reason for packet in settle(wire)] == [reason]
    judge.openings[0].accept()
    assert settle(wire) == []


def test_the_session_belongs_to_whom_was_accepted_last(
    guarded: MqttShore, judge: Judge
) -> None:
    """[MQTT-3.1.4-3]"""
    first, second = Wire(guarded), Wire(guarded)
    for wire in (first, second):
        wire.send(Connect(5, "c"))
    judge.openings[1].accept()
    assert [packet.reason for packet in settle(second)] == [0]
    judge.openings[0].accept()
    assert [packet.reason for packet in settle(first)] == [0]
    assert [packet.reason for packet in second.packets()] == [0x8E]


def test_a_client_answers_until_it_is_let_in(guarded: MqttShore, judge: Judge) -> None:
    """[MQTT-4.12.0-2, MQTT-4.12.0-3, MQTT-4.12.0-5]"""
    wire = Wire(guarded)
    wire.send(by_method())
    for round_number in range(3):
        opening = judge.openings[round_number]
        opening.ask(b"%d" % round_number)
        (question,) = settle(wire)
        assert question == Auth(0x18, {AUTH_METHOD: "m", AUTH_DATA: b"%d" % round_number})
        wire.send(Auth(0x18, {AUTH_METHOD: "m", AUTH_DATA: b"a%d" % round_number}))
        assert opening.data == b"a%d" % round_number
        assert not wire.transport.reading
    opening.accept(b"welcome")
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
    guarded: MqttShore, judge: Judge, packets: list[Any], asked_first: bool
) -> None:
    """[MQTT-3.1.2-30, MQTT-4.12.0-5]: sent behind CONNECT, or after the question."""
    wire = Wire(guarded)
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
    assert guarded.clients._broker.published == 0


def test_a_client_may_go_instead_of_answering(guarded: MqttShore, judge: Judge) -> None:
    wire = Wire(guarded)
    wire.send(by_method())
    judge.openings[0].ask()
    settle(wire)
    wire.send(Disconnect())
    assert wire.packets() == []
    assert wire.transport.closed
    judge.openings[0].accept()
    assert guarded.clients.sessions.entries == {}


def test_messages_go_on_while_a_client_authenticates_again(
    guarded: MqttShore, judge: Judge
) -> None:
    """[MQTT-4.12.1-1]"""
    wire = Wire(guarded)
    wire.send(by_method())
    judge.openings[0].accept()
    settle(wire)
    wire.send(Auth(0x19, {AUTH_METHOD: "m"}), Subscribe(1, [("t", 0)]), Publish(b"t", b"x"))
    assert [type(packet) for packet in wire.packets()] == [Suback, Publish]
    judge.openings[1].ask(b"?")
    assert settle(wire) == [Auth(0x18, {AUTH_METHOD: "m", AUTH_DATA: b"?"})]
    wire.send(Auth(0x18, {AUTH_METHOD: "m"}), Pingreq())
    judge.openings[2].accept()
    assert settle(wire) == [Pingresp(), Auth(0x00, {AUTH_METHOD: "m"})]


@pytest.mark.parametrize("error", [BadCredentials, NotAuthorized, AuthenticationMethodUnknown])
def test_a_client_that_fails_to_authenticate_again_is_sent_away(
    guarded: MqttShore, judge: Judge, error: type[IsthmusError]
) -> None:
    """[MQTT-4.12.1-2]"""
    wire = Wire(guarded)
    wire.send(by_method())
    judge.openings[0].accept()
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
    guarded: MqttShore, judge: Judge, step: str
) -> None:
    """[MQTT-3.1.2-24]"""
    wire = Wire(guarded)
    wire.send(Connect(5, "c", properties={AUTH_METHOD: "m", MAXIMUM_PACKET_SIZE: 40}))
    getattr(judge.openings[0], step)(bytes(100))
    assert [packet.reason for packet in settle(wire)] == [0x95]
    assert guarded.clients.sessions.entries == {}
