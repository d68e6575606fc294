"""One MQTT connection over a transport that is turned by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import Wire, listener_of

from isthmus.app import farewell
from isthmus.config import MqttSettings
from isthmus.errors import (
    Redirected,
    ServerMoved,
    ServerShuttingDown,
    UseAnotherServer,
)
from isthmus.mqtt.codec import Decoder, encode
from isthmus.mqtt.control import FILTERS_AT_A_TIME
from isthmus.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
)
from isthmus.mqtt.properties import (
    MAXIMUM_PACKET_SIZE,
    REASON_STRING,
    REQUEST_PROBLEM_INFO,
    SERVER_KEEP_ALIVE,
    SERVER_REFERENCE,
)
from isthmus.server.admission import REFUSALS_MAX
from isthmus.server.mqtt import REFUSED_BYTES_MAX
from isthmus.server.mqtt_listener import MqttShore
from isthmus.wire.buffer import WriteBuffer


@pytest.fixture
def shore() -> MqttShore:
    clients = Shore().clients
    return MqttShore(clients, connections_max=3)


@pytest.mark.parametrize("version", [3, 4, 5])
def test_connect_publish_subscribe_over_the_wire(shore: MqttShore, version: int) -> None:
    wire = Wire(shore, version)
    assert wire.connect().reason == 0
    wire.send(Subscribe(1, [("a/#", 0)], None), Publish(b"a/b", b"x"))
    suback, publish = wire.packets()
    assert suback.reasons == [0]
    assert (publish.topic, publish.payload) == (b"a/b", b"x")


def test_bytes_may_come_one_by_one(shore: MqttShore) -> None:
    wire = Wire(shore)
    out = WriteBuffer()
    encode(Connect(5, "c", True, 0, None, None, None, {}), 5, out)
    encode(Pingreq(), 5, out)
    for byte in out.take():
        wire.send_bytes(bytes([byte]))
    connack, pong = wire.packets()
    assert (connack.reason, type(pong)) == (0, Pingresp)


def test_a_packet_larger_than_the_receive_buffer_arrives_whole() -> None:
    shore = MqttShore(Shore().clients, connections_max=3)
    wire = Wire(shore, listener=listener_of(shore, packet_size_max=1 << 22))
    wire.connect()
    payload = bytes(range(256)) * 4096
    wire.send(Subscribe(1, [("a", 0)], None))
    wire.packets()
    wire.send(Publish(b"a", payload))
    data = bytes(wire.transport.sent)
    (publish,) = Decoder(1 << 22, 5).feed(data)
    assert publish.payload == payload


def test_a_client_is_held_to_the_keep_alive_that_it_was_told(shore: MqttShore) -> None:
    """[MQTT-3.1.2-21, MQTT-3.2.2-21]: not to its own, which is much longer."""
    wire = Wire(shore, listener=listener_of(shore, keep_alive_max_s=7))
    assert wire.connect(keep_alive_s=3600).properties[SERVER_KEEP_ALIVE] == 7
    shore.clients.runtime.advance(10_499)
    assert wire.packets() == []
    shore.clients.runtime.advance(1)
    assert [packet.reason for packet in wire.packets()] == [0x8D]
    assert wire.transport.closed


def test_a_listener_has_limits_of_its_own_and_those_of_the_shore(shore: MqttShore) -> None:
    small = listener_of(shore, connections_max=1, keep_alive_max_s=7)
    first = Wire(shore, listener=small)
    assert first.connect("a", 60).properties[SERVER_KEEP_ALIVE] == 7
    busy = Wire(shore, listener=small)
    assert busy.connect().reason == 0x89
    busy.connection.connection_lost(None)
    others = [Wire(shore), Wire(shore)]
    assert SERVER_KEEP_ALIVE not in others[0].connect("b", 60).properties
    assert Wire(shore).connect().reason == 0x89  # three are open
    first.connection.close(ServerShuttingDown(""))
    first.connection.connection_lost(None)
    assert small.admission.connections == 0
    assert Wire(shore, listener=small).connect().reason == 0


def test_a_connection_knows_where_it_comes_from(shore: MqttShore) -> None:
    identity = Wire(shore).connection.identity
    assert (identity.address, identity.port, identity.listener) == ("127.0.0.1", 5000, "door")
    assert str(identity) == "127.0.0.1:5000"


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("160301020001000001fc0303") + bytes(100),  # a TLS hello
        b"\x00" * 50,
        b"\xff" * 50,
    ],
)
def test_what_is_not_mqtt_is_closed_with_one_line(
    shore: MqttShore, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire(shore)
    with caplog.at_level("INFO"):
        wire.send_bytes(junk)
    assert wire.transport.closed
    assert len(caplog.records) == 1
    assert shore.connections == set()


def test_a_broken_rule_is_told_to_an_mqtt_5_client(shore: MqttShore) -> None:
    wire = Wire(shore)
    wire.connect()
    wire.send(Connect(5, "c", True, 0, None, None, None, {}))
    (disconnect,) = wire.packets()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.reason == 0x82
    assert wire.transport.closed


@pytest.mark.parametrize(
    "properties",
    [{MAXIMUM_PACKET_SIZE: 20}, {REQUEST_PROBLEM_INFO: 0}],
    ids=["size", "unasked"],
)
def test_a_reason_string_is_left_out_where_it_is_too_much(
    shore: MqttShore, properties: dict[int, int]
) -> None:
    wire = Wire(shore)
    wire.send(Connect(5, "c", properties=properties))
    wire.send(Connect(5, "c"))
    assert wire.packets()[1:] == [Disconnect(0x82)]


@pytest.mark.parametrize(("size_max", "answers"), [(4, []), (5, [Connack(False, 0x95)])])
def test_a_refusal_is_sent_only_where_it_is_taken(
    shore: MqttShore, size_max: int, answers: list[Connack]
) -> None:
    wire = Wire(shore)
    wire.send(Connect(5, "c", properties={MAXIMUM_PACKET_SIZE: size_max}))
    assert wire.packets() == answers
    assert wire.transport.closed


def test_before_mqtt_5_a_broken_rule_just_closes(shore: MqttShore) -> None:
    wire = Wire(shore, 4)
    wire.connect()
    wire.send(Connect(4, "c", True, 0, None, None, None, None))
    assert wire.packets() == []
    assert wire.transport.closed


def test_a_packet_above_the_limit_is_refused_by_its_length(shore: MqttShore) -> None:
    wire = Wire(shore)
    wire.connect()
    wire.send_bytes(b"\x30\xff\xff\xff\x7f")
    (disconnect,) = wire.packets()
    assert disconnect.reason == 0x95


@pytest.mark.parametrize(
    ("level", "answer"), [(6, b"\x20\x03\x00\x84\x00"), (2, b"\x20\x02\x00\x01")]
)
def test_an_unknown_protocol_level_is_answered(
    shore: MqttShore, level: int, answer: bytes
) -> None:
    wire = Wire(shore)
    wire.send_bytes(b"\x10\x0c\x00\x04MQTT" + bytes([level]) + b"\x02\x00\x00\x00\x00")
    assert wire.transport.closed
    assert bytes(wire.transport.sent) == answer


def test_before_mqtt_5_a_refused_client_id_has_its_return_code(shore: MqttShore) -> None:
    wire = Wire(shore, 4)
    wire.send_bytes(b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00")
    assert bytes(wire.transport.sent) == b"\x20\x02\x00\x02"
    assert wire.transport.closed


def test_what_came_before_a_bad_packet_is_done(shore: MqttShore) -> None:
    watcher, wire = Wire(shore), Wire(shore)
    watcher.connect("w")
    watcher.send(Subscribe(1, [("#", 0)], None))
    watcher.packets()
    wire.connect("c")
    wire.send_bytes(b"\x30\x05\x00\x01a\x00x" + b"\x30\x05\x00\x01+\x00x")
    (publish,) = watcher.packets()
    assert publish.payload == b"x"
    (disconnect,) = wire.packets()
    assert disconnect.reason == 0x90


@pytest.mark.parametrize(
    ("after", "answers"),
    [
        ([Pingreq(), Connect(5, "again")], [Connack, Pingresp, Disconnect]),
        ([Subscribe(1, [("t", 0)]), Disconnect()], [Connack, Suback]),
    ],
    ids=["broken rule", "disconnect"],
)
def test_what_was_answered_is_sent_before_the_connection_ends(
    shore: MqttShore, after: list[Any], answers: list[type]
) -> None:
    wire = Wire(shore)
    wire.send(Connect(5, "c"), *after)
    assert [type(packet) for packet in wire.packets()] == answers
    assert wire.transport.closed


def test_nothing_is_done_after_the_packet_that_ends_the_connection(shore: MqttShore) -> None:
    watcher, wire = Wire(shore), Wire(shore, 4)
    watcher.connect("w")
    watcher.send(Subscribe(1, [("t", 0)], None))
    watcher.packets()
    wire.connect("c")
    deep = b"/".join([b"x"] * 300)
    wire.send(Publish(deep, b"", 1, packet_id=1), Publish(b"t", b"x"), Subscribe(2, [("t", 0)]))
    assert wire.transport.closed
    assert watcher.packets() == []
    watcher.send(Publish(b"t", b"y"))
    assert [packet.payload for packet in watcher.packets()] == [b"y"]
    assert wire.packets() == []


def test_silence_beyond_one_and_a_half_keep_alives_ends_it(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = Wire(shore)
    wire.connect(keep_alive_s=10)
    runtime.advance(14_000)
    wire.send(Pingreq())
    wire.packets()
    runtime.advance(14_000)
    assert not wire.transport.closed
    runtime.advance(1_000)
    (disconnect,) = wire.packets()
    assert disconnect.reason == 0x8D
    assert wire.transport.closed


def test_a_client_that_is_not_read_from_lives_as_long_as_it_reads(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = Wire(shore)
    wire.connect(keep_alive_s=10)
    wire.connection.pause_writing()
    for unsent in (5000, 4000, 3000):
        wire.transport.unsent = unsent
        runtime.advance(15_000)
        assert not wire.transport.closed
    runtime.advance(15_000)
    assert wire.transport.closed


def test_a_client_that_is_held_back_for_others_lives(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = Wire(shore)
    wire.connect(keep_alive_s=10)
    wire.connection._hold_reading()  # as the broker asks when its backlog is long
    runtime.advance(100_000)
    assert not wire.transport.closed


def test_without_keep_alive_silence_is_allowed(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = Wire(shore)
    wire.connect(keep_alive_s=0)
    runtime.advance(10_000_000)
    assert not wire.transport.closed


def test_who_does_not_connect_in_time_is_closed(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = Wire(shore)
    runtime.advance(9_000)
    wire.send_bytes(b"\x10")
    runtime.advance(1_000)
    assert wire.transport.closed
    assert wire.packets() == []


def test_a_lost_connection_publishes_its_will(shore: MqttShore) -> None:
    watcher, wire = Wire(shore), Wire(shore)
    watcher.connect("w")
    watcher.send(Subscribe(1, [("gone", 0)], None))
    watcher.packets()
    wire.connect("c", will=Will(b"gone", b"x", 0, False, None))
    wire.connection.connection_lost(ConnectionResetError())
    shore.clients.runtime.settle()
    (publish,) = watcher.packets()
    assert publish.topic == b"gone"


def test_a_disconnect_closes_without_will(shore: MqttShore) -> None:
    watcher, wire = Wire(shore), Wire(shore)
    watcher.connect("w")
    watcher.send(Subscribe(1, [("gone", 0)], None))
    watcher.packets()
    wire.connect("c", will=Will(b"gone", b"x", 0, False, None))
    wire.send(Disconnect(0, None))
    assert wire.transport.closed
    wire.connection.connection_lost(None)
    shore.clients.runtime.settle()
    assert watcher.packets() == []


def test_a_take_over_is_told_to_the_old_connection(shore: MqttShore) -> None:
    first, second = Wire(shore), Wire(shore)
    first.connect("same")
    second.connect("same")
    (disconnect,) = first.packets()
    assert disconnect.reason == 0x8E
    assert first.transport.closed
    first.connection.connection_lost(None)
    second.send(Pingreq())
    assert len(second.packets()) == 1


def test_a_slow_client_is_held_back_and_loses_nothing(shore: MqttShore) -> None:
    slow, fast = Wire(shore), Wire(shore)
    slow.connect("slow")
    slow.send(Subscribe(1, [("t", 0)], None))
    slow.packets()
    fast.connect("fast")
    slow.connection.pause_writing()
    assert not slow.transport.reading
    fast.send(*[Publish(b"t", b"%d" % number) for number in range(5)])
    assert slow.packets() == []
    slow.connection.resume_writing()
    shore.clients.runtime.settle()
    assert slow.transport.reading
    assert [packet.payload for packet in slow.packets()] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(("version", "reason"), [(3, 3), (4, 3), (5, 0x89)])
def test_connections_are_limited(shore: MqttShore, version: int, reason: int) -> None:
    """[MQTT 5.0, 3.2.2.2]"""
    wires = [Wire(shore) for _ in range(3)]
    refused = Wire(shore, version)
    assert refused.connect().reason == reason
    assert refused.transport.closed
    wires[0].connection.connection_lost(None)
    assert Wire(shore).connect().reason == 0


def test_clients_beyond_the_limit_cannot_say_much(shore: MqttShore) -> None:
    door = listener_of(shore)
    crowd = [Wire(shore, listener=door) for _ in range(3 + REFUSALS_MAX)]
    assert not crowd[-1].transport.aborted
    assert Wire(shore, listener=door).transport.aborted
    crowd[-1].send(Connect(5, "c", username="u" * REFUSED_BYTES_MAX))
    assert [packet.reason for packet in crowd[-1].packets()] == []
    assert crowd[-1].transport.closed


def test_a_bug_of_ours_costs_one_connection(
    shore: MqttShore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wire, other = Wire(shore), Wire(shore)
    wire.connect("c")
    other.connect("o")
    monkeypatch.setattr(shore.clients, "receive", lambda *_: 1 / 0)
    wire.send(Pingreq())
    (disconnect,) = wire.packets()
    assert disconnect.reason == 0x80
    assert wire.transport.closed
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    other.send(Pingreq())
    assert len(other.packets()) == 1


def test_a_bug_in_closing_costs_no_more(
    shore: MqttShore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire(shore)
    wire.connect("c")
    monkeypatch.setattr(shore.clients, "receive", lambda *_: 1 / 0)
    monkeypatch.setattr(shore.clients, "lost", lambda *_: [][0])
    wire.send(Pingreq())
    assert wire.transport.closed
    assert "ZeroDivisionError" in caplog.text
    assert "IndexError" in caplog.text


def test_a_shutdown_is_told(shore: MqttShore) -> None:
    new, old = Wire(shore, 5), Wire(shore, 4)
    new.connect("n")
    old.connect("o")
    shore.close(ServerShuttingDown("the server is shutting down"))
    assert [packet.reason for packet in new.packets()] == [0x8B]
    assert old.packets() == []
    assert new.transport.closed
    assert old.transport.closed


def test_a_closing_connection_that_takes_nothing_is_aborted(shore: MqttShore) -> None:
    runtime: Any = shore.clients.runtime
    wire = Wire(shore)
    wire.send_bytes(b"\xff\xff")
    assert wire.transport.closed
    assert not wire.transport.aborted
    runtime.advance(10_000)
    assert wire.transport.aborted


@pytest.mark.parametrize(("version", "reasons"), [(4, []), (5, [0x9C])])
def test_at_a_shutdown_clients_are_told_where_to_go(
    shore: MqttShore, version: int, reasons: list[int]
) -> None:
    """[MQTT 5.0, 4.11]"""
    wire = Wire(shore, version)
    wire.connect()
    shore.close(farewell(MqttSettings(server_reference="b:1883")))
    told = wire.packets()
    assert [packet.reason for packet in told] == reasons
    assert all(packet.properties[SERVER_REFERENCE] == "b:1883" for packet in told)


@pytest.mark.parametrize(
    ("reason", "reference", "told"),
    [
        ("auto", "", 0x8B),
        ("auto", "b:1883", 0x9C),
        ("shutting-down", "b:1883", 0x8B),
        ("use-another", "", 0x9C),
        ("moved", "b:1883", 0x9D),
    ],
)
def test_what_they_are_told_is_a_setting(
    shore: MqttShore, reason: Any, reference: str, told: int
) -> None:
    wire = Wire(shore)
    wire.connect()
    shore.close(farewell(MqttSettings(server_reference=reference, shutdown_reason=reason)))
    (packet,) = wire.packets()
    assert packet.reason == told
    with_reference = bool(reference) and told != 0x8B
    assert (packet.properties.get(SERVER_REFERENCE) == reference) == with_reference


@pytest.mark.parametrize("kind", [UseAnotherServer, ServerMoved])
@pytest.mark.parametrize("version", [4, 5])
def test_clients_are_sent_elsewhere(version: int, kind: type[Redirected]) -> None:
    """[MQTT 5.0, 4.11]"""
    clients = Shore(redirected=kind("elsewhere", "b:1883 c:1883")).clients
    shore = MqttShore(clients, connections_max=3)
    connack = Wire(shore, version).connect()
    if version == 4:
        assert connack == Connack(False, 3)
        return
    assert connack.reason == (0x9D if kind is ServerMoved else 0x9C)
    assert connack.properties == {SERVER_REFERENCE: "b:1883 c:1883", REASON_STRING: "elsewhere"}


def test_what_has_no_room_is_left_out_the_reason_string_first() -> None:
    clients = Shore(redirected=ServerMoved("elsewhere", "b:1")).clients
    shore = MqttShore(clients, connections_max=3)
    told = []
    for packet_size_max in (40, 15, 5, 4):
        wire = Wire(shore)
        wire.send(Connect(5, "c", properties={MAXIMUM_PACKET_SIZE: packet_size_max}))
        told.append([(packet.properties or {}).keys() for packet in wire.packets()])
    assert told == [[{SERVER_REFERENCE, REASON_STRING}], [{SERVER_REFERENCE}], [set()], []]


def long_subscribe(filters: int, packet_id: int = 1) -> Subscribe:
    return Subscribe(packet_id, [(f"t/{number}", 0) for number in range(filters)], None)


def test_very_many_filters_are_taken_some_at_a_time(shore: MqttShore) -> None:
    """[MQTT-3.8.4-6] And in one SUBACK."""
    shore.clients.subscribing.subscriptions_max = 10_000
    runtime: Any = shore.clients.runtime
    wire = Wire(shore, listener=listener_of(shore, packet_size_max=1 << 20))
    wire.connect()
    turns: list[int] = []
    turn = runtime.turn

    def counted() -> None:
        own = shore.clients._broker.subscriptions.of(wire.connection._entry.session)
        turns.append(len(own))
        turn()

    runtime.turn = counted
    wire.send(long_subscribe(2_200), Publish(b"t/7", b"behind"), Pingreq())
    suback, pingresp, publish = wire.packets()
    assert suback.reasons == [0] * 2_200
    assert isinstance(pingresp, Pingresp)
    assert publish.payload == b"behind"  # whose publisher had subscribed by then
    assert turns[-1] == 2_200
    steps = [later - before for before, later in pairwise([0, *turns])]
    assert max(steps) == FILTERS_AT_A_TIME
    assert wire.transport.reading


def test_many_subscribes_at_once_are_taken_some_at_a_time(shore: MqttShore) -> None:
    shore.clients.subscribing.subscriptions_max = 10_000
    wire = Wire(shore, listener=listener_of(shore, packet_size_max=1 << 20))
    wire.connect()
    out = WriteBuffer()
    for number in range(20):
        encode(long_subscribe(100, number + 1), 5, out)
    encode(Unsubscribe(99, ["t/1"], None), 5, out)
    data = out.take()
    buffer = wire.connection.get_buffer(-1)
    assert len(data) < len(buffer)
    buffer[: len(data)] = data
    wire.connection.buffer_updated(len(data))
    assert not wire.transport.reading
    shore.clients.runtime.settle()
    answers = wire.packets()
    assert [answer.packet_id for answer in answers] == [*range(1, 21), 99]
    assert wire.transport.reading


def test_a_client_that_is_gone_is_subscribed_no_further(shore: MqttShore) -> None:
    wire = Wire(shore, listener=listener_of(shore, packet_size_max=1 << 20))
    wire.connect()
    out = WriteBuffer()
    encode(long_subscribe(2_200), 5, out)
    data = out.take()
    wire.connection.get_buffer(-1)[: len(data)] = data
    wire.connection.buffer_updated(len(data))
    wire.connection.connection_lost(None)
    shore.clients.runtime.settle()
    assert shore.clients.subscribing._under_way == {}
    again = Wire(shore)
    assert again.connect().reason == 0
    again.send(Pingreq())
    assert isinstance(again.packets()[0], Pingresp)
