"""Messages for later: `$delayed/<seconds>/<topic name>` is published when they have passed.

Such a PUBLISH is a record of `__mqtt_delayed`: its key the moment and a number, the rest as of
any message. It is acknowledged when it is as safe as the others are. When its moment comes it
is read back and published, by the server and under its own name, and once that is durable a
record without value ends it. A crash in between publishes it again: what is delayed comes at
least once.

In memory is one small entry for each, and none of the payloads. The moments are those of the
wall clock, so that they outlive the process; what fell due meanwhile comes after the start, in
its order.
"""

from __future__ import annotations

import logging
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from isthmus.broker.destinations import DELAYED_PREFIX, ensure_own
from isthmus.broker.mapping import headers_of, publish_of, topic_name_in
from isthmus.broker.publishing import OpenBatch, PublishTicket, new_acknowledgement
from isthmus.broker.recent_records import LOADING, RecentRecords, readable_records
from isthmus.errors import NotAuthorized, QuotaExceeded, Refused, StorageError, TopicInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isthmus.broker.appends import Done
    from isthmus.broker.broker import Broker
    from isthmus.broker.mapping import Headers
    from isthmus.errors import IsthmusError
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.session import Session
    from isthmus.record.batch import Record

logger = logging.getLogger(__name__)

DELAYED_LOG_TOPIC: Final = "__mqtt_delayed"
DELAYED_CONFIGS: Final = {
    "cleanup.policy": "compact",
    "max.message.bytes": "300000000",
    "segment.bytes": "16777216",  # all of it is read at the start, so it is compacted soon
}
SECONDS_DIGITS_MAX: Final = 10
SENT_PER_TURN: Final = 500  # so that other messages go on meanwhile
RETRY_MS: Final = 10_000  # after an error of the disk
BATCH_BYTES_MAX: Final = 1 << 20


def parse(topic_name: bytes) -> tuple[int, bytes]:
    """Return the seconds and the topic name of `$delayed/<seconds>/<topic name>`.

    Raises TopicInvalid.
    """
    seconds, slash, inner = topic_name.removeprefix(DELAYED_PREFIX).partition(b"/")
    if not seconds.isdigit() or len(seconds) > SECONDS_DIGITS_MAX or not slash or not inner:
        raise TopicInvalid(f"{topic_name[:100]!r} is not $delayed/<seconds>/<topic name>")
    return int(seconds), inner


class Entry:
    """One delayed message."""

    __slots__ = ("due_ms", "is_sent", "number", "offset", "size")

    def __init__(self, due_ms: int, number: int, size: int, offset: int = -1) -> None:
        self.due_ms = due_ms  # by the wall clock
        self.number = number
        self.size = size  # bytes of its topic name, payload and properties
        self.is_sent = False  # it is on its way, and nobody can cancel it
        self.offset = offset  # of its record; -1: not written yet

    @property
    def key(self) -> bytes:
        """The key of its record; the number tells apart what is due at the same moment."""
        return b"%d.%d" % (self.due_ms, self.number)


