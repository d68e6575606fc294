"""The local engine's aborted transactions and producers: files, restarts, failing writes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import NOW_MS, Answer, aborted_in, batch_of, marker_of
from tests.storage.disk import SimDisk

from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.producers import ProducerTable

DIRECTORY = Path("/disk/data")
SMALL = {"internal.segment.bytes": "300", "index.interval.bytes": "100"}


class Server:
    """One partition on a disk that can be pulled out."""

    def __init__(self, configs, **settings):
        self.settings = LocalSettings(**settings)
        self.disk = SimDisk()
        self.start()
        self.log.create("t", 1, configs)

    def start(self):
        self.runtime = SimRuntime()
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)
        return self

    @property
    def partition(self):
        return self.log.partition("t", 0)

    def names(self, suffix):
        return [name for name in self.disk.names(DIRECTORY / "t-0") if name.endswith(suffix)]

    def put(self, *batches):
        for batch in batches:
            self.partition.append(batch, None, trusted=True)
        self.log.flush()

    def settle(self):
        answer = Answer()
        self.partition.append(batch_of(b"v"), answer)
        self.log.flush()
        self.runtime.settle()
        assert answer.is_durable

    def told(self):
        """Return what is told of transactions, all of it."""
        partition = self.partition
        return (
            partition.last_stable_offset,
            aborted_in(partition, 0, partition.end_offset),
            dict(partition.producers),
        )

    def close(self):
        self.log.close()
        self.disk = self.disk.cut_power(0)
        return self

    def kill(self):
        self.disk = self.disk.kill()
        return self


def records(producer_id, sequence, count=1, **how):
    how = {"epoch": 0, "transactional": True, **how}
    return batch_of(*[b"v"] * count, producer_id=producer_id, sequence=sequence, **how)


def write_some(server, rounds=12):
    """Write transactions over many segments, two of three aborted, and leave one open."""
    for number in range(rounds):
        server.put(records(1, number), records(2, number))
        server.put(marker_of(1, commits=number % 3 == 0), batch_of(b"plain"))
        server.put(marker_of(2, commits=number % 3 == 1))
    server.put(records(3, 0))
    server.settle()


@pytest.fixture
def server():
    return Server(SMALL)


@pytest.mark.parametrize("end", [Server.close, Server.kill])
@pytest.mark.parametrize("checkpoint_bytes", [200, 1 << 20])
def test_a_restart_tells_the_same(end, checkpoint_bytes):
    server = Server(SMALL, checkpoint_bytes=checkpoint_bytes, open_segments_max=1)
    write_some(server)
    before = server.told()
    stable, aborted, _ = before
    assert len(aborted) == 16
    assert stable == server.partition.end_offset - 2
    for _ in range(2):
        end(server).start()
        assert server.told() == before


def test_there_is_a_file_only_where_something_was_aborted(server):
    for number in range(12):
        server.put(records(1, number), marker_of(1, commits=True))
    server.put(records(1, 12), marker_of(1, commits=False))
    segments = server.names(".log")
    assert len(segments) > 3
    server.close()
    assert server.names(".txnindex") == [segments[-1].replace(".log", ".txnindex")]


def test_markers_of_one_turn_go_with_their_segments(server):
    batches = []
    for number in range(8):
        batches += [records(1, number), marker_of(1, commits=False)]
    server.put(*batches)
    server.settle()
    assert len(server.names(".log")) > 3
    assert aborted_in(server.partition, 0, 16) == [(1, first) for first in range(0, 16, 2)]
    assert aborted_in(server.partition, 5, 9) == [(1, 4), (1, 6), (1, 8)]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda disk, path: disk.write_file(path, b"x" * 33, sync=True),
        lambda disk, path: disk.write_file(path, b"x" * 34, sync=True),
        lambda disk, path: disk.write_file(path, disk.read_file(path) * 2, sync=True),
        lambda disk, path: [
            disk.remove(path.with_suffix(suffix))
            for suffix in (".index", ".timeindex", ".txnindex")
        ],
    ],
    ids=["length", "content", "order", "gone"],
)
def test_a_file_that_is_wrong_or_gone_is_made_again(server, spoil):
    write_some(server)
    before = server.told()
    server.close()
    for name in server.names(".txnindex")[:2]:
        spoil(server.disk, DIRECTORY / "t-0" / name)
    server.start()
    assert server.told() == before
    server.close()
    assert len(server.names(".txnindex")) == len(set(server.names(".txnindex"))) > 2
    server.start()
    assert server.told() == before


def test_what_a_power_cut_took_is_not_told_later():
    """The index was written, the marker was lost: another batch may stand there now."""
    server = Server({}, checkpoint_bytes=1 << 20)
    server.settle()
    disk, path = server.disk, DIRECTORY / "t-0" / "00000000000000000000.log"
    size = disk.size(path)
    server.put(records(1, 0), marker_of(1, commits=False))
    server.partition.segments.save_indexes()
    disk.file(path.with_suffix(".txnindex")).sync()
    disk.sync_directory(path.parent)
    cuts = map(disk.cut_power, range(100))
    server.disk = next(cut for cut in cuts if cut.size(path) == size)
    server.start()
    assert server.partition.end_offset == 1
    server.put(records(1, 0), marker_of(1, commits=True), batch_of(b"v"))
    server.settle()
    for end in (Server.kill, Server.close, Server.kill):
        assert aborted_in(server.partition, 0, 4) == []
        end(server).start()


def test_a_write_that_fails_in_the_middle_leaves_what_was_written(server):
    server.put(records(1, 0), records(2, 0))
    server.disk.fail_only, server.disk.fail_with = ("pwritev",), errno.EIO
    server.disk.calls, server.disk.fail_at, server.disk.fail_count = 0, 2, 99
    batches = [marker_of(1, commits=False), records(1, 1), records(4, 0, 9), records(5, 0, 9)]
    answers = [Answer() for _ in [*batches, None, None]]
    batches += [marker_of(2, commits=False), records(6, 0, 9)]
    for batch, answer in zip(batches, answers, strict=True):
        server.partition.append(batch, answer, trusted=True)
    server.log.flush()
    written = sum(answer.base_offset is not None for answer in answers)
    assert 0 < written < len(answers)
    server.disk.fail_at = 0
    server.settle()
    table = ProducerTable()
    for batch in batches[:written]:
        table.replay(batch)
    assert aborted_in(server.partition, 0, 4) == [(1, 0)]
    assert server.partition.last_stable_offset == 1
    before = server.told()
    server.kill().start()
    assert server.told() == before


def test_a_snapshot_from_before_the_log_begins_is_not_believed(server):
    """What lies between it and the first record is deleted: a producer may be far ahead."""
    write_some(server)
    server.close()
    path = DIRECTORY / "t-0"
    first = server.names(".log")[3]
    for name in server.names(".log")[:3]:
        for suffix in (".log", ".index", ".timeindex", ".txnindex"):
            server.disk.remove((path / name).with_suffix(suffix))
    table = ProducerTable()
    table.replay(records(9, 50))
    for name in server.names(".snapshot"):
        server.disk.remove(path / name)
    server.disk.write_file(path / f"{1:020d}.snapshot", table.snapshot(), sync=True)
    server.start()
    assert server.partition.start_offset == int(first[:20])
    assert server.partition.producers.get(9) is None
    assert server.names(".snapshot") == []


def test_producers_that_write_nothing_for_long_are_forgotten():
    server = Server({}, producer_expiration_ms=3_600_000)
    server.put(records(1, 0, transactional=False), records(2, 0))
    server.settle()
    server.runtime.advance(3_000_000)
    server.put(records(3, 0, transactional=False, timestamp=NOW_MS + 3_000_000))
    assert len(server.partition.producers) == 3
    server.runtime.advance(1_200_000)
    assert sorted(producer_id for producer_id, _ in server.partition.producers) == [2, 3]
    server.put(marker_of(2, commits=True, timestamp=NOW_MS + 4_200_000))
    server.runtime.advance(4_200_000)
    assert len(server.partition.producers) == 0
    again = Answer()
    server.partition.append(records(1, 7, transactional=False), again)
    server.log.flush()
    assert again.error is None
