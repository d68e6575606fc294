"""Who is at the other end of a socket, as far as the socket and its TLS know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.broker.limits import LOCAL
from isthmus.errors import NotAuthorized
from isthmus.server.tls import KeyedContext, user_of

if TYPE_CHECKING:
    import asyncio

    from isthmus.server.proxy import Origin


def origin_of(transport: asyncio.BaseTransport) -> Origin:
    """Return address and port of the other end."""
    peer = transport.get_extra_info("peername")
    return peer[:2] if isinstance(peer, tuple) else (LOCAL, 0)


def user_behind(transport: asyncio.BaseTransport, user_from: str) -> str:
    """Return whom a certificate or a key names; empty: there is none. Raises NotAuthorized.

    A certificate that was checked but names no user must not make its owner anonymous.
    """
    context = getattr(transport.get_extra_info("ssl_object"), "context", None)
    shown = transport.get_extra_info("peercert") if user_from != "none" else None
    user = ""
    if isinstance(context, KeyedContext):
        user = context.asked.identity
        if not user:
            raise NotAuthorized("it resumes a session and shows no key")
    elif shown:
        user = user_of(shown, user_from)
        if not user:
            raise NotAuthorized("its certificate names no user")
    return user
