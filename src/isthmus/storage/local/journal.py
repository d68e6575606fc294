"""The journal: one place on the disk for the newest bytes of all partitions.

A sync of a hundred segments takes a hundred times as long as one. So the small chunks of a
round of syncing are copied here, one after the other, and one write that is synced makes all of
them durable; the segments themselves are synced later, by a sweep (sweep.py). A large chunk
goes to its segment all the same: copying it would write twice what the disk has to write
anyway. After a crash, replay.py puts the copies into their places.

    DIR/journal/0.wal … 7.wal     each zero-filled once, then used again and again

Zero-filled and used again, because a write into space that the file system knows already needs
no change of its own books, and can pass the page cache (direct_file.py): it takes half the time
of an append with its fdatasync, so this is the quicker way for a single chunk, too. A file is
*current*, then *full* until a sweep has synced every segment that has bytes in it, then *free*;
the one that comes next is made *ready* in the background before it is needed. Where none is
ready, or none can be made, rounds sync the segments: that is slower, never wrong.

State is the loop's; `JournalWrite` is the part of a round that another thread does.
"""

from __future__ import annotations

import logging
from collections import deque
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Final

from isthmus.storage.local.direct_file import DirectFile
from isthmus.storage.local.files import lacks_room
from isthmus.storage.local.journal_format import (
    NONCE_BYTES,
    PAGE_BYTES,
    Entry,
    FileHeader,
    format_header,
    format_round,
    parse_header,
    round_bytes,
)
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from isthmus.runtime import Runtime
    from isthmus.storage.local.chunks import Chunk
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.settings import LocalSettings
    from isthmus.storage.local.sync import SyncWork

DIRECTORY: Final = "journal"
SUFFIX: Final = ".wal"
RETRY_MS: Final = 60_000
_ZEROS: Final = bytes(1024 * 1024)

logger = logging.getLogger(__name__)


class JournalFile:
    """One file of the ring, in one of its uses."""

    __slots__ = (
        "_direct",
        "_files",
        "_lock",
        "_oldest",
        "_page",
        "_seed",
        "_size",
        "is_closed",
        "is_filled",
        "is_named",
        "is_ready",
        "partitions",
        "path",
        "position",
        "sequence",
        "swept_from",
    )

    def __init__(self, files: Files, path: Path, size: int) -> None:
        self.is_closed = False
        self.is_filled = False  # has its size, all of it in the books of the file system
        self.is_named = (
            False  # its name is on the disk; a killed server may not have come to it
        )
        self.is_ready = False  # its header is that of this use
        self.partitions: dict[LocalPartition, None] = {}  # that have bytes in it
        self.path = path
        self.position = PAGE_BYTES  # where the next round goes
        self.sequence = 0  # of its use; 0: none
        self.swept_from: int | None = None  # number of the first sweep that counts
        self._files = files
        self._lock = Lock()
        self._oldest = 0
        self._page = b""  # the header
        self._seed = 0  # what the checksums of its rounds continue from
        self._size = size
        self._direct: DirectFile | None = None

    @property
    def header(self) -> FileHeader:
        """What its first page says."""
        return FileHeader(self.sequence, self._oldest, self._seed)

    def has_room(self, size: int) -> bool:
        """Whether a round fits in."""
        return self.position + size <= self._size

    def begin_use(self, sequence: int, oldest: int, nonce: bytes) -> None:
        """Begin to use it anew; `prepare` makes it so on the disk."""
        self.sequence, self._oldest = sequence, oldest
        self._page, self._seed = format_header(sequence, oldest, nonce)
        self.position = PAGE_BYTES
        self.partitions.clear()
        self.swept_from = None
        self.is_ready = False

    def prepare(self) -> None:
        """Make the file, if need be, and its new header durable. Raises OSError."""
        with self._lock:
            if not self.is_closed:
                self._prepare()

    def _prepare(self) -> None:
        files = self._files
        if not self.is_named:
            files.make_directory(self.path.parent)
        if not self.is_filled:
            self._fill()
        if self._direct is None:
            self._direct = DirectFile(files, self.path)
        self._direct.write([self._page], 0)
        self._direct.sync()
        if not self.is_named:
            files.sync_directory(self.path.parent)
            files.sync_directory(self.path.parent.parent)
            self.is_named = True

    def _fill(self) -> None:
        """Give the file its size, in the books of the file system too. Raises OSError."""
        files = self._files
        descriptor = files.open(self.path, create=True)
        try:
            files.truncate(descriptor, 0)
            for position in range(0, self._size, len(_ZEROS)):
                zeros = memoryview(_ZEROS)[: self._size - position]
                files.write(descriptor, [zeros], position)
            files.fdatasync(descriptor)
        finally:
            files.close(descriptor)
        self.is_filled = True

    def write(self, buffers: Sequence[bytes | memoryview], position: int) -> None:
        """Write to it, once it is prepared. Raises OSError."""
        assert self._direct is not None
        self._direct.write(buffers, position)

    def sync(self) -> None:
        """Return once what was written is on the disk. Raises OSError."""
        assert self._direct is not None
        self._direct.sync()

    def close(self) -> None:
        """Let go of the file; waits while another thread prepares it."""
        with self._lock:
            self.is_closed = True
            if self._direct is not None:
                self._direct.close()
                self._direct = None


