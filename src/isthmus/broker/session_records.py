"""What the records of `__mqtt_sessions` say: the form of keys and values.

    key                                     value
    client id                               `SessionState`: terms, what is under way
    client id, NUL, `f`, topic filter       a subscription: (form, options, identifier)
    client id, NUL, `q`, number             `QueuePart`: waiting deliveries from this number on
    client id, NUL, `w`                     `WillTerms`: the will that is not sent yet
    NUL, `g`, name, NUL, topic filter       `GroupState` of a shared subscription
    the same, NUL, `q`, number              `QueuePart` of the group
    NUL, `m`, generation, `.`, number       `Marks` of the session states that follow it
    NUL, `c`                                `Marks` of a checkpoint, see session_log.py

No client id, group name or topic filter holds a NUL [MQTT-1.5.4-2]. A record without value ends
what its key names. Values are MessagePack arrays; each begins with the number of its form, and
one of another form, or malformed, is skipped. Each place in the log is a number into the list
of partitions that stands in the same value, because a topic id has 16 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from isthmus.errors import ProtocolError
from isthmus.mqtt.delivery import AWAIT_PUBCOMP, Delivery
from isthmus.mqtt.packets import Will
from isthmus.mqtt.properties import WILL, read_properties, write_properties
from isthmus.wire.buffer import ReadBuffer, WriteBuffer

if TYPE_CHECKING:
    from isthmus.storage.log import Log, Partition

FORM: Final = 1
NOWHERE: Final = -1  # in place of a partition that is gone

KIND_FILTER: Final = b"f"
KIND_QUEUE: Final = b"q"
KIND_WILL: Final = b"w"
GROUP_KEY: Final = b"\0g"  # begins with this
MARKS_KEY: Final = b"\0m"  # begins with this
CHECKPOINT_KEY: Final = b"\0c"

Value = TypeVar(
    "Value",
    bound="SessionState | GroupState | QueuePart | Marks | SubscriptionTerms | WillTerms",
)
PartitionIds = list[tuple[bytes, int]]  # topic id, index


class SessionState(msgspec.Struct, array_like=True, frozen=True):
    """A session but for its subscriptions and the deliveries that wait."""

    form: int
    expiry_s: int
    detached_at_ms: int  # 0: was connected
    packet_id: int  # the next one
    popped: int  # numbers of deliveries below this one wait no more
    pushed: int  # the next number
    partitions: PartitionIds
    # packet id, partition, offset, terms, encoded subscription identifiers
    inflight: list[tuple[int, int, int, int, bytes]]
    unreleased: list[tuple[int, int, int]]  # packet id, partition, offset
    user: str = ""  # whose it is; empty: anybody's
    groups: list[str] = []  # of the user, at the last connection
    way: str = ""  # how it was found out who that is
    listener: str = ""  # through which it came; empty: not known
    address: str = ""


class GroupState(msgspec.Struct, array_like=True, frozen=True):
    """A group of a shared subscription but for the deliveries that wait in its queue."""

    form: int
    popped: int  # numbers of deliveries below this one wait no more
    pushed: int  # the next number
    partitions: PartitionIds
    unfinished: list[tuple[int, int, int]]  # partition, offset, QoS: to be delivered anew


class QueuePart(msgspec.Struct, array_like=True, frozen=True):
    """Consecutive deliveries of a queue, as runs."""

    form: int
    partitions: PartitionIds
    # partition, first and last offset, terms, encoded subscription identifiers
    runs: list[tuple[int, int, int, int, bytes]]


class SubscriptionTerms(msgspec.Struct, array_like=True, frozen=True):
    """One subscription; its topic filter stands in the key."""

    form: int
    options: int
    identifier: int
    ungreeted: bool = False  # retained messages are still to be sent, see greetings.py


class WillTerms(msgspec.Struct, array_like=True, frozen=True):
    """A will as CONNECT brought it."""

    form: int
    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    properties: bytes  # as in CONNECT, with their length


class Marks(msgspec.Struct, array_like=True, frozen=True):
    """How far the log was matched with the subscriptions, for each partition.

    Deliveries of QoS 0 and 1 come when a record is written, those of QoS 2 when it is durable,
    hence two marks. The records of a transaction come with its marker: where one is open, it is
    told where the oldest begins. Where a mark is a marker itself, its transaction is on its
    way: what lies before the offset in `released` has come.
    """

    form: int
    before: int  # a checkpoint's: it is about the session states before this offset
    log_topics: list[tuple[bytes, list[int], list[int]]]  # topic id, written, durable
    undecided: list[tuple[bytes, int, int]] = []  # topic id, partition, first offset
    released: list[tuple[bytes, int, int]] = []  # topic id, partition, offset


def encode(value: Value) -> bytes:
    """Return a value as it is stored."""
    return msgspec.msgpack.encode(value)


def decode(data: bytes, kind: type[Value]) -> Value | None:
    """Return a value, or None if it is malformed or of a form not known here."""
    try:
        value = msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError:
        return None
    return value if value.form == FORM else None


def encode_will(will: Will) -> bytes:
    """Return a will as it is stored."""
    out = WriteBuffer()
    write_properties(out, will.properties)
    return encode(WillTerms(FORM, will.topic, will.payload, will.qos, will.retain, out.take()))


def decode_will(data: bytes) -> Will | None:
    """Return a will, or None if it is malformed or of a form not known here."""
    terms = decode(data, WillTerms)
    if terms is None:
        return None
    body = ReadBuffer()
    body.attach(terms.properties)
    try:
        properties = read_properties(body, WILL)
    except ProtocolError:
        return None
    return Will(terms.topic, terms.payload, terms.qos, terms.retain, properties)


def pack_terms(qos: int, retain: bool, state: int = 0) -> int:
    """Return the terms of a delivery as one number."""
    return qos | retain << 2 | state << 3


def group_key(name: str, topic_filter: str) -> bytes:
    """Return the key of a group's state, which begins those of its queue."""
    return b"%b%b\0%b" % (GROUP_KEY, name.encode(), topic_filter.encode())


