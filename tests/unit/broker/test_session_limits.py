"""Limits on sessions: how many there may be, and what is dropped of a queue that is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.errors import QuotaExceeded
from isthmus.mqtt.packets import CONNACK, Connect, Publish, Will
from isthmus.mqtt.reasons import ReasonCode, reason_in

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal(shore: Shore, client_id: str, version: int) -> int:
    """Return the reason code that a CONNECT is refused with."""
    client = Client(shore, client_id, version)
    shore.clients.open(Connect(version, client_id, True, 60, None, None, None, None), client)
    shore.runtime.settle()
    assert client.closed is not None
    assert client.entry is None
    return reason_in(CONNACK, client.closed)


@pytest.mark.parametrize("version", [4, 5])
def test_no_more_sessions_than_the_server_keeps(version: int) -> None:
    shore = Shore(sessions_max=2)
    kept = shore.client("kept", expiry_s=100)
    kept.lose()
    passing = shore.client("passing")
    assert refusal(shore, "third", version) == ReasonCode.QUOTA_EXCEEDED
    assert kept.connect(clean_start=False).session_present
    passing.lose()
    shore.client("third", version)


@pytest.mark.parametrize("policy", ["newest", "oldest", "disconnect"])
def test_a_client_that_is_too_slow_is_dealt_with_by_the_policy(policy: str) -> None:
    shore = Shore(queue_length_max=3, queue_policy=policy)
    will = Will(b"w", b"gone", 1)
    slow = shore.client("slow", expiry_s=100, receive_maximum=1, will=will)
    slow.subscribe("t", 1)
    seen = shore.client("watcher")
    seen.subscribe("w", 1)
    seen.packets()
    publisher = shore.client("p")
    publisher.send(*[Publish(b"t", b"%d" % n, 1, packet_id=n) for n in range(1, 8)])
    assert slow.entry.session.dropped.queue == 3
    if policy == "disconnect":
        assert isinstance(slow.closed, QuotaExceeded)
        slow.lose()
        assert seen.messages() == [("w", b"gone", 1)]
    else:
        assert slow.closed is None
    slow.connect(clean_start=False, expiry_s=100)
    got = [packet.payload for packet in slow.after_connack]
    assert got == ([b"1", b"5", b"6", b"7"] if policy == "oldest" else [b"1", b"2", b"3", b"4"])


@pytest.mark.parametrize("end", [Shore.crash, Shore.end])
@pytest.mark.parametrize("written", [0, 2, 5])
def test_the_oldest_that_were_dropped_stay_dropped(
    end: Callable[[Shore], Shore], written: int
) -> None:
    """Some of the queue is written down when the rest comes to wait."""
    shore = Shore(queue_length_max=4, queue_policy="oldest")
    client = shore.client(expiry_s=1000)
    client.subscribe("t", 1)
    client.lose()
    publisher = shore.client("p")
    for number in range(9):
        if number == written:
            shore.runtime.advance(60_000)
        publisher.publish("t", b"%d" % number, 1, packet_id=1)
    shore = end(shore)
    again = Client(shore, "c", 5)
    again.connect(clean_start=False)
    assert [packet.payload for packet in again.after_connack] == [b"5", b"6", b"7", b"8"]


def test_connections_share_what_all_outputs_may_hold() -> None:
    shore = Shore(output_max=40_000, output_total_max=60_000)
    clients = [shore.client(f"device-{number}", expiry_s=100) for number in range(3)]
    for client in clients:
        client.subscribe("t", 1)
        client.packets()
        client.entry.session.paused = True
    assert shore.clients.sessions.limits.output_max == 60_000 // 3
    publisher = shore.client("p")
    assert shore.clients.sessions.limits.output_max == 60_000 // 4
    for number in range(30):
        publisher.publish("t", b"%02d" % number + bytes(1_000), 1, packet_id=1 + number)
    for client in clients[:2]:
        client.entry.session.paused = False
        client.entry.session.drain()
        assert client.entry.session.output.size < 60_000 // 4 + 1_100
        assert client.entry.session.queue.length > 10
    for client in clients[1:]:
        client.lose()
    assert shore.clients.sessions.limits.output_max == 60_000 // 2
    shore.broker.touch(clients[0].entry.session)
    shore.runtime.settle()
    got = [payload[:2] for _, payload, _ in clients[0].messages()]
    assert got == [b"%02d" % number for number in range(30)]
