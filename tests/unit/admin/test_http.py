"""Health and readiness, asked over a real socket on loopback; signals stay where they were."""

from __future__ import annotations

import asyncio
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.unit.admin.asgi import security_of
from tests.unit.broker.shore import Shore

from isthmus.admin.http import application, serve_http
from isthmus.broker.identity import Identity
from isthmus.broker.inspection import Inspection

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette


def build(reasons: list[str]) -> Starlette:
    shore = Shore()
    inspection = Inspection(shore.broker, shore.clients)
    return application(
        lambda: next(iter(reasons), None),
        inspection,
        shore.clients.traces,
        security=security_of(shore),
        allow_anonymous=False,
    )


class Doors:
    """Bound sockets, and nothing before HTTP."""

    def __init__(self, *bound: socket.socket) -> None:
        self._bound = bound
        self._servers: list[asyncio.Server] = []

    def __bool__(self) -> bool:
        return bool(self._bound)

    async def open(self, protocol: Callable[[Identity], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        visit = partial(protocol, Identity("127.0.0.1", 5000, "http"))
        self._servers = [await loop.create_server(visit, sock=each) for each in self._bound]

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for each in self._bound:
            each.close()


async def ask(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_alive_ready_not_ready_and_the_end() -> None:
    reasons: list[str] = []
    watched = (signal.SIGINT, signal.SIGTERM)

    async def scene() -> None:
        handlers = [signal.getsignal(each) for each in watched]
        bound = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        port, other = (each.getsockname()[1] for each in bound)
        stop = asyncio.Event()
        serving = asyncio.ensure_future(serve_http(Doors(*bound), lambda: build(reasons), stop))
        assert await ask(port, "/healthz") == (200, b'{"status":"alive"}')
        assert await ask(other, "/readyz") == (200, b'{"status":"ready"}')
        reasons.append("the disk is full")
        status, body = await ask(port, "/readyz")
        assert status == 503 and b"the disk is full" in body
        assert (await ask(port, "/healthz"))[0] == 200
        assert (await ask(port, "/"))[0] == 404
        assert handlers == [signal.getsignal(each) for each in watched]
        stop.set()
        await serving
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(scene())


def test_nothing_to_do_without_sockets() -> None:
    asyncio.run(serve_http(Doors(), lambda: build([]), asyncio.Event()))


@pytest.mark.parametrize("in_service", [False, True])
def test_cancelling_closes_the_sockets(in_service: bool) -> None:
    async def scene() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.ensure_future(
            serve_http(Doors(bound), lambda: build([]), asyncio.Event())
        )
        await asyncio.sleep(0)
        if in_service:
            assert (await ask(bound.getsockname()[1], "/healthz"))[0] == 200
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert bound.fileno() == -1

    asyncio.run(scene())
