"""Shared subscriptions: who of a group gets a message, and on what terms."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.unit.broker.share_room import (
    GROUP,
    STRATEGIES,
    members,
    numbers,
    payloads,
    publish,
    take,
)
from tests.unit.broker.shore import Shore

from isthmus.broker import shared, shared_strategies
from isthmus.mqtt.packets import PUBACK, Ack, Publish
from isthmus.mqtt.properties import SUBSCRIPTION_ID

# --- who gets a message -----------------------------------------------------------------------


@STRATEGIES
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_goes_to_one_member(strategy: str, qos: int) -> None:
    shore = Shore(shared_strategy=strategy)
    clients = members(shore, 3, qos)
    for number in range(30):
        publish(shore, b"%d" % number, qos=qos, topic_name=f"t/{number}")
    got = [payload for client in clients for payload in payloads(take(client))]
    assert sorted(got, key=int) == [b"%d" % number for number in range(30)]


def test_fair_members_take_turns() -> None:
    shore = Shore()
    clients = members(shore, 3)
    publish(shore, *numbers(9))
    assert [len(take(client)) for client in clients] == [3, 3, 3]


def test_a_slow_member_holds_up_nothing() -> None:
    """What one has no room for goes to the others, and what nobody has room for waits."""
    shore = Shore()
    slow, fast = members(shore, 2, receive_maximum=2)
    publish(shore, *numbers(20))
    first = take(slow, ack=False)
    assert len(first) == 2
    got: list[bytes] = []
    while found := take(fast):
        got += payloads(found)
    assert sorted(got + payloads(first)) == numbers(20)
    assert got == sorted(got)


def test_at_qos_0_what_waits_for_a_connection_goes_on() -> None:
    shore = Shore()
    clients = members(shore, 2, 0)
    for client in clients:
        client.entry.session.paused = True
    publish(shore, *numbers(5), qos=0)
    assert [take(client) for client in clients] == [[], []]
    shore.clients.resume(clients[1].entry)
    shore.runtime.settle()
    assert payloads(take(clients[1])) == numbers(5)


def test_a_sticky_member_gets_all_until_it_has_no_room_or_is_gone() -> None:
    shore = Shore(shared_strategy="sticky")
    clients = members(shore, 3, receive_maximum=5)
    publish(shore, *numbers(5))
    counts = [len(take(client, ack=False)) for client in clients]
    assert sorted(counts) == [0, 0, 5]
    full = clients[counts.index(5)]
    publish(shore, *numbers(2, 5))
    others = [client for client in clients if client is not full]
    counts = [len(take(client)) for client in others]
    assert sorted(counts) == [0, 2]
    next_one = others[counts.index(2)]
    next_one.lose()
    publish(shore, *numbers(3, 7))
    (last,) = (client for client in others if client is not next_one)
    assert payloads(take(last)) == numbers(3, 7)


def test_with_hash_a_key_stays_with_its_member() -> None:
    shore = Shore(shared_strategy="hash")
    clients = members(shore, 4)
    owners: dict[bytes, set[str]] = {}
    for number in range(200):
        publish(shore, b"%d" % number, topic_name=f"t/{number % 40}")
    for client in clients:
        for packet in take(client):
            owners.setdefault(packet.topic, set()).add(client.client_id)
    assert len(owners) == 40
    assert all(len(each) == 1 for each in owners.values())
    assert len(set.union(*owners.values())) == 4


def test_with_hash_only_the_keys_of_a_lost_member_move() -> None:
    shore = Shore(shared_strategy="hash")
    clients = members(shore, 4)

    def owners() -> dict[bytes, str]:
        for number in range(60):
            publish(shore, b"x", topic_name=f"t/{number}")
        return {
            packet.topic: client.client_id
            for client in clients
            if client.entry.session.connected
            for packet in take(client)
        }

    before = owners()
    clients[1].lose()
    after = owners()
    assert len(before) == len(after) == 60
    for topic_name, owner in before.items():
        assert after[topic_name] == owner or owner == "m1"
    assert "m1" not in after.values()


def test_with_hash_a_full_member_keeps_its_keys_and_the_others_go_on() -> None:
    shore = Shore(shared_strategy="hash")
    clients = members(shore, 2, receive_maximum=1)
    sent: dict[bytes, list[bytes]] = {}
    for number in range(100):
        name = b"t/%d" % (number % 10)
        sent.setdefault(name, []).append(b"%d" % number)
        publish(shore, b"%d" % number, topic_name=name.decode())
    slow, fast = clients
    held = take(slow, ack=False)
    got: dict[bytes, list[bytes]] = {}
    while found := take(fast):
        for packet in found:
            got.setdefault(packet.topic, []).append(packet.payload)
    for client_packets in (held,):
        slow.send(*[Ack(PUBACK, packet.packet_id) for packet in client_packets])
    found = held
    while found:
        for packet in found:
            got.setdefault(packet.topic, []).append(packet.payload)
        found = take(slow)
    assert got == sent


def test_with_hash_the_queue_stops_where_too_much_is_parked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared, "PARKED_MAX", 5)
    monkeypatch.setattr(shared_strategies, "PARKED_MAX", 5)
    shore = Shore(shared_strategy="hash")
    clients = members(shore, 2, receive_maximum=1)
    for number in range(60):
        publish(shore, b"%d" % number, topic_name=f"t/{number % 10}")
    got: Counter[bytes] = Counter()
    while found := [packet for client in clients for packet in take(client)]:
        got.update(payloads(found))
    assert len(got) == got.total() == 60


def test_a_new_member_gets_its_share_at_once() -> None:
    shore = Shore()
    (first,) = members(shore, 1, receive_maximum=1)
    publish(shore, *numbers(10))
    assert len(take(first, ack=False)) == 1
    second = shore.client("second")
    second.subscribe(GROUP, 1)
    assert payloads(take(second)) == numbers(9, 1)


# --- on what terms ----------------------------------------------------------------------------


def test_the_qos_is_that_of_the_member() -> None:
    """[MQTT-4.8.2-3]"""
    shore = Shore()
    clients = [shore.client(f"m{qos}") for qos in range(3)]
    for qos, client in enumerate(clients):
        client.subscribe(GROUP, qos)
    for qos in range(3):
        publish(shore, *numbers(3), qos=qos)
    for granted, client in enumerate(clients):
        assert [packet.qos for packet in take(client)] == [0, min(1, granted), granted]


def test_the_identifier_is_that_of_the_member() -> None:
    shore = Shore()
    clients = [shore.client(f"m{number}") for number in range(2)]
    for number, client in enumerate(clients):
        client.subscribe(GROUP, 1, properties={SUBSCRIPTION_ID: number + 1})
        client.packets()
    publish(shore, *numbers(4))
    for number, client in enumerate(clients):
        found = take(client)
        assert len(found) == 2
        for packet in found:
            assert packet.properties == {SUBSCRIPTION_ID: [number + 1]}


def test_subscribing_again_changes_the_terms() -> None:
    shore = Shore()
    (client,) = members(shore, 1, 0)
    client.subscribe(GROUP, 1 | 0x08, properties={SUBSCRIPTION_ID: 9})
    shore.broker.publish(None, Publish(b"t/1", b"x", 2, True))
    shore.runtime.settle()
    (packet,) = take(client)
    assert (packet.qos, packet.retain, packet.properties) == (1, True, {SUBSCRIPTION_ID: [9]})


def test_nothing_retained_comes_with_it() -> None:
    shore = Shore()
    shore.broker.publish(None, Publish(b"t/1", b"old", 1, True))
    shore.runtime.settle()
    (client,) = members(shore, 1)
    client.subscribe(GROUP, 1)
    assert take(client) == []


def test_groups_and_own_subscriptions_are_apart() -> None:
    shore = Shore()
    client = shore.client()
    for topic_filter in ("$share/a/t/#", "$share/b/t/#", "$share/a/t/+", "t/1"):
        client.subscribe(topic_filter, 1)
    client.packets()
    publish(shore, b"x")
    assert payloads(take(client)) == [b"x"] * 4


def test_a_message_too_large_for_one_goes_to_another() -> None:
    """Or to nobody, where all are too small [MQTT 5.0, 3.1.2.11.4]."""
    shore = Shore()
    small = shore.client("m0", packet_size_max=50)
    large = shore.client("m1", packet_size_max=200)
    for client in (small, large):
        client.subscribe(GROUP, 1)
        client.packets()
    publish(shore, *[bytes(100)] * 4)
    publish(shore, bytes(300), b"last")
    found = take(small) + take(large)
    assert sorted(map(len, payloads(found))) == [4, 100, 100, 100, 100]
    assert shore.broker.subscriptions.groups[GROUP].dropped.too_large == 1


def test_what_a_kafka_producer_wrote_comes_at_the_qos_of_the_member() -> None:
    shore = Shore()
    clients = [shore.client(f"m{qos}") for qos in range(3)]
    for qos, client in enumerate(clients):
        client.subscribe(GROUP, qos)
        client.packets()
    for number in range(6):
        shore.produce("mqtt", b"t/1", b"%d" % number)
    assert [[packet.qos for packet in take(client)] for client in clients] == [
        [0, 0],
        [1, 1],
        [2, 2],
    ]


def test_what_is_volatile_is_shared_as_well() -> None:
    shore = Shore()
    clients = [shore.client(f"m{number}") for number in range(2)]
    for client in clients:
        client.subscribe("$share/g/$SYS/#", 1)
        client.packets()
    shore.broker.say("$SYS/a", b"1", qos=1, retain=True)
    shore.broker.say("$SYS/a", b"2", qos=1, retain=True)
    shore.runtime.settle()
    assert sorted(payloads(take(clients[0])) + payloads(take(clients[1]))) == [b"1", b"2"]
