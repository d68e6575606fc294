"""Group commit: while one round of syncing is under way, the next one gathers.

A partition asks for a sync when somebody waits for it, and the round that begins next covers
all that is written by then. A round runs on another thread and touches nothing but the disk;
what it needs (`SyncWork`) is taken on the loop when it begins and handed back on the loop
when it ends. How it makes a chunk durable is one of two ways: fdatasync of the segment itself,
with the names of new files, or a copy in the shared journal, where one fdatasync is enough for
all partitions (journal.py decides). Moving recovery points is not its work: see sweep.py.

A failed sync is never simply tried again: the kernel may have dropped the very pages and report
success the next time. Where it was only room that lacked, mending.py makes it good; after any
other error nothing can be promised any more [DESIGN 3, guarantee 2]. Compiled, see `sync.pxd`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from isthmus.metrics import Histogram
from isthmus.storage.local.files import lacks_room
from isthmus.storage.local.gathering import Gathering
from isthmus.storage.local.once import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from threading import Event

    from isthmus.runtime import Runtime
    from isthmus.storage.local.chunks import Chunk
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.journal import Journal, JournalWrite
    from isthmus.storage.local.partition import LocalPartition


WAIT_MS: Final = 1  # the shortest there is; `Gathering` says when it is enough


class SyncWork:
    """What a partition needs done in one round; `end_offset` is durable after it.

    `directories` are those whose names must be on the disk before a segment's own bytes count;
    a copy in the journal does without, because replaying it makes the files anew.

    `replacement` is for who has no segments but one small file: if that cannot be written, the
    round is good all the same.
    """

    __slots__ = (
        "chunks",
        "descriptors",
        "directories",
        "end_offset",
        "journalled",
        "names_version",
        "partition",
        "records",
        "replacement",
        "replacement_error",
    )

    def __init__(
        self, partition: LocalPartition | None = None, chunks: Sequence[Chunk] = ()
    ) -> None:
        self.partition = partition
        self.end_offset = 0 if partition is None else partition.end_offset
        self.records = 0 if partition is None else partition.records_unsynced
        self.chunks = chunks
        self.descriptors = [chunk.segment.descriptor() for chunk in chunks]
        self.directories: Sequence[Path] = ()
        self.names_version = 0
        self.journalled: frozenset[Chunk] = frozenset()  # the others go to their segments
        self.replacement: tuple[Path, bytes] | None = None
        self.replacement_error: OSError | None = None

    @property
    def syncs_names(self) -> bool:
        """Whether the round syncs the directories."""
        return len(self.journalled) < len(self.chunks)

    def run(self, files: Files) -> None:
        """Do all but the copies and the directories, on any thread. Raises OSError."""
        for chunk, descriptor in zip(self.chunks, self.descriptors, strict=True):
            if chunk not in self.journalled:
                files.fdatasync(descriptor)
        if self.replacement is not None:
            try:
                files.replace(*self.replacement)
            except OSError as error:
                self.replacement_error = error


class OnFailure(Protocol):
    """What hears of a sync that failed: it stops or pauses those that would sync more."""

    def __call__(self, error: OSError, *, lacks_room: bool) -> None:
        """`lacks_room`: it can be made good by writing again, see mending.py."""


class Syncable(Protocol):
    """What takes part in rounds: a partition, or the file of the start offsets."""

    @property
    def records_unsynced(self) -> int:
        """Records that wait for a round to begin."""

    def begin_sync(self) -> SyncWork:
        """Return what must be done for all that is written now."""

    def end_sync(self, work: SyncWork) -> None:
        """The work is done."""

    def fail_sync(self, work: SyncWork) -> None:
        """The work failed, and will never be done."""

    def retry_sync(self, work: SyncWork) -> None:
        """The work failed for want of room: take part again."""


def sync_directories(files: Files, directories: Iterable[Path]) -> None:
    """Sync each once. Raises OSError."""
    for directory in dict.fromkeys(directories):
        # Where it is gone, its log topic was deleted meanwhile.
        with suppress(FileNotFoundError):
            files.sync_directory(directory)


class SyncRound(Once):
    """One round; `error` tells how it ended, `seconds` how long it took."""

    __slots__ = (
        "_clock",
        "_doubt",
        "_files",
        "copy",
        "error",
        "lacks_room",
        "seconds",
        "works",
    )

    def __init__(
        self,
        files: Files,
        doubt: Event,
        works: Sequence[tuple[Syncable, SyncWork]],
        copy: JournalWrite | None,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.seconds = 0.0
        self._clock = clock
        self.works = works
        self.copy = copy
        self.error: OSError | None = None
        self.lacks_room = False  # writing again would help
        self._doubt = doubt
        self._files = files

    def _do(self) -> None:
        began = self._clock()
        try:
            self._sync()
        except OSError as error:
            self._doubt.set()
            self.error = error
        self.seconds = self._clock() - began

    def _sync(self) -> None:
        if self.copy is not None and not self.copy.run():
            for _, work in self.works:
                work.journalled = frozenset()  # no copy, so every segment for itself
        try:
            for _, work in self.works:
                work.run(self._files)
        except OSError as error:
            self.lacks_room = lacks_room(error)
            raise
        sync_directories(
            self._files,
            [path for _, work in self.works if work.syncs_names for path in work.directories],
        )


class Syncer:
    """Runs the rounds of one log.

    `doubt` is set, by whichever thread it happens on, when a sync has failed. No round and no
    sweep begins then, and a sweep that is under way is worth nothing: the failure may have
    taken the bad news from it.
    """

    __slots__ = (
        "_asked",
        "_cancel",
        "_doubt",
        "_failed",
        "_files",
        "_gathering",
        "_journal",
        "_on_failure",
        "_round",
        "_runtime",
        "failures",
        "seconds",
    )

    def __init__(
        self,
        runtime: Runtime,
        files: Files,
        journal: Journal,
        doubt: Event,
        on_failure: OnFailure,
    ) -> None:
        self.seconds = Histogram()  # that rounds took
        self.failures = 0
        self._cancel: Callable[[], None] | None = None  # the timer of a round that waits
        self._doubt = doubt
        self._gathering = Gathering()
        self._runtime = runtime
        self._files = files
        self._journal = journal
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

    @property
    def is_busy(self) -> bool:
        """Whether a round is under way."""
        return self._round is not None

    def start(self) -> None:
        """Begin a round if somebody asked and none is under way."""
        if self._asked and self._round is None and not self._doubt.is_set():
            if self._gathering.is_on and self._waits():
                return
            self._round = current = self._begin()
            self._runtime.offload(current.run, self._ended)

    def _waits(self) -> bool:
        """Whether those who were just answered are waited for; sees to it that this ends."""
        waits = self._gathering.holds(self._runtime.monotonic_s(), self._waiting())
        if waits and self._cancel is None:
            self._cancel = self._runtime.later(WAIT_MS, self._wait_no_more)
        elif not waits and self._cancel is not None:
            self._cancel()
            self._cancel = None
        return waits

    def _wait_no_more(self) -> None:
        self._cancel = None
        self.start()

    def _waiting(self) -> int:
        """Return how many records wait for the next round."""
        waiting = 0
        for syncable in self._asked:
            waiting += syncable.records_unsynced
        return waiting

    def finish(self) -> None:
        """Do all rounds here and now; for the close. Failures are reported as always.

        After a failure, what is under way is waited for: it uses files that are closed next.
        """
        if self._failed and self._round is not None:
            self._round.call_off()
        while not self._failed and (self._round is not None or self._asked):
            current, self._round = self._round or self._begin(), None
            current.run()
            self._settle(current)
            self._deliver(current)

    def stop(self) -> None:
        """Begin no more rounds: a sync has failed."""
        self._failed = True
        self._asked.clear()

    def _begin(self) -> SyncRound:
        asked, self._asked = self._asked, {}
        works = [(each, each.begin_sync()) for each in asked]
        copy = self._journal.place([work for _, work in works])
        return SyncRound(self._files, self._doubt, works, copy, self._runtime.monotonic_s)

    def _ended(self, _result: None, error: BaseException | None) -> None:
        if error is not None:
            raise error  # ours: a round turns what the disk says into `SyncRound.error`
        current, self._round = self._round, None
        if current is None:
            return  # finished by the close
        self._settle(current)
        if current.error is None:
            self.start()  # keep the disk at work while the answers go out
        self._deliver(current)
        self.start()  # for those who asked again

    def _settle(self, current: SyncRound) -> None:
        self.seconds.observe(current.seconds)
        if current.error is not None:
            self.failures += 1
        answered = 0
        for _, work in current.works:
            answered += work.records
        now_s = self._runtime.monotonic_s()
        self._gathering.ended(now_s, current.seconds, answered, self._waiting())
        if current.copy is not None:
            self._journal.settle(current.copy)

    def _deliver(self, current: SyncRound) -> None:
        for syncable, work in current.works:
            if current.error is None:
                syncable.end_sync(work)
            elif current.lacks_room:
                syncable.retry_sync(work)
            else:
                syncable.fail_sync(work)
        if current.error is not None:
            self._on_failure(current.error, lacks_room=current.lacks_room)
