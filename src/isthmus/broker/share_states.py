"""What becomes of the records of share groups: all share partitions, and the log behind them.

A share partition is here from the moment its group begins to read it; where it starts is
decided when somebody fetches for the first time, and written down at once. Changes are written
as updates, after many of them a snapshot. When enough has been written, all that is known is
written once more, and what was before is deleted: so the log topic stays short.

Whoever waits for something to change here is woken: after an acknowledgement, a release, a lock
that has lapsed. Not here: the rules (kafka/share_partition.py), the members (share_groups.py).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from isthmus.broker.state_log import StateLog
from isthmus.errors import IsthmusError, Malformed
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.share_partition import ShareLimits, SharePartition
from isthmus.kafka.share_records import (
    SHARE_CONFIGS,
    SHARE_LOG_TOPIC,
    UNKNOWN,
    ShareKey,
    ShareSnapshot,
    ShareUpdate,
    read_share,
    snapshot_key,
    snapshot_value,
    update_key,
    update_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.appends import Appends
    from isthmus.broker.state_log import Rows
    from isthmus.broker.topic_ids import TopicIds
    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

logger = logging.getLogger(__name__)

UPDATES_MAX: Final = 500  # share.coordinator.snapshot.update.records.per.snapshot
ROWS_KEPT_MIN: Final = 10_000  # fewer in the log are never cut off
ROWS_PER_PARTITION: Final = 20


class SharedPlace:
    """One share partition with all that belongs to it."""

    __slots__ = (
        "cancel_timer",
        "created_ms",
        "is_starting",
        "key",
        "partition",
        "snapshot_epoch",
        "state_epoch",
        "timer_due_ms",
        "updates",
        "waiting",
    )

    def __init__(self, key: ShareKey, now_ms: int, state_epoch: int = 0) -> None:
        self.key = key
        self.partition: SharePartition | None = None  # None: its start is not decided
        self.is_starting = False  # it is being looked up
        self.state_epoch = state_epoch
        self.snapshot_epoch = 0
        self.created_ms = now_ms  # wall clock
        self.updates = 0  # since the newest snapshot
        self.timer_due_ms: int | None = None
        self.cancel_timer: Callable[[], None] | None = None
        self.waiting: dict[Callable[[], None], None] = {}

    def wake(self) -> None:
        """Something has changed: whoever waits for that looks again."""
        for call in [*self.waiting]:
            call()

    def stop(self) -> None:
        """Nobody asks for it any more."""
        if self.cancel_timer is not None:
            self.cancel_timer()
            self.cancel_timer = None
        self.wake()


class ShareStates:
    """All share partitions there are."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        appends: Appends,
        topic_ids: TopicIds,
        *,
        partitions: int = 1,
        limits: Callable[[str], ShareLimits] = lambda _: ShareLimits(),
    ) -> None:
        """Read back what was kept; `limits` are those of a group by its id, now."""
        self._runtime = runtime
        self._log = log
        self._topic_ids = topic_ids
        self._limits = limits
        self.places: dict[ShareKey, SharedPlace] = {}
        self.is_loading = True
        self._rows_written = 0  # since the log was last cut
        self._is_cutting = False
        self.kept = StateLog(runtime, log, appends, SHARE_LOG_TOPIC, SHARE_CONFIGS, partitions)
        self.kept.load(self._replay, self._loaded)

    # --- one share partition ------------------------------------------------------------------

    def begin(self, key: ShareKey, start_offset: int = UNKNOWN) -> SharedPlace:
        """Return a share partition, as new; with a start it is given out from there."""
        old = self.places.get(key)
        epoch = 0 if old is None else old.state_epoch + 1
        if old is not None:
            old.stop()
        place = self.places[key] = SharedPlace(key, self._runtime.now_ms(), epoch)
        if start_offset != UNKNOWN:
            place.partition = self._partition(key, start_offset)
        return place

    def start(self, place: SharedPlace, start_offset: int) -> None:
        """Decide where a share partition starts, and write it down."""
        place.partition = self._partition(place.key, start_offset)
        self.snapshot([place], lambda _: None)

    def _partition(self, key: ShareKey, start_offset: int) -> SharePartition:
        return SharePartition(start_offset, partial(self._limits, key.group_id))

    def changed(
        self, place: SharedPlace, reply: Callable[[ErrorCode], None] = lambda _: None
    ) -> None:
        """After each call of its machine: write what has changed, wake who waits for that.

        `reply` is called when it is durable.
        """
        shared = place.partition
        assert shared is not None
        self.set_timer(place)
        if shared.is_rewritten or place.updates >= UPDATES_MAX:
            self.snapshot([place], reply)
        else:
            update = shared.take_unstored()
            if update is None:
                reply(ErrorCode.NONE)
            else:
                place.updates += 1
                start_offset, batches = update
                value = update_value(
                    ShareUpdate(
                        place.snapshot_epoch,
                        self._leader_epoch(place.key),
                        start_offset,
                        shared.done_count,
                        batches,
                    )
                )
                self._write(place.key, [(update_key(place.key), value)], reply)
        self._runtime.defer(place.wake)

    def snapshot(
        self, places: Iterable[SharedPlace], reply: Callable[[ErrorCode], None]
    ) -> None:
        """Write all that is known of some share partitions; `reply` when it is durable."""
        rows: dict[ShareKey, Rows] = {}
        now_ms = self._runtime.now_ms()
        for place in places:
            shared = place.partition
            place.snapshot_epoch += 1
            place.updates = 0
            kept = ShareSnapshot(
                *(place.snapshot_epoch, place.state_epoch, self._leader_epoch(place.key)),
                UNKNOWN if shared is None else shared.start_offset,
                UNKNOWN if shared is None else shared.done_count,
                place.created_ms,
                () if shared is None else shared.snapshot(),
            )
            if shared is not None:
                shared.take_unstored()
            rows[place.key] = [(snapshot_key(place.key), snapshot_value(kept, now_ms))]
        self._write_all(rows, reply)

    def drop(self, keys: Iterable[ShareKey], reply: Callable[[ErrorCode], None]) -> None:
        """Forget share partitions; `reply` when it is durable."""
        gone = [self.places.pop(key) for key in keys if key in self.places]
        for place in gone:
            place.stop()
        self._write_all({one.key: [(snapshot_key(one.key), None)] for one in gone}, reply)

    def of_group(self, group_id: str) -> list[ShareKey]:
        """Return the share partitions of a group."""
        return [key for key in self.places if key.group_id == group_id]

    def forget_group(self, group_id: str) -> None:
        """A group is gone, and with it what was kept for it."""
        self.drop(self.of_group(group_id), lambda _: None)

    def forget_log_topics(self) -> None:
        """Some log topic was deleted: nothing is kept of what is not there."""
        there = {log_topic.topic_id for log_topic in self._log.topics.values()}
        gone = [key for key in self.places if key.topic_id not in there]
        self.drop(gone, lambda _: None)

    # --- time ---------------------------------------------------------------------------------

    def set_timer(self, place: SharedPlace) -> None:
        """After something was given out: notice when a lock lapses."""
        assert place.partition is not None
        due_ms, set_for_ms = place.partition.due_ms(), place.timer_due_ms
        if due_ms is None or (set_for_ms is not None and set_for_ms <= due_ms):
            return  # it finds out when it runs
        if place.cancel_timer is not None:
            place.cancel_timer()
        place.timer_due_ms = due_ms
        delay_ms = max(due_ms - self._runtime.monotonic_ms(), 0)
        place.cancel_timer = self._runtime.later(delay_ms, partial(self._tick, place))

    def _tick(self, place: SharedPlace) -> None:
        place.cancel_timer = place.timer_due_ms = None
        if self.places.get(place.key) is not place or place.partition is None:
            return
        if place.partition.tick(self._runtime.monotonic_ms()):
            self.changed(place)
        else:
            self.set_timer(place)

    # --- the log ------------------------------------------------------------------------------

    def _leader_epoch(self, key: ShareKey) -> int:
        name = self._topic_ids.name_of(key.topic_id)
        partition = None if name is None else self._log.partition(name, key.partition)
        return 0 if partition is None else partition.leader_epoch

    def _write(self, key: ShareKey, rows: Rows, reply: Callable[[ErrorCode], None]) -> None:
        self._rows_written += len(rows)
        self.kept.write(key.text, rows, reply)
        if self._rows_written > max(ROWS_KEPT_MIN, ROWS_PER_PARTITION * len(self.places)):
            self._cut()

    def _write_all(
        self, rows: dict[ShareKey, Rows], reply: Callable[[ErrorCode], None]
    ) -> None:
        left, worst = len(rows), ErrorCode.NONE

        def written(code: ErrorCode) -> None:
            nonlocal left, worst
            left -= 1
            worst = code or worst
            if not left:
                reply(worst)

        if not rows:
            reply(worst)
        for key, own in rows.items():
            self._write(key, own, written)

    def _cut(self) -> None:
        """Write all that is known once more, and delete what was written before."""
        if self._is_cutting:
            return
        self._is_cutting = True
        self._rows_written = 0
        ends = [(one, one.end_offset) for one in self.kept.ensure().partitions]

        def written(code: ErrorCode) -> None:
            self._is_cutting = False
            for partition, end_offset in ends if not code else ():
                partition.delete_before(end_offset, _note_cut)

        self.snapshot([*self.places.values()], written)

    def _replay(self, _index: int, batch: RecordBatch) -> None:
        """Take in one batch, newer than all before with the same keys."""
        if batch.is_control:
            return
        for record in batch.records():
            self._rows_written += 1
            try:
                key, said = read_share(record.key or b"", record.value)
            except Malformed as error:
                logger.warning("share state skipped offset=%d error=%s", record.offset, error)
                continue
            self._take(key, said)

    def _take(self, key: ShareKey, said: ShareSnapshot | ShareUpdate | None) -> None:
        place = self.places.get(key)
        if said is None:
            self.places.pop(key, None)
        elif isinstance(said, ShareSnapshot):
            place = self.places[key] = SharedPlace(key, said.created_ms, said.state_epoch)
            place.snapshot_epoch = said.snapshot_epoch
            if said.start_offset != UNKNOWN:
                place.partition = self._partition(key, said.start_offset)
                place.partition.take(UNKNOWN, said.batches)
        elif place is not None and said.snapshot_epoch == place.snapshot_epoch:
            place.updates += 1
            if place.partition is None:
                place.partition = self._partition(key, max(said.start_offset, 0))
            place.partition.take(said.start_offset, said.batches)

    def _loaded(self) -> None:
        self.is_loading = False
        self.forget_log_topics()
        logger.info("share partitions loaded count=%d", len(self.places))


def _note_cut(error: IsthmusError | None) -> None:
    if error is not None:
        logger.warning("log of share states not cut error=%s", error)
