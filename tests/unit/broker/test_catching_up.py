"""Many sessions that catch up at once: all is there, in order, read once, and nobody waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.broker import recent_records
from isthmus.broker.catching_up import LOADS_MAX, SLICE_MS
from isthmus.errors import CorruptBatch, StorageError
from isthmus.mqtt.packets import Connack, Connect, Publish
from isthmus.mqtt.properties import SESSION_EXPIRY
from isthmus.storage.log import Records

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES = 20


class Storm:
    """Sessions with messages that wait, partitions that count reads, a clock that goes."""

    def __init__(self, sessions: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recent_records, "READ_BYTES", 2_000)
        monkeypatch.setattr(recent_records, "WINDOWS_MAX", 2)
        self.shore = Shore()
        self.names = [f"device-{number:03d}" for number in range(sessions)]
        self.bystander = self.shore.client("bystander")
        self.bystander.subscribe("b", 0)
        for name in self.names:
            client = self.shore.client(name, expiry_s=100)
            client.subscribe(name, 1)
            client.lose()
        publisher = self.shore.client("p")
        for number in range(MESSAGES):
            publisher.send(
                *[
                    Publish(name.encode(), b"%d" % number, 1, packet_id=1 + place)
                    for place, name in enumerate(self.names)
                ]
            )
        self.partitions = self.shore.log.topics["mqtt"].partitions
        self.reads = 0
        for partition in self.partitions:
            self.count_reads(partition)
        self.bystander.packets()

    def count_reads(self, partition: Any) -> None:
        read = partition.read

        def counted(*arguments: Any) -> Any:
            self.reads += 1
            return read(*arguments)

        partition.read = counted

    def let_time_pass(self) -> None:
        """Have each look at the clock take a millisecond."""
        runtime = self.shore.runtime

        def monotonic_ms() -> int:
            runtime._monotonic_ms += 1
            return runtime._monotonic_ms

        runtime.monotonic_ms = monotonic_ms

    def connect(self) -> list[Client]:
        """Have all clients send CONNECT, before the loop has its turn."""
        clients = []
        for name in self.names:
            client = Client(self.shore, name, 5)
            properties = {SESSION_EXPIRY: 100}
            connect = Connect(5, name, False, 60, None, None, None, properties)
            self.shore.clients.open(connect, client)
            clients.append(client)
        return clients


def payloads(client: Client) -> list[bytes]:
    packets = client.packets()
    assert isinstance(packets[0], Connack)
    return [packet.payload for packet in packets[1:]]


EXPECTED = [b"%d" % number for number in range(MESSAGES)]


@pytest.fixture
def storm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storm]:
    storm = Storm(60, monkeypatch)
    yield storm
    assert len(storm.shore.broker.catching_up) == 0


def test_all_get_all_of_it_in_order_and_the_log_is_read_once(storm: Storm) -> None:
    clients = storm.connect()
    storm.shore.runtime.settle()
    assert [payloads(client) for client in clients] == [EXPECTED] * len(clients)
    size = sum(len(batch.data) for each in storm.partitions for batch in each.batches(0))
    assert storm.reads <= 2 * (size // recent_records.READ_BYTES + len(storm.partitions))
    assert storm.reads < MESSAGES * len(clients) / 10


def test_connacks_and_others_do_not_wait_for_them(storm: Storm) -> None:
    storm.let_time_pass()
    clients = storm.connect()
    runtime = storm.shore.runtime
    runtime.turn()
    assert all(client.sent for client in clients)
    answered = []
    for number in range(10):
        storm.shore.clients.receive(
            storm.bystander.entry, storm.bystander, [Publish(b"b", b"%d" % number)]
        )
        before_ms = runtime._monotonic_ms
        runtime.turn()
        assert runtime._monotonic_ms - before_ms <= 2 * SLICE_MS
        runtime.turn()
        answered += [payload for _, payload, _ in storm.bystander.messages()]
    assert answered == [b"%d" % number for number in range(10)]
    assert len(storm.shore.broker.catching_up) > 0  # there was more to do all the time
    runtime.settle()
    assert [payloads(client) for client in clients] == [EXPECTED] * len(clients)


def test_who_comes_later_walks_behind_and_arrives(storm: Storm) -> None:
    storm.let_time_pass()
    storm.names, late = storm.names[10:], storm.names[:10]
    first = storm.connect()
    for _ in range(10):
        storm.shore.runtime.turn()
    storm.names = late
    clients = first + storm.connect()
    storm.shore.runtime.settle()
    assert [payloads(client) for client in clients] == [EXPECTED] * len(clients)


def test_what_comes_live_comes_behind_what_waited(storm: Storm) -> None:
    storm.let_time_pass()
    clients = storm.connect()
    storm.shore.runtime.turn()
    publisher = Client(storm.shore, "p", 5)
    publisher.connect()
    for name in storm.names:
        publisher.publish(name, b"live", 1, packet_id=1)
    assert [payloads(client) for client in clients] == [[*EXPECTED, b"live"]] * len(clients)


def test_who_goes_and_comes_meanwhile_gets_it_once_more_or_once(storm: Storm) -> None:
    storm.let_time_pass()
    clients = storm.connect()
    for _ in range(5):
        storm.shore.runtime.turn()
    for client in clients[::2]:
        storm.shore.clients.lost(client.entry, client)
    storm.shore.clients.sessions.end(clients[0].entry)
    storm.names = storm.names[2::2]
    again = storm.connect()
    storm.shore.runtime.settle()
    for client in again:
        packets = [packet for packet in client.packets() if isinstance(packet, Publish)]
        repeated = [packet for packet in packets if packet.dup]
        assert packets[: len(repeated)] == repeated
        assert sorted({packet.packet_id for packet in packets}) == [
            packet.packet_id for packet in packets
        ]
        assert [packet.payload for packet in packets] == EXPECTED[MESSAGES - len(packets) :]
    for client in clients[1::2]:
        assert payloads(client) == EXPECTED


def test_a_part_that_cannot_be_read_is_passed_over(storm: Storm) -> None:
    """One partition is damaged from its fifth batch on, the other has lost its beginning."""
    damaged, shortened = storm.partitions
    read, start = damaged.read, shortened.end_offset // 2

    def broken(offset: int, *arguments: Any) -> Any:
        if offset >= damaged.end_offset // 2:
            raise CorruptBatch("nothing is readable")
        found = read(offset, *arguments)
        return Records(found.buffers[:1])

    damaged.read = broken
    shortened.start_offset = start
    clients = storm.connect()
    storm.shore.runtime.settle()
    for client in clients:
        got = payloads(client)
        dropped = client.entry.session.dropped
        assert dropped.gone == dropped.total == MESSAGES - len(got) > 0
        assert got in (EXPECTED[: len(got)], EXPECTED[-len(got) :])


def test_a_disk_that_fails_ends_the_connections_that_need_it(storm: Storm) -> None:
    broken, _ = storm.partitions

    def fails(*arguments: Any) -> Any:
        raise StorageError("the disk is gone")

    read, broken.read = broken.read, fails
    clients = storm.connect()
    storm.shore.runtime.settle()
    closed = [client for client in clients if client.closed is not None]
    assert 0 < len(closed) < len(clients)
    assert {type(client.closed) for client in closed} == {StorageError}
    for client in clients:
        if client.closed is None:
            assert payloads(client) == EXPECTED
    broken.read = read
    for client in closed:
        client.lose()
    storm.names = [client.client_id for client in closed]
    again = storm.connect()
    storm.shore.runtime.settle()
    assert [payloads(client) for client in again] == [EXPECTED] * len(again)


def test_only_so_much_comes_from_the_disk_at_one_time(storm: Storm) -> None:
    """Each part is asked for again before it is in memory."""
    asked: list[tuple[Any, int]] = []
    there: set[tuple[Any, int]] = set()
    for partition in storm.partitions:

        def cold(offset: int, *arguments: Any, p: Any = partition, read: Any = None) -> Any:
            return (
                read(offset, *arguments) if (p, offset) in there else Records(is_loading=True)
            )

        def wait(offset: int, wake: Any, p: Any = partition) -> None:
            asked.append((p, offset, wake))

        partition.read = lambda offset, *a, c=cold, r=partition.read: c(offset, *a, read=r)
        partition.wait = wait
    clients = storm.connect()
    storm.shore.runtime.settle()
    while asked:
        assert len(asked) <= LOADS_MAX
        partition, offset, wake = asked.pop(0)
        there.add((partition, offset))
        wake()
        storm.shore.runtime.settle()
    assert [payloads(client) for client in clients] == [EXPECTED] * len(clients)
