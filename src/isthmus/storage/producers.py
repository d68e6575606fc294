"""What each producer last wrote to a partition (KIP-98), so that retries stay single and
transactions are known.

A producer numbers its records per partition; a batch sent twice carries the same numbers. Kept
here are, per producer id, its epoch and its last five batches: enough to answer any retry of a
client with five requests in flight with the offset of the first time. Everything is learnt from
batches, so the table can be rebuilt by walking the log.

The rules, as Apache Kafka has them (`ProducerStateManager`, `ProducerAppendInfo`):
- the same epoch and the same sequence range as one of the five: a duplicate, answered as
  before;
- an epoch lower than the newest seen: ProducerFenced;
- a new epoch must begin at sequence 0; within an epoch there may be no gap, and 2^31-1 is
  followed by 0: else OutOfOrderSequence;
- a producer id that is not in the table may begin anywhere, because its history may have been
  deleted with old segments (Kafka >= 2.5, KIP-360);
- a transaction is open from its first batch to the marker that ends it; what the producer
  writes meanwhile belongs to it: else TransactionStateInvalid;
- a marker may come from any epoch but an older one, and with a newer one the sequence begins
  anew (KIP-890); a coordinator's epoch older than the newest seen: CoordinatorFenced. A marker
  that ends nothing is stored like any other and leaves no trace among the transactions.

The table is changed when a batch is queued, before it is written, because the next batch of
the same turn builds on it; `settle` and `roll_back` end that. The snapshot is Kafka's
`.snapshot` format with one liberty: a producer has up to five rows, oldest first. Kafka
writes one, and reads ours right because a later row replaces an earlier one; we lose no
memory of retries by a restart.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.errors import (
    CoordinatorFenced,
    CorruptBatch,
    OutOfOrderSequence,
    ProducerFenced,
    TransactionStateInvalid,
)
from isthmus.record.markers import read_marker
from isthmus.storage.aborted import AbortedTransaction
from isthmus.storage.transactions import OpenTransactions
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.record.batch import RecordBatch
    from isthmus.record.markers import EndMarker

BATCHES_KEPT: Final = 5
SEQUENCE_MAX: Final = 2**31 - 1
PRODUCERS_MAX: Final = 100_000  # per partition; the longest unused one makes room

_SNAPSHOT_VERSION: Final = 1
_SNAPSHOT_HEAD = struct.Struct(">hI")  # version, CRC-32C of what follows
_SNAPSHOT_COUNT = struct.Struct(">i")
_SNAPSHOT_ROW = struct.Struct(">qhiqiqiq")

logger = logging.getLogger(__name__)


class SentBatch(NamedTuple):
    """One remembered batch."""

    first_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int


class Producer(NamedTuple):
    """What is known of one producer id; replaced as a whole, never changed."""

    epoch: int
    batches: tuple[SentBatch, ...]
    timestamp: int  # of its newest batch or marker
    coordinator_epoch: int
    transaction_start: int  # offset of the first record of its open transaction, or -1

    @property
    def last_sequence(self) -> int:
        """The newest sequence number, or -1 where none is remembered."""
        return self.batches[-1].last_sequence if self.batches else -1


class ProducerTable:
    """The producers of one partition."""

    __slots__ = (
        "_before",
        "_producers",
        "_producers_max",
        "_transactions",
        "_unsettled_from",
        "aborted",
    )

    def __init__(self, producers_max: int = PRODUCERS_MAX) -> None:
        self.aborted: list[AbortedTransaction] = []  # since `settle`, in order of the markers
        self._producers: dict[int, Producer] = {}  # ordered by last use
        self._before: dict[int, Producer | None] = {}  # as it was when all was settled
        self._unsettled_from = -1  # the first offset admitted since then
        self._transactions = OpenTransactions()
        self._producers_max = producers_max

    def __len__(self) -> int:
        return len(self._producers)

    def __iter__(self) -> Iterator[tuple[int, Producer]]:
        """Pairs of producer id and what is known of it, the longest unused first."""
        return iter(self._producers.items())

    def get(self, producer_id: int) -> Producer | None:
        """Return what is known of one producer id."""
        return self._producers.get(producer_id)

    # --- appending ----------------------------------------------------------------------------

    def admit(self, batch: RecordBatch, base_offset: int) -> SentBatch | None:
        """Take in a batch that is to be stored at `base_offset`, or return its first storing.

        Raises ProducerFenced, OutOfOrderSequence, TransactionStateInvalid, CoordinatorFenced,
        CorruptBatch; then nothing has changed. A batch without sequence numbers (written by a
        coordinator) is only fenced.
        """
        known = self._producers.get(batch.producer_id)
        marker = read_marker(batch) if batch.is_control else None
        if known is not None:
            if batch.base_sequence >= 0:
                sent = self._find_duplicate(known, batch)
                if sent is not None:
                    return sent
            self._check(known, batch, marker)
        self._before.setdefault(batch.producer_id, known)
        if self._unsettled_from < 0:
            self._unsettled_from = base_offset
        self._take(batch, base_offset, known, marker)
        return None

    def settle(self) -> None:
        """What was admitted since the last call is in the log, and `aborted` is noted."""
        self._forget_before()

    def roll_back(self) -> None:
        """What was admitted since the last `settle` was not written: forget it."""
        if self._unsettled_from < 0:
            return
        for producer_id, known in self._before.items():
            if known is None:
                self._producers.pop(producer_id, None)
            else:
                self._producers[producer_id] = known
        self._transactions.cut(self._unsettled_from)
        self._forget_before()

    def replay(self, batch: RecordBatch) -> None:
        """Take in a stored batch without checking it: the log has decided already."""
        if batch.producer_id < 0:
            return
        marker = None
        if batch.is_control:
            try:
                batch.verify()  # a flipped bit must not turn an abort into a commit
                marker = read_marker(batch)
            except CorruptBatch as error:
                logger.warning(
                    "the marker at offset %d ends nothing: %s", batch.base_offset, error
                )
                return
        known = self._producers.get(batch.producer_id)
        self._take(batch, batch.base_offset, known, marker)

    @staticmethod
    def _find_duplicate(known: Producer, batch: RecordBatch) -> SentBatch | None:
        if batch.producer_epoch != known.epoch:
            return None
        first, last = batch.base_sequence, batch.last_sequence
        for sent in known.batches:
            if sent.first_sequence == first and sent.last_sequence == last:
                return sent
        return None

    def _check(self, known: Producer, batch: RecordBatch, marker: EndMarker | None) -> None:
        producer_id = batch.producer_id
        if batch.producer_epoch < known.epoch:
            raise ProducerFenced(
                f"producer {producer_id} has epoch {known.epoch}, "
                f"the batch has {batch.producer_epoch}"
            )
        if marker is not None and marker.coordinator_epoch < known.coordinator_epoch:
            raise CoordinatorFenced(
                f"a marker for producer {producer_id} has coordinator epoch "
                f"{marker.coordinator_epoch}, {known.coordinator_epoch} was seen"
            )
        if batch.base_sequence >= 0:
            self._check_sequence(known, batch)
        if known.transaction_start >= 0 and not batch.is_transactional:
            raise TransactionStateInvalid(
                f"producer {producer_id} has an open transaction, "
                "the batch does not belong to one"
            )

    @staticmethod
    def _check_sequence(known: Producer, batch: RecordBatch) -> None:
        if batch.producer_epoch > known.epoch or known.last_sequence == SEQUENCE_MAX:
            wanted = 0
        else:
            wanted = known.last_sequence + 1
        if batch.base_sequence != wanted:
            raise OutOfOrderSequence(
                f"producer {batch.producer_id} (epoch {batch.producer_epoch}) sent sequence "
                f"{batch.base_sequence}, {wanted} was next"
            )

    def _take(
        self,
        batch: RecordBatch,
        base_offset: int,
        known: Producer | None,
        marker: EndMarker | None,
    ) -> None:
        producer_id, epoch = batch.producer_id, batch.producer_epoch
        batches: tuple[SentBatch, ...] = ()
        coordinator_epoch = start = -1
        if known is not None:
            coordinator_epoch, start = known.coordinator_epoch, known.transaction_start
            if known.epoch == epoch:
                batches = known.batches
            del self._producers[producer_id]  # comes back at the end: ordered by last use
        elif len(self._producers) >= self._producers_max:
            self._make_room()
        if marker is not None:
            coordinator_epoch = marker.coordinator_epoch
            if start >= 0:
                stable = self._transactions.decide(producer_id, base_offset)
                if not marker.commits:
                    aborted = AbortedTransaction(producer_id, start, base_offset, stable)
                    self.aborted.append(aborted)
                start = -1
        elif not batch.is_control:  # else compaction has emptied it: only the epoch is left
            if batch.base_sequence >= 0:
                sent = SentBatch(
                    batch.base_sequence,
                    batch.last_sequence,
                    base_offset,
                    base_offset + batch.last_offset_delta,
                )
                batches = (*batches[1 - BATCHES_KEPT :], sent)
            if batch.is_transactional and start < 0:
                start = base_offset
                self._transactions.begin(producer_id, start)
        self._producers[producer_id] = Producer(
            epoch, batches, batch.max_timestamp, coordinator_epoch, start
        )

    def _make_room(self) -> None:
        """Forget the producer unused longest; one with an open transaction is kept."""
        for producer_id, producer in self._producers.items():
            if producer.transaction_start < 0:
                self._before.setdefault(producer_id, producer)
                del self._producers[producer_id]
                return

    def _forget_before(self) -> None:
        self._before.clear()
        self._unsettled_from = -1
        self.aborted.clear()

    # --- transactions and time ----------------------------------------------------------------

    def stable_offset(self, durable_offset: int) -> int:
        """Return the offset before which all is durable, and decided by a durable marker."""
        first = self._transactions.first_undecided(durable_offset)
        return durable_offset if first is None or first > durable_offset else first

    def expire(self, before_ms: int) -> None:
        """Forget producers that wrote nothing after `before_ms` and have nothing open.

        Time is that of their newest batch, as it stands there: so says the log itself, today
        and after any restart (`producer.id.expiration.ms`).
        """
        idle = [
            producer_id
            for producer_id, producer in self._producers.items()
            if producer.timestamp <= before_ms and producer.transaction_start < 0
        ]
        for producer_id in idle:
            del self._producers[producer_id]

    def clear(self) -> None:
        """Forget everything."""
        self._producers.clear()
        self._transactions.replace(())
        self._forget_before()

    # --- snapshots ----------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return the table in the format of Kafka's `.snapshot` files, version 1."""
        rows = bytearray()
        count = 0
        for producer_id, known in self._producers.items():
            sent: SentBatch | None
            for sent in known.batches or (None,):
                last_sequence, last_offset, delta = -1, -1, 0
                if sent is not None:
                    last_sequence, last_offset = sent.last_sequence, sent.last_offset
                    delta = last_offset - sent.base_offset
                rows += _SNAPSHOT_ROW.pack(
                    producer_id,
                    known.epoch,
                    last_sequence,
                    last_offset,
                    delta,
                    known.timestamp,
                    known.coordinator_epoch,
                    known.transaction_start,
                )
                count += 1
        body = _SNAPSHOT_COUNT.pack(count) + bytes(rows)
        return _SNAPSHOT_HEAD.pack(_SNAPSHOT_VERSION, crc32c(body)) + body

    def restore(self, data: bytes) -> None:
        """Replace the table by a snapshot, ours or Kafka's. Raises CorruptBatch."""
        self.clear()
        head = _SNAPSHOT_HEAD.size + _SNAPSHOT_COUNT.size
        if len(data) < head:
            raise CorruptBatch(
                f"a producer snapshot has at least {head} bytes, not {len(data)}"
            )
        version, crc = _SNAPSHOT_HEAD.unpack_from(data)
        (count,) = _SNAPSHOT_COUNT.unpack_from(data, _SNAPSHOT_HEAD.size)
        if version != _SNAPSHOT_VERSION:
            raise CorruptBatch(f"producer snapshot version {version}")
        if crc32c(data[_SNAPSHOT_HEAD.size :]) != crc:
            raise CorruptBatch("a producer snapshot fails its checksum")
        if count < 0 or len(data) != head + count * _SNAPSHOT_ROW.size:
            raise CorruptBatch(f"a producer snapshot claims {count} rows")
        for row in _SNAPSHOT_ROW.iter_unpack(data[head:]):
            self._restore_row(*row)
        self._transactions.replace(
            (producer.transaction_start, producer_id)
            for producer_id, producer in self._producers.items()
            if producer.transaction_start >= 0
        )

    def _restore_row(
        self,
        producer_id: int,
        epoch: int,
        last_sequence: int,
        last_offset: int,
        delta: int,
        timestamp: int,
        coordinator_epoch: int,
        transaction_start: int,
    ) -> None:
        known = self._producers.pop(producer_id, None)
        batches = known.batches if known is not None and known.epoch == epoch else ()
        if last_sequence >= 0:
            first = (last_sequence - delta) & SEQUENCE_MAX
            sent = SentBatch(first, last_sequence, last_offset - delta, last_offset)
            batches = (*batches[1 - BATCHES_KEPT :], sent)
        self._producers[producer_id] = Producer(
            epoch, batches, timestamp, coordinator_epoch, transaction_start
        )
