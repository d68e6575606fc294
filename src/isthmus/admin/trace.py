"""Traces over HTTP: one request for each, answered line by line as packets come (NDJSON).

A trace lasts as long as its request: until its time is over, its reader goes away or the server
ends. Nothing is kept of it. A reader that is too slow loses lines, and is told how many.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isthmus.broker.traces import Trace, Traces

WAITING_BYTES_MAX: Final = 4 << 20  # of lines that a reader has not taken


class Feed:
    """The lines of one trace on their way to its reader."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._lost = 0
        self._is_over = False
        self._news = asyncio.Event()

    def put(self, line: dict[str, Any] | None) -> None:
        """Take a line; None is the end."""
        self._news.set()
        if line is None:
            self._is_over = True
            return
        text = msgspec.json.encode(line) + b"\n"
        if self._size + len(text) > WAITING_BYTES_MAX:
            self._lost += 1
            return
        self._size += len(text)
        self._lines.append(text)

    async def read(self, traces: Traces, trace: Trace, seconds: float) -> AsyncIterator[bytes]:
        """Trace, and yield what comes, for so long."""
        traces.begin(trace)
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            while not self._is_over:
                try:
                    async with asyncio.timeout_at(end):
                        await self._news.wait()
                except TimeoutError:
                    break
                self._news.clear()
                yield self._take()
        finally:
            traces.end(trace)

    def _take(self) -> bytes:
        lines, self._lines = self._lines, []
        if self._lost:
            lines.append(msgspec.json.encode({"lost": self._lost}) + b"\n")
        self._size = self._lost = 0
        return b"".join(lines)
