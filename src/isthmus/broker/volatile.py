"""Messages that are never in the durable log: what the server says of itself, and bridges say.

They go the way of every message: an open batch, a ticket, the subscribers, places in the log
for what has to wait. But their partition is in memory alone and keeps its newest megabytes, so
what waits longer, or until after a restart, is dropped and counted. Kafka clients do not see
them.

What is retained among them is kept beside the partition, because its place there does not
last; it is said again for each new subscriber, to that one alone. It is gone with the server.

Clients may say one thing here: a bridge how it is, as Mosquitto's do, at `BRIDGE_STATE`, when
it connects and by its will.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.broker.mapping import headers_of, retained_terms
from isthmus.broker.publishing import Destination, OpenBatch
from isthmus.broker.retained import size_of
from isthmus.broker.subscriptions import encode_identifier
from isthmus.errors import NotAuthorized, RetainedFull
from isthmus.record.batch import BatchBuilder
from isthmus.topics.filter import filter_matches
from isthmus.topics.names import TopicNames

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.broker.mapping import Headers
    from isthmus.broker.subscriptions import Subscription
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.session import Session
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

VOLATILE_LOG_TOPIC: Final = "__mqtt_volatile"
BRIDGE_STATE: Final = "$SYS/broker/connection/+/state"
BYTES_MAX: Final = 16 << 20  # that the partition keeps
RETAINED_MAX: Final = 10_000
RETAINED_BYTES_MAX: Final = 16 << 20
NAMES_MAX: Final = 64  # whose destinations are kept at one time; then all are forgotten


class Kept(NamedTuple):
    """A retained message, as the record that it is whenever it is said again."""

    topic_name: bytes
    payload: bytes
    headers: Headers
    size: int
    qos: int
    expires_ms: int  # 0: never


class Volatile:
    """The partition of these messages, and what is retained of them."""

    def __init__(self, runtime: Runtime, log: Log) -> None:
        """`log` is in memory, and holds nothing else."""
        self._runtime = runtime
        self._log = log
        configs = {"retention.bytes": str(BYTES_MAX), "max.message.bytes": "300000000"}
        self.partition = log.create(VOLATILE_LOG_TOPIC, 1, configs).partitions[0]
        self._open_batch = OpenBatch(self.partition)
        self._destinations: dict[bytes, Destination] = {}
        self._retained = TopicNames()
        self._retained_bytes = 0

    def __len__(self) -> int:
        """How many messages are retained."""
        return len(self._retained)

    def destination(self, topic_name: bytes) -> Destination:
        """Return where messages of a topic name go."""
        destination = self._destinations.get(topic_name)
        if destination is None:
            if len(self._destinations) >= NAMES_MAX:
                self._destinations.clear()
            destination = Destination(topic_name, topic_name, None, self._open_batch)
            self._destinations[topic_name] = destination
        return destination

    def receive(self, _session: Session | None, publish: Publish) -> Destination:
        """Take what a client publishes under `$SYS`.

        Raises NotAuthorized, but for a bridge's state; RetainedFull, where it asks for more to
        be retained than there is room for.
        """
        if not filter_matches(BRIDGE_STATE, publish.topic.decode()):
            raise NotAuthorized("topic names below $SYS are the server's own")
        if publish.retain and publish.payload and self._exceeds(self._record(publish)):
            raise RetainedFull("there is no room for more states of bridges")
        return self.take(publish)

    def take(self, publish: Publish) -> Destination:
        """Return where a message goes; if it is retained, it takes the place of the last."""
        if publish.retain:
            kept = self._record(publish) if publish.payload else None  # [MQTT-3.3.1-6]
            self._retain(publish.topic, kept)
        return self.destination(publish.topic)

    def flush(self) -> None:
        """Make visible what was appended, and answer."""
        self._log.flush()

    # --- retained -----------------------------------------------------------------------------

    def _record(self, publish: Publish) -> Kept:
        headers = headers_of(publish, None, self._runtime.now_ms())
        size = size_of(publish.topic, publish.payload, headers)
        return Kept(publish.topic, publish.payload, headers, size, *retained_terms(headers))

    def _exceeds(self, kept: Kept) -> bool:
        before: Kept | None = self._retained.get(kept.topic_name)
        if before is None and len(self._retained) >= RETAINED_MAX:
            return True
        more = kept.size - (before.size if before else 0)
        return self._retained_bytes + more > RETAINED_BYTES_MAX

    def _retain(self, topic_name: bytes, kept: Kept | None) -> None:
        before: Kept | None
        if kept is None:
            before = self._retained.remove(topic_name)
        else:
            before = self._retained.set(topic_name, kept)
            self._retained_bytes += kept.size
        if before is not None:
            self._retained_bytes -= before.size

    def greet(self, subscriptions: Iterable[Subscription]) -> None:
        """Send new subscribers what is retained, as they have room."""
        for subscription in subscriptions:
            # No wildcard stands for a first level that begins with $ [MQTT-4.7.2-1].
            if subscription.topic_filter.startswith("$"):
                self._greet(subscription)

    def _greet(self, subscription: Subscription) -> None:
        now_ms = self._runtime.now_ms()
        walk = self._retained.walk(subscription.topic_filter)
        found: list[Kept] = []
        while not walk.is_done:
            found += walk.take(RETAINED_MAX, RETAINED_MAX)
        found = [one for one in found if not 0 < one.expires_ms <= now_ms]
        if not found:
            return
        builder = BatchBuilder()
        for one in found:
            builder.append(now_ms, one.topic_name, one.payload, one.headers)
        self.flush()  # so that the batch stands where the partition ends now
        offset = self.partition.end_offset
        self.partition.append(builder.seal(), None, trusted=True)
        self.flush()
        queue = subscription.session.queue
        identifiers = encode_identifier(subscription.identifier)
        for place, one in enumerate(found):
            qos = min(one.qos, subscription.qos)
            queue.push(self.partition, offset + place, qos, True, identifiers)
        subscription.session.changed = True
        subscription.session.drain()
