"""A way into the log: what groups, Kafka's Produce and our own tables need of the broker.

A table of the server's own (users, bans, groups) writes a few records and is told when they are
durable: `append_own`, `WhenDurable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from isthmus.record.batch import BatchBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.errors import IsthmusError
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition, Ticket

Done: TypeAlias = "Callable[[IsthmusError | None], object]"


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


class WhenDurable:
    """A ticket that tells once what became of some batches: `done(error)`, None for good."""

    __slots__ = ("_done", "_left")

    wants_durable = True

    def __init__(self, done: Done, batches: int = 1) -> None:
        self._done: Done | None = done
        self._left = batches

    def written(self, base_offset: int) -> None:
        """Not enough: what is told is a promise about the disk."""

    def durable(self) -> None:
        """One of the batches is durable."""
        self._left -= 1
        if self._left == 0:
            self._finish(None)

    def failed(self, error: IsthmusError) -> None:
        """One of them is not, and never will be."""
        self._finish(error)

    def _finish(self, error: IsthmusError | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)


def counting(stored: Callable[[], object], done: Done) -> Done:
    """Return a `done` before which `stored` makes the change count, where it is durable."""

    def written(error: IsthmusError | None) -> None:
        if error is None:
            stored()
        done(error)

    return written


def append_own(
    appends: Appends,
    partition: Partition,
    now_ms: int,
    rows: Iterable[tuple[bytes, bytes | None]],
    done: Done,
) -> None:
    """Append records of a table of the server's own, as keys and values, in one batch."""
    builder = BatchBuilder()
    for key, value in rows:
        builder.append(now_ms, key, value)
    appends.append(partition, builder.seal(), WhenDurable(done), trusted=True)
