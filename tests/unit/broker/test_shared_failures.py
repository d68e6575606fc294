"""Shared subscriptions: what becomes of a message when members, or the server, fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.share_room import (
    GROUP,
    STRATEGIES,
    again,
    members,
    numbers,
    payloads,
    publish,
    take,
)
from tests.unit.broker.shore import Client, Shore

from isthmus.broker import recent_records
from isthmus.mqtt.packets import PUBACK, PUBREC, PUBREL, Ack, Publish, Unsubscribe
from isthmus.storage.log import Records

if TYPE_CHECKING:
    from collections.abc import Callable

    End = Callable[[Shore], Shore]

ENDS = pytest.mark.parametrize("end", [Shore.crash, Shore.end], ids=["crash", "end"])


# --- when a member fails ----------------------------------------------------------------------


@STRATEGIES
@pytest.mark.parametrize("expiry_s", [0, 100])
def test_what_a_lost_member_has_not_acknowledged_goes_to_another(
    strategy: str, expiry_s: int
) -> None:
    """As new messages, those of each name in order, and never again to the first."""
    shore = Shore(shared_strategy=strategy)
    first, second = members(shore, 2, expiry_s=expiry_s)
    names = [f"t/{number % 5}" for number in range(20)]
    for number, name in enumerate(names):
        publish(shore, b"%03d" % number, topic_name=name)
    kept = take(first, ack=False)
    if not kept:  # the sticky one is the other
        first, second = second, first
        kept = take(first, ack=False)
    take(second)
    first.send(*[Ack(PUBACK, packet.packet_id) for packet in kept[:2]])
    first.lose()
    for number, name in enumerate(names):
        publish(shore, b"%03d" % (100 + number), topic_name=name)
    found = take(second)
    assert len(found) == len(kept) - 2 + 20
    for name in set(names):
        came = payloads([packet for packet in found if packet.topic.decode() == name])
        due = [packet.payload for packet in kept[2:] if packet.topic.decode() == name]
        assert came == due + [b"%03d" % (100 + n) for n in range(20) if names[n] == name]
    assert not any(packet.dup for packet in found)
    if expiry_s:
        assert take(first, again(shore, first.client_id).after_connack) == []


def test_what_comes_back_has_its_own_qos() -> None:
    """However low that of the member was that did not acknowledge it [MQTT-4.8.2-3]."""
    shore = Shore()
    low = members(shore, 1, 1)[0]
    publish(shore, b"x", qos=2)
    assert [packet.qos for packet in take(low, ack=False)] == [1]
    high = shore.client("high")
    high.subscribe(GROUP, 2)
    high.packets()
    low.lose()
    assert [packet.qos for packet in take(high)] == [2]


def test_with_hash_what_is_parked_for_a_lost_member_goes_on() -> None:
    shore = Shore(shared_strategy="hash")
    clients = members(shore, 2, receive_maximum=2)
    for number in range(60):
        publish(shore, b"%03d" % number, topic_name=f"t/{number % 10}")
    lost, other = clients
    assert len(take(lost, ack=False)) == 2
    lost.lose()
    found: list[Publish] = []
    while some := take(other):
        found += some
    assert sorted(payloads(found)) == numbers(60)
    for name in {packet.topic for packet in found}:
        came = payloads([packet for packet in found if packet.topic == name])
        assert came == sorted(came)


def test_with_hash_qos_0_does_not_overtake_what_is_parked() -> None:
    shore = Shore(shared_strategy="hash")
    (client,) = members(shore, 1, receive_maximum=1)
    for qos in (1, 1, 0):
        publish(shore, b"%d" % qos, qos=qos)
    assert payloads(take(client)) == [b"1"]
    assert payloads(take(client)) == [b"1", b"0"]


def test_at_qos_2_what_was_sent_stays_with_the_session() -> None:
    """[MQTT-4.8.2-4]"""
    shore = Shore()
    first, second = members(shore, 2, 2, expiry_s=100)
    publish(shore, *numbers(8), qos=2)
    kept = take(first, ack=False)
    first.send(Ack(PUBREC, kept[0].packet_id))
    take(second)
    first.lose()
    assert take(second) == []
    repeated = again(shore, "m0").after_connack
    pubrel, *rest = repeated
    assert (pubrel.type, pubrel.packet_id) == (PUBREL, kept[0].packet_id)
    assert [(packet.payload, packet.packet_id, packet.dup) for packet in rest] == [
        (packet.payload, packet.packet_id, True) for packet in kept[1:]
    ]


def test_at_qos_2_nobody_gets_what_a_session_takes_with_it() -> None:
    """[MQTT-4.8.2-5]"""
    shore = Shore()
    first, second = members(shore, 2, 2, expiry_s=100)
    publish(shore, *numbers(4), qos=2)
    take(second)
    assert len(take(first, ack=False)) == 2
    first.lose()
    shore.runtime.advance(200_000)
    assert len(shore.clients.sessions.entries) == 1
    assert take(second) == []


@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_client_refuses_is_done(qos: int) -> None:
    """[MQTT-4.8.2-6]"""
    shore = Shore()
    first, second = members(shore, 2, qos)
    publish(shore, *numbers(2), qos=qos)
    (refused,) = take(first, ack=False)
    take(second)
    first.send(Ack(PUBACK if qos == 1 else PUBREC, refused.packet_id, 0x83))
    first.lose()
    assert take(second) == []


def test_a_member_that_is_taken_over_begins_anew() -> None:
    shore = Shore()
    (client,) = members(shore, 1, expiry_s=100, receive_maximum=2)
    publish(shore, *numbers(5))
    kept = take(client, ack=False)
    newer = again(shore, "m0", receive_maximum=2)
    found = take(newer, newer.after_connack)
    while some := take(newer):
        found += some
    assert payloads(found) == numbers(5)
    assert payloads(kept) == numbers(2)
    assert not any(packet.dup for packet in found)


def test_what_is_on_its_way_when_a_client_unsubscribes_stays_with_it() -> None:
    """[MQTT-3.10.4-3]"""
    shore = Shore()
    first, second = members(shore, 2, expiry_s=100)
    publish(shore, *numbers(4))
    kept = take(first, ack=False)
    take(second)
    first.send(Unsubscribe(7, [GROUP]))
    first.lose()
    publish(shore, b"later")
    assert payloads(take(second)) == [b"later"]
    repeated = take(first, again(shore, "m0").after_connack)
    assert [(packet.payload, packet.dup) for packet in repeated] == [
        (packet.payload, True) for packet in kept
    ]


def test_a_group_ends_with_its_last_member() -> None:
    shore = Shore()
    first, second = members(shore, 2)
    first.send(Unsubscribe(7, [GROUP]))
    assert [packet.reasons for packet in first.packets()] == [[0]]
    first.send(Unsubscribe(7, [GROUP]))
    assert [packet.reasons for packet in first.packets()] == [[0x11]]
    publisher = shore.client("p")
    publisher.publish("t/1", b"x", 1, packet_id=1)
    assert [packet.reason for packet in publisher.packets()] == [0]
    second.lose()
    publisher.publish("t/1", b"x", 1, packet_id=1)
    assert [packet.reason for packet in publisher.packets()] == [0x10]
    assert shore.broker.subscriptions.groups == {}
    assert len(shore.broker.subscriptions.tree) == 0


# --- while nobody is there --------------------------------------------------------------------


@STRATEGIES
def test_what_comes_while_all_are_away_waits(strategy: str) -> None:
    shore = Shore(shared_strategy=strategy)
    clients = members(shore, 2, 2, expiry_s=100)
    for client in clients:
        client.lose()
    for number in range(9):
        publish(shore, b"%03d" % number, qos=number % 3)
    client = again(shore, "m1")
    shore.runtime.settle()
    found = take(client, client.after_connack) + take(client)
    assert payloads(found) == [b"%03d" % number for number in range(9) if number % 3]
    assert shore.broker.subscriptions.groups[GROUP].dropped.offline == 3


@STRATEGIES
def test_what_waits_is_read_back_as_there_is_room(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece at a time, from a disk that takes its time."""
    monkeypatch.setattr(recent_records, "READ_BYTES", 1_000)
    monkeypatch.setattr(recent_records, "WINDOWS_MAX", 1)
    shore = Shore(shared_strategy=strategy)
    lost = members(shore, 3, 1, expiry_s=100)
    for client in lost:
        client.lose()
    for number in range(200):
        publish(shore, b"%03d" % number, topic_name=f"t/{number % 7}")
    for partition in shore.log.topics["mqtt"].partitions:
        slow_down(partition)
    clients = [Client(shore, client.client_id, 5) for client in lost]
    found: list[Publish] = []
    for client in clients:
        client.connect(clean_start=False, expiry_s=100, receive_maximum=5)
        found += take(client, client.after_connack)
    while some := [packet for client in clients for packet in take(client)]:
        found += some
    assert sorted(payloads(found)) == numbers(200)
    assert len(shore.broker.catching_up) == 0


