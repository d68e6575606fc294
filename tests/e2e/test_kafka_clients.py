"""Every Kafka client produces and reads over the Kafka shore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.e2e.kafka_libraries import create_topic
from tests.e2e.kafka_programs import ALL_PROGRAMS, payloads_for
from tests.e2e.kafka_record import BYTES_MAX, KafkaProgram, Record

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores


@pytest.mark.parametrize("program", ALL_PROGRAMS, ids=lambda program: program.name)
def test_payloads_and_headers_come_back_as_produced(
    program: KafkaProgram, shores: Shores, unique: str
) -> None:
    if program.missing():
        pytest.skip(program.missing())
    create_topic(shores.kafka, unique, **{"max.message.bytes": str(BYTES_MAX)})
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
        for program in ALL_PROGRAMS
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
