"""Retained messages: the last one of each topic name, durable in a compacted log topic.

Each retained PUBLISH is a record of `__mqtt_retained` (key: topic name; value and headers as in
any record), written in the same commit as the message itself; an empty payload is a tombstone
[MQTT-3.3.1-6]. Who waits for an acknowledgement of the message waits for both records.

The table in memory says of each topic name where its record stands and what must be known
before it is read: a million of them are some hundred bytes each, whatever their payloads. It is
read from the log topic at the start. A retained message that goes out is recalled from there
like any other that had to wait.

What has expired is not found any more [MQTT-3.3.2-5], and is removed, by a tombstone, about a
minute later. What exceeds a limit is not retained; the one before it stays.

Compiled: a fleet that comes up retains a message under each of its names within a few seconds,
and a server that starts reads them all before it listens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from isthmus.broker.mapping import headers_of, retained_terms
from isthmus.broker.recent_records import warn_unreadable
from isthmus.errors import CorruptBatch, RetainedFull, StorageError
from isthmus.mqtt.packets import Publish
from isthmus.record.batch import BatchBuilder, RecordReader, encode_headers
from isthmus.topics.names import TopicNames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.broker.broker import Broker
    from isthmus.broker.publishing import RetainedAcknowledgement
    from isthmus.errors import IsthmusError
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition
    from isthmus.topics.names import Walk

logger = logging.getLogger(__name__)

RETAINED_LOG_TOPIC: Final = "__mqtt_retained"
RETAINED_CONFIGS: Final = {
    "cleanup.policy": "compact",
    "max.message.bytes": "300000000",
    "segment.bytes": "16777216",  # all of it is read at the start, so it is compacted soon
}
GONE: Final = 2**62  # the offset of an entry that is not in the table any more
SWEEP_MS: Final = 60_000
SWEPT_PER_TURN: Final = 1_000  # so that messages go on meanwhile
TERMS_MAX: Final = 1_000  # different headers that a start remembers

Headers: TypeAlias = "Sequence[tuple[str, bytes | None]]"


class Entry:
    """Where a retained message stands, and on what terms it is kept."""

    __slots__ = ("expires_ms", "offset", "qos", "size")

    offset: int
    qos: int
    size: int  # bytes of topic name, payload and headers
    expires_ms: int  # 0: never

    def has_expired(self, now_ms: int) -> bool:
        """Whether it is not sent any more."""
        return 0 < self.expires_ms <= now_ms


class Retained:
    """The retained message of each topic name."""

    __slots__ = (
        "_appended",
        "_broker",
        "_builder",
        "_bytes_max",
        "_coming_bytes",
        "_coming_count",
        "_count_max",
        "_expiring",
        "_is_sweep_due",
        "_names",
        "_open",
        "_runtime",
        "_swept",
        "expired",
        "partition",
        "refused",
        "size_bytes",
    )

    def __init__(
        self, broker: Broker, partition: Partition, count_max: int, bytes_max: int
    ) -> None:
        """Read the table from its partition."""
        self._broker = broker
        self._runtime = broker.runtime
        self.partition = partition
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._builder = BatchBuilder()
        self._open = _RetainedTicket(self)
        self._appended = 0  # tickets of which the log has not said what became
        self._names = TopicNames()
        self._expiring: dict[int, dict[bytes, None]] = {}  # topic names, by minute
        self._swept = self._runtime.now_ms() // SWEEP_MS  # all minutes before are
        self._is_sweep_due = False
        self.size_bytes = 0
        # of what is put and not yet written, each as if nothing were there before it
        self._coming_count = 0
        self._coming_bytes = 0
        self.refused = 0  # beyond a limit, or by the log
        self.expired = 0  # removed for it
        self._load()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def has_pending(self) -> bool:
        """Whether something was put since the last commit."""
        return bool(self._open.puts)

    def get(self, topic_name: bytes) -> Entry | None:
        """Return what is retained under one topic name."""
        return cast("Entry | None", self._names.get(topic_name))

    def walk(self, topic_filter: str) -> Walk:
        """Return what is retained under the names that a filter matches, expired ones too."""
        return self._names.walk(topic_filter)

    def put(self, publish: Publish, waiting: RetainedAcknowledgement | None = None) -> bool:
        """Store or, with an empty payload, remove; False where there is nothing to do.

        Else `waiting` is told how it went, perhaps within this call: what exceeds a limit is
        not retained, and counted. What is not yet written counts in full until it is.
        """
        now_ms = self._runtime.now_ms()
        topic_name = publish.topic
        present = self._names.get(topic_name)
        if not publish.payload:
            if present is None and not self._open.puts and not self._appended:
                return False
            self._append(topic_name, None, (), None, now_ms)
        else:
            if publish.properties:
                headers: Any = headers_of(publish, None, now_ms)
                terms = terms_of(headers)
            else:
                headers = _PLAIN_HEADERS[publish.qos]
                terms = _PLAIN_TERMS[publish.qos]
            size = len(topic_name) + len(publish.payload) + terms.size
            if self._exceeds(present, size):
                self.refused += 1
                if waiting is not None:
                    waiting.settle(RetainedFull("there is no room for more retained messages"))
                return True
            entry = _entry(0, terms.qos, size, terms.expires_ms)
            self._coming_count += 1
            self._coming_bytes += size
            self._append(topic_name, publish.payload, headers, entry, now_ms)
        if publish.qos:
            self._open.wants_durable = True
        if waiting is not None:
            self._open.waiting.append(waiting)
        return True

    def _append(
        self,
        topic_name: bytes,
        payload: bytes | None,
        headers: Headers | bytes,
        entry: Entry | None,
        now_ms: int,
    ) -> None:
        self._builder.append(now_ms, topic_name, payload, headers)
        self._open.puts.append((topic_name, entry))

    def _exceeds(self, present: Entry | None, size: int) -> bool:
        """Whether there is no room for a message in the place of the one that is present."""
        if present is None:
            if len(self._names) + self._coming_count >= self._count_max:
                return True
        else:
            size -= present.size
        return self.size_bytes + self._coming_bytes + size > self._bytes_max

    def commit(self) -> None:
        """Append what was put since the last commit."""
        if self._open.puts:
            ticket, self._open = self._open, _RetainedTicket(self)
            self._appended += 1
            self.partition.append(self._builder.seal(), ticket, trusted=True)

    def stored(self, puts: list[tuple[bytes, Entry | None]], base_offset: int) -> None:
        """The batch of these is written from `base_offset` on."""
        self._came(puts)
        for place, (topic_name, entry) in enumerate(puts):
            if entry is not None:
                entry.offset = base_offset + place
            self._store(topic_name, entry)

    def failed(self, puts: list[tuple[bytes, Entry | None]]) -> None:
        """The batch of these is not in the log."""
        self._came(puts)
        self.refused += len(puts)

    def _came(self, puts: list[tuple[bytes, Entry | None]]) -> None:
        self._appended -= 1
        for _, entry in puts:
            if entry is not None:
                self._coming_count -= 1
                self._coming_bytes -= entry.size

    def _store(self, topic_name: bytes, entry: Entry | None) -> None:
        """Put an entry into the table, or, with None, take out what is there."""
        if entry is None:
            before = self._names.remove(topic_name)
        else:
            before = self._names.set(topic_name, entry)
            self.size_bytes += entry.size
        if before is not None:
            before.offset = GONE
            self.size_bytes -= before.size
            if before.expires_ms:
                self._expiring.get(self._minute_of(before), {}).pop(topic_name, None)
        if entry is not None and entry.expires_ms:
            self._expiring.setdefault(self._minute_of(entry), {})[topic_name] = None
            self._sweep_later(SWEEP_MS)

    def _minute_of(self, entry: Entry) -> int:
        """Return the minute in which an entry expires, or the next one to be swept."""
        return max(entry.expires_ms // SWEEP_MS, self._swept)

    # --- expiry -------------------------------------------------------------------------------

    def _sweep_later(self, delay_ms: int) -> None:
        if not self._is_sweep_due:
            self._is_sweep_due = True
            self._runtime.later(delay_ms, self._sweep)

    def _sweep(self) -> None:
        """Remove what has expired, some of it at a time."""
        self._is_sweep_due = False
        if self._appended:  # of which some may be newer messages of the names in question
            self._sweep_later(SWEEP_MS)
            return
        now_ms = self._runtime.now_ms()
        coming = {topic_name for topic_name, _ in self._open.puts}
        swept = 0
        while self._swept < now_ms // SWEEP_MS and swept < SWEPT_PER_TURN:
            due = self._expiring.get(self._swept)
            if not due:
                self._expiring.pop(self._swept, None)
                self._swept += 1
                continue
            topic_name, _ = due.popitem()
            entry = self.get(topic_name)
            if topic_name in coming:
                self._expiring.setdefault(self._swept + 1, {})[topic_name] = None
            elif entry is not None and entry.has_expired(now_ms):
                self._append(topic_name, None, (), None, now_ms)
                swept += 1
        self.expired += swept
        if swept:
            self._broker.schedule()
        if self._expiring:
            self._sweep_later(0 if swept == SWEPT_PER_TURN else SWEEP_MS)

    # --- the start ----------------------------------------------------------------------------

    def _load(self) -> None:
        known: dict[bytes, Entry] = {}
        for batch in self.partition.batches(self.partition.start_offset):
            try:
                self._load_batch(batch, known)
            except CorruptBatch as error:
                warn_unreadable(batch, error)

    def _load_batch(self, batch: RecordBatch, known: dict[bytes, Entry]) -> None:
        """Take what one batch says; `known` has the terms by the headers that told them.

        Most messages have the headers of the one before, so these are read once.
        """
        reader = RecordReader(batch)
        while reader.advance():
            key, size, headers = reader.outline()
            assert key is not None, "we wrote it"
            if size < 0:
                self._store(key, None)
                continue
            terms = known.get(headers)
            if terms is None:
                terms = terms_of(reader.record().headers)
                if len(known) < TERMS_MAX:
                    known[headers] = terms
            size += len(key) + terms.size
            self._store(key, _entry(reader.offset, terms.qos, size, terms.expires_ms))


def size_of(topic_name: bytes, payload: bytes, headers: Headers) -> int:
    """Return the bytes that a retained message counts as."""
    return len(topic_name) + len(payload) + terms_of(headers).size


def terms_of(headers: Headers) -> Entry:
    """Return what headers tell, for any message that has them; `size` is theirs alone."""
    size = 0
    for name, value in headers:
        size += len(name) + len(value or b"")
    qos, expires_ms = retained_terms(headers)
    return _entry(0, qos, size, expires_ms)


def _entry(offset: int, qos: int, size: int, expires_ms: int) -> Entry:
    entry = Entry.__new__(Entry)  # compiled, this is several times as fast as a call
    entry.offset = offset
    entry.qos = qos
    entry.size = size
    entry.expires_ms = expires_ms
    return entry


class _RetainedTicket:
    __slots__ = ("_is_written", "_retained", "puts", "waiting", "wants_durable")

    def __init__(self, retained: Retained) -> None:
        self._retained = retained
        self._is_written = False
        self.puts: list[tuple[bytes, Entry | None]] = []
        self.waiting: list[RetainedAcknowledgement] = []
        # What was published to be safe is to be retained as safely, whoever waits for it.
        self.wants_durable = False

    def written(self, base_offset: int) -> None:
        self._is_written = True
        self._retained.stored(self.puts, base_offset)

    def durable(self) -> None:
        for waiting in self.waiting:
            waiting.settle(None)

    def failed(self, error: IsthmusError) -> None:
        if not self._is_written:
            self._retained.failed(self.puts)
        if not isinstance(error, StorageError):  # of those the log tells, once
            logger.warning("messages not retained count=%d error=%s", len(self.puts), error)
        for waiting in self.waiting:
            waiting.settle(error)


# of messages without properties, by their QoS
_PLAIN: Final = [headers_of(Publish(b"", b"", qos, True), None, 0) for qos in range(3)]
_PLAIN_HEADERS: Final = [encode_headers(headers) for headers in _PLAIN]
_PLAIN_TERMS: Final = [terms_of(headers) for headers in _PLAIN]
