"""Who comes in through a listener, when there are too many, and what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import Wire, listener_of

from isthmus.broker.bans import Ban
from isthmus.broker.guard import Streaks
from isthmus.broker.identity import Identity, Principal
from isthmus.errors import BadCredentials, ServerBusy
from isthmus.mqtt.packets import Connect, Pingreq
from isthmus.mqtt.properties import REASON_STRING
from isthmus.server import admission
from isthmus.server.admission import REFUSALS_MAX
from isthmus.server.mqtt_listener import MqttShore

if TYPE_CHECKING:
    from isthmus.mqtt.opening import Opening

NOBODY = Identity("", 0, "")


@pytest.fixture
def shore() -> MqttShore:
    return MqttShore(Shore().clients, connections_max=1000)


def wires(shore: MqttShore, count: int, *addresses: str, **limits: Any) -> list[Wire]:
    """Connect to a listener of these limits, from each address so often."""
    door = listener_of(shore, **{"connections_max": 1000, **limits})
    addresses = addresses or ("192.0.2.1",)
    return [
        Wire(shore, listener=door, address=each) for each in addresses for _ in range(count)
    ]


def reasons(connected: list[Wire]) -> list[int]:
    return [wire.connect(f"c{place}").reason for place, wire in enumerate(connected)]


def test_too_many_connections_a_second_are_told_so(shore: MqttShore) -> None:
    connected = wires(shore, 4, connection_rate_max=3)
    assert reasons(connected) == [0, 0, 0, 0x9F]
    assert connected[3].transport.closed
    runtime: Any = shore.clients.runtime
    runtime.advance(400)
    door = connected[0].connection._listener
    assert Wire(shore, listener=door).connect("late").reason == 0


def test_before_mqtt_5_they_are_told_to_come_later(shore: MqttShore) -> None:
    door = listener_of(shore, connection_rate_max=1)
    Wire(shore, listener=door)
    assert Wire(shore, 4, listener=door).connect().reason == 3


def test_an_address_has_rates_and_numbers_of_its_own(shore: MqttShore) -> None:
    few = wires(shore, 3, "192.0.2.1", "192.0.2.2", address_connections_max=2)
    assert reasons(few) == [0, 0, 0x89, 0, 0, 0x89]
    fast = wires(shore, 2, "192.0.2.1", "192.0.2.2", address_connection_rate_max=1)
    assert reasons(fast) == [0, 0x9F, 0, 0x9F]


def test_what_one_address_has_too_much_takes_nothing_from_others(shore: MqttShore) -> None:
    limits = {"address_connection_rate_max": 1, "connection_rate_max": 2}
    assert reasons(wires(shore, 5, "192.0.2.1", "192.0.2.2", **limits)) == [
        *(0, 0x9F, 0x9F, 0x9F, 0x9F),
        *(0, 0x9F, 0x9F, 0x9F, 0x9F),
    ]


def test_ipv6_addresses_of_one_network_are_one(shore: MqttShore) -> None:
    near = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")
    assert reasons(wires(shore, 1, *near, address_connections_max=1)) == [0, 0x89, 0]


def test_programs_on_this_machine_have_no_address(shore: MqttShore) -> None:
    assert reasons(wires(shore, 3, "unix", address_connections_max=1)) == [0, 0, 0]


def test_who_is_gone_makes_room(shore: MqttShore) -> None:
    first, second, third = wires(shore, 3, address_connections_max=2)
    assert reasons([first]) == [0]
    door = first.connection._listener

    def reason(client_id: str) -> int:
        return Wire(shore, listener=door, address="192.0.2.1").connect(client_id).reason

    for place, gone in enumerate((first, second)):  # with a session and without
        gone.connection.connection_lost(None)
        assert reason(f"new{place}") == 0
    third.connection.connection_lost(None)  # was refused, and made no room
    assert reason("newer") == 0x89


def test_everything_counted_is_counted_back(shore: MqttShore) -> None:
    connected = wires(shore, REFUSALS_MAX + 3, connections_max=2)
    assert [wire.transport.aborted for wire in connected] == [False] * (REFUSALS_MAX + 2) + [
        True
    ]
    assert reasons(connected[1:3]) == [0, 0x89]
    counts = connected[0].connection._listener.admission
    assert (counts.connections, counts.opening, counts.refusing) == (
        *(2, REFUSALS_MAX, REFUSALS_MAX - 1),
    )
    for wire in connected:
        wire.connection.connection_lost(None)
    assert (counts.connections, counts.opening, counts.refusing) == (0, 0, 0)
    assert counts._connections_of == {}
    assert shore.total.now == 0


def test_what_is_being_opened_has_a_limit(shore: MqttShore) -> None:
    silent, other, late = wires(shore, 3, handshakes_max=2)
    assert late.transport.aborted and late.transport.sent == b""
    assert reasons([silent]) == [0]
    door = silent.connection._listener
    assert reasons([other, Wire(shore, listener=door)]) == [0, 0]


def test_who_waits_for_room_is_called_when_there_is_some(shore: MqttShore) -> None:
    (first,) = wires(shore, 1, handshakes_max=1)
    counts = first.connection._listener.admission
    with pytest.raises(ServerBusy):
        counts.begin()
    called: list[bool] = []
    counts.on_room = lambda: called.append(counts.is_busy)
    first.connect()
    assert called == [False]
    assert counts.on_room is None


def test_rates_of_old_are_forgotten(shore: MqttShore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ADDRESSES_SWEPT", 4)
    door = listener_of(shore, connections_max=1000, address_connection_rate_max=1)
    runtime: Any = shore.clients.runtime
    for number in range(100):
        Wire(shore, listener=door, address=f"192.0.2.{number}")
        runtime.advance(300)
    assert len(door.admission._rate_of) <= 8


def test_other_limits_count_at_once(shore: MqttShore) -> None:
    first, second = wires(shore, 2)
    assert reasons([first, second]) == [0, 0]
    door = first.connection._listener
    limits = listener_of(shore, address_connections_max=2).limits
    door.change(door.offer, limits)
    assert Wire(shore, listener=door, address="192.0.2.1").connect().reason == 0x89
    first.send(Pingreq())
    assert len(first.packets()) == 1


def test_who_is_banned_is_told_so(shore: MqttShore) -> None:
    guard = shore.clients.guard
    (inside,) = wires(shore, 1)
    assert reasons([inside]) == [0]
    guard.ban(Ban("address", "192.0.2.0/24", reason="too curious"))
    shore.clients.runtime.settle()
    assert [packet.reason for packet in inside.packets()] == [0x98]
    assert reasons(wires(shore, 1, "192.0.2.7", "192.0.3.7")) == [0x8A, 0]
    guard.unban("address", "192.0.2.0/24")
    guard.ban(Ban("user", "eve"))
    (named,) = wires(shore, 1)
    named.send(Connect(5, "e", username="eve"))
    (connack,) = named.packets()
    assert (connack.reason, connack.properties[REASON_STRING]) == (0x8A, "banned")


def test_a_user_is_banned_whatever_the_way_in(shore: MqttShore) -> None:
    def judge(_: Identity, opening: Opening) -> None:
        opening.accept(Principal("eve", opening.client_id, NOBODY))  # by a token, say

    shore.clients.guard.ban(Ban("user", "eve"))
    wire = Wire(shore, listener=listener_of(shore, authenticate=judge))
    assert wire.connect().reason == 0x8A


def test_wrong_passwords_are_counted_by_address(shore: MqttShore) -> None:
    def judge(_: Identity, opening: Opening) -> None:
        right = opening.connect.password == b"right"
        whom = Principal("ann", opening.client_id, NOBODY)
        opening.accept(whom) if right else opening.refuse(BadCredentials("wrong"))

    shore.clients.guard.failures.limits = Streaks(most=2, window_s=60, blocked_s=60)
    connected = wires(shore, 6, authenticate=judge)
    words = [b"right", b"one", b"two", b"right", b"three", b"right"]
    got = []
    for place, (wire, word) in enumerate(zip(connected, words, strict=True)):
        wire.send(Connect(5, f"c{place}", username="ann", password=word))
        got += [packet.reason for packet in wire.packets()]
    assert got == [0, 0x86, 0x86, 0, 0x86, 0x8A]
    assert not connected[0].transport.closed
