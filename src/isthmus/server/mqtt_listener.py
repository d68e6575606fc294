"""What MQTT connections share: the server's side of them all, and each way in.

A `MqttShore` has what they count and the buffer that they read into; a `MqttListener` what
those that come through it are offered, and their limits. One connection is in mqtt.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from isthmus.broker.limits import Meter
from isthmus.broker.slow_consumers import SlowConsumers
from isthmus.logs import Sparing
from isthmus.server.admission import Admission, Total
from isthmus.server.loop_meter import LoopMeter
from isthmus.server.mqtt import MqttConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.clients import Clients
    from isthmus.broker.identity import Identity
    from isthmus.config_listeners import MqttLimits
    from isthmus.errors import IsthmusError
    from isthmus.mqtt.handshake import Offer
    from isthmus.mqtt.opening import Opening
    from isthmus.server.admission import Arrival
    from isthmus.server.certificate_names import CertificateNames

RECEIVE_BYTES = 64 * 1024  # libuv reads up to 32 times before it lets another socket read
PORTIONS_PER_S = 20  # of the clients that are sent away when the server ends
READ_BYTES_MIN = 256  # at a time, where a rate is low
MESSAGE_BYTES = 16  # of a small one


class MqttShore:
    """What all MQTT connections of the server share."""

    def __init__(
        self, clients: Clients, *, connections_max: int, lines: Sparing | None = None
    ) -> None:
        self.clients = clients
        self.traffic = clients.traffic
        self.traces = clients.traces
        self.total = Total(connections_max)
        self.lines = lines or Sparing(clients.runtime, 0)
        self.listeners: list[MqttListener] = []
        self.connections: set[MqttConnection] = set()
        self.receive_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.accepted = 0
        self.closings: Counter[str] = Counter()  # by the server, by the error's name
        self.loop = LoopMeter(clients.runtime)
        self.slow_consumers = SlowConsumers(clients.runtime, clients.sessions)
        self.held = 0  # times that a client was read from later, because of a rate

    def close(self, error: IsthmusError) -> None:
        """Tell every client why, and close all connections."""
        for connection in list(self.connections):
            connection.close(error)

    async def leave(self, error: IsthmusError, within_s: int) -> None:
        """Do so evenly over a time, so that they do not come to the next server all at once."""
        waiting = list(self.connections)
        portion = -(-len(waiting) // (within_s * PORTIONS_PER_S))
        while waiting:
            for connection in waiting[-portion:]:
                connection.close(error)
            del waiting[-portion:]
            await asyncio.sleep(1 / PORTIONS_PER_S)


class MqttListener:
    """One way in: what the connections that come through it are offered, and their limits."""

    def __init__(
        self,
        shore: MqttShore,
        name: str,
        offer: Offer,
        limits: MqttLimits,
        *,
        names: CertificateNames | None = None,
        authenticate: Callable[[Identity, Opening], None] | None = None,
    ) -> None:
        runtime = shore.clients.runtime
        self.shore = shore
        self.name = name
        self.names = names  # whom the certificates of clients name
        self.authenticate = authenticate  # what decides who comes in; None: whoever connects
        refuses = shore.clients.guard.refuses
        self.admission = Admission(limits, shore.total, runtime, refuses)
        self.meter = Meter(
            limits.messages_rate_max, limits.bytes_rate_max, runtime.monotonic_ms()
        )
        self.change(offer, limits)
        shore.listeners.append(self)

    def change(self, offer: Offer, limits: MqttLimits) -> None:
        """Take other limits; what is offered holds for those who come from now on.

        So does `authenticate`, which may be set to another one, too.
        """
        self.offer = offer
        self.limits = self.admission.limits = limits
        messages = limits.client_messages_rate_max, limits.messages_rate_max
        sizes = limits.client_bytes_rate_max, limits.bytes_rate_max
        rates = [rate * MESSAGE_BYTES for rate in messages if rate] + [*filter(None, sizes)]
        self.is_metered = bool(rates)
        # What is read is acted on, so of little at a time where little is allowed.
        read_max = max(READ_BYTES_MIN, min(rates, default=RECEIVE_BYTES))
        self.receive_buffer = self.shore.receive_buffer[:read_max]

    def connection(self, arrival: Arrival | None = None) -> MqttConnection:
        """Return the protocol of a new connection; `arrival`: it was admitted already."""
        return MqttConnection(self, arrival)