def slow_down(partition: Any) -> None:
    """Have each read of a partition take until the next turn."""
    read = partition.read
    asked: set[int] = set()

    def slow(offset: int, *arguments: Any) -> Records:
        if offset in asked:
            asked.discard(offset)
            found: Records = read(offset, *arguments)
            return found
        asked.add(offset)
        return Records(is_loading=True)

    partition.read = slow


@STRATEGIES
def test_the_queue_has_a_limit(strategy: str) -> None:
    shore = Shore(shared_strategy=strategy, queue_length_max=10)
    (client,) = members(shore, 1, expiry_s=100)
    client.lose()
    publish(shore, *numbers(15))
    group = shore.broker.subscriptions.groups[GROUP]
    assert group.queue.length == 10
    assert group.dropped.queue == 5
    client = again(shore, "m0")
    assert payloads(take(client, client.after_connack) + take(client)) == numbers(10)


@ENDS
@STRATEGIES
def test_it_outlives_the_server(end: End, strategy: str) -> None:
    """What waits, what was in flight at QoS 1; what was sent at QoS 2 stays where it is."""
    shore = Shore(shared_strategy=strategy)
    clients = members(shore, 2, 2, expiry_s=100)
    for number in range(8):
        publish(shore, b"%03d" % number, qos=1 + number % 2, topic_name=f"t/{number}")
    kept = {client.client_id: take(client, ack=False) for client in clients}
    for client in clients:
        client.lose()
    publish(shore, *numbers(4, 8))
    shore = end(shore)
    publish(shore, *numbers(4, 12))
    found: list[bytes] = []
    for client_id, packets in kept.items():
        client = again(shore, client_id)
        repeated = take(client, client.after_connack) + take(client)
        own = [packet.payload for packet in packets if packet.qos == 2]
        assert [packet.payload for packet in repeated if packet.dup] == own
        found += payloads(repeated)
    assert sorted(found) == numbers(16)


