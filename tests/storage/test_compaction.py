"""Compaction through the log: what readers find before, while and after it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import (
    NOW_MS,
    Answer,
    batch_of,
    find_time,
    read,
    read_batches,
)
from tests.storage.disk import SimDisk

from isthmus.record.batch import split_batches
from isthmus.record.markers import EndMarker, build_marker
from isthmus.record.rebuild import delete_horizon
from isthmus.storage.local import compaction
from isthmus.storage.local.compaction import INTERVAL_MS
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

NO_TAIL = LocalSettings(tail_bytes_max=0)
COMPACTED = {
    "cleanup.policy": "compact",
    "internal.segment.bytes": "2000",
    "index.interval.bytes": "200",
}


class Server:
    """A log in a directory with one compacted log topic."""

    def __init__(self, path, configs=None, settings=NO_TAIL, files=None, runtime=None):
        self.path = path
        self.settings = settings
        self.runtime = runtime or SimRuntime()
        self.start(files)
        self.log.create("t", 1, COMPACTED | (configs or {}))

    def start(self, files=None):
        self.log = LocalLog(self.path, self.runtime, files, self.settings)
        return self

    @property
    def partition(self):
        return self.log.partition("t", 0)

    @property
    def logs(self):
        return sorted(self.path.glob("t-0/*.log"))

    def put(self, *pairs, **how):
        answer = Answer()
        keys, values = zip(*pairs, strict=True)
        how.setdefault("timestamp", self.runtime.now_ms())
        self.partition.append(batch_of(*values, keys=keys, **how), answer)
        self.log.flush()
        self.runtime.settle()
        assert answer.is_durable, answer.error
        return answer.base_offset

    def fill(self):
        """Write a segment or two that nobody asks about."""
        for _ in range(3):
            self.put((b"filler", bytes(1500)))

    def compact(self):
        self.runtime.advance(INTERVAL_MS)

    def records(self):
        """All (offset, key, value) that a reader from the beginning gets."""
        found = []
        offset = self.partition.start_offset
        while offset < self.partition.end_offset:
            batches = read_batches(self.partition, offset, 1 << 20)
            assert batches
            for batch in batches:
                batch.verify()
                assert batch.next_offset > offset
                found += [(each.offset, each.key, each.value) for each in batch.records()]
                offset = batch.next_offset
        return [row for row in found if row[1] != b"filler"]


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path / "data")


def test_the_newest_of_each_key_stays_at_its_offset(server):
    for number in range(40):
        server.put((b"k%d" % (number % 4), b"%d" % number), (b"once%d" % number, b"x" * 90))
    server.fill()
    before = server.records()
    server.compact()
    newest = {key: (offset, key, value) for offset, key, value in before}
    assert server.records() == sorted(newest.values())
    assert len(server.records()) == 44
    server.log.close()
    assert server.start().records() == sorted(newest.values())


def test_what_was_replaced_is_read_as_a_gap(server):
    for number in range(30):
        server.put((b"a", b"%d" % number + bytes(150)))
    end = server.partition.end_offset
    server.fill()
    server.compact()
    (kept,) = server.records()
    assert kept[0] == end - 1
    for offset in range(end):
        first = read_batches(server.partition, offset, 1)[0]
        assert first.base_offset <= kept[0] <= first.last_offset


def test_a_reader_gets_more_than_the_batches_that_tell_of_producers(server):
    """kafkajs goes on only where it gets a record, and else asks for the same for ever."""
    value = bytes(1500)  # a segment for each
    for producer_id in (5, 6, 7):
        server.put((b"a", value), producer_id=producer_id, epoch=0, sequence=0)
    server.put((b"b", value))
    server.compact()
    stored = split_batches(b"".join(path.read_bytes() for path in server.logs))
    assert [batch.count for batch in stored] == [0, 0, 1, 1]
    for offset in range(3):
        assert read_batches(server.partition, offset, 1)[0].base_offset == 2


def test_the_newest_in_memory_are_read_as_they_are_compacted(tmp_path):
    server = Server(tmp_path / "data", settings=LocalSettings())
    for number in range(30):
        server.put((b"a", b"%d" % number + bytes(150)), (b"b%d" % number, b""))
    server.fill()
    before = server.log._shared.tails.total_bytes
    server.compact()
    assert [row[1] for row in server.records()].count(b"a") == 1
    assert 0 < server.log._shared.tails.total_bytes < before // 2
    assert server.partition.tail.cost_bytes == server.log._shared.tails.total_bytes


def test_times_are_found_in_what_is_left(server):
    times = {}
    for number in range(30):
        key = b"k%d" % (number % 3)
        times[key] = (server.put((key, bytes(150))), server.runtime.now_ms())
        server.runtime.advance(1000)
    server.fill()
    server.compact()
    oldest = min(times.values())
    assert find_time(server.partition, 0) == oldest
    for offset, when in times.values():
        assert find_time(server.partition, when) == (offset, when)
    server.log.close()
    server.start()
    for offset, when in times.values():
        assert find_time(server.partition, when) == (offset, when)


def test_small_segments_become_one(server):
    for number in range(60):
        server.put((b"a", b"%d" % number + bytes(300)))
    for _ in range(2):  # neighbours go together by the sizes that they had
        server.fill()
        assert len(server.partition.segments) > 8
        server.compact()
    assert len(server.partition.segments) <= 5
    sizes = [path.stat().st_size for path in server.path.glob("t-0/*.log")]
    assert sum(sizes) == server.partition.size_bytes


def test_a_batch_that_loses_nothing_keeps_its_bytes(server):
    server.put((b"a", b"1"), (b"b", b"2"), compression=4)
    before = bytes(read(server.partition, 0, 1).buffers[0])
    server.put((b"c", b"3"))
    server.put((b"c", b"4"))
    server.fill()
    server.compact()
    assert [row[0] for row in server.records()] == [0, 1, 3]
    assert bytes(read(server.partition, 0, 1).buffers[0]) == before


def test_what_is_clean_is_not_rewritten(server):
    server.put(*((b"%d" % number, bytes(50)) for number in range(30)))
    server.fill()
    before = {path: path.stat().st_ino for path in server.path.glob("t-0/*.log")}
    server.compact()
    clean = server.partition.segments.clean_offset
    assert clean >= 30
    after = {path: path.stat().st_ino for path in server.path.glob("t-0/*.log")}
    first = min(before)
    assert after[first] == before[first]


@pytest.mark.parametrize("kind", ["young", "dirty_ratio", "open_transaction", "not_compacted"])
def test_what_is_not_to_be_compacted_is_left_alone(tmp_path, kind):
    configs = {
        "young": {"min.compaction.lag.ms": "3600000"},
        "dirty_ratio": {"min.cleanable.dirty.ratio": "1.0"},
        "open_transaction": {},
        "not_compacted": {"cleanup.policy": "delete"},
    }
    server = Server(tmp_path / "data", configs[kind])
    if kind == "open_transaction":
        server.put((b"t", b"t"), producer_id=1, epoch=0, sequence=0, transactional=True)
    for number in range(30):
        server.put((b"a", b"%d" % number + bytes(150)))
    server.fill()
    before = server.records()
    server.compact()
    assert server.records() == before
    if kind == "young":
        server.runtime.advance(3_600_000)
    elif kind == "open_transaction":
        marker = build_marker(1, 0, EndMarker(True, 0), server.runtime.now_ms())
        server.partition.append(marker, None, trusted=True)
        server.put((b"b", b""))
    else:
        server.log.configure("t", COMPACTED)
    server.compact()
    assert len(server.records()) < len(before)


def test_max_compaction_lag_goes_before_the_ratio(tmp_path):
    configs = {"min.cleanable.dirty.ratio": "1.0", "max.compaction.lag.ms": "600000"}
    server = Server(tmp_path / "data", configs)
    for number in range(30):
        server.put((b"a", b"%d" % number + bytes(150)))
    server.fill()
    server.compact()
    assert len(server.records()) == 30
    server.runtime.advance(600_000)
    server.put((b"a", b"new"))  # the active segment is older than max.compaction.lag.ms
    server.compact()
    assert len(server.records()) == 2


def test_tombstones_are_there_for_as_long_as_they_are_to_be(tmp_path):
    server = Server(tmp_path / "data", {"delete.retention.ms": "7200000"})
    server.put((b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
    tombstone = server.put((b"a", None))
    server.fill()
    server.compact()
    first_ms = server.runtime.now_ms()
    assert [row[1:] for row in server.records()] == [(b"b", b"2"), (b"c", b"3"), (b"a", None)]
    (batch,) = read_batches(server.partition, tombstone, 1)
    assert delete_horizon(batch) == first_ms + 7_200_000
    assert batch.records()[0].timestamp == NOW_MS
    for when, is_there in ((7_199_999, True), (7_200_000, False)):
        server.runtime.set_forward(first_ms + when - server.runtime.now_ms() - INTERVAL_MS)
        server.fill()
        server.compact()
        assert ((tombstone, b"a", None) in server.records()) is is_there


def test_compact_and_delete_together(tmp_path):
    configs = {"cleanup.policy": "compact,delete", "retention.ms": "86400000"}
    server = Server(tmp_path / "data", configs)
    for number in range(30):
        server.put((b"old%d" % (number % 3), b"%d" % number + bytes(150)))
    server.fill()
    server.compact()
    assert len(server.records()) == 3
    server.runtime.advance(86_400_000 // 2)
    for number in range(30):
        server.put((b"new%d" % (number % 3), b"%d" % number + bytes(150)))
    server.fill()
    server.compact()
    server.runtime.advance(86_400_000 * 2 // 3)
    assert {row[1][:3] for row in server.records()} == {b"new"}
    server.log.close()
    assert {row[1][:3] for row in server.start().records()} == {b"new"}


def test_a_damaged_log_is_left_alone_and_said_once(server, caplog):
    for number in range(30):
        server.put((b"a", b"%d" % number + bytes(150)))
    server.fill()
    path = min(server.path.glob("t-0/*.log"))
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    sizes = {each: each.stat().st_size for each in server.path.glob("t-0/*.log")}
    server.compact()
    server.compact()
    assert sizes == {each: each.stat().st_size for each in server.path.glob("t-0/*.log")}
    assert sum("is not compacted" in each.message for each in caplog.records) == 1
    assert not list(server.path.glob("t-0/*.cleaned"))


def test_a_gap_where_nothing_was_compacted_is_damage(server, caplog):
    for number in range(12):
        server.put((b"%d" % number, bytes(150)))
    path = min(server.path.glob("t-0/*.log"))
    data = path.read_bytes()
    size = read_batches(server.partition, 0, 1)[0].size
    server.log.close()
    path.write_bytes(data[:size] + data[2 * size :])
    path.with_suffix(".index").unlink()
    server.start()
    assert [row[0] for row in server.records()] == [0, *range(3, 12)]
    assert "is damaged" in caplog.text


# --- what happens meanwhile -------------------------------------------------------------------


class Run:
    """The job of compaction, taken a step at a time, each about one batch long."""

    def __init__(self, server, monkeypatch):
        monkeypatch.setattr(compaction, "SLICE_COST", 1)
        self.steps = server.log._compactor.run()
        self.is_over = False
        self._outcome = (None, None)

    def step(self):
        (result, error), self._outcome = self._outcome, (None, None)
        try:
            piece = self.steps.send(result) if error is None else self.steps.throw(error)
            if piece is not None:
                self._outcome = (piece(), None)
        except StopIteration:
            self.is_over = True
        except (OSError, compaction.Overtaken) as error:
            self._outcome = (None, error)


def filled(path, **configs):
    server = Server(path, configs)
    for number in range(24):
        server.put((b"k%d" % (number % 3), b"%d" % number + bytes(150)))
    server.fill()
    return server


def test_readers_and_writers_go_on_meanwhile(tmp_path, monkeypatch):
    server = filled(tmp_path / "data")
    newest = {row[1]: row for row in server.records()}
    run, count = Run(server, monkeypatch), 0
    sizes = set()
    while not run.is_over:
        run.step()
        rows = server.records()
        assert {row[1]: row for row in rows} == newest
        assert [row[0] for row in rows] == sorted({row[0] for row in rows})
        sizes.add(len(rows))
        count += 1
        if count % 5 == 0:
            offset = server.put((b"new%d" % count, b"x"))
            newest[b"new%d" % count] = (offset, b"new%d" % count, b"x")
    assert count > 30
    assert len(sizes) > 3


@pytest.mark.parametrize("end", ["delete", "close"])
def test_it_can_end_at_any_step(tmp_path, monkeypatch, end):
    step, is_over = 0, False
    while not is_over:
        server = filled(tmp_path / str(step))
        newest = {row[1]: row for row in server.records()}
        run = Run(server, monkeypatch)
        for _ in range(step):
            run.step()
        is_over = run.is_over
        if end == "delete":
            server.log.delete("t")
            server.log.create("t", 1, COMPACTED)
            offset = server.put((b"a", b"1"))
            while not run.is_over:
                run.step()
            assert server.records() == [(offset, b"a", b"1")]
            server.log.close()
        else:
            run.steps.close()
            server.log.close()
            server.start()
            assert {row[1]: row for row in server.records()} == newest
            server.compact()
            assert server.records() == sorted(newest.values())
        names = [path.name for path in server.path.glob("t-0/*")]
        assert not [name for name in names if name.endswith((".cleaned", ".swap"))]
        assert not server.log._shared.open_segments._open or end == "close"
        step += 3
    assert step > 30


def test_a_segment_that_retention_takes_meanwhile_is_not_brought_back(tmp_path, monkeypatch):
    server = filled(tmp_path / "data", **{"cleanup.policy": "compact,delete"})
    run = Run(server, monkeypatch)
    while not list(server.path.glob("t-0/*.cleaned")):
        run.step()
    told = []
    server.partition.delete_before(server.partition.end_offset - 1, told.append)
    server.runtime.settle()
    assert told == [None]
    before = server.partition.start_offset
    while not run.is_over:
        run.step()
    assert server.partition.start_offset == before
    assert not list(server.path.glob("t-0/*.swap"))
    assert all(row[0] >= before for row in server.records())
    server.log.close()
    server.start()
    assert all(row[0] >= before for row in server.records())


READING = {"pread", "read_file", "read_last", "open", "size", "modified_ms"}


class WatchedRuntime(SimRuntime):
    """Knows whether it is on the loop."""

    is_on_loop = True

    def offload(self, work, done):
        def watched():
            self.is_on_loop = False
            try:
                return work()
            finally:
                self.is_on_loop = True

        super().offload(watched, done)


@pytest.mark.parametrize(
    "lags",
    [{}, {"min.compaction.lag.ms": "1", "max.compaction.lag.ms": "3600000"}],
    ids=["any age", "by age"],
)
def test_the_loop_reads_nothing_for_it(lags):
    disk, runtime = SimDisk(), WatchedRuntime()
    server = Server(Path("/disk/data"), lags, files=disk, runtime=runtime)
    for number in range(40):
        producer = {"producer_id": 7, "epoch": 0, "sequence": number, "transactional": True}
        server.put((b"k%d" % (number % 4), bytes(100)), **producer)
        marker = build_marker(7, 0, EndMarker(number % 3 > 0, 0), runtime.now_ms())
        server.partition.append(marker, None, trusted=True)
    server.fill()
    server.log.close()
    server.start(disk)
    runtime.advance(1000)
    on_loop = []
    disk.before_call = lambda: on_loop.append(len(disk.log)) if runtime.is_on_loop else None
    stored = server.partition.size_bytes
    server.compact()
    disk.before_call = None
    assert server.partition.size_bytes < stored
    names = {disk.log[place].split()[0] for place in on_loop if place < len(disk.log)}
    assert not names & READING, names
