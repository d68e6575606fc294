"""Connections whose protocol is somebody else's: let in, counted and turned away here.

HTTP is uvicorn's. Its protocol is put behind a `Visit`, which asks the listener's admission
first and tells it at the end, as connections of MQTT and Kafka do themselves.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from isthmus.broker.identity import Identity
from isthmus.errors import Refused
from isthmus.server.peers import origin_of, user_behind

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.logs import Sparing
    from isthmus.server.admission import Admission, Arrival
    from isthmus.server.certificate_names import CertificateNames

logger = logging.getLogger(__name__)


class Visits:
    """The connections of one listener."""

    def __init__(
        self,
        name: str,
        admission: Admission,
        lines: Sparing,
        protocol: Callable[[Identity], asyncio.Protocol],
        names: CertificateNames,
    ) -> None:
        """`protocol` makes that of a connection which is let in; it is told whose it is."""
        self.name = name
        self.admission = admission
        self.lines = lines
        self.protocol = protocol
        self.names = names  # whom the certificates of clients name

    def connection(self, arrival: Arrival | None = None) -> Visit:
        """Return what a new connection is given; `arrival`: it was admitted already."""
        return Visit(self, arrival)


class Visit(asyncio.Protocol):
    """One connection; all but its beginning and its end is its protocol's."""

    def __init__(self, visits: Visits, arrival: Arrival | None) -> None:
        self._visits = visits
        self._arrival = arrival
        self._protocol: asyncio.Protocol | None = None  # until it is let in

    def connection_made(self, base: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", base)
        visits = self._visits
        origin = origin_of(transport) if self._arrival is None else self._arrival.origin
        try:
            user = user_behind(transport, visits.names)
            if self._arrival is None:
                self._arrival = visits.admission.arrive(origin, tells=False)
        except Refused as error:
            visits.admission.refused(error)
            visits.lines.warning(
                logger,
                (origin[0], type(error).__name__),
                "connection refused peer=%s listener=%s reason=%s",
                Identity(*origin, visits.name),
                visits.name,
                error,
            )
            transport.abort()
            return
        self._arrival.is_taken = True
        visits.admission.opened()
        self._protocol = visits.protocol(Identity(*origin, visits.name, user))
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._protocol is not None:
            self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._protocol is None else self._protocol.eof_received()

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._protocol is not None:
            assert self._arrival is not None, "it was let in"
            self._visits.admission.leave(self._arrival.origin[0])
            self._protocol.connection_lost(exc)
