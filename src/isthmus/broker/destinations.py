"""Where a topic name leads: to the partition that stores it, and to those who are subscribed.

Found once per topic name and kept, so that a message costs one lookup. What was kept goes
stale in two ways: subscriptions change that may match, then a destination asks for its
receivers anew when it is used next; log topics change, then all is forgotten. The records of
the Kafka side come through here from the other end: which topic name is this record's, and who
gets it.

Topic names that begin with `$` are the server's own. What a client publishes under one of them
is for whoever has reserved its first level: `reserved` has a function for each, which says
where the message goes, or has taken it in another way, or refuses it. Where there is none, it
is refused. The log holds those whose first level was given to `store`.

What clients publish under some other names takes a detour: they are rewritten (rewrite.py), or
are births of Sparkplug (sparkplug.py). These are found anew for each message, so that all the
others cost nothing for it.

Compiled, as part of the path of every message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from isthmus.broker.mapping import topic_name_in
from isthmus.broker.publishing import Destination, OpenBatch
from isthmus.errors import IsthmusError, NotAuthorized
from isthmus.record.partitioner import partition_for
from isthmus.topics.filter import check_topic_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.permits import Permits
    from isthmus.broker.rewrite import Rewritings
    from isthmus.broker.routes import RouteTable
    from isthmus.broker.subscriptions import Subscriptions
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.session import Session
    from isthmus.record.batch import Record
    from isthmus.storage.log import Log, LogTopic

DELAYED_PREFIX = b"$delayed/"  # the seconds follow, and the topic name (delayed.py)
DESTINATIONS_MAX = 65_536  # topic names resolved at one time; then all are forgotten


class TopicDefaults(NamedTuple):
    """How a log topic is made that a message needs and that is not there."""

    partitions: int
    message_bytes_max: int


class Destinations:
    """The destinations of the topic names in use."""

    def __init__(
        self,
        log: Log,
        routes: RouteTable,
        subscriptions: Subscriptions,
        permits: Permits,
        rewritings: Rewritings,
        new_topics: TopicDefaults,
    ) -> None:
        """Begin with none."""
        self.rewritings = rewritings
        self._is_rewriting = rewritings.of_names
        self.by_name: dict[bytes, Destination] = {}  # without those of a detour
        # By the first level of a topic name: takes the publisher, None for the server, and the
        # message; returns where it goes, or None if it is taken. Raises what refuses it.
        self.reserved: dict[bytes, Callable[[Session | None, Publish], Destination | None]] = {}
        self._stored: set[bytes] = set()
        self._detours: list[Callable[[bytes], bool]] = [rewritings.concern]
        self._others: dict[bytes, Destination] = {}
        self._forgotten: list[Destination] = []  # to be let go
        self._log = log
        self._routes = routes
        self._subscriptions = subscriptions
        self._tree = subscriptions.tree
        self._permits = permits
        self._new_topics = new_topics
        self._open_batches: dict[Any, OpenBatch] = {}

    def store(self, level: bytes, detour: Callable[[bytes], bool]) -> None:
        """Have the log hold the server's own names of this first level.

        `detour` says of a client's topic name whether its messages lead there as well.
        """
        self._stored.add(level)
        self._detours.append(detour)

    def meant(self, said: bytes) -> bytes:
        """Return the topic name that a client's message under `said` gets, perhaps later."""
        if said.startswith(DELAYED_PREFIX):
            said = said.split(b"/", 2)[-1]
        return self.rewritings.topic_name(said) if self._is_rewriting else said

    def find(self, session: Session | None, publish: Publish) -> Destination | None:
        """Return where a message goes whose topic name is not known yet; None: it is taken.

        A client's is rewritten before. Raises Refused, StorageError.
        """
        if session is not None and self._is_rewriting:
            publish.topic = self.rewritings.topic_name(publish.topic)
        topic_name = publish.topic
        if not topic_name.startswith(b"$"):
            return self.known(topic_name)
        check_topic_name(topic_name.decode())
        reserved = self.reserved.get(topic_name.partition(b"/")[0])
        if reserved is None:
            raise NotAuthorized("this topic name belongs to the server")
        return reserved(session, publish)

    def known(self, topic_name: bytes) -> Destination:
        """Return where a topic name is stored. Raises Refused, StorageError."""
        destination = self.by_name.get(topic_name) or self._others.get(topic_name)
        return self.resolve(topic_name) if destination is None else destination

    def resolve(self, topic_name: bytes) -> Destination:
        """Find where a topic name is stored. Raises Refused, StorageError."""
        name = topic_name.decode()
        check_topic_name(name)
        is_own = name.startswith("$")
        if is_own and topic_name.partition(b"/")[0] not in self._stored:
            raise NotAuthorized(f"topic names with $ belong to the server: {name}")
        route, key = self._routes.resolve(name)
        topic = self._log.topics.get(route.log_topic)
        if topic is None:
            topic = self.ensure_topic(route.log_topic, route.partitions, route.compression)
        partitions = topic.partitions
        encoded_key = topic_name if key is name else key.encode()
        index = partition_for(encoded_key, len(partitions)) if len(partitions) > 1 else 0
        partition = partitions[index]
        open_batch = self._open_batches.get(partition)
        if open_batch is None:
            open_batch = self._open_batches[partition] = OpenBatch(partition)
        # The default route leads back by the key itself.
        found_again = (route is self._routes.default and not is_own) or (
            self._routes.topic_name_of(route.log_topic, encoded_key) == topic_name
        )
        header = None if encoded_key == topic_name and found_again else topic_name
        destination = Destination(topic_name, encoded_key, header, open_batch)
        found = self._others if is_own or self._has_detour(topic_name) else self.by_name
        if len(found) >= DESTINATIONS_MAX:
            self._forgotten += found.values()
            found.clear()
        found[topic_name] = destination
        del self._forgotten[-2:]  # all of them at once would hold up everybody
        return destination

    def _has_detour(self, topic_name: bytes) -> bool:
        return any(detour(topic_name) for detour in self._detours)

    def refresh(self, destination: Destination) -> None:
        """Ask anew who is subscribed; for a destination that is older than a subscription."""
        name = destination.topic_name.decode()
        receivers, groups = self._subscriptions.receivers(name)
        if self._permits.is_on:
            receivers = self._permits.passing(receivers, destination.topic_name)
        destination.receivers = receivers
        destination.groups = groups  # they ask themselves, for who gets a message
        destination.version = self._tree.version_at(destination.slots)

    def topic_name_of(self, log_topic: str, record: Record) -> bytes | None:
        """Return the topic name of a record, None if it has none."""
        if record.headers:
            topic_name = topic_name_in(record)
            if topic_name is not None:
                return topic_name
        known = self.by_name.get(record.key or b"")
        if (
            known is not None
            and known.topic_header is None
            and known.open.partition.log_topic == log_topic
        ):
            return known.topic_name  # a name in use that the key holds
        return self._routes.topic_name_of(log_topic, record.key)

    def of_record(self, log_topic: str, record: Record) -> Destination | None:
        """Return whom a record of the Kafka side goes to; None if it has no topic name."""
        topic_name = self.topic_name_of(log_topic, record)
        if topic_name is None:
            return None
        try:
            return self.known(topic_name)
        except (IsthmusError, UnicodeDecodeError):
            return None

    def match(self, log_topic: str, record: Record) -> Destination | None:
        """Return whom a record goes to now; None if it has no topic name."""
        destination = self.of_record(log_topic, record)
        if destination is None:
            return None
        if destination.version != self._tree.version_at(destination.slots):
            self.refresh(destination)
        return destination

    def key_of(self, topic_name: bytes) -> bytes:
        """Return the key that messages of a topic name have, which some time was resolved."""
        destination = self.by_name.get(topic_name)
        if destination is not None:
            return destination.key
        if topic_name.startswith(b"$"):
            return topic_name
        return self._routes.resolve(topic_name.decode())[1].encode()

    def ensure_topic(
        self, name: str, partitions: int | None = None, compression: str | None = None
    ) -> LogTopic:
        """Return a log topic, created for MQTT messages if it is not there."""
        new = self._new_topics
        configs = {"max.message.bytes": str(new.message_bytes_max)}
        if compression is not None:
            configs["compression.type"] = compression
        return _ensure(self._log, name, partitions or new.partitions, configs)

    def forget(self) -> None:
        """A log topic was deleted or changed: resolve every topic name anew."""
        self.by_name.clear()
        self._others.clear()
        self._open_batches.clear()


def ensure_own(log: Log, name: str, configs: dict[str, str]) -> LogTopic:
    """Return a log topic of our own; an older server may have made it with less.

    A codec that log topics have by default is not for these: they are written all the time.
    """
    configs = {"compression.type": "producer", **configs}
    topic = _ensure(log, name, 1, configs)
    if configs.keys() - topic.configs.keys():
        log.configure(name, {**configs, **topic.configs})
    return topic


def _ensure(log: Log, name: str, partitions: int, configs: dict[str, str]) -> LogTopic:
    topic = log.topics.get(name)
    return log.create(name, partitions, configs) if topic is None else topic
