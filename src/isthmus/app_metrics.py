"""Every metric of the server, in one table: its name, what it says, and who has counted it.

A part of `app.py`: only here it is known who counts what. The names are as Prometheus has them
(base units, `_total` for what only grows); labels have few values, and never those that clients
choose, but for names of log topics and groups, of which `NAMED_MAX` are shown.
docs/reference/metrics.md is made from this table.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from isthmus import __version__
from isthmus.broker.survey import Waiting, survey
from isthmus.errors import StorageError
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.metrics import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from isthmus.broker.broker import Broker
    from isthmus.broker.clients import Clients
    from isthmus.metrics import Histogram, Values
    from isthmus.server.kafka_listener import KafkaListener
    from isthmus.server.kafka_shore import KafkaShore
    from isthmus.server.mqtt_listener import MqttListener, MqttShore
    from isthmus.server.tls import Certificates
    from isthmus.storage.log import Log
    from isthmus.storage.measures import LogMeasures

NAMED_MAX: Final = 1_000  # log topics, and places of groups, that have values of their own
QOS: Final = (("0",), ("1",), ("2",))


class Counted(NamedTuple):
    """Who has counted, at one moment."""

    broker: Broker
    mqtt: MqttShore
    kafka: KafkaShore
    log: Log
    measures: LogMeasures
    waiting: Waiting
    certificates: Sequence[Certificates]

    @property
    def clients(self) -> Clients:
        """The clients of MQTT."""
        return self.mqtt.clients


def look(
    broker: Broker,
    mqtt: MqttShore,
    kafka: KafkaShore,
    certificates: Sequence[Certificates],
    done: Callable[[Counted], object],
) -> None:
    """Give `done` all that there is to collect from, perhaps within this call."""

    def looked(waiting: Waiting) -> None:
        log = broker.log
        done(Counted(broker, mqtt, kafka, log, log.measures(), waiting, certificates))

    survey(broker.runtime, mqtt.clients.sessions, looked)


# --- what takes more than a word to collect ---------------------------------------------------


def by_listener(
    listeners: Iterable[MqttListener | KafkaListener], attribute: str
) -> dict[tuple[str, ...], int]:
    """Return a count of each listener's admission."""
    return {(each.name,): getattr(each.admission, attribute) for each in listeners}


def refusals(
    listeners: Iterable[MqttListener | KafkaListener],
) -> dict[tuple[str, ...], int]:
    """Return why connections were refused, by listener and error."""
    return {
        (each.name, reason): count
        for each in listeners
        for reason, count in each.admission.refusals.items()
    }


def expiries(counted: Counted) -> dict[tuple[str, ...], int]:
    """Return until when certificates and lists of revoked ones are good."""
    return {
        (each.listener, setting): life.end_s
        for each in counted.certificates
        for setting, life in each.ends.items()
    }


def sessions(counted: Counted) -> dict[tuple[str, ...], int]:
    """Return how many sessions have a connection, and how many have none."""
    table = counted.clients.sessions
    away = len(table.entries) - table.connected
    return {("connected",): table.connected, ("away",): away}


def shared_members(counted: Counted) -> int:
    """Return how many subscriptions are members of a shared one."""
    groups = counted.broker.subscriptions.groups
    return sum(len(group.members) for group in groups.values())


def blocked(counted: Counted) -> dict[tuple[str, ...], int]:
    """Return how often the guard has found that something was too much."""
    guard = counted.clients.guard
    return {("flapping",): guard.flapping.blocked, ("failures",): guard.failures.blocked}


def bans(counted: Counted) -> Counter[tuple[str, ...]]:
    """Return how many bans there are, by what they are about."""
    return Counter((ban.kind,) for ban in counted.clients.guard.bans)


def partitions(log: Log) -> Iterator[Any]:
    """List all partitions."""
    return (each for topic in log.topics.values() for each in topic.partitions)


def by_log_topic(counted: Counted, attribute: str) -> dict[tuple[str, ...], int]:
    """Return what partitions say of themselves, by log topic."""
    topics = sorted(counted.log.topics.items())
    return {
        (name,): sum(getattr(each, attribute) for each in topic.partitions)
        for name, topic in topics[:NAMED_MAX]
    }


def room(log: Log) -> int | None:
    """Return the bytes that are free where the log is kept; None: nobody can tell."""
    try:
        return log.volume()[1]
    except StorageError:
        return None


