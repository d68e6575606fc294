"""The way out of a connection whose responses may lie partly in files.

Bytes go through the transport. A response with a `FileSpan` goes past it, straight to the
socket, where the kernel moves the pages of the file (sendfile): asyncio's transports take only
bytes. So that nothing overtakes, that is done when the transport has nothing left to send, and
what the socket does not take at once is kept here, with everything that follows it. A loop
watches no socket that is a transport's, therefore a duplicate of it is waited for. Files do not
come encrypted: a TLS connection is never given a span.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.storage.log import FileSpan

    Part: TypeAlias = "bytes | bytearray | memoryview | FileSpan"

IN_MEMORY: Final = (bytes, bytearray, memoryview)


class Sender:
    """Sends responses in order; calls `on_sent` when all that had to wait is sent."""

    __slots__ = ("_on_sent", "_parts", "_position", "_transport", "_watched")

    def __init__(self, transport: asyncio.Transport, on_sent: Callable[[], None]) -> None:
        self._transport = transport
        self._on_sent = on_sent
        self._parts: deque[Part] = deque()  # past the transport
        self._position = 0  # in the first of them
        self._watched = -1  # the duplicate of the socket

    @property
    def takes_spans(self) -> bool:
        """Whether a part may be a `FileSpan`."""
        info = self._transport.get_extra_info
        return info("socket") is not None and info("sslcontext") is None

    @property
    def is_waiting(self) -> bool:
        """Whether the socket has not taken all that went past the transport."""
        return bool(self._parts)

    def send(self, parts: Sequence[Part]) -> None:
        """Send one response. Where that fails, the connection is aborted."""
        if self._parts:
            self._parts.extend(parts)
            return
        in_memory = [part for part in parts if isinstance(part, IN_MEMORY)]
        if len(in_memory) < len(parts):
            if self._transport.get_write_buffer_size() == 0:
                self._parts.extend(parts)
                self._push()
                return
            in_memory = [part if isinstance(part, IN_MEMORY) else part.read() for part in parts]
        if len(in_memory) == 1:
            self._transport.write(in_memory[0])
        else:
            self._transport.writelines(in_memory)

    def close(self) -> None:
        """Give up what waits."""
        self._parts.clear()
        self._unwatch()

    def _push(self) -> None:
        socket = self._transport.get_extra_info("socket").fileno()
        try:
            while self._parts:
                self._send_some(socket, self._parts[0])
        except BlockingIOError:
            if self._watched < 0:
                self._watched = os.dup(socket)
                asyncio.get_running_loop().add_writer(self._watched, self._go_on)
        except OSError:
            self.close()
            self._transport.abort()

    def _send_some(self, socket: int, part: Part) -> None:
        left = len(part) - self._position
        if isinstance(part, IN_MEMORY):
            sent = os.write(socket, memoryview(part)[self._position :])
        else:
            place = part.position + self._position
            sent = os.sendfile(socket, part.descriptor, place, left)
            if sent == 0:
                raise OSError("the file has become shorter")
        self._position += sent
        if sent == left:
            self._parts.popleft()
            self._position = 0

    def _go_on(self) -> None:
        self._push()
        if not self._parts and self._watched >= 0:
            self._unwatch()
            self._on_sent()

    def _unwatch(self) -> None:
        if self._watched >= 0:
            asyncio.get_running_loop().remove_writer(self._watched)
            os.close(self._watched)
            self._watched = -1
