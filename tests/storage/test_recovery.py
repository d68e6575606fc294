"""What a start finds after an unclean end: torn tails, damage in the middle, wrong hints."""

from __future__ import annotations

import os

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import (
    NOW_MS,
    Answer,
    batch_of,
    contents,
    find_max_time,
    find_time,
    read,
    read_batches,
)

from isthmus.errors import ConfigError, CorruptBatch
from isthmus.record.batch import BatchBuilder
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

# Without a journal, which has copies of what these tests tear: see test_journal_recovery.py.
NO_TAIL = LocalSettings(tail_bytes_max=0, journal_files_max=0)
SMALL = {"internal.segment.bytes": "2000", "index.interval.bytes": "200"}


class Server:
    """A log in a directory, started and ended in different ways."""

    def __init__(self, path, settings=NO_TAIL):
        self.path = path
        self.settings = settings
        self.runtime = SimRuntime()
        self.start()

    def start(self):
        self.log = LocalLog(self.path, self.runtime, settings=self.settings)
        return self

    def create(self, configs=SMALL):
        self.log.create("t", 1, configs)
        return self

    @property
    def partition(self):
        return self.log.partition("t", 0)

    @property
    def directory(self):
        return self.path / "t-0"

    def put(self, *values, **how):
        answer = Answer()
        self.partition.append(batch_of(*values, **how), answer)
        self.log.flush()
        self.runtime.settle()
        assert answer.is_durable, answer.events
        return answer.base_offset

    def fill(self, count, size=300):
        return [self.put(b"%04d" % number + bytes(size)) for number in range(count)]

    def kill(self):
        """End without a word: what was written stays, no mark is left."""
        for segments in [partition.segments for partition in self.log._shared.partitions]:
            for segment in segments:
                segment._descriptor = -1
        self.log._directory.close()
        return self

    def close(self):
        self.log.close()
        return self

    def newest(self, suffix=".log"):
        return sorted(self.directory.glob(f"*{suffix}"))[-1]

    def oldest(self, suffix=".log"):
        return sorted(self.directory.glob(f"*{suffix}"))[0]

    def flip(self, path, position, bit=0x10):
        data = bytearray(path.read_bytes())
        data[position] ^= bit
        path.write_bytes(data)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "data").create()
    yield server
    server.close()


def numbers(server, start=None):
    return [int(value[:4]) for value in contents(server.partition, start=start)]


# --- the end that is torn ---------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 5000, b"garbage" * 50, bytes(range(256)) * 9])
def test_bytes_after_the_last_batch_are_cut(server, tail):
    server.fill(10)
    server.kill()
    path = server.newest()
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + tail)
    server.start()
    assert numbers(server) == list(range(10))
    assert path.stat().st_size == size
    assert server.put(b"0010") == 10


@pytest.mark.parametrize("kept", [1, 11, 12, 60, 61, 200])
def test_a_batch_cut_short_is_cut_off(server, kept):
    server.fill(3)
    size = server.newest().stat().st_size
    server.fill(1)
    server.kill()
    os.truncate(server.newest(), size + kept)
    server.start()
    assert numbers(server) == [0, 1, 2]
    assert server.newest().stat().st_size == size


def test_a_torn_batch_whose_payload_holds_a_batch_does_not_bring_it_back(server):
    """The payload is chosen to look like log: a batch that would fit right here."""
    server.fill(2)
    size = server.newest().stat().st_size
    inner = batch_of(b"9999")
    inner.stamp(server.partition.end_offset + 1, 0)
    server.put(bytes(inner.data))
    server.kill()
    data = bytearray(server.newest().read_bytes())
    data[size : size + 61] = bytes(61)
    server.newest().write_bytes(data)
    server.start()
    assert numbers(server) == [0, 1]


def test_a_newest_segment_with_nothing_good_is_taken_away(server):
    server.fill(12)
    assert len(list(server.directory.glob("*.log"))) > 2
    server.kill()
    base = int(server.newest().stem)
    server.newest().write_bytes(b"\0" * 700)
    (server.path / "recovery-point-offset-checkpoint").unlink()  # else it is known to be lost
    server.start()
    assert numbers(server) == list(range(base))
    assert server.put(b"again") == base


def test_the_leader_epoch_grows_with_every_unclean_end_and_not_with_a_clean_one(server):
    server.fill(2)
    assert server.partition.leader_epoch == 0
    server.kill().start()
    assert server.partition.leader_epoch == 1
    assert server.partition.epoch_end_offset(0) == (0, 2)
    server.fill(1)
    server.close().start()
    assert server.partition.leader_epoch == 1
    server.kill().start()
    assert server.partition.leader_epoch == 2
    server.fill(1)
    server.close().start()
    assert (server.directory / "leader-epoch-checkpoint").read_text() == "0\n3\n0 0\n1 2\n2 3\n"
    assert server.partition.epoch_end_offset(1) == (1, 3)
    assert server.partition.epoch_end_offset(7) == (2, 4)


