"""The table of retained messages: who waits for it, its limits, what expires, the start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.errors import BatchTooLarge, NoSpace, SyncFailed
from isthmus.mqtt.packets import PUBACK, PUBREC, PUBREL, Ack, Publish
from isthmus.mqtt.reasons import ReasonCode

if TYPE_CHECKING:
    from isthmus.errors import IsthmusError

QUOTA_EXCEEDED = ReasonCode.QUOTA_EXCEEDED
NOBODY = ReasonCode.NO_MATCHING_SUBSCRIBERS
RETAINED = "__mqtt_retained"


class Captured:
    """Stands in for `append` of a partition, whose answers the test gives."""

    def __init__(self, shore: Shore, log_topic: str) -> None:
        self.partitions = shore.log.topics[log_topic].partitions
        self.tickets: list[Any] = []
        for partition in self.partitions:
            partition.append = self

    def __call__(self, _batch: object, ticket: Any, **_: bool) -> None:
        self.tickets.append(ticket)

    def answer(self, error: IsthmusError | None) -> None:
        for partition in self.partitions:
            del partition.append
        (ticket,) = self.tickets
        if error is not None:
            ticket.failed(error)
            return
        ticket.written(0)
        assert ticket.wants_durable
        ticket.durable()


def publish(client: Client, qos: int, **fields: Any) -> None:
    client.send(Publish(b"t", b"x", qos, True, packet_id=5, **fields))


def told(client: Client) -> list[tuple[int, int]]:
    client.shore.runtime.settle()
    return [(packet.type, packet.reason) for packet in client.packets()]


@pytest.mark.parametrize("late", ["mqtt", RETAINED])
@pytest.mark.parametrize("qos", [1, 2])
def test_the_acknowledgement_comes_when_both_are_durable(late: str, qos: int) -> None:
    shore = Shore()
    client = shore.client()
    captured = Captured(shore, late)
    publish(client, qos)
    assert told(client) == []
    assert shore.broker.backlog_bytes == 0 or late == "mqtt"
    captured.answer(None)
    assert told(client) == [(PUBACK if qos == 1 else PUBREC, NOBODY)]
    assert shore.broker.backlog_bytes == 0


@pytest.mark.parametrize("refused", ["mqtt", RETAINED])
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    ("error", "reason"),
    [(NoSpace("the disk is full"), 0x97), (BatchTooLarge("too large"), 0x80)],
)
def test_a_refusal_of_either_is_told(
    refused: str, qos: int, error: IsthmusError, reason: int
) -> None:
    shore = Shore()
    client = shore.client()
    captured = Captured(shore, refused)
    publish(client, qos)
    captured.answer(error)
    assert told(client) == [(PUBACK if qos == 1 else PUBREC, reason)]
    assert client.closed is None
    publish(client, qos)  # a QoS 2 id that was refused is free again
    assert told(client) == [(PUBACK if qos == 1 else PUBREC, NOBODY)]


@pytest.mark.parametrize("refused", ["mqtt", RETAINED])
@pytest.mark.parametrize(
    ("version", "error"), [(4, NoSpace("the disk is full")), (5, SyncFailed("EIO"))]
)
def test_where_no_reason_can_be_told_the_connection_ends(
    refused: str, version: int, error: IsthmusError
) -> None:
    shore = Shore()
    client = shore.client(version=version)
    captured = Captured(shore, refused)
    publish(client, 1)
    captured.answer(error)
    assert told(client) == []
    assert client.closed is error


def test_when_both_are_refused_it_is_told_once() -> None:
    shore = Shore()
    client = shore.client()
    both = [Captured(shore, "mqtt"), Captured(shore, RETAINED)]
    publish(client, 1)
    for captured in both:
        captured.answer(NoSpace("the disk is full"))
    assert told(client) == [(PUBACK, QUOTA_EXCEEDED)]
    assert shore.broker.backlog_bytes == 0


def test_nobody_waits_for_what_is_not_to_be_retained() -> None:
    """There is nothing to remove."""
    shore = Shore()
    client = shore.client()
    captured = Captured(shore, RETAINED)
    client.send(Publish(b"t", b"", 1, True, packet_id=5))
    assert told(client) == [(PUBACK, NOBODY)]
    assert captured.tickets == []


def test_a_message_at_qos_0_is_counted_where_it_is_not_retained() -> None:
    shore = Shore()
    client = shore.client()
    captured = Captured(shore, RETAINED)
    client.publish("t", b"x", retain=True)
    captured.answer(NoSpace("the disk is full"))
    assert told(client) == []
    assert shore.broker.retained.refused == 1


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "reason"), [(5, QUOTA_EXCEEDED), (4, 0)])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_exceeds_a_limit_is_sent_and_not_retained(
    qos: int, version: int, reason: int
) -> None:
    """Before MQTT 5 there is no way to say so."""
    shore = Shore(retained_max=1)
    shore.client("p").publish("other", b"x", retain=True)
    subscriber, client = shore.client("s"), shore.client("c", version=version)
    subscriber.subscribe("t", 2)
    publish(client, qos)
    assert told(client) == [(PUBACK if qos == 1 else PUBREC, reason)]
    assert subscriber.messages() == [("t", b"x", qos)]
    assert shore.broker.retained.get(b"t") is None
    assert shore.broker.retained.refused == 1
    publish(client, qos)  # the id is free again, or known
    assert told(client) == [(PUBACK if qos == 1 else PUBREC, reason)]
    assert client.closed is None


def test_the_limit_in_bytes_counts_names_payloads_and_properties() -> None:
    shore = Shore(retained_bytes_max=100)
    client = shore.client()
    kept = shore.broker.retained
    client.publish("t", bytes(50), retain=True)  # and 12 of the header that says so
    assert (len(kept), kept.size_bytes) == (1, 63)
    client.publish("u", bytes(30), retain=True)
    client.publish("t", bytes(90), retain=True)
    assert (len(kept), kept.size_bytes, kept.refused) == (1, 63, 2)
    client.publish("t", bytes(87), retain=True)  # just fits, in the place of the other
    assert (len(kept), kept.size_bytes) == (1, 100)
    client.publish("t", b"", retain=True)
    assert (len(kept), kept.size_bytes) == (0, 0)
    client.publish("u", bytes(30), retain=True, properties={0x26: [("name", "value" * 8)]})
    assert (len(kept), kept.size_bytes) == (1, 43 + 44)


def test_messages_of_one_turn_count_before_they_are_written() -> None:
    shore = Shore(retained_max=3)
    client = shore.client()
    client.send(*[Publish(b"%d" % number, b"x", 0, True) for number in range(5)])
    assert len(shore.broker.retained) == 3
    assert shore.broker.retained.refused == 2


def test_a_batch_that_is_refused_leaves_the_room_it_had_taken() -> None:
    shore = Shore(retained_max=1)
    client = shore.client()
    captured = Captured(shore, RETAINED)
    publish(client, 1)
    captured.answer(NoSpace("the disk is full"))
    shore.runtime.settle()
    client.packets()
    publish(client, 1)
    assert told(client) == [(PUBACK, NOBODY)]
    assert len(shore.broker.retained) == 1


# --- expiry -----------------------------------------------------------------------------------


def keep(client: Client, topic_name: str, expiry_s: int | None = None) -> None:
    properties = None if expiry_s is None else {0x02: expiry_s}
    client.publish(topic_name, b"x", retain=True, properties=properties)


def values(shore: Shore) -> dict[bytes | None, bytes | None]:
    return {record.key: record.value for record in shore.records(RETAINED)}


def test_what_has_expired_is_removed_from_table_and_log() -> None:
    shore = Shore()
    client = shore.client()
    for topic_name, expiry_s in (("soon", 10), ("late", 600), ("ever", None), ("again", 10)):
        keep(client, topic_name, expiry_s)
    keep(client, "again", 600)
    shore.runtime.advance(130_000)
    kept = shore.broker.retained
    assert values(shore) == {b"soon": None, b"late": b"x", b"ever": b"x", b"again": b"x"}
    assert (len(kept), kept.expired) == (3, 1)
    assert kept.size_bytes == sum(kept.get(name).size for name in (b"late", b"ever", b"again"))
    shore.runtime.advance(600_000)
    assert (len(kept), kept.expired) == (1, 3)
    assert not kept._expiring


def test_what_expires_while_the_server_is_down_is_removed_then() -> None:
    shore = Shore()
    keep(shore.client(), "soon", 10)
    shore.runtime.set_forward(3_600_000)
    shore = shore.end()
    client = shore.client()
    client.subscribe("#", 0)
    assert client.messages() == []
    shore.runtime.advance(130_000)
    assert values(shore) == {b"soon": None}
    assert len(shore.broker.retained) == 0


def test_a_message_that_comes_with_the_sweep_stays() -> None:
    """Its tombstone would stand behind the newer message."""
    shore = Shore()
    client = shore.client()
    keep(client, "t", 10)
    kept = shore.broker.retained
    shore.runtime.set_forward(160_000)
    shore.clients.receive(client.entry, client, [Publish(b"t", b"new", 0, True)])
    kept._sweep()
    shore.runtime.settle()
    assert values(shore) == {b"t": b"new"}
    assert kept.get(b"t") is not None
    shore.runtime.advance(130_000)
    assert values(shore) == {b"t": b"new"}


def test_many_that_expire_at_once_are_removed_in_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isthmus.broker.retained.SWEPT_PER_TURN", 10)
    shore = Shore()
    client = shore.client()
    for number in range(35):
        keep(client, f"t/{number}", 1)
    shore.runtime.advance(130_000)
    assert len(shore.broker.retained) == 0
    partition = shore.log.topics[RETAINED].partitions[0]
    sizes = [batch.count for batch in partition.batches(35)]
    assert sum(sizes) == 35
    assert max(sizes) == 10


# --- the start --------------------------------------------------------------------------------


def test_the_table_is_the_same_after_a_start() -> None:
    shore = Shore()
    client = shore.client()
    for number in range(30):
        expiry = {0x02: 1000} if number % 3 else None
        name, payload, qos = f"t/{number % 20}", b"x" * number, number % 3
        client.publish(name, payload, qos, retain=True, packet_id=1, properties=expiry)
        client.send(Ack(PUBREL, 1))
    before, after = shore.broker.retained, shore.end().broker.retained
    assert (len(before), before.size_bytes) == (len(after), after.size_bytes)
    for number in range(20):
        one, other = (table.get(b"t/%d" % number) for table in (before, after))
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one.offset, one.qos, one.size) == (other.offset, other.qos, other.size)
            assert one.expires_ms == other.expires_ms
    assert before._expiring == after._expiring
