"""What a session has on its way out: deliveries in flight, and the queue of those that wait.

Neither holds a payload. Each names the record in the log (partition and offset) with the terms
it goes out on; whoever owns the session recalls the record when it is sent, or sent again. The
queue stores runs of consecutive offsets, so ten thousand messages of one busy partition wait in
a few dozen bytes.

The partition is opaque here: MQTT knows the log only as "the place this came from".
"""

from __future__ import annotations

from collections import deque

AWAIT_PUBACK = 1
AWAIT_PUBREC = 2
AWAIT_PUBCOMP = 3


class Delivery:
    """One packet out to one session, from its first sending until its last acknowledgement."""

    __slots__ = ("identifiers", "offset", "partition", "qos", "retain", "state")

    def __init__(
        self, partition: object, offset: int, qos: int, retain: bool, identifiers: bytes
    ) -> None:
        self.partition = partition
        self.offset = offset
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers  # encoded Subscription Identifier properties
        self.state = AWAIT_PUBACK if qos == 1 else AWAIT_PUBREC


class Run:
    """Consecutive records of one partition that wait on the same terms."""

    __slots__ = ("first", "identifiers", "last", "partition", "qos", "retain")

    def __init__(
        self, partition: object, offset: int, qos: int, retain: bool, identifiers: bytes
    ) -> None:
        self.partition = partition
        self.first = offset
        self.last = offset
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers


class DeliveryQueue:
    """Deliveries that wait for a connection, for room in it, or for the in-flight window.

    Each has a number, counted from the first one ever; `pushed` is the next number, and the
    oldest that waits has `pushed - length`.
    """

    __slots__ = ("_runs", "length", "pushed")

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self.length = 0
        self.pushed = 0

    def push(
        self, partition: object, offset: int, qos: int, retain: bool, identifiers: bytes
    ) -> None:
        """Add one record at the end."""
        self.length += 1
        self.pushed += 1
        if self._runs:
            run = self._runs[-1]
            if (
                run.last + 1 == offset
                and run.partition is partition
                and run.qos == qos
                and run.retain == retain
                and run.identifiers == identifiers
            ):
                run.last = offset
                return
        self._runs.append(Run(partition, offset, qos, retain, identifiers))

    def head(self) -> Run:
        """Return the oldest run; its `first` is the record that goes next."""
        return self._runs[0]

    def pop(self) -> None:
        """Remove the oldest record."""
        run = self._runs[0]
        self.length -= 1
        if run.first == run.last:
            self._runs.popleft()
        else:
            run.first += 1

    def clear(self) -> None:
        """Forget all."""
        self._runs.clear()
        self.length = 0

    def drop_qos_0(self) -> int:
        """Remove what is not kept for an absent client [MQTT-3.1.2-5]; return how many."""
        kept = deque(run for run in self._runs if run.qos > 0)
        before = self.length
        self._runs = kept
        self.length = sum(run.last - run.first + 1 for run in kept)
        if self.length < before:
            self.renumber()
        return before - self.length

    def renumber(self) -> None:
        """Give all that waits new numbers, as if it had been added just now."""
        self.pushed += self.length

    def newest(self, count: int) -> list[Run]:
        """Return the runs of the `count` newest deliveries, oldest first."""
        found: list[Run] = []
        for run in reversed(self._runs):
            if count <= 0:
                break
            size = run.last - run.first + 1
            part = Run(run.partition, run.first, run.qos, run.retain, run.identifiers)
            part.first += max(size - count, 0)
            part.last = run.last
            found.append(part)
            count -= size
        return found[::-1]

    def runs(self) -> list[Run]:
        """Return the runs, oldest first."""
        return list(self._runs)
