"""The journal: its format, which round goes where, and when a file is free again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents
from tests.storage.disk import SimDisk

from isthmus.errors import NoSpace
from isthmus.storage.local import chunks
from isthmus.storage.local.chunks import Chunk, ChunkBudget
from isthmus.storage.local.journal_format import (
    NONCE_BYTES,
    PAGE_BYTES,
    Entry,
    format_header,
    format_round,
    parse_header,
    parse_rounds,
    round_bytes,
)
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.open_segments import OpenSegments
from isthmus.storage.local.segment import Segment
from isthmus.storage.local.settings import LocalSettings
from isthmus.wire.crc32c import crc32c

DIRECTORY = Path("/disk/data")
JOURNAL = DIRECTORY / "journal"
NONCE = bytes(range(NONCE_BYTES))
NAMES = "abcde"


# --- the format -------------------------------------------------------------------------------


def entry_for(payload: bytes, number: int = 0) -> Entry:
    topic_id = number.to_bytes(16, "big")
    return Entry(topic_id, number, 100, 200, 300 + number, len(payload), crc32c(payload))


def file_of(seed: int, *rounds: tuple[int, list[bytes]]) -> bytearray:
    data = bytearray(PAGE_BYTES)
    for number, payloads in rounds:
        entries = [entry_for(payload, at) for at, payload in enumerate(payloads)]
        data += format_round(seed, number, entries) + b"".join(payloads)
        data += bytes(-len(data) % PAGE_BYTES)
    return data


def found_in(data: bytes, seed: int) -> list[tuple[int, list[bytes]]]:
    return [
        (each.number, [bytes(payload) for _, payload in each.entries])
        for each in parse_rounds(memoryview(data), seed)
    ]


def test_a_header_says_what_it_was_told_and_fills_a_page():
    page, seed = format_header(7, 5, NONCE)
    assert len(page) == PAGE_BYTES
    assert parse_header(page) == (7, 5, seed)
    assert format_header(7, 5, NONCE[::-1])[1] != seed
    assert parse_header(bytes(PAGE_BYTES)) is None
    assert parse_header(page[:20]) is None


@pytest.mark.parametrize("position", range(40))
def test_a_header_with_a_flipped_bit_is_none(position):
    page = bytearray(format_header(7, 5, NONCE)[0])
    page[position] ^= 4
    assert parse_header(page) is None


@given(st.lists(st.lists(st.binary(min_size=1, max_size=9000), min_size=1, max_size=4)))
def test_rounds_are_read_as_they_were_written(written):
    rounds = list(enumerate(written, 1))
    data = file_of(11, *rounds)
    assert found_in(data, 11) == rounds
    sizes = (round_bytes(len(each), sum(map(len, each))) for each in written)
    assert PAGE_BYTES + sum(sizes) == len(data)


def test_rounds_of_an_earlier_use_are_not_taken_for_those_of_this_one():
    old = file_of(1, (1, [b"a" * 100]), (2, [b"b" * 100]), (3, [b"c" * 100]))
    new = file_of(2, (9, [b"n" * 100]))
    assert found_in(new + old[len(new) :], 2) == [(9, [b"n" * 100])]


@pytest.mark.parametrize("position", [0, 3, 4, 12, 16, 24, 28, 45, 60, 75])
def test_a_round_with_a_flipped_bit_before_its_payloads_ends_the_file(position):
    data = file_of(1, (1, [b"a" * 100]), (2, [b"b" * 100]))
    data[2 * PAGE_BYTES + position] ^= 0x20
    assert found_in(data, 1) == [(1, [b"a" * 100])]


def test_a_flipped_bit_in_a_payload_is_seen_and_harms_no_other():
    data = file_of(1, (1, [b"a" * 100, b"b" * 100]), (2, [b"c" * 100]))
    data[data.index(b"a" * 100)] ^= 1
    rounds = list(parse_rounds(memoryview(data), 1))
    good = [
        bytes(payload)
        for each in rounds
        for entry, payload in each.entries
        if crc32c(payload) == entry.crc
    ]
    assert good == [b"b" * 100, b"c" * 100]


@given(st.integers(0, 3 * PAGE_BYTES))
def test_a_file_cut_anywhere_has_its_first_rounds(size):
    data = file_of(1, (1, [b"a" * 5000]), (2, [b"b" * 10]))
    assert found_in(data[:size], 1) in ([], [(1, [b"a" * 5000])])


# --- chunks -----------------------------------------------------------------------------------


def chunk_of(budget: ChunkBudget) -> Chunk:
    segment = Segment(SimDisk(), OpenSegments(1), DIRECTORY, 0, 4096)
    return Chunk(budget, segment, 0)


def test_a_chunk_gives_its_views_up_when_it_is_large():
    budget = ChunkBudget(1 << 30)
    chunk = chunk_of(budget)
    view = memoryview(bytes(1000))
    while chunk.views is not None:
        assert chunk.size < chunks.COPY_BYTES_MAX
        chunk.extend([view], 1000, 1)
    assert chunk.size >= chunks.COPY_BYTES_MAX
    assert budget.held_bytes == 0


def test_all_chunks_together_are_bounded_and_the_oldest_go_first():
    budget = ChunkBudget(10_000)
    held = [chunk_of(budget) for _ in range(5)]
    for chunk in held:
        chunk.extend([memoryview(bytes(2000))], 2000, 1)
        assert budget.held_bytes <= 10_000
    assert [chunk.views is None for chunk in held] == [True, False, False, False, False]
    held[1].take()
    assert held[1].views is not None, "a round has it, and needs it"
    assert budget.held_bytes == 3 * 2400
    held[2].extend([memoryview(bytes(2000))], 2000, 1)
    assert [chunk.views is None for chunk in held[1:]] == [False, False, False, False]


# --- rounds -----------------------------------------------------------------------------------


class Server:
    """A log on a simulated disk with five log topics of one partition."""

    def __init__(self, disk=None, names=NAMES, **settings):
        self.disk = disk or SimDisk()
        self.runtime = SimRuntime()
        settings = {"journal_file_bytes": 64 * 1024, "journal_files_max": 3, **settings}
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, LocalSettings(**settings))
        for name in names:
            if name not in self.log.topics:
                self.log.create(name, 1, {})
        self.runtime.settle()

    def put(self, name, value=b"v"):
        answer = Answer()
        self.log.partition(name, 0).append(batch_of(value), answer)
        return answer

    def round(self, names=NAMES, value=b"v"):
        """One turn with a record for each, up to the answers; return the calls it took."""
        before = len(self.disk.log)
        answers = [self.put(name, value) for name in names]
        self.log.flush()
        self.runtime.settle()
        assert all(answer.is_durable for answer in answers)
        return self.disk.log[before:]

    def synced(self, calls):
        """The files and directories that were synced in a round."""
        return [line.split()[0] for line in calls if line.split()[0] in SYNCS]

    def values(self, name):
        return contents(self.log.partition(name, 0))


SYNCS = ("fdatasync", "sync_directory")


def test_a_round_of_many_segments_costs_one_sync():
    server = Server()
    server.round()  # which makes the journal
    assert server.synced(server.round()) == ["fdatasync"]


def test_the_first_round_of_new_partitions_syncs_no_directory_of_theirs():
    server = Server(names="", journal_file_bytes=1 << 20)
    server.log.create("many", 300, {})
    before = len(server.disk.log)
    answers = []
    for partition in server.log.topics["many"].partitions:
        answers.append(Answer())
        partition.append(batch_of(b"first"), answers[-1])
    server.log.flush()
    server.runtime.settle()
    assert all(answer.is_durable for answer in answers)
    syncs = [line for line in server.disk.log[before:] if line.split()[0] in SYNCS]
    # The journal's file (filled, begun, written) and the two directories it is found by.
    assert len(syncs) == 5
    after = Server(server.disk.cut_power(1), names="")
    for partition in after.log.topics["many"].partitions:
        assert contents(partition) == [b"first"]


def test_a_round_of_one_segment_is_copied_like_any_other():
    server = Server()
    server.round("a")
    calls = server.round("a")
    assert server.synced(calls) == ["fdatasync"]
    after = Server(server.disk.cut_power(1))
    assert after.values("a") == [b"v", b"v"]


def test_a_large_chunk_goes_to_its_segment_and_small_ones_beside_it_do_not(monkeypatch):
    monkeypatch.setattr(chunks, "COPY_BYTES_MAX", 2000)
    server = Server()
    server.round()
    answers = [server.put("a", bytes(3000)), *(server.put(name) for name in "bcd")]
    server.log.flush()
    before = len(server.disk.log)
    server.runtime.settle()
    assert all(answer.is_durable for answer in answers)
    # Of "a" the segment, and the names in its directory, which no round has synced before.
    assert server.synced(server.disk.log[before:]) == [
        "fdatasync",
        "fdatasync",
        "sync_directory",
        "sync_directory",
    ]
    after = Server(server.disk.cut_power(3))
    assert after.values("a") == [b"v", bytes(3000)]
    assert after.values("d") == [b"v", b"v"]


def test_weaker_durability_keeps_nothing_for_a_round():
    server = Server(durability="written")
    for name in NAMES:
        server.put(name)
    server.log.flush()
    assert server.log._shared.chunks.held_bytes == 0


def test_no_journal_where_none_is_wanted():
    server = Server(journal_files_max=0)
    assert server.synced(server.round()).count("fdatasync") == len(NAMES)
    assert not server.disk.exists(JOURNAL)


# --- the ring ---------------------------------------------------------------------------------


def fill(server, rounds=40):
    for _ in range(rounds):
        server.round()


def test_files_are_used_again_once_they_are_swept():
    server = Server()
    fill(server, 100)
    names = server.disk.names(JOURNAL)
    assert names == ["0.wal", "1.wal"]
    assert {len(server.disk.file(JOURNAL / name).data) for name in names} == {64 * 1024}
    newest = max(parse_header(server.disk.file(JOURNAL / name).data).sequence for name in names)
    assert newest > 5
    after = Server(server.disk.cut_power(1))
    for name in NAMES:
        assert len(after.values(name)) == 100


def test_where_sweeping_is_slow_the_ring_grows_and_then_segments_are_synced():
    server = Server()
    server.round()
    held = []
    names = set()
    for _ in range(100):
        answers = [server.put(name) for name in NAMES]
        server.log.flush()
        while server.runtime.offloaded:
            piece = server.runtime.offloaded.popleft()
            owner = getattr(piece[0], "__self__", None)
            if type(owner).__name__ == "Sweep":
                held.append(piece)
                continue
            piece[1](piece[0](), None)
        assert all(answer.is_durable for answer in answers)
        names |= set(server.disk.names(JOURNAL))
    assert names == {"0.wal", "1.wal", "2.wal"}
    assert len(held) == 1, "one at a time"
    after = Server(server.disk.copy().cut_power(5))
    for name in NAMES:
        assert len(after.values(name)) == 101
    server.runtime.offloaded.extend(held)
    server.runtime.settle()
    fill(server)
    assert server.synced(server.round()) == ["fdatasync"], "the journal is in use again"


def test_a_deleted_log_topic_holds_no_file_back():
    server = Server()
    fill(server, 10)
    for name in NAMES:
        server.log.delete(name)
    server.runtime.settle()
    for name in "fghij":
        server.log.create(name, 1, {})
    for _ in range(60):
        server.round("fghij")
    assert len(server.disk.names(JOURNAL)) == 2


# --- trouble ----------------------------------------------------------------------------------


def test_a_journal_that_cannot_be_made_is_told_once_and_tried_again_later(caplog):
    server = Server(journal_file_bytes=1 << 20)
    server.disk.room = 200_000
    for _ in range(3):
        server.round()
    assert caplog.text.count("every partition is synced by itself") == 1
    assert server.log.error is None
    server.disk.room = None
    assert "pwritev" in server.round()[0]
    assert server.synced(server.round()).count("fdatasync") == len(NAMES)
    server.runtime.advance(60_000)
    server.round()
    assert server.synced(server.round()) == ["fdatasync"]
    after = Server(server.disk.cut_power(2))
    for name in NAMES:
        assert len(after.values(name)) == 7


def test_a_write_to_the_journal_that_fails_costs_nobody_anything():
    for number in range(1, 5):
        server = Server()
        server.round()
        answers = [server.put(name, b"x" * 700) for name in NAMES]
        server.log.flush()
        server.disk.calls, server.disk.fail_only = 0, ("pwritev",)
        server.disk.fail_at, server.disk.fail_with = 1, errno.EIO
        server.disk.short = number % 2 == 0
        server.runtime.settle()
        server.disk.fail_at = 0
        assert all(answer.is_durable for answer in answers)
        server.round(value=b"after")
        server.runtime.advance(60_000)
        server.round(value=b"again")
        after = Server(server.disk.cut_power(number))
        for name in NAMES:
            assert after.values(name) == [b"v", b"x" * 700, b"after", b"again"]


def test_a_sync_of_the_journal_that_fails_is_final():
    server = Server()
    server.round()
    answers = [server.put(name) for name in NAMES]
    server.log.flush()
    server.disk.sync_fails = True
    server.runtime.settle()
    assert all(answer.error is not None for answer in answers)
    assert server.log.error is not None
    server.log.close()
    assert server.disk.open_count == 0


def test_a_sync_of_a_sweep_that_fails_is_final():
    server = Server()
    server.round()
    server.runtime.advance(59_999)
    server.disk.sync_fails = True
    server.runtime.advance(1)
    assert server.log.error is not None
    late = server.put("a")
    server.log.flush()
    assert late.error is not None
    server.log.close()
    server.disk.sync_fails = False
    after = Server(server.disk.cut_power(2))
    for name in NAMES:
        assert after.values(name) == [b"v"]


def test_a_full_disk_refuses_records_and_spares_what_the_journal_holds():
    server = Server()
    server.round()
    server.disk.room = 0
    refused = [server.put(name) for name in NAMES]
    server.log.flush()
    server.runtime.settle()
    assert {type(answer.error) for answer in refused} == {NoSpace}
    server.disk.room = None
    server.round(value=b"there is room")
    after = Server(server.disk.cut_power(9))
    for name in NAMES:
        assert after.values(name) == [b"v", b"there is room"]
