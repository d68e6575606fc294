"""`$SYS/#`: what the server counts, by the names and in the forms that Mosquitto has for it.

Every few seconds all of it is looked at and what has changed is said, retained, so that whoever
subscribes later gets it at once. Nothing is counted here: totals come from one function, and
the means per minute (`load/…`) are made of how far those got on since the last time. What
Mosquitto has and this has not, or the other way round, is in docs/guide/operation.md.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.broker import Broker
    from isthmus.broker.clients import Clients
    from isthmus.runtime import Runtime

PREFIX: Final = "$SYS/broker/"
LOADS: Final = {  # name of a mean -> the total that it is made of
    "messages/received": "messages/received",
    "messages/sent": "messages/sent",
    "publish/dropped": "publish/messages/dropped",
    "publish/received": "publish/messages/received",
    "publish/sent": "publish/messages/sent",
    "bytes/received": "bytes/received",
    "bytes/sent": "bytes/sent",
    "sockets": "sockets",
    "connections": "connections",
}
UNSAID: Final = frozenset(("sockets", "connections"))  # totals that are only said as means
MINUTES: Final = (1, 5, 15)
MINUTE_MS: Final = 60_000


def totals_of(
    broker: Broker, clients: Clients, sockets: int, memory: tuple[int, int]
) -> dict[str, int]:
    """Return what is counted, by what follows `$SYS/broker/`.

    `sockets`: connections accepted so far; `memory`: bytes that the process has now, and the
    most that it ever had. The store is what is kept for those who come later, the retained
    messages: what waits for a session is in the log, as everything is.
    """
    sessions, traffic = clients.sessions, broker.traffic
    total, connected = len(sessions.entries), sessions.connected
    groups = broker.subscriptions.groups
    return {
        "clients/total": total,
        "clients/connected": connected,
        "clients/active": connected,
        "clients/disconnected": total - connected,
        "clients/inactive": total - connected,
        "clients/expired": sessions.expired,
        "messages/received": traffic.packets_received,
        "messages/sent": traffic.packets_sent,
        "messages/stored": len(broker.retained),
        "store/messages/count": len(broker.retained),
        "store/messages/bytes": broker.retained.size_bytes,
        "retained messages/count": len(broker.retained) + len(broker.volatile),
        "subscriptions/count": len(broker.subscriptions.tree) - len(groups),
        "shared_subscriptions/count": sum(len(group.members) for group in groups.values()),
        "publish/messages/received": traffic.publishes_received,
        "publish/messages/sent": traffic.publishes_sent,
        "publish/messages/dropped": traffic.drops.total + broker.lost,
        "publish/bytes/received": traffic.publish_bytes_received,
        "publish/bytes/sent": traffic.publish_bytes_sent,
        "bytes/received": traffic.bytes_received,
        "bytes/sent": traffic.bytes_sent,
        "heap/current": memory[0],
        "heap/maximum": memory[1],
        "sockets": sockets,
        "connections": traffic.connects,
    }


class Status:
    """Says what the server counts, from its start on."""

    def __init__(
        self,
        runtime: Runtime,
        say: Callable[[str, bytes], object],
        totals: Callable[[], Mapping[str, int]],
        *,
        version: str,
        interval_s: int,
    ) -> None:
        """Say it for the first time, and then every `interval_s` seconds.

        `say(topic name, payload)` makes it known, retained; `totals()` returns numbers by what
        follows `$SYS/broker/`, and always the same ones.
        """
        self._runtime = runtime
        self._say = say
        self._totals = totals
        self._interval_ms = interval_s * 1000
        self._began_ms = runtime.monotonic_ms()
        self._before_ms = self._began_ms
        self._before: Mapping[str, int] = totals()
        self._means = dict.fromkeys(((name, over) for name in LOADS for over in MINUTES), 0.0)
        self._clients_max = 0
        self._said: dict[str, str] = {}
        self._tell("version", f"isthmus version {version}")
        self._look()

    def _look(self) -> None:
        self._runtime.later(self._interval_ms, self._look)
        now_ms = self._runtime.monotonic_ms()
        totals = self._totals()
        self._tell("uptime", f"{(now_ms - self._began_ms) // 1000} seconds")
        for name, total in totals.items():
            if name not in UNSAID:
                self._tell(name, str(total))
        self._clients_max = max(self._clients_max, totals["clients/total"])
        self._tell("clients/maximum", str(self._clients_max))
        if now_ms > self._before_ms:
            self._go_on(totals, now_ms - self._before_ms)
        for (name, over), mean in self._means.items():
            self._tell(f"load/{name}/{over}min", f"{mean:.2f}")
        self._before, self._before_ms = totals, now_ms

    def _go_on(self, totals: Mapping[str, int], passed_ms: int) -> None:
        """Bring the means up to date: what was before counts less and less, as e^(-t)."""
        for (name, over), mean in self._means.items():
            gained = totals[LOADS[name]] - self._before[LOADS[name]]
            per_minute = gained * MINUTE_MS / passed_ms
            share = exp(-passed_ms / (over * MINUTE_MS))
            self._means[name, over] = per_minute + share * (mean - per_minute)

    def _tell(self, name: str, text: str) -> None:
        if self._said.get(name) != text:
            self._said[name] = text
            self._say(PREFIX + name, text.encode())
