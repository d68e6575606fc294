"""A log in memory behind a stand-in for the broker: it writes at the end of the turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim import SimRuntime

from isthmus.broker.delegation import DelegationTerms
from isthmus.broker.security import Security, open_security
from isthmus.record.batch import BatchBuilder
from isthmus.storage.memory import MemoryLog

if TYPE_CHECKING:
    from isthmus.errors import IsthmusError
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition, Ticket


class TurnAppends:
    """Appends like the broker: one flush per turn."""

    def __init__(self, runtime: SimRuntime, log: MemoryLog) -> None:
        self._runtime = runtime
        self._log = log
        self._scheduled = False
        self.error: IsthmusError | None = None  # what every append fails with

    def append(
        self,
        partition: Partition,
        batch: RecordBatch,
        ticket: Ticket | None,
        *,
        trusted: bool = False,
    ) -> None:
        if self.error is not None:
            if ticket is not None:
                ticket.failed(self.error)
            return
        if not self._scheduled:
            self._scheduled = True
            self._runtime.defer(self._turn)
        partition.append(batch, ticket, trusted=trusted)

    def forget_log_topic(self) -> None:
        """Nothing is remembered here."""

    def _turn(self) -> None:
        self._scheduled = False
        self._log.flush()


class KafkaRoom:
    """A world with a log in it."""

    def __init__(self) -> None:
        self.runtime = SimRuntime()
        self.log = MemoryLog(self.runtime)
        self.appends = TurnAppends(self.runtime, self.log)

    def produce(
        self, log_topic: str, index: int = 0, values: tuple[bytes, ...] = (b"v",)
    ) -> None:
        """Append one batch and let the turn end."""
        partition = self.log.partition(log_topic, index)
        assert partition is not None
        self.appends.append(partition, batch_of(self.runtime.now_ms(), *values), None)
        self.runtime.settle()


def security_apart(
    runtime: SimRuntime,
    delegation: DelegationTerms = DelegationTerms(),  # noqa: B008  # never changed
) -> Security:
    """Return users and rules, of which there are none yet, in a log of their own."""
    log = MemoryLog(runtime)
    security = open_security(runtime, log, TurnAppends(runtime, log), delegation=delegation)
    runtime.settle()
    return security


def batch_of(now_ms: int, *values: bytes) -> RecordBatch:
    """Return a batch of these values."""
    builder = BatchBuilder()
    for value in values:
        builder.append(now_ms, b"k", value)
    return builder.seal()
