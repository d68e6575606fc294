"""Retention and DeleteRecords in the local engine: what goes, when, and what a crash leaves.

What every engine does is in contract.py; random lives with power cuts, deletion among all the
rest, are in tests/faults/test_power_cuts.py.
"""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents, read
from tests.storage.disk import SimDisk

from isthmus.errors import NoSpace, OffsetOutOfRange, StorageError, SyncFailed
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

DIRECTORY = Path("/disk/data")
PARTITION = DIRECTORY / "a-0"
SETTINGS = LocalSettings(tail_bytes_max=0, open_segments_max=2, checkpoint_bytes=4000)
SMALL = {"internal.segment.bytes": "400", "index.interval.bytes": "100"}
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
BATCH_BYTES = batch_of(b"0" + b"x" * 99).size


class Server:
    """One life of a log with one log topic."""

    def __init__(self, disk=None, now_ms=1_700_000_000_000, **configs):
        self.disk = disk or SimDisk()
        self.runtime = SimRuntime(now_ms=now_ms)
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, SETTINGS)
        if "a" not in self.log.topics:
            named = {name.replace("_", "."): str(value) for name, value in configs.items()}
            self.log.create("a", 1, SMALL | named)

    @property
    def partition(self):
        return self.log.partition("a", 0)

    def put(self, value, **how):
        answer = Answer()
        how = {"timestamp": self.runtime.now_ms()} | how
        self.partition.append(batch_of(value, **how), answer)
        self.log.flush()
        self.runtime.settle()
        return answer.base_offset

    def delete_before(self, offset):
        told = []
        self.partition.delete_before(offset, told.append)
        self.runtime.settle()
        return told

    def names(self, *suffixes):
        return [name for name in self.disk.names(PARTITION) if name.endswith(suffixes)]

    def segments(self):
        return [int(name.removesuffix(".log")) for name in self.names(".log")]

    def after_kill(self):
        return Server(self.disk.kill(), now_ms=self.runtime.now_ms())

    def after_close(self):
        self.log.close()
        return self.after_kill()

    def pass_time(self, minutes):
        self.runtime.advance(minutes * MINUTE_MS)

    @property
    def span(self):
        return self.partition.start_offset, self.partition.end_offset


def fill(server, count=6, **how):
    """Append records of 100 bytes, a minute apart, two in a segment."""
    for _ in range(count):
        number = server.partition.end_offset
        server.put(b"%d" % (number % 10) + b"x" * 99, **how)
        server.pass_time(1)
    return server


def values(partition):
    return [int(value[:1]) for value in contents(partition)]


# --- by time ----------------------------------------------------------------------------------


def test_a_partition_without_records_stops_nobody():
    server = Server(retention_ms=HOUR_MS)
    server.log.create("b", 1, {"retention.ms": str(HOUR_MS)})
    server.log.partition("b", 0).append(batch_of(b"x"), None)
    server.log.flush()
    server.runtime.advance(2 * HOUR_MS)
    assert server.log.partition("b", 0).start_offset == 1


