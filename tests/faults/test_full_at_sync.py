"""A disk that finds out at the sync that it is full, and has room again later.

What the kernel could not store it has dropped: reads may show it all the same (`forgets` is
False) or not, and the next sync says that all is well. Nothing that was written may be lost for
that, nobody may be told a lie, and where it cannot be made good it must be said.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents
from tests.storage.disk import SimDisk

from isthmus.errors import NoSpace, SyncFailed
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.local.trouble import PROBE_MS
from isthmus.storage.log import ISOLATION_DURABLE

DIRECTORY = Path("/disk/data")
ALL = 10**9
LARGE = bytes(300_000)  # no chunk keeps it in memory


class Server:
    """A log on a simulated disk, with log topics of one partition each."""

    def __init__(self, disk=None, names="abc", **settings):
        self.disk = disk or SimDisk()
        self.runtime = SimRuntime()
        self.settings = LocalSettings(**{"journal_file_bytes": 64 * 1024, **settings})
        self.names = names
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)
        for name in names:
            if name not in self.log.topics:
                self.log.create(name, 1, {})
        self.runtime.settle()

    def partition(self, name="a"):
        return self.log.partition(name, 0)

    def put(self, *values, name="a"):
        answer = Answer()
        self.partition(name).append(batch_of(*values), answer)
        return answer

    def flush(self):
        self.log.flush()
        self.runtime.settle()

    def fill(self, code=errno.ENOSPC):
        disk = self.disk
        disk.fail_only, disk.fail_with = ("fdatasync",), code
        disk.calls, disk.fail_at, disk.fail_count = 0, 1, ALL

    def make_room(self):
        self.disk.fail_at = 0

    def wait(self):
        self.runtime.advance(2 * PROBE_MS)

    def after_power_cut(self, seed=1):
        disk = self.disk.copy().cut_power(seed)
        return Server(disk, self.names, journal_file_bytes=64 * 1024)


@pytest.fixture(params=[False, True], ids=["shown", "forgotten"])
def server(request):
    server = Server()
    server.disk.forgets = request.param
    return server


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_who_waits_is_answered_once_there_is_room(server, code, caplog):
    kept = server.put(b"kept")
    server.flush()
    server.fill(code)
    waiting = server.put(b"waiting")
    server.flush()
    refused = server.put(b"refused")
    server.flush()
    server.runtime.advance(20 * PROBE_MS)
    assert kept.is_durable
    assert waiting.events == [("written", 1)], "neither promised nor failed"
    assert type(refused.error) is NoSpace
    assert server.log.error is None
    assert type(server.log.trouble) is NoSpace
    assert contents(server.partition()) == [b"kept", b"waiting"]
    assert contents(server.partition(), ISOLATION_DURABLE) == [b"kept"]
    assert sum("reading goes on" in record.getMessage() for record in caplog.records) == 1
    server.make_room()
    server.wait()
    assert waiting.is_durable
    assert server.log.trouble is None
    after = server.put(b"after")
    server.flush()
    assert after.is_durable
    expected = [b"kept", b"waiting", b"after"]
    assert contents(server.partition()) == expected
    for seed in range(5):
        assert contents(server.after_power_cut(seed).partition()) == expected
    server.log.close()
    assert server.disk.open_count == 0
    assert contents(Server(server.disk.kill()).partition()) == expected


def test_what_was_promised_from_the_journal_is_not_lost_with_its_segment(server):
    """A sweep fails: what it was to sync is durable as copies in the journal."""
    answers = {name: server.put(name.encode(), name=name) for name in server.names}
    server.flush()
    assert all(answer.is_durable for answer in answers.values())
    server.fill()
    server.runtime.advance(60_000)  # the sweep comes
    assert type(server.log.trouble) is NoSpace
    server.make_room()
    server.wait()
    # In memory is nothing of it any more, and it may be that the file does not show it either.
    assert server.log.error is None
    assert server.log.trouble is None
    assert [contents(server.partition(name)) for name in "abc"] == [[b"a"], [b"b"], [b"c"]]
    after = server.after_power_cut()
    assert [contents(after.partition(name)) for name in "abc"] == [[b"a"], [b"b"], [b"c"]]
    server.log.close()
    after = Server(server.disk.kill())
    assert [contents(after.partition(name)) for name in "abc"] == [[b"a"], [b"b"], [b"c"]]
    after.log.close()
    assert after.disk.open_count == 0


def test_what_is_in_memory_no_more_is_read_back_or_said_to_be_lost(server):
    server.put(b"kept")
    server.flush()
    server.fill()
    waiting = server.put(LARGE)
    server.flush()
    server.make_room()
    server.wait()
    if server.disk.forgets:
        assert type(waiting.error) is SyncFailed
        assert type(server.log.trouble) is SyncFailed
        assert contents(server.after_power_cut().partition()) == [b"kept"]
    else:
        assert waiting.is_durable
        assert contents(server.after_power_cut().partition()) == [b"kept", LARGE]


def test_a_journal_without_room_leaves_it_to_the_segments(server, caplog):
    server.disk.fail_only, server.disk.fail_with = ("fdatasync",), errno.ENOSPC
    for _ in range(3):
        for name in server.names:
            server.put(b"1", name=name)
        server.flush()
    server.disk.calls, server.disk.fail_at = 0, 1
    answers = [server.put(b"2", name=name) for name in server.names]
    server.flush()
    assert all(answer.is_durable for answer in answers)
    assert server.log.trouble is None
    assert "every partition is synced by itself" in caplog.text
    server.runtime.advance(60_000)
    more = [server.put(b"3", name=name) for name in server.names]
    server.flush()
    assert all(answer.is_durable for answer in more)
    caplog.clear()
    after = server.after_power_cut()
    for name in server.names:
        assert contents(after.partition(name)) == [b"1"] * 3 + [b"2", b"3"]
    assert "damaged" not in caplog.text
    assert "lacks rounds" not in caplog.text


def test_start_offsets_wait_for_room_like_everybody(server):
    server.put(b"1")
    server.put(b"2")
    server.flush()
    server.fill()
    server.put(b"3")
    told = []
    server.partition().delete_before(1, told.append)
    server.flush()
    server.make_room()
    server.wait()
    assert told == [None]
    assert server.after_power_cut().partition().start_offset == 1


def test_another_error_while_it_waits_is_the_end(server):
    server.fill()
    waiting = server.put(b"waiting")
    server.flush()
    server.disk.fail_with = errno.EIO
    server.disk.fail_at, server.disk.calls = 2, 0  # the probe has room
    server.wait()
    assert type(waiting.error) is SyncFailed
    assert type(server.log.error) is SyncFailed
    server.log.close()
    assert server.disk.open_count == 0


def test_a_name_that_was_not_synced_is_the_end_even_for_want_of_room(server):
    server.disk.fail_only, server.disk.fail_with = ("sync_directory",), errno.ENOSPC
    server.disk.calls, server.disk.fail_at, server.disk.fail_count = 0, 1, ALL
    answer = server.put(b"v")
    server.flush()
    assert type(answer.error) is SyncFailed


def test_a_close_waits_for_no_room(server):
    server.put(b"kept")
    server.flush()
    server.fill()
    waiting = server.put(b"waiting")
    server.flush()
    server.log.close()
    assert type(waiting.error) is SyncFailed
    assert server.disk.open_count == 0
    server.make_room()
    after = Server(server.disk.kill())
    assert contents(after.partition())[0] == b"kept"


def test_a_log_topic_deleted_while_it_waits_breaks_nothing(server):
    server.fill()
    gone, waiting = server.put(b"gone", name="b"), server.put(b"waiting")
    server.flush()
    server.make_room()
    server.log.delete("b")
    assert gone.error is not None
    server.wait()
    assert waiting.is_durable
    assert server.log.trouble is None
    server.log.close()
    assert server.disk.open_count == 0


def test_room_that_is_gone_again_is_waited_for_again(server):
    server.fill()
    waiting = server.put(b"waiting")
    server.flush()
    server.disk.calls, server.disk.fail_at = 0, 2  # the probe has room, the file has not
    server.wait()
    assert not waiting.is_durable
    assert waiting.error is None
    server.make_room()
    server.wait()
    assert waiting.is_durable
    assert contents(server.after_power_cut().partition()) == [b"waiting"]


def test_a_start_does_not_take_the_memory_of_the_kernel_for_the_disk():
    """The server ends because of a failed sync; the machine runs on, and fails later."""
    server = Server()
    server.put(b"kept")
    server.flush()
    server.fill(errno.EIO)
    for name in server.names:  # with the journal, too
        server.put(b"lost?", name=name)
    server.flush()
    server.log.close()
    again = Server(server.disk.kill())
    found = {name: contents(again.partition(name), ISOLATION_DURABLE) for name in "abc"}
    assert found["a"] == [b"kept", b"lost?"]
    for seed in range(5):
        after = again.after_power_cut(seed)
        assert {name: contents(after.partition(name)) for name in "abc"} == found
