"""Who is at the other end of a connection: what its transport knows, who it turns out to be.

`Identity` is there before any packet. A `Principal` is whom rules are asked about, the same for
every protocol: somebody was let in, under a name or without one. How names are found out is in
`broker/authentication.py`.
"""

from __future__ import annotations

from sys import intern
from typing import Final

from isthmus.topics.templates import filled

CERTIFICATE: Final = "certificate"  # the way of those whom a certificate or a key vouches for


class Identity:
    """Where a connection comes from, and through which listener.

    `address` is the client's IP address or `unix`, `port` its port (0: it has none), `listener`
    the name of the listener that took it. `user` is the name that a certificate vouches for;
    empty: the transport knows none.
    """

    __slots__ = ("address", "listener", "port", "user")

    def __init__(self, address: str, port: int, listener: str, user: str = "") -> None:
        self.address = address
        self.port = port
        self.listener = listener
        self.user = user

    def __str__(self) -> str:
        if not self.port:
            return self.address
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class Principal:
    """Somebody who does something. Never changed: who shows anew who it is gets another one.

    `user` is empty for somebody without a name (`is_anonymous`). `way` is how the name was
    found out, as listeners call it; `until_ms` when it does not hold any more, as a wall clock
    in milliseconds (0: it holds for good). `is_gone`: the user was removed or disabled since;
    nothing is sent to it any more.
    """

    __slots__ = (
        "address",
        "client_id",
        "groups",
        "is_gone",
        "listener",
        "until_ms",
        "user",
        "way",
    )

    def __init__(
        self,
        user: str,
        client_id: str,
        identity: Identity,
        *,
        groups: frozenset[str] = frozenset(),
        way: str = "",
        until_ms: int = 0,
        is_gone: bool = False,
    ) -> None:
        self.user = user
        self.groups = groups
        self.client_id = client_id
        self.address = intern(identity.address)  # many sessions at rest are of one gateway
        self.listener = intern(identity.listener)
        self.way = way
        self.until_ms = until_ms
        self.is_gone = is_gone

    @property
    def is_anonymous(self) -> bool:
        """Whether it has no name."""
        return not self.user

    @property
    def whom(self) -> tuple[str, frozenset[str], str, str]:
        """All that rules look at, beside the client id."""
        return self.user, self.groups, self.listener, self.address

    def but(self, *, groups: frozenset[str], is_gone: bool) -> Principal:
        """Return the same one, as what its user is now."""
        if groups == self.groups and is_gone == self.is_gone:
            return self
        return Principal(
            self.user,
            self.client_id,
            Identity(self.address, 0, self.listener),
            groups=groups,
            way=self.way,
            until_ms=self.until_ms,
            is_gone=is_gone,
        )

    def filled(self, template: str) -> str | None:
        """Return a topic filter with this one's names in it; None: it would be none of its."""
        return filled(template, user=self.user, client_id=self.client_id)

    def __str__(self) -> str:
        return self.user or "-"
