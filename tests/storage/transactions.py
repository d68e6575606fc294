"""A plain model of transactions: what a partition's batches say of them, from the front on.

A transaction begins with a producer's first transactional batch and ends with its marker. The
engine keeps this up to date through appends, failures and crashes, in tables, snapshots and
index files; here it is read off the batches, all of them, whenever somebody asks.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from isthmus.record.batch import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARKER = struct.Struct(">hh")  # version, kind: 0 aborts, 1 commits


class Aborted(NamedTuple):
    """One aborted transaction."""

    producer_id: int
    first_offset: int
    last_offset: int  # of its marker


class Transactions(NamedTuple):
    """All that is known of them."""

    aborted: list[Aborted]  # in the order of their markers
    open: dict[int, int]  # first offsets, by producer id
    aborted_batches: set[int]  # base offsets of the batches in aborted transactions


def read_transactions(batches: Mapping[int, bytes]) -> Transactions:
    """Return what batches say, given by base offset; markers that end nothing say nothing."""
    found = Transactions([], {}, set())
    bases: dict[int, list[int]] = {}
    for base, raw in sorted(batches.items()):
        batch = RecordBatch(memoryview(raw))
        if not batch.is_transactional:
            continue
        producer = batch.producer_id
        if not batch.is_control:
            found.open.setdefault(producer, base)
            bases.setdefault(producer, []).append(base)
            continue
        for record in batch.records():
            assert record.key is not None
            first, data = found.open.pop(producer, -1), bases.pop(producer, [])
            if first >= 0 and _MARKER.unpack(record.key)[1] == 0:
                found.aborted.append(Aborted(producer, first, base))
                found.aborted_batches.update(data)
    return found
