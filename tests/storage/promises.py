"""What a log has promised, and whether a disk keeps it.

`Promises` holds what was promised up to some moment. `examine` opens what a crash has left on a
disk, compares, and carries on with it: nothing that was acknowledged is lost or different,
nothing is there that never was, what was deleted stays so, producers and transactions are known
as the log knows them, and the next append, close and start are as ever. It looks through the
contract of the log only, so it holds whatever lies below.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, marker_of, read, read_batches
from tests.storage.transactions import read_transactions

from isthmus.record.batch import RecordBatch, split_batches
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.log import ISOLATION_DURABLE
from isthmus.storage.producers import ProducerTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.storage.disk import SimDisk

    from isthmus.storage.local.partition import LocalPartition

DIRECTORY = Path("/disk/data")
SETTINGS = LocalSettings(
    tail_bytes_max=2000,
    tails_bytes_max=6000,
    open_segments_max=3,
    checkpoint_bytes=4000,
    journal_file_bytes=16 * 1024,
    journal_files_max=3,
)
READ_BYTES = 1 << 20

Place = tuple[bytes, int]  # log topic's id, partition
Remark = tuple[Any, ...]


class KnownTopic(NamedTuple):
    topic_id: bytes
    partitions: int
    configs: dict[str, str]


class Promises:
    """What a log has told the world so far. Every method is one remark of a journal."""

    def __init__(self) -> None:
        self.topics: dict[str, KnownTopic] = {}
        self.changing: set[str] = set()  # log topics of which only the disk knows
        self.doubtful: set[str] = set()  # a change was refused that may come with a restart
        self.possible: dict[Place, dict[int, list[bytes]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.written: dict[Place, dict[int, bytes]] = defaultdict(dict)
        self.refused: set[bytes] = set()
        self.start: dict[Place, int] = defaultdict(int)  # what was deleted does not come back
        self.start_max: dict[Place, int] = defaultdict(int)  # asked, and perhaps done
        self.expiring: set[bytes] = set()  # ids of log topics that lose old segments
        self.compacted: set[bytes] = set()  # and of those that lose what was replaced
        self.durable_end: dict[Place, int] = defaultdict(int)
        self.stable: dict[Place, int] = defaultdict(int)  # readers of what is decided got here
        self.epochs: dict[Place, int] = {}
        self.weak: set[bytes] = set()  # ids of log topics that promised less, some time

    def apply(self, remark: Remark) -> None:
        getattr(self, remark[0])(*remark[1:])

    def change(self, name: str) -> None:
        self.changing.add(name)

    def settle(self, name: str, known: KnownTopic | None) -> None:
        self.changing.discard(name)
        self.doubtful.discard(name)
        if known is None:
            self.topics.pop(name, None)
            return
        self.topics[name] = known
        self.weaken(known.topic_id, known.configs)

    def doubt(self, name: str) -> None:
        self.doubtful.add(name)

    def weaken(self, topic_id: bytes, configs: dict[str, str]) -> None:
        """A log topic has settings that promise less, from now on at the latest."""
        if configs.get("isthmus.durability", "synced") != "synced":
            self.weak.add(topic_id)
        if "retention.bytes" in configs or "retention.ms" in configs:
            self.expiring.add(topic_id)
        if "compact" in configs.get("cleanup.policy", ""):
            self.compacted.add(topic_id)

    def ask_start(self, place: Place, offset: int) -> None:
        self.start_max[place] = max(self.start_max[place], offset)

    def begin_at(self, place: Place, offset: int) -> None:
        self.start[place] = max(self.start[place], offset)

    def queue(self, place: Place, base_offset: int, raw: bytes) -> None:
        self.possible[place][base_offset].append(raw)

    def write(self, place: Place, base_offset: int, raw: bytes) -> None:
        self.written[place][base_offset] = raw

    def refuse(self, raw: bytes) -> None:
        self.refused.add(raw)

    def be_durable(self, place: Place, end_offset: int) -> None:
        if place[0] not in self.weak:
            self.durable_end[place] = max(self.durable_end[place], end_offset)

    def be_stable(self, place: Place, offset: int) -> None:
        if place[0] not in self.weak:
            self.stable[place] = max(self.stable[place], offset)

    def be_led(self, place: Place, epoch: int) -> None:
        self.epochs[place] = epoch

    def expires(self, place: Place) -> bool:
        return place[0] in self.expiring

    def kept(self, place: Place, *, power_cut: bool) -> dict[int, bytes]:
        """Return the batches that have to be there after a crash, by base offset."""
        end = self.durable_end[place]
        return {
            base: raw
            for base, raw in self.written[place].items()
            if not power_cut or next_offset_of(raw) <= end
        }


def next_offset_of(raw: bytes) -> int:
    return RecordBatch(memoryview(raw)).next_offset


def examine(disk: SimDisk, promises: Promises, *, power_cut: bool, seed: int = 0) -> None:
    """Open what a crash has left, compare it with what was promised, and carry on with it."""
    log = LocalLog(DIRECTORY, SimRuntime(seed), disk, SETTINGS)
    for name, known in promises.topics.items():
        if name not in promises.changing:
            assert name in log.topics, f"{name} is lost"
            topic = log.topics[name]
            assert topic.topic_id == known.topic_id
            if name not in promises.doubtful:
                assert len(topic.partitions) == known.partitions
                assert topic.configs == known.configs
    unknown = set(log.topics) - set(promises.topics) - promises.changing - promises.doubtful
    assert not unknown, "what was deleted is back"
    before = {}
    for place, partition in _partitions(log):
        found = stored(partition)
        _compare(place, partition, found, promises, power_cut=power_cut)
        _check_producers(place, partition, promises)
        _check_transactions(place, partition, found, promises, power_cut=power_cut)
        before[place] = found
    after = _carry_on(log, before, promises, seed)
    log = LocalLog(DIRECTORY, SimRuntime(seed + 1), disk, SETTINGS)
    for place, partition in _partitions(log):
        assert stored(partition) == after[place]
        _check_producers(place, partition, promises)
        _check_transactions(place, partition, after[place], promises, power_cut=power_cut)
        assert partition.last_stable_offset == partition.end_offset, "all was ended"
    log.close()
    assert disk.open_count == 0


def stored(partition: LocalPartition) -> dict[int, bytes]:
    """Return all batches that a reader gets, by base offset, as they are stored."""
    found: dict[int, bytes] = {}
    offset = partition.start_offset
    while True:
        batches = read_batches(partition, offset, READ_BYTES)
        if not batches:
            return found
        for batch in batches:
            batch.verify()
            assert batch.next_offset > offset
            assert batch.base_offset not in found
            found[batch.base_offset] = bytes(batch.data)
            offset = batch.next_offset


def _partitions(log: LocalLog) -> Iterator[tuple[Place, LocalPartition]]:
    for topic in log.topics.values():
        for partition in topic.partitions:
            yield (topic.topic_id, partition.index), partition


def _compare(
    place: Place,
    partition: LocalPartition,
    found: dict[int, bytes],
    promises: Promises,
    *,
    power_cut: bool,
) -> None:
    start, kept = partition.start_offset, promises.kept(place, power_cut=power_cut)
    assert start >= promises.start[place], "what was deleted is back"
    if not promises.expires(place) and not power_cut:
        assert start <= promises.start_max[place]
    kept = {base: raw for base, raw in kept.items() if next_offset_of(raw) > start}
    if place[0] in promises.compacted:
        aborted = read_transactions(found | kept).aborted_batches
        _compare_records(found, kept, promises.possible[place], aborted)
    else:
        _compare_batches(place, partition, found, kept, promises, power_cut=power_cut)
    if not promises.written[place].items() <= found.items() and place[0] not in (
        promises.expiring | promises.compacted
    ):
        assert partition.leader_epoch > promises.epochs[place] or start > 0
    assert partition.leader_epoch >= promises.epochs.get(place, 0)


def _compare_batches(
    place: Place,
    partition: LocalPartition,
    found: dict[int, bytes],
    kept: dict[int, bytes],
    promises: Promises,
    *,
    power_cut: bool,
) -> None:
    """Compare byte by byte: every batch is as it came."""
    for base, raw in kept.items():
        assert base in found, f"offset {base} is lost (to {partition.end_offset})"
        assert found[base] == raw, f"offset {base} is another batch"
    possible = promises.possible[place]
    next_offset = partition.start_offset
    for base, raw in found.items():
        assert raw in possible[base], f"offset {base} was never written"
        assert power_cut or raw not in promises.refused, "refused, and there all the same"
        if base > next_offset:
            assert power_cut, "a gap"
            assert next_offset >= promises.durable_end[place]
        next_offset = next_offset_of(raw)
    assert partition.end_offset == partition.durable_offset == next_offset


def _compare_records(
    found: dict[int, bytes],
    kept: dict[int, bytes],
    possible: dict[int, list[bytes]],
    aborted: set[int],
) -> None:
    """Compare record by record: the newest of each key is there, and nothing that never was.

    What was aborted may have gone, and has replaced nothing; so with the markers.
    """
    allowed = {
        record for raws in possible.values() for raw in raws for record in _records_of(raw)
    }
    newest: dict[bytes | None, int] = {}
    for base, raw in found.items():
        for record in _records_of(raw):
            assert record in allowed, f"{record} was never written"
            if base not in aborted:
                newest[record[1]] = record[0]
    for base, raw in kept.items():
        decides = base in aborted or RecordBatch(memoryview(raw)).is_control
        for offset, key, _ in () if decides else _records_of(raw):
            assert newest.get(key, -1) >= offset, f"the newest record of {key!r} is lost"


def _records_of(raw: bytes) -> list[tuple[int, bytes | None, bytes | None]]:
    batch = RecordBatch(memoryview(raw))
    return [(record.offset, record.key, record.value) for record in batch.records()]


def _check_producers(place: Place, partition: LocalPartition, promises: Promises) -> None:
    replayed = ProducerTable()
    for batch in partition.batches(partition.start_offset):  # with those that no reader gets
        replayed.replay(batch)
    if partition.start_offset == 0 and place[0] not in promises.compacted:
        assert dict(partition.producers) == dict(replayed), f"producers of {place}"
    for producer_id, known in replayed:  # more may be known than the log still holds
        held = partition.producers.get(producer_id)
        assert held.epoch == known.epoch
        assert not known.batches or held.batches[-1] == known.batches[-1]


def _check_transactions(
    place: Place,
    partition: LocalPartition,
    found: dict[int, bytes],
    promises: Promises,
    *,
    power_cut: bool,
) -> None:
    """What is open and what was aborted is what the batches say.

    A transaction that began before the start may be known as it was, or as what is left of it.
    """
    start, stable = partition.start_offset, partition.last_stable_offset
    assert stable >= promises.stable[place], "what was decided is so no more"
    kept = promises.kept(place, power_cut=power_cut)
    is_compacted = place[0] in promises.compacted
    left = read_transactions(found | kept if is_compacted else found)
    deleted = {base: raw for base, raw in promises.written[place].items() if base < start}
    whole = read_transactions(deleted | found | kept if is_compacted else deleted | found)
    first, last = (
        min(each.open.values(), default=partition.end_offset) for each in (whole, left)
    )
    assert max(start, first) <= stable <= max(start, last), f"not from {first} to {last}"
    if is_compacted or left.aborted != [
        row for row in whole.aborted if row.last_offset >= start
    ]:
        return  # what was aborted may be gone, and with it the need to tell of it
    for base in sorted(base for base in found if start <= base < stable):
        records = read(partition, base, 1, ISOLATION_DURABLE)
        (batch,) = split_batches(b"".join(records.buffers))
        assert batch.base_offset == base
        expected = [
            (row.producer_id, row.first_offset)
            for row in left.aborted
            if row.last_offset >= base and row.first_offset < batch.next_offset
        ]
        assert sorted(records.aborted) == sorted(expected), f"aborted at {base}"


def _carry_on(
    log: LocalLog, before: dict[Place, dict[int, bytes]], promises: Promises, seed: int
) -> dict[Place, dict[int, bytes]]:
    """Append to every partition, ask for old batches again, and close the log in order."""
    answers: list[Answer] = []
    after = {place: dict(found) for place, found in before.items()}
    now_ms = log._runtime.now_ms()
    for place, partition in _partitions(log):
        newest = {}
        for base, raw in before[place].items():
            batch = RecordBatch(memoryview(bytearray(raw)))
            if not batch.is_control:
                newest[batch.producer_id] = (base, batch)
        for producer, (base, batch) in newest.items():
            as_sent = not batch.log_append_time and place[0] not in promises.compacted
            known = partition.producers.get(producer)
            if known is not None and known.epoch == batch.producer_epoch and as_sent:
                answers.append(Answer())
                partition.append(batch, answers[-1])
                log.flush()
                assert answers[-1].base_offset == base, f"a retry: {answers[-1].error}"
        for producer in (-1, 7):
            known = partition.producers.get(producer)
            sequence = -1 if producer < 0 else 0 if known is None else known.last_sequence + 1
            numbered = {
                "producer_id": producer,
                "epoch": min(producer, 0),
                "sequence": sequence,
            }
            batch = batch_of(b"%d" % seed, keys=[b"k"], timestamp=now_ms, **numbered)
            answers.append(Answer())
            partition.append(batch, answers[-1])
            assert batch.base_offset >= promises.durable_end[place]
            after[place][batch.base_offset] = bytes(batch.data)
        for producer, known in list(partition.producers):  # as their coordinator does
            if known.transaction_start >= 0:
                marker = marker_of(
                    producer,
                    commits=bool(seed % 2),
                    epoch=known.epoch,
                    coordinator_epoch=max(known.coordinator_epoch, 0),
                    timestamp=now_ms,
                )
                answers.append(Answer())
                partition.append(marker, answers[-1], trusted=True)
                after[place][marker.base_offset] = bytes(marker.data)
    log.flush()
    log.close()
    assert all(answer.is_durable for answer in answers), [each.error for each in answers]
    return after
