"""How the server is, in a few numbers: what `isthmus status` prints.

A part of `app.py`, as `app_metrics.py` is: only here it is known who counts what. Whoever wants
all numbers, and how they change, reads the metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus import __version__
from isthmus.app_metrics import partitions, room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.broker import Broker
    from isthmus.server.kafka_listener import KafkaListener
    from isthmus.server.kafka_shore import KafkaShore
    from isthmus.server.mqtt_listener import MqttListener, MqttShore


class Overview:
    """The server, seen from outside."""

    def __init__(
        self,
        broker: Broker,
        mqtt: MqttShore,
        kafka: KafkaShore,
        unready: Callable[[], str | None],
    ) -> None:
        """Its time runs from now on; `unready` says why it should get no traffic, if so."""
        self._broker = broker
        self._mqtt = mqtt
        self._kafka = kafka
        self._unready = unready
        self._began_ms = broker.runtime.monotonic_ms()

    def look(self) -> dict[str, Any]:
        """Return what there is to say, by name."""
        broker, mqtt, kafka = self._broker, self._mqtt, self._kafka
        clients, log = mqtt.clients, broker.log
        guard, loop = clients.guard, mqtt.loop
        unready = self._unready()
        return {
            "version": __version__,
            "uptime_s": (broker.runtime.monotonic_ms() - self._began_ms) // 1000,
            "ready": unready is None,
            "not_ready_because": unready,
            "mqtt_connections": mqtt.total.now,
            "mqtt_connections_refused": refused(mqtt.listeners),
            "sessions": len(clients.sessions.entries),
            "subscriptions": len(broker.subscriptions.tree),
            "retained_messages": len(broker.retained),
            "delayed_messages": len(broker.delayed),
            "deliveries_dropped": mqtt.traffic.drops.total,
            "slow_consumers": mqtt.slow_consumers.now,
            "slow_consumers_found": mqtt.slow_consumers.total,
            "kafka_connections": kafka.total.now,
            "kafka_connections_refused": refused(kafka.listeners),
            "consumer_groups": len(kafka.groups.states),
            "bans": len(guard.bans),
            "blocked_for_flapping": guard.flapping.blocked,
            "blocked_for_failures": guard.failures.blocked,
            "loop_long_holds": loop.long_holds,
            "loop_longest_hold_ms": loop.longest_ms,
            "log_topics": len(log.topics),
            "partitions": sum(1 for _ in partitions(log)),
            "log_bytes": sum(each.size_bytes for each in partitions(log)),
            "log_free_bytes": room(log),
        }


def refused(listeners: Iterable[MqttListener | KafkaListener]) -> int:
    """Return how many connections were refused, for whatever reason."""
    return sum(each.admission.refusals.total() for each in listeners)
