"""One way into the Kafka side: where its clients are told to connect, and who may come in.

Metadata, FindCoordinator and whatever else names this broker say the address of the listener
that the client came through, so that clients inside and outside of a network each stay on their
own way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.server.admission import Admission
from isthmus.server.kafka import KafkaConnection

if TYPE_CHECKING:
    from isthmus.config_listeners import Address, KafkaLimits
    from isthmus.server.admission import Arrival
    from isthmus.server.certificate_names import CertificateNames
    from isthmus.server.kafka_login import KafkaDoor
    from isthmus.server.kafka_shore import KafkaShore


class KafkaListener:
    """What the connections that come through one listener share."""

    def __init__(
        self,
        shore: KafkaShore,
        name: str,
        limits: KafkaLimits,
        *,
        advertised: Address | None = None,
        names: CertificateNames | None = None,
        door: KafkaDoor | None = None,
    ) -> None:
        """Join a shore; `names` says whom certificates name, `door` how clients log in."""
        self.shore = shore
        self.name = name
        self.names = names
        self.door = door
        self.admission = Admission(limits, shore.total, shore.runtime, shore.refuses)
        self._advertised = advertised
        shore.listeners.append(self)

    def change(self, limits: KafkaLimits, door: KafkaDoor | None) -> None:
        """Take other limits and another way to log in, for those who come from now on."""
        self.admission.limits = limits
        self.door = door

    def connection(self, arrival: Arrival | None = None) -> KafkaConnection:
        """Return the protocol of a new connection; `arrival`: it was admitted already."""
        return KafkaConnection(self, arrival)

    def told(self, host: str, port: int) -> tuple[str, int]:
        """Return where a client is told to connect that has reached this host and port."""
        advertised = self._advertised
        if advertised is None:
            return host, port
        return advertised.host, advertised.port or port
