"""Random lives of a whole log, and what it promised in them.

`Life` uses a `LocalLog` in every way that its contract has, by seed: many partitions, rolls,
producers, transactions and retries, log topics that come, grow, change and go, orderly ends and
others. It
goes on after errors, as a server that stays up does, and says what was promised as it goes:
`promises.py` compares that with what a crash leaves.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.storage.batches import Answer, batch_of, marker_of, read_batches
from tests.storage.promises import (
    DIRECTORY,
    READ_BYTES,
    SETTINGS,
    KnownTopic,
    Place,
    Promises,
    next_offset_of,
)
from tests.storage.stepping import SteppingRuntime

from isthmus.errors import ConfigError, IsthmusError, StorageError, SyncFailed
from isthmus.record.batch import RecordBatch
from isthmus.storage.local.log import LocalLog

if TYPE_CHECKING:
    from tests.storage.disk import SimDisk

    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.settings import LocalSettings

SMALL = {"internal.segment.bytes": "1500", "index.interval.bytes": "200"}
COMPACTED = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "100000",
}
TRANSACTIONAL = (9, 10)  # producer ids
KEYS = tuple(b"key-%d" % number for number in range(6))
SETS_OF_CONFIGS: tuple[dict[str, str], ...] = (
    {},
    SMALL,
    {**SMALL, "segment.ms": "60000"},
    {**SMALL, "message.timestamp.type": "LogAppendTime"},
    {**SMALL, "isthmus.durability": "written"},
    {**SMALL, "isthmus.durability": "written", "flush.messages": "4"},
    {"isthmus.durability": "memory"},
    {**SMALL, "retention.bytes": "3000"},
    {**SMALL, "retention.ms": "100000"},
    {**SMALL, **COMPACTED},
    {**SMALL, **COMPACTED, "cleanup.policy": "compact,delete", "retention.bytes": "6000"},
)


class LifeTicket(Answer):
    """A ticket that passes on what it hears as a promise."""

    def __init__(self, life: Life, place: Place, raw: bytes, *, wants_durable: bool) -> None:
        super().__init__(wants_durable=wants_durable)
        self._life = life
        self._place = place
        self.sent = self.raw = raw
        self.next_offset = -1

    def written(self, base_offset: int) -> None:
        super().written(base_offset)
        self._life.say("write", self._place, base_offset, self.raw)

    def durable(self) -> None:
        super().durable()
        self._life.say("be_durable", self._place, self.next_offset)

    def failed(self, error: IsthmusError) -> None:
        if not self.events:
            self._life.say("refuse", self.raw)
        super().failed(error)


class RetryTicket(Answer):
    """A ticket for a batch that is in the log already, or on its way there."""

    def __init__(self, first: LifeTicket) -> None:
        super().__init__()
        self.first = first

    def written(self, base_offset: int) -> None:
        super().written(base_offset)
        assert base_offset == self.first.base_offset, "a retry is answered as the first time"


class Life:
    """See the head of this file. `say` collects promises, in `journal` too if there is one."""

    def __init__(self, seed: int, disk: SimDisk, settings: LocalSettings = SETTINGS) -> None:
        self.disk = disk
        self.promises = Promises()
        self.tickets: list[Answer] = []
        self.log: LocalLog | None = None
        self._chance = random.Random(seed)
        self._settings = settings
        self._number = 0
        self._now_ms = 1_700_000_000_000
        self._last: dict[tuple[Place, int], LifeTicket] = {}  # newest batch of a producer
        self._unasked: list[tuple[LocalPartition, Place, bytes]] = []  # without a ticket
        self.runtime = SteppingRuntime(self._chance, disk)

    def say(self, *remark: Any) -> None:
        self.promises.apply(remark)
        if self.disk.journal is not None:
            self.disk.journal.remark(remark)

    def live(self, steps: int, *, close: bool = True) -> None:
        """Begin, do `steps` things, and end in order, or in the middle of it all."""
        self.start()
        for _ in range(3 if self.log is not None else 0):
            self.create()
        for _ in range(steps):
            if self.log is None:
                self.start()
            if self.log is not None:
                self._do_something()
        if not close:
            self.kill()
        elif self.log is not None:
            self.close()

    def _check_answered(self) -> None:
        """Nobody waits for ever: not for an answer, and not for the second half of one."""
        for ticket in self.tickets:
            assert ticket.events, "never answered"
            if ticket.wants_durable:
                assert ticket.events[-1] in ("durable", "failed"), "written, and then nothing"

    def _do_something(self) -> None:
        actions = {
            self.append: 30,
            self.end_transaction: 8,
            self.flush: 20,
            self.runtime.turn: 10,
            self.runtime.step: 10,
            self.runtime.settle: 6,
            self.create: 4,
            self.delete: 2,
            self.grow: 2,
            self.configure: 2,
            self.pass_time: 3,
            self.delete_records: 2,
            self.read: 4,
            self.restart: 1,
            self.kill: 1,
        }
        (action,) = self._chance.choices(list(actions), list(actions.values()))
        action()
        self._note_durable()

    # --- starts and ends ----------------------------------------------------------------------

    def start(self) -> None:
        self.runtime.interleaving = True
        with suppress(ConfigError, StorageError):
            self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self._settings)
        if self.log is None:
            self.kill()
            return
        for name, topic in self.log.topics.items():
            if name in self.promises.changing | self.promises.doubtful:
                self._settle(name)
            self._note_epochs(name)
            assert topic.topic_id == self.promises.topics[name].topic_id
        for name in self.promises.changing - set(self.log.topics):
            self.say("settle", name, None)

    def restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        assert self.log is not None
        self.flush()
        self.runtime.finish_begun()
        self.runtime.interleaving = False
        for name, topic in self.log.topics.items():
            for partition in topic.partitions:
                assert partition.log_topic == name
        self.log.close()
        self.runtime.settle()
        assert self.disk.open_count == 0, "a file was left open"
        for name, topic in self.log.topics.items():
            for partition in topic.partitions:
                if self.log.error is None:
                    self._note_end((topic.topic_id, partition.index), partition)
            assert name
        self.log = None
        self._check_answered()
        self.tickets.clear()

    def kill(self) -> None:
        self.runtime.kill()
        self.log = None
        self._unasked.clear()
        self._last.clear()
        self.tickets.clear()
        before = self.disk
        self.disk = before.kill()
        for name in ("fail_at", "fail_count", "fail_with", "fail_only", "short", "calls"):
            setattr(self.disk, name, getattr(before, name))
        self.runtime = SteppingRuntime(self._chance, self.disk)

    # --- log topics ---------------------------------------------------------------------------

    def create(self) -> None:
        log = self._log
        name = f"t{self._chance.randrange(5)}"
        if name in log.topics:
            return
        configs = self._chance.choice(SETS_OF_CONFIGS)
        with self._changing(name):
            log.create(name, self._chance.choice((1, 1, 2, 5)), configs)

    def delete(self) -> None:
        name = self._a_topic()
        if name is not None:
            with self._changing(name):
                self._log.delete(name)

    def grow(self) -> None:
        name = self._a_topic()
        if name is not None:
            count = len(self._log.topics[name].partitions) + self._chance.randint(1, 2)
            if count <= 8:
                with self._changing(name):
                    self._log.add_partitions(name, count)

    def configure(self) -> None:
        name = self._a_topic()
        if name is not None:
            configs = self._chance.choice(SETS_OF_CONFIGS)
            self.say("weaken", self._log.topics[name].topic_id, configs)
            with self._changing(name):
                self._log.configure(name, configs)

    def _changing(self, name: str) -> _Change:
        return _Change(self, name)

    def _settle(self, name: str) -> None:
        """A log topic is what the log says it is."""
        topic = self._log.topics.get(name)
        known = None
        if topic is not None:
            known = KnownTopic(topic.topic_id, len(topic.partitions), dict(topic.configs))
        self.say("settle", name, known)
        self._note_epochs(name)

    def _note_epochs(self, name: str) -> None:
        topic = self._log.topics.get(name)
        for partition in topic.partitions if topic is not None else ():
            place = (topic.topic_id, partition.index)
            if self.promises.epochs.get(place) != partition.leader_epoch:
                self.say("be_led", place, partition.leader_epoch)

    # --- records ------------------------------------------------------------------------------

    def append(self) -> None:
        for _ in range(self._chance.choice((1, 1, 2, 6))):
            partition, place = self._a_partition()
            if partition is None:
                return
            producer = self._chance.choice((-1, -1, 7, 8, *TRANSACTIONAL))
            last = self._last.get((place, producer))
            is_there = last is not None and last.error is None
            if producer >= 0 and is_there and self._chance.random() < 0.2:
                retry = RetryTicket(last)
                self.tickets.append(retry)
                partition.append(RecordBatch(memoryview(bytearray(last.sent))), retry)
            else:
                self._append(partition, place, producer)

    def _append(self, partition: LocalPartition, place: Place, producer: int) -> None:
        values = []
        for _ in range(self._chance.choice((1, 1, 3))):
            self._number += 1
            size = self._chance.choice((0, 40, 40, 200, 200, 1000))
            values.append(b"%d-" % self._number + self._chance.randbytes(size))
        numbered = {}
        if producer >= 0:
            known = partition.producers.get(producer)
            epoch, sequence = (
                (0, 0) if known is None else (known.epoch, known.last_sequence + 1)
            )
            numbered = {"producer_id": producer, "epoch": epoch, "sequence": sequence}
        keys = self._chance.choices(KEYS, k=len(values))
        batch = batch_of(
            *values,
            keys=keys,
            timestamp=self.runtime.now_ms(),
            transactional=producer in TRANSACTIONAL,
            **numbered,
        )
        ticket = self._send(partition, place, batch)
        if producer >= 0 and ticket is not None and ticket.error is None:
            self._last[place, producer] = ticket

    def end_transaction(self) -> None:
        """Commit or abort, sometimes with the next epoch (KIP-890)."""
        partition, place = self._a_partition()
        for producer in TRANSACTIONAL if partition is not None else ():
            known = partition.producers.get(producer)
            if known is None or known.transaction_start < 0:
                continue
            epoch = known.epoch + self._chance.choice((0, 0, 1))
            marker = marker_of(
                producer,
                commits=self._chance.random() < 0.5,
                epoch=epoch,
                coordinator_epoch=max(known.coordinator_epoch, 0),
                timestamp=self.runtime.now_ms(),
            )
            self._send(partition, place, marker, trusted=True)
            if epoch > known.epoch:
                self._last.pop((place, producer), None)

    def _send(
        self,
        partition: LocalPartition,
        place: Place,
        batch: RecordBatch,
        *,
        trusted: bool = False,
    ) -> LifeTicket | None:
        asked = self._chance.choice((True, True, True, False, None))
        ticket = None
        if asked is None:
            partition.append(batch, None, trusted=trusted)
            self._unasked.append((partition, place, bytes(batch.data)))
        else:
            ticket = LifeTicket(self, place, bytes(batch.data), wants_durable=asked)
            self.tickets.append(ticket)
            partition.append(batch, ticket, trusted=trusted)
            ticket.raw = bytes(batch.data)  # the offset and the epoch are in it now
            ticket.next_offset = batch.next_offset
        self.say("queue", place, batch.base_offset, bytes(batch.data))
        return ticket

    def flush(self) -> None:
        self._log.flush()
        for partition, place, raw in self._unasked:
            batch = RecordBatch(memoryview(raw))
            if self.promises.written[place].get(batch.base_offset) is not None:
                continue  # refused, and the next one got its place
            if batch.next_offset <= partition.end_offset:
                self.say("write", place, batch.base_offset, raw)
        self._unasked.clear()
        for topic in self._log.topics.values():
            for partition in topic.partitions:
                self._check_written((topic.topic_id, partition.index), partition)

    def _check_written(self, place: Place, partition: LocalPartition) -> None:
        written = self.promises.written[place]
        if written:
            assert partition.end_offset >= next_offset_of(written[max(written)])

    def read(self) -> None:
        partition, place = self._a_partition()
        if partition is None or partition.start_offset == partition.end_offset:
            return
        offset = self._chance.randrange(partition.start_offset, partition.end_offset)
        with suppress(StorageError):
            for batch in read_batches(
                partition, offset, self._chance.choice((1, 500, READ_BYTES))
            ):
                if place[0] not in self.promises.compacted:
                    assert self.promises.written[place][batch.base_offset] == batch.data

    def delete_records(self) -> None:
        partition, place = self._a_partition()
        if partition is None:
            return
        offset = self._chance.randint(partition.start_offset, partition.end_offset)
        self.say("ask_start", place, offset)

        def done(error: IsthmusError | None) -> None:
            if error is None:
                assert partition.start_offset >= offset
                self.say("begin_at", place, offset)

        partition.delete_before(offset, done)
        self.runtime.defer(self.flush)

    def pass_time(self) -> None:
        self.runtime.advance(self._chance.choice((10, 1000, 70_000)))

    def _note_durable(self) -> None:
        """Readers of what is durable have seen it, whoever asked for it."""
        for topic in self._log.topics.values() if self.log is not None else ():
            for partition in topic.partitions:
                self._note_end((topic.topic_id, partition.index), partition)

    def _note_end(self, place: Place, partition: LocalPartition) -> None:
        if partition.durable_offset > self.promises.durable_end[place]:
            self.say("be_durable", place, partition.durable_offset)
        stable = partition.last_stable_offset
        assert stable >= self.promises.stable[place], "the last stable offset moved back"
        if stable > self.promises.stable[place]:
            self.say("be_stable", place, stable)

    # --- chance -------------------------------------------------------------------------------

    @property
    def _log(self) -> LocalLog:
        assert self.log is not None
        return self.log

    def _a_topic(self) -> str | None:
        names = sorted(self._log.topics)
        return self._chance.choice(names) if names else None

    def _a_partition(self) -> tuple[LocalPartition | None, Place]:
        name = self._a_topic()
        if name is None:
            return None, (b"", 0)
        topic = self._log.topics[name]
        partition = self._chance.choice(topic.partitions)
        return partition, (topic.topic_id, partition.index)


class _Change:
    """While it lasts nobody knows what a crash leaves of a log topic; a context manager."""

    def __init__(self, life: Life, name: str) -> None:
        self._life = life
        self._name = name

    def __enter__(self) -> None:
        self._life.say("change", self._name)

    def __exit__(self, kind: Any, error: Any, _: Any) -> bool:
        if not isinstance(error, SyncFailed):  # then only the next start will know
            self._life._settle(self._name)
        if isinstance(error, StorageError):
            self._life.say("doubt", self._name)
        return isinstance(error, IsthmusError)
