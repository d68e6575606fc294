"""A compacted log topic that lives by a list of steps, and a plain model of what it must say.

`Topic` does what a step says, to the log and to the model. `check` compares what a reader finds
with what the model allows: every record found was written, at its offset and in its order; of
each key the newest decided record is there, but for a tombstone whose time is over; what cannot
have been compacted is there as it was written.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from tests.sim import SimRuntime
from tests.storage.batches import Answer, aborted_in, batch_of, read_batches
from tests.storage.disk import SimDisk

from isthmus.record.markers import EndMarker, build_marker, read_marker
from isthmus.storage.local.compaction import INTERVAL_MS
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

DIRECTORY = Path("/disk/data")
SETTINGS = LocalSettings(tail_bytes_max=0, open_segments_max=3)
RETENTION_MS = 600_000
CONFIGS = {
    "cleanup.policy": "compact",
    "internal.segment.bytes": "1200",
    "index.interval.bytes": "200",
    "delete.retention.ms": str(RETENTION_MS),
    "min.cleanable.dirty.ratio": "0.1",
}
READ_BYTES = 1 << 20


class Row(NamedTuple):
    offset: int
    key: bytes
    value: bytes | None


class Model:
    """What was written and decided."""

    def __init__(self) -> None:
        self.written: list[Row] = []  # decided ones, in order of their offsets
        self.undecided: dict[int, list[Row]] = defaultdict(list)  # by producer id
        self.hidden_from: dict[int, int] = {}  # tombstones: when they may go at the earliest

    def newest(self) -> dict[bytes, Row]:
        return {row.key: row for row in sorted(self.written)}

    def note_compaction(self, rows: list[Row], gap_end: int, now_ms: int) -> None:
        """These were found before a compaction that got so far."""
        for row in rows:
            if row.value is None and row.offset < gap_end:
                self.hidden_from.setdefault(row.offset, now_ms + RETENTION_MS)


class Topic:
    """One log topic with one partition, on a simulated disk."""

    def __init__(self, disk=None, settings=SETTINGS, configs=None):
        self.disk = disk or SimDisk()
        self.settings = settings
        self.runtime = SimRuntime()
        self.model = Model()
        self.sequences = defaultdict(int)
        self.start()
        self.log.create("t", 1, CONFIGS | (configs or {}))

    def start(self, disk=None):
        self.disk = disk or self.disk
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)

    @property
    def partition(self):
        return self.log.partition("t", 0)

    # --- steps --------------------------------------------------------------------------------

    def put(self, pairs, *, producer_id=-1, transactional=False, compression=0):
        keys, values = zip(*pairs, strict=True)
        numbered = {}
        if producer_id >= 0:
            numbered = {
                "producer_id": producer_id,
                "epoch": 0,
                "sequence": self.sequences[producer_id],
                "transactional": transactional,
            }
            self.sequences[producer_id] += len(keys)
        batch = batch_of(
            *values,
            keys=keys,
            timestamp=self.runtime.now_ms(),
            compression=compression,
            **numbered,
        )
        base = self._append(batch)
        rows = [Row(base + delta, *pair) for delta, pair in enumerate(pairs)]
        if transactional:
            self.model.undecided[producer_id] += rows
        else:
            self.model.written += rows

    def end_transaction(self, producer_id, *, commits):
        if producer_id not in self.model.undecided:
            return
        marker = EndMarker(commits, 0)
        self._append(build_marker(producer_id, 0, marker, self.runtime.now_ms()), trusted=True)
        rows = self.model.undecided.pop(producer_id)
        if commits:
            self.model.written += rows

    def _append(self, batch, **how):
        answer = Answer()
        self.partition.append(batch, answer, **how)
        self.log.flush()
        self.runtime.settle()
        assert answer.is_durable, answer.error
        self.runtime.advance(10)
        return answer.base_offset

    def compact(self, fail_at=0):
        """Let the job come up; return how many calls of the disk it has made."""
        segments, before = self.partition.segments, found(self.partition)
        clean_before = segments.clean_offset
        self.disk.calls, self.disk.fail_at = 0, fail_at
        self.runtime.advance(INTERVAL_MS)
        calls, self.disk.fail_at = self.disk.calls, 0
        now_ms = self.runtime.now_ms()
        if segments.clean_offset > clean_before:
            for row in found(self.partition):
                is_over = now_ms >= self.model.hidden_from.get(row.offset, 2**62)
                assert not is_over or row.offset >= segments.gap_end, "a tombstone too long"
        self.model.note_compaction(before, segments.gap_end, now_ms)
        return calls

    def age(self):
        """Let the time of tombstones pass; no job comes up meanwhile."""
        self.runtime.set_forward(RETENTION_MS)

    def restart(self, *, clean):
        if clean:
            self.log.close()
        self.runtime = SimRuntime(now_ms=self.runtime.now_ms())  # the old one's timers are dead
        self.start(self.disk.kill())

    def lose_snapshots(self):
        """Leave a restart nothing to learn the producers from but the log itself."""
        directory = DIRECTORY / "t-0"
        for name in self.disk.names(directory):
            if name.endswith(".snapshot"):
                self.disk.remove(directory / name)

    def producers(self):
        """Of each producer: epoch, last sequence number, where its open transaction began."""
        return {
            producer_id: (known.epoch, known.last_sequence, known.transaction_start)
            for producer_id, known in self.partition.producers
        }


def batches_of(partition):
    """Yield all batches that a reader from the beginning gets."""
    offset = partition.start_offset
    while offset < partition.end_offset:
        batches = read_batches(partition, offset, READ_BYTES)
        assert batches
        for batch in batches:
            batch.verify()
            assert batch.next_offset > offset
            yield batch
            offset = batch.next_offset


def found(partition):
    """Return the decided rows, as a consumer of `read_committed` finds them out."""
    end = partition.last_stable_offset
    ahead = sorted(aborted_in(partition, 0, end), key=lambda pair: pair[1])
    aborted: set[int] = set()
    rows = []
    for batch in batches_of(partition):
        if batch.base_offset >= end:
            break
        while ahead and ahead[0][1] <= batch.last_offset:
            aborted.add(ahead.pop(0)[0])
        if batch.is_control:
            marker = read_marker(batch)
            if marker is not None and not marker.commits:
                aborted.discard(batch.producer_id)
        elif not (batch.is_transactional and batch.producer_id in aborted):
            rows += [Row(each.offset, each.key, each.value) for each in batch.records()]
    return rows


def check(topic: Topic, *, compacted: bool = False) -> None:
    """Compare the log with the model; `compacted`: nothing may be there that could be gone."""
    partition, model = topic.partition, topic.model
    rows = found(partition)
    assert [row.offset for row in rows] == sorted({row.offset for row in rows})
    decided = {row for row in model.written if row.offset < partition.last_stable_offset}
    assert set(rows) <= decided
    newest = {row.key: row for row in sorted(decided)}
    for row in newest.values():
        is_over = topic.runtime.now_ms() >= model.hidden_from.get(row.offset, 2**62)
        assert row in rows or (row.value is None and is_over), row
    uncompacted = {row for row in decided if row.offset >= partition.segments.gap_end}
    assert uncompacted <= set(rows)
    if compacted:
        clean = partition.segments.clean_offset
        for row in rows:
            replaced = newest[row.key].offset != row.offset
            assert row.offset >= clean or not replaced or newest[row.key].offset >= clean, row
