"""Compaction through the log: what readers find before, while and after it runs."""

from __future__ import annotations

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, read_batches

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

    def __init__(self, path, configs=None, settings=NO_TAIL, files=None):
        self.path = path
        self.settings = settings
        self.runtime = SimRuntime()
        self.start(files)
        self.log.create("t", 1, COMPACTED | (configs or {}))

    def start(self, files=None):
        self.log = LocalLog(self.path, self.runtime, files, self.settings)
        return self

    @property
    def partition(self):
        return self.log.partition("t", 0)

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
