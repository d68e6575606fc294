"""Responses with parts of files, over real sockets: whole and in order at any pace."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import uvloop

from isthmus.server.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

MIB = 1 << 20
SECONDS_MAX = 60.0


class Span:
    """A part of a file; `closed` counts those that are gone."""

    closed = 0

    def __init__(self, path: Path, position: int, size: int) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        self.position = position
        self.next_offset = 0
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __del__(self) -> None:
        os.close(self.descriptor)
        Span.closed += 1

    def read(self) -> bytes:
        return os.pread(self.descriptor, self._size, self.position)


class Peer(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self) -> None:
        self.sent = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, base: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", base)
        self.sender = Sender(self.transport, self.sent.set)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.sender.close()
        self.lost.set()


@pytest.fixture(
    params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def run(request: Any) -> Any:
    """Run a coroutine function with a Peer and the other end of its connection."""

    def go(body: Callable[[Peer, socket.socket], Awaitable[None]]) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            ours, other = socket.socketpair()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            other.setblocking(False)
            _, peer = await loop.connect_accepted_socket(Peer, ours)
            try:
                await asyncio.wait_for(body(peer, other), SECONDS_MAX)
            finally:
                other.close()
                peer.transport.abort()
                await asyncio.wait_for(peer.lost.wait(), SECONDS_MAX)

        loop = request.param()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()

    return go


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 * MIB))
    return path


async def receive(other: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(other, 100_000)
        assert more, "the connection has ended"
        data += more
    return data


def test_parts_arrive_in_order_however_slowly_they_are_taken(run: Any, file: Path) -> None:
    content = file.read_bytes()

    async def body(peer: Peer, other: socket.socket) -> None:
        peer.sender.send([b"head", Span(file, 10, 2 * MIB), memoryview(b"tail")])
        assert peer.sender.is_waiting
        peer.sender.send([b"second"])
        peer.sender.send([Span(file, MIB, MIB), b"end"])
        assert not peer.sent.is_set()
        expected = b"head" + content[10 : 10 + 2 * MIB] + b"tail" + b"second"
        expected += content[MIB : 2 * MIB] + b"end"
        assert await receive(other, len(expected)) == expected
        await peer.sent.wait()
        assert not peer.sender.is_waiting
        peer.sender.send([b"through", b" the ", b"transport"])
        assert await receive(other, 21) == b"through the transport"

    before = Span.closed
    run(body)
    assert Span.closed == before + 2


def test_what_the_socket_takes_at_once_waits_for_nobody(run: Any, file: Path) -> None:
    content = file.read_bytes()

    async def body(peer: Peer, other: socket.socket) -> None:
        peer.sender.send([b"head", Span(file, 0, 1000), b"tail"])
        assert not peer.sender.is_waiting
        assert await receive(other, 1008) == b"head" + content[:1000] + b"tail"
        assert not peer.sent.is_set()

    run(body)


def test_nothing_overtakes_what_the_transport_still_has(run: Any, file: Path) -> None:
    content = file.read_bytes()

    async def body(peer: Peer, other: socket.socket) -> None:
        first = bytes(range(256)) * 4096
        peer.sender.send([first])
        peer.sender.send([Span(file, 0, MIB), b"end"])
        expected = first + content[:MIB] + b"end"
        assert await receive(other, len(expected)) == expected

    run(body)


def test_a_peer_that_goes_away_ends_the_connection(run: Any, file: Path) -> None:
    async def body(peer: Peer, other: socket.socket) -> None:
        peer.sender.send([Span(file, 0, 3 * MIB)])
        other.close()
        await peer.lost.wait()
        assert not peer.sender.is_waiting
        assert not peer.sent.is_set()

    before = Span.closed
    run(body)
    assert Span.closed == before + 1


def test_a_file_that_has_become_shorter_ends_the_connection(run: Any, file: Path) -> None:
    async def body(peer: Peer, other: socket.socket) -> None:
        peer.sender.send([b"head", Span(file, 3 * MIB - 10, 100)])
        await peer.lost.wait()

    run(body)


def test_a_close_while_something_waits_leaves_nothing(run: Any, file: Path) -> None:
    async def body(peer: Peer, other: socket.socket) -> None:
        peer.sender.send([Span(file, 0, 3 * MIB)])
        peer.sender.close()
        peer.sender.close()
        assert not peer.sender.is_waiting

    before = Span.closed
    run(body)
    assert Span.closed == before + 1


def test_an_encrypted_connection_takes_no_spans() -> None:
    def takes_spans(**info: object) -> bool:
        transport = SimpleNamespace(get_extra_info=info.get)
        return Sender(cast("Any", transport), lambda: None).takes_spans

    assert takes_spans(socket=object())
    assert not takes_spans(socket=object(), sslcontext=object())
    assert not takes_spans()
