"""Who is at the other end of a socket, as far as the socket and its TLS know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.broker.limits import LOCAL
from isthmus.errors import NotAuthorized
from isthmus.server.tls import KeyedContext

if TYPE_CHECKING:
    import asyncio

    from isthmus.server.certificate_names import CertificateNames
    from isthmus.server.proxy import Origin


def origin_of(transport: asyncio.BaseTransport) -> Origin:
    """Return address and port of the other end."""
    peer = transport.get_extra_info("peername")
    return peer[:2] if isinstance(peer, tuple) else (LOCAL, 0)


def user_behind(transport: asyncio.BaseTransport, names: CertificateNames | None) -> str:
    """Return whom a certificate or a key names; empty: there is none. Raises NotAuthorized."""
    context = getattr(transport.get_extra_info("ssl_object"), "context", None)
    if isinstance(context, KeyedContext):
        if not context.asked.identity:
            raise NotAuthorized("it resumes a session and shows no key")
        return context.asked.identity
    if names is None or not names.are_asked:
        return ""
    shown = transport.get_extra_info("peercert")
    return names.user_of(shown) if shown else ""
