"""All clients of a plan, made but not yet connected, and what they count together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from isthmus.load.latencies import Latencies
from isthmus.load.link import Link
from isthmus.load.publisher import HEADER_BYTES, Publisher, head_of
from isthmus.load.subscriber import Subscriber
from isthmus.load.tally import Tally
from isthmus.load.totals import Totals
from isthmus.load.transport import Opener

if TYPE_CHECKING:
    from isthmus.load.plan import MqttPlan

UNTIL_MEASURED: Final = 1 << 62  # a moment that never comes


class Clients:
    """The clients of one run: `links` are all of them, `publishing` those that publish.

    `elsewhere` counts what comes by another way than MQTT; where `is_read_elsewhere` that is
    every message, once more.
    """

    def __init__(self, plan: MqttPlan, *, is_read_elsewhere: bool) -> None:
        self._plan = plan
        self._run = int.from_bytes(os.urandom(2), "big")
        self._filler = b"." * (plan.payload_bytes - HEADER_BYTES)
        self._fans = [[fan + is_read_elsewhere for fan in fans] for fans in plan.fans()]
        self.fan_max = max((fan for fans in self._fans for fan in fans), default=0)
        self.totals = Totals()
        self.acknowledged = Latencies()
        self.delivered = Latencies()
        self.acknowledged.since_ns = self.delivered.since_ns = UNTIL_MEASURED
        self.elsewhere = self._subscriber(Tally())
        opener = Opener(plan.address, plan.tls, plan.server_name)
        prefix = plan.client_prefix
        if not plan.persistent:
            prefix += f"-{self._run:04x}"
        self.publishing = [
            self._publishing_link(opener, f"{prefix}-pub-{number}", number)
            for number in range(plan.publishers)
        ]
        self.links = [*self._subscribing_links(opener, prefix), *self.publishing]

    def publishers(self) -> list[Publisher]:
        """Return the parts of the links that publish."""
        return [link.publisher for link in self.publishing if link.publisher is not None]

    def _subscribing_links(self, opener: Opener, prefix: str) -> list[Link]:
        plan = self._plan
        # Where each message is for one subscriber alone, one tally does for all of them.
        common = Tally() if plan.is_shared or self.fan_max == 1 else None
        subscribing = [
            Link(
                plan,
                opener,
                f"{prefix}-sub-{number}",
                self._subscriber(common or Tally()),
                plan.filters_of(number),
            )
            for number in range(plan.subscribers)
        ]
        idle = [
            Link(plan, opener, f"{prefix}-idle-{number}", self._subscriber(Tally()))
            for number in range(plan.idle)
        ]
        return subscribing + idle

    def _subscriber(self, arrived: Tally) -> Subscriber:
        return Subscriber(
            self._filler,
            self.totals,
            self.delivered,
            arrived,
            version=self._plan.version,
            run=self._run,
            packet_size_max=2 * self._plan.packet_bytes,
        )

    def _publishing_link(self, opener: Opener, client_id: str, number: int) -> Link:
        plan = self._plan
        heads = [
            head_of(
                name.encode(),
                plan.payload_bytes,
                version=plan.version,
                qos=plan.qos,
                retain=plan.retain,
            )
            for name in plan.topic_names[number]
        ]
        publisher = Publisher(
            heads,
            self._fans[number],
            self._filler,
            self.totals,
            self.acknowledged,
            version=plan.version,
            qos=plan.qos,
            window=plan.window_size,
            run=self._run,
            index=number,
            stride=plan.publishers,
        )
        return Link(plan, opener, client_id, publisher, publisher=publisher)
