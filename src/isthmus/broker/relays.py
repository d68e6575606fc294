"""How what is written over the Kafka protocol comes to MQTT subscribers, in which order.

A batch is delivered as it is written. A transaction's batches are delivered when the marker
that commits it is written, in the place of the marker: they are read from the log again, a
piece in each turn of the loop, never waiting for the disk. Until that is done the partition is
*behind*: what is written to it meanwhile, from either shore, is put off, and read back in its
turn. So each subscriber gets the records of a partition in one order, with or without
transactions, and so does the scan after a crash (session_recovery.py), to which `Relay.at`
and its neighbours tell how far this one has come.

Kept are places in the log, no copies; beside them, of what MQTT clients published, only what
the log does not tell: who it was, where No Local depends on it.

What is to be delivered at QoS 2 waits until it is durable. A transaction that takes more than
one piece waits for that before anything of it is delivered.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.broker.held_batches import HeldBatches
from isthmus.broker.publishing import MQTT_SEQUENCE
from isthmus.errors import IsthmusError, TopicUnknown
from isthmus.record.batch import split_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.broker import Broker
    from isthmus.broker.publishing import PublishTicket
    from isthmus.broker.routes import RouteTable
    from isthmus.mqtt.session import Session
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Log, Partition

PIECE_BYTES: Final = 1 << 17  # read back at once
TURN_BYTES: Final = 1 << 18  # and in one turn of the loop, beside twice what was put off since
NOTE_BYTES: Final = 128  # that a note takes of what the log does not tell

logger = logging.getLogger(__name__)


class Released(NamedTuple):
    """A committed transaction on its way to the subscribers."""

    producer_id: int
    marker: int  # offset
    next: int  # what lies before this offset is delivered
    last: int  # base offset of its last batch


class Run:
    """Consecutive records that one MQTT client has published."""

    __slots__ = ("first", "last", "publisher")

    def __init__(self, publisher: Session, offset: int) -> None:
        self.publisher = publisher
        self.first = offset
        self.last = offset


class Relay:
    """What of one partition is still to come to subscribers."""

    __slots__ = (
        "_awaits_durable",
        "_broker",
        "_cancel",
        "_end",
        "_held",
        "_noted_bytes",
        "_position",
        "_published",
        "_relays",
        "_released",
        "_retained",
        "_undurable",
        "_undurable_bytes",
        "partition",
    )

    def __init__(self, relays: Relays, broker: Broker, partition: Partition) -> None:
        self.partition = partition
        self._relays = relays
        self._broker = broker
        self._held = HeldBatches()
        self._released: Released | None = None
        self._position = 0  # read back next, when nothing is being released
        self._end = 0  # after what was put off last
        # What waits to be delivered at QoS 2: (offset that must be durable, size, messages).
        self._undurable: deque[tuple[int, int, PublishTicket]] = deque()
        self._undurable_bytes = 0
        # Of what was put off: the newest retained PUBLISH of a topic name, and who published.
        self._retained: dict[bytes, int] = {}
        self._published: deque[Run] = deque()
        self._noted_bytes = 0  # of these; counted as publishers' backlog, which is limited
        self._cancel: Callable[[], None] | None = None  # of what comes from the disk
        self._awaits_durable = False

    def find(self) -> None:
        """Find what is open, at the start. Raises StorageError."""
        self._held.find(self.partition)

    @property
    def is_behind(self) -> bool:
        """Whether something is to be read back."""
        return self._released is not None or self._position < self._end

    @property
    def is_ready(self) -> bool:
        """Whether that can go on now."""
        return self.is_behind and self._cancel is None and not self._awaits_durable

    # --- how far it has come ------------------------------------------------------------------

    @property
    def at(self) -> int:
        """All before this offset is relayed; it may be a marker, see `released_before`."""
        return self._position if self._released is None else self._released.marker

    @property
    def released_before(self) -> int:
        """Of the transaction whose marker stands at `at`: what lies before this offset is.

        0 while that marker is not durable: then nothing of it has been delivered.
        """
        released = self._released
        if released is None or released.marker >= self.partition.durable_offset:
            return 0
        return released.next

    @property
    def oldest(self) -> int:
        """Where the oldest record lies that is not decided, or not released yet."""
        oldest = self._held.oldest()
        places = [self.at] if oldest is None else [self.at, oldest]
        return min(places if self._released is None else [*places, self._released.next])

    # --- as it is written ---------------------------------------------------------------------

    def written(self, batch: RecordBatch) -> bool:
        """Deliver a batch, hold it, or put it off; say whether to tell when it is durable."""
        if self.is_behind:
            self._put_off(batch.next_offset, batch.size)
            return True
        if not batch.is_control and not batch.is_transactional:
            return self._relay(batch, batch.base_offset)
        self._position = self._end = batch.next_offset
        self._sort(batch)
        if self._released is not None:
            self._relays.begin(self)
        return self.is_behind

    def put_off(self, ticket: PublishTicket) -> None:
        """Let what MQTT clients published wait for its turn."""
        self._put_off(ticket.base_offset + len(ticket.publishes), ticket.size)
        subscriptions = self._broker.subscriptions
        publishers = {each for each in ticket.publishers if each is not None}
        apart = {each for each in publishers if subscriptions.has_no_local(each)}
        for place, publish in enumerate(ticket.publishes):
            offset, publisher = ticket.base_offset + place, ticket.publishers[place]
            if publish is not None and publish.retain:
                self._note_retained(publish.topic, offset)
            if publisher is not None and publisher in apart:
                self._note_publisher(publisher, offset)
        ticket.forget_messages()
        ticket.qos_2 = True  # some of it, perhaps

    def _put_off(self, end: int, size: int) -> None:
        self._end = end
        self._relays.put_off_bytes += size

    # --- as it is durable ---------------------------------------------------------------------

    def durable(self, offset: int) -> None:
        """The batch at `offset` is durable, and so is all before it."""
        self._deliver_durable(offset + 1)
        self._awaits_durable = False
        self._relays.go_on(self)

    def _deliver_durable(self, end: int) -> None:
        while self._undurable and self._undurable[0][0] < end:
            _, size, ticket = self._undurable.popleft()
            self._undurable_bytes -= size
            self._broker.deliver_durable(ticket)

    # --- reading back -------------------------------------------------------------------------

    def step(self) -> int:
        """Relay the next piece, if it is at hand; return the bytes that were read."""
        partition, released = self.partition, self._released
        if released is None and self._undurable_bytes > PIECE_BYTES:
            self._awaits_durable = True
            return 0
        offset = self._position if released is None else released.next
        if offset < partition.start_offset:  # deleted meanwhile
            offset = partition.start_offset
            self._held.drop_before(offset)
        try:
            records = partition.read(offset, PIECE_BYTES)
        except TopicUnknown:
            self._relays.drop(self)
            return 0
        except IsthmusError as error:
            self._leave_out(error)
            return 0
        if records.is_loading:
            self._cancel = partition.wait(offset, self._loaded)
            return 0
        batches = [each for buffer in records.buffers for each in split_batches(buffer)]
        if released is None:
            self._follow(batches)
        else:
            self._release(released, batches)
        self._deliver_durable(partition.durable_offset)
        return records.size

    def _loaded(self) -> None:
        self._cancel = None
        self._relays.go_on(self)

    def _release(self, released: Released, batches: list[RecordBatch]) -> None:
        """Deliver what is of the transaction among these batches."""
        is_last = not batches or batches[-1].base_offset >= released.last
        if not is_last and released.marker >= self.partition.durable_offset:
            self._awaits_durable = True
            return
        for batch in batches:
            if batch.base_offset > released.last:
                break
            if batch.producer_id == released.producer_id:
                self._relay(batch, released.marker)
        self._released = None if is_last else released._replace(next=batches[-1].next_offset)

    def _follow(self, batches: list[RecordBatch]) -> None:
        """Do with these batches, which were put off, what `written` would have done."""
        for batch in batches:
            if batch.base_offset >= self._end:
                break
            self._position = batch.next_offset
            if batch.is_control or batch.is_transactional:
                self._sort(batch)
            else:
                self._relay(batch, batch.base_offset)
            if self._released is not None:
                return
        else:
            if batches:
                return
        self._position = self._end  # what lay between is gone

    def _sort(self, batch: RecordBatch) -> None:
        """Hold a batch of a transaction, or begin to release what a marker commits."""
        if not batch.is_control:
            self._held.hold(batch)
            return
        place = self._held.take(batch)
        if place is not None:
            self._released = Released(batch.producer_id, batch.base_offset, *place)

    def _relay(self, batch: RecordBatch, durable_with: int) -> bool:
        """Deliver a batch; True if some of it is to be delivered at QoS 2."""
        ticket = self._broker.relay(self, batch, durable_with)
        if self._broker.traces.is_on and batch.base_sequence != MQTT_SEQUENCE:
            self._trace(ticket)
        if ticket.qos_2:
            self._undurable.append((durable_with, batch.size, ticket))
            self._undurable_bytes += batch.size
        return ticket.qos_2

    def _trace(self, ticket: PublishTicket) -> None:
        for place, publish in enumerate(ticket.publishes):
            if publish is not None:
                self._broker.traces.came(
                    "RECORD",
                    publish,
                    log_topic=self.partition.log_topic,
                    partition=self.partition.index,
                    offset=ticket.base_offset + place,
                )

    def _leave_out(self, error: IsthmusError) -> None:
        """Go on behind what cannot be read."""
        what, offset = "records", self.at
        if self._released is not None:
            what, self._released = "transaction", None
        else:
            self._position = self._end
        logger.warning(
            "%s not delivered log_topic=%s partition=%d offset=%d error=%s",
            what,
            self.partition.log_topic,
            self.partition.index,
            offset,
            error,
        )

    # --- what the log does not tell -----------------------------------------------------------

    def _note_retained(self, topic_name: bytes, offset: int) -> None:
        if topic_name not in self._retained:
            self._count_noted(NOTE_BYTES + len(topic_name))
        self._retained[topic_name] = offset

    def is_newest(self, topic_name: bytes, offset: int) -> bool:
        """Whether no PUBLISH that was put off, and is retained, came after `offset`."""
        return self._retained.get(topic_name, -1) < offset

    def _note_publisher(self, publisher: Session, offset: int) -> None:
        runs = self._published
        if runs and runs[-1].publisher is publisher and runs[-1].last == offset - 1:
            runs[-1].last = offset
        else:
            runs.append(Run(publisher, offset))
            self._count_noted(NOTE_BYTES)

    def publisher_of(self, offset: int) -> Session | None:
        """Return who published a record, if No Local depends on it."""
        runs = self._published
        while runs and runs[0].last < offset:
            runs.popleft()
            self._count_noted(-NOTE_BYTES)
        return runs[0].publisher if runs and runs[0].first <= offset else None

    def _count_noted(self, size: int) -> None:
        self._noted_bytes += size
        self._broker.count_backlog(size)

    def end(self) -> None:
        """Nothing is to be read back any more."""
        self._released = None
        self._position = self._end
        self._retained.clear()
        self._published.clear()
        self._count_noted(-self._noted_bytes)
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()


class Relays:
    """The relays of all partitions that lead back to MQTT, and their turns."""

    def __init__(self, broker: Broker) -> None:
        self.behind: dict[Partition, Relay] = {}
        self.put_off_bytes = 0  # since the last turn
        self._broker = broker
        self._relays: dict[Partition, Relay] = {}
        self._ready: dict[Relay, None] = {}
        self._is_scheduled = False

    def find(self, log: Log, routes: RouteTable) -> None:
        """Find the open transactions that lead here, at the start. Raises StorageError."""
        for name in filter(log.topics.get, routes.log_topics()):
            for partition in log.topics[name].partitions:
                self._of(partition).find()

    def written(self, partition: Partition, batch: RecordBatch) -> bool:
        """A batch of the Kafka side is written; say whether to tell when it is durable."""
        return self._of(partition).written(batch)

    def put_off(self, ticket: PublishTicket) -> bool:
        """Say whether what MQTT clients published, and is written, has to wait for its turn."""
        relay = self.behind.get(ticket.partition)
        if relay is None:
            return False
        relay.put_off(ticket)
        return True

    def durable(self, partition: Partition, offset: int) -> None:
        """A batch of which this was asked is durable."""
        relay = self._relays.get(partition)
        if relay is not None:
            relay.durable(offset)

    def forget(self, log: Log) -> None:
        """Forget the partitions that `log` has no more."""
        for partition, relay in list(self._relays.items()):
            if log.partition(partition.log_topic, partition.index) is not partition:
                self.drop(relay)

    def close(self) -> None:
        """Deliver nothing more; the next start goes on from where the sessions are."""
        for relay in list(self._relays.values()):
            self.drop(relay)

    def _of(self, partition: Partition) -> Relay:
        relay = self._relays.get(partition)
        if relay is None:
            relay = self._relays[partition] = Relay(self, self._broker, partition)
        return relay

    # --- from the relays ----------------------------------------------------------------------

    def begin(self, relay: Relay) -> None:
        """A partition is behind from now on."""
        self.behind[relay.partition] = relay
        self.go_on(relay)

    def go_on(self, relay: Relay) -> None:
        """Give a relay its turn, if it has something to do with it."""
        if relay.is_ready:
            self._ready[relay] = None
            if not self._is_scheduled:
                self._is_scheduled = True
                self._broker.runtime.defer(self._turn)

    def drop(self, relay: Relay) -> None:
        """Forget a partition."""
        self._relays.pop(relay.partition, None)
        self._ready.pop(relay, None)
        self._end(relay)

    def _turn(self) -> None:
        """Read back a bounded amount, one piece of each partition after the other."""
        self._is_scheduled = False
        # Whatever is written meanwhile, what is put off gets less.
        left = TURN_BYTES + 2 * self.put_off_bytes
        self.put_off_bytes = 0
        while self._ready and left > 0:
            relay = next(iter(self._ready))
            del self._ready[relay]
            left -= relay.step()
            if not relay.is_behind:
                self._end(relay)
            self.go_on(relay)

    def _end(self, relay: Relay) -> None:
        self.behind.pop(relay.partition, None)
        relay.end()
