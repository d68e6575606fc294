"""Kafka clients for commands: librdkafka, silent, and with one sentence when it gives up.

librdkafka tries for ever; a command should not. So each client is asked for the cluster first,
and when every connection is down later on, that ends the command. Its own log lines are off.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import click
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, but not said so
    AdminClient,
    ConfigResource,
    ConfigSource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from isthmus.cli.log_dirs import sizes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from confluent_kafka import Message
    from confluent_kafka.admin import (  # type: ignore[attr-defined]  # as above
        ClusterMetadata,
        TopicMetadata,
    )

    from isthmus.cli.kafka_login import KafkaServer

ANSWER_S_MAX: Final = 10.0
REFUSED_S_MAX: Final = 1.0
TURN_S: Final = 0.2
UNREACHABLE: Final = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT}
)
REFUSING: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})


class KafkaShore:
    """What all clients share: where the server is, and what becomes of errors."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        self.address = server.address.authority
        self._failure: KafkaError | None = None

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return librdkafka's configuration for one client."""
        return {
            **self.server.settings(),
            "client.id": "isthmus",
            "log_level": 0,
            "error_cb": self._on_error,
            "socket.connection.setup.timeout.ms": 5_000,
            **more,
        }

    def metadata(self, client: Any, log_topic: str | None = None) -> ClusterMetadata:
        """Ask for the log topics; the first thing that each command does.

        Gives up after ANSWER_S_MAX, or sooner where nothing listens; but not at the first
        refusal, because a host name may stand for more than one address.
        """
        start = time.monotonic()
        while True:
            try:
                found: ClusterMetadata = client.list_topics(log_topic, timeout=REFUSED_S_MAX)
            except KafkaException as error:
                client.poll(0)  # this is when librdkafka tells of refused connections
                self.check()
                if time.monotonic() - start > ANSWER_S_MAX:
                    self.give_up(error.args[0])
            else:
                self._failure = None
                return found

    def check(self) -> None:
        """Raise if the connection is lost."""
        if self._failure is not None:
            self.give_up(self._failure)

    def give_up(self, error: KafkaError) -> NoReturn:
        """Raise ClickException with a sentence for librdkafka's error."""
        if error.code() in UNREACHABLE:
            raise click.ClickException(f"no Kafka server answers at {self.address}") from None
        raise click.ClickException(f"{self.address} refuses: {error.str()}") from None

    def _on_error(self, error: KafkaError) -> None:
        says_why = error.fatal() or error.code() in REFUSING
        is_first = self._failure is None and error.code() == KafkaError._ALL_BROKERS_DOWN
        if says_why or is_first:
            self._failure = error


class RecordWriter:
    """Produces records, all acknowledged, one at a time or many on their way."""

    def __init__(self, shore: KafkaShore) -> None:
        self._shore = shore
        self._producer = Producer(shore.settings(acks="all", **{"linger.ms": 5}))
        self._refused: KafkaError | None = None
        shore.metadata(self._producer)

    def write(
        self,
        log_topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, str | bytes | None]] = (),
        partition: int | None = None,
    ) -> None:
        """Hand one record over; waits while librdkafka's queue is full."""
        while True:
            try:
                self._producer.produce(
                    log_topic,
                    value,
                    key,
                    -1 if partition is None else partition,
                    headers=list(headers),
                    on_delivery=self._on_delivery,
                )
                break
            except BufferError:
                self._turn(TURN_S)
        self._turn(0)

    def flush(self) -> None:
        """Wait until every record is acknowledged."""
        while self._producer.flush(TURN_S):
            self._turn(0)
        self._turn(0)

    def _turn(self, seconds: float) -> None:
        self._producer.poll(seconds)
        if self._refused is not None:
            self._shore.give_up(self._refused)
        self._shore.check()

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        self._refused = self._refused or error


