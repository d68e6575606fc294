"""The contract of a log engine: what the broker knows of where records are kept.

The contract is that of a non-blocking socket: *try; if nothing is there, be woken*. Nothing
here waits, and no engine's option or exception shows. Two engines stand behind it today:
`memory.py` (nothing kept) and `local/` (files in Kafka's own layout). One contract suite,
`tests/storage/contract.py`, runs on all of them.

An append is answered through its ticket in two steps [DESIGN 3]. `written`: the batch has its
offset and readers may see it. `durable`: it is as safe as the log topic asks;
acknowledgements wait for this. Each ticket gets `written` then `durable`, or `failed` once,
always on the loop and in the order of the appends to its partition; `failed` may follow
`written` (a failed fdatasync). A batch that is refused for what it is gets `failed` from
within `append`.

An append without a ticket (acks=0, QoS 0) asks for nothing: it is written with the others and
becomes durable with the next group that somebody waits for, or at the close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from isthmus.record.walk import offset_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from isthmus.errors import IsthmusError, StorageError
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.measures import LogMeasures
    from isthmus.storage.producers import ProducerTable
    from isthmus.storage.topic_configs import TopicConfig

ISOLATION_WRITTEN = 0  # Kafka's read_uncommitted, MQTT deliveries of QoS 0 and 1
ISOLATION_DURABLE = 1  # Kafka's read_committed, MQTT deliveries of QoS 2


class Ticket(Protocol):
    """Who waits for an append."""

    @property
    def wants_durable(self) -> bool:
        """Whether anybody waits for `durable`; asked once, after `written`.

        Where nobody does, it is not called, and no sync is begun for the batch.
        """

    def written(self, base_offset: int) -> None:
        """The batch is in the log from `base_offset` on; readers may see it."""

    def durable(self) -> None:
        """The batch is as durable as its log topic asks."""

    def failed(self, error: IsthmusError) -> None:
        """The batch was refused (nothing kept), or its durability can never be confirmed."""


class FileSpan(Protocol):
    """Whole, good batches in a file that is open and in memory: sendfile them, or `read` them.

    The descriptor is open as long as the span is referred to.
    """

    descriptor: int
    position: int
    next_offset: int  # after the last batch

    def __len__(self) -> int:
        """How many bytes."""

    def read(self) -> bytes:
        """Return the batches. Raises OSError."""


class Records:
    """Whole batches, one after the other, as stored; empty when nothing is there yet.

    A buffer holds one batch or many. `span`, in place of buffers, is for who asked for one.
    `is_loading`: the log has them, and gets them from where reading takes long; see
    `Partition.wait`. `aborted`: where what is decided was asked for (ISOLATION_DURABLE), the
    aborted transactions that have some of these records, as pairs of producer id and first
    offset. Readers drop what a producer wrote from its first offset on, until they come to its
    marker.
    """

    __slots__ = ("aborted", "buffers", "is_loading", "size", "span")

    def __init__(
        self,
        buffers: Sequence[memoryview | bytes] = (),
        *,
        span: FileSpan | None = None,
        is_loading: bool = False,
    ) -> None:
        self.aborted: Sequence[tuple[int, int]] = ()
        self.buffers = buffers
        self.span = span
        self.is_loading = is_loading
        self.size = sum(map(len, buffers)) if span is None else len(span)

    @property
    def end_offset(self) -> int:
        """One past the last offset in the batches; -1 where there are none."""
        if self.span is not None:
            return self.span.next_offset
        return offset_after(self.buffers[-1]) if self.buffers else -1


TimeFound: TypeAlias = "tuple[int, int] | None"  # offset and timestamp of a record
TimeAnswer: TypeAlias = "Callable[[TimeFound, IsthmusError | None], None]"


class Partition(Protocol):
    """An ordered sequence of records; offsets only grow."""

    log_topic: str
    index: int
    leader_epoch: int
    start_offset: int  # the oldest record still kept
    end_offset: int  # one past the newest written record (Kafka's high watermark here)
    producers: ProducerTable  # to be read only
    config: TopicConfig

    @property
    def durable_offset(self) -> int:
        """One past the newest durable record."""

    @property
    def last_stable_offset(self) -> int:
        """One past the last record `ISOLATION_DURABLE` may see; at most `durable_offset`.

        Before it no transaction is open, and the markers of all are durable. It never moves
        back, not by a crash either.
        """

    @property
    def size_bytes(self) -> int:
        """Bytes of all batches kept."""

    def append(
        self, batch: RecordBatch, ticket: Ticket | None, *, trusted: bool = False
    ) -> None:
        """Queue one batch until `Log.flush`; its offset and epoch are stamped in place.

        The batch's bytes belong to the partition from here on. A batch that breaks a rule is
        refused through `ticket.failed` (BatchRefused, CorruptBatch, LogClosed, …), at once. A
        batch that an idempotent producer sent before is not stored again: its ticket gets the
        first one's offset. `trusted`: this server has built the batch; it may be the marker
        that ends a transaction (record/markers.py), and its checksum and timestamps are not
        checked again.
        """

    def read(
        self,
        offset: int,
        bytes_max: int,
        isolation: int = ISOLATION_WRITTEN,
        *,
        spans: bool = False,
    ) -> Records:
        """Return whole batches from the one that holds `offset` on.

        At least one batch if there is one, whatever its size; then as many as fit into
        `bytes_max`, or into the engine's own limit on one read. The first may begin after
        `offset`, where the log has a gap. Empty: nothing there *yet*, see `wait`. Never waits
        for a disk or a network: where that would be needed, the result is empty, too, and
        `is_loading`; the records are on their way then, and what goes wrong on it is raised by
        the next read of that offset. Raises OffsetOutOfRange for an offset before
        `start_offset` or after `end_offset`, CorruptBatch where nothing up to the end is
        readable, StorageError, TopicUnknown once the log topic is deleted. `spans`: the caller
        can also do with a `FileSpan`, where the engine has one.
        """

    def batches(self, offset: int) -> Iterator[RecordBatch]:
        """Yield all batches from the one that holds `offset` on, waiting as long as it takes.

        For the start, before anybody is served. What is damaged is stepped over. Raises
        StorageError.
        """

    def wait(
        self, offset: int, wake: Callable[[], None], isolation: int = ISOLATION_WRITTEN
    ) -> Callable[[], None]:
        """Call `wake` once when `read(offset, …, isolation)` may give more; return its cancel.

        Never from within this call. Where the last `read` of `offset` said `is_loading`, that
        is when the records have come, or an error has; the next read of that offset gets them.
        Waiting with ISOLATION_DURABLE asks for a sync of what is only written. Also woken when
        the log topic is deleted.
        """

    def delete_before(self, offset: int, done: Callable[[IsthmusError | None], object]) -> None:
        """Delete the records before `offset` (-1: all there are now); `done` tells how it went.

        On the loop, perhaps within this call. With None: `start_offset` is `offset`, or was
        more already, and will not be less after any crash. Else OffsetOutOfRange, for an
        offset after `end_offset`; PolicyViolation, where `cleanup.policy` is not to delete;
        TopicUnknown, StorageError. The bytes go later, with whole segments.
        """

    def offset_for_time(self, timestamp_ms: int, answer: TimeAnswer) -> None:
        """Find the first record at or after `timestamp_ms`, exactly.

        Calls `answer(found, error)` once, from within this call or later on the loop. `found`
        is (offset, timestamp), or None where all records are older.
        """

    def offset_for_max_time(self, answer: TimeAnswer) -> None:
        """Find the first record with the largest timestamp, in the same way."""

    def epoch_at(self, offset: int) -> int:
        """Return the leader epoch in which `offset` was or will be written, or -1."""

    def epoch_end_offset(self, leader_epoch: int) -> tuple[int, int]:
        """Return (epoch, end offset) of the newest epoch ≤ `leader_epoch`, or (-1, -1)."""


class LogTopic(Protocol):
    """Kafka's topic: a named set of partitions with its settings."""

    @property
    def name(self) -> str:
        """The name of the log topic."""

    @property
    def topic_id(self) -> bytes:
        """16 bytes, never reused."""

    @property
    def partitions(self) -> Sequence[Partition]:
        """The partitions, by index."""

    @property
    def configs(self) -> Mapping[str, str]:
        """Only what was set for this log topic; see topic_configs.py for the rest."""


