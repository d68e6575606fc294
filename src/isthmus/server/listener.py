"""Listening sockets: open them all or none, with one sentence where an address cannot be
had; and what comes through them, with TLS that is renewed while clients are connected."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.config_listeners import Address
    from isthmus.server.tls import Certificates

BACKLOG = 4096  # connections that wait to be accepted: ten thousand devices may come at once
SHUTDOWN_S = 5.0  # a closing TLS connection has this long to say goodbye


class Listening:
    """One bound socket, whose connections are given a protocol each."""

    def __init__(
        self,
        bound: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        certificates: Certificates | None = None,
        handshake_timeout_s: float | None = None,
    ) -> None:
        self._bound = bound
        self._protocol = protocol
        self._certificates = certificates
        self._handshake_timeout_s = handshake_timeout_s
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Accept connections, with the newest certificates.

        May be called again: whoever is connected, or in the middle of a handshake, goes on with
        what it has begun, and who waits in the backlog finds the new one.
        """
        before = self._server
        certificates = self._certificates
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=self._bound.dup(),
            ssl=certificates.context if certificates is not None else None,
            ssl_handshake_timeout=self._handshake_timeout_s if certificates else None,
            ssl_shutdown_timeout=SHUTDOWN_S if certificates else None,
        )
        if before is not None:
            before.close()

    async def renew(self, *, forced: bool) -> None:
        """Listen with new certificates if their files have changed, or anyway."""
        certificates = self._certificates
        if certificates is not None and await asyncio.to_thread(
            certificates.reload, forced=forced
        ):
            await self.open()

    def close(self) -> None:
        """Accept no more."""
        if self._server is not None:
            self._server.close()
        self._bound.close()


async def keep_renewed(
    listening: Sequence[Listening], asked: asyncio.Event, stop: asyncio.Event, period_s: float
) -> None:
    """Look for new certificates each `period_s`, and at once when `asked`, until `stop`.

    Ask after setting `stop`, too, to have it seen at once.
    """
    while not stop.is_set():
        try:
            async with asyncio.timeout(period_s):
                await asked.wait()
        except TimeoutError:
            pass
        forced = asked.is_set()
        asked.clear()
        for each in listening:
            if not stop.is_set():
                await each.renew(forced=forced)


def open_socket(where: Address, section: str) -> socket.socket:
    """Return a listening socket. Raises ConfigError if the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        address = socket.getaddrinfo(
            where.host, where.port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0][4]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"{section}: {where} is no address here: {error.strerror}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # so that [::] and 0.0.0.0 may have the same port
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        why = (
            "is in use by another program"
            if error.errno == errno.EADDRINUSE
            else error.strerror
        )
        raise ConfigError(
            f"{section}: cannot listen on {where}: the address {why};"
            f" choose another one with --{section} HOST:PORT, or port 0 for any free port"
        ) from None
    listening.setblocking(False)
    return listening


def address_of(listening: socket.socket) -> str:
    """Return HOST:PORT as clients would write it."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
