"""What of a partition is to be compacted, and how urgently: compaction.py does it.

Where the age of records counts, the times of a segment are looked up once, by another thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from isthmus.storage.local.segment_times import (
    first_timestamp,
    knows_times,
    newest_timestamp,
)
from isthmus.storage.local.segments import RELATIVE_OFFSET_MAX

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from isthmus.storage.local.lookup import Step
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.segment import Segment


class Plan(NamedTuple):
    """What may be compacted of one partition."""

    partition: LocalPartition
    segments: list[Segment]  # from the oldest to the last that may be touched
    dirty_offset: int  # what comes before is clean
    dirty_ratio: float
    is_overdue: bool

    @property
    def is_due(self) -> bool:
        """Whether it is worth the work."""
        return self.is_overdue or self.dirty_ratio > self.partition.config.dirty_ratio_min


def plan_compaction(
    partition: LocalPartition, now_ms: int
) -> Generator[Step, Any, Plan | None]:
    """Return what may be compacted, by the steps of a lookup; None where that is nothing."""
    config, segments = partition.config, partition.segments
    by_age = config.compaction_lag_ms_min > 0 or config.compaction_lag_ms_max < now_ms
    limit = min(partition.last_stable_offset, partition.durable_recovery_point)
    dirty_offset = segments.clean_offset
    if not partition.start_offset <= dirty_offset <= partition.end_offset:
        dirty_offset = partition.start_offset
    chosen: list[Segment] = []
    clean_bytes = dirty_bytes = 0
    oldest_ms = now_ms
    for segment in list(segments)[:-1]:
        is_dirty = segment.next_offset > dirty_offset
        if by_age and is_dirty and not knows_times(segment):
            yield [segment], _look_up
            if not knows_times(segment):
                return None  # deleted or replaced meanwhile
        if segment.next_offset > limit or (
            is_dirty
            and config.compaction_lag_ms_min > 0
            and newest_timestamp(segment) > now_ms - config.compaction_lag_ms_min
        ):
            break
        chosen.append(segment)
        if not is_dirty:
            clean_bytes += segment.size
            continue
        dirty_bytes += segment.size
        if segment.size and config.compaction_lag_ms_max < now_ms:
            oldest_ms = min(oldest_ms, first_timestamp(segment))
    if not dirty_bytes:
        return None
    return Plan(
        partition,
        chosen,
        dirty_offset,
        dirty_bytes / (clean_bytes + dirty_bytes),
        oldest_ms < now_ms - config.compaction_lag_ms_max,
    )


def _look_up(twins: list[Segment]) -> bool:
    for twin in twins:
        newest_timestamp(twin)
        first_timestamp(twin)
    return True


def group_segments(segments: Sequence[Segment], bytes_max: int) -> list[list[Segment]]:
    """Part segments into neighbours that fit into one of `bytes_max` bytes and its index."""
    groups: list[list[Segment]] = []
    group_bytes = 0
    for segment in segments:
        if (
            groups
            and group_bytes + segment.size <= bytes_max
            and segment.next_offset - 1 - groups[-1][0].base_offset <= RELATIVE_OFFSET_MAX
        ):
            groups[-1].append(segment)
            group_bytes += segment.size
        else:
            groups.append([segment])
            group_bytes = segment.size
    return groups
