"""MQTT over WebSocket: one connection of either, the second inside the first [MQTT-6.0.0].

Frames and the HTTP request before them are the business of `websockets`, whose protocol object
knows no socket. `WebSocketConnection` is the socket's protocol, and the transport of an
MqttConnection that does not notice. What comes in is handed on frame by frame, since MQTT
packets begin and end where they like [MQTT-6.0.0-2]; what goes out has a frame for each packet,
because some clients look at no more than the first of a frame until the next one comes.
Time-outs and limits are the MQTT connection's own, from the first byte of the request on. There
is no compression: it would make a small packet of a client a large one in our memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from isthmus.errors import Malformed
from isthmus.server.websocket_frames import frames_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.server.mqtt import MqttConnection

SUBPROTOCOLS: Final = [Subprotocol("mqtt"), Subprotocol("mqttv3.1")]  # [MQTT-6.0.0-3], and 3.1
FRAME_BYTES_MIN: Final = 65_536  # of the largest frame, where packets may only be smaller

quiet = logging.getLogger(f"{__name__}.frames")
quiet.setLevel(logging.ERROR)  # the MQTT connection says what there is to say


class WebSocketConnection(asyncio.BufferedProtocol, asyncio.Transport):
    """One socket that speaks WebSocket, and the transport of the MQTT inside."""

    __slots__ = (
        "_connection",
        "_defer",
        "_is_paused",
        "_is_stopped",
        "_path",
        "_socket",
        "_unread",
        "_websocket",
    )

    def __init__(
        self, connection: MqttConnection, *, path: str, origins: Sequence[str] = ()
    ) -> None:
        self._connection = connection
        self._path = path  # empty: any
        self._unread: deque[memoryview] = deque()  # of frames that came before a pause
        self._defer = connection.defer
        self._is_paused = False
        self._is_stopped = False  # the socket, for longer where a frame is not all read
        self._websocket = ServerProtocol(
            # Who is no browser has no origin, and could claim any.
            origins=[*map(Origin, origins), None] if origins else None,
            subprotocols=SUBPROTOCOLS,
            max_size=max(connection.offer.packet_size_max, FRAME_BYTES_MIN),
            logger=quiet,
        )
        self._socket: asyncio.Transport

    # --- asyncio calls these ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = cast("asyncio.Transport", transport)
        self._connection.connection_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._connection.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        if self._socket.is_closing():
            return
        websocket = self._websocket
        data = bytes(self._connection.get_buffer(-1)[:nbytes])
        while data and not self._socket.is_closing():
            size = len(data)
            if websocket.state is State.CONNECTING:
                # Line by line: what is said of a frame comes behind the answer to this.
                size = data.find(b"\n") + 1 or size
            websocket.receive_data(data[:size])
            data = data[size:]
            for event in websocket.events_received():
                if isinstance(event, Request):
                    self._answer(event)
                elif isinstance(event, Frame):
                    self._receive(event)
            self._flush()
        problem = websocket.handshake_exc or websocket.parser_exc
        if problem is not None:
            self._connection.close(Malformed(f"WebSocket: {problem}"))

    def eof_received(self) -> bool:
        return False  # close

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # --- the MQTT connection calls these ------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._websocket.state is State.OPEN:
            self._flush()
            self._socket.write(frames_of(data))

    def close(self) -> None:
        if self._websocket.state is State.OPEN:
            self._websocket.send_close(CloseCode.NORMAL_CLOSURE)
        self._flush()
        self._socket.close()

    def abort(self) -> None:
        self._socket.abort()

    def pause_reading(self) -> None:
        self._is_paused = True
        if not self._is_stopped:
            self._is_stopped = True
            self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._is_paused = False
        self._defer(self._go_on)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._socket.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._socket.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size()

    # --- inside -------------------------------------------------------------------------------

    def _answer(self, request: Request) -> None:
        websocket = self._websocket
        if self._path and request.path.partition("?")[0] != self._path:
            websocket.send_response(websocket.reject(404, "MQTT is served on another path.\n"))
            self._flush()
            self._connection.close(Malformed(f"WebSocket: nothing is at {request.path[:80]!r}"))
        else:
            websocket.send_response(websocket.accept(request))

    def _receive(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:  # [MQTT-6.0.0-1]
            self._websocket.fail(CloseCode.UNSUPPORTED_DATA, "MQTT is binary")
            self._flush()
            self._connection.close(Malformed("WebSocket: a text frame, and MQTT is binary"))
        elif frame.opcode in {Opcode.BINARY, Opcode.CONT}:
            self._unread.append(memoryview(frame.data))
            self._feed()

    def _go_on(self) -> None:
        """Read the rest of a frame, then the socket."""
        self._feed()
        if self._is_stopped and not self._is_paused and not self._socket.is_closing():
            self._is_stopped = False
            self._socket.resume_reading()

    def _feed(self) -> None:
        """Hand on what has come, as a socket would: until the connection wants a pause."""
        unread = self._unread
        while unread and not self._is_paused:
            data = unread.popleft()
            buffer = self._connection.get_buffer(-1)
            piece = data[: len(buffer)]
            buffer[: len(piece)] = piece
            if len(piece) < len(data):
                unread.appendleft(data[len(piece) :])
            self._connection.buffer_updated(len(piece))

    def _flush(self) -> None:
        """Send what the WebSocket has to say; an empty piece means that it is over."""
        for data in self._websocket.data_to_send():
            if data:
                self._socket.write(data)
            else:
                self._socket.close()
