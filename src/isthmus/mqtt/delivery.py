"""What a session has on its way out: deliveries in flight, and the queue of those that wait.

Neither holds a payload. Each names the record in the log (partition and offset) with the terms
it goes out on; whoever owns the session recalls the record when it is sent, or sent again. The
queue stores runs of consecutive offsets, so ten thousand messages of one busy partition wait in
a few dozen bytes.

The partition is opaque here: MQTT knows the log only as "the place this came from".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.mqtt.session import Session

AWAIT_PUBACK = 1
AWAIT_PUBREC = 2
AWAIT_PUBCOMP = 3

# Why a delivery is given up; see `Dropped`.
DROP_QUEUE = 1
DROP_EXPIRED = 2
DROP_TOO_LARGE = 3
DROP_GONE = 4
DROP_OFFLINE = 5
DROP_DENIED = 6
REASONS = ("queue", "expired", "too_large", "gone", "offline", "denied")

GONE_MAX = 32  # runs that a queue keeps at its beginning, unless they are half of it

SHARE_BYTES_MIN = 4_096  # of one output, however many there are

DRAIN_BYTES = 1 << 18  # a few milliseconds of work, so that others have their turn


class SessionLimits:
    """How much may be on its way to a session; one object serves all sessions.

    `queue_max` counts waiting deliveries. Beyond it `queue_policy` says what is dropped: the
    `newest`, or the `oldest` that is not a retained message; with `disconnect` it is the
    newest, and `overflowed(session)` is called if the session has a connection. Without
    `queue_qos_0` a delivery at QoS 0 never waits. `output_max` is the number of bytes that may
    wait in a session's output; of what waits in the queue it gets less at a time. All outputs
    together have `total_max`: each has an equal share, where that is less.
    """

    __slots__ = (
        "_output_max",
        "_total_max",
        "drain_max",
        "output_max",
        "overflowed",
        "queue_max",
        "queue_policy",
        "queue_qos_0",
    )

    def __init__(
        self,
        queue_max: int,
        output_max: int,
        queue_policy: str = "newest",
        *,
        total_max: int = 1 << 62,
        queue_qos_0: bool = True,
        overflowed: Callable[[Session], None] | None = None,
    ) -> None:
        self._output_max = output_max
        self._total_max = total_max
        self.queue_max = queue_max
        self.output_max = output_max
        self.drain_max = min(output_max, DRAIN_BYTES)
        self.queue_policy = queue_policy
        self.queue_qos_0 = queue_qos_0
        self.overflowed = overflowed

    def share_out(self, connections: int) -> None:
        """So many connections share what all outputs may hold."""
        share = max(self._total_max // max(connections, 1), SHARE_BYTES_MIN)
        self.output_max = min(self._output_max, share)
        self.drain_max = min(self.output_max, DRAIN_BYTES)


class Dropped:
    """Deliveries that a session's client never got, counted by the reason."""

    __slots__ = REASONS

    def __init__(self) -> None:
        self.queue = 0  # more waited than may wait
        self.expired = 0  # while they waited
        self.too_large = 0  # for the client's Maximum Packet Size
        self.gone = 0  # from the log, while they waited
        self.offline = 0  # QoS 0, which does not wait for an absent client
        self.denied = 0  # to the client, when they were to go out

    def add(self, reason: int, count: int) -> None:
        """Count some more."""
        if reason == DROP_QUEUE:
            self.queue += count
        elif reason == DROP_EXPIRED:
            self.expired += count
        elif reason == DROP_TOO_LARGE:
            self.too_large += count
        elif reason == DROP_GONE:
            self.gone += count
        elif reason == DROP_DENIED:
            self.denied += count
        else:
            self.offline += count

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_reason().values())

    def by_reason(self) -> dict[str, int]:
        """Return the counters by their names."""
        return {name: getattr(self, name) for name in REASONS}


class Delivery:
    """One packet out to one session, from its first sending until its last acknowledgement."""

    __slots__ = ("identifiers", "offset", "partition", "qos", "retain", "share", "state")

    def __init__(
        self, partition: object, offset: int, qos: int, retain: bool, identifiers: bytes
    ) -> None:
        self.partition = partition
        self.offset = offset
        self.qos = qos
        self.retain = retain
        self.identifiers = identifiers  # encoded Subscription Identifier properties
        self.state = AWAIT_PUBACK if qos == 1 else AWAIT_PUBREC
        self.share: Any = None  # the mark of the group that has handed it to the session


def new_delivery(
    partition: object, offset: int, qos: int, retain: bool, identifiers: bytes, share: object
) -> Delivery:
    """Return a Delivery; compiled, this is several times as fast as a call of the class."""
    delivery = Delivery.__new__(Delivery)
    delivery.partition = partition
    delivery.offset = offset
    delivery.qos = qos
    delivery.retain = retain
    delivery.identifiers = identifiers
    delivery.state = AWAIT_PUBACK if qos == 1 else AWAIT_PUBREC
    delivery.share = share
    return delivery


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

    __slots__ = ("_first", "_runs", "length", "pushed")

    def __init__(self) -> None:
        # A list is a tenth of the smallest deque, and most queues are empty or hold one run.
        self._runs: list[Run] | None = None  # None: nothing waits
        self._first = 0  # of the runs, which wait; those before it are gone
        self.length = 0
        self.pushed = 0

    def push(
        self, partition: object, offset: int, qos: int, retain: bool, identifiers: bytes
    ) -> None:
        """Add one record at the end."""
        self.length += 1
        self.pushed += 1
        if self._runs is None:
            self._runs = []
        elif self._runs:
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
        assert self._runs is not None
        return self._runs[self._first]

    def pop(self) -> None:
        """Remove the oldest record."""
        assert self._runs is not None
        run = self._runs[self._first]
        self.length -= 1
        if run.first < run.last:
            run.first += 1
        elif self.length == 0:
            self.clear()
        else:
            self._first += 1
            if self._first > GONE_MAX and 2 * self._first > len(self._runs):
                del self._runs[: self._first]
                self._first = 0

    def clear(self) -> None:
        """Forget all."""
        self._runs = None
        self._first = 0
        self.length = 0

    def drop_qos_0(self) -> int:
        """Remove what is not kept for an absent client [MQTT-3.1.2-5]; return how many."""
        before = self.length
        kept = [run for run in self.runs() if run.qos > 0]
        self._runs = kept or None
        self._first = 0
        self.length = sum([run.last - run.first + 1 for run in kept])
        if self.length < before:
            self.renumber()
        return before - self.length

    def renumber(self) -> None:
        """Give all that waits new numbers, as if it had been added just now."""
        self.pushed += self.length

    def newest(self, count: int) -> list[Run]:
        """Return the runs of the `count` newest deliveries, oldest first."""
        found: list[Run] = []
        for run in reversed(self._runs or ()):
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
        return [] if self._runs is None else self._runs[self._first :]
