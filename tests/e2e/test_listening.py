"""A listener whose certificates change, in this process: what goes wrong in between."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
from tests.certificates import Authority

from isthmus.config_listeners import Address
from isthmus.server.listener import Listening, open_socket
from isthmus.server.renewal import keep_renewed

if TYPE_CHECKING:
    from pathlib import Path


class Changing:
    """Certificates of which a test says when they are read, and which come of it."""

    def __init__(self, directory: Path) -> None:
        self._authorities = [Authority(directory / name) for name in ("old", "new")]
        self.asked = threading.Event()
        self.answer = threading.Event()
        self._use(0)

    def _use(self, number: int) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self._authorities[number].issue("server", "localhost"))

    def reload(self, *, forced: bool) -> bool:
        self.asked.set()
        self.answer.wait()
        if forced:
            self._use(1)
        return forced

    async def shown_at(self, bound: socket.socket) -> str:
        """Return whose certificate a client sees there, or how it failed."""
        for name, each in zip(("old", "new"), self._authorities, strict=True):
            trusting = ssl.create_default_context(cafile=each.certificate)
            try:
                host, port = bound.getsockname()
                _, writer = await asyncio.open_connection(
                    host, port, ssl=trusting, server_hostname="localhost"
                )
            except ssl.SSLError:
                continue
            writer.close()
            await writer.wait_closed()
            return name
        return "neither"


async def listening(changing: Changing) -> tuple[Listening, socket.socket]:
    bound = open_socket(Address("tcp", "127.0.0.1", 0), "mqtt")
    one = Listening(bound, asyncio.Protocol, certificates=changing)  # type: ignore[arg-type]
    await one.open()
    return one, bound


def test_an_end_while_files_are_read_is_an_end(tmp_path: Path) -> None:
    async def run() -> None:
        changing = Changing(tmp_path)
        one, bound = await listening(changing)
        address = bound.getsockname()
        asked, stop = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_renewed([one], asked, stop, 3600))
            asked.set()
            await asyncio.to_thread(changing.asked.wait)
            stop.set()
            one.close()
            changing.answer.set()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    asyncio.run(run())


def test_what_cannot_be_listened_with_yet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        changing = Changing(tmp_path)
        changing.answer.set()
        one, bound = await listening(changing)
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "dup", _no_descriptor)
            await one.renew(forced=True)
        assert "certificates not in use yet reason=[Errno 24]" in caplog.text
        assert await changing.shown_at(bound) == "old"
        await one.renew(forced=False)
        assert await changing.shown_at(bound) == "new"
        one.close()

    asyncio.run(run())


def _no_descriptor(_: socket.socket) -> socket.socket:
    raise OSError(24, "Too many open files")
