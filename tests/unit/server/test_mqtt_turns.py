"""One client's share of a turn of the loop, by a clock that runs while it is looked at."""

from __future__ import annotations

import pytest
from tests.sim import SimRuntime
from tests.unit.broker.shore import Shore
from tests.unit.server.mqtt_wire import Wire

from isthmus.mqtt.codec import encode
from isthmus.mqtt.packets import Publish, Subscribe
from isthmus.server.mqtt import PACKETS_AT_A_TIME
from isthmus.server.mqtt_listener import RECEIVE_BYTES, MqttShore
from isthmus.wire.buffer import WriteBuffer


class SlowRuntime(SimRuntime):
    """Whatever is done between two looks at its clock takes some ms."""

    def monotonic_ms(self) -> int:
        self._monotonic_ms += 3
        return self._monotonic_ms


def read_at_once(wire: Wire, data: bytes) -> None:
    wire.connection.get_buffer(-1)[: len(data)] = data
    wire.connection.buffer_updated(len(data))


@pytest.mark.parametrize("ends_badly", [False, True])
def test_packets_that_take_long_are_acted_on_in_several_turns(ends_badly: bool) -> None:
    runtime = SlowRuntime()
    shore = MqttShore(Shore(runtime=runtime).clients, connections_max=3)
    sender, receiver = Wire(shore), Wire(shore)
    sender.connect("s")
    receiver.connect("r")
    receiver.send(Subscribe(1, [("#", 0)], None))
    receiver.packets()
    payloads = [b"%d" % number for number in range(6 * PACKETS_AT_A_TIME + 5)]
    out = WriteBuffer()
    for payload in payloads:
        encode(Publish(b"t", payload), 5, out)
    read_at_once(sender, out.take())
    assert not sender.transport.reading
    payloads += [b"last"]  # read before the pause, and handed on behind it
    encode(Publish(b"t", b"last"), 5, out)
    read_at_once(sender, out.take() + (b"\x00\x00" if ends_badly else b""))
    turns = 0
    while not sender.transport.reading and not sender.transport.closed:
        turns += 1
        runtime.turn()
    runtime.settle()
    assert turns > 2
    assert sender.transport.closed is ends_badly
    assert [packet.payload for packet in receiver.packets()] == payloads


def test_a_socket_that_always_has_more_waits_for_the_others() -> None:
    runtime = SlowRuntime()
    shore = MqttShore(Shore(runtime=runtime).clients, connections_max=3)
    wire = Wire(shore)
    wire.connect()
    out = WriteBuffer()
    while out.size < 4 * RECEIVE_BYTES:
        encode(Publish(b"t", bytes(4096)), 5, out)
    data = out.take()
    while wire.transport.reading:
        read_at_once(wire, data[:RECEIVE_BYTES])
        data = data[RECEIVE_BYTES:]
    assert data
    runtime.settle()
    assert wire.transport.reading
    read_at_once(wire, data[:100])
    assert wire.transport.reading  # nothing more was there to be read
