"""What MQTT subscribers get of Kafka transactions: all of it when they commit, else nothing."""

from __future__ import annotations

import pytest
from tests.unit.broker.shore import Client, Producer, Shore, Ticket

from isthmus.broker.held_batches import HeldBatches
from isthmus.mqtt.packets import PUBREC, PUBREL, Ack, Publish
from isthmus.record.batch import BatchBuilder


def subscriber(shore: Shore, client_id: str = "c", qos: int = 0, **connect: int) -> Client:
    client = shore.client(client_id, **connect)
    client.subscribe("t", qos)
    return client


def payloads(client: Client) -> list[bytes]:
    return [payload for _, payload, _ in client.messages()]


def restored(shore: Shore, client_id: str = "c") -> list[bytes]:
    """Connect a client that was there before the restart; return what it gets."""
    client = Client(shore, client_id, 5)
    assert client.connect(clean_start=False, expiry_s=100).session_present
    return [packet.payload for packet in client.after_connack if isinstance(packet, Publish)]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_records_come_with_the_marker_that_commits_them(qos: int) -> None:
    shore = Shore()
    client = subscriber(shore, qos=qos)
    one, other = Producer(shore, 1), Producer(shore, 2)
    assert one.write(b"a", b"b").told == [0, "durable"]
    other.write(b"x")
    shore.produce("mqtt", b"t", b"plain")
    one.write(b"c")
    assert client.messages() == [("t", b"plain", qos)]
    one.end(commits=True)
    assert client.messages() == [("t", value, qos) for value in (b"a", b"b", b"c")]
    other.end(commits=False)
    assert payloads(client) == []
    other.write(b"y")
    other.end(commits=True)
    assert payloads(client) == [b"y"]
    assert shore.broker.undeliverable == 0


def test_an_absent_client_finds_only_what_was_committed() -> None:
    shore = Shore()
    client = subscriber(shore, qos=1, expiry_s=100)
    client.lose()
    producer = Producer(shore)
    for number, commits in enumerate((True, False, True)):
        producer.write(b"%d" % number)
        producer.end(commits=commits)
    producer.write(b"open")
    client.connect(clean_start=False)
    assert [packet.payload for packet in client.after_connack] == [b"0", b"2"]


def test_a_retained_message_counts_once_it_is_committed() -> None:
    shore = Shore()
    producer = Producer(shore)
    producer.write(b"no", retain=True)
    producer.end(commits=False)
    producer.write(b"yes", retain=True)
    assert payloads(subscriber(shore, "before")) == []
    producer.end(commits=True)
    assert payloads(subscriber(shore, "after")) == [b"yes"]


def test_what_a_producer_sends_again_is_not_delivered_again() -> None:
    shore = Shore()
    client = subscriber(shore)
    producer = Producer(shore)
    producer.write(b"a")
    assert producer.write(b"a", again=True).told == [0, "durable"]
    producer.end(commits=True)
    assert payloads(client) == [b"a"]
    builder = BatchBuilder()
    for told in ([2, "durable"], [2, "durable"]):
        builder.append(shore.runtime.now_ms(), b"t", b"b")
        ticket = Ticket()
        partition = shore.log.topics["mqtt"].partitions[0]
        shore.broker.append(partition, builder.seal(0, 9, 0, 0), ticket)
        shore.runtime.settle()
        assert ticket.told == told
    assert payloads(client) == [b"b"]


@pytest.mark.parametrize("end", [Shore.crash, Shore.end])
@pytest.mark.parametrize("commits", [True, False])
def test_a_transaction_may_outlast_the_server(end, commits: bool) -> None:
    shore = Shore()
    subscriber(shore, qos=1, expiry_s=100).lose()
    Producer(shore, 1).write(b"done")
    Producer(shore, 1).end(commits=False)
    producer = Producer(shore)
    producer.write(b"a", b"b")
    shore = end(shore)
    assert restored(shore) == []
    producer.shore = shore
    producer.write(b"c")
    producer.end(commits=commits)
    shore = end(shore)
    assert restored(shore) == ([b"a", b"b", b"c"] if commits else [])


@pytest.mark.parametrize("commits", [True, False])
def test_the_scan_at_the_start_goes_back_to_where_a_transaction_began(commits: bool) -> None:
    """The session was written in the middle of one, which was decided before the crash."""
    shore = Shore()
    client = subscriber(shore, qos=1, expiry_s=100)
    producer = Producer(shore)
    producer.write(b"a")
    shore.produce("mqtt", b"t", b"plain")
    assert payloads(client) == [b"plain"]
    client.lose()
    shore.broker.session_log.checkpoint()
    shore.broker.session_log.checkpoint = lambda: None  # nothing is written from here on
    producer.write(b"b")
    producer.end(commits=commits)
    shore = shore.crash()
    repeated = [b"plain"]  # it was in flight, not acknowledged
    assert restored(shore) == repeated + ([b"a", b"b"] if commits else [])


def test_qos_2_is_not_repeated_because_a_transaction_is_open() -> None:
    shore = Shore()
    client = subscriber(shore, qos=2, expiry_s=100)
    Producer(shore).write(b"a")
    shore.produce("mqtt", b"t", b"plain")
    (publish,) = [packet for packet in client.packets() if isinstance(packet, Publish)]
    client.send(Ack(PUBREC, publish.packet_id))
    (release,) = client.packets()
    assert release.type == PUBREL
    client.lose()
    assert restored(shore.crash()) == []


def test_what_is_held_is_found_again_and_forgotten_when_it_is_deleted() -> None:
    shore = Shore()
    partition = shore.log.topics["mqtt"].partitions[0]
    for number in (1, 2):
        Producer(shore, number).write(b"a")
    held = HeldBatches()
    held.find(partition)
    assert (len(held), held.oldest()) == (2, 0)
    held.drop_before(1)
    assert (len(held), held.oldest()) == (1, 1)
    held.drop_before(2)
    assert (len(held), held.oldest()) == (0, None)