class JournalWrite:
    """The copies that one round makes."""

    __slots__ = ("_chunks", "_number", "_position", "error", "file")

    def __init__(
        self, file: JournalFile, number: int, chunks: Sequence[tuple[LocalPartition, Chunk]]
    ) -> None:
        self.file = file
        self.error: OSError | None = None  # why there are no copies
        self._number = number
        self._position = file.position
        self._chunks = chunks

    def run(self) -> bool:
        """Write and sync the copies, on any thread; False where there are none.

        Raises OSError where the sync has failed and it was not for want of room: then the
        segments, whose own sync is still to come, are good enough.
        """
        try:
            if not self.file.is_ready:
                self.file.prepare()
            self.file.write(self._buffers(), self._position)
        except OSError as error:
            self.error = error
            return False
        try:
            self.file.sync()
        except OSError as error:
            if not lacks_room(error):
                raise
            self.error = error
            return False
        return True

    def _buffers(self) -> list[bytes | memoryview]:
        entries = []
        payloads: list[bytes | memoryview] = []
        for partition, chunk in self._chunks:
            assert chunk.views is not None
            crc = 0
            for view in chunk.views:
                crc = crc32c(view, crc)
            payloads += chunk.views
            entries.append(
                Entry(
                    partition.topic_id,
                    partition.index,
                    chunk.segment.base_offset,
                    chunk.position,
                    chunk.end_offset,
                    chunk.size,
                    crc,
                )
            )
        return [format_round(self.file.header.seed, self._number, entries), *payloads]


