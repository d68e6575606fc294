"""Much data at once: whole and in order, out of memory, out of files or from the disk."""

from __future__ import annotations

import random
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.e2e import raw_kafka
from tests.e2e.kafka_commands import JavaConsole
from tests.e2e.kafka_libraries import (
    AioKafka,
    ConfluentKafka,
    KafkaPython,
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
)
from tests.e2e.patience import TIMEOUT_S

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from tests.e2e.server_process import Address, ServerProcess

RECORDS = 12_000
FETCH_BYTES = 8 << 20
READERS = (ConfluentKafka(), AioKafka(), KafkaPython(), JavaConsole())


def fill(server: Address, log_topic: str) -> list[bytes]:
    """Produce 12 MB in batches of 30 KB and return the values."""
    chance = random.Random(35)
    values = [
        b"%d " % number + chance.randbytes(500).hex().encode() for number in range(RECORDS)
    ]
    create_topic(server, log_topic)
    producer = confluent_producer(server, **{"batch.num.messages": 30})
    for value in values:
        producer.produce(log_topic, value)
    assert producer.flush(TIMEOUT_S) == 0
    return values


def read_by_all(server: Address, log_topic: str, values: Sequence[bytes]) -> None:
    """Let clients of four kinds read it at the same time, checking every checksum."""
    readers = [reader for reader in READERS if not reader.missing()]

    def read(reader: ConfluentKafka | AioKafka | KafkaPython | JavaConsole) -> list[bytes]:
        return [record.value for record in reader.consume(server, log_topic, RECORDS)]

    with ThreadPoolExecutor(len(readers)) as pool:
        for reader, found in zip(readers, pool.map(read, readers), strict=True):
            assert found == values, reader.name


def test_all_is_read_while_it_is_new_and_after_a_restart(fresh_server: ServerProcess) -> None:
    server = fresh_server
    values = fill(server.kafka, "large")
    read_by_all(server.kafka, "large", values)
    server.terminate()
    server.start()
    read_by_all(server.kafka, "large", values)
    read_by_all(server.kafka, "large", values)


def ask(connection: socket.socket, log_topic: str, offset: int) -> None:
    """Send a Fetch (version 4) of one partition."""
    name = log_topic.encode()
    body = struct.pack(">iiiibi", -1, 0, 1, FETCH_BYTES, 0, 1)
    body += (
        struct.pack(">h", len(name)) + name + struct.pack(">iiqi", 1, 0, offset, FETCH_BYTES)
    )
    connection.sendall(raw_kafka.request(raw_kafka.FETCH, 4, body))


def test_readers_that_take_nothing_are_in_nobodys_way(fresh_server: ServerProcess) -> None:
    server = fresh_server
    values = fill(server.kafka, "large")
    stalled = [raw_kafka.connect(server.kafka) for _ in range(40)]
    before = server.rss_bytes()
    for connection in stalled:
        ask(connection, "large", 0)
        connection.sendall(raw_kafka.request(raw_kafka.API_VERSIONS, 0))
    consumer = confluent_consumer(server.kafka, **{"check.crcs": True})
    consumer.subscribe(["large"])
    assert [message.value() for message in poll_records(consumer, RECORDS)] == values
    consumer.close()
    assert server.rss_bytes() - before < 64 << 20, "of 40 times 8 MB that wait"
    for connection in stalled[::2]:
        connection.close()
    answers = {raw_kafka.receive(connection) for connection in stalled[1::2]}
    assert len(answers) == 1, "all get the same"
    assert len(answers.pop()) > FETCH_BYTES // 2
    assert raw_kafka.receive(stalled[1])[4:6] == b"\0\0", "and then the answer to ApiVersions"
    for connection in stalled[1::2]:
        connection.close()
    assert server.is_running()
