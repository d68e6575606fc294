"""A file that is written past the page cache, where the file system can do that (O_DIRECT).

What is written so is with the disk when the call returns, and a sync has nothing to write back:
both together take half the time and half the CPU of a write and a sync of as many bytes at the
end of a file. It must be whole pages, from memory where a page begins.
"""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from isthmus.storage.local.files import Files

STAGE_BYTES: Final = 1024 * 1024  # written at once
ALIGNMENT: Final = mmap.PAGESIZE
_NO_SUCH_WAY: Final = frozenset((errno.EINVAL, errno.EOPNOTSUPP))


class DirectFile:
    """Writes of whole pages to a file that has its size; for one thread at a time."""

    __slots__ = ("_descriptor", "_files", "_path", "_stage")

    def __init__(self, files: Files, path: Path) -> None:
        """Open a file that is there. Raises OSError."""
        self._files = files
        self._path = path
        self._stage: memoryview | None = None  # None: through the page cache
        try:
            self._descriptor = files.open_direct(path)
            self._stage = memoryview(mmap.mmap(-1, STAGE_BYTES))
        except OSError as error:
            if error.errno not in _NO_SUCH_WAY:
                raise
            self._descriptor = files.open(path)

    def write(self, buffers: Sequence[bytes | memoryview], position: int) -> None:
        """Write buffers one after the other, and zeros to the end of the last page.

        `position` is where a page begins. Raises OSError; then any of it may be there.
        """
        size = sum(map(len, buffers))
        zeros = bytes(-size % ALIGNMENT)
        if self._stage is not None:
            try:
                self._write_direct(self._stage, [*buffers, zeros], position)
            except OSError as error:
                if error.errno not in _NO_SUCH_WAY:
                    raise
                self._go_through_cache()  # it could be opened so, and cannot be written so
            else:
                return
        self._files.write(self._descriptor, [*buffers, zeros], position)

    def _write_direct(
        self, stage: memoryview, buffers: Iterable[bytes | memoryview], position: int
    ) -> None:
        """Write whole pages, through memory where a page begins."""
        filled = 0
        for buffer in buffers:
            rest = memoryview(buffer)
            while len(rest) > 0:
                piece = rest[: STAGE_BYTES - filled]
                stage[filled : filled + len(piece)] = piece
                filled += len(piece)
                rest = rest[len(piece) :]
                if filled == STAGE_BYTES:
                    self._files.write(self._descriptor, [stage], position)
                    position += filled
                    filled = 0
        if filled:
            self._files.write(self._descriptor, [stage[:filled]], position)

    def _go_through_cache(self) -> None:
        descriptor = self._files.open(self._path)
        self.close()
        self._descriptor, self._stage = descriptor, None

    def sync(self) -> None:
        """Return once what was written is on the disk. Raises OSError."""
        self._files.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of it."""
        self._files.close(self._descriptor)
