"""The disk: every call to the operating system that the local engine makes.

`Files` is given to the constructors above it, so that a test puts a simulated disk in its place
that tears writes, loses what was not synced, and fails on the n-th call. Methods raise OSError;
`storage_error` turns it into the kind that the rest of the server knows. Everything here is
called on the loop or, for what takes long, on another thread: there is no state here but the
disk's.
"""

from __future__ import annotations

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from isthmus.errors import IsthmusError, NoSpace, StorageError
from isthmus.storage.local.page_cache import PageCache

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BUFFERS_PER_WRITE: Final = 1024  # IOV_MAX on Linux
COPY_BYTES: Final = 1024 * 1024  # in one piece
SYNC_THREADS: Final = 16
_NO_WAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)
_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


def lacks_room(error: OSError) -> bool:
    """Whether it is only room that lacks."""
    return error.errno in _NO_SPACE


def storage_error(error: OSError, what: str) -> StorageError:
    """Return the StorageError that says what could not be done and why."""
    kind = NoSpace if lacks_room(error) else StorageError
    return kind(f"{what}: {error.strerror or error}")


def known_error(error: BaseException, what: str) -> IsthmusError:
    """Return what the rest of the server knows for an error of work on another thread."""
    if isinstance(error, OSError):
        return storage_error(error, what)
    if isinstance(error, IsthmusError):
        return error
    raise error  # ours


