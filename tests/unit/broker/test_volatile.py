"""What the server says of itself reaches subscribers as any message does, and no log."""

from __future__ import annotations

import pytest
from tests.unit.broker.shore import Shore

from isthmus.broker import volatile
from isthmus.mqtt.packets import PUBACK, PUBREC, Ack, Publish, Unsubscribe, Will
from isthmus.mqtt.properties import MESSAGE_EXPIRY, SUBSCRIPTION_ID

STATE = "$SYS/broker/connection/b/state"


def say(shore: Shore, topic_name: str, payload: bytes, qos: int = 0, *, retain: bool) -> None:
    shore.broker.say(topic_name, payload, qos=qos, retain=retain)
    shore.runtime.settle()


def test_who_subscribes_gets_it_and_no_log_does() -> None:
    shore = Shore()
    client, other = shore.client(), shore.client("other")
    client.subscribe("$SYS/#")
    other.subscribe("#")
    say(shore, "$SYS/broker/uptime", b"1 seconds", retain=False)
    assert client.messages() == [("$SYS/broker/uptime", b"1 seconds", 0)]
    assert other.messages() == []
    for name in shore.log.topics:
        if name != "__mqtt_sessions":
            assert shore.records(name) == []


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_it_comes_at_the_lower_qos(qos: int) -> None:
    shore = Shore()
    clients = [shore.client(f"c{granted}") for granted in range(3)]
    for granted, client in enumerate(clients):
        client.subscribe("$events/+", granted)
    say(shore, "$events/a", b"1", qos, retain=False)
    for granted, client in enumerate(clients):
        assert client.messages() == [("$events/a", b"1", min(qos, granted))]


def test_a_slow_subscriber_gets_what_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volatile, "BYTES_MAX", 10_000)
    shore = Shore()
    client = shore.client(receive_maximum=1)
    client.subscribe("$events/+", 1)
    for number in range(20):
        say(shore, "$events/a", b"%04d" % number + bytes(1_000), 1, retain=False)
    found: list[bytes] = []
    while packets := [packet for packet in client.packets() if isinstance(packet, Publish)]:
        found += [packet.payload[:4] for packet in packets]
        client.send(*[Ack(PUBACK, packet.packet_id) for packet in packets])
    assert found[0] == b"0000"
    assert found[1:] == [b"%04d" % number for number in range(21 - len(found), 20)]
    assert client.entry.session.dropped.gone == 20 - len(found) > 0
    assert shore.broker.volatile.partition.size_bytes <= 10_000


