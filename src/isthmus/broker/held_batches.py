"""Batches of open Kafka transactions, held back from MQTT subscribers until their markers come.

What a transaction wrote reaches subscribers when it commits, never when it aborts [DESIGN 2].
Held is only from where to where its batches lie; when the marker is written they are read
again, which waits for the disk where memory no longer has them. A transaction that is open when
the server starts is found again by its producer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from isthmus.errors import IsthmusError
from isthmus.record.markers import read_marker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Log, Partition

logger = logging.getLogger(__name__)


class HeldBatches:
    """The first and the last batch of each open transaction, by partition and producer id."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[tuple[Partition, int], tuple[int, int]] = {}

    def __len__(self) -> int:
        """Return how many transactions have batches held back."""
        return len(self._held)

    def hold(self, partition: Partition, batch: RecordBatch) -> None:
        """Keep the place of a batch that is written and undecided."""
        key = partition, batch.producer_id
        first, _ = self._held.get(key, (batch.base_offset, -1))
        self._held[key] = first, batch.base_offset

    def release(self, partition: Partition, marker: RecordBatch) -> Iterator[RecordBatch]:
        """Return what a marker commits, in order; nothing where it aborts.

        What cannot be read is told of in the log and left out.
        """
        held = self._held.pop((partition, marker.producer_id), None)
        try:
            said = read_marker(marker)
            if held is None or said is None or not said.commits:
                return
            first, last = held
            for batch in partition.batches(max(first, partition.start_offset)):
                if batch.base_offset > last:
                    return
                if batch.producer_id == marker.producer_id and batch.base_offset >= first:
                    yield batch
        except IsthmusError as error:
            logger.warning(
                "transaction not delivered log_topic=%s partition=%d marker=%d error=%s",
                partition.log_topic,
                partition.index,
                marker.base_offset,
                error,
            )

    def find(self, partition: Partition) -> None:
        """Find what is open, at the start. Raises StorageError."""
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
                self.hold(partition, batch)

    def forget(self, log: Log) -> None:
        """Forget the partitions that `log` has no more."""
        for key in list(self._held):
            partition = key[0]
            if log.partition(partition.log_topic, partition.index) is not partition:
                del self._held[key]
