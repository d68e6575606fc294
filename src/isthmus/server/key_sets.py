"""A key set (JWKS) at a URL: fetched at the start, from time to time, and when it is asked for.

Where it cannot be had, one log line says why and the keys of before stay.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from isthmus.broker.tokens import parse_key_set
from isthmus.errors import ConfigError
from isthmus.server.http_client import NoAnswer

if TYPE_CHECKING:
    from isthmus.broker.tokens import Key, TokensWay
    from isthmus.runtime import Crew
    from isthmus.server.http_client import HttpClient

logger = logging.getLogger(__name__)


class KeySetUrl:
    """The keys at one URL, for a way that uses them."""

    def __init__(self, client: HttpClient, url: str, period_s: int, way: TokensWay) -> None:
        self._client = client
        self._url = url
        self._period_s = period_s
        self._way = way
        self._fetched_s = float("-inf")  # when it was last tried, by a clock that only grows
        self._is_left = False

    def begin(self, crew: Crew) -> None:
        """Fetch the keys for the first time; clients may come before they are there."""
        self._fetched_s = time.monotonic()
        crew.offload(self._fetch, self._came)

    async def renew(self, *, forced: bool) -> None:
        """Fetch the keys if it is time, or anyway."""
        now_s = time.monotonic()
        if not forced and now_s - self._fetched_s < self._period_s:
            return
        self._fetched_s = now_s
        try:
            keys = await asyncio.to_thread(self._fetch)
        except (NoAnswer, ConfigError, UnicodeDecodeError) as error:
            self._came(None, error)
        else:
            self._came(keys, None)

    def leave(self) -> None:
        self._is_left = True

    def _came(self, keys: list[Key] | None, error: BaseException | None) -> None:
        if self._is_left:
            return
        if keys is not None:
            self._way.use(self._url, keys)
        else:
            logger.error("keys not fetched url=%s reason=%s", self._url, error)

    def _fetch(self) -> list[Key]:
        return parse_key_set(self._client.ask("GET").decode(), self._url)
