"""What a share group knows of one partition; any history of it is in tests/property."""

from __future__ import annotations

import pytest

from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.share_partition import (
    AckBatch,
    AckRefused,
    AckType,
    Acquisition,
    Offsets,
    RecordState,
    ShareLimits,
    SharePartition,
    StateBatch,
)

LIMITS = ShareLimits(deliveries_max=2, locks_max=13, lock_ms=100)
LOG = [Offsets(0, 3), Offsets(4, 5), Offsets(6, 12)]


def shared() -> SharePartition:
    return SharePartition(0, lambda: LIMITS)


def offered(partition: SharePartition, count: int, **how: object) -> list[tuple[int, ...]]:
    wish = Acquisition("m", count, **how)  # type: ignore[arg-type]
    read = [one for one in LOG if one.last >= partition.next_offset()]
    return [tuple(one) for one in partition.acquire(wish, read, 0)]


def test_a_wish_is_rounded_up_to_whole_batches_unless_it_is_exact() -> None:
    assert offered(shared(), 2, batch_records=9) == [(0, 3, 1)]
    assert offered(shared(), 2, batch_records=9, is_exact=True) == [(0, 1, 1)]


def test_what_is_given_is_cut_where_batches_end() -> None:
    assert offered(shared(), 13, batch_records=1) == [(0, 3, 1), (4, 5, 1), (6, 12, 1)]
    assert offered(shared(), 13, batch_records=5) == [(0, 5, 1), (6, 12, 1)]


def test_a_batch_that_is_larger_than_the_limit_is_given_out_in_parts() -> None:
    partition = SharePartition(0, lambda: LIMITS._replace(locks_max=9))
    assert offered(partition, 13, batch_records=13) == [(0, 8, 1)]
    assert offered(partition, 13) == []


def test_no_more_is_given_out_while_there_are_too_many_locks() -> None:
    partition = shared()
    offered(partition, 13)
    assert not partition.has_room()
    partition.acknowledge("m", [AckBatch(4, 5, [AckType.RELEASE])], 0)
    assert offered(partition, 1, is_exact=True) == [(4, 4, 2)]


def test_what_a_crash_took_from_the_log_is_not_done_with() -> None:
    partition = shared()
    offered(partition, 6)
    partition.acknowledge("m", [AckBatch(4, 5, [AckType.ACCEPT])], 0)
    assert partition.take_unstored() == (0, [StateBatch(4, 5, RecordState.ACKNOWLEDGED, 1)])
    partition.fit(0, 4)
    assert partition.is_rewritten
    assert partition.snapshot() == []
    assert partition.end_offset == 4


def test_one_type_for_each_record_or_one_for_all() -> None:
    partition = shared()
    offered(partition, 4)
    said = [AckType.ACCEPT, AckType.GAP, AckType.RELEASE, AckType.RENEW]
    partition.acknowledge("m", [AckBatch(0, 3, said)], 50)
    assert partition.start_offset == 2
    assert [run[:4] for run in partition.runs] == [
        (2, 2, RecordState.AVAILABLE, 1),
        (3, 3, RecordState.ACQUIRED, 1),
    ]
    assert not partition.tick(149)
    assert partition.tick(150)


def test_who_does_not_have_a_record_cannot_say_what_becomes_of_it() -> None:
    partition = shared()
    offered(partition, 4)
    for member, last, code in (
        ("other", 3, ErrorCode.INVALID_RECORD_STATE),
        ("m", 4, ErrorCode.INVALID_REQUEST),
    ):
        with pytest.raises(AckRefused) as refused:
            partition.acknowledge(member, [AckBatch(0, last, [AckType.ACCEPT])], 0)
        assert refused.value.code is code
    assert partition.take_unstored() == (0, [])