def free(counted: Counted) -> dict[tuple[str, ...], int]:
    """Return the same as a metric, which has no value where there is none."""
    bytes_free = room(counted.log)
    return {} if bytes_free is None else {(): bytes_free}


def requests(counted: Counted) -> dict[tuple[str, ...], Histogram]:
    """Return how long Kafka requests took, by their name."""
    taken = counted.kafka.counts.seconds
    return {(ApiKey(key).name.lower(),): each for key, each in sorted(taken.items())}


def request_errors(counted: Counted) -> dict[tuple[str, ...], int]:
    """Return which errors Kafka clients were told."""
    return {
        (ApiKey(key).name.lower(), ErrorCode(code).name.lower()): count
        for (key, code), count in sorted(counted.kafka.counts.errors.items())
    }


def groups(counted: Counted) -> Counter[tuple[str, ...]]:
    """Return how many consumer groups there are, by their state."""
    states = counted.kafka.groups.states.values()
    return Counter((each.group.state.name.lower(),) for each in states)


def lags(counted: Counted) -> dict[tuple[str, ...], int]:
    """Return how far groups are behind the log, by group and log topic."""
    behind: Counter[tuple[str, ...]] = Counter()
    for (group, log_topic, index), offset in islice(committed(counted), NAMED_MAX):
        partition = counted.log.partition(log_topic, index)
        if partition is not None:
            behind[group, log_topic] += max(0, partition.end_offset - offset)
    return behind


def committed(counted: Counted) -> Iterator[tuple[tuple[str, str, int], int]]:
    """List the offsets that groups have committed."""
    for group, state in counted.kafka.groups.states.items():
        for (log_topic, index), offset in state.offsets.items():
            yield (group, log_topic, index), offset.offset


# --- the table --------------------------------------------------------------------------------


def counter(name: str, says: str, collect: Callable[[Counted], Values], *labels: str) -> Metric:
    """Declare what only grows."""
    return Metric(f"isthmus_{name}_total", "counter", says, collect, labels)


def gauge(name: str, says: str, collect: Callable[[Counted], Values], *labels: str) -> Metric:
    """Declare what goes up and down."""
    return Metric(f"isthmus_{name}", "gauge", says, collect, labels)


def histogram(
    name: str, says: str, collect: Callable[[Counted], Values], *labels: str
) -> Metric:
    """Declare how large something was, how often."""
    return Metric(f"isthmus_{name}", "histogram", says, collect, labels)


