"""Lets partitions begin later when what is old, or too much, is to go: `cleanup.policy=delete`.

By the rules of Apache Kafka (`UnifiedLog.deleteOldSegments`): whole segments, the oldest first,
as long as the oldest is expired. By time: its largest timestamp is older than `retention.ms`.
By size: what would be left without it is still `retention.bytes` or more. The active segment
goes, too, once all of it has expired; the partition is empty then and its offsets go on.

Kafka keeps a segment whose largest timestamp lies in the future until that day comes, so one
producer with a wrong clock can fill a disk. Here such a segment, and one without timestamps,
counts from when its file was last written to. (A timestamp that is merely late counts as it
stands; so a server that starts with its own clock in the past does not lose what it wrote.)

Deciding is all that is done here. That the partition begins later is written down by
start_offsets.py and the files are taken away by removals.py: the way of DeleteRecords. A full
disk may be unable to take that note; then it is enough that the files go, because a partition
begins with its oldest file at the latest.

The same pass begins a new segment in compacted log topics where the active one is older than
`segment.ms` and nothing comes that would do so: only sealed segments are compacted.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from isthmus.errors import NoSpace
from isthmus.storage.local.segment_times import newest_timestamp

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from isthmus.errors import IsthmusError
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.housekeeping import Step, Steps
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.shared import Shared

PARTITIONS_PER_TURN: Final = 64

logger = logging.getLogger(__name__)


class Retention:
    """The job that looks through all partitions of a log."""

    __slots__ = ("_shared",)

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def run(self) -> Steps:
        """Make one pass, as a job of housekeeping."""
        for number, partition in enumerate(tuple(self._shared.partitions), 1):
            try:
                yield from self._check(partition)
            except OSError as error:
                if partition in self._shared.partitions:
                    logger.warning("retention of %s: %s", partition.directory, error)
            if number % PARTITIONS_PER_TURN == 0:
                yield None

    def _check(self, partition: LocalPartition) -> Steps:
        config = partition.config
        if config.compacts:
            now_ms = self._shared.runtime.now_ms()
            if partition.segments.is_idle_too_long(now_ms):
                partition.roll()
        if config.deletes and (config.retention_ms >= 0 or config.retention_bytes >= 0):
            start = yield from self._find_start(partition)
            if start > partition.start_offset and partition.config is config:
                self._shared.start_offsets.raise_to(
                    partition, start, partial(self._raised, partition, start)
                )

    def _find_start(self, partition: LocalPartition) -> Generator[Step, Any, int]:
        """Return where the partition begins once all that has expired is gone."""
        config, start = partition.config, partition.start_offset
        spans = [
            (segment, end)
            for segment, end in partition.segments.spans(partition.end_offset)
            if end > start
        ]
        excess = -1
        if config.retention_bytes >= 0:
            excess = sum(segment.size for segment, _ in spans) - config.retention_bytes
        for segment, end in spans:
            is_sealed = segment is not spans[-1][0]
            if segment.size == 0 and not is_sealed:
                break
            if segment.size == 0:  # compaction has left nothing of it
                start = end
                continue
            if excess < segment.size and not (
                config.retention_ms >= 0
                and (yield from self._age_ms(partition, segment, is_sealed=is_sealed))
                > config.retention_ms
            ):
                break
            excess -= segment.size
            start = end
        return start

    def _age_ms(
        self, partition: LocalPartition, segment: Segment, *, is_sealed: bool
    ) -> Generator[Step, Any, int]:
        """Return how long ago the newest record of a segment came, as far as can be said."""
        now_ms = self._shared.runtime.now_ms()
        written_ms = segment.written_ms
        is_plain = segment.newest_known and 0 <= segment.max_timestamp <= now_ms
        if not is_plain and written_ms < 0:
            twin = segment.twin()
            try:
                written_ms = yield partial(_look_at, self._shared.files, twin)
            finally:
                partition.segments.give_back(segment, twin)
            if is_sealed:
                segment.written_ms = written_ms
        newest = segment.max_timestamp
        return now_ms - (newest if 0 <= newest <= now_ms else written_ms)

    def _raised(
        self, partition: LocalPartition, offset: int, error: IsthmusError | None
    ) -> None:
        if isinstance(error, NoSpace):
            partition.raise_start(offset)
        elif error is None:
            logger.info("%s begins at offset %d now", partition.directory, offset)


def _look_at(files: Files, twin: Segment) -> int:
    """Find out a segment's newest timestamp, and return when it was last written to."""
    written_ms = files.modified_ms(twin.path)
    newest_timestamp(twin)
    if not twin.pins:
        twin.let_go()  # many segments: learn from each, open none
    return written_ms
