"""Who is at the other end of a connection, as far as its transport knows before any CONNECT."""

from __future__ import annotations


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
