"""What a log engine has counted since its start, as it is at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from isthmus.metrics import Histogram


class LogMeasures(NamedTuple):
    """The work of an engine with a disk; one without has none of it."""

    written_bytes: int = 0  # batches, into segments
    journal_bytes: int = 0  # their copies, with what the journal adds
    syncs: Histogram | None = None  # seconds that each round of syncing took
    failed_syncs: int = 0
    refused_writes: int = 0  # for want of room, mostly
    disk_reads: int = 0  # what was not in memory, read by another thread
    disk_read_bytes: int = 0
    compactions: int = 0  # of partitions
    compaction_read_bytes: int = 0  # size before
    compaction_kept_bytes: int = 0  # size after
    unchecked_bytes: int = 0  # what a start after a crash would have to check
