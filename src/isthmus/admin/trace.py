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
        """Trace, and yield what comes, for so long; a reader that stalls makes it no longer."""

        def stop() -> None:
            traces.end(trace)
            self.put(None)

        traces.begin(trace)
        timer = asyncio.get_running_loop().call_later(seconds, stop)
        try:
            is_over = False
            while not is_over:
                await self._news.wait()
                self._news.clear()
                is_over = self._is_over  # now: what comes while this yields is not yet taken
                if lines := self._take():
                    yield lines
        finally:
            timer.cancel()
            traces.end(trace)

    def _take(self) -> bytes:
        lines, self._lines = self._lines, []
        if self._lost:
            lines.append(msgspec.json.encode({"lost": self._lost}) + b"\n")
        self._size = self._lost = 0
        return b"".join(lines)
