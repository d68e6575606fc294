"""Where each partition begins, on the disk before anybody is told.

The start offset of a partition grows by retention and by DeleteRecords, in the middle of a
segment or even of a batch, so the names of the files do not tell it. It stands in
`log-start-offset-checkpoint`, in Kafka's own form, one file for all partitions. Raising it
takes part in a round of syncing like an append: all that is asked while one round is under way
goes with the next, in one write. Only when that has ended does the partition begin later, and
whoever asked is answered; so what was said to be gone does not come back.

A partition stands there by name and by id. The file is written seldom, and after a crash it may
still tell of a deleted log topic whose name another one has by now.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from isthmus.errors import IsthmusError, StorageError, SyncFailed
from isthmus.storage.local.checkpoints import (
    BY_ID,
    START_OFFSET_FILE,
    format_partition_offsets,
    parse_id,
    parse_offsets,
)
from isthmus.storage.local.files import storage_error
from isthmus.storage.local.sync import SyncWork

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeAlias

    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.shared import Shared

    Done: TypeAlias = Callable[[IsthmusError | None], object]
    Asked: TypeAlias = tuple[LocalPartition, int, Done]

logger = logging.getLogger(__name__)


class _Work(SyncWork):
    """A round of syncing and who waits for it; the next one may begin before this one ends."""

    __slots__ = ("asked",)

    def __init__(self, asked: list[Asked]) -> None:
        super().__init__()
        self.asked = asked


class StartOffsets:
    """The file of start offsets, and who waits for it."""

    __slots__ = ("_asked", "_path", "_shared", "_written")

    records_unsynced = 0  # there are none in it

    def __init__(self, shared: Shared, directory: Path) -> None:
        self._asked: list[Asked] = []
        self._path = directory / START_OFFSET_FILE
        self._shared = shared
        self._written: dict[LocalPartition, int] = {}  # by rounds that are not answered yet

    def load(self) -> dict[tuple[bytes, int], int]:
        """Return the start offsets by topic id and partition. Raises OSError.

        A file that cannot be read is as none: every partition begins with its oldest segment.
        """
        data = self._shared.files.read_file(self._path)
        try:
            lines = {} if data is None else parse_offsets(data)
            return {
                (parse_id(name.removeprefix(BY_ID)), index): offset
                for (name, index), offset in lines.items()
                if name.startswith(BY_ID)
            }
        except ValueError as error:
            logger.error(
                "%s is damaged (%s): records deleted lately may be readable again",
                self._path,
                error,
            )
            return {}

    def raise_to(self, partition: LocalPartition, offset: int, done: Done) -> None:
        """Let a partition begin at `offset`; `done` is called when the disk knows, or why not.

        `done` gets None, or StorageError, then nothing has changed.
        """
        if self._shared.error is not None:
            done(self._shared.error)
            return
        self._asked.append((partition, offset, done))
        self._shared.syncer.ask(self)
        self._shared.runtime.defer(self._shared.syncer.start)

    def fail(self, error: IsthmusError) -> None:
        """No round will come any more: tell those who wait for one."""
        asked, self._asked = self._asked, []
        for _, _, done in asked:
            done(error)

    # --- Syncable -----------------------------------------------------------------------------

    def begin_sync(self) -> SyncWork:
        """Take part in a round: write the file anew."""
        asked, self._asked = self._asked, []
        for partition, offset, _ in asked:
            self._written[partition] = max(self._written.get(partition, 0), offset)
        starts = {
            each: max(each.start_offset, self._written.get(each, 0))
            for each in self._shared.partitions
        }
        work = _Work(asked)
        raised = [(each, start) for each, start in starts.items() if start > 0]
        work.replacement = (self._path, format_partition_offsets(raised))
        return work

    def end_sync(self, work: SyncWork) -> None:
        """The file is written, or the old one stands and nothing begins later."""
        assert isinstance(work, _Work)
        error: StorageError | None = None
        if work.replacement_error is not None:
            error = storage_error(work.replacement_error, f"{self._path} was not written")
            logger.warning("%s", error)
        for partition, offset, done in work.asked:
            if self._written.get(partition, -1) <= offset:
                self._written.pop(partition, None)
            done(error if error is not None else partition.raise_start(offset))

    def fail_sync(self, work: SyncWork) -> None:
        """The old file stands."""
        assert isinstance(work, _Work)
        error = SyncFailed("the round of syncing failed")
        for _, _, done in work.asked:
            done(error)

    def retry_sync(self, work: SyncWork) -> None:
        """The round had no room: the file is written anew with the next one."""
        assert isinstance(work, _Work)
        self._asked[:0] = work.asked
        self._shared.syncer.ask(self)
