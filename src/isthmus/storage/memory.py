"""A log engine that keeps everything in memory and nothing after that.

For tests, for log topics nobody needs to keep, and as the shortest telling of the contract in
log.py: read it first. There is nothing less safe than memory to wait for, so a record is
durable as soon as it is written. Of retention there is `retention.bytes`, by whole batches.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING

from isthmus.errors import (
    ConfigInvalid,
    IsthmusError,
    LogClosed,
    OffsetOutOfRange,
    StorageError,
    TopicExists,
    TopicUnknown,
)
from isthmus.record.batch import RecordReader
from isthmus.storage.aborted import AbortedIndex
from isthmus.storage.log import ISOLATION_DURABLE, ISOLATION_WRITTEN, Records
from isthmus.storage.measures import LogMeasures
from isthmus.storage.names import check_log_topic
from isthmus.storage.producers import ProducerTable
from isthmus.storage.topic_configs import TopicConfig
from isthmus.storage.validation import check_batch, check_start, check_trusted
from isthmus.storage.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Ticket, TimeAnswer


class MemoryPartition:
    """One partition: a list of batches."""

    def __init__(self, log: MemoryLog, log_topic: str, index: int, config: TopicConfig) -> None:
        self.log_topic = log_topic
        self.index = index
        self.leader_epoch = 0
        self.start_offset = 0
        self.end_offset = 0
        self.config = config
        self.producers = ProducerTable()
        self.size_bytes = 0
        self._log = log
        self._batches: list[RecordBatch] = []
        self._ends: list[int] = []  # next offset of each batch
        self._aborted = AbortedIndex()
        self._queue: list[tuple[RecordBatch | None, int, Ticket | None]] = []
        self._queue_end = 0  # one past the newest queued record
        self._waiters = {ISOLATION_WRITTEN: Waiters(), ISOLATION_DURABLE: Waiters()}
        self._closed: IsthmusError | None = None

    @property
    def durable_offset(self) -> int:
        """The same as `end_offset`."""
        return self.end_offset

    @property
    def last_stable_offset(self) -> int:
        """One past the last record that no open transaction holds back."""
        return max(self.producers.stable_offset(self.end_offset), self.start_offset)

    def append(
        self, batch: RecordBatch, ticket: Ticket | None, *, trusted: bool = False
    ) -> None:
        """Queue one batch until `MemoryLog.flush`."""
        base_offset = self._queue_end
        try:
            if self._closed is not None:
                raise self._closed
            check = check_trusted if trusted else check_batch
            check(batch, self.config, self._log.runtime.now_ms())
            sent = None
            if batch.producer_id >= 0:
                sent = self.producers.admit(batch, base_offset)
        except IsthmusError as error:
            if ticket is not None:
                # An answer, not an accident: its traceback would hold on to the batch.
                ticket.failed(error.with_traceback(None))
            return
        if not self._queue:
            self._log.touched.append(self)
        if sent is not None:
            self._queue.append((None, sent.base_offset, ticket))
            return
        batch.stamp(base_offset, self.leader_epoch)
        self._queue.append((batch, base_offset, ticket))
        self._queue_end = batch.next_offset

    def commit(self) -> None:
        """Make visible what was queued, then answer and wake."""
        queue, self._queue = self._queue, []
        for batch, _, _ in queue:
            if batch is not None:
                self._batches.append(batch)
                self._ends.append(batch.next_offset)
                self.size_bytes += batch.size
                self.end_offset = batch.next_offset
        self._retain()
        for aborted in self.producers.aborted:
            self._aborted.append(aborted)
        self.producers.settle()
        for _, base_offset, ticket in queue:
            if ticket is not None:
                ticket.written(base_offset)
        for _, _, ticket in queue:
            if ticket is not None and ticket.wants_durable:
                ticket.durable()
        self._wake()

    def _retain(self) -> None:
        """Drop the oldest batches of what is more than `retention.bytes`, not the newest."""
        left = self.size_bytes - self.config.retention_bytes
        if left <= 0 or self.config.retention_bytes < 0 or not self.config.deletes:
            return
        for batch in self._batches[:-1]:
            if left <= 0:
                break
            left -= batch.size
            self.start_offset = batch.next_offset
        self._drop_before_start()

    def _drop_before_start(self) -> None:
        gone = bisect_right(self._ends, self.start_offset)
        self.size_bytes -= sum(batch.size for batch in self._batches[:gone])
        del self._batches[:gone], self._ends[:gone]

    def read(
        self,
        offset: int,
        bytes_max: int,
        isolation: int = ISOLATION_WRITTEN,
        *,
        spans: bool = False,
    ) -> Records:
        """Return whole batches from the one that holds `offset` on."""
        self._check_readable()
        if not self.start_offset <= offset <= self.end_offset:
            raise OffsetOutOfRange(
                f"offset {offset} is not from {self.start_offset} to {self.end_offset}"
            )
        limit = self.end_offset if isolation == ISOLATION_WRITTEN else self.last_stable_offset
        buffers: list[memoryview] = []
        end = offset
        for batch in self._batches[bisect_right(self._ends, offset) :]:
            if batch.next_offset > limit or (buffers and batch.size > bytes_max):
                break
            buffers.append(batch.data)
            bytes_max -= batch.size
            end = batch.next_offset
        records = Records(buffers)
        if isolation == ISOLATION_DURABLE and buffers:
            found: list[tuple[int, int]] = []
            self._aborted.collect(offset, end, found)
            records.aborted = found
        return records

    def wait(
        self, offset: int, wake: Callable[[], None], isolation: int = ISOLATION_WRITTEN
    ) -> Callable[[], None]:
        """Call `wake` once when there is more to read."""
        cancel = self._waiters[isolation].park(offset, wake)
        end = self.end_offset if isolation == ISOLATION_WRITTEN else self.last_stable_offset
        if offset < end or self._closed is not None:
            self._log.runtime.defer(self._wake)
        return cancel

    def _wake(self) -> None:
        if self._closed is not None:
            self._waiters[ISOLATION_WRITTEN].wake_all()
            self._waiters[ISOLATION_DURABLE].wake_all()
            return
        self._waiters[ISOLATION_WRITTEN].wake(self.end_offset)
        self._waiters[ISOLATION_DURABLE].wake(self.last_stable_offset)

    def delete_before(self, offset: int, done: Callable[[IsthmusError | None], object]) -> None:
        """Let the partition begin at `offset`."""
        try:
            if self._closed is not None:
                raise self._closed
            self.start_offset = max(self.start_offset, check_start(self, offset))
        except IsthmusError as error:
            done(error.with_traceback(None))
            return
        self._drop_before_start()
        self._wake()
        done(None)

    def batches(self, offset: int) -> Iterator[RecordBatch]:
        """Yield all batches from the one that holds `offset` on."""
        return iter(self._batches[bisect_right(self._ends, offset) :])

    def offset_for_time(self, timestamp_ms: int, answer: TimeAnswer) -> None:
        """Find the first record at or after `timestamp_ms`."""
        answer(next((row for row in self._times() if row[1] >= timestamp_ms), None), None)

    def offset_for_max_time(self, answer: TimeAnswer) -> None:
        """Find the first record with the largest timestamp."""
        answer(max(self._times(), key=itemgetter(1), default=None), None)

    def _times(self) -> Iterator[tuple[int, int]]:
        """Yield (offset, timestamp) of all records."""
        for batch in self._batches:
            reader = RecordReader(batch)
            while reader.advance():
                if reader.offset >= self.start_offset:
                    yield reader.offset, reader.timestamp

    def epoch_at(self, offset: int) -> int:
        """Return the epoch in which `offset` was written; there is only the epoch 0."""
        return 0 if offset >= 0 else -1

    def epoch_end_offset(self, leader_epoch: int) -> tuple[int, int]:
        """Return (epoch, end offset); there is only the epoch 0."""
        return (0, self.end_offset) if leader_epoch >= 0 else (-1, -1)

    def close(self, error: IsthmusError) -> None:
        """Refuse all that comes from here on with `error` and wake who waits."""
        self._closed = error
        queue, self._queue = self._queue, []
        for _, _, ticket in queue:
            if ticket is not None:
                ticket.failed(error)
        self._wake()

    def _check_readable(self) -> None:
        if isinstance(self._closed, TopicUnknown):
            raise self._closed


class MemoryTopic:
    """A log topic and its partitions."""

    def __init__(self, name: str, topic_id: bytes, configs: Mapping[str, str]) -> None:
        self.name = name
        self.topic_id = topic_id
        self.configs: dict[str, str] = dict(configs)
        self.partitions: list[MemoryPartition] = []


class MemoryLog:
    """All log topics of one server, in memory."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.directory = "memory"
        self.cluster_id = urlsafe_b64encode(runtime.random_bytes(16)).rstrip(b"=").decode()
        self.error: StorageError | None = None
        self.topic_defaults: Mapping[str, str] = {}
        self.touched: list[MemoryPartition] = []
        self._topics: dict[str, MemoryTopic] = {}

    @property
    def trouble(self) -> StorageError | None:
        """Nothing passes by here: memory that ends ends the process."""
        return self.error

    @property
    def topics(self) -> Mapping[str, MemoryTopic]:
        """Log topics by name."""
        return self._topics

    def create(self, name: str, partitions: int, configs: Mapping[str, str]) -> MemoryTopic:
        """Create a log topic."""
        check_log_topic(name)
        if name in self._topics:
            raise TopicExists(f"log topic {name} exists")
        if partitions < 1:
            raise ConfigInvalid(f"a log topic has at least one partition, not {partitions}")
        TopicConfig(configs, self.topic_defaults)
        topic = MemoryTopic(name, self.runtime.random_bytes(16), configs)
        self._topics[name] = topic
        self.add_partitions(name, partitions)
        return topic

    def add_partitions(self, name: str, count: int) -> None:
        """Grow a log topic to `count` partitions."""
        topic = self._topic(name)
        if count <= len(topic.partitions):
            raise ConfigInvalid(f"{name} has {len(topic.partitions)} partitions, {count} asked")
        config = TopicConfig(topic.configs, self.topic_defaults)
        for index in range(len(topic.partitions), count):
            topic.partitions.append(MemoryPartition(self, name, index, config))

    def configure(self, name: str, configs: Mapping[str, str]) -> None:
        """Replace the settings of a log topic."""
        topic = self._topic(name)
        config = TopicConfig(configs, self.topic_defaults)
        topic.configs = dict(configs)
        for partition in topic.partitions:
            partition.config = config

    def set_topic_defaults(self, defaults: Mapping[str, str]) -> None:
        """Give other defaults to all log topics."""
        self.topic_defaults = dict(defaults)
        for topic in self._topics.values():
            config = TopicConfig(topic.configs, self.topic_defaults)
            for partition in topic.partitions:
                partition.config = config

    def delete(self, name: str) -> None:
        """Delete a log topic and its records."""
        topic = self._topic(name)
        del self._topics[name]
        for partition in topic.partitions:
            partition.close(TopicUnknown(f"log topic {name} was deleted"))

    def partition(self, name: str, index: int) -> MemoryPartition | None:
        """Return one partition, or None where it is not known."""
        topic = self._topics.get(name)
        if topic is None or not 0 <= index < len(topic.partitions):
            return None
        return topic.partitions[index]

    def volume(self) -> tuple[int, int]:
        """Return that no bound is known."""
        return -1, -1

    def measures(self) -> LogMeasures:
        """Return that there is no disk."""
        return LogMeasures()

    def flush(self) -> None:
        """Make visible what was appended since the last call."""
        touched, self.touched = self.touched, []
        for partition in touched:
            partition.commit()

    def close(self) -> None:
        """Answer what is queued; refuse what comes after."""
        self.flush()
        for topic in self._topics.values():
            for partition in topic.partitions:
                partition.close(LogClosed("the log is closed"))

    def _topic(self, name: str) -> MemoryTopic:
        topic = self._topics.get(name)
        if topic is None:
            raise TopicUnknown(f"no log topic {name}")
        return topic