def test_a_lost_epoch_file_is_rebuilt_from_the_batches(server):
    server.fill(2)
    server.kill().start()
    server.fill(2)
    server.close()
    (server.directory / "leader-epoch-checkpoint").write_text("nonsense")
    server.start()
    assert server.partition.epoch_end_offset(0) == (0, 2)
    assert server.partition.epoch_end_offset(1) == (1, 4)


# --- damage in the middle ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "position", [0, 5, 9, 16, 17, 25, 100, 330], ids=lambda at: f"byte {at}"
)
def test_a_flipped_bit_never_costs_what_follows_it(server, position, caplog):
    """In the newest segment, which a start after a crash goes over."""
    server.fill(5)
    server.kill()
    size = server.newest().stat().st_size // 5
    server.flip(server.newest(), size + position)
    server.start()
    assert numbers(server) == [0, 2, 3, 4]
    assert "offsets 1 to 1 are lost" in caplog.text
    assert server.partition.end_offset == 5
    assert numbers(server, start=1) == [2, 3, 4]
    server.put(b"0005")
    assert numbers(server.close().start()) == [0, 2, 3, 4, 5]


def test_damage_in_an_old_segment_is_stepped_over_when_it_is_read(server, caplog):
    server.fill(20)
    server.close()
    server.flip(server.oldest(), 500)
    server.start()
    assert numbers(server) == [0, *range(2, 20)]
    assert caplog.text.count("are lost") == 1
    assert find_time(server.partition, 0) == (0, NOW_MS)


def test_an_old_segment_that_ends_in_damage_does_not_end_the_log(server):
    server.fill(20)
    server.kill()
    path = server.oldest()
    count = int(sorted(server.directory.glob("*.log"))[1].stem)
    os.truncate(path, path.stat().st_size - 10)
    (server.path / "recovery-point-offset-checkpoint").unlink()
    server.start()
    assert numbers(server) == [*range(count - 1), *range(count, 20)]


def test_a_partition_of_nothing_but_damage_says_so(server):
    server.fill(3)
    server.close()
    path = server.newest()
    path.write_bytes(bytes(path.stat().st_size))
    server.start()
    # Not as a clean end leaves it: gone over, and nothing good is left of it.
    assert server.partition.end_offset == 3
    with pytest.raises(CorruptBatch):
        read(server.partition, 0, 1000)
    assert server.put(b"x") == 3
    server.flip(server.newest(), 66)
    with pytest.raises(CorruptBatch):
        read(server.partition, 0, 1000)


def test_a_file_that_shrank_behind_our_back_ends_where_it_ends(server):
    server.fill(4)
    size = server.newest().stat().st_size // 4
    os.truncate(server.newest(), 2 * size + 30)
    assert len(read_batches(server.partition, 0, 10_000)) == 2
    with pytest.raises(CorruptBatch):
        read(server.partition, 2, 1000)


# --- hints that are wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "unclean"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: None,
        lambda data: b"",
        lambda data: data[:-3],
        lambda data: bytes(len(data)),
        lambda data: b"\xff" * len(data),
        lambda data: data[::-1],
        lambda data: bytes(byte ^ 1 for byte in data),
    ],
    ids=["missing", "empty", "short", "zeros", "ones", "reversed", "flipped"],
)
def test_wrong_indexes_cost_no_record(server, suffix, clean, spoil):
    for number in range(30):
        server.put(b"%04d" % number + bytes(300), timestamp=NOW_MS + number)
    server.close() if clean else server.kill()
    for path in server.directory.glob(f"*{suffix}"):
        data = spoil(path.read_bytes())
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
    server.start()
    assert numbers(server) == list(range(30))
    for offset in range(30):
        assert numbers(server, start=offset) == list(range(offset, 30))
    for number in range(30):
        assert find_time(server.partition, NOW_MS + number) == (number, NOW_MS + number)
    assert find_max_time(server.partition) == (29, NOW_MS + 29)


@pytest.mark.parametrize("content", [b"", b"0\n", b"0\n1\nt 0 999999\n", b"\xff\xff"])
def test_a_wrong_recovery_point_only_costs_time(server, content):
    server.fill(10)
    server.kill()
    (server.path / "recovery-point-offset-checkpoint").write_bytes(content)
    assert numbers(server.start()) == list(range(10))


