"""One request on its way to its answer.

A handler gets a Call, reads `request` (a dict as `kafka/schema.txt` names the fields, or what
walks it by hand, see `kafka.frames.decode_request`) and calls `answer` once, or `answer_parts`
with what is encoded already: now, or from whatever callback it waits for. A connection that is
lost meanwhile makes the answer a no-op; what should stop then is told through `on_abandon`.
Compiled, see `call.pxd`.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from isthmus.server.kafka_api.throttles import of_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.access import Rights
    from isthmus.broker.throttling import Mutations
    from isthmus.server.kafka import KafkaConnection
    from isthmus.server.kafka_shore import KafkaShore
    from isthmus.server.sender import Part


class Call:
    """A request, and the way to answer it."""

    __slots__ = (
        "_amendments",
        "api_key",
        "began_s",
        "client_id",
        "connection",
        "correlation_id",
        "is_abandoned",
        "mutations",
        "on_abandon",
        "request",
        "response",
        "rights",
        "shore",
        "size",
        "version",
        "worked_s",
    )

    def __init__(
        self,
        shore: KafkaShore,
        connection: KafkaConnection,
        api_key: int,
        version: int,
        correlation_id: int,
        client_id: str | None,
        size: int,
    ) -> None:
        self.shore = shore
        self.connection = connection
        self.api_key = api_key
        self.version = version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.size = size
        self.began_s = perf_counter()  # when all of it was there, and it was its turn
        self.worked_s = 0.0  # by the handler until it waited; where quotas want to know
        self.mutations: Mutations | None = None  # of partitions, where a quota counts them
        self.request: Any = None
        self.response: list[Part] | None = None  # None: not answered yet
        self.rights: Rights | None = None  # of the client; None: nobody need ask
        self._amendments: list[Callable[[dict[str, Any]], object]] | None = None
        self.is_abandoned = False
        self.on_abandon: Callable[[], None] | None = None

    def amend(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Have something changed in the response before it is sent, in the order asked for."""
        if self._amendments is None:
            self._amendments = []
        self._amendments.append(change)

    def answer(self, body: dict[str, Any]) -> None:
        """Answer with this response."""
        if not self.is_abandoned:
            for change in self._amendments or ():
                change(body)
            if self.shore.quotas.is_any:
                of_request(self, body)
            self.shore.counts.note_errors(self.api_key, body)
            self.answer_parts(self.connection.encode(self, body))

    def answer_parts(self, parts: list[Part]) -> None:
        """Answer with these bytes; with none at all where there is no response (acks=0)."""
        if self.is_abandoned:
            return
        assert self.response is None, "a request is answered once"
        self.on_abandon = None
        self.response = parts
        self.shore.counts.note(self.api_key, perf_counter() - self.began_s)
        self.connection.answered(self)

    def abandon(self) -> None:
        """The client is gone."""
        self.is_abandoned = True
        cancel, self.on_abandon = self.on_abandon, None
        if cancel is not None:
            cancel()
