"""What is inside the WebSocket frames that a server sends: MQTT, however it is cut.

A server may give each packet a frame of its own, so this runs once per message. Frames from a
server are not masked [RFC 6455, 5.1]. What a client sends, a frame for many packets, is made in
transport.py. Compiled with the types in `web_frames.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import Malformed
from isthmus.wire.buffer import ReadBuffer, WriteBuffer

if TYPE_CHECKING:
    from isthmus.wire.buffer import Data

HEAD_BYTES_MAX = 10
CONTROL_BYTES_MAX = 125  # of a control frame's payload [RFC 6455, 5.5]
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA


class WebFrames:
    """Frames in, what they hold out. `pings` wait for an answer; `is_closed`: no more comes."""

    __slots__ = ("_cut", "_left", "_read", "is_closed", "out", "pings")

    def __init__(self) -> None:
        self._read = ReadBuffer()
        self._cut = b""  # the beginning of a frame's head, or of a control frame
        self._left = 0  # bytes of the frame before that have not come yet
        self.out = WriteBuffer()
        self.pings: list[bytes] = []
        self.is_closed = False

    def feed(self, data: Data, size: int) -> None:
        """Take the first `size` bytes of `data`; Malformed for what is no frame of MQTT."""
        if self._cut:
            data = self._cut + bytes(memoryview(data)[:size])
            size = len(data)
            self._cut = b""
        read = self._read
        read.attach(data, 0, size)
        try:
            while read.position < read.end and not self.is_closed:
                if self._left:
                    self._pass_on()
                    continue
                start = read.position
                if not self._next():
                    read.seek(start)
                    self._cut = read.bytes(read.end - start)
        finally:
            read.detach()

    def _pass_on(self) -> None:
        """Give out what there is of the frame that has begun."""
        size = self._read.end - self._read.position
        if size > self._left:
            size = self._left
        self.out.put_bytes(self._read.view(size))
        self._left -= size

    def _next(self) -> bool:
        """Begin the next frame; return False where more bytes are needed for that."""
        read = self._read
        there = read.end - read.position
        if there < 2:
            return False
        opcode = read.u8() & 0x0F
        size = read.u8()
        if size > 0x7F:
            raise Malformed("a server's WebSocket frame is masked")
        if size == 126:
            if there < 4:
                return False
            size = read.u16()
        elif size == 127:
            if there < HEAD_BYTES_MAX:
                return False
            size = read.u64()
        if opcode in (_BINARY, _CONTINUATION):
            self._left = size
            return True
        if opcode not in (_CLOSE, _PING, _PONG) or size > CONTROL_BYTES_MAX:
            raise Malformed(f"a WebSocket frame of opcode {opcode} and {size} bytes")
        if read.end - read.position < size:
            return False
        payload = read.bytes(size)
        if opcode == _PING:
            self.pings.append(payload)
        self.is_closed = opcode == _CLOSE
        return True
