"""Sockets that have something before their protocol: a proxy's header, then TLS.

A `Reception` accepts them itself and takes each through both in a task of its own, which ends
where the protocol begins. So it is known whose a socket is before TLS costs anything; how many
are on their way has a limit, beyond which nobody is accepted, and who comes waits in the
kernel's queue; and every connection gets the newest certificates (docs/adr/0028).

No byte is read beyond the header, so nothing has to be handed on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from isthmus.broker.identity import Identity
from isthmus.broker.limits import LOCAL
from isthmus.errors import IsthmusError, Malformed, NotAuthorized
from isthmus.server.listener import close_socket
from isthmus.server.proxy import bytes_missing, origin_in, user_in

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from isthmus.logs import Sparing
    from isthmus.server.admission import Admission, Arrival
    from isthmus.server.proxy import Network, Origin
    from isthmus.server.tls import Certificates

logger = logging.getLogger(__name__)

ACCEPTED_MAX: Final = 64  # at a time, so that those who are connected have their turn
SHUTDOWN_S: Final = 5.0  # a closing TLS connection has this long to say goodbye
PAUSE_S: Final = 1.0  # where there is no descriptor for another socket


class Reception:
    """One bound socket, and who comes through it."""

    def __init__(
        self,
        bound: socket.socket,
        protocol: Callable[[Arrival], asyncio.BaseProtocol],
        admission: Admission,
        lines: Sparing,
        *,
        name: str,
        timeout_s: float,
        certificates: Certificates | None = None,
        proxies: Sequence[Network] | None = None,
        believes_user: bool = False,
        tells: bool = True,
    ) -> None:
        """Prepare; `proxies` are those who may say for whom they connect.

        None: whoever connects speaks for itself. Empty: everybody may. `believes_user`: they
        may also say who that is. A socket has `timeout_s` to come to its protocol, which says
        (`tells`) why a client is one too many, where TLS has not cost more by then.
        """
        self._bound = bound
        self._protocol = protocol
        self._admission = admission
        self._lines = lines
        self._name = name
        self._timeout_s = timeout_s
        self._certificates = certificates
        self._proxies = proxies
        self._believes_user = believes_user
        self._tells = tells and certificates is None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Accept connections."""
        self._listen()

    def close(self) -> None:
        """Accept no more, and leave those who are on their way."""
        if self._bound.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._bound)
            close_socket(self._bound)
        for task in self._tasks:
            task.cancel()

    def _listen(self) -> None:
        if self._bound.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._bound, self._accept)

    def _pause(self) -> None:
        asyncio.get_running_loop().remove_reader(self._bound)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTED_MAX):
            if self._admission.is_busy:
                self._pause()
                self._admission.on_room = self._listen
                return
            try:
                accepted, peer = self._bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    raise
                logger.error("connections not accepted reason=%s", error)
                self._pause()
                loop.call_later(PAUSE_S, self._listen)
                return
            accepted.setblocking(False)
            self._admission.begin()
            origin: Origin = peer[:2] if isinstance(peer, tuple) else (LOCAL, 0)
            task = loop.create_task(self._receive(accepted, origin))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _receive(self, accepted: socket.socket, origin: Origin) -> None:
        """Take one socket to its protocol, or close it."""
        arrival = None
        try:
            async with asyncio.timeout(self._timeout_s):
                header = b""
                if self._proxies is not None:
                    header = await self._header(accepted, origin)
                    origin = origin_in(header) or origin
                user = user_in(header) if self._believes_user else ""
                arrival = self._admission.admit(origin, tells=self._tells)
                arrival.user = user
                await self._hand_over(accepted, arrival)
        except (IsthmusError, OSError) as error:  # TLS and time-outs, too
            self._admission.refused(error)
            peer = Identity(*origin, self._name)
            self._lines.warning(
                logger,
                (peer.address, type(error).__name__),
                "connection refused peer=%s listener=%s reason=%s",
                peer,
                self._name,
                told(error),
            )
        finally:
            if arrival is None:
                accepted.close()
            if arrival is None or not arrival.is_taken:
                self._admission.give_up(arrival)

    async def _header(self, accepted: socket.socket, proxy: Origin) -> bytes:
        """Return what a proxy says. Raises Malformed, NotAuthorized, OSError."""
        if self._proxies and proxy[0] != LOCAL:
            address = ip_address(proxy[0])
            if not any(address in network for network in self._proxies):
                raise NotAuthorized("not one of the proxies in proxy_from")
        loop = asyncio.get_running_loop()
        header = b""
        while missing := bytes_missing(header):
            piece = await loop.sock_recv(accepted, missing)
            if not piece:
                raise Malformed("closed before the end of the PROXY header")
            header += piece
        return header

    async def _hand_over(self, accepted: socket.socket, arrival: Arrival) -> None:
        """Give a socket its protocol, once TLS stands where there is any."""
        loop = asyncio.get_running_loop()
        protocol = partial(self._protocol, arrival)
        if self._certificates is None:
            await loop.connect_accepted_socket(protocol, accepted)
            return
        with accepted.dup() as spare:  # the loop closes its own when the handshake fails
            try:
                await loop.connect_accepted_socket(
                    protocol,
                    accepted,
                    ssl=self._certificates.context,
                    ssl_handshake_timeout=self._timeout_s,
                    ssl_shutdown_timeout=SHUTDOWN_S,
                )
            except ssl.SSLError as error:
                with suppress(OSError):  # the client is gone, or does not read
                    spare.send(getattr(error, "alert", b""))
                raise


def told(error: Exception) -> str:
    """Return in words why a socket did not come to its protocol."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS: {error.reason.lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "not ready within the time allowed"
    return str(error) or type(error).__name__
