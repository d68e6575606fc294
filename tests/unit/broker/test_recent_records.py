"""Records read back for deliveries that waited: few reads, bounded memory, gaps and losses."""

from __future__ import annotations

from typing import Any

from isthmus.broker import recent_records
from isthmus.broker.recent_records import LOADING, RecentRecords
from isthmus.errors import CorruptBatch, OffsetOutOfRange
from isthmus.record.batch import BatchBuilder
from isthmus.storage.log import Records


class FakePartition:
    """Batches of ten records, and how often they were read."""

    def __init__(self, batches: int = 10, value: bytes = b"") -> None:
        self.reads = 0
        self.start_offset = 0
        self.is_cold = False
        self.damaged = False
        self.stored = []
        builder = BatchBuilder()
        for number in range(batches):
            for place in range(10):
                builder.append(0, None, value or b"%d" % (number * 10 + place))
            batch = builder.seal()
            batch.stamp(number * 10, 0)
            self.stored.append(batch.data)

    def read(self, offset: int, bytes_max: int) -> Records:
        if offset < self.start_offset:
            raise OffsetOutOfRange("gone")
        if self.damaged:
            raise CorruptBatch("nothing is readable")
        if self.is_cold:
            return Records(is_loading=True)
        self.reads += 1
        return Records(self.stored[offset // 10 : offset // 10 + 2])


def values(records: RecentRecords, partition: Any, offsets: range) -> list[bytes | None]:
    found = [records.at(partition, offset) for offset in offsets]
    return [record.value if record is not None else None for record in found]


def test_a_walk_reads_each_batch_once() -> None:
    records, partition = RecentRecords(), FakePartition()
    assert values(records, partition, range(100)) == [b"%d" % number for number in range(100)]
    assert partition.reads == 5


def test_walks_in_different_places_do_not_disturb_each_other() -> None:
    records, partitions = RecentRecords(), [FakePartition() for _ in range(20)]
    for offset in range(20):
        for partition in partitions:
            record = records.at(partition, offset)
            assert record is not None
            assert record.value == b"%d" % offset
    assert [partition.reads for partition in partitions] == [1] * 20


def test_what_is_gone_is_none() -> None:
    records, partition = RecentRecords(), FakePartition()
    partition.start_offset = 50
    assert records.at(partition, 49) is None
    assert records.at(partition, 50) is not None
    partition.stored = []
    assert records.at(partition, 90) is None


def test_what_is_on_its_way_from_the_disk_is_neither_there_nor_gone() -> None:
    records, partition = RecentRecords(), FakePartition()
    partition.is_cold = True
    assert records.at(partition, 5) is LOADING  # type: ignore[arg-type]
    partition.is_cold = False
    assert values(records, partition, range(5, 7)) == [b"5", b"6"]


def test_what_is_damaged_is_none() -> None:
    records, partition = RecentRecords(), FakePartition()
    partition.damaged = True
    assert records.at(partition, 5) is None  # type: ignore[arg-type]


def test_memory_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(recent_records, "BYTES_MAX", 5000)
    records = RecentRecords()
    for _ in range(50):
        records.at(FakePartition(1, bytes(100)), 0)
    assert len(records._windows) < 5


def test_what_a_producer_wrote_unreadably_is_skipped(caplog: Any) -> None:
    records, partition = RecentRecords(), FakePartition(2)
    data = bytearray(partition.stored[0])
    data[70:75] = b"\xff" * 5
    partition.stored[0] = memoryview(data)
    assert records.at(partition, 3) is None
    assert "batch not readable" in caplog.text
