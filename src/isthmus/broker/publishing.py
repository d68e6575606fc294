"""What is published in one turn of the loop, until it is in the log and everyone has it.

One PUBLISH is resolved to its `Destination` (once per topic name), appended to the open batch
of its partition, and remembered beside it. At the end of the turn the batch goes to the log
with a `PublishTicket`; when the log says *written* the ticket hands the messages to the
subscribers, when it says *durable* the publishers get their acknowledgements. A batch that
comes in over the Kafka protocol meets the same two moments as a `RelayTicket`.

Compiled, as part of the path of every message. The broker owns all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from isthmus.broker.mapping import headers_of
from isthmus.errors import RetainedFull
from isthmus.mqtt.packets import Publish
from isthmus.record.batch import BatchBuilder, encode_headers
from isthmus.topics.tree import slots_of

if TYPE_CHECKING:
    from isthmus.broker.broker import Broker
    from isthmus.broker.shared import ShareGroup
    from isthmus.broker.subscriptions import Receiver
    from isthmus.errors import IsthmusError
    from isthmus.mqtt.session import Session
    from isthmus.storage.log import Partition, Ticket


# The base sequence of a batch that holds what MQTT clients published. Without a producer id
# it means nothing to Kafka, and is -1 in what Kafka clients produce; after a crash it tells a
# PUBLISH of QoS 0, which nobody waits for, from a record of the other shore.
MQTT_SEQUENCE: Final = -2
NO_OFFSET: Final = -1  # of a batch that the log has not taken


class OpenBatch:
    """The batch of one partition that this turn's publishes go into."""

    __slots__ = ("builder", "partition", "ticket")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.builder = BatchBuilder()
        self.ticket: PublishTicket | None = None


def plain_headers(topic_header: bytes | None) -> list[bytes]:
    """Return what a PUBLISH without properties has as encoded headers.

    By its QoS; those with RETAIN stand behind those without.
    """
    return [
        encode_headers(headers_of(Publish(b"", b"", qos, retain), topic_header, 0))
        for retain in (False, True)
        for qos in range(3)
    ]


# What most destinations have, so that there are none for each. Nothing is put in.
_PLAIN_HEADERS: Final = plain_headers(None)
NO_RECEIVERS: Final[list[Receiver]] = []


class Destination:
    """All that is known about one topic name: where it is stored and who gets it."""

    __slots__ = (
        "groups",
        "headers",
        "key",
        "open",
        "receivers",
        "slots",
        "topic_header",
        "topic_name",
        "version",
    )

    def __init__(
        self, topic_name: bytes, key: bytes, topic_header: bytes | None, open_batch: OpenBatch
    ) -> None:
        self.topic_name = topic_name
        self.key = key
        self.topic_header = topic_header  # the topic name, where the key does not hold it
        self.open = open_batch
        self.headers = _PLAIN_HEADERS if topic_header is None else plain_headers(topic_header)
        self.slots = slots_of(topic_name.decode())
        self.version = -1  # of the subscriptions that `receivers` was made from
        self.receivers = NO_RECEIVERS
        self.groups: tuple[ShareGroup, ...] = ()


class Acknowledgement:
    """What one publisher of QoS 1 or 2 waits for; `reason` is the code if all goes well."""

    __slots__ = ("attachment", "packet_id", "qos", "reason", "session")

    session: Session
    attachment: int
    packet_id: int
    qos: int
    reason: int


def new_acknowledgement(session: Session, publish: Publish, reason: int) -> Acknowledgement:
    """Return an Acknowledgement; compiled, this is several times as fast as a call."""
    waiting = Acknowledgement.__new__(Acknowledgement)
    waiting.session = session
    waiting.attachment = session.attachment
    waiting.packet_id = publish.packet_id
    waiting.qos = publish.qos
    waiting.reason = reason
    return waiting


