"""Kafka's fetches: read many partitions within one limit, and wait where nothing is there yet.

A fetch names partitions in the order in which its client wants them served. It is answered at
once when there is enough (`bytes_min`) or an error to tell; else it is parked, with a wake-up
in each of its partitions and one timer, and read again when something happens. Wake-ups of one
turn are gathered: a commit that touches ten partitions of a fetch makes one answer.

Limits as in KIP-74: the first partition that has something gives at least one batch, whatever
its size; after that no batch is served that does not fit. A fetch for which the log has
records that must come from the disk first is not answered with nothing, however little the
client wants to wait: it would only ask again. Not here: the sessions that shorten the list of
partitions (fetch_sessions.py), the wire form (server/kafka_api/fetch.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isthmus.broker.users import USERS_LOG_TOPIC
from isthmus.errors import IsthmusError, OffsetOutOfRange
from isthmus.kafka.errors import ErrorCode, code_of
from isthmus.storage.log import ISOLATION_DURABLE, ISOLATION_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.broker.topic_ids import TopicIds
    from isthmus.runtime import Runtime
    from isthmus.storage.log import FileSpan, Log, Partition


class FetchPartition:
    """What a client wants of one partition, and what it was last told of it."""

    __slots__ = (
        "bytes_max",
        "found_as",
        "index",
        "last_fetched_epoch",
        "leader_epoch",
        "name",
        "offset",
        "told",
        "topic_id",
    )

    def __init__(
        self,
        name: str,
        topic_id: bytes,
        index: int,
        offset: int,
        bytes_max: int,
        leader_epoch: int = -1,
        last_fetched_epoch: int = -1,
    ) -> None:
        self.name = name  # empty where the client speaks of topic ids
        self.topic_id = topic_id
        self.index = index
        self.offset = offset
        self.bytes_max = bytes_max
        self.leader_epoch = leader_epoch
        self.last_fetched_epoch = last_fetched_epoch
        self.found_as = ""  # the log topic that the topic id stood for when last read
        self.told: tuple[int, int, int] | None = (
            None  # in this session; see PartitionRead.marks
        )

    @property
    def key(self) -> tuple[str | bytes, int]:
        """What makes the partition the same one in the next request."""
        return (self.name or self.topic_id, self.index)


class PartitionRead:
    """What was found in one partition."""

    __slots__ = (
        "aborted",
        "buffers",
        "diverging",
        "entry",
        "error",
        "is_loading",
        "leader_epoch",
        "marks",
        "size",
    )

    def __init__(self, entry: FetchPartition) -> None:
        self.entry = entry
        self.error = ErrorCode.NONE
        self.marks = (-1, -1, -1)  # high watermark, last stable offset, log start offset
        self.leader_epoch = -1
        self.diverging: tuple[int, int] | None = None  # (epoch, end offset) [KIP-595]
        self.buffers: Sequence[memoryview | bytes | FileSpan] = ()
        self.size = 0
        # Of what was read, as (producer id, first offset); None for who does not ask for it.
        self.aborted: Sequence[tuple[int, int]] | None = None
        self.is_loading = False  # more is on its way from the disk


class Fetch(NamedTuple):
    """One request."""

    entries: Sequence[FetchPartition]
    isolation: int = ISOLATION_WRITTEN
    bytes_max: int = 1 << 30
    bytes_min: int = 1
    wait_ms: int = 0
    spans: bool = False  # whoever sends the answer can send from a file


class Fetches:
    """Serves fetches, now or later."""

    def __init__(self, runtime: Runtime, log: Log, topic_ids: TopicIds) -> None:
        self._runtime = runtime
        self._log = log
        self._topic_ids = topic_ids
        self._parked: set[_Parked] = set()

    def serve(
        self, fetch: Fetch, reply: Callable[[list[PartitionRead]], None]
    ) -> Callable[[], None] | None:
        """Answer through `reply`, at once or when there is enough or the time is up.

        Returns None when the answer was given, else what calls the waiting off.
        """
        reads = self.read(fetch)
        if self._suffices(fetch, reads, is_over=fetch.wait_ms <= 0 or not fetch.entries):
            reply(reads)
            return None
        parked = _Parked(self, self._runtime, fetch, reply)
        self._parked.add(parked)
        self._watch(parked, reads)
        return parked.cancel

    def recheck(self) -> None:
        """Look again at all that wait: a log topic was deleted."""
        for parked in [*self._parked]:
            parked.wake()

    @property
    def waiting(self) -> int:
        """How many fetches wait."""
        return len(self._parked)

    def read(self, fetch: Fetch) -> list[PartitionRead]:
        """Read what is there now, in the order of the request and within its limits."""
        left = fetch.bytes_max
        is_first = True
        reads = []
        for entry in fetch.entries:
            read = self._read_one(entry, fetch, left, is_first=is_first)
            if read.size or read.is_loading:
                is_first = False
                # What is loaded at one time for one fetch is within its limits, too.
                left -= read.size or min(left, entry.bytes_max)
            reads.append(read)
        return reads

    def _read_one(
        self, entry: FetchPartition, fetch: Fetch, bytes_left: int, *, is_first: bool
    ) -> PartitionRead:
        read = PartitionRead(entry)
        partition = self._find(entry)
        if partition is None:
            read.error = self._absence_of(entry)
            return read
        entry.found_as = partition.log_topic
        read.leader_epoch = partition.leader_epoch
        read.error = _refusal_of(partition, entry)
        if read.error:
            return read
        read.marks = (
            partition.end_offset,
            partition.last_stable_offset,
            partition.start_offset,
        )
        if entry.last_fetched_epoch >= 0:
            epoch, end_offset = epoch_end(partition, entry.last_fetched_epoch)
            if epoch < 0:
                return _out_of_range(read, partition)
            if epoch < entry.last_fetched_epoch or end_offset < entry.offset:
                read.diverging = (epoch, end_offset)
                return read
        bytes_max = min(bytes_left, entry.bytes_max)
        if bytes_max <= 0 and not is_first:
            return read
        try:
            records = partition.read(
                entry.offset, bytes_max, fetch.isolation, spans=fetch.spans
            )
            fits = is_first or records.size <= bytes_max
            if fits:
                read.buffers, read.size = records.buffers, records.size
            if fits and records.span is not None:
                read.buffers = (records.span,)
            if fetch.isolation == ISOLATION_DURABLE:
                read.aborted = records.aborted if fits else ()
        except OffsetOutOfRange:
            return _out_of_range(read, partition)
        except IsthmusError as error:
            return _failed(read, code_of(error))
        read.is_loading = records.is_loading
        return read

    def _find(self, entry: FetchPartition) -> Partition | None:
        name = entry.name or self._topic_ids.name_of(entry.topic_id)
        return None if name is None else self._log.partition(name, entry.index)

    def _absence_of(self, entry: FetchPartition) -> ErrorCode:
        """Return why there is no such partition [KIP-516].

        A topic id that a session has known is not unknown: its log topic was deleted, and
        perhaps made anew. Clients look for that, while some take UNKNOWN_TOPIC_ID for final.
        """
        if entry.name or self._topic_ids.name_of(entry.topic_id):
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if not entry.found_as:
            return ErrorCode.UNKNOWN_TOPIC_ID
        if entry.found_as in self._log.topics:
            return ErrorCode.INCONSISTENT_TOPIC_ID
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    @staticmethod
    def _suffices(fetch: Fetch, reads: list[PartitionRead], *, is_over: bool) -> bool:
        """Whether to answer now; `is_over`: the client waits no longer."""
        size = 0
        is_loading = False
        for read in reads:
            if read.error or read.diverging is not None:
                return True
            size += read.size
            is_loading = is_loading or read.is_loading
        if size == 0 and is_loading:
            return False
        return is_over or size >= fetch.bytes_min

    def _watch(self, parked: _Parked, reads: list[PartitionRead]) -> None:
        """Ask every partition to wake the fetch when it can give more than it just did."""
        isolation = parked.fetch.isolation
        for read in reads:
            partition = self._find(read.entry)
            if partition is None:
                continue  # deleted just now; `recheck` tells
            offset = read.entry.offset
            if not read.is_loading:  # what is there was taken, or is for another time
                end = partition.end_offset if isolation == ISOLATION_WRITTEN else read.marks[1]
                offset = max(end, offset)
            parked.cancels.append(partition.wait(offset, parked.wake, isolation))

    def look_again(self, parked: _Parked, *, is_over: bool) -> None:
        """Answer a parked fetch if there is enough now or its time is up, else wait on."""
        reads = self.read(parked.fetch)
        parked.unwatch()
        if self._suffices(parked.fetch, reads, is_over=is_over):
            parked.cancel()
            parked.reply(reads)
        else:
            self._watch(parked, reads)

    def forget(self, parked: _Parked) -> None:
        """Drop a parked fetch."""
        self._parked.discard(parked)


class _Parked:
    """A fetch that waits."""

    __slots__ = (
        "_cancel_timer",
        "_fetches",
        "_is_over",
        "_is_woken",
        "_runtime",
        "cancels",
        "fetch",
        "reply",
    )

    def __init__(
        self,
        fetches: Fetches,
        runtime: Runtime,
        fetch: Fetch,
        reply: Callable[[list[PartitionRead]], None],
    ) -> None:
        self.fetch = fetch
        self.reply = reply
        self.cancels: list[Callable[[], None]] = []
        self._fetches: Fetches | None = fetches
        self._runtime = runtime
        self._is_woken = False
        self._is_over = fetch.wait_ms <= 0
        self._cancel_timer = runtime.later(max(0, fetch.wait_ms), self._time_is_up)

    def wake(self) -> None:
        """Look again at the end of this turn, once however many partitions call."""
        if not self._is_woken and self._fetches is not None:
            self._is_woken = True
            self._runtime.defer(self._look_again)

    def unwatch(self) -> None:
        """Take back the wake-ups."""
        cancels, self.cancels = self.cancels, []
        for cancel in cancels:
            cancel()

    def cancel(self) -> None:
        """End the waiting; nothing is replied any more."""
        if self._fetches is not None:
            self._fetches.forget(self)
            self._fetches = None
            self._cancel_timer()
            self.unwatch()

    def _look_again(self) -> None:
        self._is_woken = False
        if self._fetches is not None:
            self._fetches.look_again(self, is_over=self._is_over)

    def _time_is_up(self) -> None:
        self._is_over = True
        if self._fetches is not None:
            self._fetches.look_again(self, is_over=True)


def _failed(read: PartitionRead, error: ErrorCode) -> PartitionRead:
    read.error = error
    read.buffers, read.size = (), 0
    return read


def _refusal_of(partition: Partition, entry: FetchPartition) -> ErrorCode:
    if partition.log_topic == USERS_LOG_TOPIC:  # what is kept of passwords is nobody's to read
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return epoch_error(partition, entry.leader_epoch)


def _out_of_range(read: PartitionRead, partition: Partition) -> PartitionRead:
    read.error = ErrorCode.OFFSET_OUT_OF_RANGE
    read.marks = (-1, -1, partition.start_offset)
    return read


def epoch_error(partition: Partition, leader_epoch: int) -> ErrorCode:
    """Compare the leader epoch that a client believes in with the real one [KIP-320]."""
    if leader_epoch < 0 or leader_epoch == partition.leader_epoch:
        return ErrorCode.NONE
    if leader_epoch < partition.leader_epoch:
        return ErrorCode.FENCED_LEADER_EPOCH
    return ErrorCode.UNKNOWN_LEADER_EPOCH


def epoch_end(partition: Partition, leader_epoch: int) -> tuple[int, int]:
    """Return where an epoch ended, (epoch, end offset); (-1, -1) for one to come [KIP-320].

    An epoch of which the log holds nothing, or nothing any more, ended where the log begins:
    whoever waits there has lost nothing and must not be sent to look for a new start.
    """
    if not 0 <= leader_epoch <= partition.leader_epoch:
        return -1, -1
    epoch, end_offset = partition.epoch_end_offset(leader_epoch)
    return (leader_epoch, partition.start_offset) if epoch < 0 else (epoch, end_offset)