class Log(Protocol):
    """All log topics of one server."""

    topic_defaults: Mapping[str, str]  # of settings where the engine's are not Kafka's

    @property
    def cluster_id(self) -> str:
        """The cluster that the data belongs to, as 22 characters."""

    @property
    def directory(self) -> str:
        """Where the records are kept: an absolute path, or a word where there are no files."""

    @property
    def error(self) -> StorageError | None:
        """Why nothing is accepted any more, or None."""

    @property
    def trouble(self) -> StorageError | None:
        """Why records are refused just now, or None; it may pass, as a full disk does."""

    @property
    def topics(self) -> Mapping[str, LogTopic]:
        """Log topics by name."""

    def create(self, name: str, partitions: int, configs: Mapping[str, str]) -> LogTopic:
        """Create a log topic, durably.

        Raises TopicExists, TopicInvalid, ConfigInvalid, QuotaExceeded, StorageError.
        """

    def add_partitions(self, name: str, count: int) -> None:
        """Grow a log topic to `count` partitions. Raises TopicUnknown, ConfigInvalid."""

    def configure(self, name: str, configs: Mapping[str, str]) -> None:
        """Replace all settings of a log topic. Raises TopicUnknown, ConfigInvalid."""

    def set_topic_defaults(self, defaults: Mapping[str, str]) -> None:
        """Give other `topic_defaults`; they hold at once for what log topics do not say."""

    def delete(self, name: str) -> None:
        """Delete a log topic and its records. Raises TopicUnknown, StorageError."""

    def partition(self, name: str, index: int) -> Partition | None:
        """Return one partition, or None where it is not known."""

    def volume(self) -> tuple[int, int]:
        """Return (total, usable) bytes of what the records are kept on; -1 where unbounded.

        Raises StorageError.
        """

    def measures(self) -> LogMeasures:
        """Return what the engine has counted since its start."""

    def flush(self) -> None:
        """Write what was appended since the last call; answers come through the tickets."""

    def close(self) -> None:
        """Make all durable, write the marks of a clean end, let go of the directory."""
