"""Transactions that are read back for MQTT subscribers: never waiting, a piece at a time, in
order, and whatever comes in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.sim import SimRuntime
from tests.storage.disk import SimDisk
from tests.unit.broker.shore import Client, Producer, Shore

from isthmus.broker.relays import NOTE_BYTES, PIECE_BYTES, TURN_BYTES
from isthmus.mqtt.packets import PUBACK, PUBREC, PUBREL, Ack, Publish
from isthmus.record.batch import BatchBuilder
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

DIRECTORY = Path("/disk/data")
TOPIC = b"w"  # in the first of two partitions
LARGE = 40_000  # bytes, so that a handful does not fit into a turn
NO_LOCAL = 0x04


class Room:
    """A shore on a disk that is always cold."""

    def __init__(self, seed: int = 0) -> None:
        self.disk = SimDisk()
        self.disk.is_cold = True
        self.start(seed)

    def start(self, seed: int = 0) -> None:
        self.runtime = SimRuntime(seed)
        settings = LocalSettings(tail_bytes_max=0)
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, settings)
        self.shore = Shore(log=self.log, runtime=self.runtime)
        self.partition: Any = self.log.partition("mqtt", 0)

    def end(self) -> None:
        self.shore.broker.close()
        self.log.close()
        self.start()

    def crash(self) -> None:
        self.disk = self.disk.kill()
        self.disk.is_cold = True
        self.start()

    def producer(self, producer_id: int = 7) -> Producer:
        producer = Producer(self.shore, producer_id)
        producer.key, producer.settles = TOPIC, False
        return producer

    def client(self, client_id: str = "c", qos: int = 0, **connect: Any) -> Client:
        client = Client(self.shore, client_id, 5)
        client.connect(**connect)
        client.subscribe("#", qos)
        client.packets()
        return client

    def publish(self, client: Client, payload: bytes, qos: int = 0, **fields: Any) -> None:
        """Let a client publish without waiting for what follows."""
        publish = Publish(TOPIC, payload, qos, **fields)
        self.shore.clients.receive(client.entry, client, [publish])

    def plain(self, payload: bytes) -> None:
        """Let a Kafka producer without transactions write."""
        builder = BatchBuilder()
        builder.append(self.runtime.now_ms(), TOPIC, payload)
        self.shore.broker.append(self.partition, builder.seal(), None)

    def turn(self) -> None:
        """One turn of the loop, and of the disk that syncs, but no read of it."""
        self.runtime.turn()
        self.runtime.finish_offloaded()

    def turns(self, count: int = 20) -> None:
        for _ in range(count):
            self.turn()

    def large(self, producer: Producer, count: int = 20) -> list[bytes]:
        """Write a transaction that takes several turns to be read."""
        values = [b"%d." % number + bytes(LARGE) for number in range(count)]
        for value in values:
            producer.write(value)
        self.turns()
        return values


def payloads(client: Client) -> list[bytes]:
    return [payload for _, payload, _ in client.messages()]


def acknowledged(client: Client, packets: list[Any]) -> list[bytes]:
    """Let a client acknowledge, all the way, what it has got, and return the payloads."""
    found = []
    while packets:
        for packet in packets:
            if packet.type == PUBREL:
                client.shore.clients.receive(client.entry, client, [Ack(7, packet.packet_id)])
            elif isinstance(packet, Publish):
                found.append(packet.payload)
                if packet.qos:
                    kind = PUBACK if packet.qos == 1 else PUBREC
                    ack = Ack(kind, packet.packet_id)
                    client.shore.clients.receive(client.entry, client, [ack])
        client.shore.runtime.turn()
        packets = client.packets()
    return found


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_loop_goes_on_while_the_disk_is_read(qos: int) -> None:
    room = Room()
    client = room.client(qos=qos)
    producer = room.producer()
    producer.write(b"a")
    room.turns()
    producer.end(commits=True)
    room.turns()
    room.shore.clients.receive(client.entry, client, [Publish(b"t", b"other partition", qos)])
    room.turns()
    assert payloads(client) == [b"other partition"]
    assert len(room.runtime.reads) == 1
    room.runtime.settle()
    assert payloads(client) == [b"a"]
    assert room.shore.broker.relays.behind == {}


def test_a_turn_delivers_no_more_than_its_share() -> None:
    room = Room()
    client = room.client()
    producer = room.producer()
    values = room.large(producer, 60)
    room.disk.is_cold = False
    producer.end(commits=True)
    got, most = [], 0
    for _ in range(200):
        room.turn()
        room.runtime.finish_reads()
        piece = payloads(client)
        most = max(most, sum(map(len, piece)))
        got += piece
    assert got == values
    assert 0 < most < TURN_BYTES + PIECE_BYTES


def test_a_transaction_of_several_pieces_waits_until_its_marker_is_durable() -> None:
    room = Room()
    clients = [room.client(str(qos), qos) for qos in range(3)]
    producer = room.producer()
    values = room.large(producer)
    room.disk.is_cold = False
    producer.end(commits=True)
    for _ in range(20):
        room.runtime.turn()
    assert [payloads(client) for client in clients] == [[], [], []]
    room.runtime.settle()
    assert [payloads(client) for client in clients] == [values] * 3


def test_what_fits_into_one_piece_waits_for_nothing_but_its_qos() -> None:
    room = Room()
    room.disk.is_cold = False
    clients = [room.client(str(qos), qos) for qos in range(3)]
    producer = room.producer()
    producer.write(b"a")
    producer.end(commits=True)
    for _ in range(5):
        room.runtime.turn()
    assert [payloads(client) for client in clients] == [[b"a"], [b"a"], []]
    room.runtime.settle()
    assert [payloads(client) for client in clients] == [[], [], [b"a"]]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_nothing_overtakes_a_transaction(qos: int) -> None:
    room = Room()
    reader, writer = room.client("r", qos), room.client("w", qos)
    first, second = room.producer(1), room.producer(2)
    second.write(b"second")
    values = room.large(first)
    first.end(commits=True)
    room.publish(writer, b"mqtt", qos, packet_id=1 if qos else 0)
    room.turns()
    assert [packet.type for packet in writer.packets()] == {0: [], 1: [4], 2: [5]}[qos], (
        "who publishes does not wait for it"
    )
    room.plain(b"plain")
    first.write(b"first again")
    second.end(commits=True)
    room.turns()
    room.plain(b"last")
    first.end(commits=False)
    room.turns()
    assert payloads(reader) == []
    room.runtime.settle()
    assert payloads(reader) == [*values, b"mqtt", b"plain", b"second", b"last"]
    room.publish(writer, b"at once")
    room.turns(1)
    assert payloads(reader) == [b"at once"]


@pytest.mark.parametrize("seed", range(12))
def test_every_subscriber_gets_one_order(seed: int) -> None:
    """What is written comes in the order of the log, transactions where they commit."""
    room = Room(seed)
    chance = room.runtime.random
    writer = room.client("w")
    readers = [room.client(str(qos), qos) for qos in (1, 2)]
    producers = [room.producer(number) for number in range(3)]
    opened: dict[Producer, list[bytes]] = {each: [] for each in producers}
    expected: list[bytes] = []
    for number in range(60):
        room.disk.is_cold = chance.random() < 0.7
        producer = chance.choice(producers)
        value = b"%d" % number + bytes(chance.choice((0, 0, 90_000)))
        action = chance.randrange(6)
        if action < 2:
            opened[producer].append(value)
            producer.write(value)
        elif action == 2 and opened[producer]:
            commits = chance.random() < 0.7
            expected += opened[producer] if commits else []
            opened[producer] = []
            producer.end(commits=commits)
        elif action == 3:
            expected.append(value)
            room.publish(writer, value, 2, packet_id=number + 1)
            room.runtime.turn()  # in one turn, the other shore's come first
        elif action == 4:
            expected.append(value)
            room.plain(value)
        for _ in range(chance.randrange(3)):
            chance.choice((room.turn, room.runtime.turn, room.runtime.finish_reads))()
    room.runtime.settle()
    for reader in readers:
        assert payloads(reader) == expected
    assert room.shore.broker.relays.behind == {}
    assert room.shore.broker.backlog_bytes == 0


def test_no_local_counts_for_what_was_put_off() -> None:
    room = Room()
    clients = [room.client(name) for name in "abc"]
    for client in clients[:2]:
        client.subscribe("#", NO_LOCAL)
        client.packets()
    values = room.large(room.producer())
    release(room)
    published = [b"%c%d" % (name, number) for name in b"aaabbbacaca" for number in range(4)]
    for payload in published:
        room.publish(clients[payload[0] - ord("a")], payload)
    room.turns()
    noted = room.shore.broker.backlog_bytes
    assert noted == 5 * NOTE_BYTES, "a run of records takes one note"
    room.runtime.settle()
    for client, own in zip(clients, (b"a", b"b", b"-"), strict=True):
        others = [payload for payload in published if not payload.startswith(own)]
        assert payloads(client) == values + others
    assert room.shore.broker.backlog_bytes == 0


def release(room: Room, producer_id: int = 7) -> None:
    """Let a transaction commit, and begin to be read."""
    producer = room.producer(producer_id)
    producer.end(commits=True)
    room.turns()
    assert room.shore.broker.relays.behind


def test_the_newest_retained_message_stays_when_an_older_one_comes_late() -> None:
    room = Room()
    writer = room.client("w")
    one, two = room.producer(1), room.producer(2)
    one.write(b"old", retain=True)
    one.key = b"only here"
    one.write(b"kept", retain=True)
    room.turns()
    release(room, 1)
    room.publish(writer, b"newer", retain=True)
    room.turns()
    two.write(b"newest", retain=True)
    two.key = b"two"
    two.write(b"2", retain=True)
    two.end(commits=True)
    room.turns()
    room.runtime.settle()
    reader = room.shore.client("reader")
    reader.subscribe("#", 0)
    found = {
        packet.topic: packet.payload
        for packet in reader.packets()
        if isinstance(packet, Publish) and packet.retain
    }
    assert found == {TOPIC: b"newest", b"only here": b"kept", b"two": b"2"}
    one.key = TOPIC
    one.write(b"older", retain=True)
    room.turns()
    release(room, 1)
    room.publish(writer, b"", retain=True)
    room.runtime.settle()
    assert room.shore.broker.retained.get(TOPIC) is None
    assert room.shore.broker.backlog_bytes == 0


def test_a_deleted_log_topic_ends_it() -> None:
    room = Room()
    client = room.client()
    room.large(room.producer())
    release(room)
    room.publish(client, b"put off")
    room.turns()
    room.log.delete("mqtt")
    room.shore.broker.forget_log_topic()
    room.runtime.settle()
    assert payloads(client) == []
    assert room.shore.broker.relays.behind == {}
    room.publish(client, b"anew")
    room.runtime.settle()
    assert payloads(client) == [b"anew"]


def test_a_log_topic_that_is_deleted_in_the_middle_of_a_read_ends_it() -> None:
    """The one that deletes has not told yet when the read is answered."""
    room = Room()
    room.client()
    room.large(room.producer())
    release(room)
    room.log.delete("mqtt")
    room.runtime.settle()
    assert room.shore.broker.relays.behind == {}


@pytest.mark.parametrize("before", [5, 20, 21, 22, 23])
def test_deletion_may_overtake_it(before: int) -> None:
    """The transaction ends at 20, the marker stands there, two records stand behind it."""
    room = Room()
    client = room.client()
    values = [*room.large(room.producer()), b"marker", b"one", b"two"]
    release(room)
    room.plain(b"one")
    room.plain(b"two")
    room.turns()
    room.partition.delete_before(before, lambda error: None)
    room.turns()
    assert room.partition.start_offset == before
    room.runtime.settle()
    assert payloads(client) == [value for value in values[before:] if value != b"marker"]
    assert room.shore.broker.relays.behind == {}
    room.plain(b"later")
    room.runtime.settle()
    assert payloads(client) == [b"later"]


def test_what_is_deleted_within_a_batch_is_not_delivered() -> None:
    room = Room()
    client = room.client()
    producer = room.producer()
    producer.write(b"a", b"b", b"c")
    room.turns()
    release(room)
    room.partition.delete_before(1, lambda error: None)
    room.turns()
    room.runtime.settle()
    assert payloads(client) == [b"b", b"c"]
    assert room.shore.broker.undeliverable == 0


def test_a_damaged_batch_is_stepped_over() -> None:
    room = Room()
    client = room.client()
    values = room.large(room.producer())
    file = room.disk.file(DIRECTORY / "mqtt-0" / f"{0:020d}.log")
    file.data[3 * (LARGE + 100)] ^= 1
    release(room)
    room.plain(b"plain")
    room.runtime.settle()
    got = payloads(client)
    assert got == [*values[:3], *values[4:], b"plain"] or got == [
        *values[:2],
        *values[3:],
        b"plain",
    ]


def test_where_nothing_is_readable_the_rest_is_left_out(caplog: Any) -> None:
    room = Room()
    client = room.client()
    room.large(room.producer())
    release(room)
    room.plain(b"lost")
    room.turns()
    file = room.disk.file(DIRECTORY / "mqtt-0" / f"{0:020d}.log")
    file.data[:] = bytes(len(file.data))
    room.runtime.settle()
    room.plain(b"later")
    room.runtime.settle()
    assert payloads(client) == [b"later"]
    told = [record.message.split(" log_topic")[0] for record in caplog.records]
    assert told[-2:] == ["transaction not delivered", "records not delivered"]


def test_a_disk_that_fails_once_costs_the_transaction_and_no_more(caplog: Any) -> None:
    room = Room()
    client = room.client()
    room.large(room.producer())
    release(room)
    room.plain(b"plain")
    room.turns()
    room.disk.fail_only, room.disk.fail_at = ("pread",), room.disk.calls + 1
    room.runtime.settle()
    assert payloads(client) == [b"plain"]
    assert "transaction not delivered log_topic=mqtt partition=0 offset=20" in caplog.text


@pytest.mark.parametrize("end", [Room.end, Room.crash])
@pytest.mark.parametrize(("reads", "count"), [(0, 0), (1, 3), (4, 12), (9, 22)])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_start_goes_on_where_the_end_came(end: Any, reads: int, count: int, qos: int) -> None:
    """The end comes before, in the middle of, and after the release."""
    room = Room()
    absent = room.client("absent", qos, expiry_s=100)
    absent.lose()  # and is written down here, long before the others
    client = room.client("c", qos, expiry_s=100)
    writer = room.client("w")
    values = room.large(room.producer())
    release(room)
    room.publish(writer, b"mqtt", qos, packet_id=1)
    room.turns()
    room.plain(b"plain")
    room.turns()
    expected = [*values, b"mqtt", b"plain"]
    got = []
    for _ in range(reads):
        room.turns()
        room.runtime.finish_reads()
        room.turns()
        got += acknowledged(client, client.packets())
    room.turns()
    assert len(got) == count
    end(room)
    client = Client(room.shore, "c", 5)
    assert client.connect(clean_start=False, expiry_s=100).session_present
    got += acknowledged(client, client.after_connack)
    room.runtime.settle()
    got += acknowledged(client, client.packets())
    if qos == 2 or end is Room.end:
        assert got == expected
    else:  # after a crash QoS 1 repeats
        assert set(got) == set(expected)
        assert got[-len(expected) :] == expected
    absent = Client(room.shore, "absent", 5)
    assert absent.connect(clean_start=False, expiry_s=100).session_present
    assert acknowledged(absent, absent.after_connack) == expected


def test_the_end_leaves_nothing_to_be_read() -> None:
    room = Room()
    client = room.client()
    room.large(room.producer())
    release(room)
    room.publish(client, b"put off")
    room.turns()
    room.shore.broker.close()
    room.log.close()
    room.runtime.settle()
    assert payloads(client) == []
    assert room.disk.open_count == 0
