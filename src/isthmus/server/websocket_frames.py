"""The frames that a server's packets go out in: one for each packet.

MQTT would allow many in one frame [MQTT-6.0.0-1], but there are clients that read no more than
one out of each. So this runs for every message to a WebSocket client: the packets of a turn
become frames in one pass, in one buffer. Frames from a server are not masked [RFC 6455, 5.1].
Compiled with the types in `websocket_frames.pxd`; what comes in, and all else that there is to
a WebSocket, is in websocket.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.wire.buffer import ReadBuffer, WriteBuffer

if TYPE_CHECKING:
    from isthmus.wire.buffer import Data

LENGTH_BYTES_MAX = 4  # of a packet's length, which stands behind its first byte [MQTT-1.5.5]
_BINARY = 0x82  # the first byte of a frame that is alone [RFC 6455, 5.2]
_SIZE_IN_2, _SIZE_IN_8 = 126, 127  # the size of the payload is in so many bytes that follow
_SIZE_IN_8_FROM = 65_536


def frames_of(packets: Data) -> bytes:
    """Return whole MQTT packets, each in a binary frame of its own."""
    read = ReadBuffer()
    read.attach(packets)
    frames = WriteBuffer()
    while read.position < read.end:
        start = read.position
        read.skip(1)
        size = read.uvarint(LENGTH_BYTES_MAX)
        size += read.position - start
        frames.put_u8(_BINARY)
        if size < _SIZE_IN_2:
            frames.put_u8(size)
        elif size < _SIZE_IN_8_FROM:
            frames.put_u8(_SIZE_IN_2)
            frames.put_u16(size)
        else:
            frames.put_u8(_SIZE_IN_8)
            frames.put_u64(size)
        read.seek(start)
        frames.put_bytes(read.bytes(size))
    return frames.take()
