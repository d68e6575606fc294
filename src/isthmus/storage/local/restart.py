"""Where a partition is to be opened from after a crash, and the files that belong to it.

The recovery point is the offset up to which everything of a partition is on the disk for sure:
its segments, their indexes, the leader epochs, and a snapshot of the producers at that very
offset. A restart after a crash checks only what comes after it (recovery.py). A sweep moves it
(`RestartPoint.begin`, `end`), and it counts once the file that a restart reads names it
(recovery_points.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from isthmus.storage.local.aborted import snapshot_path
from isthmus.storage.local.checkpoints import LEADER_EPOCH_FILE

if TYPE_CHECKING:
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.recovery import Loaded
    from isthmus.storage.local.shared import Shared
    from isthmus.storage.local.sweep import SweepWork

SNAPSHOTS_KEPT: Final = 2

logger = logging.getLogger(__name__)


class RestartPoint:
    """The recovery point of one partition."""

    __slots__ = (
        "_epochs_saved",
        "_producers",
        "_segments",
        "_shared",
        "_snapshots",
        "bytes_since",
        "epochs",
        "offset",
    )

    def __init__(self, shared: Shared, loaded: Loaded) -> None:
        self.offset = loaded.recovery_point  # that the file on the disk says
        self.epochs = loaded.epochs
        self.bytes_since = 0  # written since it was moved, or is being moved
        self._epochs_saved = loaded.epochs_saved
        self._producers = loaded.producers
        self._segments = loaded.segments
        self._shared = shared
        self._snapshots = loaded.snapshots

    @property
    def unneeded_before(self) -> int:
        """The offset before which no restart asks for a segment any more.

        Neither to check it, nor to learn from it what producers wrote.
        """
        return min(self.offset, self._snapshots[-1]) if self._snapshots else 0

    def covers(self, end_offset: int) -> bool:
        """Whether a restart finds all it would like to find for `end_offset`."""
        return (
            self.offset == end_offset
            and not self._segments.dirty
            and not self._segments.has_unsynced_indexes
            and self._snapshots[-1:] == [end_offset]
        )

    def wrote(self, partition: LocalPartition, size: int) -> None:
        """Note `size` bytes that the recovery point does not cover."""
        self.bytes_since += size
        self._shared.sweeper.wrote(partition, size)

    def cut_epochs(self, start_offset: int) -> None:
        """Forget the epochs before the start; the file follows with the next sweep."""
        if self.epochs.cut_before(start_offset):
            self._epochs_saved = False

    def begin(self, work: SweepWork) -> None:
        """Add to a sweep what moves the recovery point to its end offset.

        The producers must know of nothing that is not written yet.
        """
        try:
            work.indexes = self._segments.save_indexes()
        except OSError as error:
            work.hint_error = error
            return
        work.hints = [(path, None) for _, path in work.indexes]
        directory = self._segments.directory
        if not self._epochs_saved:
            work.replacement = (directory / LEADER_EPOCH_FILE, self.epochs.format())
        snapshot = snapshot_path(directory, work.end_offset)
        work.hints.append((snapshot, self._producers.snapshot()))
        work.recovery_point = work.end_offset
        work.bytes_since, self.bytes_since = self.bytes_since, 0

    def end(self, work: SweepWork) -> None:
        """A sweep has ended; where `begin` added to it, the file names the new point."""
        if work.hint_error is not None:
            self.undo(work)
            logger.warning("no checkpoint of %s: %s", self._segments.directory, work.hint_error)
            return
        if work.recovery_point < 0:
            return
        self._epochs_saved = True
        self.offset = work.recovery_point
        if self._snapshots[-1:] != [self.offset]:
            self._snapshots.append(self.offset)
        while len(self._snapshots) > SNAPSHOTS_KEPT:
            self._remove_snapshot(self._snapshots.pop(0))

    def undo(self, work: SweepWork) -> None:
        """A sweep has not moved the recovery point: what `begin` took is to do once more."""
        self._segments.take_back_indexes(work.indexes)
        self.bytes_since += work.bytes_since

    def _remove_snapshot(self, offset: int) -> None:
        try:
            self._shared.files.remove(snapshot_path(self._segments.directory, offset))
        except OSError as error:
            logger.warning("an old snapshot was not removed: %s", error)
