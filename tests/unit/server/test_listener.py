"""Listening sockets, and who waits before they are accepted."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

from isthmus.config_listeners import Address
from isthmus.server.listener import Listening, open_socket

CLIENTS = 300
PATIENCE_S = 5.0  # a client that found no place tries again after 1, 3 and 7 seconds


def test_many_may_wait_to_be_accepted() -> None:
    """The loop has no turn meanwhile, so nobody is accepted; all of them are connected."""

    async def connect_all() -> None:
        bound = open_socket(Address("tcp", "127.0.0.1", 0), "mqtt")
        host, port = bound.getsockname()
        listening = Listening(bound, asyncio.Protocol)
        await listening.open()
        with ExitStack() as stack:
            for _ in range(CLIENTS):
                client = socket.create_connection((host, port), PATIENCE_S)
                stack.enter_context(client)
        listening.close()

    asyncio.run(connect_all())