class RecordReader:
    """Consumes records; either as a member of a group, or from given places."""

    def __init__(self, shore: KafkaShore, group: str | None, *, from_beginning: bool) -> None:
        self._shore = shore
        self._consumer = Consumer(
            shore.settings(
                **{
                    "group.id": group or "isthmus-consume",
                    "enable.auto.commit": group is not None,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "earliest" if from_beginning else "latest",
                    "enable.partition.eof": True,
                    "topic.metadata.refresh.interval.ms": 5_000,
                }
            )
        )
        self._in_group = group is not None
        self._ends: set[tuple[str | None, int | None]] = set()
        self.partitions: list[TopicPartition] = []

    def subscribe(self, log_topics: Sequence[str]) -> None:
        """Read as a member of the group, which shares out the partitions."""
        self._shore.metadata(self._consumer)
        self._consumer.subscribe(list(log_topics))

    def assign(self, log_topics: Sequence[str], partition: int | None, offset: int) -> None:
        """Read all partitions, or one, from `offset` on; -2 is the beginning, -1 the end."""
        for name in log_topics:
            found = self._shore.metadata(self._consumer, name).topics[name]
            if found.error is not None:
                raise click.ClickException(f"log topic {name}: {found.error.str()}")
            if partition is not None and partition not in found.partitions:
                raise click.ClickException(f"log topic {name} has no partition {partition}")
            chosen = found.partitions if partition is None else (partition,)
            self.partitions += [TopicPartition(name, each, offset) for each in chosen]
        self._consumer.assign(self.partitions)

    def records(self, *, until_end: bool = False) -> Iterator[Message]:
        """Yield records as they come; with `until_end`, up to the end of each partition."""
        while True:
            message = self._consumer.poll(TURN_S)
            self._shore.check()
            if message is None:
                continue
            error = message.error()
            if error is None:
                self._ends.discard((message.topic(), message.partition()))
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ends.add((message.topic(), message.partition()))
                if until_end and len(self._ends) >= len(self._consumer.assignment()):
                    return
            elif not error.retriable():
                self._shore.give_up(error)

    def done_with(self, message: Message) -> None:
        """Remember that the group has dealt with this record."""
        if self._in_group:
            self._consumer.store_offsets(message)

    def close(self) -> None:
        """Commit what was dealt with, and leave the group."""
        self._consumer.close()


class PartitionView(NamedTuple):
    """One partition as an administrator sees it; times of records in ms, -1 for none."""

    partition: int
    start_offset: int
    end_offset: int
    size_bytes: int | None  # None: the server does not tell
    oldest_ms: int
    newest_ms: int


class LogView:
    """What there is in the log, and changes to it, as an administrator sees it."""

    def __init__(self, shore: KafkaShore) -> None:
        self._shore = shore
        self._admin = AdminClient(shore.settings())

    def topics(self, name: str | None = None) -> dict[str, TopicMetadata]:
        """Return all log topics, or the one of this name.

        All are asked for in either case: to ask for one by name could create it.
        """
        found: dict[str, TopicMetadata] = self._shore.metadata(self._admin).topics
        if name is None:
            return found
        if name not in found:
            raise click.ClickException(f"there is no log topic {name}")
        return {name: found[name]}

    def survey(self, names: Sequence[str]) -> dict[str, list[PartitionView]]:
        """Return offsets, sizes and times of all partitions of these log topics."""
        cluster = self._shore.metadata(self._admin)
        places = [
            TopicPartition(name, partition)
            for name in names
            for partition in sorted(cluster.topics[name].partitions)
        ]
        starts = self._offsets(places, OffsetSpec.earliest)
        ends = self._offsets(places, OffsetSpec.latest)
        oldest = self._offsets(places, lambda: OffsetSpec.for_timestamp(0))
        newest = self._offsets(places, OffsetSpec.max_timestamp)
        brokers = [(str(each.host), each.port) for each in cluster.brokers.values()]
        sizes = sizes_of(self._shore.server, brokers)
        found: dict[str, list[PartitionView]] = {name: [] for name in names}
        for place in places:
            view = PartitionView(
                place.partition,
                starts[place].offset,
                ends[place].offset,
                sizes.get((place.topic, place.partition)),
                oldest[place].timestamp if oldest[place].offset >= 0 else -1,
                newest[place].timestamp if newest[place].offset >= 0 else -1,
            )
            found[place.topic].append(view)
        return found

    def _offsets(
        self, places: Sequence[TopicPartition], spec: Callable[[], Any]
    ) -> dict[TopicPartition, Any]:
        if not places:
            return {}
        futures = self._admin.list_offsets({place: spec() for place in places})
        return {place: self._result(future) for place, future in futures.items()}

    def settings(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the settings in force for each of these log topics."""
        wanted = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        futures = self._admin.describe_configs(wanted) if wanted else {}
        return {
            resource.name: {each.name: each.value for each in self._result(future).values()}
            for resource, future in futures.items()
        }

    def configs(self, name: str) -> dict[str, str]:
        """Return the settings that were given to this log topic, without the defaults."""
        resource = ConfigResource(ResourceType.TOPIC, name)
        entries = self._result(self._admin.describe_configs([resource])[resource])
        given = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        return {each.name: each.value for each in entries.values() if each.source == given}

    def create(self, name: str, partitions: int | None, configs: Mapping[str, str]) -> None:
        """Create a log topic; the server says how many partitions where that is left open."""
        wanted = NewTopic(name, -1 if partitions is None else partitions, config=dict(configs))
        self._result(self._admin.create_topics([wanted])[name])

    def delete(self, name: str) -> None:
        """Delete a log topic."""
        self._result(self._admin.delete_topics([name])[name])

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result(ANSWER_S_MAX)
        except KafkaException as error:
            self._shore.give_up(error.args[0])
        except TimeoutError:
            raise click.ClickException(f"{self._shore.address} does not answer") from None
