"""Clients that send faster than they may: read from later, or sent away."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import Wire, listener_of

from isthmus.mqtt.packets import Disconnect, Pingreq, Publish, Subscribe
from isthmus.server.mqtt_listener import READ_BYTES_MIN, MqttShore


@pytest.fixture
def shore() -> MqttShore:
    return MqttShore(Shore().clients, connections_max=1000)


def publisher(shore: MqttShore, client_id: str = "p", **limits: Any) -> Wire:
    wire = Wire(shore, listener=listener_of(shore, **limits))
    wire.connect(client_id)
    return wire


def subscriber(shore: MqttShore) -> Wire:
    wire = Wire(shore)
    wire.connect("s")
    wire.send(Subscribe(1, [("t", 0)], None))
    wire.packets()
    return wire


MESSAGES = [Publish(b"t", b"%d" % number) for number in range(12)]


def test_above_its_rate_a_client_is_read_from_later(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    inbox, wire = subscriber(shore), publisher(shore, client_messages_rate_max=10)
    wire.send(*MESSAGES)
    assert len(inbox.packets()) == 12  # what was read is not lost
    assert not wire.transport.reading
    assert shore.held == 1
    runtime.advance(199)
    assert not wire.transport.reading
    runtime.advance(1)
    assert wire.transport.reading
    other = publisher(shore, "o", client_messages_rate_max=10)
    other.send(*MESSAGES[:10])
    assert other.transport.reading


def test_only_messages_count_as_messages(shore: MqttShore) -> None:
    wire = publisher(shore, client_messages_rate_max=1)
    wire.send(*[Pingreq()] * 20)
    assert wire.transport.reading


def test_bytes_count_whatever_they_are(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = publisher(shore, client_bytes_rate_max=1000)
    assert len(wire.connection.get_buffer(-1)) == 1000
    wire.send_bytes(b"\x30\xff\x7f" + bytes(997))
    assert wire.transport.reading
    wire.send_bytes(bytes(500))
    assert not wire.transport.reading
    runtime.advance(500)
    assert wire.transport.reading


def test_little_is_read_at_a_time_where_little_may_come(shore: MqttShore) -> None:
    wire = publisher(shore, client_messages_rate_max=1)
    assert len(wire.connection.get_buffer(-1)) == READ_BYTES_MIN
    assert len(publisher(shore, "o").connection.get_buffer(-1)) > READ_BYTES_MIN


def test_a_listener_has_a_rate_for_all_together(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    door = listener_of(shore, messages_rate_max=10)
    first, second = Wire(shore, listener=door), Wire(shore, listener=door)
    for name, wire in (("a", first), ("b", second)):
        wire.connect(name)
        wire.send(*MESSAGES[:10])
    assert first.transport.reading
    assert not second.transport.reading
    runtime.advance(1000)
    assert second.transport.reading


def test_a_client_may_be_ended_for_it(shore: MqttShore) -> None:
    inbox = subscriber(shore)
    wire = publisher(shore, client_messages_rate_max=10, client_rate_action="disconnect")
    wire.send(*MESSAGES[:10])
    wire.send(*MESSAGES[10:])
    (disconnect,) = wire.packets()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.reason == 0x96
    assert len(inbox.packets()) == 10


def test_nobody_is_ended_for_what_others_send(shore: MqttShore) -> None:
    door = listener_of(shore, messages_rate_max=1, client_rate_action="disconnect")
    wire = Wire(shore, listener=door)
    wire.connect()
    wire.send(*MESSAGES[:5])
    assert not wire.transport.closed
    assert not wire.transport.reading


def test_a_client_that_is_held_back_is_not_silent(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = Wire(shore, listener=listener_of(shore, client_messages_rate_max=1))
    wire.connect(keep_alive_s=10)
    wire.send(*MESSAGES)
    wire.send(*MESSAGES[:3])  # 14 seconds, and the keep alive ends after 15
    runtime.advance(14_500)
    assert wire.transport.reading
    runtime.advance(14_000)
    assert not wire.transport.closed
    runtime.advance(1_000)
    assert wire.transport.closed


def test_a_rate_may_come_while_a_client_is_connected(shore: MqttShore) -> None:
    wire = publisher(shore)
    wire.send(*MESSAGES)
    assert wire.transport.reading
    door = wire.connection._listener
    door.change(door.offer, listener_of(shore, client_messages_rate_max=10).limits)
    wire.send(*MESSAGES)
    assert not wire.transport.reading


def test_a_connection_that_ends_while_it_is_held_back_stays_ended(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = publisher(shore, client_messages_rate_max=1)
    wire.send(*MESSAGES)
    wire.connection.connection_lost(None)
    runtime.advance(20_000)
    assert not wire.transport.reading
