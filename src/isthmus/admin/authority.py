"""Who may use the REST API: programs on this machine, or administrators who show who they are.

One of the functions here is asked about every request, and returns the refusal or None:
`from_this_machine` as long as nobody is asked who it is, `from_anywhere` where that is written
down, an `Administrators` where users log in. Pages of the web are refused by all of them: a
browser would ask with the rights, and the password, of whoever has them open.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from isthmus.admin.api import Refusal, Told
from isthmus.broker.authentication import Request as Shown
from isthmus.broker.identity import CERTIFICATE, Identity
from isthmus.broker.limits import network_of
from isthmus.errors import BadCredentials, IsthmusError, NotAuthorized, ServerBusy

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import Request

    from isthmus.broker.authentication import Chain
    from isthmus.broker.guard import Guard
    from isthmus.broker.identity import Principal
    from isthmus.broker.users import Users

LISTENER: Final = "http"  # as rules and programs that say who somebody is are told
ASKED: Final = {"WWW-Authenticate": 'Basic realm="isthmus", charset="UTF-8"'}  # [RFC 7617]
WHERE: Final = "header Authorization"


async def from_this_machine(request: Request) -> Refusal | None:
    """Refuse whoever does not ask as a program on this machine does.

    The listeners can only be reached from here. So could a page of the web be, through the
    browser of somebody who works here: it shows in Origin, or in Host where it had a name of
    its own lead to this address (DNS rebinding).
    """
    host = request.headers.get("host", "")
    if not is_loopback(host):
        return Refusal(403, f"this machine is not called {host!r} here", "header Host")
    return same_site(request)


async def from_anywhere(request: Request) -> Refusal | None:
    """Refuse pages of the web only."""
    return same_site(request)


class Administrators:
    """The users of some groups, by user name and password (Basic), token (Bearer), certificate.

    A certificate says who somebody is, and `users` in which groups.
    """

    def __init__(
        self, chain: Chain, groups: Collection[str], guard: Guard, users: Users
    ) -> None:
        """`chain` says who somebody is; `guard` counts those who fail to show it."""
        self._chain = chain
        self._groups = groups
        self._guard = guard
        self._users = users

    async def __call__(self, request: Request) -> Refusal | None:
        """Refuse whoever is none of them."""
        refusal = same_site(request)
        if refusal is not None:
            return refusal
        visitor: Identity = request.state.identity
        identity = Identity(visitor.address, visitor.port, LISTENER, visitor.user)
        if self._guard.failures.is_blocked(network_of(identity.address)):
            return Refusal(403, "too many attempts to log in from this address failed", WHERE)
        shown: Shown | Refusal = Shown(identity, "")
        if "authorization" in request.headers or not self._knows(identity):
            shown = shown_in(request, identity)
        if isinstance(shown, Refusal):
            return shown
        told: Told[Principal | IsthmusError] = Told()
        self._chain.judge(shown, told.tell)
        verdict = await told.future
        if isinstance(verdict, BadCredentials | NotAuthorized):  # something was shown: a guess
            self._guard.failed(identity)
        if isinstance(verdict, ServerBusy):
            return Refusal(503, str(verdict), "server")
        if isinstance(verdict, IsthmusError):
            return Refusal(401, str(verdict), WHERE, ASKED)
        if self._groups_of(verdict).isdisjoint(self._groups):
            wanted = " or ".join(map(repr, self._groups))
            return Refusal(403, f"{verdict} is not in the group {wanted}", WHERE)
        request.state.who = str(verdict)
        return None

    def _knows(self, identity: Identity) -> bool:
        return identity.user != "" and self._chain.asks(CERTIFICATE)

    def _groups_of(self, principal: Principal) -> frozenset[str]:
        if principal.way != CERTIFICATE:
            return principal.groups
        user = self._users.find(principal.user)
        return user.groups if user is not None and user.is_enabled else frozenset()


def shown_in(request: Request, identity: Identity) -> Shown | Refusal:
    """Return what a request shows of who sends it, or its refusal [RFC 7617, RFC 6750]."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Shown(identity, "", None, value.strip().encode())
    if scheme.lower() != "basic":
        return Refusal(401, "a user name and a password are wanted, or a token", WHERE, ASKED)
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
        if colon:
            return Shown(identity, "", user.decode(), password)
    except (binascii.Error, UnicodeDecodeError):
        return Refusal(400, "it is no user name and password in base64", WHERE)
    return Refusal(400, "it has no colon between user name and password", WHERE)


def same_site(request: Request) -> Refusal | None:
    """Refuse a page of another site, for which a browser would ask."""
    origin = request.headers.get("origin")
    if origin is None or origin.partition("://")[2] == request.headers.get("host"):
        return None
    return Refusal(403, f"pages of {origin} may not ask", "header Origin")


def is_loopback(host: str) -> bool:
    """Whether a host and its port, as a URL has them, are this machine whoever looks it up."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
