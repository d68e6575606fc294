"""`isthmus topics`: what people read of sizes, times and retention; where sizes come from."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
from tests.unit.server.kafka_peer import ShoreRoom

from isthmus.cli import log_dirs
from isthmus.cli.kafka_client import PartitionView
from isthmus.cli.kafka_login import KafkaServer
from isthmus.cli.log_dirs import sizes_of
from isthmus.cli.offline import at_time, in_units
from isthmus.cli.topics import duration_in_words, retention_in_words, topic_row
from isthmus.config_listeners import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = [
    PartitionView(0, 5, 9, 2048, 1_700_000_000_000, 1_700_000_000_001),
    PartitionView(1, 0, 0, 0, -1, -1),
]


def test_a_row_for_people_and_one_for_programs() -> None:
    settings = {
        "retention.ms": "86400000",
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
        "isthmus.durability": "synced",
    }
    assert topic_row("t", PARTITIONS, settings, as_json=False) == {
        "log_topic": "t",
        "partitions": 2,
        "records": 4,
        "offsets": "0 to 8",
        "bytes": "2.0 KiB",
        "oldest": "2023-11-14T22:13:20.000Z",
        "newest": "2023-11-14T22:13:20.001Z",
        "retention": "1 d",
        "cleanup_policy": "delete",
        "durability": "synced",
    }
    row = topic_row("t", PARTITIONS, settings, as_json=True)
    assert (row["bytes"], row["offsets"]) == (2048, [[5, 9], [0, 0]])
    assert (row["retention_ms"], row["retention_bytes"]) == (86_400_000, -1)


def test_what_another_server_does_not_tell() -> None:
    unsized = [one._replace(size_bytes=None) for one in PARTITIONS]
    row = topic_row("t", unsized, {}, as_json=False)
    assert (row["bytes"], row["durability"], row["retention"]) == ("-", "-", "for ever")
    assert topic_row("t", unsized, {}, as_json=True)["bytes"] is None
    assert topic_row("t", [], {}, as_json=False)["offsets"] == "-"


def test_words() -> None:
    assert [duration_in_words(ms) for ms in (604_800_000, 5_400_000, 61_000, 7)] == [
        "7 d",
        "90 min",
        "61 s",
        "7 ms",
    ]
    limits = {"retention.ms": "1000", "retention.bytes": "1048576"}
    assert retention_in_words(limits) == "1 s or 1.0 MiB"
    assert retention_in_words({**limits, "cleanup.policy": "compact"}) == "newest of a key"
    assert [in_units(size) for size in (0, 1023, 1024, 1 << 40, 1 << 52)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 TiB",
        "4096.0 TiB",
    ]
    assert at_time(-1) == "-"
    assert at_time(2**63 - 1).startswith("292278994-08-17"), "records may claim any time"


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """A Kafka shore over a log in memory, behind a real socket, one connection at a time."""
    room = ShoreRoom()
    room.log.create("a", 2, {})

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            peer = room.peer()
            with connection:
                while data := connection.recv(1 << 16):
                    peer.feed(data)
                    room.runtime.settle()
                    connection.sendall(bytes(peer.transport.sent))
                    peer.transport.sent.clear()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def server_at(host: str, port: int) -> KafkaServer:
    return KafkaServer(Address("tcp", host, port))


def test_sizes_come_over_a_socket(address: tuple[str, int]) -> None:
    assert sizes_of(server_at(*address), [address]) == {("a", 0): 0, ("a", 1): 0}


def test_a_server_that_does_not_tell_sizes(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = closed.getsockname()
    assert sizes_of(server_at(*nowhere), [nowhere]) == {}
    monkeypatch.setattr(log_dirs, "VERSION_MAX", 0)
    assert sizes_of(server_at(*address), [address]) == {}
