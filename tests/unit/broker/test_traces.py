"""Traces: whose packets are shown, what of them, and what never."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.sim import SimRuntime
from tests.unit.broker.shore import Shore

from isthmus.broker.identity import Identity
from isthmus.broker.subscriptions import Subscription
from isthmus.broker.traces import SUBSCRIBERS_MAX, Trace, Traces
from isthmus.mqtt.codec import encode
from isthmus.mqtt.delivery import SessionLimits
from isthmus.mqtt.packets import (
    PUBACK,
    Ack,
    Auth,
    Connack,
    Connect,
    Publish,
    Suback,
    Subscribe,
    Will,
)
from isthmus.mqtt.session import Session
from isthmus.mqtt.traffic import Traffic
from isthmus.wire.buffer import WriteBuffer

HERE = Identity("10.0.0.1", 5000, "tcp")
THERE = Identity("10.0.0.2", 5000, "tcp")


class Room:
    """Traces, and the lines of one of them."""

    def __init__(self, **wanted: Any) -> None:
        self.runtime = SimRuntime()
        self.subscriptions = Shore().broker.subscriptions
        self.subscribe("s2", "s1")
        self.traces = Traces(self.runtime, self.subscriptions)
        self.lines: list[dict[str, Any]] = []
        self.trace = Trace(self._give, **wanted)
        assert not self.traces.is_on
        self.traces.begin(self.trace)
        assert self.traces.is_on

    def subscribe(self, *client_ids: str, topic_filter: str = "a/b") -> None:
        for client_id in client_ids:
            session = Session(client_id, print, SessionLimits(10, 10), Traffic())
            self.subscriptions.add(Subscription(session, topic_filter, 0, 0))

    def _give(self, line: dict[str, Any]) -> None:
        self.lines.append(json.loads(msgspec.json.encode(line)))

    def take(self) -> list[dict[str, Any]]:
        taken, self.lines = self.lines, []
        return taken


def wire(*packets: Any, version: int = 5) -> bytes:
    out = WriteBuffer()
    for packet in packets:
        encode(packet, version, out)
    return out.take()


def test_all_packets_of_a_client_both_ways() -> None:
    room = Room(client_id="c")
    room.traces.received(HERE, "c", [Publish(b"a/b", b"xyz", 1, packet_id=7)])
    room.traces.received(HERE, "d", [Publish(b"a/b", b"xyz")])
    room.traces.sent(HERE, "c", 5, wire(Ack(PUBACK, 7, 0x10), Suback(8, [1, 0x80])))
    room.traces.sent(HERE, "d", 5, wire(Ack(PUBACK, 7)))
    published, acknowledged, granted = room.take()
    assert published == {
        "at_ms": room.runtime.now_ms(),
        "direction": "in",
        "client_id": "c",
        "address": "10.0.0.1:5000",
        "packet": "PUBLISH",
        "topic_name": "a/b",
        "payload_bytes": 3,
        "qos": 1,
        "retain": False,
        "dup": False,
        "packet_id": 7,
    }
    assert (acknowledged["packet"], acknowledged["direction"]) == ("PUBACK", "out")
    assert acknowledged["reason"] == "no matching subscribers (0x10)"
    assert (granted["packet"], granted["reasons"]) == ("SUBACK", [1, 128])
    room.traces.end(room.trace)
    assert not room.traces.is_on


def test_what_is_no_packet_is_in_a_trace_of_its_topic_name_only() -> None:
    for wanted, count in (("a/#", 1), ("b", 0)):
        room = Room(topic_filter=wanted)
        room.traces.came("RECORD", Publish(b"a/b", b"x"), log_topic="t", partition=1, offset=7)
        lines = room.take()
        assert len(lines) == count
        for line in lines:
            assert (line["packet"], line["client_id"], line["address"]) == ("RECORD", "", "-")
            assert (line["log_topic"], line["partition"], line["offset"]) == ("t", 1, 7)
            assert line["subscribers"] == ["s1", "s2"]
    room = Room(client_id="c")
    room.traces.came("WILL", Publish(b"a/b", b"x"), "c", "10.0.0.1")
    assert room.take() == []


def test_all_packets_of_an_address() -> None:
    room = Room(address="10.0.0.2")
    room.traces.received(HERE, "c", [Subscribe(1, [("a/#", 1)])])
    room.traces.received(THERE, "c", [Subscribe(1, [("a/#", 1)])])
    (line,) = room.take()
    assert (line["address"], line["entries"]) == ("10.0.0.2:5000", [["a/#", 1]])


@pytest.mark.parametrize("with_payloads", [False, True])
def test_what_is_secret_is_never_shown(with_payloads: bool) -> None:
    room = Room(client_id="c", with_payloads=with_payloads)
    will = Will(b"w", b"last words", 0, False, {0x18: 5})
    properties = {0x15: "SCRAM-SHA-256", 0x16: b"proof", 0x26: [("k", "v")]}
    packet = Connect(5, "c", True, 60, "ann", b"secret", will, properties)
    room.traces.received(HERE, "c", [packet, Auth(0x18, {0x15: "SCRAM", 0x16: b"proof"})])
    connect, auth = room.take()
    for line in (connect, auth):
        assert "secret" not in str(line) and "proof" not in str(line)
    assert (connect["username"], connect["keep_alive_s"]) == ("ann", 60)
    assert connect["will"]["topic_name"] == "w" and connect["will"]["payload_bytes"] == 10
    assert connect["will"]["properties"] == {"will_delay_interval": 5}
    assert connect["properties"]["user_property"] == [["k", "v"]]
    assert auth["properties"] == {
        "authentication_method": "SCRAM",
        "authentication_data_bytes": 5,
    }
    assert ("payload" in connect["will"]) == with_payloads


def test_payloads_only_where_they_are_asked_for() -> None:
    packets = [
        Publish(b"a", "grün".encode(), properties={0x09: b"\xff"}),
        Publish(b"a", b"\xff\x00"),
    ]
    quiet, loud = Room(client_id="c"), Room(client_id="c", with_payloads=True)
    for room in (quiet, loud):
        room.traces.received(HERE, "c", packets)
    assert [line.get("payload") for line in quiet.take()] == [None, None]
    text, binary = loud.take()
    assert text["payload"] == "grün" and binary["payload_base64"] == "/wA="
    assert text["properties"] == {
        "correlation_data_bytes": 1,
        "correlation_data_base64": "/w==",
    }


def test_a_topic_filter_shows_what_is_published_and_to_whom() -> None:
    room = Room(topic_filter="a/+")
    room.subscribe("m1", "m2", topic_filter="$share/g/a/+")
    packets = [Publish(b"a/b", b"x"), Publish(b"b", b"x"), Subscribe(1, [("a/b", 0)])]
    room.traces.received(HERE, "c", packets)
    room.traces.sent(HERE, "c", 5, wire(*packets))
    assert room.take() == []
    room.traces.accepted(HERE, "c", packets)
    (line,) = room.take()
    assert line["topic_name"] == "a/b"
    assert line["subscribers"] == ["s1", "s2", "$share/g/a/+"]
    room.subscribe(*(f"t{number}" for number in range(997)))
    room.traces.accepted(HERE, "c", packets)
    (line,) = room.take()
    assert (len(line["subscribers"]), line["subscribers_count"]) == (SUBSCRIBERS_MAX, 1_000)


def test_return_codes_before_mqtt_5_have_no_names_of_mqtt_5() -> None:
    room = Room(client_id="c")
    room.traces.sent(HERE, "c", 4, wire(Connack(False, 5), version=4))
    (line,) = room.take()
    assert line["reason_code"] == 5 and "reason" not in line