class Delayed:
    """All delayed messages."""

    def __init__(
        self, broker: Broker, count_max: int, seconds_max: int, bytes_max: int
    ) -> None:
        """Take up those of the last run, and what comes from now on. Raises StorageError."""
        self.partition = ensure_own(broker.log, DELAYED_LOG_TOPIC, DELAYED_CONFIGS).partitions[
            0
        ]
        self._broker = broker
        self._runtime = broker.runtime
        self._count_max = count_max
        self._seconds_max = seconds_max
        self._bytes_max = bytes_max
        self.size_bytes = 0  # of all that wait
        self._open_batch = OpenBatch(self.partition)
        self._records = RecentRecords()
        self._entries: dict[int, Entry] = {}  # all that wait, by their numbers
        self._number = 0  # of the newest
        self._due: deque[Entry] = deque()
        self._is_scheduled = False
        self._load()
        broker.destinations.reserved[b"$delayed"] = self.take

    def __len__(self) -> int:
        return len(self._entries)

    def after(self, number: int) -> Iterator[Entry]:
        """List those that are written, in the order of their numbers, after one number."""
        return (
            entry
            for entry in self._entries.values()
            if entry.number > number and entry.offset >= 0 and not entry.is_sent
        )

    # --- from publishers ----------------------------------------------------------------------

    def take(self, session: Session | None, publish: Publish) -> None:
        """Store a PUBLISH until its moment; with a packet id it is acknowledged to `session`.

        Raises TopicInvalid, NotAuthorized, QuotaExceeded, StorageError.
        """
        seconds, _ = parse(publish.topic)
        destinations = self._broker.destinations
        topic_name = destinations.meant(publish.topic)
        if topic_name.startswith(b"$"):
            raise NotAuthorized("this topic name belongs to the server")
        destinations.known(topic_name)  # what cannot be published is refused now
        if seconds > self._seconds_max:
            raise QuotaExceeded(f"a message can be delayed by {self._seconds_max} s at most")
        if len(self._entries) >= self._count_max:
            raise QuotaExceeded(f"{self._count_max} messages are delayed, and no more can be")
        now_ms = self._runtime.now_ms()
        headers = headers_of(publish, topic_name, now_ms)
        size = size_of(publish.payload, headers)
        if self.size_bytes + size > self._bytes_max:
            raise QuotaExceeded(f"delayed messages have {self._bytes_max} bytes at most")
        self._number += 1
        entry = Entry(now_ms + seconds * 1000, self._number, size)
        self._keep(entry)
        ticket = self._append(entry.key, publish.payload, headers, now_ms)
        ticket.entries.append(entry)
        ticket.add(publish, None, session)
        if publish.packet_id and session is not None:
            waiting = new_acknowledgement(session, publish, 0)
            ticket.acknowledgements.append(waiting)
            if publish.qos == 2 and session.persistent:
                ticket.exactly_once = True
        if self._open_batch.builder.size >= BATCH_BYTES_MAX:
            self._broker.commit()

    def _append(
        self, key: bytes, payload: bytes | None, headers: Headers, now_ms: int
    ) -> DelayedTicket:
        """Put a record into this turn's batch; return the batch's ticket."""
        ticket = self._open_batch.ticket
        if ticket is None:
            ticket = self._broker.begin(self._open_batch, DelayedTicket(self._broker, self))
        assert isinstance(ticket, DelayedTicket), "nobody else opens this batch"
        self._open_batch.builder.append(now_ms, key, payload, headers)
        return ticket

    def stored(self, entries: list[Entry | None], base_offset: int) -> None:
        """The records of these are written, in a row from `base_offset` on."""
        for place, entry in enumerate(entries):
            if entry is not None:
                entry.offset = base_offset + place
                self._wait(entry)

    def failed(self, entries: list[Entry | None]) -> None:
        """The records of these are not in the log."""
        for entry in entries:
            if entry is not None:
                self._forget(entry)

    def _keep(self, entry: Entry) -> None:
        self._entries[entry.number] = entry
        self.size_bytes += entry.size

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.number]
        self.size_bytes -= entry.size

    def cancel(self, key: str, done: Done) -> bool:
        """Have a message not come, and tell `done` once that is durable.

        Or why it cannot be. False, and nothing is told, where none that waits has this key.
        """
        number = key.partition(".")[2]
        entry = self._entries.get(int(number)) if number.isdecimal() else None
        if entry is None or entry.key != key.encode() or entry.is_sent or entry.offset < 0:
            return False
        self.end(entry).others.append(Cancelling(self, entry, done))
        return True

    def take_back(self, entry: Entry) -> None:
        """It could not be written that a message is cancelled, so it comes after all."""
        self._keep(entry)
        self._wait(entry)

    # --- when they are due --------------------------------------------------------------------

    def _wait(self, entry: Entry) -> None:
        delay_ms = max(entry.due_ms - self._runtime.now_ms(), 0)
        self._broker.deadlines.after(delay_ms, self._fall_due, entry)

    def _fall_due(self, entry: Entry) -> None:
        if entry.number not in self._entries:
            return  # somebody has cancelled it
        self._due.append(entry)
        self._send_later()

    def _send_later(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._resume()

    def _resume(self) -> None:
        self._runtime.defer(self._send)

    def _send(self) -> None:
        """Publish what is due, in its order, as fast as the log takes it."""
        for _ in range(min(SENT_PER_TURN, len(self._due))):
            if self._broker.congested(self._resume):
                return
            entry = self._due[0]
            if entry.number not in self._entries or entry.is_sent:
                self._due.popleft()
                continue
            try:
                record = self._records.at(self.partition, entry.offset)
            except StorageError as error:
                logger.warning("delayed message not readable yet error=%s", error)
                self._due.popleft()
                self._again(entry)
                continue
            if record is LOADING:
                self.partition.wait(entry.offset, self._resume)
                return
            self._due.popleft()
            self._publish(entry, record)
        self._is_scheduled = False
        if self._due:
            self._send_later()

    def _publish(self, entry: Entry, record: Record | None) -> None:
        """Publish a message, unless it has expired or the disk has lost it."""
        publish = None
        topic_name = topic_name_in(record) if record is not None else None
        if record is not None and topic_name is not None:
            publish = publish_of(record, topic_name, self._runtime.now_ms(), 0)
        if publish is None:
            self.end(entry)
        else:
            entry.is_sent = True
            self._broker.publish_own(publish, Sent(self, entry))

    def end(self, entry: Entry) -> DelayedTicket:
        """A message is published, or never will be: its record is not needed any more.

        Returns what waits until that is written down.
        """
        self._forget(entry)
        ticket = self._append(entry.key, None, [], self._runtime.now_ms())
        ticket.entries.append(None)
        ticket.add(None, None, None)
        return ticket

    def _again(self, entry: Entry) -> None:
        self._broker.deadlines.after(RETRY_MS, self._fall_due, entry)

    def refused(self, entry: Entry, error: IsthmusError) -> None:
        """A message could not be published: for good, or because of the disk."""
        if isinstance(error, Refused):
            logger.warning("delayed message not published error=%s", error)
            self.end(entry)
        elif self._broker.log.error is None:  # else nothing is stored until the next start
            entry.is_sent = False
            self._again(entry)

    # --- the start ----------------------------------------------------------------------------

    def _load(self) -> None:
        entries: dict[bytes, Entry] = {}
        for batch in self.partition.batches(self.partition.start_offset):
            for record in readable_records(batch):
                key = record.key or b""
                if record.value is None:
                    entries.pop(key, None)
                    continue
                due_ms, _, number = key.partition(b".")
                if due_ms.isdigit() and number.isdigit():
                    size = size_of(record.value, record.headers)
                    entries[key] = Entry(int(due_ms), int(number), size, record.offset)
                    self._number = max(self._number, int(number))
        for entry in sorted(entries.values(), key=attrgetter("number")):
            self._keep(entry)
        for entry in sorted(entries.values(), key=lambda one: (one.due_ms, one.number)):
            self._wait(entry)


def size_of(payload: bytes, headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Return the bytes of a message: payload, and names and values of what goes with it."""
    return len(payload) + sum(len(name) + len(value or b"") for name, value in headers)


class Cancelling:
    """Waits for the end of a message that is not to come."""

    __slots__ = ("_delayed", "_done", "_entry")

    def __init__(self, delayed: Delayed, entry: Entry, done: Done) -> None:
        self._delayed = delayed
        self._entry = entry
        self._done = done

    def settle(self, error: IsthmusError | None) -> None:
        """That is durable; or, with an error, not."""
        if error is not None:
            self._delayed.take_back(self._entry)
        self._done(error)


class Sent:
    """Hears how the publishing of a delayed message went."""

    __slots__ = ("_delayed", "_entry")

    def __init__(self, delayed: Delayed, entry: Entry) -> None:
        self._delayed = delayed
        self._entry = entry

    def settle(self, error: IsthmusError | None) -> None:
        """It is durable; or, with an error, not."""
        if error is None:
            self._delayed.end(self._entry)
        else:
            self._delayed.refused(self._entry, error)


class DelayedTicket(PublishTicket):
    """Waits for a batch of `__mqtt_delayed`; its entries are in the order of the records."""

    __slots__ = ("_delayed", "entries")

    def __init__(self, broker: Broker, delayed: Delayed) -> None:
        super().__init__(broker, delayed.partition)
        self._delayed = delayed
        self.entries: list[Entry | None] = []  # None: a record that ends one

    def written(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self._delayed.stored(self.entries, base_offset)
        self.entries = []
        self.forget_messages()  # they go to nobody now
        self.broker.deliver_written(self)

    def failed(self, error: IsthmusError) -> None:
        self._delayed.failed(self.entries)
        super().failed(error)
