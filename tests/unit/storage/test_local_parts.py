"""The small parts of the local engine: indexes, tails, checkpoints, waiters, files."""

from __future__ import annotations

import errno
import os

import pytest

from isthmus.errors import NoSpace, StorageError
from isthmus.storage.local.checkpoints import (
    LeaderEpochs,
    format_offsets,
    format_partition_metadata,
    format_properties,
    id_text,
    parse_id,
    parse_offsets,
    parse_partition_metadata,
    parse_properties,
)
from isthmus.storage.local.files import Files, storage_error
from isthmus.storage.local.index import OffsetIndex, TimeIndex
from isthmus.storage.local.tail import BATCH_COST_BYTES, Tail, TailBudget
from isthmus.storage.waiters import Waiters
from isthmus.wire.crc32c import crc32c

# --- indexes ----------------------------------------------------------------------------------


def test_the_offset_index_has_kafkas_bytes():
    index = OffsetIndex(1000)
    index.append(1004, 0)
    index.append(1010, 4096)
    assert index.unsaved() == (bytes.fromhex("00000004 00000000 0000000a 00001000"), 0)
    index.saved = 1
    assert index.unsaved() == (bytes.fromhex("0000000a 00001000"), 8)


def test_the_time_index_has_kafkas_bytes():
    index = TimeIndex(1000)
    index.append(5, 1004)
    index.append(5, 1005)  # says nothing new
    index.append(7, 1010)
    assert index.unsaved() == (
        bytes.fromhex("0000000000000005 00000004 0000000000000007 0000000a"),
        0,
    )


def test_cutting_an_index_makes_it_write_again_what_follows():
    index = OffsetIndex(0)
    for number in range(5):
        index.append(number, number * 100)
    index.saved = 5
    index.cut(250)
    assert (len(index), index.saved) == (3, 3)
    index.append(9, 300)
    assert index.unsaved() == (bytes.fromhex("00000009 0000012c"), 24)
    times = TimeIndex(0)
    for number in range(5):
        times.append(number, number)
    times.saved = 5
    times.cut(2)
    assert (times.last(), times.saved) == ((1, 1), 2)


@pytest.mark.parametrize(
    "data", [b"\0" * 7, b"\0" * 16, bytes.fromhex("00000005 00000000 00000004 00000010")]
)
def test_an_offset_index_that_cannot_be_right_is_not_loaded(data):
    index = OffsetIndex(0)
    assert not index.load(data, 1000)
    assert len(index) == 0
    assert not index.load(bytes.fromhex("00000005 000003e8"), 1000)


# --- tails ------------------------------------------------------------------------------------


def fill(tail, sizes, first=0):
    views = [
        memoryview(bytes([number % 256]) * size) for number, size in enumerate(sizes, first)
    ]
    tail.extend(views, [number + 1 for number in range(first, first + len(sizes))])


def test_a_tail_gives_whole_batches_within_bytes_and_limit():
    tail = Tail(TailBudget(10**6, 10**6), 0)
    fill(tail, [10] * 10)
    assert [view[0] for view in tail.read(3, 30, 10)] == [3, 4, 5]
    assert [view[0] for view in tail.read(3, 1, 10)] == [3]
    assert [view[0] for view in tail.read(3, 1000, 6)] == [3, 4, 5]
    assert tail.read(3, 1000, 3) == []
    assert tail.read(10, 1000, 10) == []


def test_a_tail_is_bounded_and_says_what_it_lacks():
    tail = Tail(TailBudget(20 * (BATCH_COST_BYTES + 10), 10**6), 0)
    for number in range(100):
        fill(tail, [10], number)
        assert tail.cost_bytes <= 20 * (BATCH_COST_BYTES + 10)
    assert 0 < tail.start_offset < 100
    assert tail.read(tail.start_offset - 1, 10, 100) is None
    assert tail.read(tail.start_offset, 10, 100)[0][0] == tail.start_offset
    assert tail.read(99, 10, 100)[0][0] == 99


def test_all_tails_together_are_bounded_the_unused_go_first():
    budget = TailBudget(10**6, 3 * (BATCH_COST_BYTES + 10))
    tails = [Tail(budget, 0) for _ in range(4)]
    for tail in tails:
        fill(tail, [10])
    assert [tail.cost_bytes > 0 for tail in tails] == [False, True, True, True]
    assert budget.total_bytes == sum(tail.cost_bytes for tail in tails)
    assert tails[0].read(0, 10, 1) is None
    fill(tails[0], [10], 1)
    assert tails[0].read(1, 10, 2)[0][0] == 1
    assert tails[1].cost_bytes == 0


def test_a_tail_of_no_size_keeps_nothing():
    budget = TailBudget(0, 0)
    tail = Tail(budget, 0)
    fill(tail, [10, 10])
    assert tail.read(1, 10, 2) is None
    assert budget.total_bytes == 0


# --- checkpoints ------------------------------------------------------------------------------


