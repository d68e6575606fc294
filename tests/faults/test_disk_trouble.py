"""A disk that cannot be written for a while: what is told of it, and that it passes again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents
from tests.storage.disk import SimDisk

from isthmus.errors import NoSpace, StorageError, SyncFailed
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.trouble import PROBE_BYTES, PROBE_FILE, PROBE_MS

DIRECTORY = Path("/disk/data")
ALL = 10**9


class Server:
    """A log on a simulated disk with one log topic."""

    def __init__(self):
        self.disk = SimDisk()
        self.runtime = SimRuntime()
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk)
        self.log.create("t", 1, {})
        self.runtime.settle()

    def put(self, value=b"v"):
        answer = Answer()
        self.log.partition("t", 0).append(batch_of(value), answer)
        self.log.flush()
        self.runtime.settle()
        return answer

    def break_writes(self, code):
        self.disk.fail_only, self.disk.fail_with = ("pwritev",), code
        self.disk.calls, self.disk.fail_at, self.disk.fail_count = 0, 1, ALL

    def mend(self):
        self.disk.fail_at = 0


@pytest.fixture
def server():
    return Server()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EROFS, StorageError)],
)
def test_it_is_told_once_and_its_end_is_told_once(server, code, kind, caplog):
    server.put(b"before")
    server.break_writes(code)
    for _ in range(50):
        assert type(server.put().error) is kind
    with pytest.raises(kind):
        server.log.create("other", 1, {})
    assert type(server.log.trouble) is kind
    assert server.log.error is None
    assert contents(server.log.partition("t", 0)) == [b"before"]
    server.runtime.advance(10 * PROBE_MS)
    assert server.log.trouble is not None
    assert len(caplog.records) == 1
    assert "reading goes on" in caplog.text
    caplog.clear()
    server.mend()
    server.runtime.advance(PROBE_MS)
    assert server.log.trouble is None
    assert [record.getMessage() for record in caplog.records] == [
        "the disk can be written again; 51 writes were refused"
    ]
    assert server.put(b"after").is_durable
    assert contents(server.log.partition("t", 0)) == [b"before", b"after"]
    assert PROBE_FILE not in server.disk.names(DIRECTORY)
    server.log.create("other", 1, {})
    server.log.close()


def test_room_for_a_small_batch_is_not_the_end_of_it(server):
    server.disk.room = 400
    assert type(server.put(bytes(1000)).error) is NoSpace
    assert server.put(b"small").is_durable
    server.runtime.advance(5 * PROBE_MS)
    assert type(server.log.trouble) is NoSpace
    server.disk.room = PROBE_BYTES * 2
    server.runtime.advance(PROBE_MS)
    assert server.log.trouble is None


def test_another_kind_of_trouble_is_told_too(server, caplog):
    server.break_writes(errno.ENOSPC)
    server.put()
    server.break_writes(errno.EROFS)
    server.put()
    server.put()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_a_close_in_the_middle_of_it_looks_no_more(server):
    server.break_writes(errno.ENOSPC)
    server.put()
    server.log.close()
    calls = server.disk.calls
    server.runtime.advance(10 * PROBE_MS)
    assert server.disk.calls == calls
    assert server.disk.open_count == 0


def test_a_failed_sync_is_no_trouble_that_passes(server):
    """The pages may be gone. (Where it was room that lacked: test_full_at_sync.py)"""
    assert server.put().is_durable  # the journal is made: what fails now is the sync of records
    server.disk.fail_only = ("fdatasync",)
    server.disk.calls, server.disk.fail_at = 0, 1
    assert type(server.put().error) is SyncFailed
    server.runtime.advance(10 * PROBE_MS)
    assert type(server.log.trouble) is SyncFailed
    assert type(server.put().error) is SyncFailed


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("file", ["snapshot", "index", "recovery-point", "leader-epoch"])
def test_a_hint_that_cannot_be_written_costs_no_record(file, code):
    """Indexes, snapshots and checkpoints are for a faster start; no record needs them."""
    disk, runtime = _Picky(file, code), SimRuntime()
    log = LocalLog(DIRECTORY, runtime, disk)
    log.create("t", 1, {"internal.segment.bytes": "1500", "index.interval.bytes": "200"})
    kept = []
    for number in range(40):
        answer = Answer()
        log.partition("t", 0).append(batch_of(b"%04d" % number + bytes(200)), answer)
        log.flush()
        runtime.settle()
        if file != "leader-epoch":  # no hint: without it no batch of its epoch is stored
            assert answer.is_durable
        if answer.is_durable:
            kept.append(b"%04d" % number)
    assert log.error is None
    assert disk.refused
    log.close()
    for after in (disk.kill(), disk.cut_power(3)):
        again = LocalLog(DIRECTORY, SimRuntime(), after)
        assert [value[:4] for value in contents(again.partition("t", 0))] == kept


class _Picky(SimDisk):
    """A disk that takes no bytes for the files of one kind."""

    def __init__(self, part, code):
        super().__init__()
        self.part, self.code, self.refused = part, code, 0
        self._names = {}

    def open(self, path, *, create=False):
        descriptor = super().open(path, create=create)
        self._names[descriptor] = path.name
        return descriptor

    def pwritev(self, descriptor, buffers, position):
        if self.part in self._names[descriptor]:
            self.refused += 1
            raise OSError(self.code, "refused")
        return super().pwritev(descriptor, buffers, position)
