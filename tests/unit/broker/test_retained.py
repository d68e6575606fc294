"""Who publishes a retained message waits for the message and for its being retained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.errors import BatchTooLarge, NoSpace, SyncFailed
from isthmus.mqtt.packets import PUBACK, PUBREC, Publish
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
    """There is nothing to remove; beyond the limit on their number a message just goes on."""
    shore = Shore()
    client = shore.client()
    captured = Captured(shore, RETAINED)
    client.send(Publish(b"t", b"", 1, True, packet_id=5))
    assert told(client) == [(PUBACK, NOBODY)]
    shore.broker.retained._count_max = 0
    publish(client, 1)
    assert told(client) == [(PUBACK, NOBODY)]
    assert (captured.tickets, shore.broker.retained.refused) == ([], 1)


def test_a_message_at_qos_0_is_counted_where_it_is_not_retained() -> None:
    shore = Shore()
    client = shore.client()
    captured = Captured(shore, RETAINED)
    client.publish("t", b"x", retain=True)
    captured.answer(NoSpace("the disk is full"))
    assert told(client) == []
    assert shore.broker.retained.refused == 1
