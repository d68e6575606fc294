"""Batches, tickets and readings for the tests of storage."""

from __future__ import annotations

from isthmus.record.batch import BatchBuilder, split_batches
from isthmus.record.markers import EndMarker, build_marker
from isthmus.storage.local.cleaner import Cleaner, Transactions
from isthmus.storage.local.offset_map import OffsetMap
from isthmus.storage.log import ISOLATION_DURABLE, ISOLATION_WRITTEN

NOW_MS = 1_700_000_000_000


def batch_of(
    *values,
    keys=None,
    timestamp=NOW_MS,
    timestamps=None,
    compression=0,
    producer_id=-1,
    epoch=-1,
    sequence=-1,
    transactional=False,
    control=False,
    magic_crc=True,
):
    """Return a sealed batch of the values; `magic_crc=False` spoils the checksum."""
    builder = BatchBuilder()
    for number, value in enumerate(values):
        when = timestamp if timestamps is None else timestamps[number]
        builder.append(when, None if keys is None else keys[number], value)
    batch = builder.seal(
        compression, producer_id, epoch, sequence, transactional=transactional, control=control
    )
    if not magic_crc:
        batch.data[batch.size - 1] ^= 1
    return batch


def marker_of(producer_id, *, commits, epoch=0, coordinator_epoch=0, timestamp=NOW_MS):
    """Return the control batch that ends a transaction."""
    return build_marker(producer_id, epoch, EndMarker(commits, coordinator_epoch), timestamp)


def read(partition, offset, bytes_max, isolation=ISOLATION_WRITTEN):
    """Read, and if the disk is needed for it, wait for that and nothing else."""
    records = partition.read(offset, bytes_max, isolation)
    while records.is_loading:
        assert records.size == 0
        partition.runtime.finish_reads()
        records = partition.read(offset, bytes_max, isolation)
    return records


def read_batches(partition, offset, bytes_max, isolation=ISOLATION_WRITTEN):
    """Read, and return the batches one by one."""
    return split_batches(b"".join(read(partition, offset, bytes_max, isolation).buffers))


def aborted_in(partition, offset, end):
    """Return the aborted transactions that readers of the batches in a stretch are told of."""
    found = set()
    while offset < min(end, partition.last_stable_offset):
        records = read(partition, offset, 1, ISOLATION_DURABLE)
        found.update(records.aborted)
        offset = split_batches(records.buffers[0])[0].next_offset
    return sorted(found)


def find_time(partition, timestamp_ms):
    """Return (offset, timestamp) of the first record at or after a time, or None."""
    return _answer_of(partition, lambda answer: partition.offset_for_time(timestamp_ms, answer))


def find_max_time(partition):
    """Return (offset, timestamp) of the first record with the largest timestamp, or None."""
    return _answer_of(partition, partition.offset_for_max_time)


def _answer_of(partition, ask):
    answers = []
    ask(lambda found, error: answers.append((found, error)))
    if not answers:
        partition.runtime.finish_reads()
    ((found, error),) = answers
    if error is not None:
        raise error
    return found


def compact_in_memory(partition, end_offset, now_ms=NOW_MS):
    """Compact the batches of a `MemoryPartition` that end up to `end_offset`."""
    old = [batch for batch in partition._batches if batch.next_offset <= end_offset]
    newest = OffsetMap(1 << 20, 1 + sum(batch.count for batch in old))
    for batch in old:
        for record in batch.records():
            newest.put(record.key, record.offset)
    cleaner = Cleaner(
        newest,
        end_offset,
        Transactions(()),
        {},
        end_offset=end_offset,
        now_ms=now_ms,
        retention_ms=0,
    )
    kept = [left for batch in old if (left := cleaner.clean(batch)) is not None]
    partition._batches[: len(old)] = kept
    partition._ends[: len(old)] = [batch.next_offset for batch in kept]


def contents(partition, isolation=ISOLATION_WRITTEN, start=None):
    """Return the values of all records that a reader of the partition sees, in order."""
    values = []
    offset = partition.start_offset if start is None else start
    while True:
        records = read(partition, offset, 1 << 20, isolation)
        if records.size == 0:
            return values
        for batch in split_batches(b"".join(records.buffers)):
            assert batch.base_offset >= offset or batch.last_offset >= offset
            batch.verify()
            values += [record.value for record in batch.records() if record.offset >= offset]
            offset = batch.next_offset


class Answer:
    """A ticket that writes down what it hears, and insists on the order of the contract."""

    def __init__(self, *, wants_durable=True):
        self.wants_durable = wants_durable
        self.events = []
        self.error = None

    @property
    def is_durable(self):
        return "durable" in self.events

    @property
    def base_offset(self):
        return next((event[1] for event in self.events if event[0] == "written"), None)

    def written(self, base_offset):
        assert self.events == []
        self.events.append(("written", base_offset))

    def durable(self):
        assert len(self.events) == 1
        assert self.error is None
        self.events.append("durable")

    def failed(self, error):
        assert self.error is None
        assert not self.is_durable
        self.events.append("failed")
        self.error = error
