"""Every Kafka client produces and reads over the Kafka shore."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from tests.e2e.kafka_programs import KAFKA_PROGRAMS, KafkaProgram, Record
from tests.e2e.server_process import Address, text_of

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

MEBIBYTE = 1 << 20
EVERY_BYTE = bytes(range(256))


def create_topic(server: Address, log_topic: str, partitions: int = 1, **config: str) -> None:
    """Create a log topic and return once a client can see it."""
    admin = AdminClient({"bootstrap.servers": text_of(server)})
    admin.create_topics([NewTopic(log_topic, partitions, config=config)])[log_topic].result(10)
    end = time.monotonic() + 10
    while log_topic not in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < end, f"{log_topic} was created and does not show"


def payloads_for(program: KafkaProgram) -> list[bytes]:
    """Return payloads of 0 B, 1 B, 1 MiB and binary, as far as the program can express them."""
    if program.text_only:
        return [
            b"",
            b"x",
            random.Random(1).choices(b"abcdefgh", k=1).pop().to_bytes() * MEBIBYTE,
        ]
    return [b"", b"\x00", random.Random(1).randbytes(MEBIBYTE), EVERY_BYTE]


@pytest.mark.parametrize("program", KAFKA_PROGRAMS, ids=lambda program: program.name)
def test_payloads_and_headers_come_back_as_produced(
    program: KafkaProgram, shores: Shores, unique: str
) -> None:
    if program.missing():
        pytest.skip(program.missing())
    create_topic(shores.kafka, unique)
    records = [
        Record(b"key", payload, (("unit", b"C"), ("unit", b"K"), ("line", b"3")))
        for payload in payloads_for(program)
    ]
    program.produce(shores.kafka, unique, records)
    assert program.consume(shores.kafka, unique, len(records)) == records


@pytest.mark.parametrize(
    ("program", "codec"),
    [
        pytest.param(program, codec, id=f"{program.name}-{codec}")
        for program in KAFKA_PROGRAMS
        for codec in program.codecs
    ],
)
def test_a_compressed_batch_comes_back(
    program: KafkaProgram, codec: str, shores: Shores, unique: str
) -> None:
    if program.missing():
        pytest.skip(program.missing())
    create_topic(shores.kafka, unique)
    records = [Record(b"key", b"%04d " % number * 20) for number in range(50)]
    program.produce(shores.kafka, unique, records, codec)
    assert program.consume(shores.kafka, unique, len(records)) == records
