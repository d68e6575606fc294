"""What becomes of a sync that failed for want of room: it waits, and is made good.

After a failed sync the kernel may have dropped what it could not store, so asking once more
would get a yes that means nothing. What helps is to *write* again, then sync. Where the disk
was full (thin volumes, btrfs and network file systems find that out late) this can be done once
there is room, and nobody has to be told that his records are lost:

1. **Stall.** Nothing is written any more: appends are refused as on any full disk. No round and
   no sweep begins. Who waits for his records to be durable goes on waiting.
2. **Mend,** when trouble.py finds room: of every segment, all that no sync has covered is
   written again to its place and synced. It comes from the journal's copies and from memory
   where they have it; else from the file, for a kernel that has dropped a page may still show
   it, or not. So every byte is read back and its checksum compared before it is written.
3. **Go on.** All that was written is durable, whoever waited is answered.

Where something cannot be read back, or a name was not synced, it ends as with any other error:
`Shared.fail`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.errors import SyncFailed
from isthmus.storage.local.replay import Replay, Target
from isthmus.storage.local.scan import Scan
from isthmus.storage.local.sweep import Sweep, SweepWork

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from isthmus.storage.local.chunks import Chunk
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.journal_format import Entry
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.shared import Shared

    Mended = Callable[[bool], None]

WRITE_BYTES: Final = 1024 * 1024  # gathered for one write


class Stretch(NamedTuple):
    """The end of a segment, from the first byte that no sync has covered."""

    segment: Segment
    descriptor: int
    start: int
    end: int
    next_offset: int
    chunks: Sequence[Chunk]  # what of it is in memory

    def write_again(self, files: Files) -> None:
        """Bring it to the disk, on any thread. Raises OSError; SyncFailed where it is gone."""
        for chunk in self.chunks:
            if chunk.views is not None:
                files.write(self.descriptor, chunk.views, chunk.position)
        scan = Scan(
            files,
            self.descriptor,
            self.start,
            self.end,
            self.segment.base_offset,
            verify=True,
            gap_end=self.segment.gap_end,
        )
        views: list[memoryview] = []
        begin = self.start
        for position, batch in scan:
            if scan.damage:
                break
            views.append(batch.data)
            end = position + batch.size
            if end - begin >= WRITE_BYTES:
                files.write(self.descriptor, views, begin)
                views, begin = [], end
        if scan.damage or (scan.position, scan.next_offset) != (self.end, self.next_offset):
            raise SyncFailed(
                f"{self.segment.path} has lost records from byte {scan.position} on that were "
                "not on the disk yet"
            )
        if views:
            files.write(self.descriptor, views, begin)
        files.fdatasync(self.descriptor)


class MendWork(SweepWork):
    """What one partition has to be mended; it keeps the files open until `let_go`."""

    __slots__ = ("_stretches",)

    def __init__(self, partition: LocalPartition) -> None:
        super().__init__(partition)
        chunks = partition.segments.chunks
        self._stretches = [
            Stretch(
                segment,
                segment.descriptor(),
                segment.synced_size,
                size,
                segment.next_offset,
                [chunk for chunk in chunks if chunk.segment is segment],
            )
            for segment, size in self.segments
        ]
        for segment, _ in self.segments:
            segment.pins += 1

    def run(self, files: Files) -> None:
        """Do all but the directories, on any thread. Raises OSError, SyncFailed."""
        for stretch in self._stretches:
            stretch.write_again(files)

    def let_go(self) -> None:
        """It is over."""
        for stretch in self._stretches:
            stretch.segment.unpin()
        self._stretches = []


class Copies(Replay):
    """What the journal holds, put into its places while the log lives."""

    __slots__ = ()

    def _put(self, path: Path, entry: Entry, payload: memoryview) -> None:
        with suppress(FileNotFoundError):  # its log topic was deleted meanwhile
            super()._put(path, entry, payload)


class Mend(Sweep):
    """Makes good what failed; a sweep of all partitions, and the copies before it."""

    __slots__ = ("_copies", "_journal")

    def __init__(self, shared: Shared, works: Sequence[MendWork]) -> None:
        number = shared.sweeper.next_number()
        super().__init__(shared.files, shared.doubt, shared.recovery_points, works, number)
        self._copies = Copies(
            shared.files,
            {
                (each.topic_id, each.index): Target(each.directory, each.durable_recovery_point)
                for each in shared.partitions
            },
        )
        self._journal = shared.journal.in_use

    def _sync(self) -> None:
        self._copies.run(self._journal)
        super()._sync()


class Mender:
    """Whether a log waits for room to make a failed sync good, and the making good."""

    __slots__ = ("_error", "_is_closed", "_mend", "_mended", "_shared", "_works")

    def __init__(self, shared: Shared) -> None:
        self._error: OSError | None = None  # why it is stalled
        self._is_closed = False
        self._mend: Mend | None = None
        self._mended: Mended | None = None  # who is to hear of it
        self._shared = shared
        self._works: list[MendWork] = []

    @property
    def is_stalled(self) -> bool:
        """Whether a failed sync waits to be made good."""
        return self._error is not None

    @property
    def is_closed(self) -> bool:
        """Whether it is too late to wait for anything."""
        return self._is_closed

    def check(self) -> None:
        """Raise OSError as long as nothing may be written."""
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror)

    def stall(self, error: OSError) -> None:
        """A sync has failed for want of room."""
        self._error = error

    def begin(self, mended: Mended) -> None:
        """There is room: try to make good what failed, and call `mended` with whether it is."""
        shared = self._shared
        if shared.syncer.is_busy or shared.sweeper.is_busy:
            mended(False)  # what is under way may fail, too
            return
        self._mended = mended
        self._works = [partition.begin_mend() for partition in shared.partitions]
        self._mend = Mend(shared, self._works)
        shared.runtime.offload(self._mend.run, self._ended)

    def close(self) -> None:
        """Wait for nothing any more: what could not be made good so far has failed."""
        self._is_closed = True
        if self._mend is not None:
            self._mend.call_off()
            self._let_go()
        if self._error is not None:
            self._shared.fail(sync_failure(self._error))

    def _ended(self, _result: None, error: BaseException | None) -> None:
        mend, mended = self._mend, self._mended
        if mend is None or mended is None:
            return  # closed meanwhile
        works = self._works
        self._let_go()
        shared = self._shared
        if shared.error is not None:
            return
        if isinstance(error, SyncFailed):
            shared.fail(error)
        elif error is not None:
            raise error
        elif mend.error is None:
            self._go_on(works, mend.number)
            mended(True)
        elif mend.lacks_room:
            mended(False)
        else:
            shared.fail(sync_failure(mend.error))

    def _let_go(self) -> None:
        for work in self._works:
            work.let_go()
        self._mend, self._mended, self._works = None, None, []

    def _go_on(self, works: Sequence[MendWork], number: int) -> None:
        """All is in its place."""
        shared = self._shared
        self._error = None
        shared.doubt.clear()
        for work in works:
            work.partition.end_sweep(work)
            shared.journal.swept(work.partition, number)
        shared.syncer.start()
        shared.sweeper.start()


def sync_failure(error: OSError) -> SyncFailed:
    """Return what is told of a sync that will not be made good."""
    return SyncFailed(f"fdatasync failed: {error.strerror or error}")
