"""What compaction keeps of each batch: the rules of Apache Kafka's `Cleaner`, without files.

A record stays if it is the newest of its key, or newer than what was looked at. The newest of
its key may be a *tombstone*, a record without value: it stays until `delete.retention.ms` after
it was first cleaned, so that a reader who began before sees that the key ended; then it goes
too. The moment is written into the batch (the delete horizon, KIP-534), so it outlives
restarts. A record without key can never be replaced, and goes.

Transactions: the records of an aborted one go. A marker stays as long as a batch of its
transaction does, and then as long as a tombstone.

A batch that lost all its records goes as well, but for two kinds of which the header stays:
- the last batch of a producer that is still known, so that the sequence numbers of a producer
  can be learnt from the log alone;
- the last batch of all that is cleaned, so that the end of it does not move: a reader up to a
  limit behind it always finds something before the limit.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from isthmus.record.batch import RecordBatch
from isthmus.record.markers import read_marker
from isthmus.record.rebuild import (
    StoredRecord,
    delete_horizon,
    emptied,
    rebuilt,
    stored_records,
)
from isthmus.storage.aborted import AbortedIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isthmus.storage.aborted import AbortedTransaction
    from isthmus.storage.local.offset_map import OffsetMap
    from isthmus.storage.producers import Producer


class Transactions:
    """Follows the transactions through one walk over the log from its beginning."""

    __slots__ = ("_aborted", "_ahead", "_committed", "kept")

    def __init__(self, aborted: Iterable[AbortedTransaction]) -> None:
        """`aborted`: all that began in what is walked over."""
        self._ahead = deque(sorted(aborted, key=lambda row: row.first_offset))
        self._aborted: dict[int, tuple[AbortedTransaction, bool]] = {}  # was there a batch
        self._committed: set[int] = set()  # producers whose transaction had a batch
        self.kept = AbortedIndex()  # aborted transactions that still have batches

    def is_aborted(self, batch: RecordBatch) -> bool:
        """Take note of a batch of records; whether its transaction was aborted."""
        self._begin(batch.last_offset)
        if not batch.is_transactional:
            return False
        row, _ = self._aborted.get(batch.producer_id, (None, False))
        if row is None or row.last_offset < batch.base_offset:
            self._committed.add(batch.producer_id)
            return False
        self._aborted[batch.producer_id] = row, True
        return True

    def is_needless(self, marker: RecordBatch) -> bool:
        """Take note of a marker; whether nothing of its transaction was there."""
        self._begin(marker.last_offset)
        said = read_marker(marker)
        if said is None:
            return True  # only its header was left already
        if said.commits:
            needless = marker.producer_id not in self._committed
            self._committed.discard(marker.producer_id)
            return needless
        row, had_batch = self._aborted.pop(marker.producer_id, (None, False))
        if row is not None and had_batch:
            self.kept.append(row)
        return not had_batch

    def take_kept(self) -> AbortedIndex:
        """Return those kept since the last call."""
        kept, self.kept = self.kept, AbortedIndex()
        return kept

    def _begin(self, offset: int) -> None:
        """Transactions that begin up to `offset` have begun."""
        while self._ahead and self._ahead[0].first_offset <= offset:
            row = self._ahead.popleft()
            self._aborted[row.producer_id] = row, False


class Cleaner:
    """Cleans batches one after the other, from the beginning of the log on."""

    __slots__ = (
        "_end_offset",
        "_latest",
        "_newest",
        "_now_ms",
        "_producers",
        "_retention_ms",
        "_transactions",
    )

    def __init__(
        self,
        newest: OffsetMap,
        latest: int,
        transactions: Transactions,
        producers: Mapping[int, Producer],
        *,
        end_offset: int,
        now_ms: int,
        retention_ms: int,
    ) -> None:
        """`newest` was filled up to the offset `latest`; the walk ends at `end_offset`."""
        self._newest = newest
        self._latest = latest
        self._transactions = transactions
        self._producers = producers
        self._end_offset = end_offset
        self._now_ms = now_ms
        self._retention_ms = retention_ms

    def clean(self, batch: RecordBatch) -> RecordBatch | None:
        """Return what is left: the very batch, another in its place, or None.

        Raises CorruptBatch for records that cannot be read.
        """
        horizon_ms = delete_horizon(batch)
        is_over = horizon_ms is not None and horizon_ms <= self._now_ms
        is_needless = False
        if batch.is_control:
            is_needless = self._transactions.is_needless(batch)
            is_dropped = is_needless and is_over
        else:
            is_dropped = self._transactions.is_aborted(batch)
        if is_dropped and not self._must_stay(batch):
            return None
        kept: list[StoredRecord] = []
        if not is_dropped:
            kept = [
                record
                for record in stored_records(batch)
                if batch.is_control or self._is_kept(record, is_over=is_over)
            ]
        if not kept:
            if not self._must_stay(batch):
                return None
            return RecordBatch(emptied(batch)) if batch.count else batch
        if horizon_ms is None and (is_needless or not all(record.has_value for record in kept)):
            return RecordBatch(rebuilt(batch, kept, self._now_ms + self._retention_ms))
        if len(kept) < batch.count:
            return RecordBatch(rebuilt(batch, kept))
        return batch

    def _is_kept(self, record: StoredRecord, *, is_over: bool) -> bool:
        if record.offset > self._latest:
            return True
        if record.key is None or record.offset < self._newest.get(record.key):
            return False
        return record.has_value or not is_over

    def _must_stay(self, batch: RecordBatch) -> bool:
        """Whether the header of a batch is needed even without records."""
        if batch.next_offset == self._end_offset:
            return True
        producer = self._producers.get(batch.producer_id)
        if producer is None:
            return False
        if producer.batches:
            return batch.last_offset == producer.batches[-1].last_offset
        return batch.is_control and batch.producer_epoch == producer.epoch
