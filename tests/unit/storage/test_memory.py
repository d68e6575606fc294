"""The memory engine obeys `retention.bytes`, by whole batches."""

from __future__ import annotations

import pytest
from tests.sim import SimRuntime

from isthmus.errors import OffsetOutOfRange
from isthmus.record.batch import BatchBuilder
from isthmus.storage.memory import MemoryLog, MemoryPartition


def partition_with(configs: dict[str, str], sizes: list[int]) -> MemoryPartition:
    """Return a partition with one batch of each size, committed one by one."""
    runtime = SimRuntime()
    log = MemoryLog(runtime)
    partition = log.create("t", 1, configs).partitions[0]
    for size in sizes:
        builder = BatchBuilder()
        builder.append(runtime.now_ms(), None, bytes(size))
        partition.append(builder.seal(), None)
        log.flush()
    return partition


def test_the_oldest_batches_go() -> None:
    partition = partition_with({"retention.bytes": "1000"}, [300] * 10)
    assert partition.end_offset == 10
    assert 0 < partition.size_bytes <= 1000
    assert partition.start_offset == 10 - len(list(partition.batches(0)))
    assert partition.read(partition.start_offset, 1 << 20).end_offset == 10
    with pytest.raises(OffsetOutOfRange):
        partition.read(partition.start_offset - 1, 1)


def test_the_newest_batch_stays_whatever_its_size() -> None:
    partition = partition_with({"retention.bytes": "1000"}, [300, 5000])
    assert (partition.start_offset, partition.end_offset) == (1, 2)


@pytest.mark.parametrize(
    "configs", [{}, {"retention.bytes": "1000", "cleanup.policy": "compact"}]
)
def test_nothing_goes_where_nothing_is_to_go(configs: dict[str, str]) -> None:
    partition = partition_with({**configs}, [300] * 10)
    assert partition.start_offset == 0
