"""What a start makes of the journal: everything that was promised, nothing that was not."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents
from tests.storage.disk import SimDisk

from isthmus.storage.local import chunks
from isthmus.storage.local.checkpoints import RECOVERY_POINT_FILE
from isthmus.storage.local.journal_format import PAGE_BYTES, parse_header, parse_rounds
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.wire.crc32c import crc32c

DIRECTORY = Path("/disk/data")
JOURNAL = DIRECTORY / "journal"
NAMES = "abcd"
CONFIGS = {"internal.segment.bytes": "3000", "index.interval.bytes": "300"}
SETTINGS = LocalSettings(
    tail_bytes_max=0,
    open_segments_max=4,
    checkpoint_bytes=1 << 30,
    journal_file_bytes=32 * 1024,
    journal_files_max=3,
)


class Server:
    """A log on a simulated disk, with four log topics of one partition."""

    def __init__(self, disk=None, settings=SETTINGS, seed=0):
        self.disk = disk or SimDisk()
        self.runtime = SimRuntime(seed)
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, settings)
        for name in NAMES:
            if name not in self.log.topics:
                self.log.create(name, 1, CONFIGS)
        self.runtime.settle()

    def append(self, name, *values):
        answer = Answer()
        self.log.partition(name, 0).append(batch_of(*values), answer)
        return answer

    def round(self, value, names=NAMES):
        answers = [self.append(name, value) for name in names]
        self.log.flush()
        self.runtime.settle()
        assert all(answer.is_durable for answer in answers)

    def values(self, name):
        return contents(self.log.partition(name, 0))

    def files(self):
        return [self.disk.file(JOURNAL / name) for name in self.disk.names(JOURNAL)]

    def newest(self):
        """The file of the journal with the newest round, and its rounds."""
        rounds = {file: _rounds(file) for file in self.files()}
        file = max(rounds, key=lambda each: rounds[each][-1].number if rounds[each] else 0)
        return file, rounds[file]

    def forget_segments(self):
        """What a power cut may leave of segments that were never synced: nothing."""
        for name in NAMES:
            directory = DIRECTORY / f"{name}-0"
            for path in self.disk.names(directory):
                if path.endswith(".log"):
                    self.disk.remove(directory / path)


def _rounds(file):
    return list(parse_rounds(memoryview(bytes(file.data)), parse_header(file.data).seed))


def _kind(work):
    """Which part of the engine wants a piece of background work done."""
    return type(work.__self__).__name__


def test_all_that_was_acknowledged_is_made_anew_from_the_journal_alone():
    server = Server()
    for number in range(8):
        server.round(b"%d" % number)
    server.forget_segments()
    after = Server(server.disk.kill())
    for name in NAMES:
        assert after.values(name) == [b"%d" % number for number in range(8)]
        assert after.log.partition(name, 0).leader_epoch == 1
    after.round(b"next")
    assert after.values("a")[-1] == b"next"


def test_even_the_directories_of_partitions():
    server = Server()
    server.round(b"one")
    for name in NAMES:
        server.disk.remove_tree(DIRECTORY / f"{name}-0")
    after = Server(server.disk.kill())
    for name in NAMES:
        assert after.values(name) == [b"one"]


def test_a_segment_begun_in_the_middle_of_a_round(caplog):
    server = Server()
    server.round(bytes(2000))
    answers = [server.append("a", bytes([number]) * 900) for number in range(5)]
    answers += [server.append(name, b"other") for name in "bcd"]
    server.log.flush()
    (current,) = (work for work, _ in server.runtime.offloaded if _kind(work) == "SyncRound")
    current()
    server.forget_segments()
    after = Server(server.disk.kill())
    assert after.values("a") == [bytes(2000), *(bytes([number]) * 900 for number in range(5))]
    assert after.values("d") == [bytes(2000), b"other"]
    assert "damaged" not in caplog.text


def test_a_segment_synced_by_itself_between_two_copies():
    server = Server()
    server.round(b"copied")
    server.round(b"synced", "ab")
    server.round(b"copied again")
    for seed in range(20):
        after = Server(server.disk.copy().cut_power(seed))
        assert after.values("a") == [b"copied", b"synced", b"copied again"]
        assert after.values("c") == [b"copied", b"copied again"]


def test_what_a_recovery_point_covers_is_left_alone():
    server = Server()
    server.round(b"one")
    server.runtime.advance(60_000)
    assert server.log.partition("a", 0).durable_recovery_point == 1
    server.round(b"two")
    path = DIRECTORY / "a-0" / f"{0:020d}.log"
    file = server.disk.file(path)
    file.data[60] ^= 1  # as compaction or a bad disk would change it
    before = bytes(file.data)
    after = Server(server.disk.kill())
    assert bytes(after.disk.file(path).data) == before


def test_a_log_topic_deleted_and_created_again_gets_nothing_of_the_first():
    server = Server()
    server.round(b"old")
    server.runtime.advance(60_000)
    server.log.delete("a")
    server.log.create("a", 1, CONFIGS)
    server.round(b"new")
    for seed in range(20):
        after = Server(server.disk.copy().cut_power(seed))
        assert after.values("a") == [b"new"]
        assert after.values("b") == [b"old", b"new"]


def test_copies_of_a_deleted_log_topic_are_left_out():
    server = Server()
    server.round(b"v")
    server.log.delete("a")
    server.runtime.settle()
    log = LocalLog(DIRECTORY, SimRuntime(), server.disk.kill(), SETTINGS)
    assert sorted(log.topics) == ["b", "c", "d"]


def test_after_a_clean_end_nothing_is_replayed():
    server = Server()
    server.round(b"one")
    server.log.close()
    again = Server(server.disk.kill())
    path = DIRECTORY / "a-0" / f"{0:020d}.log"
    again.disk.remove(path)
    again.disk.remove(DIRECTORY / RECOVERY_POINT_FILE)
    third = Server(again.disk.kill())
    assert not third.disk.exists(path), "which retention might have removed"
    assert third.values("b") == [b"one"]


def test_copies_are_void_once_a_start_has_used_them():
    """Or a second crash would put old bytes over what was written after the first."""
    server = Server()
    for number in range(3):
        server.round(b"%d" % number)
    file, _ = server.newest()
    torn = file.data.index(b"2", 3 * PAGE_BYTES)
    file.data[torn - 40] ^= 1  # the last copies are lost, and so are the segments
    server.forget_segments()
    second = Server(server.disk.kill())
    assert second.values("a") == [b"0", b"1"]
    file.data[torn - 40] ^= 1  # and turn up again
    second.round(b"other")
    third = Server(second.disk.kill())
    assert third.values("a") == [b"0", b"1", b"other"]


def test_a_file_whose_name_a_killed_server_did_not_come_to_sync():
    server = Server()
    answers = [server.append(name, b"one") for name in NAMES]
    server.log.flush()
    server.disk.fail_only, server.disk.fail_at = ("sync_directory",), 1
    server.disk.calls, server.disk.fail_count = 0, 1 << 30
    server.runtime.settle()  # up to there the journal is made
    assert server.disk.exists(JOURNAL / "0.wal")
    assert not any(answer.is_durable for answer in answers)
    after = Server(server.disk.kill())
    after.round(b"two")
    for seed in range(20):
        again = Server(after.disk.copy().cut_power(seed))
        assert again.values("d")[-1] == b"two"


def test_a_torn_round_at_the_end_is_no_damage(caplog):
    server = Server()
    for number in range(3):
        server.round(b"%d" % number * 200)
    file, rounds = server.newest()
    last = rounds[-1]
    file.data[last.position + 700 :] = bytes(len(file.data) - last.position - 300)
    whole = [crc32c(payload) == entry.crc for entry, payload in _rounds(file)[-1].entries]
    assert True in whole
    assert False in whole
    server.forget_segments()
    after = Server(server.disk.kill())
    counts = [len(after.values(name)) for name in NAMES]
    assert sorted(counts) == sorted(2 + is_whole for is_whole in whole)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_damaged_copy_is_reported_and_costs_no_other_one(caplog):
    server = Server()
    for number in range(4):
        server.round(b"%d" % number * 200)
    file, _ = server.newest()
    file.data[file.data.index(b"1" * 200)] ^= 1
    server.forget_segments()
    after = Server(server.disk.kill())
    assert "is damaged, and newer rounds follow it" in caplog.text
    assert after.values("a") == [b"0" * 200, b"2" * 200, b"3" * 200]
    assert "offsets 1 to 1 are lost" in caplog.text
    for name in "bcd":
        assert after.values(name) == [b"%d" % number * 200 for number in range(4)]


def test_missing_rounds_are_reported_and_newer_files_used(caplog):
    server = Server()
    held, rounds = [], 0
    while not server.disk.exists(JOURNAL / "1.wal") or len(held) < 1:
        answers = [server.append(name, b"%d" % rounds) for name in NAMES]
        server.log.flush()
        while server.runtime.offloaded:
            work, done = server.runtime.offloaded.popleft()
            if _kind(work) == "Sweep":
                held.append(work)
            else:
                done(work(), None)
        assert all(answer.is_durable for answer in answers)
        rounds += 1
    first = min(server.files(), key=lambda each: parse_header(each.data).sequence)
    first.data[PAGE_BYTES * 3 : PAGE_BYTES * 4] = bytes(PAGE_BYTES)
    server.forget_segments()
    after = Server(server.disk.kill())
    assert "the journal lacks rounds 3 to" in caplog.text
    values = after.values("a")
    assert values[:2] == [b"0", b"1"]
    assert values[-1] == b"%d" % (rounds - 1)


def test_a_file_of_another_size_is_replayed_and_made_anew():
    server = Server()
    server.round(b"one")
    server.forget_segments()
    larger = LocalSettings(tail_bytes_max=0, journal_file_bytes=64 * 1024)
    after = Server(server.disk.kill(), settings=larger)
    assert after.values("d") == [b"one"]
    after.round(b"two")
    assert {len(file.data) for file in after.files()} == {64 * 1024}


def test_nothing_that_is_on_the_disk_is_synced_again_at_a_start():
    server = Server()
    server.round(b"one")
    server.runtime.advance(60_000)
    after = server.disk.kill()
    Server(after)
    synced = [line for line in after.log if line.startswith(("fdatasync", "sync_directory"))]
    assert not [line for line in synced if "-0" in line], "no directory of a partition"
    # The catalog, the recovery points, and the journal that is made void.
    assert sum(line.startswith("fdatasync") for line in synced) == 3


# --- any life, any end ------------------------------------------------------------------------


class PowerCut(BaseException):
    """The power is gone."""


class Life:
    """Rounds of many partitions by seed, until the power goes at the n-th call."""

    def __init__(self, seed, disk=None):
        self.chance = random.Random(seed)
        self.disk = disk or SimDisk()
        self.calls_left = -1
        self.promised: dict[tuple[bytes, int], bytes] = {}
        self.open: list[tuple[bytes, bytes, Answer]] = []

    def live(self, turns, calls_left=-1):
        """Return whether it came to its end."""
        self.calls_left = calls_left
        self.disk.before_call = self._count
        try:
            server = Server(self.disk, seed=self.chance.getrandbits(32))
            for turn in range(turns):
                self._turn(server, turn)
            return True
        except PowerCut:
            return False
        finally:
            self.disk.before_call = None
            self._collect()

    def _count(self):
        self.calls_left -= 1
        if self.calls_left == 0:
            raise PowerCut

    def _turn(self, server, turn):
        for name in self.chance.sample(NAMES, self.chance.randint(1, len(NAMES))):
            size = self.chance.choice((1, 50, 50, 400, 2500))
            value = b"%s-%d-" % (name.encode(), turn) + bytes(size)
            answer = server.append(name, value)
            self.open.append((server.log.topics[name].topic_id, value, answer))
        server.log.flush()
        for _ in range(self.chance.randint(0, 3)):
            if server.runtime.offloaded:
                slot = self.chance.randrange(len(server.runtime.offloaded))
                work, done = server.runtime.offloaded[slot]
                del server.runtime.offloaded[slot]
                done(work(), None)
        if self.chance.random() < 0.05:
            server.runtime.advance(60_000)
        if self.chance.random() < 0.03:
            server.log.delete("d")
            server.log.create("d", 1, CONFIGS)

    def _collect(self):
        for topic_id, value, answer in self.open:
            if answer.is_durable:
                self.promised[topic_id, answer.base_offset] = value
        self.open.clear()

    def check(self, disk):
        log = LocalLog(DIRECTORY, SimRuntime(1), disk, SETTINGS)
        living = {topic.topic_id: topic.partitions[0] for topic in log.topics.values()}
        for (topic_id, offset), value in self.promised.items():
            if topic_id in living:
                assert contents(living[topic_id], start=offset)[0] == value
        log.close()


@pytest.fixture
def _small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "COPY_BYTES_MAX", 2000)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("seed", range(6))
def test_a_power_cut_at_any_call_takes_nothing_that_was_acknowledged(seed):
    whole = Life(seed)
    assert whole.live(60)
    sequences = [
        parse_header(whole.disk.file(JOURNAL / name).data).sequence
        for name in whole.disk.names(JOURNAL)
    ]
    assert max(sequences) > 2, "files were used again"
    calls = whole.disk.calls
    chance = random.Random(seed)
    for cut_at in chance.sample(range(1, calls), 60):
        life = Life(seed)
        assert not life.live(60, cut_at)
        life.check(life.disk.cut_power(cut_at))


@pytest.mark.usefixtures("_small_chunks")
@pytest.mark.parametrize("seed", range(100, 104))
def test_lives_one_after_the_other_on_one_disk(seed):
    chance = random.Random(seed)
    life = Life(seed)
    for number in range(12):
        life.live(20, chance.randint(100, 900))
        life.disk = life.disk.cut_power(chance.getrandbits(32))
        life.check(life.disk.copy())
        if number % 4 == 3:
            log = LocalLog(DIRECTORY, SimRuntime(number), life.disk, SETTINGS)
            log.close()
            life.disk = life.disk.cut_power(number)
