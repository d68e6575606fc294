"""The files of a data directory as they would be with some changes, none of which is made.

For a look at what a start would find after it has replayed the journal (inspect.py): what is
written to an overlay stays in memory, and what is read is the files below with these bytes over
them. Only looking and writing to files: no name is changed here.
"""

from __future__ import annotations

import errno
import os
from itertools import count
from typing import TYPE_CHECKING

from isthmus.storage.local.files import Files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Overlay(Files):
    """Files that are only read, and what was written over them."""

    def __init__(self, below: Files) -> None:
        self._below = below
        self._numbers = count()
        self._open: dict[int, tuple[Path, int | None]] = {}  # None: not there below
        self._written: dict[Path, list[tuple[int, bytes]]] = {}  # position and bytes, in order

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open a file; one that is made is there for whoever looks through this."""
        below = self._below.open_read(path) if self._below.exists(path) else None
        if below is None and path not in self._written:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            self._written[path] = []
        descriptor = next(self._numbers)
        self._open[descriptor] = path, below
        return descriptor

    def open_read(self, path: Path) -> int:
        """Open a file for reading."""
        return self.open(path)

    def close(self, descriptor: int) -> None:
        """Let go of a descriptor."""
        _, below = self._open.pop(descriptor)
        if below is not None:
            self._below.close(below)

    def size(self, path: Path) -> int:
        """Return a file's length in bytes."""
        written = self._written.get(path)
        if written is None:
            return self._below.size(path)
        below = self._below.size(path) if self._below.exists(path) else 0
        return max([below, *(position + len(data) for position, data in written)])

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        path, below = self._open[descriptor]
        found = b"" if below is None else self._below.pread(below, size, position)
        if path not in self._written:
            return found
        size = max(0, min(size, self.size(path) - position))
        image = bytearray(found.ljust(size, b"\0"))
        for start, data in self._written[path]:
            first, end = max(start, position), min(start + len(data), position + size)
            if first < end:
                image[first - position : end - position] = data[first - start : end - start]
        return bytes(image)

    def pwritev(
        self, descriptor: int, buffers: Sequence[memoryview | bytes], position: int
    ) -> int:
        """Keep what is written, in memory."""
        data = b"".join(buffers)
        path, _ = self._open[descriptor]
        self._written.setdefault(path, []).append((position, data))
        return len(data)

    def exists(self, path: Path) -> bool:
        """Whether there is anything of this name."""
        return path in self._written or self._below.exists(path)

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, sorted."""
        made = {path.name for path in self._written if path.parent == directory}
        return sorted(made.union(self._below.names(directory)))

    def is_locked(self, path: Path) -> bool:
        """Whether another process holds the lock of this file."""
        return self._below.is_locked(path)
