"""A disk that cannot be written for now: full, over its quota, or turned read-only.

What cannot be written is refused, one commit at a time, and nothing more is done about it: what
was stored is there and is read, and the next commit is tried like any other. Here is only what
people are told of it: one line when it begins, one when it is over, and in between the reason
for whoever asks (`/readyz`). Whether it is over is tried out with a file as large as a busy
turn writes; one small batch that still found room would say nothing.

Where a sync has failed for want of room, it is not over before that is made good (mending.py).
Not here: a sync that fails for another reason. That never ends, see `Shared.fail`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from isthmus.storage.local.files import storage_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isthmus.errors import StorageError
    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.mending import Mender

PROBE_FILE: Final = "isthmus-probe"
PROBE_BYTES: Final = 1024 * 1024
PROBE_MS: Final = 1_000

logger = logging.getLogger(__name__)


class Trouble:
    """Why the disk cannot be written just now, if it cannot: `error`."""

    __slots__ = (
        "_cancel",
        "_files",
        "_is_closed",
        "_mender",
        "_path",
        "_runtime",
        "error",
        "refused",
        "refused_writes",
    )

    def __init__(self, runtime: Runtime, files: Files, directory: Path, mender: Mender) -> None:
        self.error: StorageError | None = None  # all is well
        self.refused = 0  # writes, since it began
        self.refused_writes = 0  # since the start
        self._runtime = runtime
        self._files = files
        self._mender = mender
        self._path = directory / PROBE_FILE
        self._cancel: Callable[[], object] | None = None  # the look that is to come
        self._is_closed = False

    def found(self, error: OSError, what: str) -> StorageError:
        """Return the StorageError for something that was not written, told once per kind."""
        failure = storage_error(error, what)
        known, self.error = self.error, failure
        self.refused += 1
        self.refused_writes += 1
        if type(known) is not type(failure):
            logger.error(
                "%s. What cannot be written is refused, reading goes on; it is tried again "
                "every second",
                failure,
            )
        if known is None and not self._is_closed:
            self._look_later()
        return failure

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True
        if self._cancel is not None:
            self._cancel()

    def _look_later(self) -> None:
        self._cancel = self._runtime.later(PROBE_MS, self._look)

    def _look(self) -> None:
        self._runtime.offload(self._probe, self._probed)

    def _probe(self) -> None:
        """Write as much as a turn may write, and take it away again. Raises OSError."""
        try:
            self._files.write_file(self._path, bytes(PROBE_BYTES), sync=True)
        finally:
            self._files.remove(self._path)

    def _probed(self, _result: None, error: BaseException | None) -> None:
        if self._is_closed:
            return
        if isinstance(error, OSError):
            self._look_later()
        elif error is not None:
            raise error
        elif self._mender.is_stalled:
            self._mender.begin(self._mended)
        else:
            self._end()

    def _mended(self, is_mended: bool) -> None:
        if self._is_closed:
            return
        if is_mended:
            self._end()
        else:
            self._look_later()

    def _end(self) -> None:
        logger.warning("the disk can be written again; %d writes were refused", self.refused)
        self.error, self.refused = None, 0
