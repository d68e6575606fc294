"""What an acknowledgement promises, when the disk is slow, full or broken."""

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
from isthmus.storage.log import ISOLATION_DURABLE

DIRECTORY = Path("/disk/data")


class Server:
    """A log on a simulated disk, and the partitions a, b, c."""

    def __init__(self, disk=None, **settings):
        self.disk = disk or SimDisk()
        self.runtime = SimRuntime()
        settings = LocalSettings(**{"journal_file_bytes": 64 * 1024, **settings})
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, settings)
        for name in ("a", "b", "c"):
            if name not in self.log.topics:
                self.log.create(name, 1, {})
        self.runtime.settle()

    def partition(self, name="a"):
        return self.log.partition(name, 0)

    def put(self, value=b"v", name="a", **how):
        answer = Answer()
        self.partition(name).append(batch_of(value, **how), answer)
        return answer

    def make_journal(self):
        """Do what the first round does, so that those that are counted are like any other."""
        self.put(name="c")
        self.log.flush()
        self.runtime.settle()

    def syncs(self):
        return sum(line.startswith("fdatasync") for line in self.disk.log)


@pytest.fixture
def server():
    return Server()


# --- group commit -----------------------------------------------------------------------------


def test_what_comes_during_a_round_shares_the_next_one(server):
    server.make_journal()
    first = server.put()
    server.log.flush()
    later = []
    for _ in range(10):
        later.append(server.put())
        server.log.flush()
    before = server.syncs()
    assert not first.is_durable
    server.runtime.finish_offloaded()
    assert first.is_durable
    assert all(answer.is_durable for answer in later)
    assert server.syncs() == before + 2


def test_one_round_covers_all_partitions_of_a_turn(server):
    answers = [server.put(name=name) for name in "abc"]
    server.log.flush()
    assert len(server.runtime.offloaded) == 1
    server.runtime.settle()
    assert all(answer.is_durable for answer in answers)


def test_nobody_waits_so_nothing_is_synced(server):
    server.runtime.settle()
    before = server.syncs()
    server.partition().append(batch_of(b"v"), None)
    server.log.flush()
    assert not server.runtime.offloaded
    assert server.syncs() == before
    assert server.partition().end_offset == 1
    assert server.partition().durable_offset == 0
    server.log.close()
    assert server.syncs() > before
    again = Server(server.disk.cut_power(1))
    assert contents(again.partition()) == [b"v"]


@pytest.mark.parametrize("durability", ["written", "memory"])
def test_weaker_promises_do_not_wait_for_the_disk(durability):
    server = Server(durability=durability)
    answer = server.put()
    server.log.flush()
    assert answer.is_durable
    assert not server.runtime.offloaded
    assert contents(server.partition(), ISOLATION_DURABLE) == [b"v"]


def test_written_is_synced_now_and_then_so_that_a_start_is_bounded():
    server = Server(durability="written", checkpoint_bytes=10_000)
    for number in range(30):
        server.put(b"%04d" % number + bytes(1000))
        server.log.flush()
        server.runtime.settle()
    assert server.partition().durable_recovery_point >= 20
    after = server.disk.kill()
    after.calls = 0
    again = Server(after, durability="written")
    assert again.partition().end_offset == 30


def test_flush_messages_asks_for_a_sync_after_so_many_records():
    server = Server(durability="written")
    server.log.configure("a", {"flush.messages": "3"})
    before = server.syncs()
    for _ in range(7):
        server.put()
        server.log.flush()
        server.runtime.settle()
    assert server.syncs() == before + 2


@pytest.mark.parametrize("durability", ["written", "synced"])
def test_flush_ms_is_the_longest_time_that_a_record_stays_unsynced(durability):
    server = Server(durability=durability)
    server.log.configure("a", {"flush.ms": "500"})
    server.make_journal()
    before = server.syncs()
    for _ in range(3):  # of which nobody waits to be durable
        server.partition().append(batch_of(b"v"), None)
        server.log.flush()
        server.runtime.advance(100)
    assert server.syncs() == before
    server.runtime.advance(200)
    assert server.syncs() == before + 1
    assert contents(Server(server.disk.copy().cut_power(1)).partition()) == [b"v"] * 3
    server.runtime.advance(10_000)
    assert server.syncs() == before + 1, "nothing is unsynced"


def test_flush_ms_waits_for_nobody_who_is_synced_already():
    server = Server()
    server.log.configure("a", {"flush.ms": "500"})
    server.partition().append(batch_of(b"v"), None)
    server.log.flush()
    server.runtime.advance(300)
    server.put()
    server.log.flush()
    server.runtime.settle()
    before = server.syncs()
    server.runtime.advance(10_000)
    assert server.syncs() == before


def test_what_a_start_has_to_check_is_bounded_for_all_partitions_together():
    server = Server(durability="written", checkpoint_bytes=30_000)
    for _ in range(40):
        for name in "abc":
            server.put(bytes(1000), name=name)
        server.log.flush()
        server.runtime.settle()
        unchecked = sum(
            server.partition(name).end_offset - server.partition(name).durable_recovery_point
            for name in "abc"
        )
        assert unchecked * 1000 <= 30_000 + 3 * 1100


