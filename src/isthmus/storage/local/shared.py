"""What the partitions of one log have in common: the disk, the rounds of syncing, the
limits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from isthmus.errors import SyncFailed
from isthmus.storage.local.checkpoints import RECOVERY_POINT_FILE, format_offsets
from isthmus.storage.local.housekeeping import Housekeeping
from isthmus.storage.local.loads import LoadedBytes
from isthmus.storage.local.removals import Removals
from isthmus.storage.local.segment import OpenSegments
from isthmus.storage.local.start_offsets import StartOffsets
from isthmus.storage.local.sync import Syncer, SyncWork
from isthmus.storage.local.tail import TailBudget
from isthmus.storage.local.trouble import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.errors import StorageError
    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.settings import LocalSettings

logger = logging.getLogger(__name__)


class Shared:
    """Given to every partition of a log."""

    __slots__ = (
        "error",
        "files",
        "housekeeping",
        "loaded",
        "open_segments",
        "partitions",
        "recovery_points",
        "removals",
        "runtime",
        "settings",
        "start_offsets",
        "syncer",
        "tails",
        "touched",
        "trouble",
    )

    def __init__(
        self, runtime: Runtime, files: Files, settings: LocalSettings, directory: Path
    ) -> None:
        self.runtime = runtime
        self.files = files
        self.settings = settings
        self.open_segments = OpenSegments(settings.open_segments_max, settings.index_bytes_max)
        self.loaded = LoadedBytes(settings.loaded_bytes_max, settings.all_loaded_bytes_max)
        self.tails = TailBudget(settings.tail_bytes_max, settings.tails_bytes_max)
        self.syncer = Syncer(runtime, files, self._sync_failed)
        self.housekeeping = Housekeeping(runtime)
        self.removals = Removals(runtime, files, self.housekeeping)
        self.touched: list[LocalPartition] = []  # have something queued
        self.partitions: dict[LocalPartition, None] = {}
        self.error: StorageError | None = None  # why nothing is accepted any more
        self.trouble = Trouble(runtime, files, directory)
        self.recovery_points = RecoveryPoints(self, directory)
        self.start_offsets = StartOffsets(self, directory)

    def _sync_failed(self, error: OSError) -> None:
        self.fail(SyncFailed(f"fdatasync failed: {error.strerror or error}"))

    def fail(self, error: SyncFailed) -> None:
        """Stop for good: what is written cannot be promised, now or later."""
        if self.error is not None:
            return
        logger.critical(
            "%s. The log takes no more records, reading goes on. "
            "Mend the disk, then start the server again",
            error,
        )
        self.error = error
        for partition in list(self.partitions):
            partition.fail(error)
        self.start_offsets.fail(error)


class _PointsWork(SyncWork):
    """A round of syncing and what it writes; the next one may begin before this one ends."""

    __slots__ = ("written",)

    def __init__(self, written: list[tuple[LocalPartition, int]]) -> None:
        super().__init__(0)
        self.written = written


class RecoveryPoints:
    """The file that says from where on each partition must be checked after a crash."""

    __slots__ = ("_path", "_shared")

    def __init__(self, shared: Shared, directory: Path) -> None:
        self._shared = shared
        self._path = directory / RECOVERY_POINT_FILE

    def begin_sync(self) -> SyncWork:
        """Take part in a round: write the file anew."""
        written = [(each, each.recovery_point) for each in self._shared.partitions]
        work = _PointsWork(written)
        points = [(each.log_topic, each.index, offset) for each, offset in written]
        work.replacements = [(self._path, format_offsets(points))]
        return work

    def end_sync(self, work: SyncWork) -> None:
        """The file is written, or the old one stands and more is checked after a crash."""
        assert isinstance(work, _PointsWork)
        if work.hint_error is not None:
            logger.warning("%s was not written: %s", self._path, work.hint_error)
            return
        for partition, offset in work.written:
            partition.recovery_point_saved(offset)

    def fail_sync(self, work: SyncWork) -> None:
        """The old file stands."""