def test_a_segment_goes_once_its_newest_record_is_older_than_retention_ms():
    server = fill(Server(retention_ms=5 * MINUTE_MS + MINUTE_MS // 2))
    assert server.segments() == [0, 2, 4]
    assert server.span == (0, 6)
    server.pass_time(1)  # the record 1 is six minutes old now
    assert server.span == (2, 6)
    assert values(server.partition) == [2, 3, 4, 5]
    with pytest.raises(OffsetOutOfRange):
        server.partition.read(1, 1000)
    server.pass_time(1)
    assert server.span == (2, 6)  # 3 is young enough to keep 2
    server.pass_time(1)
    assert server.span == (4, 6)


def test_the_segment_in_use_goes_too_and_offsets_go_on():
    server = fill(Server(retention_ms=10 * MINUTE_MS))
    server.pass_time(20)
    assert server.span == (6, 6)
    assert server.segments() == [6]
    assert server.partition.size_bytes == 0
    assert server.put(b"next") == 6
    assert contents(server.partition) == [b"next"]


@pytest.mark.parametrize("end", [Server.after_kill, Server.after_close])
def test_an_expired_partition_is_empty_after_a_restart_and_its_offsets_go_on(end):
    server = fill(Server(retention_ms=10 * MINUTE_MS))
    server.pass_time(20)
    server = end(server)
    assert server.span == (6, 6)
    assert server.put(b"next") == 6
    server = end(server)
    assert server.span == (6, 7)
    assert contents(server.partition) == [b"next"]


def test_records_are_kept_for_ever_by_minus_one():
    server = fill(Server(retention_ms=-1))
    server.pass_time(20_000)  # twice what is kept by default
    assert server.span == (0, 6)


def test_a_record_of_the_future_does_not_keep_a_segment_for_ever():
    server = Server(
        retention_ms=HOUR_MS, **{"message.timestamp.after.max.ms": 1_000_000 * HOUR_MS}
    )
    fill(server, 2, timestamp=server.runtime.now_ms() + 999_999 * HOUR_MS)
    fill(server, 2)
    server.pass_time(55)  # a simulated file is as old as its disk
    assert server.span == (0, 4)
    server.pass_time(10)
    assert server.span == (4, 4)


def test_a_late_timestamp_counts_as_it_stands():
    """However long ago the file was written to: a server's clock may have been wrong."""
    server = Server(retention_ms=HOUR_MS)
    fill(server, 4)
    server.disk.file(PARTITION / f"{0:020d}.log").modified_ms = 0
    server.pass_time(10)
    assert server.span == (0, 4)


def test_a_segment_without_timestamps_counts_from_when_it_was_written():
    server = Server(retention_ms=HOUR_MS)
    server.put(b"x" * 200, timestamp=-1)
    server.put(b"x" * 200, timestamp=-1)
    for base, age_ms in ((0, 10 * MINUTE_MS), (1, 0)):
        file = server.disk.file(PARTITION / f"{base:020d}.log")
        file.modified_ms = server.runtime.now_ms() - age_ms
    server.pass_time(49)
    assert server.span == (0, 2)
    server.pass_time(2)
    assert server.span == (1, 2)
    server.pass_time(10)
    assert server.span == (2, 2)


@pytest.mark.parametrize("has_index", [True, False])
def test_after_a_restart_the_age_of_a_segment_is_read_from_its_files(has_index):
    server = fill(Server(retention_ms=10 * MINUTE_MS)).after_close()
    if not has_index:
        server.disk.remove(PARTITION / f"{0:020d}.timeindex")
    server.pass_time(6)
    assert server.span == (2, 6)
    server.pass_time(10)
    assert server.span == (6, 6)


# --- by size ----------------------------------------------------------------------------------


def test_segments_go_while_retention_bytes_are_left_without_them():
    server = fill(Server(retention_bytes=5 * BATCH_BYTES), 8)
    assert server.span == (2, 8)
    assert server.partition.size_bytes == 6 * BATCH_BYTES  # five are never less than five
    fill(server, 1)
    assert server.span == (4, 9)
    fill(server, 1)
    assert server.span == (4, 10)


def test_nothing_is_left_at_retention_bytes_zero():
    server = fill(Server(retention_bytes=0))
    assert server.span == (6, 6)


def test_what_lies_before_the_start_does_not_count():
    server = fill(Server(retention_bytes=4 * BATCH_BYTES), 4)
    server.delete_before(2)
    fill(server, 2)
    assert server.span == (2, 6)


# --- what else decides ------------------------------------------------------------------------


def test_a_compacted_log_topic_keeps_its_old_records():
    server = Server(cleanup_policy="compact", retention_ms=1, retention_bytes=1)
    fill(server, 6, keys=[b"k"])
    server.pass_time(1000)
    assert server.partition.start_offset == 0


def test_a_compacted_log_topic_may_lose_old_records_too():
    server = Server(cleanup_policy="compact,delete", retention_ms=MINUTE_MS)
    fill(server, 6, keys=[b"k"])
    server.pass_time(10)
    assert server.span == (6, 6)


def test_the_server_has_defaults_for_log_topics_that_do_not_say():
    runtime = SimRuntime()
    limits = LocalSettings(retention_ms=5 * MINUTE_MS, retention_bytes=-1)
    log = LocalLog(DIRECTORY, runtime, SimDisk(), settings=limits)
    log.create("silent", 1, SMALL)
    log.create("own", 1, SMALL | {"retention.ms": "-1"})
    for name in log.topics:
        log.partition(name, 0).append(batch_of(b"x", timestamp=runtime.now_ms()), None)
    log.flush()
    runtime.advance(10 * MINUTE_MS)
    assert log.partition("silent", 0).start_offset == 1
    assert log.partition("own", 0).start_offset == 0
    assert log.topics["silent"].configs == SMALL  # what was set, and nothing else


def test_other_settings_are_obeyed_from_the_next_pass_on():
    server = fill(Server())
    server.pass_time(100)
    assert server.span == (0, 6)
    server.log.configure("a", SMALL | {"retention.ms": "60000"})
    server.pass_time(1)
    assert server.span == (6, 6)


def test_the_last_segment_of_an_idle_compacted_log_topic_is_sealed():
    server = fill(Server(cleanup_policy="compact", segment_ms=HOUR_MS), 1, keys=[b"k"])
    server.pass_time(50)
    assert server.segments() == [0]
    server.pass_time(20)
    assert server.segments() == [0, 1]
    server.pass_time(1000)
    assert server.segments() == [0, 1]  # an empty one is not sealed


def test_jitter_makes_segments_younger_each_by_its_own_measure():
    server, ages = Server(), []
    configs = {"segment.ms": str(HOUR_MS), "segment.jitter.ms": str(HOUR_MS // 2)}
    for number in range(8):
        server.log.create(f"t{number}", 1, configs)
        partition = server.log.partition(f"t{number}", 0)
        for minute in range(62):
            time = server.runtime.now_ms() + minute * MINUTE_MS
            partition.append(batch_of(b"", timestamp=time, timestamps=None), None)
            server.log.flush()
            if len(partition.segments) == 2:
                break
        ages.append(minute)
    assert 30 <= min(ages) < max(ages) <= 61


# --- files ------------------------------------------------------------------------------------


def test_files_are_renamed_and_removed_after_file_delete_delay_ms():
    server = fill(Server(file_delete_delay_ms=10 * MINUTE_MS))
    server.delete_before(4)
    server.pass_time(1)
    assert server.segments() == [4]
    assert {f"{base:020d}.log.deleted" for base in (0, 2)} <= set(server.names(".deleted"))
    assert {f"{base:020d}.timeindex.deleted" for base in (0, 2)} <= set(
        server.names(".deleted")
    )
    server.pass_time(8)
    assert len(server.names(".log.deleted")) == 2
    server.pass_time(2)
    assert server.names(".deleted") == []


def test_what_a_crash_left_over_is_removed_at_the_start():
    server = fill(Server())
    server.delete_before(4)
    server.runtime.advance(10_000)
    assert server.names(".deleted") != []
    again = server.after_kill()
    again.runtime.settle()
    assert again.names(".deleted") == []
    assert again.span == (4, 6)


def test_a_segment_stays_until_no_restart_would_ask_for_it():
    server = Server(isthmus_durability="memory")
    for number in range(6):
        server.partition.append(batch_of(b"%d" % number + b"x" * 99), None)
        server.log.flush()
    told = []
    server.partition.delete_before(4, told.append)
    server.runtime.turn()
    while server.runtime.offloaded and not told:
        work, done = server.runtime.offloaded.popleft()
        done(work(), None)
    assert told == [None]
    assert server.segments() == [0, 2, 4]  # the recovery point is at 0
    assert server.after_kill().span == (4, 6)
    server.pass_time(1)
    assert server.segments() == [4]
    assert server.partition.durable_recovery_point >= 4


def test_a_log_topic_of_the_same_name_does_not_inherit_the_start():
    server = fill(Server())
    server.delete_before(5)
    server.log.delete("a")
    server.log.create("a", 1, SMALL)
    server.put(b"new")
    again = server.after_kill()
    assert again.span == (0, 1)
    assert contents(again.partition) == [b"new"]


def test_files_of_a_log_topic_of_the_same_name_are_not_taken_away():
    server = fill(Server(file_delete_delay_ms=0))
    server.partition.delete_before(-1, lambda error: None)
    server.log.delete("a")
    server.log.create("a", 1, SMALL | {"file.delete.delay.ms": "0"})
    fill(server)
    assert values(server.partition) == [0, 1, 2, 3, 4, 5]
    assert server.names(".deleted") == []


def test_a_reader_inside_of_what_goes_reads_on():
    server = fill(Server(file_delete_delay_ms=0))
    records = read(server.partition, 0, 10_000)
    server.delete_before(-1)
    server.pass_time(1)
    assert server.segments() == [6]
    data = b"".join(records.buffers)
    assert len(data) == records.size
    assert data.startswith(bytes(8))  # still the batch at offset 0


def test_a_reader_who_waits_for_the_disk_is_told_when_what_he_wants_goes():
    server = fill(Server(file_delete_delay_ms=0)).after_close()
    woken = []
    assert server.partition.read(0, 10_000).is_loading
    server.partition.wait(0, lambda: woken.append(True))
    server.delete_before(-1)
    server.pass_time(1)
    assert server.segments() == [6]
    server.runtime.finish_reads()
    server.runtime.settle()
    assert woken == [True]
    with pytest.raises(OffsetOutOfRange):
        server.partition.read(0, 10_000)
    assert server.segments() == [6]  # nobody has made a file of that name again


# --- restarts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Server.after_kill, Server.after_close])
def test_a_start_in_the_middle_of_a_segment_is_kept(end):
    server = fill(Server())
    assert server.delete_before(3) == [None]
    server = end(server)
    assert server.span == (3, 6)
    assert values(server.partition) == [3, 4, 5]


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_brings_nothing_back_that_was_said_to_be_gone(seed):
    server = fill(Server())
    assert server.delete_before(3) == [None]
    again = Server(server.disk.cut_power(seed))
    assert again.span == (3, 6)
    assert values(again.partition) == [3, 4, 5]


def test_where_all_that_was_left_is_lost_the_log_begins_anew_at_its_start():
    server = Server(isthmus_durability="memory")
    for number in range(6):
        server.partition.append(batch_of(b"%d" % number + b"x" * 99), None)
        server.log.flush()
    told = []
    server.partition.delete_before(5, told.append)
    server.runtime.turn()
    while not told:
        work, done = server.runtime.offloaded.popleft()
        done(work(), None)
    disk = server.disk.kill()
    for base in server.segments():
        disk.remove(PARTITION / f"{base:020d}.log")
    disk.open(PARTITION / f"{0:020d}.log", create=True)
    again = Server(disk)
    assert again.span == (5, 5)
    assert again.put(b"next") == 5
    third = again.after_kill()
    assert third.span == (5, 6)
    assert contents(third.partition) == [b"next"]


def test_a_damaged_file_of_start_offsets_is_told_and_costs_no_records(caplog):
    server = fill(Server())
    server.delete_before(3)
    disk = server.disk.kill()
    disk.write_file(DIRECTORY / "log-start-offset-checkpoint", b"nonsense", sync=True)
    with caplog.at_level(logging.ERROR):
        again = Server(disk)
    assert "log-start-offset-checkpoint is damaged" in caplog.text
    assert again.span == (2, 6)  # as the names of the files say
    assert values(again.partition) == [2, 3, 4, 5]


def test_the_checkpoint_has_kafkas_form():
    server = fill(Server())
    server.delete_before(3)
    text = server.disk.read_file(DIRECTORY / "log-start-offset-checkpoint").decode()
    version, count, *lines = text.splitlines()
    assert (version, count) == ("0", "2")
    assert lines[0] == "a 0 3"
    assert lines[1].startswith("id:")


def test_epochs_before_the_start_are_forgotten():
    server = fill(Server(), 2)
    server = fill(server.after_kill(), 2)
    server = fill(server.after_kill(), 2)
    first, second, third = (server.partition.epoch_end_offset(epoch) for epoch in range(3))
    assert [end for _, end in (first, second, third)] == [2, 4, 6]
    server.delete_before(3)
    assert server.partition.epoch_end_offset(0) == (-1, -1)
    assert server.partition.epoch_end_offset(1) == (1, 4)
    server.put(b"saved with this")
    text = server.disk.read_file(PARTITION / "leader-epoch-checkpoint").decode()
    assert text.splitlines()[2:] == ["1 3", "2 4"]


def test_what_producers_wrote_is_remembered_after_all_of_it_expired():
    server = Server(retention_ms=MINUTE_MS)
    numbered = {"producer_id": 9, "epoch": 0}
    for sequence in range(6):
        server.put(b"x" * 100, **numbered, sequence=sequence)
    server.pass_time(10)
    assert server.span == (6, 6)
    again = server.after_kill()
    assert again.put(b"x" * 100, **numbered, sequence=5) == 5  # a retry
    assert again.put(b"x" * 100, **numbered, sequence=6) == 6


# --- a disk in trouble ------------------------------------------------------------------------


def test_a_start_that_cannot_be_written_down_is_refused_and_nothing_changes():
    server = fill(Server())
    server.disk.fail_only, server.disk.calls, server.disk.fail_at = "rename", 0, 1
    (error,) = server.delete_before(3)
    assert isinstance(error, StorageError)
    assert server.span == (0, 6)
    assert server.delete_before(3) == [None]
    assert server.span == (3, 6)


def test_a_full_disk_is_no_reason_not_to_make_room():
    server = fill(Server(retention_ms=10 * MINUTE_MS, file_delete_delay_ms=0))
    server.disk.room = 0
    (error,) = server.delete_before(3)
    assert isinstance(error, NoSpace)
    server.pass_time(30)
    assert server.partition.start_offset == 6
    assert server.segments() == [6]
    server.disk.room = 100_000  # what the others have left
    server.pass_time(1)
    assert server.segments() == [6]
    assert Server(server.disk.kill(), now_ms=server.runtime.now_ms()).span == (6, 6)


def test_after_a_failed_sync_nothing_is_deleted_and_everybody_is_told():
    server = fill(Server())
    told = []
    server.partition.delete_before(3, told.append)
    server.runtime.turn()  # its round is under way
    server.partition.delete_before(4, told.append)  # and this one is for the next
    server.disk.sync_fails = True
    server.put(b"fails")
    server.partition.delete_before(5, told.append)
    assert [type(error) for error in told] == [StorageError, SyncFailed, SyncFailed]
    assert server.span[0] == 0


@pytest.mark.parametrize(("offset", "left"), [(3, [2, 4]), (-1, [6])])
def test_an_error_of_the_disk_at_any_moment_only_delays(offset, left):
    start = 6 if offset < 0 else offset
    for operation in itertools.count(1):
        server = fill(Server(retention_ms=3 * HOUR_MS, file_delete_delay_ms=MINUTE_MS))
        server.disk.calls, server.disk.fail_at = 0, operation
        server.delete_before(offset)
        server.pass_time(5)
        if server.disk.calls < operation:
            break
        server.disk.fail_at = 0
        if server.log.error is not None:
            server = server.after_kill()
            assert server.partition.start_offset in (0, start)
        assert server.delete_before(offset) == [None]
        server.pass_time(5)
        assert server.span == (start, 6)
        assert values(server.partition) == [*range(start, 6)]
        again = server.after_kill()
        again.runtime.settle()
        assert (again.span, again.segments()) == ((start, 6), left)
        assert again.names(".deleted") == []
    assert operation > 10


def test_a_round_that_begins_before_the_last_is_reported_promises_nothing_for_it():
    """The next round begins first and the answers go out then, to keep the disk at work."""
    server = fill(Server())
    told = []
    server.partition.delete_before(3, told.append)
    server.runtime.turn()
    server.partition.delete_before(5, told.append)
    work, done = server.runtime.offloaded.popleft()
    done(work(), None)
    assert told == [None]
    assert server.span == (3, 6)
    assert server.after_kill().span == (3, 6)
    server.runtime.settle()
    assert told == [None, None]
    assert server.after_kill().span == (5, 6)