def test_a_new_subscriber_gets_what_is_retained() -> None:
    shore = Shore()
    for name, payload in (("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"4"), ("c", b"")):
        say(shore, f"$SYS/{name}", payload, 1, retain=True)
    early = shore.client("early")
    early.subscribe("$SYS/#", 1)
    early.packets()
    client = shore.client()
    client.subscribe("$SYS/+", 1, properties={SUBSCRIPTION_ID: 7})
    packets = [packet for packet in client.packets() if isinstance(packet, Publish)]
    found = {packet.topic: (packet.payload, packet.qos, packet.retain) for packet in packets}
    assert found == {b"$SYS/a": (b"3", 1, True), b"$SYS/b": (b"2", 1, True)}
    assert {packet.properties[SUBSCRIPTION_ID][0] for packet in packets} == {7}
    assert early.messages() == []  # it is said again to the new one alone
    for topic_filter in ("#", "+/a", "$sparkplug/#"):
        client.subscribe(topic_filter, 1)
    assert client.messages() == []


def test_what_is_retained_outlasts_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volatile, "BYTES_MAX", 1_000)
    shore = Shore()
    say(shore, "$SYS/a", b"kept", retain=True)
    for _ in range(100):
        say(shore, "$SYS/b", bytes(100), retain=False)
    client = shore.client()
    client.subscribe("$SYS/#")
    assert client.messages() == [("$SYS/a", b"kept", 0)]


@pytest.mark.parametrize("version", [4, 5])
def test_a_bridge_says_how_it_is(version: int) -> None:
    """As Mosquitto's do: when it connects, and by its will [mosquitto.conf, notifications]."""
    shore = Shore()
    watcher = shore.client("watcher")
    watcher.subscribe("$SYS/broker/connection/#", 1)
    watcher.packets()
    bridge = shore.client("b", version, will=Will(STATE.encode(), b"0", 1, True))
    bridge.publish(STATE, b"1", 1, packet_id=1, retain=True)
    assert [packet.reason for packet in bridge.packets()] == [0]
    assert watcher.messages() == [(STATE, b"1", 1)]
    late = shore.client("late")
    late.subscribe(STATE, 1)
    assert late.messages() == [(STATE, b"1", 1)]
    bridge.lose()
    assert watcher.messages() == [(STATE, b"0", 1)]
    again = shore.client("again")
    again.subscribe("$SYS/#", 0)
    assert again.messages() == [(STATE, b"0", 0)]
    assert len(shore.broker.volatile) == 1
    assert shore.records("__mqtt_retained") == shore.records("mqtt") == []


@pytest.mark.parametrize(
    "topic_name",
    ["$SYS", "$SYS/broker/uptime", "$SYS/broker/connection/state", STATE + "/x", "$events/a"],
)
def test_clients_say_nothing_else(topic_name: str) -> None:
    shore = Shore()
    watcher, client = shore.client("watcher"), shore.client()
    watcher.subscribe(topic_name)
    watcher.packets()
    client.publish(topic_name, b"1", 1, packet_id=1)
    client.publish(topic_name, b"1", 0)
    assert [packet.reason for packet in client.packets()] == [0x87]
    assert watcher.messages() == []
    assert shore.broker.lost == 1


def test_states_of_bridges_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by bytes, those of user properties included; what is there may change."""
    monkeypatch.setattr(volatile, "RETAINED_MAX", 2)
    monkeypatch.setattr(volatile, "RETAINED_BYTES_MAX", 1_000)
    shore = Shore()
    client = shore.client()

    def publish(name: str, payload: bytes, properties: dict[int, object] | None = None) -> int:
        packet = Publish(f"$SYS/broker/connection/{name}/state".encode(), payload, 1, True)
        packet.packet_id, packet.properties = 1, properties
        client.send(packet)
        puback = client.packets()[0]
        assert puback.type == PUBACK
        return int(puback.reason)

    assert publish("a", b"1") in (0, 0x10)
    assert publish("b", b"1") in (0, 0x10)
    assert publish("c", b"1") == 0x97
    assert publish("a", b"0") in (0, 0x10)
    assert publish("a", bytes(1_000)) == 0x97
    assert publish("a", b"1", {0x26: [("n", "v" * 1_000)]}) == 0x97
    assert publish("b", b"") in (0, 0x10)
    assert publish("c", b"1") in (0, 0x10)
    assert len(shore.broker.volatile) == 2


def test_a_retained_state_expires() -> None:
    shore = Shore()
    bridge = shore.client("b")
    bridge.publish(STATE, b"1", 1, packet_id=1, retain=True, properties={MESSAGE_EXPIRY: 10})
    client = shore.client()
    shore.runtime.advance(4_000)
    client.subscribe(STATE)
    packet = next(packet for packet in client.packets() if isinstance(packet, Publish))
    assert packet.properties[MESSAGE_EXPIRY] == 6
    shore.runtime.advance(6_000)
    client.send(Unsubscribe(1, [STATE]))
    client.packets()
    client.subscribe(STATE)
    assert client.messages() == []


@pytest.mark.parametrize("end", [Shore.crash, Shore.end], ids=["crash", "end"])
def test_nothing_of_it_outlives_the_server(end: object) -> None:
    """A QoS 2 publish that was taken stays taken; what waited is dropped and counted."""
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("$SYS/#", 1)
    bridge = shore.client("b", expiry_s=100)
    bridge.publish(STATE, b"1", 2, packet_id=1, retain=True)
    client.lose()
    say(shore, "$SYS/x", b"waits", 1, retain=True)
    shore = end(shore)  # type: ignore[operator]
    bridge = shore.client("b", clean_start=False, expiry_s=100)
    client = shore.client(clean_start=False, expiry_s=100)
    assert client.messages() == []
    bridge.publish(STATE, b"1", 2, packet_id=1, retain=True, dup=True)
    assert [packet.type for packet in bridge.packets()] == [PUBREC]
    assert client.messages() == []
    late = shore.client("late")
    late.subscribe("$SYS/#")
    assert late.messages() == []