def test_at_qos_2_a_crash_repeats_nothing() -> None:
    """Not to a member of a session that ended with the server, either."""
    shore = Shore()
    lasting, passing = members(shore, 1, 2, expiry_s=100)[0], shore.client("passing")
    passing.subscribe(GROUP, 2)
    passing.packets()
    publish(shore, *numbers(10), qos=2)
    got = payloads(take(lasting)) + payloads(take(passing, ack=False))
    assert sorted(got) == numbers(10)
    shore = shore.crash()
    client = again(shore, "m0")
    assert [packet for packet in client.after_connack if isinstance(packet, Publish)] == []
    publish(shore, b"next", qos=2)
    assert payloads(take(client)) == [b"next"]


@ENDS
def test_what_was_in_flight_comes_once(end: End) -> None:
    """It is the group's when the connections end with the server."""
    shore = Shore()
    clients = members(shore, 2, expiry_s=100)
    publish(shore, *numbers(6))
    shore = end(shore)
    found: list[Publish] = []
    for client in clients:
        back = again(shore, client.client_id)
        found += take(back, back.after_connack) + take(back)
    assert sorted(payloads(found)) == numbers(6)
    assert not any(packet.dup for packet in found)


@ENDS
def test_nothing_is_left_of_a_group_that_ended(end: End) -> None:
    shore = Shore()
    (client,) = members(shore, 1, expiry_s=100)
    client.lose()
    publish(shore, *numbers(3))
    shore = end(shore)
    client = again(shore, "m0")
    client.send(Unsubscribe(1, [GROUP]))
    client.lose()
    shore.runtime.advance(200_000)
    shore = end(shore)
    assert shore.broker.subscriptions.groups == {}
    newest = {record.key: record.value for record in shore.records("__mqtt_sessions")}
    left = [key for key, value in newest.items() if key.startswith(b"\0g") and value]
    assert left == []
