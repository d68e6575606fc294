"""What a server's WebSocket frames hold, however the socket cuts them."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from isthmus.errors import Malformed
from isthmus.load.transport import frame_of
from isthmus.load.web_frames import WebFrames

PAYLOADS = [b"", b"one", b"." * 125, b"." * 126, b"x" * 70_000, b"the last"]
PING = Frame(Opcode.PING, b"are you there").serialize(mask=False)


def stream() -> bytes:
    whole = [Frame(Opcode.BINARY, each).serialize(mask=False) for each in PAYLOADS]
    parts = Frame(Opcode.BINARY, b"in two ", fin=False).serialize(mask=False)
    return b"".join(
        [*whole, PING, parts, PING, Frame(Opcode.CONT, b"parts").serialize(mask=False)]
    )


@pytest.mark.parametrize("part", [1, 2, 3, 5, 1_000, 1 << 20])
def test_everything_comes_out_in_its_order(part: int) -> None:
    data, frames = stream(), WebFrames()
    room = bytearray(part + 9)
    found = b""
    for start in range(0, len(data), part):
        piece = data[start : start + part]
        room[: len(piece)] = piece
        frames.feed(room, len(piece))
        found += frames.out.take()
    assert found == b"".join(PAYLOADS) + b"in two parts"
    assert frames.pings == [b"are you there"] * 2
    assert not frames.is_closed


def test_behind_a_close_nothing_comes() -> None:
    frames = WebFrames()
    data = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=False) + stream()
    frames.feed(data, len(data))
    assert frames.is_closed and frames.out.take() == b""


@pytest.mark.parametrize(
    "data",
    [
        Frame(Opcode.BINARY, b"x").serialize(mask=True),
        Frame(Opcode.TEXT, b"x").serialize(mask=False),
        b"\x89\x7e\x00\x7e" + b"." * 126,
        b"\x83\x00",
    ],
)
def test_what_mqtt_has_no_use_for_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        WebFrames().feed(data, len(data))


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_000])
def test_a_server_understands_what_a_client_sends(size: int) -> None:
    server = ServerProtocol(state=State.OPEN, max_size=None)
    data = bytes(range(256)) * (size // 256 + 1)
    server.receive_data(frame_of(Opcode.BINARY, memoryview(data)[:size]))
    (frame,) = server.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.BINARY, data[:size], True)