class Waiting(Protocol):
    """Who waits for a batch beside the publishers of its messages."""

    def settle(self, error: IsthmusError | None) -> None:
        """The batch is durable or, with an error, never will be."""


class RetainedAcknowledgement:
    """What the publisher of a retained message waits for: two batches in two log topics.

    One holds the message, the other one says that it is retained; the publisher is told of an
    error of either, once both have come to their end.
    """

    __slots__ = ("_broker", "_due", "_error", "_waiting")

    def __init__(self, broker: Broker, waiting: Acknowledgement) -> None:
        self._broker = broker
        self._waiting = waiting
        self._due = 2
        self._error: IsthmusError | None = None

    def settle(self, error: IsthmusError | None) -> None:
        """One of the two is durable or, with an error, never will be.

        Before MQTT 5 there is no way to say that a message is not retained, but well.
        """
        self._due -= 1
        if self._waiting.session.version == 5 or not isinstance(error, RetainedFull):
            self._error = self._error or error
        if self._due == 0:
            self._broker.answer(self._waiting, self._error)


class PublishTicket:
    """The messages of one batch, in the order of its records, and who published them."""

    __slots__ = (
        "acknowledgements",
        "base_offset",
        "broker",
        "destinations",
        "exactly_once",
        "others",
        "partition",
        "publishers",
        "publishes",
        "qos_2",
        "size",
    )

    def __init__(self, broker: Broker, partition: Partition) -> None:
        self.broker = broker
        self.partition = partition
        self.base_offset = 0
        self.size = 0
        self.exactly_once = False  # some came at QoS 2 from persistent sessions
        self.qos_2 = False  # some of it is to be delivered at QoS 2, once it is durable
        self.publishes: list[Publish | None] = []  # None: a record that is not deliverable
        self.destinations: list[Destination | None] = []
        self.publishers: list[Session | None] = []
        self.acknowledgements: list[Acknowledgement] = []
        self.others: list[Waiting] = []

    @property
    def wants_durable(self) -> bool:
        return bool(self.acknowledgements) or self.qos_2 or bool(self.others)

    def written(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self.broker.deliver_written(self)

    def durable(self) -> None:
        self.broker.settle(self)

    def failed(self, error: IsthmusError) -> None:
        self.broker.settle_failed(self, error)

    def add(
        self,
        publish: Publish | None,
        destination: Destination | None,
        publisher: Session | None,
    ) -> None:
        """Add one record of a batch that is read back."""
        self.publishes.append(publish)
        self.destinations.append(destination)
        self.publishers.append(publisher)

    def forget_messages(self) -> None:
        """All have them who get them: only acknowledgements are still due."""
        self.publishes = []
        self.destinations = []
        self.publishers = []


class RelayTicket:
    """Stands before the ticket of a Kafka batch whose records have topic names."""

    __slots__ = ("_base_offset", "_batch", "_broker", "_inner", "_is_relayed", "_partition")

    def __init__(
        self, broker: Broker, partition: Partition, batch: Any, inner: Ticket | None
    ) -> None:
        self._broker = broker
        self._partition = partition
        self._batch = batch
        self._base_offset = NO_OFFSET
        self._inner = inner
        self._is_relayed = False  # the relay of its partition is to hear of `durable`

    @property
    def wants_durable(self) -> bool:
        return self._is_relayed or (self._inner is not None and self._inner.wants_durable)

    def written(self, base_offset: int) -> None:
        if self._batch.base_offset == base_offset:  # else it was sent, and delivered, before
            self._is_relayed = self._broker.relays.written(self._partition, self._batch)
        self._batch = None
        self._base_offset = base_offset
        if self._inner is not None:
            self._inner.written(base_offset)

    def durable(self) -> None:
        if self._is_relayed:
            self._broker.relays.durable(self._partition, self._base_offset)
        if self._inner is not None and self._inner.wants_durable:
            self._inner.durable()

    def failed(self, error: IsthmusError) -> None:
        if self._inner is not None:
            self._inner.failed(error)
