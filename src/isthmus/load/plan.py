"""What an MQTT load shall be, checked: who publishes what, who subscribes, how fast, how long.

Patterns of topic names and filters have two marks: `{client}` is the number of the publisher or
subscriber, `{n}` the number of one of its `topics` topic names. Numbers have leading zeros, so
that all packets of a load have one size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from isthmus.errors import TopicInvalid
from isthmus.load.errors import LoadError
from isthmus.load.publisher import HEADER_BYTES, packet_bytes
from isthmus.mqtt.packets import VERSION_5
from isthmus.topics.filter import (
    SHARED_PREFIX,
    check_topic_filter,
    check_topic_name,
    parse_shared,
)
from isthmus.topics.tree import TopicTree

if TYPE_CHECKING:
    import ssl

    from isthmus.config_listeners import Address

CLIENT: Final = "{client}"
NUMBER: Final = "{n}"
WINDOW: Final = 100  # publishes of each publisher on their way, at QoS 1 and 2
AHEAD: Final = 1_000  # deliveries on their way, at QoS 0
PACKET_IDS_MAX: Final = 65_535
BURST_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttPlan:
    """A load of MQTT clients on one server.

    `rate` 0 is the closed loop: as fast as the server lets it, with `window` messages on their
    way. Otherwise the open loop: so many messages a second, all publishers together, each due
    at its own moment. A measurement lasts `duration_s`, or until `count` messages are there.
    """

    address: Address
    tls: ssl.SSLContext | None = None
    server_name: str = ""  # that its certificate must have; empty: the address's host
    version: int = VERSION_5
    publishers: int = 1
    subscribers: int = 1
    idle: int = 0
    topic: str = "isthmus-bench/{client}/{n}"
    topics: int = 1
    filters: tuple[str, ...] = ()
    qos: int = 0
    subscriber_qos: int | None = None
    retain: bool = False
    payload_bytes: int = 64
    window: int = 0  # 0: WINDOW, or AHEAD
    burst: int = 0  # messages that one publisher makes before the next one's turn; 0: chosen
    rate: float = 0.0
    duration_s: float = 10.0
    count: int = 0
    warm_up_s: float = 0.0
    quiet_s: float = 5.0  # without anything new, after which the rest is lost
    answer_s: float = 10.0
    persistent: bool = False
    keep_alive_s: int = 60
    client_prefix: str = "bench"
    user: str | None = None
    password: bytes | None = None
    spin: bool = False
    topic_names: tuple[tuple[str, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.publishers + self.subscribers + self.idle < 1:
            raise LoadError("a load needs clients: publishers, subscribers or idle ones")
        if self.payload_bytes < HEADER_BYTES:
            raise LoadError(
                f"a payload needs {HEADER_BYTES} bytes, for the number of the message and the"
                f" moment when it was due; {self.payload_bytes} are too few"
            )
        if self.qos and self.window > PACKET_IDS_MAX:
            raise LoadError(f"MQTT has {PACKET_IDS_MAX} packet identifiers for a window")
        if self.password is not None and self.user is None and self.version != VERSION_5:
            raise LoadError("MQTT 3.1.1 takes no password without a user name")
        object.__setattr__(self, "topic_names", self._topic_names())
        self._check_filters()

    @property
    def window_size(self) -> int:
        """Messages on their way at one time: of each publisher, at QoS 0 of all deliveries."""
        return self.window or (WINDOW if self.qos else AHEAD)

    @property
    def burst_size(self) -> int:
        """Messages that a publisher makes before it is the next one's turn."""
        if self.burst:
            return self.burst
        share = max(1, self.window_size // max(1, self.publishers))
        return max(1, min(BURST_BYTES // self.packet_bytes, share if not self.qos else 1 << 16))

    @property
    def packet_bytes(self) -> int:
        """The size of each PUBLISH on the wire."""
        name = self.topic_names[0][0] if self.topic_names else ""
        return packet_bytes(
            name.encode(), self.payload_bytes, version=self.version, qos=self.qos
        )

    @property
    def qos_granted(self) -> int:
        """The QoS that subscribers ask for."""
        return self.qos if self.subscriber_qos is None else self.subscriber_qos

    @property
    def is_shared(self) -> bool:
        """Whether the subscribers share the messages out among them."""
        return self.filters_of(0)[0].startswith(SHARED_PREFIX)

    def filters_of(self, subscriber: int) -> list[str]:
        """Return what a subscriber subscribes to; without filters, to every topic name."""
        patterns = self.filters or (self.topic.replace(CLIENT, "+").replace(NUMBER, "+"),)
        return [_filled(each, subscriber, self.subscribers) for each in patterns]

    def fans(self) -> list[list[int]]:
        """Return, by publisher and topic name, how many deliveries a message of it brings."""
        if not self.subscribers:
            return [[0] * self.topics] * self.publishers
        tree = TopicTree()
        for subscriber in range(1 if self.is_shared else self.subscribers):
            for topic_filter in self.filters_of(subscriber):
                tree.add(parse_shared(topic_filter)[1], subscriber)
        fans: list[list[int]] = []
        for names in self.topic_names:
            fans.append([])
            for name in names:
                found = tree.match(name)
                if len(set(found)) < len(found):
                    raise LoadError(
                        f"two filters of one subscriber match {name}: whether it comes once or"
                        " twice is the server's choice, so nothing could be said of it"
                    )
                fans[-1].append(len(found))
        if not any(map(any, fans)):
            raise LoadError(
                f"no filter matches a topic name such as {self.topic_names[0][0]}"
                if self.publishers
                else "subscribers without publishers get nothing: leave them out, or idle"
            )
        return fans

    def _topic_names(self) -> tuple[tuple[str, ...], ...]:
        if self.topics > 1 and NUMBER not in self.topic:
            raise LoadError(
                f"{self.topics} topic names need {NUMBER} in the pattern {self.topic}"
            )
        found = tuple(
            tuple(
                _filled(self.topic, publisher, self.publishers, number, self.topics)
                for number in range(self.topics)
            )
            for publisher in range(self.publishers)
        )
        for names in found[:1]:
            try:
                check_topic_name(names[0])
            except TopicInvalid as error:
                raise LoadError(str(error)) from None
        return found

    def _check_filters(self) -> None:
        if not self.subscribers:
            return
        filters = self.filters_of(0)
        for each in filters:
            try:
                check_topic_filter(each)
            except TopicInvalid as error:
                raise LoadError(str(error)) from None
        shared = sum(each.startswith(SHARED_PREFIX) for each in filters)
        if 0 < shared < len(filters):
            raise LoadError("shared subscriptions and others do not go together in one load")
        if shared and any(CLIENT in each for each in self.filters):
            raise LoadError(f"a shared filter is the same for all, without {CLIENT}")


def _filled(pattern: str, client: int, clients: int, number: int = 0, numbers: int = 1) -> str:
    """Put numbers in the place of their marks, as wide as the largest of them."""
    client_text = str(client).zfill(len(str(max(0, clients - 1))))
    number_text = str(number).zfill(len(str(numbers - 1)))
    return pattern.replace(CLIENT, client_text).replace(NUMBER, number_text)
