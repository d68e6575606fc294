"""Sessions that outlive the server: what is written down, and what comes back of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.storage.batches import compact_in_memory
from tests.unit.broker.shore import Client, Shore

from isthmus.broker.routes import Route
from isthmus.errors import NoSpace
from isthmus.mqtt.packets import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Disconnect,
    Publish,
    Unsubscribe,
)
from isthmus.mqtt.properties import SESSION_EXPIRY, SUBSCRIPTION_ID
from isthmus.mqtt.session import ACKNOWLEDGED_MAX
from isthmus.record.batch import BatchBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.record.batch import Record

    End = Callable[[Shore], Shore]

ENDS = pytest.mark.parametrize("end", [Shore.crash, Shore.end])


def back(shore: Shore, client_id: str = "c", version: int = 5, **connect: object) -> Client:
    """Connect a client that was there before the restart."""
    client = Client(shore, client_id, version)
    connack = client.connect(clean_start=False, **{"expiry_s": 100, **connect})  # type: ignore[arg-type]
    assert connack.session_present
    return client


def payloads(packets: list[object]) -> list[bytes]:
    return [packet.payload for packet in packets if isinstance(packet, Publish)]


def count_of(shore: Shore, log_topic: str = "__mqtt_sessions") -> int:
    return len(shore.records(log_topic))


# --- what is there again ----------------------------------------------------------------------


@ENDS
def test_subscriptions_are_there_again(end: End) -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("a/+", 1 | 0x08, properties={SUBSCRIPTION_ID: 7})
    client.subscribe("b", 0)
    client.subscribe("gone", 1)
    client.send(Unsubscribe(3, ["gone"], None))
    shore = end(shore)
    client = back(shore)
    publisher = shore.client("p")
    for topic_name in ("a/1", "b", "gone"):
        publisher.publish(topic_name, b"x", 1, packet_id=1, retain=True)
    first, second = client.packets()
    assert (first.topic, first.qos, first.retain) == (b"a/1", 1, True)
    assert first.properties == {SUBSCRIPTION_ID: [7]}
    assert (second.topic, second.qos, second.retain) == (b"b", 0, False)


@ENDS
@pytest.mark.parametrize("version", [4, 5])
def test_what_came_while_the_client_was_away(end: End, version: int) -> None:
    shore = Shore()
    expiry = {"expiry_s": 100} if version == 5 else {}
    client = shore.client(version=version, clean_start=False, **expiry)
    client.subscribe("t", 2)
    client.lose()
    publisher = shore.client("p")
    for number in range(10):
        publisher.publish("t", b"%d" % number, number % 3, packet_id=1 + number)
    shore = end(shore)
    shore.client("p").publish("t", b"last", 1, packet_id=1)
    client = Client(shore, "c", version)
    assert client.connect(clean_start=False, **expiry).session_present
    expected = [b"%d" % number for number in range(10) if number % 3] + [b"last"]
    assert payloads(client.after_connack) == expected
    assert not any(packet.dup for packet in client.after_connack)


@ENDS
def test_what_was_in_flight_is_sent_again_with_its_id(end: End) -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 2)
    publisher = shore.client("p")
    publisher.publish("t", b"one", 2, packet_id=1)
    publisher.publish("t", b"two", 2, packet_id=2)
    one, two = (packet for packet in client.packets() if isinstance(packet, Publish))
    client.send(Ack(PUBREC, two.packet_id))
    client.packets()
    shore = end(shore)
    pubrel, again = back(shore).after_connack
    assert (again.payload, again.packet_id, again.dup) == (b"one", one.packet_id, True)
    assert (pubrel.type, pubrel.packet_id) == (PUBREL, two.packet_id)


def test_an_orderly_end_repeats_nothing_that_was_acknowledged() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 1)
    shore.client("p").publish("t", b"x", 1, packet_id=1)
    (publish,) = (packet for packet in client.packets() if isinstance(packet, Publish))
    client.send(Ack(PUBACK, publish.packet_id))
    assert back(shore.end()).after_connack == []


def test_a_crash_may_repeat_qos_1_but_not_before_the_checkpoint() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 1)
    publisher = shore.client("p")
    publisher.publish("t", b"old", 1, packet_id=1)
    client.send(*[Ack(PUBACK, one.packet_id) for one in client.packets()[1:]])
    shore.runtime.advance(60_000)
    publisher.publish("t", b"new", 1, packet_id=1)
    client.send(*[Ack(PUBACK, one.packet_id) for one in client.packets()])
    assert payloads(back(shore.crash()).after_connack) == [b"new"]


def test_of_many_acknowledgements_a_crash_repeats_few() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 1)
    client.packets()
    publisher = shore.client("p")
    for number in range(ACKNOWLEDGED_MAX + 3):
        publisher.publish("t", b"%d" % number, 1, packet_id=1)
        client.send(*[Ack(PUBACK, one.packet_id) for one in client.packets()])
    again = payloads(back(shore.crash()).after_connack)
    assert again == [b"%d" % number for number in range(ACKNOWLEDGED_MAX, ACKNOWLEDGED_MAX + 3)]


def test_a_crash_does_not_repeat_qos_2_in_either_direction() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 2)
    client.publish("t", b"x", 2, packet_id=9)
    for _ in range(5):
        for packet in client.packets():
            if isinstance(packet, Publish):
                client.send(Ack(PUBREC, packet.packet_id))
            elif packet.type == PUBREL:
                client.send(Ack(PUBCOMP, packet.packet_id))
    shore = shore.crash()
    client = back(shore)
    assert payloads(client.after_connack) == []
    client.send(Publish(b"t", b"x", 2, dup=True, packet_id=9))
    assert [packet.type for packet in client.packets()] == [PUBREC]
    client.send(Ack(PUBREL, 9))
    assert [packet.type for packet in client.packets()] == [PUBCOMP]
    assert len(shore.records("mqtt")) == 1
    # The id is free again, and stays so.
    client = back(shore.crash())
    client.publish("t", b"y", 2, packet_id=9)
    assert len(client.shore.records("mqtt")) == 2


def test_compaction_does_not_bring_back_what_a_session_has_had() -> None:
    """How far the log was matched for a session stays known, whatever came after it."""
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 2)
    client.publish("t", b"x", 2, packet_id=9)
    for packet in (packet for _ in range(5) for packet in client.packets()):
        if isinstance(packet, Publish):
            client.send(Ack(PUBREC, packet.packet_id))
        elif packet.type == PUBREL:
            client.send(Ack(PUBCOMP, packet.packet_id))
    shore.client("another", expiry_s=100).subscribe("u", 2)
    sessions = shore.log.topics["__mqtt_sessions"].partitions[0]
    for _ in range(2):
        compact_in_memory(sessions, sessions.end_offset)
    client = back(shore.crash())
    assert payloads(client.after_connack) == []


def test_what_was_never_completely_written_does_not_come_back_later() -> None:
    """A crash may leave a subscription without its session; then the client comes anew."""
    shore = Shore()
    shore.client(expiry_s=100).subscribe("t", 1)
    sessions = shore.log.topics["__mqtt_sessions"].partitions[0]
    builder = BatchBuilder()
    for record in sessions_without_states(shore):
        builder.append(record.timestamp, record.key, record.value)
    del sessions._batches[:], sessions._ends[:]
    batch = builder.seal()
    batch.stamp(0, 0)
    sessions._batches.append(batch)
    sessions._ends.append(batch.next_offset)
    shore = shore.crash()
    shore.client(expiry_s=100)
    client = back(shore.crash())
    client.publish("t", b"x")
    assert client.messages() == []


def sessions_without_states(shore: Shore) -> list[Record]:
    records = shore.records("__mqtt_sessions")
    return [record for record in records if record.key is not None and b"\0" in record.key]


def test_an_id_whose_message_was_not_written_is_not_taken() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.shore.clients.receive(client.entry, client, [Publish(b"t", b"x", 2, packet_id=9)])
    partition = shore.log.topics["__mqtt_sessions"].partitions[0]
    message = shore.log.topics["mqtt"].partitions
    flush = shore.log.flush

    def flush_sessions_only() -> None:
        shore.log.touched = [one for one in shore.log.touched if one is partition]
        flush()

    shore.log.flush = flush_sessions_only
    shore.runtime.settle()
    assert client.packets() == []
    del shore.log.flush
    shore = shore.crash()
    assert all(one.end_offset == 0 for one in message)
    client = back(shore)
    client.send(Publish(b"t", b"x", 2, dup=True, packet_id=9))
    assert len(shore.records("mqtt")) == 1


def test_pubcomp_waits_until_the_release_is_durable() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.publish("t", b"x", 2, packet_id=9)
    client.packets()
    client.shore.clients.receive(client.entry, client, [Ack(PUBREL, 9)])
    assert client.packets() == []
    before = count_of(shore)
    shore.runtime.settle()
    assert [packet.type for packet in client.packets()] == [PUBCOMP]
    assert count_of(shore) > before


@ENDS
def test_retained_messages_of_a_new_subscription_are_not_lost(end: End) -> None:
    shore = Shore()
    publisher = shore.client("p")
    for number in range(3):
        publisher.publish(f"r/{number}", b"%d" % number, 1, packet_id=1, retain=True)
    client = shore.client(expiry_s=100, receive_maximum=1)
    client.subscribe("r/#", 1)
    packets = back(end(shore)).after_connack
    assert sorted(payloads(packets)) == [b"0", b"1", b"2"]
    assert all(packet.retain for packet in packets)


def test_the_other_shores_records_wait_too() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 1)
    client.lose()
    shore.produce("mqtt", b"t", b"x", compression=4)
    shore = shore.crash()
    assert payloads(back(shore).after_connack) == [b"x"]


def test_routes_that_lead_to_the_log_only() -> None:
    shore = Shore(
        Route("f/{x}", "one", "k", None, to_log_only=True),
        Route("g/{x}", "two", "", None, to_log_only=True),
    )
    client = shore.client(expiry_s=100)
    client.subscribe("#", 1)
    client.lose()
    publisher = shore.client("p")
    publisher.publish("f/1", b"f", 1, packet_id=1)
    publisher.publish("g/1", b"g", 1, packet_id=2)
    shore.produce("two", b"g/1", b"not for MQTT")
    assert sorted(payloads(back(shore.crash()).after_connack)) == [b"f", b"g"]


def test_a_route_of_the_next_start_brings_nothing_old() -> None:
    shore = Shore()
    shore.broker.destinations.ensure_topic("t")
    shore.produce("t", b"1", b"old")
    client = shore.client(expiry_s=100)
    client.subscribe("#", 1)
    shore = shore.end()
    shore.routes = (Route("t/{x}", "t", "{x}", None, to_log_only=False),)
    shore = shore.crash()
    shore.produce("t", b"1", b"new")
    assert payloads(back(shore).after_connack) == [b"new"]


# --- expiry and ends --------------------------------------------------------------------------


def test_time_goes_on_while_the_server_is_down() -> None:
    shore = Shore()
    for client_id in ("early", "late"):
        client = shore.client(client_id, expiry_s=100)
        client.subscribe("t", 1)
        client.lose()
        shore.runtime.advance(50_000)
    shore = shore.crash()
    assert [*shore.clients.sessions.entries] == ["late"]
    assert len(shore.broker.subscriptions.tree) == 1
    shore.runtime.advance(50_000)
    assert shore.clients.sessions.entries == {}
    assert shore.crash().clients.sessions.entries == {}


def test_a_client_that_was_connected_counts_as_gone_at_the_start() -> None:
    shore = Shore()
    shore.client(expiry_s=100)
    shore.runtime.advance(500_000)
    shore = shore.crash()
    assert [*shore.clients.sessions.entries] == ["c"]
    shore.runtime.advance(60_000)
    shore = shore.crash()
    assert [*shore.clients.sessions.entries] == ["c"]
    shore.runtime.advance(40_000)
    assert shore.clients.sessions.entries == {}


@pytest.mark.parametrize("how", ["clean start", "expiry 0 at DISCONNECT", "expiry 0"])
@ENDS
def test_what_has_ended_stays_so(end: End, how: str) -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 1)
    if how == "expiry 0 at DISCONNECT":
        client.send(Disconnect(0, {SESSION_EXPIRY: 0}))
    else:
        client.lose()
        shore.client("p").publish("t", b"x", 1, packet_id=1)
        shore.runtime.advance(60_000)
        client.connect(clean_start=how == "clean start", expiry_s=0)
        client.lose()
    shore = end(shore)
    assert shore.clients.sessions.entries == {}
    # Nothing of it comes to a new session of the client.
    client = shore.client(expiry_s=100)
    shore.client("p").publish("t", b"x", 1, packet_id=1)
    assert back(end(shore)).after_connack == []


def test_sessions_without_expiry_leave_nothing_behind() -> None:
    shore = Shore()
    before = count_of(shore)
    client = shore.client()
    client.subscribe("t", 2)
    client.publish("t", b"x", 2, packet_id=1)
    client.send(Ack(PUBREL, 1))
    client.lose()
    assert count_of(shore) == before


# --- queues -----------------------------------------------------------------------------------


@ENDS
def test_a_queue_over_many_starts(end: End) -> None:
    """Each start brings the whole queue in order, part by part."""
    shore = Shore()
    client = shore.client(expiry_s=1000, receive_maximum=2)
    client.subscribe("t", 2)
    client.lose()
    sent = 0
    for _ in range(4):
        publisher = shore.client("p")
        for _ in range(10):
            publisher.publish("t", b"%d" % sent, 2, packet_id=sent + 1)
            publisher.send(Ack(PUBREL, sent + 1))
            sent += 1
            shore.runtime.advance(7_000)
        shore = end(shore)
    got = []
    client = back(shore, expiry_s=1000, receive_maximum=2)
    packets = client.after_connack
    while packets:
        for packet in packets:
            if isinstance(packet, Publish):
                got.append(packet.payload)
                client.send(Ack(PUBREC, packet.packet_id))
            else:
                client.send(Ack(PUBCOMP, packet.packet_id))
        packets = client.packets()
        if len(got) == 20:
            shore = end(shore)
            client = back(shore, expiry_s=1000, receive_maximum=2)
            packets = [one for one in client.after_connack if getattr(one, "dup", 0) == 0]
            repeated = [one for one in client.after_connack if one not in packets]
            client.send(*[Ack(PUBREC, one.packet_id) for one in repeated])
            packets += client.packets()
            got += [one.payload for one in repeated if one.payload not in got]
    assert got == [b"%d" % number for number in range(sent)]


def test_a_part_of_a_queue_is_written_once() -> None:
    shore = Shore()
    client = shore.client(expiry_s=1000)
    client.subscribe("t", 1)
    client.lose()
    publisher = shore.client("p")
    for _ in range(5):
        publisher.publish("t", b"x", 1, packet_id=1)
        shore.runtime.advance(60_000)
    keys = [record.key for record in shore.records("__mqtt_sessions") if record.key]
    assert [key for key in keys if b"\0q" in key] == [b"c\0q%d" % number for number in range(5)]


def test_the_queues_limit_holds_for_the_scan() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("t", 1)
    client.lose()
    publisher = shore.client("p")
    for _ in range(15):
        publisher.send(*[Publish(b"t", b"x", 1, packet_id=n) for n in range(1, 101)])
    shore = shore.crash()
    session = shore.clients.sessions.entries["c"].session
    assert (session.queue.length, session.dropped.queue) == (1000, 500)


def test_places_that_the_log_does_not_hold_are_dropped_and_counted() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100, receive_maximum=1)
    client.subscribe("#", 1)
    publisher = shore.client("p")
    for number in range(4):
        publisher.publish("t", b"%d" % number, 1, packet_id=1)
    client.lose()
    shore.runtime.advance(60_000)
    for partition in shore.log.topics["mqtt"].partitions:  # as a power cut does
        if partition.end_offset:
            partition._batches, partition._ends = partition._batches[:2], [1, 2]
            partition.end_offset = 2
    shore = shore.crash()
    shore.client("p").publish("t", b"other", 1, packet_id=1)
    client = back(shore)
    assert payloads(client.after_connack) == [b"0", b"1", b"other"]
    assert client.entry.session.dropped.gone == 2


@ENDS
def test_a_deleted_log_topic_takes_its_deliveries_along(end: End) -> None:
    shore = Shore()
    client = shore.client(expiry_s=100, receive_maximum=2)
    client.subscribe("t", 2)
    publisher = shore.client("p")
    for number in range(2):
        publisher.publish("t", b"%d" % number, 1 + number, packet_id=1)
    client.lose()
    publisher.publish("t", b"waits", 1, packet_id=3)
    shore.runtime.advance(60_000)
    shore.log.delete("mqtt")
    shore.broker.forget_log_topic()
    publisher.publish("t", b"new", 1, packet_id=3)
    shore = end(shore)
    packets = back(shore, receive_maximum=100).after_connack
    assert payloads(packets) == [b"new"]
    assert [packet.type for packet in packets if not isinstance(packet, Publish)] == [PUBREL]


# --- when it cannot be ------------------------------------------------------------------------


def test_malformed_records_are_skipped() -> None:
    shore = Shore()
    client = shore.client("good", expiry_s=100)
    client.subscribe("t", 1)
    for key, value in (
        (b"bad", b"\xc1"),
        (b"\xff", b"\x90"),
        (b"good\0fx", b"nonsense"),
        (b"good\0f\xff", b"\x93\x01\x01\x00"),
        (b"good\0q5", b"\x91\x63"),
        (b"good\0z", b"?"),
        (b"other form", b"\x99\x02\x01\x00\x01\x00\x00\x90\x90\x90"),
        (b"\0m", b"?"),
    ):
        shore.produce("__mqtt_sessions", key, value)
    shore.produce("__mqtt_sessions", None, b"no key")
    shore = shore.crash()
    assert [*shore.clients.sessions.entries] == ["good"]
    assert [*shore.broker.subscriptions.of(shore.clients.sessions.entries["good"].session)] == [
        "t"
    ]


def test_what_the_log_refused_is_written_later() -> None:
    shore = Shore()
    client = shore.client(expiry_s=1000)
    partition = shore.log.topics["__mqtt_sessions"].partitions[0]

    def full(batch: object, ticket: object, *, trusted: bool = False) -> None:
        ticket.failed(NoSpace("the disk is full"))

    partition.append = full
    client.subscribe("t", 1)
    client.lose()
    shore.client("p").publish("t", b"x", 1, packet_id=1)
    shore.runtime.advance(60_000)
    assert shore.broker.session_log.errors > 0
    del partition.append
    shore.runtime.advance(60_000)
    assert payloads(back(shore.crash()).after_connack) == [b"x"]


def test_a_checkpoint_of_many_sessions_leaves_room_for_others() -> None:
    shore = Shore()
    for number in range(450):
        shore.client(f"c{number}", expiry_s=1000).subscribe("t", 1)
    for entry in shore.clients.sessions.entries.values():
        entry.connection.lose()
    shore.client("p").publish("t", b"x", 1, packet_id=1)
    shore.runtime.advance(60_000)
    assert not any(one.session.changed for one in shore.clients.sessions.entries.values())
    shore = shore.crash()
    assert payloads(back(shore, "c7").after_connack) == [b"x"]
