"""A SUBSCRIBE while it is acted on, which takes more than one turn where it has many filters.

A topic filter costs some ten microseconds, and a packet may have ten thousand. So only some are
taken at a time; SUBACK and the retained messages come when all are, and what the client has
sent behind the packet waits until then (`Decoder.is_held`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.mqtt.control import FILTERS_AT_A_TIME
from isthmus.mqtt.properties import SUBSCRIPTION_ID

if TYPE_CHECKING:
    from isthmus.broker.subscriptions import Subscription
    from isthmus.mqtt.packets import Subscribe


class Subscribing:
    """What is left of one packet, and what has become of the rest."""

    __slots__ = ("_taken", "identifier", "packet", "reasons", "text", "ungreeted")

    def __init__(self, packet: Subscribe) -> None:
        self.packet = packet
        self.identifier = identifier_in(packet)
        self.reasons: list[int] = []
        self.text = ""  # why the first filter was refused that was
        self.ungreeted: list[Subscription] = []
        self._taken = 0

    def take(self) -> list[tuple[str, int]]:
        """Return the filters that come next, with their options."""
        begin = self._taken
        self._taken += FILTERS_AT_A_TIME
        return self.packet.entries[begin : self._taken]

    @property
    def is_done(self) -> bool:
        """Whether all were taken."""
        return self._taken >= len(self.packet.entries)


def identifier_in(packet: Subscribe) -> int:
    """Return the Subscription Identifier of a packet; 0: it has none."""
    identifier: int = (packet.properties or {}).get(SUBSCRIPTION_ID, 0)
    return identifier