def test_after_a_minute_a_start_has_nothing_to_check():
    server = Server()
    server.put()
    server.log.flush()
    server.runtime.advance(60_000)
    assert server.partition().durable_recovery_point == 1
    before = server.syncs()
    server.runtime.advance(600_000)
    assert server.syncs() == before, "and a sweep has nothing to do"


def test_files_that_must_be_synced_before_they_can_be_closed_are_swept_early():
    server = Server(open_segments_max=2)
    for _ in range(3):
        for name in "abc":
            server.put(name=name)
        server.log.flush()
        server.runtime.settle()
    assert len(server.log._shared.open_segments) <= 3


# --- a sync that fails ------------------------------------------------------------------------


def test_a_failed_sync_is_the_end_of_writing_and_not_of_reading(server, caplog):
    kept = server.put(b"kept")
    server.log.flush()
    server.runtime.settle()
    waiting = server.put(b"lost")
    other = server.put(b"other", name="b")
    server.log.flush()
    queued = server.put(b"queued", name="c")
    server.disk.sync_fails = True
    server.runtime.finish_offloaded()
    for answer in (waiting, other):
        assert answer.events[0][0] == "written"
        assert type(answer.error) is SyncFailed
    assert type(queued.error) is SyncFailed
    server.disk.sync_fails = False  # the kernel says all is well again: it is not
    late = server.put(b"late")
    assert type(late.error) is SyncFailed
    server.log.flush()
    server.runtime.settle()
    assert kept.is_durable
    assert contents(server.partition()) == [b"kept", b"lost"]
    assert contents(server.partition(), ISOLATION_DURABLE) == [b"kept"]
    assert type(server.log.error) is SyncFailed
    with pytest.raises(SyncFailed):
        server.log.create("d", 1, {})
    assert caplog.text.count("takes no more records") == 1
    server.log.close()
    assert not server.disk.exists(DIRECTORY / ".kafka_cleanshutdown")
    again = Server(server.disk.cut_power(3))
    assert contents(again.partition())[0] == b"kept"
    assert again.partition().leader_epoch == 1


def test_a_sync_that_fails_during_the_close_is_told(server):
    answer = server.put()
    server.log.flush()
    server.disk.sync_fails = True
    server.log.close()
    assert type(answer.error) is SyncFailed
    assert not server.disk.exists(DIRECTORY / ".kafka_cleanshutdown")
    server.runtime.settle()  # the round that the other thread comes to late


# --- a disk that is full ----------------------------------------------------------------------


@pytest.mark.parametrize("short", [False, True], ids=["nothing written", "half written"])
def test_a_full_disk_refuses_and_goes_on_when_there_is_room(server, short):
    numbered = {"producer_id": 1, "epoch": 0}
    first = server.put(b"first", sequence=0, **numbered)
    server.log.flush()
    server.runtime.settle()
    size = server.partition().size_bytes
    server.disk.room = 0
    server.disk.short, server.disk.fail_with = short, errno.ENOSPC
    refused = [server.put(b"x" * 500, sequence=1, **numbered), server.put(b"more")]
    duplicate = server.put(b"first", sequence=0, **numbered)
    server.log.flush()
    server.runtime.settle()
    assert [type(answer.error) for answer in refused] == [NoSpace, NoSpace]
    assert duplicate.base_offset == 0
    assert duplicate.is_durable
    assert server.log.error is None
    assert (server.partition().end_offset, server.partition().size_bytes) == (1, size)
    server.disk.room = None
    again = server.put(b"x" * 500, sequence=1, **numbered)
    server.log.flush()
    server.runtime.settle()
    assert (first.base_offset, again.base_offset) == (0, 1)
    assert contents(server.partition()) == [b"first", b"x" * 500]
    path = DIRECTORY / "a-0" / "00000000000000000000.log"
    assert len(server.disk.file(path).data) == server.partition().size_bytes


def test_only_the_partition_that_fails_is_refused(server):
    server.disk.fail_only = ("pwritev",)
    server.disk.calls, server.disk.fail_at = 0, 2
    answers = {name: server.put(name=name) for name in "abc"}
    server.log.flush()
    server.runtime.settle()
    refused = [name for name, answer in answers.items() if answer.error]
    assert len(refused) == 1


# --- the end of a log topic while its sync is under way ---------------------------------------


def test_a_log_topic_deleted_during_its_sync_breaks_nothing(server):
    answer, other = server.put(), server.put(name="b")
    server.log.flush()
    server.log.delete("a")
    assert answer.error is not None
    server.runtime.settle()
    assert other.is_durable
    assert server.log.error is None
    server.log.close()
    assert server.disk.open_count == 0
    assert "a-0" not in server.disk.names(DIRECTORY)
    assert not [name for name in server.disk.names(DIRECTORY) if name.endswith("-delete")]
