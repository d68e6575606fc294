"""Where packets begin and end, however the socket cuts them."""

from __future__ import annotations

import pytest

from isthmus.errors import Malformed, TooLarge
from isthmus.load.frames import Frames
from isthmus.mqtt.codec import encode
from isthmus.mqtt.packets import PINGRESP, PUBACK, PUBLISH, Ack, Pingresp, Publish
from isthmus.wire.buffer import WriteBuffer

SENT = [Publish(b"a/b", b"." * size) for size in (0, 1, 118, 119, 200, 17_000)]


def stream() -> bytes:
    out = WriteBuffer()
    for packet in SENT:
        encode(packet, 4, out)
        encode(Ack(PUBACK, 7), 4, out)
    encode(Pingresp(), 4, out)
    return out.take()


@pytest.mark.parametrize("part", [1, 2, 3, 7, 500, 1 << 20])
def test_every_packet_is_found_once_however_it_is_cut(part: int) -> None:
    data = stream()
    frames = Frames(1 << 16)
    kept, sizes, kinds = b"", [], []
    for start in range(0, len(data), part):
        room = kept + data[start : start + part]
        frames.attach(room, len(room))
        while kind := frames.next():
            kinds.append(kind)
            sizes.append(frames.end - frames.start)
            assert frames.first >> 4 == kind
        kept = room[frames.detach() :]
    assert kept == b"" and sum(sizes) == len(data)
    assert kinds == [PUBLISH, PUBACK] * len(SENT) + [PINGRESP]


def test_only_the_first_bytes_of_the_room_are_read() -> None:
    room = b"\xd0\x00" + b"\xff" * 10
    frames = Frames(100)
    frames.attach(room, 2)
    assert [frames.next(), frames.next()] == [PINGRESP, 0]
    assert frames.detach() == 2


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x00\x00", Malformed),
        (b"\x30\xff\xff\xff\xff\x01", Malformed),
        (b"\x30\xff\xff\xff\x7f", TooLarge),
    ],
)
def test_what_is_no_packet_is_refused(data: bytes, error: type[Exception]) -> None:
    frames = Frames(100)
    frames.attach(data, len(data))
    with pytest.raises(error):
        frames.next()
