"""Compaction: the sealed segments of a log topic, rewritten without what was replaced since.

One pass over a partition, as Apache Kafka's `LogCleaner` does it:

1. **Choose.** Of all partitions the one of which the largest part was written since it was
   compacted last (`min.cleanable.dirty.ratio`), or one that has waited `max.compaction.lag.ms`.
   Never touched: the newest segment, what is younger than `min.compaction.lag.ms`, what a
   restart might ask for (the recovery point on the disk), what is behind an open transaction.
2. **Learn** the newest offset of each key from what was written since (offset_map.py), as far
   as there is room in memory. What does not fit is next time's.
3. **Rewrite** everything from the beginning to there (cleaner.py), neighbours together into
   segments of up to `segment.bytes`, into files beside the log.
4. **Swap** each of them in (swap.py) as it is done. An end at any moment leaves each group of
   segments as it was or as it becomes, and both say the same of every key.

Two numbers per partition are kept in `isthmus-compaction`, written before the first swap and
after the last one: how far the partition is clean, and below which offset there may be gaps.
Only there a scan takes a gap for no damage. A partition in which anything is damaged is left
alone: rewriting would remove the traces.

Everything long runs on another thread in small slices (housekeeping.py), with a rest after each
as long as the slice: walking records is Python, and the loop waits as long as it runs.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from isthmus.errors import CorruptBatch
from isthmus.record.rebuild import stored_records
from isthmus.storage.local.aborted_loads import load_aborted
from isthmus.storage.local.checkpoints import COMPACTION_FILE, format_compaction
from isthmus.storage.local.cleaner import Cleaner, Transactions
from isthmus.storage.local.compaction_plan import Plan, group_segments, plan_compaction
from isthmus.storage.local.lookup import as_job
from isthmus.storage.local.offset_map import OffsetMap
from isthmus.storage.local.open_segments import OpenSegments
from isthmus.storage.local.segment import Segment
from isthmus.storage.local.swap import CLEANED_SUFFIX, Swap

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.aborted import AbortedIndex, AbortedTransaction
    from isthmus.storage.local.housekeeping import Step, Steps
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.segments import SegmentList
    from isthmus.storage.local.shared import Shared

    Walk: TypeAlias = "Callable[[Iterator[RecordBatch]], Iterator[int]]"

INTERVAL_MS: Final = 15_000  # Kafka's log.cleaner.backoff.ms
RETRY_MS: Final = 600_000  # after the disk has refused something
SLICE_COST: Final = 400  # records walked in one slice, about half a millisecond
BYTES_PER_COST: Final = 4096
REST_S: Final = 0.0005
WRITE_BYTES: Final = 256 * 1024  # gathered for one write
SYNC_BYTES: Final = 8 * 1024 * 1024  # written between two syncs

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class Overtaken(Exception):
    """What was to be compacted is not there any more."""


class Unfinished(NamedTuple):
    """A swap that has come so far; an error may have stopped it."""

    swap: Swap
    made: Segment  # is kept open: it has no name to be opened by
    is_in: bool  # part of the log already

    def end(self, segments: SegmentList) -> None:
        """It is done, it came to nothing, or its log topic is deleted."""
        self.made.unpin()
        segments.is_swapping = False
        if not self.is_in:
            self.made.discard()
            self.swap.undo()


class Learning:
    """The newest offset of each key from the first dirty offset on, as far as there is room."""

    def __init__(self, newest: OffsetMap, plan: Plan, transactions: Transactions) -> None:
        self.newest = newest
        self.latest = plan.dirty_offset - 1  # up to here all is known
        self._from = plan.dirty_offset
        self._transactions = transactions

    def learn(self, batches: Iterator[RecordBatch]) -> Iterator[int]:
        """Walk over a segment; yield what each batch has cost."""
        for batch in batches:
            if batch.is_control:
                self._transactions.is_needless(batch)
            elif not self._transactions.is_aborted(batch):
                for record in stored_records(batch):
                    if record.key is None or record.offset < self._from:
                        continue
                    if self.newest.is_full:
                        self.latest = max(self.latest, record.offset - 1)
                        return
                    self.newest.put(record.key, record.offset)
            self.latest = max(self.latest, batch.last_offset)
            yield _cost(batch)


class Rewriting:
    """Copies segments into one being made, as clean as they become."""

    def __init__(self, cleaner: Cleaner, made: Segment) -> None:
        self.has_changed = False
        self._cleaner = cleaner
        self._made = made
        self._synced = 0

    def copy(self, batches: Iterator[RecordBatch]) -> Iterator[int]:
        """Walk over a segment; yield what each batch has cost."""
        kept: list[RecordBatch] = []
        size = 0
        for batch in batches:
            left = self._cleaner.clean(batch)
            if left is not batch:
                self.has_changed = True
            if left is not None:
                kept.append(left)
                size += left.size
            if size >= WRITE_BYTES:
                self._write(kept)
                kept, size = [], 0
            yield _cost(batch)
        self._write(kept)

    def _write(self, batches: list[RecordBatch]) -> None:
        if batches:
            self._made.append(batches, [batch.data for batch in batches])
        if self._made.size - self._synced >= SYNC_BYTES:
            self._made.sync()  # little by little, so that nobody's fdatasync waits for all
            self._synced = self._made.size


class Compactor:
    """Compacts the partitions of one log; `run` is a job of its housekeeping."""

    def __init__(self, shared: Shared, rest: Callable[[float], None] = time.sleep) -> None:
        self.compactions = 0  # since the start, as the bytes before and after
        self.read_bytes = 0
        self.kept_bytes = 0
        self._shared = shared
        self._rest = rest
        self._current: LocalPartition | None = None
        self._lock = Lock()  # held by work on another thread
        self._not_before_ms: dict[LocalPartition, float] = {}
        self._unfinished: dict[LocalPartition, Unfinished] = {}

    def run(self) -> Steps:
        """Compact what is due, the worst first, each partition once."""
        for partition in list(self._unfinished):
            yield from self._finish(partition)
        seen: set[LocalPartition] = set()
        while (plan := (yield from self._choose(seen))) is not None:
            seen.add(plan.partition)
            where = plan.partition.segments.directory
            self._current = plan.partition
            try:
                yield from self._compact(plan)
            except Overtaken:
                continue
            except CorruptBatch as error:
                self._not_before_ms[plan.partition] = float("inf")
                logger.error("%s is damaged and is not compacted: %s", where, error)
            except OSError as error:
                self._put_off(plan.partition, RETRY_MS)
                logger.warning("%s was not compacted, it is tried again: %s", where, error)
            finally:
                self._current = None

    def abandon(self, partition: LocalPartition) -> None:
        """Touch no file of this partition any more: another may soon have its directory.

        Waits for what is under way, which is little.
        """
        if self._current is partition:
            with self._lock:
                self._current = None
        self._not_before_ms.pop(partition, None)
        unfinished = self._unfinished.pop(partition, None)
        if unfinished is not None:
            unfinished.end(partition.segments)

    def close(self) -> None:
        """Let go of all files; nothing is under way any more."""
        for partition, unfinished in self._unfinished.items():
            unfinished.end(partition.segments)

    def _put_off(self, partition: LocalPartition, delay_ms: float) -> None:
        self._not_before_ms[partition] = self._shared.runtime.monotonic_ms() + delay_ms

    def _choose(self, seen: set[LocalPartition]) -> Generator[Step, Any, Plan | None]:
        """Return the plan for the partition that needs it most."""
        now_ms = self._shared.runtime.now_ms()
        monotonic_ms = self._shared.runtime.monotonic_ms()
        best: Plan | None = None
        if self._shared.error is not None:
            return None
        for partition in list(self._shared.partitions):
            if (
                not partition.config.compacts
                or partition in seen
                or partition.segments.is_swapping  # a rename has failed
                or self._not_before_ms.get(partition, 0) > monotonic_ms
            ):
                continue
            try:
                plan = yield from as_job(partition.segments, plan_compaction(partition, now_ms))
            except OSError as error:
                self._put_off(partition, RETRY_MS)
                logger.warning("%s: %s", partition.segments.directory, error)
                continue
            if (
                plan is not None
                and plan.is_due
                and (best is None or plan.dirty_ratio > best.dirty_ratio)
            ):
                best = plan
        return best

    # --- one partition ------------------------------------------------------------------------

    def _compact(self, plan: Plan) -> Steps:
        segments = plan.partition.segments
        before = sum(segment.size for segment in plan.segments)
        aborted = yield from self._aborted(segments)
        end_offset = plan.segments[-1].next_offset
        newest = OffsetMap(
            self._shared.settings.compaction_bytes_max, end_offset - plan.dirty_offset
        )
        try:
            learning = Learning(newest, plan, Transactions(aborted))
            for segment in plan.segments:
                if segment.next_offset > plan.dirty_offset and not newest.is_full:
                    yield from self._walk(plan.partition, segment, learning.learn)
            touched = [each for each in plan.segments if each.base_offset <= learning.latest]
            end_offset = touched[-1].next_offset
            yield self._piece(self._note, plan.partition, segments.clean_offset, end_offset)
            segments.gap_end = max(segments.gap_end, end_offset)
            cleaner = Cleaner(
                newest,
                learning.latest,
                transactions := Transactions(aborted),
                dict(plan.partition.producers),
                end_offset=end_offset,
                now_ms=self._shared.runtime.now_ms(),
                retention_ms=plan.partition.config.delete_retention_ms,
            )
            for group in group_segments(touched, plan.partition.config.segment_bytes_max):
                yield from self._rewrite(plan.partition, group, cleaner, transactions)
        finally:
            newest.close()
        segments.clean_offset = learning.latest + 1
        gap_end = segments.gap_end
        yield self._piece(self._note, plan.partition, segments.clean_offset, gap_end)
        after = sum(each.size for each in segments if each.base_offset < end_offset)
        self.compactions += 1
        self.read_bytes += before
        self.kept_bytes += after
        logger.info(
            "%s is compacted up to offset %d: %d bytes are %d now",
            segments.directory,
            segments.clean_offset,
            before,
            after,
        )

    def _aborted(self, segments: SegmentList) -> Generator[Step, Any, list[AbortedTransaction]]:
        """Return all aborted transactions that the log knows of. Raises OSError, Overtaken."""
        found: list[AbortedTransaction] = []
        for segment in list(segments):
            if segment.has_aborts:
                steps = load_aborted(self._shared.files, segments, segment)
                index = yield from as_job(segments, steps, self._piece)
                if index is None:
                    raise Overtaken
                found += index
        return found

    def _note(self, partition: LocalPartition, clean_offset: int, gap_end: int) -> None:
        """Write what a start must know of the partition. Raises OSError."""
        path = partition.segments.directory / COMPACTION_FILE
        gap_end = max(gap_end, partition.segments.gap_end)
        self._shared.files.replace(path, format_compaction(clean_offset, gap_end))

    def _rewrite(
        self,
        partition: LocalPartition,
        group: list[Segment],
        cleaner: Cleaner,
        transactions: Transactions,
    ) -> Steps:
        """Make one segment of a group and put it in its place."""
        segments, files = partition.segments, self._shared.files
        made = Segment(
            files,
            OpenSegments(1),
            segments.directory,
            group[0].base_offset,
            partition.config.index_interval_bytes,
            gap_end=segments.gap_end,
            suffix=CLEANED_SUFFIX,
        )
        made.pins = 1  # it has no name to be opened by until the end
        swap = Swap(files, group, made)
        is_in = is_done = False
        try:
            rewriting = Rewriting(cleaner, made)
            for segment in group:
                yield from self._walk(partition, segment, rewriting.copy)
            kept = transactions.take_kept()
            if len(group) == 1 and not rewriting.has_changed:
                return
            self._check(partition, group)
            segments.is_swapping = True
            made.next_offset = group[-1].next_offset
            yield self._piece(_decide, made, kept, swap)
            self._check(partition, group)
            made.take_names(self._shared.open_segments)
            segments.replace(group, made)
            partition.tail.cut(made.next_offset)
            is_in = True
            swap.hide()
            yield self._piece(swap.finish)
            is_done = True
        finally:
            stopped = Unfinished(swap, made, is_in)
            if swap.is_decided and not is_done and self._current is partition:
                self._unfinished[partition] = stopped
            else:
                stopped.end(segments)

    def _finish(self, partition: LocalPartition) -> Steps:
        """Go on with a swap that an error has stopped; the next pass does if it is still so."""
        unfinished = self._unfinished[partition]
        swap = unfinished.swap
        self._current = partition
        try:
            if unfinished.is_in:
                swap.hide()
                yield self._piece(swap.finish)
            else:
                yield self._piece(swap.retract)
        except (OSError, Overtaken):
            return  # it was told when it began
        finally:
            self._current = None
        del self._unfinished[partition]
        unfinished.end(partition.segments)
        logger.info("the compaction of %s goes on", partition.segments.directory)

    def _check(self, partition: LocalPartition, group: Sequence[Segment]) -> None:
        """Raise Overtaken if the log topic or the segments were deleted meanwhile."""
        if self._current is not partition or not partition.segments.holds(group):
            raise Overtaken

    def _walk(self, partition: LocalPartition, segment: Segment, walk: Walk) -> Steps:
        """Walk over a segment in slices."""
        self._check(partition, [segment])
        twin = segment.twin()
        try:
            work = walk(_sound(twin))
            while not (yield partial(self._slice, self._piece(_spend, work))):
                pass
        finally:
            partition.segments.give_back(segment, twin)

    def _slice(self, work: Callable[[], int]) -> bool:
        """Do some of the work, then rest; True when all is done."""
        spent = work()
        if spent >= SLICE_COST:
            self._rest(REST_S * spent / SLICE_COST)
        return spent < SLICE_COST

    def _piece(self, work: Callable[..., Result], *arguments: Any) -> Callable[[], Result]:
        """Return work for another thread, that is not done for an abandoned partition."""

        def piece() -> Result:
            with self._lock:
                if self._current is None:
                    raise Overtaken
                return work(*arguments)

        return piece


def _spend(work: Iterator[int]) -> int:
    """Go on until a slice is spent; return what it has cost, less where all is done."""
    spent = 0
    for cost in work:
        spent += cost
        if spent >= SLICE_COST:
            break
    return spent


def _sound(segment: Segment) -> Iterator[RecordBatch]:
    """Yield the batches of a whole segment. Raises CorruptBatch where it is damaged."""
    scan = segment.scan_from(segment.base_offset)
    for _, batch in scan:
        if scan.damage:
            break
        yield batch
    if scan.damage or scan.position < segment.size:
        raise CorruptBatch(f"{segment.path} holds bytes that are no batch")


def _decide(made: Segment, aborted: AbortedIndex, swap: Swap) -> None:
    """Complete the files and decide that they replace the others. Raises OSError."""
    made.save_indexes(complete=made.max_timestamp >= 0)
    made.replace_aborted(aborted)
    swap.decide()
    made.unsynced_indexes.clear()


def _cost(batch: RecordBatch) -> int:
    """Return what it costs to walk over a batch, in records."""
    return 1 + batch.count + batch.size // BYTES_PER_COST