def split_key(key: bytes) -> tuple[bytes, bytes]:
    """Return whose record a key names, a client id or the key of a group, and what of it."""
    if not key.startswith(GROUP_KEY):
        client, _, rest = key.partition(b"\0")
        return client, rest
    name, _, others = key[len(GROUP_KEY) :].partition(b"\0")
    topic_filter, _, rest = others.partition(b"\0")
    return b"%b%b\0%b" % (GROUP_KEY, name, topic_filter), rest


def marks_key(generation: int, number: int) -> bytes:
    """Return the key of marks; the same one is used again when no state relies on them."""
    return b"%b%d.%d" % (MARKS_KEY, generation, number)


def marks_generation(key: bytes) -> int:
    """Return the generation that a key of marks names, -1 where it names none."""
    generation = key[len(MARKS_KEY) :].partition(b".")[0]
    return int(generation) if generation.isdigit() else -1


def filter_key(client: bytes, topic_filter: bytes) -> bytes:
    """Return the key of a subscription."""
    return b"%b\0%b%b" % (client, KIND_FILTER, topic_filter)


def queue_key(owner: bytes, number: int) -> bytes:
    """Return the key of a part of the queue of a client or a group."""
    return b"%b\0%b%d" % (owner, KIND_QUEUE, number)


def will_key(client: bytes) -> bytes:
    """Return the key of a will."""
    return b"%b\0%b" % (client, KIND_WILL)


class PartitionNumbers:
    """Gives partitions their numbers within one value."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._numbers: dict[Any, int] = {}
        self.ids: PartitionIds = []

    def number(self, partition: Any) -> int:
        """Return a partition's number; NOWHERE once its log topic is deleted."""
        number = self._numbers.get(partition)
        if number is None:
            number = self._numbers[partition] = self._add(partition)
        return number

    def _add(self, partition: Any) -> int:
        if partition is None:
            return NOWHERE
        log, name, index = self._log, partition.log_topic, partition.index
        if log.partition(name, index) is not partition:
            return NOWHERE
        self.ids.append((log.topics[name].topic_id, index))
        return len(self.ids) - 1


class PartitionsById:
    """Finds partitions again by what a value says of them."""

    def __init__(self, log: Log) -> None:
        self._topics = {topic.topic_id: topic for topic in log.topics.values()}

    def find(self, ids: PartitionIds) -> list[Partition | None]:
        """Return the partitions, None for those that are gone."""
        return [self._one(topic_id, index) for topic_id, index in ids]

    def _one(self, topic_id: bytes, index: int) -> Partition | None:
        topic = self._topics.get(topic_id)
        if topic is None or not 0 <= index < len(topic.partitions):
            return None
        return topic.partitions[index]


def one_of(partitions: list[Partition | None], number: int) -> Partition | None:
    """Return the partition that a value calls by this number."""
    return partitions[number] if 0 <= number < len(partitions) else None


def delivery_of(
    partition: Partition | None, offset: int, terms: int, identifiers: bytes
) -> Delivery:
    """Return what was in flight; without a partition it can only be released."""
    delivery = Delivery(partition, offset, terms & 0x03, bool(terms & 0x04), identifiers)
    delivery.state = AWAIT_PUBCOMP if partition is None else terms >> 3
    return delivery
