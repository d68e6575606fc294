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

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from isthmus.broker.users import USERS_LOG_TOPIC
from isthmus.errors import IsthmusError, OffsetOutOfRange
from isthmus.kafka.errors import ErrorCode, code_of
from isthmus.kafka.fetch import FetchedPartition
from isthmus.storage.log import ISOLATION_DURABLE, ISOLATION_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.broker.topic_ids import TopicIds
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log, Partition


class FetchPartition(FetchedPartition):
    """What a client wants of one partition, what was found there when it was last read, and
    what the client was told of it.

    One object for as long as a fetch session names the partition, however often it is read.
    """

    __slots__ = (
        "bytes_max",
        "current_epoch",
        "found_as",
        "is_loading",
        "last_fetched_epoch",
        "name",
        "offset",
        "size",
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
        current_epoch: int = -1,
        last_fetched_epoch: int = -1,
    ) -> None:
        super().__init__(index)
        self.name = name  # empty where the client speaks of topic ids
        self.topic_id = topic_id
        self.found_as = ""  # the log topic that the topic id stood for when last read
        self.told: tuple[int, int, int] | None = None  # in this session; see `marks`
        self.want(offset, bytes_max, current_epoch, last_fetched_epoch)
        self.forget_read()

    def want(
        self, offset: int, bytes_max: int, current_epoch: int, last_fetched_epoch: int
    ) -> None:
        """Take what the client wants from now on."""
        self.offset = offset
        self.bytes_max = bytes_max
        self.current_epoch = current_epoch  # what the client takes for the leader's
        self.last_fetched_epoch = last_fetched_epoch

    def forget_read(self) -> None:
        """Forget what was found, and let go of the records."""
        self.clear()
        self.size = 0
        self.is_loading = False  # more is on its way from the disk

    @property
    def key(self) -> tuple[str | bytes, int]:
        """What makes the partition the same one in the next request."""
        return (self.name or self.topic_id, self.index)

    @property
    def marks(self) -> tuple[int, int, int]:
        """High watermark, last stable offset, log start offset."""
        return self.high_watermark, self.last_stable_offset, self.start_offset

    @property
    def has_news(self) -> bool:
        """Whether the client does not know yet what was found."""
        if self.size or self.error or self.diverging is not None or self.told is None:
            return True
        high_watermark, last_stable_offset, start_offset = self.told
        return (
            high_watermark != self.high_watermark
            or last_stable_offset != self.last_stable_offset
            or start_offset != self.start_offset
        )


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
        self._parked: set[Parked] = set()

    def serve(
        self, fetch: Fetch, reply: Callable[[Sequence[FetchPartition]], None]
    ) -> Callable[[], None] | None:
        """Answer through `reply`, at once or when there is enough or the time is up.

        Returns None when the answer was given, else what calls the waiting off.
        """
        reads = self.read(fetch)
        if self._suffices(fetch, reads, is_over=fetch.wait_ms <= 0 or not fetch.entries):
            reply(reads)
            return None
        parked = Parked(self, self._runtime, fetch, reply)
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

    def read(self, fetch: Fetch) -> Sequence[FetchPartition]:
        """Read what is there now, in the order of the request and within its limits.

        What was found is in the entries of the fetch, until they are read again.
        """
        left = fetch.bytes_max
        is_first = True
        for entry in fetch.entries:
            entry.forget_read()
            self._read_one(entry, fetch, left, is_first=is_first)
            if entry.size or entry.is_loading:
                is_first = False
                # What is loaded at one time for one fetch is within its limits, too.
                left -= entry.size or min(left, entry.bytes_max)
        return fetch.entries

    def _read_one(
        self, entry: FetchPartition, fetch: Fetch, bytes_left: int, *, is_first: bool
    ) -> None:
        partition = self._find(entry)
        if partition is None:
            entry.error = self._absence_of(entry)
            return
        entry.found_as = partition.log_topic
        entry.leader_epoch = partition.leader_epoch
        entry.error = _refusal_of(partition, entry)
        if entry.error:
            return
        entry.high_watermark = partition.end_offset
        entry.last_stable_offset = partition.last_stable_offset
        entry.start_offset = partition.start_offset
        if entry.last_fetched_epoch >= 0:
            epoch, end_offset = epoch_end(partition, entry.last_fetched_epoch)
            if epoch < 0:
                _fail(entry, ErrorCode.OFFSET_OUT_OF_RANGE, partition)
                return
            if epoch < entry.last_fetched_epoch or end_offset < entry.offset:
                entry.diverging = (epoch, end_offset)
                return
        if fetch.isolation == ISOLATION_DURABLE:
            entry.aborted = ()
        bytes_max = min(bytes_left, entry.bytes_max)
        if entry.offset == entry.high_watermark or (bytes_max <= 0 and not is_first):
            return
        self._take(entry, partition, fetch, bytes_max, is_first=is_first)

    @staticmethod
    def _take(
        entry: FetchPartition,
        partition: Partition,
        fetch: Fetch,
        bytes_max: int,
        *,
        is_first: bool,
    ) -> None:
        """Read records from where the client is, if they fit."""
        try:
            records = partition.read(
                entry.offset, bytes_max, fetch.isolation, spans=fetch.spans
            )
        except OffsetOutOfRange:
            _fail(entry, ErrorCode.OFFSET_OUT_OF_RANGE, partition)
            return
        except IsthmusError as error:
            _fail(entry, code_of(error), None)
            return
        entry.is_loading = records.is_loading
        if not is_first and records.size > bytes_max:
            return
        entry.size = records.size
        entry.buffers = records.buffers if records.span is None else (records.span,)
        if fetch.isolation == ISOLATION_DURABLE:
            entry.aborted = records.aborted

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
    def _suffices(fetch: Fetch, reads: Sequence[FetchPartition], *, is_over: bool) -> bool:
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

    def _watch(self, parked: Parked, reads: Sequence[FetchPartition]) -> None:
        """Ask every partition to wake the fetch when it can give more than it just did."""
        isolation = parked.fetch.isolation
        for read in reads:
            partition = self._find(read)
            if partition is None:
                continue  # deleted just now; `recheck` tells
            offset = read.offset
            if not read.is_loading:  # what is there was taken, or is for another time
                is_written = isolation == ISOLATION_WRITTEN
                offset = max(
                    offset, partition.end_offset if is_written else read.last_stable_offset
                )
            read.buffers = ()  # it is read again
            parked.cancels.append(partition.wait(offset, parked.wake, isolation))

    def look_again(self, parked: Parked, *, is_over: bool) -> None:
        """Answer a parked fetch if there is enough now or its time is up, else wait on."""
        reads = self.read(parked.fetch)
        parked.unwatch()
        if self._suffices(parked.fetch, reads, is_over=is_over):
            parked.cancel()
            parked.reply(reads)
        else:
            self._watch(parked, reads)

    def forget(self, parked: Parked) -> None:
        """Drop a parked fetch."""
        self._parked.discard(parked)


class Serves(Protocol):
    """Who looks again when something has happened."""

    def look_again(self, parked: Parked, *, is_over: bool) -> None:
        """Answer a parked fetch if that can be done now or its time is up, else wait on."""

    def forget(self, parked: Parked) -> None:
        """Drop a parked fetch."""


class Parked:
    """A fetch that waits; of any kind that says in `wait_ms` for how long."""

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
        fetches: Serves,
        runtime: Runtime,
        fetch: Any,
        reply: Callable[[Any], None],
    ) -> None:
        self.fetch = fetch
        self.reply = reply
        self.cancels: list[Callable[[], None]] = []
        self._fetches: Serves | None = fetches
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


def _refusal_of(partition: Partition, entry: FetchPartition) -> ErrorCode:
    if partition.log_topic == USERS_LOG_TOPIC:  # what is kept of passwords is nobody's to read
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return epoch_error(partition, entry.current_epoch)


def _fail(entry: FetchPartition, error: ErrorCode, partition: Partition | None) -> None:
    """Tell an error instead of what was found; where the `partition` starts is told still."""
    entry.clear()
    entry.error = error
    if partition is not None:
        entry.start_offset = partition.start_offset


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
