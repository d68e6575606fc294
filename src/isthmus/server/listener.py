"""Listening sockets: open them all or none, with one sentence where an address cannot be
had; and plain connections, which are given their protocol at once.

What has TLS or a proxy before its protocol comes through `server/reception.py`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.config_listeners import Address

# uvloop's servers accept one connection each in a turn of the loop, however many wait.
ACCEPTED_PER_TURN = 16
BACKLOG = 4096  # connections that wait to be accepted: ten thousand devices may come at once


class Listening:
    """One bound socket, whose connections are given a protocol each."""

    def __init__(
        self, bound: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._bound = bound
        self._protocol = protocol
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        is_file = self._bound.family == socket.AF_UNIX
        create = loop.create_unix_server if is_file else loop.create_server
        for _ in range(ACCEPTED_PER_TURN):
            bound = self._bound.dup()
            # It listens anew, by its own default for a hundred: the others try again in 1 s.
            self._servers.append(await create(self._protocol, sock=bound, backlog=BACKLOG))

    def close(self) -> None:
        """Accept no more."""
        for server in self._servers:
            server.close()
        close_socket(self._bound)


def open_socket(where: Address, section: str, *, mode: int = 0o660) -> socket.socket:
    """Return a listening socket. Raises ConfigError if the address is taken or not ours.

    `mode` is who may connect to one that is a file.
    """
    listening = None
    try:
        if where.scheme == "unix":
            remove_stale(where.path)
            family, address = socket.AF_UNIX, where.path
        else:
            family, address = resolved(where)
        listening = socket.socket(family, socket.SOCK_STREAM)
        if family != socket.AF_UNIX:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # so that [::] and 0.0.0.0 may have the same port
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        if family == socket.AF_UNIX:
            Path(where.path).chmod(mode)  # nobody can connect before it listens
        listening.listen(BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise ConfigError(
            f"{section}: cannot listen on {where}: {told(error, section)}"
        ) from None
    listening.setblocking(False)
    return listening


def resolved(where: Address) -> tuple[socket.AddressFamily, Any]:
    """Return the family and address to bind to."""
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    found = socket.getaddrinfo(
        where.host, where.port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return family, found[0][4]


def remove_stale(path: str) -> None:
    """Remove the file of a socket on which nobody listens any more."""
    file = Path(path)
    if not file.is_socket():  # bind says what is wrong with any other file
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is somebody, too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            file.unlink()
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise


def told(error: OSError, section: str) -> str:
    """Return what an error means for an address, and what to do."""
    if isinstance(error, socket.gaierror):
        return f"it is no address here: {error.strerror}"
    if error.errno != errno.EADDRINUSE:
        return str(error.strerror)
    return (
        "the address is in use by another program;"
        f" choose another one with --{section} HOST:PORT, or port 0 for any free port"
    )


def close_socket(bound: socket.socket) -> None:
    """Close a listening socket, and remove its file if it has one."""
    if bound.family == socket.AF_UNIX:
        Path(bound.getsockname()).unlink(missing_ok=True)
    bound.close()


def address_of(listening: socket.socket) -> str:
    """Return HOST:PORT as clients would write it, or the path of a file."""
    if listening.family == socket.AF_UNIX:
        return str(listening.getsockname())
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
