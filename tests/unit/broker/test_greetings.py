"""Retained messages come to a new subscriber as it has room: all, in bounded pieces."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.broker.greetings import MESSAGES_MAX
from isthmus.mqtt.packets import PUBACK, Ack, Publish, Subscribe, Unsubscribe

if TYPE_CHECKING:
    from collections.abc import Callable

ENDS = pytest.mark.parametrize("end", [Shore.crash, Shore.end], ids=["crash", "end"])


def fill(shore: Shore, count: int, qos: int = 1) -> set[str]:
    """Have messages retained under `r/…`; return their topic names."""
    names = [f"r/{number:05d}" for number in range(count)]
    for name in names:
        shore.broker.publish(None, Publish(name.encode(), b"old", qos, True))
    shore.runtime.settle()
    return set(names)


def take(client: Client, packets: list[Any] | None = None) -> list[Publish]:
    """Return the messages that have come, each acknowledged."""
    found = [
        packet
        for packet in (client.packets() if packets is None else packets)
        if isinstance(packet, Publish)
    ]
    acks = [Ack(PUBACK, packet.packet_id) for packet in found if packet.qos]
    if acks:
        client.send(*acks)
    return found


def take_all(client: Client, packets: list[Any] | None = None) -> list[Publish]:
    """Return all messages that come to a client who acknowledges them."""
    found = some = take(client, packets)
    while some:
        some = take(client)
        found = found + some
    return found


def names_in(packets: list[Publish]) -> list[str]:
    return [packet.topic.decode() for packet in packets]


@pytest.mark.parametrize("queue_length_max", [0, 1, 10, 1_000_000])
def test_a_slow_subscriber_gets_each_message_once(queue_length_max: int) -> None:
    """No limit drops one of them, and few of them wait at a time."""
    shore = Shore(queue_length_max=queue_length_max, retained_max=5_000)
    names = fill(shore, 3_000)
    client = shore.client(receive_maximum=3)
    client.subscribe("#", 1)
    session = client.entry.session
    found: list[Publish] = []
    while some := take(client):
        found += some
        assert session.queue.length <= max(1, min(MESSAGES_MAX, queue_length_max // 2))
    assert sorted(names_in(found)) == sorted(names)
    assert all(packet.retain for packet in found)
    assert session.dropped.total == 0
    assert len(shore.clients.greetings) == 0
    assert session.refills == ()


def test_at_qos_0_a_connection_that_takes_no_more_is_waited_for() -> None:
    shore = Shore(queue_length_max=10, retained_max=5_000)
    names = fill(shore, 500)
    client = shore.client()
    client.entry.session.paused = True
    client.subscribe("#", 0)
    assert take(client) == []
    shore.clients.resume(client.entry)
    shore.runtime.settle()
    assert sorted(names_in(take(client))) == sorted(names)
    assert client.entry.session.dropped.total == 0


def test_what_comes_live_has_its_place_in_a_short_queue() -> None:
    shore = Shore(queue_length_max=10, retained_max=5_000)
    fill(shore, 100)
    client = shore.client(receive_maximum=1)
    client.subscribe("#", 1)
    for number in range(5):
        shore.client("p").publish(f"live/{number}", b"x", 1, packet_id=1)
    found = names_in(take_all(client))
    assert [name for name in found if name.startswith("live")] == [
        f"live/{number}" for number in range(5)
    ]
    assert found.index("live/4") < 20  # it does not wait for the whole greeting
    assert len(found) == 105


def test_a_message_that_was_replaced_has_come_live() -> None:
    """What is retained never comes behind a newer one of its topic name."""
    shore = Shore(queue_length_max=10, retained_max=5_000)
    fill(shore, 50)
    client = shore.client(receive_maximum=1)
    client.subscribe("r/+", 1)
    publisher = shore.client("p")
    publisher.publish("r/00000", b"new", 1, packet_id=1, retain=True)  # on its way already
    publisher.publish("r/00040", b"new", 1, packet_id=2, retain=True)
    publisher.publish("r/00041", b"", 1, packet_id=3, retain=True)
    publisher.publish("r/new", b"new", 1, packet_id=4, retain=True)
    by_name: dict[str, list[tuple[bytes, bool]]] = {}
    for packet in take_all(client):
        message = packet.payload, packet.retain
        by_name.setdefault(packet.topic.decode(), []).append(message)
    assert by_name.pop("r/00000") == [(b"old", True), (b"new", False)]
    assert by_name.pop("r/00040") == [(b"new", False)]
    assert by_name.pop("r/00041") == [(b"", False)]
    assert by_name.pop("r/new") == [(b"new", False)]
    assert list(by_name.values()) == [[(b"old", True)]] * 47


def test_a_greeting_holds_the_loop_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    shore = Shore(retained_max=5_000)
    names = fill(shore, 3_000, qos=0)
    client = shore.client()
    passed = iter(range(0, 1_000_000, 4))
    monkeypatch.setattr(shore.runtime, "monotonic_ms", lambda: next(passed))
    packet = Subscribe(9, [("#", 0)], None)
    shore.clients.receive(client.entry, client, [packet])
    counts: list[int] = []
    while len(shore.clients.greetings):
        shore.runtime.turn()
        counts.append(len(take(client)))
    assert max(counts) <= 3 * MESSAGES_MAX
    shore.runtime.settle()
    assert sum(counts) + len(take(client)) == len(names)


def test_sessions_are_greeted_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    shore = Shore(retained_max=5_000)
    fill(shore, 4 * MESSAGES_MAX)
    one, two = shore.client("one"), shore.client("two")
    passed = iter(range(0, 1_000_000, 3))  # one step in each turn of the loop
    monkeypatch.setattr(shore.runtime, "monotonic_ms", lambda: next(passed))
    for client in (one, two):
        shore.clients.receive(client.entry, client, [Subscribe(9, [("#", 0)], None)])
    came: list[tuple[int, int]] = []
    while len(shore.clients.greetings):
        shore.runtime.turn()
        came.append((len(one.sent), len(two.sent)))
    shore.runtime.settle()
    assert any(0 < of_one < came[-1][0] and of_two > 100 for of_one, of_two in came)
    assert len(take(one)) == len(take(two)) == 4 * MESSAGES_MAX


def test_who_unsubscribes_or_goes_is_not_greeted_further() -> None:
    shore = Shore(retained_max=5_000)
    fill(shore, 1_000)
    leaving, gone = shore.client("1", receive_maximum=1), shore.client("2", receive_maximum=1)
    for client in (leaving, gone):
        client.subscribe("#", 1)
    assert len(shore.clients.greetings) == 2
    leaving.send(Unsubscribe(1, ["#"], None))
    gone.lose()
    assert len(take_all(leaving)) <= MESSAGES_MAX
    assert len(shore.clients.greetings) == 0


def test_subscribing_again_begins_anew() -> None:
    shore = Shore(retained_max=5_000)
    names = fill(shore, 1_000)
    client = shore.client(receive_maximum=1)
    client.subscribe("#", 1)
    client.subscribe("#", 1)
    found = names_in(take_all(client))
    assert set(found) == names
    assert len(found) <= 1_000 + MESSAGES_MAX


def test_a_greeting_goes_on_when_the_client_is_back() -> None:
    shore = Shore(retained_max=5_000)
    names = fill(shore, 1_000)
    client = shore.client(expiry_s=100, receive_maximum=1)
    client.subscribe("#", 1)
    found = take(client)
    client.lose()
    assert len(client.entry.session.queue.runs()) <= 1
    client.connect(clean_start=False, expiry_s=100, receive_maximum=50)
    found += take_all(client, client.after_connack)
    assert sorted(names_in(found)) == sorted(names)


@ENDS
def test_a_greeting_begins_anew_with_the_server(end: Callable[[Shore], Shore]) -> None:
    """Some come twice, none is lost; once it is done, it is done."""
    shore = Shore(retained_max=5_000)
    names = fill(shore, 1_000)
    client = shore.client(expiry_s=1_000, receive_maximum=20)
    client.subscribe("none/#", 1)
    client.subscribe("r/#", 1)
    client.subscribe("r/00001", 1)
    first = names_in(take(client))
    shore = end(shore)
    client = Client(shore, "c", 5)
    client.connect(clean_start=False, expiry_s=1_000, receive_maximum=20)
    second = names_in(take_all(client, client.after_connack))
    assert set(first) | set(second) == names
    shore = shore.end()
    client = Client(shore, "c", 5)
    client.connect(clean_start=False, expiry_s=1_000)
    assert take_all(client, client.after_connack) == []
    assert len(shore.clients.greetings) == 0


def test_a_filter_that_finds_nothing_among_many_is_asked_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isthmus.broker.greetings.STEPS_MAX", 10)
    shore = Shore(retained_max=5_000)
    fill(shore, 100)
    client = shore.client()
    passed = iter(range(0, 1_000_000, 4))
    monkeypatch.setattr(shore.runtime, "monotonic_ms", lambda: next(passed))
    shore.clients.receive(client.entry, client, [Subscribe(9, [("+/+/x", 1)], None)])
    turns = 0
    while len(shore.clients.greetings):
        shore.runtime.turn()
        turns += 1
    assert turns > 3
    assert take(client) == []


@pytest.mark.parametrize(("gathered_max", "passes"), [(10, 40), (32, 14), (10_000, 3)])
def test_messages_come_in_the_order_of_the_log_as_far_as_they_are_gathered(
    monkeypatch: pytest.MonkeyPatch, gathered_max: int, passes: int
) -> None:
    """Names that stand together lie far apart, and each read of the log has a few of them."""
    module = "isthmus.broker.greetings."
    for name, value in (("FIRST", 10), ("MIN", gathered_max), ("ALL", 0)):
        monkeypatch.setattr(module + f"GATHERED_{name}", value)
    monkeypatch.setattr(module + "PART_BITS", 3)
    shore = Shore(retained_max=5_000)
    published = [f"{number % 100}/{number:03d}" for number in range(400)]
    for name in published:
        shore.broker.publish(None, Publish(name.encode(), b"x", 0, True))
    shore.runtime.settle()
    client = shore.client()
    client.subscribe("#", 0)
    came = names_in(take(client))
    assert sorted(came) == sorted(published)
    places = [published.index(name) for name in came]
    steps_back = sum(after < before for before, after in pairwise(places))
    assert steps_back < passes  # and not 99, as in the order of the names
