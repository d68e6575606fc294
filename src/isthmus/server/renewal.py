"""What changes outside of the server while clients are connected: who looks, and what is done.

`keep_renewed` looks from time to time, and when the server is told to. `WatchedFile` is for
what is set in a file of its own: users, rules, keys. Reading and parsing happen on another
thread, what was read is put to use on the loop, all of it or nothing: where something is wrong
with the file, one log line says what, and what was read before stays in force until the file
changes again. At the start the same is a ConfigError.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from isthmus.errors import ConfigError
from isthmus.server.tls import stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

Content = TypeVar("Content")


class Renewed(Protocol):
    """What may have changed outside of the server."""

    async def renew(self, *, forced: bool) -> None:
        """Look, or (`forced`) take up what is there in any case."""


class Watched(Renewed, Protocol):
    """What is looked at until something else is in its place."""

    def leave(self) -> None:
        """Put nothing to use any more, not even what comes of a look that is under way."""


class WatchedFile(Generic[Content]):
    """One file, of which `parse` makes something that is of use."""

    def __init__(self, setting: str, file: str, parse: Callable[[str, str], Content]) -> None:
        """Read the file for the first time. Raises ConfigError.

        `setting` is what names the file, for errors. `parse(text, file)` runs on another thread
        after the first time; it raises ConfigError with file and line.
        """
        self._setting = setting
        self._file = file
        self._parse = parse
        self._use: Callable[[Content], object] | None = None
        self._stamp = stamp_of(file)
        self._content = self._read()

    def serve(self, use: Callable[[Content], object]) -> None:
        """Have what was read, now and whenever it changes, put to use on the loop."""
        self._use = use
        use(self._content)

    def leave(self) -> None:
        self._use = None

    async def renew(self, *, forced: bool) -> None:
        """Read the file again if it is another than before, or anyway."""
        stamp = await asyncio.to_thread(stamp_of, self._file)
        if stamp == self._stamp and not forced:
            return
        self._stamp = stamp  # what fails is not tried again until the file changes
        try:
            self._content = await asyncio.to_thread(self._read)
        except ConfigError as error:
            logger.error("file not taken setting=%s reason=%s", self._setting, error)
            return
        if self._use is not None:
            self._use(self._content)
        logger.info("file read again setting=%s file=%s", self._setting, self._file)

    def _read(self) -> Content:
        try:
            text = Path(self._file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(
                f"{self._setting} = {self._file!r} cannot be read: {why}"
            ) from None
        return self._parse(text, self._file)


async def keep_renewed(
    watched: Sequence[Renewed], asked: asyncio.Event, stop: asyncio.Event, period_s: float
) -> None:
    """Look for what has changed each `period_s`, and at once when `asked`, until `stop`.

    Ask after setting `stop`, too, to have it seen at once.
    """
    while not stop.is_set():
        try:
            async with asyncio.timeout(period_s):
                await asked.wait()
        except TimeoutError:
            pass
        forced = asked.is_set()
        asked.clear()
        for each in watched:
            if not stop.is_set():
                await each.renew(forced=forced)
