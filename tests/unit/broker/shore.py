"""A broker over the memory engine, with MQTT clients that are turned by hand."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.sim import SimRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.broker.automatic import AutomaticSubscription
    from isthmus.errors import IsthmusError, Redirected

from isthmus.broker.broker import Broker
from isthmus.broker.clients import Clients
from isthmus.broker.guard import Streaks
from isthmus.broker.identity import Identity
from isthmus.broker.routes import Route, RouteTable
from isthmus.broker.shared_strategies import STRATEGIES
from isthmus.broker.users import Users
from isthmus.mqtt.codec import Decoder
from isthmus.mqtt.handshake import Offer
from isthmus.mqtt.packets import Connack, Connect, Publish, Subscribe, Will
from isthmus.record.batch import BatchBuilder, Record, split_batches
from isthmus.record.markers import EndMarker, build_marker
from isthmus.storage.memory import MemoryLog


class Ticket:
    """A ticket that writes down what it is told."""

    wants_durable = True

    def __init__(self) -> None:
        self.told: list[Any] = []

    def written(self, base_offset: int) -> None:
        self.told.append(base_offset)

    def durable(self) -> None:
        self.told.append("durable")

    def failed(self, error: IsthmusError) -> None:
        self.told.append(type(error).__name__)


OFFER = Offer(
    session_expiry_max_s=1000,
    receive_maximum=100,
    inflight_max=100,
    packet_size_max=1 << 20,
    topic_alias_max=10,
    keep_alive_max_s=65535,
)


class Client:
    """One MQTT client and its connection."""

    offer = OFFER
    authenticate = None
    connected_at_ms = 0
    keep_alive_s = 0

    def __init__(self, shore: Shore, client_id: str, version: int, user: str = "") -> None:
        self.shore = shore
        self.client_id = client_id
        self.version = version
        self.identity = Identity("127.0.0.1", 5000, "tcp", user)
        self.entry: Any = None
        self.sent = bytearray()
        self.closed: IsthmusError | None = None

    # what the broker calls

    def transmit(self, data: bytes) -> None:
        self.sent += data

    def send_auth(self, packet: Any) -> None:
        raise AssertionError(f"{packet} to a client without a method")

    def opened(self, entry: Any, terms: Any) -> None:
        self.entry = entry
        self.connected_at_ms = self.shore.runtime.now_ms()
        self.keep_alive_s = terms.keep_alive_s

    def close(self, error: IsthmusError) -> None:
        self.closed = error

    # what the test calls

    def connect(
        self, *, clean_start: bool = True, will: Will | None = None, **properties: Any
    ) -> Connack:
        ids = {"expiry_s": 0x11, "receive_maximum": 0x21, "packet_size_max": 0x27}
        connect = Connect(
            self.version,
            self.client_id,
            clean_start,
            60,
            None,
            None,
            will,
            {ids[name]: value for name, value in properties.items()},
        )
        self.sent = bytearray()
        self.shore.clients.open(connect, self)
        self.shore.runtime.settle()
        packet, *rest = self.packets()
        assert isinstance(packet, Connack)
        self.after_connack = rest
        return packet

    def send(self, *packets: Any) -> bool:
        going_on = self.shore.clients.receive(self.entry, self, list(packets))
        self.shore.runtime.settle()
        return going_on

    def subscribe(self, topic_filter: str, options: int = 1, **properties: Any) -> None:
        self.send(Subscribe(9, [(topic_filter, options)], properties.get("properties")))

    def publish(self, topic_name: str, payload: bytes, qos: int = 0, **fields: Any) -> None:
        self.send(Publish(topic_name.encode(), payload, qos, **fields))

    def lose(self) -> None:
        self.shore.clients.lost(self.entry, self)
        self.shore.runtime.settle()

    def packets(self) -> list[Any]:
        decoder = Decoder(1 << 24, self.version)
        data, self.sent = bytes(self.sent), bytearray()
        packets = decoder.feed(data)
        assert decoder.error is None
        return packets

    def messages(self) -> list[tuple[str, bytes, int]]:
        return [
            (packet.topic.decode(), packet.payload, packet.qos)
            for packet in self.packets()
            if isinstance(packet, Publish)
        ]


class Shore:
    """A broker, its log, and the clients of a test."""

    def __init__(
        self,
        *routes: Route,
        log: Any = None,
        runtime: SimRuntime | None = None,
        output_max: int = 1 << 20,
        output_total_max: int = 1 << 30,
        now_ms: int = 1_700_000_000_000,
        redirected: Redirected | None = None,
        flapping: Streaks = Streaks(),  # noqa: B008  # never changed
        failures: Streaks = Streaks(),  # noqa: B008
        queue_length_max: int = 1000,
        queue_policy: str = "newest",
        queue_qos_0: bool = True,
        sessions_max: int = 1000,
        will_grace_s: int = 30,
        automatic: Sequence[AutomaticSubscription] = (),
        shared_strategy: str = "fair",
        has_users: bool = False,
        **of_broker: Any,
    ) -> None:
        """`of_broker`: what else the broker is given."""
        self.routes = routes
        self.settings: dict[str, Any] = {
            "queue_length_max": queue_length_max,
            "queue_policy": queue_policy,
            "will_grace_s": will_grace_s,
            "automatic": automatic,
            "shared_strategy": shared_strategy,
            "has_users": has_users,
            **of_broker,
        }
        self.runtime = runtime or SimRuntime(now_ms=now_ms)
        self.log = MemoryLog(self.runtime) if log is None else log
        self.broker = Broker(
            self.runtime,
            self.log,
            RouteTable(routes),
            MemoryLog(self.runtime),
            partitions_default=2,
            new_group=partial(STRATEGIES[shared_strategy], queue_max=queue_length_max),
            **of_broker,
        )
        self.users = Users(self.runtime, self.log, self.broker, 4096) if has_users else None
        self.clients = Clients(
            self.broker,
            queue_length_max=queue_length_max,
            queue_policy=queue_policy,
            queue_qos_0=queue_qos_0,
            sessions_max=sessions_max,
            output_bytes_max=output_max,
            output_total_bytes_max=output_total_max,
            subscriptions_max=10,
            will_grace_s=will_grace_s,
            redirected=redirected,
            flapping=flapping,
            failures=failures,
            automatic=automatic,
            users=self.users,
        )

    def crash(self) -> Shore:
        """Return the shore of the next start; what was not written is gone."""
        self.log.touched = []
        for topic in self.log.topics.values():
            for partition in topic.partitions:
                partition._queue, partition._queue_end = [], partition.end_offset
        return Shore(*self.routes, log=self.log, now_ms=self.runtime.now_ms(), **self.settings)

    def end(self) -> Shore:
        """Return the shore of the next start after an orderly end."""
        self.broker.turn()
        self.broker.session_log.checkpoint()
        return self.crash()

    def client(self, client_id: str = "c", version: int = 5, **connect: Any) -> Client:
        client = Client(self, client_id, version)
        client.connect(**connect)
        return client

    def records(self, log_topic: str) -> list[Record]:
        found: list[Record] = []
        for partition in self.log.topics[log_topic].partitions:
            for buffer in partition.read(0, 1 << 24).buffers:
                for batch in split_batches(buffer):
                    found += batch.records()
        return found

    def produce(
        self,
        log_topic: str,
        key: bytes | None,
        value: bytes,
        *,
        headers: Any = (),
        compression: int = 0,
        partition: int = 0,
    ) -> Ticket:
        builder = BatchBuilder()
        builder.append(self.runtime.now_ms(), key, value, headers)
        ticket = Ticket()
        target = self.log.topics[log_topic].partitions[partition]
        self.broker.append(target, builder.seal(compression), ticket)
        self.runtime.settle()
        return ticket


class Producer:
    """A transactional producer that writes below the sockets."""

    def __init__(self, shore: Shore, producer_id: int = 7) -> None:
        self.shore = shore
        self.producer_id = producer_id
        self.sequence = 0
        self.key = b"t"
        self.settles = True  # whether each call waits until all is done

    def write(self, *values: bytes, again: bool = False, retain: bool = False) -> Ticket:
        builder = BatchBuilder()
        headers = [("mqtt.retain", b"1")] if retain else ()
        for value in values:
            builder.append(self.shore.runtime.now_ms(), self.key, value, headers)
        sequence = self.sequence - len(values) if again else self.sequence
        self.sequence = sequence + len(values)
        batch = builder.seal(0, self.producer_id, 0, sequence, transactional=True)
        return self._append(batch)

    def end(self, *, commits: bool) -> Ticket:
        said = EndMarker(commits, coordinator_epoch=0)
        marker = build_marker(self.producer_id, 0, said, self.shore.runtime.now_ms())
        return self._append(marker, trusted=True)

    def _append(self, batch: object, *, trusted: bool = False) -> Ticket:
        ticket = Ticket()
        partition = self.shore.log.topics["mqtt"].partitions[0]
        self.shore.broker.append(partition, batch, ticket, trusted=trusted)
        if self.settles:
            self.shore.runtime.settle()
        return ticket
