"""A compacted log topic, read from the beginning by every Kafka client, before and after.

Also right on Apache Kafka, which looks for something to compact every 15 s, too.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import confluent_kafka
import pytest
from tests.e2e.kafka_libraries import (
    ConfluentKafka,
    confluent_consumer,
    create_topic,
)
from tests.e2e.kafka_programs import ALL_PROGRAMS
from tests.e2e.kafka_record import Record
from tests.e2e.patience import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores
    from tests.e2e.server_process import Address

KEYS = 40
ROUNDS = 90
CODECS = ("none", "gzip")  # those that every program knows

Row = tuple[int, Record]


def rows_in(server: Address, log_topic: str) -> list[Row]:
    """Return (offset, record) of all that a consumer from the beginning gets."""
    consumer = confluent_consumer(server, **{"enable.partition.eof": True})
    consumer.assign(
        [confluent_kafka.TopicPartition(log_topic, 0, confluent_kafka.OFFSET_BEGINNING)]
    )
    rows: list[Row] = []
    try:
        while True:
            message = consumer.poll(TIMEOUT_S)
            assert message is not None, f"no end after {len(rows)} records"
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF
                return rows
            rows.append((message.offset(), Record(message.key(), message.value())))
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def compacted(shores: Shores) -> tuple[str, list[Row]]:
    """Return a log topic that was compacted while it was read, and what is left in it."""
    log_topic = "compacted"
    create_topic(
        shores.kafka,
        log_topic,
        **{
            "cleanup.policy": "compact",
            "segment.bytes": "1048576",
            "min.cleanable.dirty.ratio": "0.01",
        },
    )
    written: list[Record] = []
    chance = random.Random(1)  # what cannot be compressed fills segments whatever the codec
    for number, codec in enumerate(CODECS):
        records = [
            Record(b"key %02d" % key, b"%d %d " % (number, turn) + chance.randbytes(900))
            for turn in range(ROUNDS // len(CODECS))
            for key in range(KEYS)
        ]
        ConfluentKafka().produce(shores.kafka, log_topic, records, codec)
        written += records
    newest = {record.key: record for record in written}
    everything = dict(enumerate(written))
    found: list[list[Row]] = []

    def is_compacted() -> bool:
        rows = rows_in(shores.kafka, log_topic)
        assert {record.key: record for _, record in rows} == newest
        assert rows == [(offset, everything[offset]) for offset, _ in rows]
        assert [offset for offset, _ in rows] == sorted({offset for offset, _ in rows})
        found.append(rows)
        return len(rows) < len(written) // 2 and found[-2:-1] == found[-1:]

    wait_until(is_compacted, "that nothing more is compacted away")
    assert len(found[0]) == len(written), "it was read before, too"
    return log_topic, found[-1]


@pytest.mark.parametrize("program", ALL_PROGRAMS, ids=lambda program: program.name)
def test_clients_read_over_the_gaps(
    program: ConfluentKafka, shores: Shores, compacted: tuple[str, list[Row]]
) -> None:
    if program.missing():
        pytest.skip(program.missing())
    log_topic, rows = compacted
    read = program.consume(shores.kafka, log_topic, len(rows))
    assert [(each.key, each.value) for each in read] == [
        (record.key, record.value) for _, record in rows
    ]
