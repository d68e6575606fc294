"""One partition on disk: from queued batches to written ones to durable ones.

    append ──► queue ──commit──► segment file (pwritev) ──sync round──► disk
                │                 │ end_offset, ticket.written            │ durable_offset,
                │                 ▼ waiters woken                         ▼ ticket.durable
             offsets given      tail in memory                          waiters woken

Offsets are given when a batch is queued, so a failed write takes them back from all that was
queued behind it. All this runs on the loop; only `SyncWork` and `SweepWork` leave it. Loading a
partition from its directory is recovery.py's. Compiled, see `partition.pxd`.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from isthmus.errors import IsthmusError, TopicUnknown
from isthmus.storage.local.mending import MendWork
from isthmus.storage.local.reader import PartitionReader
from isthmus.storage.local.restart import RestartPoint
from isthmus.storage.local.sweep import SweepWork
from isthmus.storage.local.sync import SyncWork
from isthmus.storage.local.tail import Tail
from isthmus.storage.local.time_lookup import TimeLookup
from isthmus.storage.log import ISOLATION_WRITTEN
from isthmus.storage.topic_configs import DURABILITY_SYNCED
from isthmus.storage.validation import check_batch, check_start, check_trusted
from isthmus.storage.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isthmus.errors import StorageError
    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.local.recovery import Loaded
    from isthmus.storage.local.shared import Shared
    from isthmus.storage.log import Records, Ticket, TimeAnswer
    from isthmus.storage.topic_configs import TopicConfig

FLUSH_MS_MAX: Final = 2**31  # what is to be synced later than that is not synced for it

Queued: TypeAlias = "tuple[RecordBatch | None, int, Ticket | None]"  # None: sent before

logger = logging.getLogger(__name__)


class LocalPartition:
    """An ordered sequence of records, in one directory."""

    __slots__ = (
        "_cancel_flush",
        "_closed",
        "_cut_needed",
        "_queue",
        "_queue_bytes",
        "_queue_end",
        "_queue_newest",
        "_reader",
        "_restart",
        "_shared",
        "_unsynced",
        "_waiting_durable",
        "_waiting_written",
        "config",
        "durable_offset",
        "end_offset",
        "index",
        "leader_epoch",
        "log_topic",
        "producers",
        "records_unsynced",
        "segments",
        "start_offset",
        "tail",
        "topic_id",
    )

    def __init__(
        self,
        shared: Shared,
        log_topic: str,
        topic_id: bytes,
        index: int,
        config: TopicConfig,
        loaded: Loaded,
    ) -> None:
        self.log_topic = log_topic
        self.topic_id = topic_id
        self.index = index
        self.config = config
        self.start_offset = loaded.start_offset
        self.end_offset = loaded.end_offset
        self.durable_offset = loaded.end_offset
        self.leader_epoch = loaded.epochs.latest
        self.producers = loaded.producers
        self._shared = shared
        self.segments = loaded.segments
        self._restart = RestartPoint(shared, loaded)
        self.tail = Tail(shared.tails, self.end_offset)
        self._reader = PartitionReader(shared, self.segments, self.tail)
        self._queue: list[Queued] = []
        self._queue_end = self.end_offset  # one past the newest queued record
        self._queue_bytes = 0
        self._queue_newest = -1  # largest timestamp queued
        self._unsynced: deque[tuple[int, list[Ticket]]] = deque()  # by end offset
        self._waiting_written = Waiters()
        self._waiting_durable = Waiters()
        self.records_unsynced = 0
        self._cancel_flush: Callable[[], None] | None = None  # the timer of `flush.ms`
        self._cut_needed = False  # a failed write has left bytes behind the end
        self._closed: IsthmusError | None = None
        if loaded.checked_bytes:  # a snapshot of the producers is to follow
            self._restart.wrote(self, loaded.checked_bytes)

    @property
    def last_stable_offset(self) -> int:
        """One past the last record that is durable and no open transaction holds back."""
        return max(self.producers.stable_offset(self.durable_offset), self.start_offset)

    @property
    def runtime(self) -> Runtime:
        """The world that the partition lives in."""
        return self._shared.runtime

    @property
    def closed(self) -> IsthmusError | None:
        """Why nothing is taken or told any more, or None."""
        return self._closed

    @property
    def durable_recovery_point(self) -> int:
        """The offset from which on a restart has to check after a crash at this moment.

        What the file on the disk says, not what it will say.
        """
        return self._restart.offset

    @property
    def unchecked_bytes(self) -> int:
        """Bytes that no recovery point covers, and none that is on its way."""
        return self._restart.bytes_since

    @property
    def is_unswept(self) -> bool:
        """Whether a segment has bytes that no sync of its file has covered."""
        return bool(self.segments.dirty)

    @property
    def has_queued(self) -> bool:
        """Whether something waits for `commit`."""
        return bool(self._queue)

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self.segments.directory

    @property
    def size_bytes(self) -> int:
        """Bytes of all batches kept."""
        return self.segments.size_bytes

    # --- appending ----------------------------------------------------------------------------

    def append(
        self, batch: RecordBatch, ticket: Ticket | None, *, trusted: bool = False
    ) -> None:
        """Queue one batch until `LocalLog.flush`, see `storage.log.Partition.append`."""
        base_offset = self._queue_end
        sent = None
        try:
            stopped: IsthmusError | None = self._closed or self._shared.error
            if stopped is not None:
                raise stopped
            check = check_trusted if trusted else check_batch
            check(batch, self.config, self._shared.runtime.now_ms())
            if batch.producer_id >= 0:
                sent = self.producers.admit(batch, base_offset)
        except IsthmusError as error:
            if ticket is not None:
                # An answer, not an accident: its traceback would hold on to the batch.
                ticket.failed(error.with_traceback(None))
            return
        if not self._queue:
            self._shared.touched.append(self)
        if sent is not None:
            self._queue.append((None, sent.base_offset, ticket))
            return
        batch.stamp(base_offset, self.leader_epoch)
        self._queue.append((batch, base_offset, ticket))
        self._queue_end = batch.next_offset
        self._queue_bytes += batch.size
        if batch.max_timestamp > self._queue_newest:
            self._queue_newest = batch.max_timestamp

    def commit(self) -> None:
        """Write what is queued, answer the tickets and wake the readers."""
        queue, self._queue = self._queue, []
        failure: IsthmusError | None = self._closed or self._shared.error
        batches = [batch for batch, _, _ in queue if batch is not None]
        if failure is not None:
            self._take_back()
            end = -1  # not even what was sent before can be promised
        else:
            if batches:
                failure = self._write(batches)
            end = self.end_offset
        self._queue_bytes = 0
        self._queue_newest = -1
        self._answer(queue, failure, end)

    def _write(self, batches: list[RecordBatch]) -> StorageError | None:
        """Write batches as far as they can be; return why the rest could not."""
        before = self.end_offset
        size_before, sealed = self.segments.size_bytes, self.segments.sealed_bytes
        failure = None
        try:
            self._prepare(batches[0].base_offset)
            for part in self.segments.parts(batches, self._queue_bytes, self._queue_newest):
                self._put(part)
        except OSError as error:
            what = f"{self.segments.directory} was not written"
            failure = self._shared.trouble.found(error, what)
            self._cut_needed = True
            self._cut_back()
            self._take_back()
            for batch in batches:
                if batch.next_offset <= self.end_offset:
                    self.producers.replay(batch)
        for aborted in self.producers.aborted:
            self.segments.note_aborted(aborted)
        self.producers.settle()
        if self.segments.sealed_bytes > sealed:
            self._shared.sweeper.ask(self, move=True)
        if self.end_offset > before:
            size = self.segments.size_bytes - size_before
            self._shared.written_bytes += size
            self._restart.wrote(self, size)
        return failure

    def _put(self, batches: list[RecordBatch]) -> None:
        """Write batches to the active segment. Raises OSError."""
        views, ends = [], []
        for batch in batches:
            views.append(batch.data)
            ends.append(batch.next_offset)
        self.segments.append(batches, views)
        self.tail.extend(views, ends)
        self.end_offset = ends[-1]

    def _prepare(self, base_offset: int) -> None:
        """Bring the directory to where the first append can go. Raises OSError."""
        self._shared.mender.check()
        if self._cut_needed:
            active = self.segments.active
            if active is not None:
                active.cut_back()
            self._cut_needed = False
        if self.segments.active is None:
            self.segments.add(base_offset)
        if self.producers.aborted:
            self.segments.load_aborted()

    def _cut_back(self) -> None:
        try:
            active = self.segments.active
            if active is not None:
                active.cut_back()
            self._cut_needed = False
        except OSError as error:
            self._shared.trouble.found(error, f"{self.segments.directory} was not cut")

    def _take_back(self) -> None:
        """Offsets and sequence numbers given to what was not written are free again."""
        self.producers.roll_back()
        self._queue_end = self.end_offset

    def _answer(self, queue: list[Queued], failure: IsthmusError | None, end: int) -> None:
        """Tell the tickets of one commit how it went; what begins before `end` is written."""
        tickets = []
        for batch, base_offset, ticket in queue:
            if batch is not None:
                self.records_unsynced += batch.count
            if ticket is None:
                continue
            if failure is None or base_offset < end:
                ticket.written(base_offset)
                if ticket.wants_durable:
                    tickets.append(ticket)
            else:
                ticket.failed(failure)
        if tickets:
            self._unsynced.append((end, tickets))
        if self.config.durability != DURABILITY_SYNCED or self.durable_offset >= end:
            self._advance_durable(end)  # or nothing came but what was sent before
        self._waiting_written.wake(end)
        if self._closed is None:
            if self._is_awaited() or self.records_unsynced >= self.config.records_per_sync:
                self._shared.syncer.ask(self)
            elif self.records_unsynced and self._cancel_flush is None:
                self._flush_later()

    def _flush_later(self) -> None:
        """Have what is written now synced when `flush.ms` is over."""
        delay_ms = self.config.ms_per_sync
        if delay_ms <= FLUSH_MS_MAX:
            self._cancel_flush = self._shared.runtime.later(delay_ms, self._flush)

    def _flush(self) -> None:
        self._cancel_flush = None
        self._shared.syncer.ask(self)
        self._shared.syncer.start()

    def _stop_flush(self) -> None:
        cancel, self._cancel_flush = self._cancel_flush, None
        if cancel is not None:
            cancel()

    def _is_awaited(self) -> bool:
        """Whether somebody waits for records that are written and not durable."""
        return self.durable_offset < self.end_offset and (
            bool(self._unsynced) or len(self._waiting_durable) > 0
        )

    # --- syncing ------------------------------------------------------------------------------

    def begin_sync(self) -> SyncWork:
        """Take what a round needs to make all durable that is written now."""
        segments = self.segments
        work = SyncWork(self, segments.take_chunks())
        for chunk in work.chunks:
            chunk.segment.pins += 1
        if segments.names_changed:
            work.directories = (segments.directory, segments.directory.parent)
        work.names_version = segments.names_version
        self.records_unsynced = 0
        self._stop_flush()
        return work

    def end_sync(self, work: SyncWork) -> None:
        """A round has made durable what was written when it began."""
        self.fail_sync(work)
        if self._closed is not None:
            return
        if work.syncs_names:
            synced = [chunk for chunk in work.chunks if chunk not in work.journalled]
            self.segments.note_synced(
                [(chunk.segment, chunk.end) for chunk in synced], work.names_version
            )
        self._advance_durable(work.end_offset)
        if self._is_awaited():
            self._shared.syncer.ask(self)

    def fail_sync(self, work: SyncWork) -> None:
        """A round is over, and that is all that is known of it."""
        for chunk in work.chunks:
            chunk.segment.unpin()

    def retry_sync(self, work: SyncWork) -> None:
        """A round had no room; what was to be synced is so when that is made good."""
        self.fail_sync(work)
        if self._closed is None:
            self.segments.take_back(work.chunks)
            self._shared.syncer.ask(self)

    def begin_sweep(self, *, move: bool) -> SweepWork:
        """Take what brings all that is written now to its place.

        `move` the recovery point as well; then nothing must be queued.
        """
        segments = self.segments
        work = SweepWork(self)
        if move:
            self._restart.begin(work)
        if segments.names_changed:
            work.directories = (segments.directory, segments.directory.parent)
        elif work.recovery_point >= 0:
            work.directories = (segments.directory,)  # for the snapshot
        work.names_version = segments.names_version
        return work

    def begin_mend(self) -> MendWork:
        """Take what makes good a sync that failed; nothing is written before it ends."""
        work = MendWork(self)
        if self.segments.names_changed:
            work.directories = (self.directory, self.directory.parent)
        work.names_version = self.segments.names_version
        return work

    def end_sweep(self, work: SweepWork) -> None:
        """A sweep has done what it could; its segments and names are on the disk."""
        if self._closed is None:
            self.segments.note_synced(work.segments, work.names_version)
            self._restart.end(work)
            self._advance_durable(work.end_offset)

    def undo_sweep(self, work: SweepWork) -> None:
        """A sweep has come to nothing."""
        if self._closed is None:
            self._restart.undo(work)

    def _advance_durable(self, offset: int) -> None:
        """Answer those who waited for `offset` to be durable."""
        if offset > self.durable_offset:
            self.durable_offset = offset
        while self._unsynced and self._unsynced[0][0] <= self.durable_offset:
            for ticket in self._unsynced.popleft()[1]:
                ticket.durable()
        self._waiting_durable.wake(self.last_stable_offset)

    # --- reading ------------------------------------------------------------------------------

    def read(
        self,
        offset: int,
        bytes_max: int,
        isolation: int = ISOLATION_WRITTEN,
        *,
        spans: bool = False,
    ) -> Records:
        """Return whole batches from the one that holds `offset` on, from memory if it can."""
        if isinstance(self._closed, TopicUnknown):
            raise TopicUnknown(str(self._closed))
        start, end = self.start_offset, self.end_offset
        if isolation == ISOLATION_WRITTEN:
            return self._reader.read(offset, bytes_max, start, end, end, spans=spans)
        stable = self.last_stable_offset
        return self._reader.read_decided(offset, bytes_max, start, end, stable, spans=spans)

    def wait(
        self, offset: int, wake: Callable[[], None], isolation: int = ISOLATION_WRITTEN
    ) -> Callable[[], None]:
        """Call `wake` once when there is more to read."""
        if isolation == ISOLATION_WRITTEN:
            cancel = self._waiting_written.park(offset, wake)
            end = self.end_offset
        else:
            cancel = self._waiting_durable.park(offset, wake)
            end = self.last_stable_offset
            if self._closed is None and self._is_awaited():
                self._shared.syncer.ask(self)
                self._shared.runtime.defer(self._shared.syncer.start)
        if offset >= end and self._closed is None:
            return cancel
        loading = self._reader.wait(offset, wake, decided=isolation != ISOLATION_WRITTEN)
        if loading is not None:
            cancel()
            return loading
        self._shared.runtime.defer(self._wake)
        return cancel

    def _wake(self) -> None:
        if self._closed is not None:
            self._waiting_written.wake_all()
            self._waiting_durable.wake_all()
            return
        self._waiting_written.wake(self.end_offset)
        self._waiting_durable.wake(self.last_stable_offset)

    def batches(self, offset: int) -> Iterator[RecordBatch]:
        """Yield all batches from the one that holds `offset` on, waiting for the disk."""
        return self._reader.batches(offset, self.end_offset)

    def offset_for_time(self, timestamp_ms: int, answer: TimeAnswer) -> None:
        """Look for the first record at or after `timestamp_ms`."""
        TimeLookup(self, self.segments, answer).find(timestamp_ms)

    def offset_for_max_time(self, answer: TimeAnswer) -> None:
        """Look for the first record with the largest timestamp."""
        TimeLookup(self, self.segments, answer).find_newest()

    def epoch_at(self, offset: int) -> int:
        """Return the leader epoch in which `offset` was written, or -1."""
        return self._restart.epochs.at(offset)

    def epoch_end_offset(self, leader_epoch: int) -> tuple[int, int]:
        """Return (epoch, end offset) of the newest epoch ≤ `leader_epoch`; (-1, -1) if none."""
        return self._restart.epochs.end_offset(leader_epoch, self.end_offset)

    # --- the beginning ------------------------------------------------------------------------

    def delete_before(self, offset: int, done: Callable[[IsthmusError | None], object]) -> None:
        """Let the partition begin at `offset`, see `storage.log.Partition.delete_before`."""
        stopped = self._closed or self._shared.error
        try:
            if stopped is not None:
                raise stopped
            offset = check_start(self, offset)
        except IsthmusError as error:
            done(error.with_traceback(None))
            return
        if offset <= self.start_offset:
            done(None)
        else:
            self._shared.start_offsets.raise_to(self, offset, done)

    def raise_start(self, offset: int) -> IsthmusError | None:
        """Begin at `offset` from now on; `StartOffsets` calls this when the disk knows."""
        if self._closed is not None:
            return self._closed
        if offset > self.start_offset:
            self.start_offset = offset
            self._restart.cut_epochs(offset)
            if offset == self.end_offset:
                self.tail.clear()
            self._shared.removals.take_out(self)
            self._waiting_durable.wake(self.last_stable_offset)
        return None

    def roll(self) -> bool:
        """Begin a new segment if there is anything in the active one. Raises OSError.

        An append does so by itself; this is for partitions that nobody appends to.
        """
        active = self.segments.active
        if active is None or active.size == 0 or self._cut_needed or self._closed is not None:
            return False
        self.segments.roll_empty(self.end_offset)
        self._shared.sweeper.ask(self, move=True)
        return True

    @property
    def unneeded_before(self) -> int:
        """The offset before which no restart asks for a segment any more."""
        return self._restart.unneeded_before

    def ask_checkpoint(self) -> None:
        """Have the recovery point moved to the end."""
        self._shared.sweeper.ask(self, move=True)
        self._shared.runtime.defer(self._shared.sweeper.start)

    # --- the end ------------------------------------------------------------------------------

    def configure(self, config: TopicConfig) -> None:
        """Obey other settings from now on."""
        self.config = config
        self.segments.configure(config)
        self._stop_flush()
        if config.durability != DURABILITY_SYNCED:
            self._advance_durable(self.end_offset)

    def fail(self, error: IsthmusError) -> None:
        """Nothing will be written or become durable any more: tell all who wait for it."""
        queue, self._queue = self._queue, []
        self._take_back()
        self._queue_bytes = 0
        unsynced, self._unsynced = self._unsynced, deque()
        for _, tickets in unsynced:
            for ticket in tickets:
                ticket.failed(error)
        for _, _, waiting in queue:
            if waiting is not None:
                waiting.failed(error)

    def ask_last_sweep(self) -> None:
        """Ask for the sweep before a close, after which a start need not check anything."""
        active = self.segments.active
        if active is None or self._restart.covers(self.end_offset):
            return
        try:
            active.save_indexes(complete=True)
        except OSError as error:
            logger.warning("an index in %s was not written: %s", self.segments.directory, error)
        self._shared.sweeper.ask(self, move=True)

    @property
    def is_settled(self) -> bool:
        """Whether a restart need not check anything."""
        return self.durable_recovery_point == self.end_offset and not self.segments.dirty

    def close(self, error: IsthmusError) -> None:
        """Refuse with `error` what comes from here on, wake the readers, close the files."""
        self._closed = error
        self.fail(error)
        self._wake()
        self._reader.close()
        self.tail.clear()
        self._stop_flush()
        self._shared.syncer.forget(self)
        self._shared.sweeper.forget(self)
        self.segments.close()
