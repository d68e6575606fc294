"""Group commit: while one round of fdatasync is under way, the next one gathers; no timer.

A partition asks for a sync when somebody waits for it, and the round that begins next covers
all that is written by then. A round runs on another thread and touches nothing but the disk;
what it needs (`SyncWork`) is taken on the loop when it begins and handed back on the loop
when it ends.

A failed sync is never tried again: the kernel may have dropped the very pages and report
success the next time, so from then on nothing can be promised any more [DESIGN 3, guarantee
2].
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.segment import Segment


class SyncWork:
    """What one partition needs done in one round; `end_offset` is durable after it.

    `hints` are files that a restart would like to find and can do without (indexes, producer
    snapshots): if one cannot be written, the round is good and only its checkpoint is void.
    """

    __slots__ = (
        "descriptors",
        "directories",
        "end_offset",
        "hint_error",
        "hints",
        "indexes",
        "recovery_point",
        "replacements",
        "segments",
    )

    def __init__(self, end_offset: int) -> None:
        self.end_offset = end_offset
        self.segments: list[Segment] = []
        self.descriptors: list[int] = []
        self.directories: list[Path] = []
        self.indexes: list[tuple[Segment, Path]] = []  # whose files are among the hints
        self.hints: list[tuple[Path, bytes | None]] = []  # None: sync what is there
        self.replacements: list[tuple[Path, bytes]] = []  # hints that keep their name
        self.hint_error: OSError | None = None
        self.recovery_point = -1  # where a restart may begin after this round

    def run(self, files: Files) -> None:
        """Do it, on any thread. Raises OSError."""
        for descriptor in self.descriptors:
            files.fdatasync(descriptor)
        try:
            for path, data in self.hints:
                files.sync_file(path, data)
            for path, data in self.replacements:
                files.replace(path, data)
        except OSError as error:
            self.hint_error = error
        for directory in self.directories:
            # Where it is gone, its log topic was deleted meanwhile.
            with suppress(FileNotFoundError):
                files.sync_directory(directory)


class Syncable(Protocol):
    """What takes part in rounds: a partition, or the data directory itself."""

    def begin_sync(self) -> SyncWork:
        """Return what must be done for all that is written now."""

    def end_sync(self, work: SyncWork) -> None:
        """The work is done."""

    def fail_sync(self, work: SyncWork) -> None:
        """The work failed, and will never be done."""


class SyncRound:
    """One round; runs once, whoever comes first: the other thread, or a close in a hurry."""

    __slots__ = ("_files", "_lock", "_ran", "error", "works")

    def __init__(self, files: Files, works: Sequence[tuple[Syncable, SyncWork]]) -> None:
        self.works = works
        self.error: OSError | None = None
        self._files = files
        self._lock = Lock()
        self._ran = False

    def run(self) -> None:
        """Sync everything; `error` tells how it ended."""
        with self._lock:
            if self._ran:
                return
            self._ran = True
            try:
                for _, work in self.works:
                    work.run(self._files)
            except OSError as error:
                self.error = error


class Syncer:
    """Runs the rounds of one log."""

    __slots__ = ("_asked", "_failed", "_files", "_on_failure", "_round", "_runtime")

    def __init__(
        self, runtime: Runtime, files: Files, on_failure: Callable[[OSError], None]
    ) -> None:
        self._runtime = runtime
        self._files = files
        self._on_failure = on_failure
        self._asked: dict[Syncable, None] = {}
        self._round: SyncRound | None = None
        self._failed = False

    def ask(self, syncable: Syncable) -> None:
        """Take part in the next round; see `start`."""
        self._asked[syncable] = None

    def forget(self, syncable: Syncable) -> None:
        """Take no part after all."""
        self._asked.pop(syncable, None)

    def start(self) -> None:
        """Begin a round if somebody asked and none is under way."""
        if self._asked and self._round is None and not self._failed:
            self._round = current = self._begin()
            self._runtime.offload(current.run, self._ended)

    def finish(self) -> None:
        """Do all rounds here and now; for the close. Failures are reported as always."""
        while not self._failed and (self._round is not None or self._asked):
            current, self._round = self._round or self._begin(), None
            current.run()
            self._deliver(current)

    def _begin(self) -> SyncRound:
        asked, self._asked = self._asked, {}
        return SyncRound(self._files, [(each, each.begin_sync()) for each in asked])

    def _ended(self, _result: None, error: BaseException | None) -> None:
        if error is not None:
            raise error  # ours: a round turns what the disk says into `SyncRound.error`
        current, self._round = self._round, None
        if current is None:
            return  # finished by the close
        if current.error is None:
            self.start()  # keep the disk at work while the answers go out
        self._deliver(current)
        self.start()  # for those who asked again

    def _deliver(self, current: SyncRound) -> None:
        for syncable, work in current.works:
            if current.error is None:
                syncable.end_sync(work)
            else:
                syncable.fail_sync(work)
        if current.error is not None:
            self._failed = True
            self._asked.clear()
            self._on_failure(current.error)
