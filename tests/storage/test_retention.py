"""Retention and DeleteRecords in the local engine: what goes, when, and what a crash leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents
from tests.storage.disk import SimDisk

from isthmus.errors import OffsetOutOfRange
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

DIRECTORY = Path("/disk/data")
PARTITION = DIRECTORY / "a-0"
SETTINGS = LocalSettings(tail_bytes_max=2000, open_segments_max=2, checkpoint_bytes=4000)
SMALL = {"internal.segment.bytes": "400", "index.interval.bytes": "100"}
HOUR_MS = 3_600_000


class Server:
    """One life of a log with one partition."""

    def __init__(self, disk=None, **configs):
        self.disk = disk or SimDisk()
        self.runtime = SimRuntime()
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, SETTINGS)
        if "a" not in self.log.topics:
            named = {name.replace("_", "."): str(value) for name, value in configs.items()}
            self.log.create("a", 1, SMALL | named)

    @property
    def partition(self):
        return self.log.partition("a", 0)

    def put(self, value, **how):
        answer = Answer()
        self.partition.append(
            batch_of(value, **{"timestamp": self.runtime.now_ms()} | how), answer
        )
        self.log.flush()
        self.runtime.settle()
        return answer.base_offset

    def delete_before(self, offset):
        told = []
        self.partition.delete_before(offset, told.append)
        self.runtime.settle()
        return told

    @property
    def names(self):
        return [name for name in self.disk.names(PARTITION) if ".log" in name]

    def reopen(self, disk=None):
        return Server(disk or self.disk.kill())

    def close(self):
        self.log.close()
        return self.disk.kill()


def filled(count=6, **configs):
    """A server with `count` records of 100 bytes, a minute apart, two in a segment."""
    server = Server(**configs)
    for number in range(count):
        server.put(b"%d" % number + b"x" * 99)
        server.runtime.advance(60_000)
    return server


def values(partition):
    return [value[:1] for value in contents(partition)]


# --- what goes, and when ----------------------------------------------------------------------


def test_segments_go_once_all_of_one_is_older_than_retention_ms():
    server = filled(retention_ms=5 * 60_000)
    assert (server.partition.start_offset, server.partition.end_offset) == (0, 6)
    server.runtime.advance(60_000)  # the newest record of the first segment is 5 to 6 min old
    assert values(server.partition) == [b"2", b"3", b"4", b"5"]
    with pytest.raises(OffsetOutOfRange):
        server.partition.read(1, 1000)