# --- producers --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "kill", "no snapshot", "bad snapshot"])
def test_a_retry_is_recognised_across_a_restart(server, end):
    def numbered(sequence):
        return {"producer_id": 4, "epoch": 0, "sequence": sequence}

    offsets = [server.put(b"%d" % each, **numbered(each)) for each in range(8)]
    server.kill() if end == "kill" else server.close()
    for path in server.directory.glob("*.snapshot"):
        if end == "no snapshot":
            path.unlink()
        if end == "bad snapshot":
            server.flip(path, 20)
    server.start()
    assert [server.put(b"%d" % each, **numbered(each)) for each in range(3, 8)] == offsets[3:]
    assert server.put(b"8", **numbered(8)) == 8
    assert server.partition.end_offset == 9


# --- the directory ----------------------------------------------------------------------------


def test_the_layout_is_kafkas(server):
    server.fill(12)
    topic_id = server.log.topics["t"].topic_id
    server.close()
    names = {path.name for path in server.directory.iterdir()}
    assert {
        "00000000000000000000.log",
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
        "00000000000000000012.snapshot",
        "leader-epoch-checkpoint",
        "partition.metadata",
    } <= names
    metadata = (server.directory / "partition.metadata").read_text()
    assert metadata.startswith("version: 0\ntopic_id: ")
    topic = metadata.split()[3]
    assert len(topic) == 22
    root = {path.name for path in server.path.iterdir()}
    assert root == {
        "LOCK",
        "isthmus-catalog",
        "meta.properties",
        ".kafka_cleanshutdown",
        "recovery-point-offset-checkpoint",
        "t-0",
    }
    points = (server.path / "recovery-point-offset-checkpoint").read_text()
    assert points == f"0\n2\nt 0 12\nid:{topic} 0 12\n"
    server.start()
    assert server.log.topics["t"].topic_id == topic_id
    assert not (server.path / ".kafka_cleanshutdown").exists()


def test_a_second_server_is_told_who_has_the_directory(server):
    with pytest.raises(
        ConfigError, match=rf"in use by process {os.getpid()}: stop that server"
    ):
        LocalLog(server.path, SimRuntime())


def test_a_directory_of_others_is_refused_untouched(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is no Isthmus data directory \(it holds precious"):
        LocalLog(tmp_path, SimRuntime())
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_directory_that_cannot_be_made_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be used"):
        LocalLog(tmp_path / "missing" / "data", SimRuntime())
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        LocalLog(tmp_path / "file", SimRuntime())


def test_a_damaged_catalog_is_a_sentence(server):
    server.close()
    server.flip(server.path / "isthmus-catalog", 60)
    with pytest.raises(ConfigError, match="damaged"):
        server.start()
    server.flip(server.path / "isthmus-catalog", 60)
    server.start()


def test_what_was_deleted_stays_deleted(server):
    server.fill(3)
    old = server.log.topics["t"].topic_id
    server.log.delete("t")
    server.create()
    server.put(b"0100")
    server.kill().start()  # before anything was removed in the background
    assert numbers(server) == [100]
    assert server.log.topics["t"].topic_id != old
    assert [path.name for path in server.path.glob("t-*")] == ["t-0"]


def test_settings_and_partitions_survive(server):
    server.log.configure("t", {"retention.ms": "5"})
    server.log.add_partitions("t", 3)
    server.kill().start()
    assert dict(server.log.topics["t"].configs) == {"retention.ms": "5"}
    assert len(server.log.topics["t"].partitions) == 3


def test_a_thousand_partitions_open_with_few_files(tmp_path):
    server = Server(tmp_path / "data", LocalSettings(open_segments_max=20))
    server.log.create("t", 1000, {})
    for partition in server.log.topics["t"].partitions:
        builder = BatchBuilder()
        builder.append(1, None, b"x")
        partition.append(builder.seal(), Answer())
    server.log.flush()
    server.runtime.settle()
    server.close().start()
    assert len(server.log._shared.open_segments) <= 20
    assert all(partition.end_offset == 1 for partition in server.log.topics["t"].partitions)
    assert contents(server.log.partition("t", 500)) == [b"x"]
    server.close()


def test_damage_where_the_check_begins_does_not_end_the_log_before_it(tmp_path):
    """There, only the entry of an index says which offset is where."""
    settings = LocalSettings(tail_bytes_max=0, checkpoint_ms=10)
    server = Server(tmp_path / "data", settings).create()
    server.fill(4)
    server.runtime.advance(100)
    server.runtime.settle()
    assert server.partition.durable_recovery_point == 4
    server.kill()
    server.flip(server.newest(), server.newest().stat().st_size - 2)
    server.start()
    assert server.partition.end_offset == 4
    assert server.put(b"0004") == 4
    assert numbers(server) == [0, 1, 2, 4]
    assert numbers(server.kill().start()) == [0, 1, 2, 4]
    server.close()
