"""Where the batches of open Kafka transactions lie, until their markers come.

What a transaction wrote reaches MQTT subscribers when it commits, never when it aborts
[DESIGN 2]. Held is only from where to where its batches lie; when the marker is written they
are read again, by relays.py, or at the start by session_recovery.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import CorruptBatch
from isthmus.record.markers import read_marker

if TYPE_CHECKING:
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition


class HeldBatches:
    """The first and the last batch of each open transaction of a partition, by producer id."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        """Return how many transactions have batches held back."""
        return len(self._held)

    def hold(self, batch: RecordBatch) -> None:
        """Keep the place of a batch that is undecided."""
        first, _ = self._held.get(batch.producer_id, (batch.base_offset, -1))
        self._held[batch.producer_id] = first, batch.base_offset

    def take(self, marker: RecordBatch) -> tuple[int, int] | None:
        """Return between which base offsets lies what a marker commits; None for nothing."""
        held = self._held.pop(marker.producer_id, None)
        try:
            said = read_marker(marker)
        except CorruptBatch:  # of a kind that ends no transaction
            return None
        return held if said is not None and said.commits else None

    def oldest(self) -> int | None:
        """Return where the first of them begins."""
        return min((first for first, _ in self._held.values()), default=None)

    def drop_before(self, offset: int) -> None:
        """Forget what is deleted, and the markers with it."""
        self._held = {each: held for each, held in self._held.items() if held[1] >= offset}

    def find(self, partition: Partition) -> None:
        """Find what is open, at the start; waits for the disk. Raises StorageError."""
        began = {
            producer_id: producer.transaction_start
            for producer_id, producer in partition.producers
            if producer.transaction_start >= 0
        }
        if not began:
            return
        first = max(min(began.values()), partition.start_offset)
        for batch in partition.batches(first):
            start = began.get(batch.producer_id)
            if start is not None and batch.base_offset >= start and batch.is_transactional:
                self.hold(batch)