METRICS: Final = (
    gauge("build_info", "Always 1.", lambda _: {(__version__,): 1}, "version"),
    histogram(
        "loop_held_seconds",
        "How long everybody waited for one turn of the loop, looked at 20 times a second.",
        lambda c: c.mqtt.loop.held,
    ),
    gauge(
        "tls_expiry_timestamp_seconds",
        "Until when what is in a listener's files is good: that which is over first.",
        expiries,
        *("listener", "setting"),
    ),
    # --- MQTT ---------------------------------------------------------------------------------
    gauge(
        "mqtt_connections",
        "Connections let in, or on their way.",
        lambda c: by_listener(c.mqtt.listeners, "connections"),
        "listener",
    ),
    gauge(
        "mqtt_connections_opening",
        "Connections whose clients are not let in yet, or will be refused.",
        lambda c: by_listener(c.mqtt.listeners, "opening"),
        "listener",
    ),
    counter("mqtt_connections_accepted", "Connections begun.", lambda c: c.mqtt.accepted),
    counter(
        "mqtt_connections_refused",
        "Connections whose clients were not let in, by the error.",
        lambda c: refusals(c.mqtt.listeners),
        *("listener", "error"),
    ),
    counter(
        "mqtt_connections_closed",
        "Connections that the server has ended, by the error.",
        lambda c: {(error,): count for error, count in c.mqtt.closings.items()},
        "error",
    ),
    counter("mqtt_connects", "CONNECT packets.", lambda c: c.mqtt.traffic.connects),
    counter(
        "mqtt_received_bytes",
        "Bytes from clients, without those of TLS and WebSocket.",
        lambda c: c.mqtt.traffic.bytes_received,
    ),
    counter(
        "mqtt_sent_bytes",
        "Bytes to clients, without those of TLS and WebSocket.",
        lambda c: c.mqtt.traffic.bytes_sent,
    ),
    counter(
        "mqtt_packets_received",
        "Packets of all types from clients.",
        lambda c: c.mqtt.traffic.packets_received,
    ),
    counter(
        "mqtt_packets_sent",
        "Packets of all types to clients.",
        lambda c: c.mqtt.traffic.packets_sent,
    ),
    counter(
        "mqtt_messages_received",
        "PUBLISH packets from clients, by their QoS.",
        lambda c: dict(zip(QOS, c.mqtt.traffic.received_by_qos(), strict=True)),
        "qos",
    ),
    counter(
        "mqtt_messages_sent",
        "PUBLISH packets to clients, by their QoS.",
        lambda c: dict(zip(QOS, c.mqtt.traffic.sent_by_qos(), strict=True)),
        "qos",
    ),
    counter(
        "mqtt_payload_received_bytes",
        "Payloads of these from clients.",
        lambda c: c.mqtt.traffic.publish_bytes_received,
    ),
    counter(
        "mqtt_payload_sent_bytes",
        "Payloads of these to clients.",
        lambda c: c.mqtt.traffic.publish_bytes_sent,
    ),
    counter(
        "mqtt_deliveries_dropped",
        "Deliveries that were given up, by the reason.",
        lambda c: {(why,): n for why, n in c.mqtt.traffic.drops.by_reason().items()},
        "reason",
    ),
    counter(
        "mqtt_messages_lost",
        "Messages not stored, of which nobody was told: QoS 0, wills, before MQTT 5.",
        lambda c: c.broker.lost,
    ),
    counter(
        "mqtt_records_undeliverable",
        "Records of Kafka clients whose key is no topic name.",
        lambda c: c.broker.undeliverable,
    ),
    counter(
        "mqtt_reads_held",
        "Times that a client was read from later, because of a rate.",
        lambda c: c.mqtt.held,
    ),
    gauge("mqtt_sessions", "Sessions, by whether they are connected.", sessions, "state"),
    counter(
        "mqtt_sessions_expired",
        "Sessions whose time was over.",
        lambda c: c.clients.sessions.expired,
    ),
    gauge(
        "mqtt_subscriptions",
        "Subscriptions, but for shared ones.",
        lambda c: len(c.broker.subscriptions.tree) - len(c.broker.subscriptions.groups),
    ),
    gauge("mqtt_shared_subscriptions", "Members of shared subscriptions.", shared_members),
    gauge(
        "mqtt_deliveries_queued",
        "Deliveries that wait for sessions, in the log.",
        lambda c: c.waiting.queued,
    ),
    gauge(
        "mqtt_deliveries_in_flight",
        "Deliveries at QoS 1 and 2 that are not acknowledged.",
        lambda c: c.waiting.in_flight,
    ),
    gauge("mqtt_retained_messages", "Messages retained.", lambda c: len(c.broker.retained)),
    gauge(
        "mqtt_retained_bytes",
        "Topic names, payloads and properties of these.",
        lambda c: c.broker.retained.size_bytes,
    ),
    counter(
        "mqtt_retained_refused",
        "Messages not retained: beyond a limit, or the log did not take them.",
        lambda c: c.broker.retained.refused,
    ),
    counter(
        "mqtt_retained_expired",
        "Retained messages whose time was over.",
        lambda c: c.broker.retained.expired,
    ),
    gauge(
        "mqtt_delayed_messages",
        "Messages that wait for their moment.",
        lambda c: len(c.broker.delayed),
    ),
    gauge(
        "mqtt_delayed_bytes",
        "Topic names, payloads and properties of these.",
        lambda c: c.broker.delayed.size_bytes,
    ),
    gauge(
        "mqtt_slow_consumers",
        "Connected clients that took nothing of what waited for them, at the last look.",
        lambda c: c.mqtt.slow_consumers.now,
    ),
    counter(
        "mqtt_slow_consumers_found",
        "Times that a client became one of these.",
        lambda c: c.mqtt.slow_consumers.total,
    ),
    counter(
        "blocked",
        "Times that somebody was kept out for a while: for connecting too often (`flapping`),"
        " for failing to authenticate (`failures`).",
        blocked,
        "why",
    ),
    gauge("bans", "Bans, by what they are about.", bans, "kind"),
    # --- Kafka --------------------------------------------------------------------------------
    gauge(
        "kafka_connections",
        "Connections.",
        lambda c: by_listener(c.kafka.listeners, "connections"),
        "listener",
    ),
    counter("kafka_connections_accepted", "Connections begun.", lambda c: c.kafka.accepted),
    counter(
        "kafka_connections_refused",
        "Connections whose clients were not let in, by the error.",
        lambda c: refusals(c.kafka.listeners),
        *("listener", "error"),
    ),
    counter(
        "kafka_received_bytes",
        "Bytes from clients, without those of TLS.",
        lambda c: c.kafka.counts.received_bytes,
    ),
    counter(
        "kafka_sent_bytes",
        "Bytes to clients, without those of TLS.",
        lambda c: c.kafka.counts.sent_bytes,
    ),
    gauge(
        "kafka_unsent_bytes",
        "Bytes of responses to clients that are slow to take them.",
        lambda c: c.kafka.unsent_bytes,
    ),
    histogram(
        "kafka_request_seconds",
        "How long requests took until their answer; what a Fetch waited for records counts.",
        requests,
        "request",
    ),
    counter(
        "kafka_request_errors",
        "Errors in answers, by request: of the request, or of each of its parts.",
        request_errors,
        *("request", "error"),
    ),
    counter(
        "kafka_throttled",
        "Times that a client had to wait, by the quota that it was beyond.",
        lambda c: {(key,): count for key, count in c.kafka.throttling.waits.items()},
        "quota",
    ),
    counter(
        "kafka_throttled_seconds",
        "How long these were to wait.",
        lambda c: {(key,): ms / 1000 for key, ms in c.kafka.throttling.waited_ms.items()},
        "quota",
    ),
    gauge("kafka_groups", "Consumer groups, by their state.", groups, "state"),
    gauge(
        "kafka_group_lag_records",
        "Records behind what groups have committed, for a thousand partitions at most.",
        lags,
        *("group", "log_topic"),
    ),
    # --- the log ------------------------------------------------------------------------------
    gauge("log_topics", "Log topics.", lambda c: len(c.log.topics)),
    gauge("log_partitions", "Partitions.", lambda c: sum(1 for _ in partitions(c.log))),
    gauge(
        "log_size_bytes",
        "Batches kept.",
        lambda c: sum(each.size_bytes for each in partitions(c.log)),
    ),
    gauge("log_free_bytes", "Bytes free where the log is kept; -1: unbounded.", free),
    gauge(
        "log_topic_size_bytes",
        "Batches kept, of the first thousand log topics by name.",
        partial(by_log_topic, attribute="size_bytes"),
        "log_topic",
    ),
    counter(
        "log_topic_offsets",
        "End offsets of all partitions together, of the first thousand log topics by name.",
        partial(by_log_topic, attribute="end_offset"),
        "log_topic",
    ),
    gauge(
        "log_backlog_bytes",
        "Published over MQTT and not durable yet.",
        lambda c: c.broker.backlog_bytes,
    ),
    gauge(
        "log_refusing",
        "1 while the log takes no records: a full disk, or one that has failed.",
        lambda c: int(c.log.trouble is not None),
    ),
    counter("log_written_bytes", "Batches written.", lambda c: c.measures.written_bytes),
    counter(
        "log_journal_written_bytes",
        "Copies of batches written to the journal.",
        lambda c: c.measures.journal_bytes,
    ),
    counter(
        "log_writes_refused",
        "Writes that the disk did not take.",
        lambda c: c.measures.refused_writes,
    ),
    histogram(
        "log_sync_seconds",
        "How long rounds of syncing took.",
        lambda c: c.measures.syncs or {},
    ),
    counter(
        "log_syncs_failed", "Rounds of syncing that failed.", lambda c: c.measures.failed_syncs
    ),
    gauge(
        "log_unchecked_bytes",
        "What a start after a crash would have to check.",
        lambda c: c.measures.unchecked_bytes,
    ),
    counter(
        "log_disk_reads",
        "Reads of records that were not in memory.",
        lambda c: c.measures.disk_reads,
    ),
    counter("log_disk_read_bytes", "Their bytes.", lambda c: c.measures.disk_read_bytes),
    counter("log_compactions", "Partitions compacted.", lambda c: c.measures.compactions),
    counter(
        "log_compaction_read_bytes",
        "Size of what was compacted, before.",
        lambda c: c.measures.compaction_read_bytes,
    ),
    counter(
        "log_compaction_kept_bytes",
        "Size of what was compacted, after.",
        lambda c: c.measures.compaction_kept_bytes,
    ),
)
