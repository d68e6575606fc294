"""Whole MQTT packets in what a socket gave: where each begins, ends, and what it is.

The house's codec makes an object of every packet; a load counts millions of them and looks at a
few bytes of each, through `buffer`. Compiled with the types in `frames.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import Malformed, TooLarge
from isthmus.wire.buffer import ReadBuffer

if TYPE_CHECKING:
    from isthmus.wire.buffer import Data


class Frames:
    """A cursor over packets: `next` moves `buffer` behind the fixed header of the next one.

    `first` is its first byte, `start` and `end` its place in the data. Behind the last whole
    packet `end` is where a part of another begins.
    """

    __slots__ = ("_size_max", "buffer", "end", "first", "start")

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self.buffer = ReadBuffer()
        self.first = 0
        self.start = 0
        self.end = 0

    def attach(self, data: Data, size: int) -> None:
        """Begin with the first `size` bytes of `data`."""
        self.buffer.attach(data, 0, size)
        self.start = self.end = 0

    def detach(self) -> int:
        """Let go of the data; return where the part of a packet begins that is left."""
        self.buffer.detach()
        return self.end

    def packet(self) -> bytes:
        """Return the packet that `next` came to, whole."""
        self.buffer.seek(self.start)
        return self.buffer.bytes(self.end - self.start)

    def next(self) -> int:
        """Return the type of the next packet, 0 if no whole one is left.

        Malformed for what is no packet, TooLarge for one of more than `size_max` bytes.
        """
        buffer = self.buffer
        start = self.end
        buffer.seek(start)
        if buffer.end - start < 2:
            return 0
        first = buffer.u8()
        if first < 0x10:
            raise Malformed("packet type 0 is reserved")
        size = shift = 0
        while True:
            if buffer.position == buffer.end:
                return 0
            byte = buffer.u8()
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 21:
                raise Malformed("a Remaining Length of more than four bytes")
        end = buffer.position + size
        if end - start > self._size_max:
            raise TooLarge(f"a packet of {end - start} bytes, more than {self._size_max}")
        if end > buffer.end:
            return 0
        self.first = first
        self.start = start
        self.end = end
        return first >> 4
