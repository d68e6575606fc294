"""What SIGHUP has read again: the settings, then each part of the server that takes new ones.

Each part is taken as a whole or not at all, by itself: where a file is no good, one line says
why and the part goes on as it was. Files are read on another thread; what came of them is put
in place on the loop, at once. Settings that have changed and that only a start takes are named.
Nobody is disconnected by that alone; whether a client that new rules would not let in may stay
is for the part to say.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from isthmus.config_changes import needing_restart
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.config import Settings

    Prepare = Callable[[Settings], Callable[[], object]]

logger = logging.getLogger(__name__)


class Reloads:
    """All that can change while the server runs, by name."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        """Begin with the settings in force; `read` reads them again, or raises ConfigError."""
        self._begun = self._settings = settings
        self._read = read
        self._parts: list[tuple[str, Prepare]] = []
        self._asked = asyncio.Event()

    def add(self, name: str, prepare: Prepare) -> None:
        """Add a part.

        `prepare(settings)` is called on another thread, reads what there is to read, and
        returns what puts it in place, to be called on the loop, which must not fail. It raises
        ConfigError or OSError where the part is to stay as it is.
        """
        self._parts.append((name, prepare))

    def ask(self) -> None:
        """Have all of it read again, soon; what is asked meanwhile is done once, after it."""
        self._asked.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Read again each time it is asked, until `stop`; ask then, to have that seen."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if stop.is_set():
                return
            await self._reload()

    async def _reload(self) -> None:
        logger.info("reloading")
        try:
            self._settings = await asyncio.to_thread(self._read)
        except ConfigError as error:
            logger.error("not reloaded part=%s reason=%s", "settings", error)
        for name in needing_restart(self._begun, self._settings):
            logger.warning("changed, and needs a restart setting=%s", name)
        for name, prepare in self._parts:
            try:
                put_in_place = await asyncio.to_thread(prepare, self._settings)
            except (ConfigError, OSError) as error:
                logger.error("not reloaded part=%s reason=%s", name, error)
            else:
                put_in_place()
        logger.info("reloaded")