class Files:
    """The files of one machine."""

    def __init__(self) -> None:
        self._page_cache = PageCache()

    # --- one file -----------------------------------------------------------------------------

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open a file for reading and writing and return its descriptor."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return os.open(path, flags, 0o644)

    def open_read(self, path: Path) -> int:
        """Open a file for reading only, which also works where nothing may be written."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open_direct(self, path: Path) -> int:
        """Open a file whose writes pass the page cache: whole pages, see `DirectFile`.

        Raises OSError, with EINVAL where there is no such way.
        """
        direct = getattr(os, "O_DIRECT", None)
        if direct is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | direct)

    def duplicate(self, descriptor: int) -> int:
        """Return another descriptor of the same open file."""
        return os.dup(descriptor)

    def close(self, descriptor: int) -> None:
        """Let go of a descriptor; what was to be kept has been synced before, or was not."""
        with suppress(OSError):
            os.close(descriptor)

    def size(self, path: Path) -> int:
        """Return a file's length in bytes."""
        return path.stat().st_size

    def modified_ms(self, path: Path) -> int:
        """Return when a file was last written to, in milliseconds since the epoch."""
        return path.stat().st_mtime_ns // 1_000_000

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        data = os.pread(descriptor, size, position)
        while len(data) < size:
            more = os.pread(descriptor, size - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def pread_cached(self, descriptor: int, size: int, position: int) -> bytearray:
        """Read up to `size` bytes without waiting for the disk.

        Fewer, or none, where the kernel does not have the rest in memory or cannot tell.
        """
        data = bytearray(size)
        del data[self.preadv_cached(descriptor, data, position) :]
        return data

    def preadv_cached(
        self, descriptor: int, buffer: bytearray | memoryview, position: int
    ) -> int:
        """Do the same into a buffer; return the bytes read."""
        if _NO_WAIT is None:
            return 0
        try:
            return os.preadv(descriptor, [buffer], position, _NO_WAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return 0
            raise

    def is_cached(self, descriptor: int, size: int, position: int) -> bool:
        """Whether the kernel is known to have these bytes in memory. For the loop alone."""
        return self._page_cache.holds(descriptor, size, position)

    def will_need(self, descriptor: int, position: int, size: int) -> None:
        """Have the kernel begin to read what is likely to be read soon."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, position, size, os.POSIX_FADV_WILLNEED)

    def pwritev(
        self, descriptor: int, buffers: Sequence[memoryview | bytes], position: int
    ) -> int:
        """Write buffers one after the other; return the bytes written, which may be fewer."""
        return os.pwritev(descriptor, buffers, position)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file to `size` bytes."""
        os.ftruncate(descriptor, size)

    def fdatasync(self, descriptor: int) -> None:
        """Return once the file's bytes and length are on the disk."""
        os.fdatasync(descriptor)

    # --- names --------------------------------------------------------------------------------

    def exists(self, path: Path) -> bool:
        """Whether there is anything of this name."""
        return path.exists()

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted."""
        return sorted(entry.name for entry in directory.iterdir())

    def make_directory(self, path: Path) -> None:
        """Make a directory; it is fine if it exists."""
        path.mkdir(exist_ok=True)

    def rename(self, path: Path, target: Path) -> None:
        """Give a file or directory another name, replacing a file of that name."""
        path.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file; it is fine if it is gone."""
        path.unlink(missing_ok=True)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def sync_directory(self, path: Path) -> None:
        """Return once the names in a directory are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, descriptor: int) -> bool:
        """Take the lock of a file until it is closed; False where another process has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_locked(self, path: Path) -> bool:
        """Whether another process holds the lock of this file; False where there is none."""
        try:
            descriptor = self.open_read(path)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            self.close(descriptor)
        return False

    def volume(self, path: Path) -> tuple[int, int]:
        """Return (total, usable) bytes of the file system that holds `path`."""
        found = os.statvfs(path)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def process_id(self) -> int:
        """Return the number of this process."""
        return os.getpid()

    # --- made of the above --------------------------------------------------------------------

    def write(
        self, descriptor: int, buffers: Sequence[memoryview | bytes], position: int
    ) -> int:
        """Write all buffers from `position` on and return the position after the last byte.

        Goes on after a short write, so that what ends it is an error that says why.
        """
        for first in range(0, len(buffers), BUFFERS_PER_WRITE):
            rest = list(buffers[first : first + BUFFERS_PER_WRITE])
            left = sum(map(len, rest))
            while True:
                count = self.pwritev(descriptor, rest, position)
                position += count
                left -= count
                if left == 0:
                    break
                if count == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                while count >= len(rest[0]):
                    count -= len(rest.pop(0))
                rest[0] = memoryview(rest[0])[count:]
        return position

    def read_file(self, path: Path) -> bytes | None:
        """Return the content of a file, or None where there is none."""
        try:
            descriptor = self.open_read(path)
        except FileNotFoundError:
            return None
        try:
            return self.pread(descriptor, self.size(path), 0)
        finally:
            self.close(descriptor)

    def read_last(self, path: Path, entry_bytes: int) -> bytes:
        """Return the last entry of a file of entries; empty where there is none."""
        try:
            descriptor = self.open(path)
        except FileNotFoundError:
            return b""
        try:
            size = self.size(path)
            if size < entry_bytes or size % entry_bytes:
                return b""
            return self.pread(descriptor, entry_bytes, size - entry_bytes)
        finally:
            self.close(descriptor)

    def write_file(self, path: Path, data: bytes, *, sync: bool) -> None:
        """Write a whole file in place, for content that is checked when it is read."""
        descriptor = self.open(path, create=True)
        try:
            self.write(descriptor, [data], 0)
            self.truncate(descriptor, len(data))
            if sync:
                self.fdatasync(descriptor)
        finally:
            self.close(descriptor)

    def sync_file(self, path: Path, data: bytes | None) -> None:
        """Write a whole file, or take it as it is for None, and sync it."""
        if data is not None:
            self.write_file(path, data, sync=True)
            return
        descriptor = self.open(path)
        try:
            self.fdatasync(descriptor)
        finally:
            self.close(descriptor)

    def exchange(self, path: Path, data: bytes) -> None:
        """Give a file new content so that a crash leaves either the old or the new one.

        Which one is settled by the next `sync_directory`. After an error it is the old one.
        """
        temporary = path.with_name(path.name + ".tmp")
        self.write_file(temporary, data, sync=True)
        self.rename(temporary, path)

    def replace(self, path: Path, data: bytes) -> None:
        """Do the same and return once the new content is on the disk."""
        self.exchange(path, data)
        self.sync_directory(path.parent)

    def write_again(self, path: Path, position: int) -> None:
        """Write what a file has from `position` on to where it is, and sync it.

        So it is on the disk even where the file is only as it should be in the memory of a
        kernel that has failed to store it.
        """
        descriptor = self.open(path)
        try:
            while data := self.pread(descriptor, COPY_BYTES, position):
                position = self.write(descriptor, [data], position)
            self.fdatasync(descriptor)
        finally:
            self.close(descriptor)

    def settle_all(
        self, stretches: Sequence[tuple[Path, int]], directories: Sequence[Path]
    ) -> None:
        """Do that with files, and sync directories, all before this returns.

        Many at a time, which a disk does in a fraction of the time. For a start, when there is
        nobody else to wait for it. Raises OSError.
        """
        with ThreadPoolExecutor(SYNC_THREADS) as pool:
            for _ in pool.map(lambda stretch: self.write_again(*stretch), stretches):
                pass
            for _ in pool.map(self.sync_directory, directories):
                pass

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and the files in it; it is fine if it is gone."""
        if not self.exists(path):
            return
        for name in self.names(path):
            self.remove(path / name)
        self.remove_directory(path)
