"""The machine that lets clients in: every packet and every verdict in every state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import BadCredentials, IsthmusError, UnexpectedPacket
from isthmus.mqtt.opening import NEXT, Event, Opening, State
from isthmus.mqtt.packets import Auth, Connect, Disconnect, Publish
from isthmus.mqtt.properties import AUTH_DATA, AUTH_METHOD

CONTINUE, ANEW = 0x18, 0x19


class Door:
    """An opening whose authenticator is the test, and all that came of it."""

    def __init__(self, method: str | None = "m", data: bytes | None = None) -> None:
        properties = {AUTH_METHOD: method} if method else {}
        properties |= {AUTH_DATA: data} if data else {}
        self.asked: list[bytes | None] = []
        self.told: list[Any] = []
        self.people: list[Any] = []
        self.opening = Opening(
            Connect(5, "c", properties=properties),
            "c",
            lambda opening: self.asked.append(opening.data),
            send=self.told.append,
            accepted=self.accepted,
            renewed=self.people.append,
            refused=self.told.append,
        )
        self.opening.begin()

    def accepted(self, whom: Any, properties: dict[int, Any]) -> None:
        self.people.append(whom)
        self.told.append(properties)

    def auth(self, data: bytes = b"", reason: int = CONTINUE, method: str = "m") -> None:
        self.opening.receive(Auth(reason, {AUTH_METHOD: method, AUTH_DATA: data}))

    def reach(self, state: State) -> Door:
        """Walk to a state by what clients and authenticators do."""
        opening = self.opening
        if state is State.ASKED:
            opening.ask(b"?")
        elif state in (State.OPEN, State.DECIDING_AGAIN, State.ASKED_AGAIN):
            opening.accept("ann")
        if state in (State.DECIDING_AGAIN, State.ASKED_AGAIN):
            self.auth(reason=ANEW)
        if state is State.ASKED_AGAIN:
            opening.ask()
        if state is State.CLOSED:
            opening.end()
        assert opening.state is state
        self.told.clear()
        return self


def test_a_conversation_has_its_method_in_every_packet() -> None:
    """[MQTT-4.12.0-2, MQTT-4.12.0-5]"""
    door = Door("SCRAM", b"first")
    door.opening.ask(b"challenge")
    door.auth(b"proof", method="SCRAM")
    door.opening.accept("ann", b"signature")
    assert door.asked == [b"first", b"proof"]
    assert door.told == [
        Auth(CONTINUE, {AUTH_METHOD: "SCRAM", AUTH_DATA: b"challenge"}),
        {AUTH_METHOD: "SCRAM", AUTH_DATA: b"signature"},
    ]
    door.auth(b"again", ANEW, "SCRAM")
    door.opening.accept("ann")
    assert door.told[2:] == [Auth(0x00, {AUTH_METHOD: "SCRAM"})]
    assert door.people == ["ann", "ann"]


def test_what_an_authenticator_remembers_ends_when_the_client_begins_anew() -> None:
    door = Door()
    door.opening.memory = "nonce"
    door.opening.ask()
    door.auth()
    assert door.opening.memory == "nonce"
    door.opening.accept("ann")
    door.auth(reason=ANEW)
    assert door.opening.memory is None


def test_who_becomes_somebody_that_may_not_stay_is_told_only_that() -> None:
    door = Door().reach(State.DECIDING_AGAIN)
    door.opening._renewed = lambda whom: door.opening.end()  # as a connection that closes
    door.opening.accept("bob")
    assert door.told == []


def test_without_a_method_nothing_is_said_of_one() -> None:
    """[MQTT-4.12.0-6, MQTT-4.12.0-7]"""
    door = Door(None)
    door.opening.accept("ann")
    assert door.told == [{}]
    assert not door.opening.goes_on
    for reason in (CONTINUE, ANEW):
        with pytest.raises(UnexpectedPacket):
            door.auth(reason=reason)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("reason", [CONTINUE, ANEW])
def test_an_auth_in_every_state(state: State, reason: int) -> None:
    """[MQTT-4.12.0-3, MQTT-4.12.1-1]"""
    door = Door().reach(state)
    following = {
        (State.ASKED, CONTINUE): State.DECIDING,
        (State.ASKED_AGAIN, CONTINUE): State.DECIDING_AGAIN,
        (State.OPEN, ANEW): State.DECIDING_AGAIN,
    }.get((state, reason))
    if following is None:
        with pytest.raises(UnexpectedPacket):
            door.auth(reason=reason)
        assert door.opening.state is state
    else:
        with pytest.raises(UnexpectedPacket):
            door.auth(reason=reason, method="another")  # [MQTT-4.12.0-5]
        door.auth(b"x", reason)
        assert door.opening.state is following
        assert door.asked[-1] == b"x"


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("packet", [Publish(b"t", b""), Disconnect()])
def test_no_other_packet_is_taken_in_any_state(state: State, packet: Any) -> None:
    """[MQTT-3.1.2-30]"""
    door = Door().reach(state)
    with pytest.raises(UnexpectedPacket):
        door.opening.receive(packet)
    assert door.opening.state is state


@pytest.mark.parametrize("state", [State.DECIDING, State.DECIDING_AGAIN])
def test_a_verdict_for_a_connection_that_is_gone_is_not_heard(state: State) -> None:
    door = Door().reach(state)
    door.opening.end()
    door.opening.ask(b"?")
    door.opening.accept("ann", b"!")
    door.opening.refuse(BadCredentials("no"))
    assert door.told == []
    assert not door.opening.goes_on


@given(st.lists(st.sampled_from(["ask", "accept", "refuse", "auth", "anew", "end"])))
def test_nobody_is_in_before_a_verdict(steps: list[str]) -> None:
    """[MQTT-3.1.4-2]: whatever comes in whatever order; and nobody is let in twice."""
    door, error = Door(), BadCredentials("no")
    opening = door.opening
    for step in steps:
        before = opening.state
        event = {"ask": Event.ASK, "accept": Event.ACCEPT, "refuse": Event.REFUSE}.get(step)
        if step == "end":
            opening.end()
        elif event is None:
            try:
                door.auth(reason=CONTINUE if step == "auth" else ANEW)
            except UnexpectedPacket:
                assert opening.state is before
        elif event in NEXT[before]:
            getattr(opening, step)(*{"refuse": [error], "accept": ["ann"]}.get(step, []))
    let_in = [place for place, told in enumerate(door.told) if isinstance(told, dict)]
    sent_away = [told for told in door.told if isinstance(told, IsthmusError)]
    assert len(let_in) <= 1
    assert (State.OPEN is opening.state) <= bool(let_in)
    assert sent_away in ([], [error])
    if sent_away:
        assert door.told[-1] is error
        assert opening.state is State.CLOSED
