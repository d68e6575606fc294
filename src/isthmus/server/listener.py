"""Listening sockets: open them all or none, with one sentence where an address cannot be
had."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.config_listeners import Address

BACKLOG = 4096  # connections that wait to be accepted: ten thousand devices may come at once


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