class Journal:
    """The ring of files, and which of them is what."""

    __slots__ = (
        "_all",
        "_closed",
        "_current",
        "_directory",
        "_files",
        "_free",
        "_full",
        "_number",
        "_preparing",
        "_ready",
        "_retry_ms",
        "_runtime",
        "_sequence",
        "_settings",
        "written_bytes",
    )

    def __init__(
        self, runtime: Runtime, files: Files, settings: LocalSettings, directory: Path
    ) -> None:
        self._runtime = runtime
        self._files = files
        self._settings = settings
        self._directory = directory / DIRECTORY
        self._all: list[JournalFile] = []
        self._free: list[JournalFile] = []
        self._ready: JournalFile | None = None
        self._preparing: JournalFile | None = None
        self._current: JournalFile | None = None
        self._full: deque[JournalFile] = deque()  # in the order in which they were filled
        self._sequence = 0  # the newest
        self._number = 0  # of the newest round
        self._closed = False
        self._retry_ms: int | None = None  # when to try again, after an error was told
        self.written_bytes = 0  # by rounds, since the start

    # --- rounds -------------------------------------------------------------------------------

    def place(self, works: Sequence[SyncWork]) -> JournalWrite | None:
        """Choose what of a round is copied, and where to; None: every segment for itself."""
        if self._settings.journal_files_max == 0:
            return None
        size_max = self._settings.journal_file_bytes - PAGE_BYTES
        chosen: list[tuple[LocalPartition, Chunk]] = []
        payload_bytes = 0
        for work in works:
            if work.partition is None:
                continue
            small = [chunk for chunk in work.chunks if chunk.views is not None]
            more = sum(chunk.size for chunk in small)
            if round_bytes(len(chosen) + len(small), payload_bytes + more) <= size_max:
                work.journalled = frozenset(small)
                chosen += [(work.partition, chunk) for chunk in small]
                payload_bytes += more
        size = round_bytes(len(chosen), payload_bytes)
        file = self._file_for(size) if chosen else None
        if file is None:
            for work in works:
                work.journalled = frozenset()
            return None
        self._number += 1
        self.written_bytes += size
        write = JournalWrite(file, self._number, chosen)
        file.position += size
        file.partitions.update(dict.fromkeys(partition for partition, _ in chosen))
        self._prepare_next()
        return write

    def settle(self, write: JournalWrite) -> None:
        """The round has ended: see whether its copies were made. Before the next `place`."""
        if write.error is None:
            write.file.is_ready = True
            self._retry_ms = None
            return
        self._number -= 1  # without a copy there is no such round
        self._current = None
        if write.file.is_ready:
            self._full.append(write.file)  # what is in it stands
        self._failed(write.file, write.error)

    def _file_for(self, size: int) -> JournalFile | None:
        """Return the file for a round of so many bytes, None where there is none now."""
        if self._current is not None and not self._current.has_room(size):
            self._full.append(self._current)
            self._current = None
        if self._current is None:
            self._current, self._ready = self._ready, None
        # By the round itself only where that is quick, and for the first file of all.
        at_once = self._preparing is None and (self._free or not self._all)
        if self._current is None and at_once and self._may_try:
            self._current = self._take_unused()
        return self._current

    @property
    def _may_try(self) -> bool:
        if self._closed:
            return False
        return self._retry_ms is None or self._runtime.monotonic_ms() >= self._retry_ms

    def _failed(self, file: JournalFile, error: OSError) -> None:
        """A file could not be written or made ready."""
        if self._retry_ms is None:
            logger.warning(
                "the journal in %s cannot be used (%s): every partition is synced by itself",
                self._directory,
                error.strerror or error,
            )
        self._retry_ms = self._runtime.monotonic_ms() + RETRY_MS
        if not file.is_ready:
            file.partitions.clear()
            self._free.append(file)

    # --- the ring -----------------------------------------------------------------------------

    def _take_unused(self) -> JournalFile | None:
        """Return a file that can be used anew: one that was, or one more."""
        if self._free:
            file = self._free.pop()
        elif len(self._all) < self._settings.journal_files_max:
            taken = {file.path for file in self._all}
            paths = (self._directory / f"{number}{SUFFIX}" for number in count())
            path = next(path for path in paths if path not in taken)
            file = JournalFile(self._files, path, self._settings.journal_file_bytes)
            self._all.append(file)
        else:
            return None
        self._begin_use(file)
        return file

    def _begin_use(self, file: JournalFile) -> None:
        self._sequence += 1
        needed = [*self._full, *([self._current] if self._current is not None else [])]
        oldest = min((other.sequence for other in needed), default=self._sequence)
        file.begin_use(self._sequence, oldest, self._runtime.random_bytes(NONCE_BYTES))

    def _prepare_next(self) -> None:
        """Have a file ready by the time that the current one is full."""
        half = self._settings.journal_file_bytes // 2
        if self._current is None or self._current.has_room(half):
            return
        if self._ready is not None or self._preparing is not None or not self._may_try:
            return
        self._preparing = file = self._take_unused()
        if file is not None:
            self._runtime.offload(file.prepare, self._prepared)

    def _prepared(self, _result: None, error: BaseException | None) -> None:
        file, self._preparing = self._preparing, None
        if file is None:
            return  # the journal was closed
        if isinstance(error, OSError):
            self._failed(file, error)
        elif error is not None:
            raise error
        else:
            file.is_ready = True
            self._ready = file

    # --- sweeping -----------------------------------------------------------------------------

    def take_unswept(self, number: int) -> list[LocalPartition]:
        """Return whose segments must be synced, by sweep `number` or later, before files are
        free again; each once.
        """
        partitions: list[LocalPartition] = []
        for file in self._full:
            if file.swept_from is None:
                file.swept_from = number
                partitions += file.partitions
        self._set_free()
        return partitions

    def swept(self, partition: LocalPartition, number: int) -> None:
        """All that a partition had written when sweep `number` began is in its segments."""
        for file in self._full:
            if file.swept_from is not None and number >= file.swept_from:
                file.partitions.pop(partition, None)
        self._set_free()

    def forget(self, partition: LocalPartition) -> None:
        """A partition is gone; nobody will ask for what it had."""
        for file in self._all:
            file.partitions.pop(partition, None)
        self._set_free()

    def _set_free(self) -> None:
        """Free what is swept, in order, so that the numbers of the rounds left have no gap."""
        while self._full and not self._full[0].partitions:
            self._free.append(self._full.popleft())
        self._prepare_next()

    @property
    def in_use(self) -> list[tuple[Path, FileHeader]]:
        """The files that hold copies of what may be nowhere else, the oldest first."""
        current = [] if self._current is None else [self._current]
        return [(file.path, file.header) for file in (*self._full, *current)]

    # --- the beginning and the end ------------------------------------------------------------

    def load(self) -> list[tuple[Path, FileHeader]]:
        """Look at the files that are there; return those to be replayed, the oldest first.

        Raises OSError.
        """
        headers = read_headers(self._files, self._directory)
        for path, header in headers.items():
            file = JournalFile(self._files, path, self._settings.journal_file_bytes)
            if header is not None:
                file.sequence = header.sequence
                file.is_filled = self._files.size(path) == self._settings.journal_file_bytes
            self._all.append(file)
        self._free += self._all
        self._sequence = max((file.sequence for file in self._all), default=0)
        return to_replay(headers)

    def invalidate(self) -> None:
        """Make void, durably, all that was written so far: it is in its places. Raises OSError.

        The newest file begins a new use. If that comes to nothing, the older ones are replayed
        once more, which changes nothing.
        """
        newest = max(self._all, key=lambda file: file.sequence, default=None)
        if newest is None or newest.sequence == 0:
            return
        self._full.clear()
        self._current = None
        self._ready = None
        self._begin_use(newest)
        newest.prepare()

    def close(self, *, clean: bool) -> None:
        """Let go of the files; after a clean end there is nothing to replay. Raises OSError."""
        self._closed = True
        self._preparing = None
        try:
            if clean and self._number > 0:
                self.invalidate()
        finally:
            for file in self._all:
                file.close()


def read_headers(files: Files, directory: Path) -> dict[Path, FileHeader | None]:
    """Return the files of the journal in `directory` with their headers. Raises OSError.

    None where there is none: the file was never used, or its beginning is damaged.
    """
    headers: dict[Path, FileHeader | None] = {}
    for name in files.names(directory) if files.exists(directory) else ():
        number = name.removesuffix(SUFFIX)
        if number == name or not number.isdecimal():
            continue
        path = directory / name
        descriptor = files.open_read(path)
        try:
            page = files.pread(descriptor, PAGE_BYTES, 0)
        finally:
            files.close(descriptor)
        headers[path] = parse_header(page)
        if headers[path] is None and any(page):
            logger.warning("%s has no header: it is damaged, or was just begun anew", path)
    return headers


def to_replay(headers: Mapping[Path, FileHeader | None]) -> list[tuple[Path, FileHeader]]:
    """Return the files whose rounds may still be needed, the oldest first."""
    found = [(path, header) for path, header in headers.items() if header is not None]
    found.sort(key=lambda each: each[1].sequence)
    return [each for each in found if each[1].sequence >= found[-1][1].oldest]