def test_kafkas_text_files_are_written_and_read():
    points = [("a", 0, 7), ("b.c-d", 12, 0)]
    assert format_offsets(points) == b"0\n2\na 0 7\nb.c-d 12 0\n"
    assert parse_offsets(b"0\n2\na 0 7\nb.c-d 12 0\n") == {
        ("a", 0): 7,
        ("b.c-d", 12): 0,
    }
    assert format_offsets([]) == b"0\n0\n"
    assert parse_offsets(b"0\n0\n") == {}
    identity = bytes(range(16))
    assert format_partition_metadata(
        identity
    ) == b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw\nisthmus.crc: %08x\n" % crc32c(identity)
    assert parse_partition_metadata(format_partition_metadata(identity)) == identity
    of_kafka = b"version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw\n"
    assert parse_partition_metadata(of_kafka) == identity
    with pytest.raises(ValueError, match="checksum"):
        parse_partition_metadata(format_partition_metadata(identity).replace(b"AAEC", b"AAED"))
    assert parse_id(id_text(identity)) == identity
    assert parse_properties(b"#\n#Mon\nversion=1\n" + format_properties({"node.id": "1"})) == {
        "version": "1",
        "node.id": "1",
    }


@pytest.mark.parametrize(
    "data", [b"", b"1\n0\n", b"0\n2\na 0 7\n", b"0\n1\na 7\n", b"\xff\n0\n"]
)
def test_text_files_that_are_not_whole_are_refused(data):
    with pytest.raises(ValueError, match=r".*"):
        parse_offsets(data)


@pytest.mark.parametrize("data", [b"", b"version: 1\ntopic_id: x\n", b"version: 0\n", b"xyz"])
def test_partition_metadata_that_is_not_whole_is_refused(data):
    with pytest.raises(ValueError, match=r".*"):
        parse_partition_metadata(data)


def test_leader_epochs_answer_where_each_ended():
    epochs = LeaderEpochs([(0, 0), (2, 10)])
    epochs.begin(5, 30)
    assert [epochs.end_offset(asked, 40) for asked in (-1, 0, 1, 2, 4, 5, 9)] == [
        (-1, -1), (0, 10), (0, 10), (2, 30), (2, 30), (5, 40), (5, 40),
    ]  # fmt: skip
    assert epochs.format() == b"0\n3\n0 0\n2 10\n5 30\n"
    assert LeaderEpochs.parse(epochs.format()).format() == epochs.format()


def test_an_epoch_in_which_nothing_came_vanishes():
    epochs = LeaderEpochs([(0, 0)])
    epochs.begin(1, 10)
    epochs.begin(2, 10)
    assert epochs.format() == b"0\n2\n0 0\n2 10\n"
    epochs.cut(9)
    assert (epochs.latest, epochs.end_offset(7, 9)) == (0, (0, 9))


# --- waiters ----------------------------------------------------------------------------------


def test_waiters_are_woken_in_order_and_may_cancel_each_other():
    waiters, woken = Waiters(), []
    cancels = []
    waiters.park(5, lambda: woken.append("far"))
    waiters.park(1, lambda: (woken.append("first"), cancels[0]()))
    cancels.append(waiters.park(1, lambda: woken.append("cancelled")))
    waiters.park(0, lambda: (woken.append("last"), waiters.park(0, lambda: None)))
    waiters.wake(2)
    assert woken == ["first", "last"]
    assert len(waiters) == 2
    waiters.wake_all()
    assert woken == ["first", "last", "far"]
    assert len(waiters) == 0


# --- files ------------------------------------------------------------------------------------


class ShortWrites(Files):
    """Writes three bytes at a time."""

    def pwritev(self, descriptor, buffers, position):
        return os.pwrite(descriptor, b"".join(buffers)[:3], position)


def test_short_writes_are_finished(tmp_path):
    files = ShortWrites()
    descriptor = files.open(tmp_path / "f", create=True)
    assert files.write(descriptor, [b"hello", b"", b" ", b"world"], 2) == 13
    files.close(descriptor)
    assert (tmp_path / "f").read_bytes() == b"\0\0hello world"


def test_more_buffers_than_one_call_takes(tmp_path):
    files = Files()
    descriptor = files.open(tmp_path / "f", create=True)
    assert files.write(descriptor, [b"ab"] * 3000, 0) == 6000
    assert files.pread(descriptor, 10_000, 0) == b"ab" * 3000
    files.close(descriptor)


def test_a_file_is_replaced_as_a_whole_and_missing_ones_are_none(tmp_path):
    files = Files()
    assert files.read_file(tmp_path / "f") is None
    files.replace(tmp_path / "f", b"long content")
    files.replace(tmp_path / "f", b"short")
    assert files.read_file(tmp_path / "f") == b"short"
    assert files.names(tmp_path) == ["f"]


def test_errors_of_the_disk_have_kinds():
    full = storage_error(OSError(errno.ENOSPC, "No space left"), "x was not written")
    assert (type(full), str(full)) == (NoSpace, "x was not written: No space left")
    assert type(storage_error(OSError(errno.EIO, "I/O"), "x")) is StorageError
