"""The one thing that groups and Kafka's Produce need of the broker: a way into the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition, Ticket


class Appends(Protocol):
    """Broker, or a stand-in of a test."""

    def append(
        self,
        partition: Partition,
        batch: RecordBatch,
        ticket: Ticket | None,
        *,
        trusted: bool = False,
    ) -> None:
        """Append a batch; it is written, with all others, at the end of the turn.

        `trusted`: see `storage.log.Partition.append`.
        """

    def forget_log_topic(self) -> None:
        """A log topic came or went: what was resolved before may lead elsewhere now."""
