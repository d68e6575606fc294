"""Where a partition is to be opened from after a crash, and the files that belong to it.

The recovery point is the offset up to which everything of a partition is on the disk for sure:
its segments, their indexes, the leader epochs, and a snapshot of the producers at that very
offset. A restart after a crash checks only what comes after it (recovery.py). A round of
syncing moves it when enough has been written since (`RestartPoint.begin`, `end`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from isthmus.storage.local.aborted import snapshot_path
from isthmus.storage.local.checkpoints import LEADER_EPOCH_FILE

if TYPE_CHECKING:
    from isthmus.storage.local.recovery import Loaded
    from isthmus.storage.local.shared import Shared
    from isthmus.storage.local.sync import SyncWork

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
        "durable_offset",
        "epochs",
        "offset",
    )

    def __init__(self, shared: Shared, loaded: Loaded) -> None:
        self.offset = loaded.recovery_point
        self.durable_offset = loaded.recovery_point  # what the file on the disk says
        self.epochs = loaded.epochs
        self.bytes_since = 0  # written since the last checkpoint
        if loaded.end_offset > self.offset:
            self.bytes_since = shared.settings.checkpoint_bytes
        self._epochs_saved = loaded.epochs_saved
        self._producers = loaded.producers
        self._segments = loaded.segments
        self._shared = shared
        self._snapshots = loaded.snapshots

    @property
    def is_due(self) -> bool:
        """Whether enough was written since to move the recovery point."""
        return self.bytes_since >= self._shared.settings.checkpoint_bytes

    def make_due(self) -> None:
        """Move it with the next round, however little was written."""
        self.bytes_since = self._shared.settings.checkpoint_bytes

    @property
    def unneeded_before(self) -> int:
        """The offset before which no restart asks for a segment any more.

        Neither to check it, nor to learn from it what producers wrote.
        """
        return min(self.durable_offset, self._snapshots[-1]) if self._snapshots else 0

    def covers(self, end_offset: int) -> bool:
        """Whether a restart finds all it would like to find for `end_offset`."""
        return (
            self.offset == end_offset
            and not self._segments.dirty
            and not self._segments.has_unsynced_indexes
            and self._snapshots[-1:] == [end_offset]
        )

    def save_epochs(self) -> None:
        """Write the leader epochs if the file lacks some. Raises OSError."""
        if self._epochs_saved:
            return
        files, path = self._shared.files, self._segments.directory / LEADER_EPOCH_FILE
        temporary = path.with_suffix(".tmp")
        files.write_file(temporary, self.epochs.format(), sync=False)
        files.rename(temporary, path)
        self._epochs_saved = True
        self._segments.names_changed = True

    def cut_epochs(self, start_offset: int) -> None:
        """Forget the epochs before the start; the file follows with the next write."""
        if self.epochs.cut_before(start_offset):
            self._epochs_saved = False

    def begin(self, work: SyncWork, end_offset: int) -> None:
        """Add to a round what moves the recovery point to `end_offset`.

        The producers must know of nothing that is not written yet.
        """
        try:
            work.indexes = self._segments.save_indexes()
        except OSError as error:
            logger.warning(
                "an index in %s was not written: %s", self._segments.directory, error
            )
            self.bytes_since = 0  # tried again after as many bytes
            return
        work.hints = [(path, None) for _, path in work.indexes]
        directory = self._segments.directory
        if self._epochs_saved:
            work.hints.append((directory / LEADER_EPOCH_FILE, None))
        work.hints.append((snapshot_path(directory, end_offset), self._producers.snapshot()))
        work.directories.append(directory)  # the snapshot has to be found, too
        work.recovery_point = end_offset
        self.bytes_since = 0

    def end(self, work: SyncWork) -> None:
        """A round that `begin` added to has made everything durable."""
        if work.recovery_point < 0:
            return
        if work.hint_error is not None:
            for segment, path in work.indexes:
                segment.unsynced_indexes[path] = None
            logger.warning("no checkpoint of %s: %s", self._segments.directory, work.hint_error)
            return
        self.offset = work.recovery_point
        self._shared.syncer.ask(self._shared.recovery_points)
        if self._snapshots[-1:] != [self.offset]:
            self._snapshots.append(self.offset)
        while len(self._snapshots) > SNAPSHOTS_KEPT:
            self._remove_snapshot(self._snapshots.pop(0))

    def _remove_snapshot(self, offset: int) -> None:
        try:
            self._shared.files.remove(snapshot_path(self._segments.directory, offset))
        except OSError as error:
            logger.warning("an old snapshot was not removed: %s", error)
