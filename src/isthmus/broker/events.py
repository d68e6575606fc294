"""`$events/clients/<client id>/…`: what becomes of clients, told to whoever subscribes to it.

One JSON object for each: `connected`, `disconnected`, `subscribed`, `unsubscribed`; never one
for a message. They are not retained and not in the log, and where nobody has subscribed to them
they are not even made. The form is in docs/guide/operation.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from isthmus.mqtt.reasons import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.broker.identity import Identity
    from isthmus.broker.sessions import Connection, SessionEntry
    from isthmus.runtime import Runtime

PREFIX: Final = "$events/clients/"
VERSIONS: Final = {3: "3.1", 4: "3.1.1", 5: "5.0"}
FILTERS_MAX: Final = 100  # of one SUBSCRIBE or UNSUBSCRIBE that are named
LEVEL_CHARACTERS_MAX: Final = 4_000  # of a client id in a topic name, which has its own limit
ESCAPED: Final = str.maketrans({character: f"%{ord(character):02X}" for character in "%/+#"})


class Events:
    """Says what becomes of clients."""

    def __init__(
        self,
        runtime: Runtime,
        say: Callable[[str, bytes], object],
        is_wanted: Callable[[str], bool],
    ) -> None:
        """`say(topic name, payload)` tells it; `is_wanted(topic name)`: somebody listens."""
        self._runtime = runtime
        self._say = say
        self._is_wanted = is_wanted

    def connected(self, entry: SessionEntry, connection: Connection, *, present: bool) -> None:
        """A client was let in; `present`: its session was there before."""
        self._tell(
            "connected",
            entry,
            connection.identity,
            protocol=VERSIONS[entry.session.version],
            keep_alive_s=connection.keep_alive_s,
            session_present=present,
            session_expiry_s=entry.expiry_s,
        )

    def disconnected(
        self, entry: SessionEntry, connection: Connection, code: int | None
    ) -> None:
        """A client is gone: by a DISCONNECT with this code, be it its own or ours, or not."""
        self._tell(
            "disconnected",
            entry,
            connection.identity,
            reason_code=code,
            reason=reason_of_end(code),
            connected_at_ms=connection.connected_at_ms,
        )

    def subscribed(
        self, entry: SessionEntry, connection: Connection, granted: Sequence[tuple[str, int]]
    ) -> None:
        """A client has subscribed to these topic filters, at these QoS."""
        self._tell(
            "subscribed",
            entry,
            connection.identity,
            count=len(granted),
            filters=[
                {"topic_filter": topic_filter, "qos": qos}
                for topic_filter, qos in granted[:FILTERS_MAX]
            ],
        )

    def unsubscribed(
        self, entry: SessionEntry, connection: Connection, filters: Sequence[str]
    ) -> None:
        """A client has these subscriptions no more."""
        self._tell(
            "unsubscribed",
            entry,
            connection.identity,
            count=len(filters),
            filters=[{"topic_filter": topic_filter} for topic_filter in filters[:FILTERS_MAX]],
        )

    def _tell(self, event: str, entry: SessionEntry, identity: Identity, **more: Any) -> None:
        client_id = entry.session.client_id
        topic_name = topic_name_of(client_id, event)
        if not self._is_wanted(topic_name):
            return
        said = {
            "event": event,
            "at_ms": self._runtime.now_ms(),
            "client_id": client_id,
            "user": entry.principal.user,
            "address": identity.address,
            "port": identity.port,
            "listener": identity.listener,
            **more,
        }
        self._say(topic_name, msgspec.json.encode(said))


def reason_of_end(code: int | None) -> str:
    """Return why a connection has ended, in words."""
    if code is None:
        return "connection lost"
    return "normal disconnection (0x00)" if code == 0 else name_of(code)


def topic_name_of(client_id: str, event: str) -> str:
    """Return where an event is told; what would not be part of a level is percent-encoded.

    So is `%`, so that no two clients share a topic name; but for those of some thousand
    characters, which are cut off.
    """
    level = client_id.translate(ESCAPED)[:LEVEL_CHARACTERS_MAX]
    return f"{PREFIX}{level}/{event}"
