"""What a load has found out: figures, and whether every message is accounted for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from isthmus.load.kafka import KafkaPlan
    from isthmus.load.latencies import Latencies
    from isthmus.load.plan import MqttPlan
    from isthmus.load.totals import Totals

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
BUSY: Final = 0.9
NOT_OF_A_LOAD: Final = frozenset({"address", "log_topic", "duration_s", "quiet_s"})


class Report(Protocol):
    """The account of any load."""

    @property
    def is_good(self) -> bool:
        """Whether every message is accounted for."""

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""

    def warnings(self) -> list[str]:
        """Return what one has to know before believing the figures."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What happened in the measured time; `cpu_s` is the load's own."""

    seconds: float = 0.0
    published: int = 0
    acknowledged: int = 0
    delivered: int = 0
    cpu_s: float = 0.0

    def rates(self, messages: int, payload_bytes: int) -> dict[str, float]:
        """Return a count with its messages and payload bytes a second."""
        per_s = messages / self.seconds if self.seconds else 0.0
        return {
            "messages": messages,
            "messages_per_s": round(per_s, 1),
            "bytes_per_s": round(per_s * payload_bytes, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttReport:
    """The account of one load; counts of what went wrong are over all phases."""

    plan: MqttPlan
    measured: Measured
    totals: Totals
    unacknowledged: int
    opening_s: float
    disconnects: int
    reconnects: int
    opened: Latencies
    acknowledged: Latencies
    delivered: Latencies
    reader: str = ""  # who else gets every message
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Deliveries that never came."""
        return max(0, self.totals.expected - self.totals.delivered)

    @property
    def may_double(self) -> bool:
        """Whether MQTT allows that messages come twice: QoS 1, after a lost connection."""
        return min(self.plan.qos, self.plan.qos_granted) == 1 and self.disconnects > 0

    @property
    def is_good(self) -> bool:
        """Whether every message is accounted for as its QoS promises, without any error."""
        totals = self.totals
        wrong = self.lost + totals.corrupted + totals.strange + totals.refused
        wrong += self.unacknowledged + (0 if self.may_double else totals.doubled)
        did_publish = totals.published > 0 or not self.plan.publishers
        return did_publish and not wrong and not self.errors

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        plan, measured, size = self.plan, self.measured, self.plan.payload_bytes
        connections = self.opened.count - self.reconnects
        is_read = plan.subscribers or self.reader
        return {
            "server": " to ".join(filter(None, (str(plan.address), self.reader))),
            "load": described(plan),
            "seconds": round(measured.seconds, 6),
            "published": measured.rates(measured.published, size),
            "acknowledged": measured.rates(measured.acknowledged, size) if plan.qos else None,
            "delivered": measured.rates(measured.delivered, size) if is_read else None,
            "latency_ms": {
                "acknowledgement": percentiles_ms(self.acknowledged),
                "delivery": percentiles_ms(self.delivered),
                "connect": percentiles_ms(self.opened),
            },
            "connections": {
                "connections": connections,
                "connections_per_s": round(connections / (self.opening_s or 1), 1),
                "disconnects": self.disconnects,
                "reconnects": self.reconnects,
            },
            "all_phases": {
                "published": self.totals.published,
                "expected_deliveries": self.totals.expected,
                "lost": self.lost,
                "doubled": self.totals.doubled,
                "corrupted": self.totals.corrupted,
                "unacknowledged": self.unacknowledged,
                "refused": self.totals.refused,
                "strange_packets": self.totals.strange,
                "foreign_messages": self.totals.foreign,
            },
            "errors": self.errors,
            "load_cpu_share": round(self.load_share, 3),
            "good": self.is_good,
        }

    @property
    def load_share(self) -> float:
        """How much of one core the load itself took while it measured."""
        return self.measured.cpu_s / self.measured.seconds if self.measured.seconds else 0.0

    @property
    def _rests(self) -> bool:
        """Whether the load rests where it has nothing to do, so that its CPU says something."""
        plan = self.plan
        return plan.publishers > 0 and not plan.spin and not plan.rate and not plan.count

    def warnings(self) -> list[str]:
        """Return what one has to know before believing the figures."""
        found = []
        if self.load_share > BUSY and self._rests:
            found.append(
                f"the load itself took {self.load_share:.0%} of a core: it may be what was"
                " measured, and not the server"
            )
        return found + late_warning(self.plan, self.measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaReport:
    """The account of one load of Kafka clients."""

    server: str
    plan: KafkaPlan
    measured: Measured
    totals: Totals
    unacknowledged: int
    acknowledged: Latencies
    delivered: Latencies
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Records that no consumer has seen."""
        return max(0, self.totals.expected - self.totals.delivered)

    @property
    def is_good(self) -> bool:
        """Whether every record is acknowledged and has been consumed, once."""
        totals = self.totals
        wrong = self.lost + totals.doubled + totals.corrupted + self.unacknowledged
        return totals.published > 0 and not wrong and not self.errors

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON has it."""
        plan, measured, size = self.plan, self.measured, self.plan.payload_bytes
        settings = {
            name: getattr(plan, name) for name in plan.__slots__ if name not in NOT_OF_A_LOAD
        }
        return {
            "server": self.server,
            "load": {"loop": "open" if plan.rate else "closed", **settings},
            "seconds": round(measured.seconds, 6),
            "produced": measured.rates(measured.published, size),
            "acknowledged": measured.rates(measured.acknowledged, size),
            "consumed": measured.rates(measured.delivered, size) if plan.consumers else None,
            "latency_ms": {
                "acknowledgement": percentiles_ms(self.acknowledged),
                "consumption": percentiles_ms(self.delivered),
            },
            "all_phases": {
                "published": self.totals.published,
                "lost": self.lost,
                "doubled": self.totals.doubled,
                "corrupted": self.totals.corrupted,
                "unacknowledged": self.unacknowledged,
                "refused": self.totals.refused,
                "foreign_messages": self.totals.foreign,
            },
            "errors": self.errors,
            "load_cpu_share": round(self.measured.cpu_s / (self.measured.seconds or 1), 3),
            "good": self.is_good,
        }

    def warnings(self) -> list[str]:
        """Return what one has to know before believing the figures."""
        return late_warning(self.plan, self.measured)


def late_warning(plan: MqttPlan | KafkaPlan, measured: Measured) -> list[str]:
    """Return a sentence where an open loop has not kept its rate."""
    if not plan.rate or plan.count or not measured.seconds:
        return []
    reached = measured.published / measured.seconds
    if reached >= 0.98 * plan.rate:
        return []
    return [
        f"{reached:,.0f} messages a second were published, {plan.rate:,.0f} were due: the"
        " latencies are those of a queue that grows"
    ]


def described(plan: MqttPlan) -> dict[str, Any]:
    """Return what was asked for."""
    return {
        "loop": "open" if plan.rate else "closed",
        "rate": plan.rate or None,
        "window": None if plan.rate and not plan.qos else plan.window_size,
        "mqtt": {3: "3.1", 4: "3.1.1", 5: "5.0"}[plan.version],
        "publishers": plan.publishers,
        "subscribers": plan.subscribers,
        "idle": plan.idle,
        "topic": plan.topic,
        "topics": plan.topics,
        "filters": plan.filters_of(0) if plan.subscribers else [],
        "qos": plan.qos,
        "subscriber_qos": plan.qos_granted,
        "retain": plan.retain,
        "persistent": plan.persistent,
        "payload_bytes": plan.payload_bytes,
        "warm_up_s": plan.warm_up_s,
    }


def percentiles_ms(latencies: Latencies) -> dict[str, float] | None:
    """Return the percentiles in milliseconds, None where nothing was measured."""
    if not latencies.count:
        return None
    return {
        name: round(latencies.percentile_ns(percent) / 1e6, 4)
        for name, percent in PERCENTILES.items()
    }
