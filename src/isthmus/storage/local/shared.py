"""What the partitions of one log have in common: the disk, the rounds of syncing, the
limits."""

from __future__ import annotations

import logging
from threading import Event
from typing import TYPE_CHECKING, Final

from isthmus.storage.local.chunks import ChunkBudget
from isthmus.storage.local.housekeeping import Housekeeping
from isthmus.storage.local.journal import Journal
from isthmus.storage.local.loaded import LoadedBytes
from isthmus.storage.local.mending import Mender, sync_failure
from isthmus.storage.local.open_segments import OpenSegments
from isthmus.storage.local.reading import WAY_BYTES
from isthmus.storage.local.recovery_points import RecoveryPoints
from isthmus.storage.local.removals import Removals
from isthmus.storage.local.start_offsets import StartOffsets
from isthmus.storage.local.sweep import Sweeper
from isthmus.storage.local.sync import Syncer
from isthmus.storage.local.tail import TailBudget
from isthmus.storage.local.trouble import Trouble

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.errors import StorageError, SyncFailed
    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.settings import LocalSettings

ABORTED_BYTES_MAX: Final = 16 * 1024 * 1024  # of answers that readers have yet to fetch

logger = logging.getLogger(__name__)


class Shared:
    """Given to every partition of a log."""

    __slots__ = (
        "chunks",
        "doubt",
        "error",
        "files",
        "housekeeping",
        "journal",
        "loaded",
        "loaded_aborted",
        "mender",
        "open_segments",
        "partitions",
        "recovery_points",
        "removals",
        "runtime",
        "scratch",
        "settings",
        "start_offsets",
        "sweeper",
        "syncer",
        "tails",
        "touched",
        "trouble",
        "written_bytes",
    )

    def __init__(
        self, runtime: Runtime, files: Files, settings: LocalSettings, directory: Path
    ) -> None:
        self.runtime = runtime
        self.files = files
        self.settings = settings
        self.open_segments = OpenSegments(settings.open_segments_max, settings.index_bytes_max)
        self.loaded = LoadedBytes(settings.loaded_bytes_max, settings.all_loaded_bytes_max)
        # Apart, so that records and what was aborted of them never make room for one another.
        self.loaded_aborted = LoadedBytes(ABORTED_BYTES_MAX, ABORTED_BYTES_MAX)
        self.scratch = bytearray(settings.read_bytes_max + WAY_BYTES)  # for a read on the loop
        self.tails = TailBudget(settings.tail_bytes_max, settings.tails_bytes_max)
        self.chunks = ChunkBudget(settings.journal_file_bytes)
        self.recovery_points = RecoveryPoints(files, directory)
        self.journal = Journal(runtime, files, settings, directory)
        self.doubt = Event()  # a sync has failed
        self.syncer = Syncer(runtime, files, self.journal, self.doubt, self._sync_failed)
        self.sweeper = Sweeper(
            runtime,
            files,
            settings,
            self.journal,
            self.recovery_points,
            self.open_segments,
            self.doubt,
            self._sync_failed,
        )
        self.housekeeping = Housekeeping(runtime)
        self.removals = Removals(runtime, files, self.housekeeping)
        self.touched: list[LocalPartition] = []  # have something queued
        self.written_bytes = 0  # of batches, since the start
        self.partitions: dict[LocalPartition, None] = {}
        self.error: StorageError | None = None  # why nothing is accepted any more
        self.mender = Mender(self)
        self.trouble = Trouble(runtime, files, directory, self.mender)
        self.start_offsets = StartOffsets(self, directory)

    def _sync_failed(self, error: OSError, *, lacks_room: bool) -> None:
        for partition in self.partitions:  # what reads show may not be what was written
            for segment in partition.segments.dirty:
                segment.verified.forget_from(segment.synced_size)
        if not lacks_room or self.mender.is_closed:
            self.fail(sync_failure(error))
        elif self.error is None:
            self.mender.stall(error)
            self.trouble.found(error, "fdatasync failed")

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
        self.doubt.set()
        self.syncer.stop()
        self.sweeper.stop()
        for partition in list(self.partitions):
            partition.fail(error)
        self.start_offsets.fail(error)
