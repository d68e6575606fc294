"""What inspection says of a data directory: sound, in use, left by a crash, damaged."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.storage.batches import NOW_MS, batch_of
from tests.unit.storage.data_rooms import DataRoom, findings_of, flip, kinds_of

from isthmus.errors import ConfigError
from isthmus.record.batch import split_batches
from isthmus.record.markers import EndMarker, build_marker
from isthmus.storage.local.checkpoints import (
    format_compaction,
    format_offsets,
    format_partition_metadata,
)
from isthmus.storage.local.files import Files
from isthmus.storage.local.findings import DAMAGE, KINDS
from isthmus.storage.local.inspect import Inspection
from isthmus.storage.local.repair import ACTIONS
from isthmus.storage.producers import ProducerTable
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def room(tmp_path: Path) -> DataRoom:
    return DataRoom(tmp_path / "data")


def test_a_sound_directory(room: DataRoom) -> None:
    room.close()
    assert room.inspect() == []
    look = Inspection(Files(), room.path)
    assert (look.is_in_use, look.is_closed) == (False, True)
    heard: list[int] = []
    (place,) = look.places
    report = look.inspect(place, heard.append)
    assert (report.records, report.batches, report.segments) == (20, 20, len(room.segments))
    assert (report.start_offset, report.end_offset) == (0, 20)
    assert (report.oldest_ms, report.newest_ms) == (NOW_MS, NOW_MS + 19)
    assert report.size_bytes == look.bytes_to_read(look.places) == sum(heard)


def test_a_directory_in_use_is_only_being_written(room: DataRoom) -> None:
    with room.segments[-1].open("ab") as file:
        file.write(b"half a ba")
    look = Inspection(Files(), room.path)
    assert look.is_in_use
    findings = room.inspect()
    assert kinds_of(findings) == []
    assert kinds_of(findings, damage=False) == ["writing"]
    room.close()


def test_what_a_crash_leaves_is_no_damage(room: DataRoom) -> None:
    room.crash()
    size = room.segments[-1].stat().st_size
    with room.segments[-1].open("ab") as file:
        file.write(bytes(5000))
    findings = room.inspect()
    assert kinds_of(findings) == []
    (torn,) = [finding for finding in findings if finding.kind == "torn"]
    assert (torn.position, torn.end) == (size, size + 5000)
    assert room.open().numbers() == {number: number for number in range(20)}
    room.close()
    assert room.inspect() == []


def test_bytes_behind_a_closed_log_are_damage(room: DataRoom) -> None:
    room.close()
    with room.segments[-1].open("ab") as file:
        file.write(bytes(5000))
    (lost,) = room.inspect()
    assert (lost.kind, lost.is_damage) == ("lost", True)
    assert lost.offset == lost.next_offset == 20


@pytest.mark.parametrize("where", [0, 7, 8, 16, 17, 22, 60, 61, 120])
@pytest.mark.parametrize("closed", [True, False])
def test_a_flipped_bit_is_found_where_it_is(room: DataRoom, where: int, closed: bool) -> None:
    if closed:
        room.close()
    else:
        room.crash()
    second = room.segments[1]
    base = int(second.stem)
    (first, *_) = split_batches(second.read_bytes())
    flip(second, first.size + where)
    (lost,) = [finding for finding in room.inspect() if finding.is_damage]
    assert lost.kind == "lost"
    assert lost.file == f"t-0/{second.name}"
    assert (lost.position, lost.end) == (first.size, 2 * first.size)
    assert (lost.offset, lost.next_offset) == (base + 1, base + 2)
    assert lost.means and lost.advice


@pytest.mark.parametrize("where", [12, 15])
def test_a_batch_of_another_epoch_than_its_neighbours(room: DataRoom, where: int) -> None:
    room.close()
    path = room.segments[1]
    (first, *_) = split_batches(path.read_bytes())
    flip(path, first.size + where)
    (finding,) = room.inspect()
    assert finding.kind == "epoch"
    assert (finding.position, finding.end) == (first.size + 12, first.size + 16)
    assert finding.offset == int(path.stem) + 1


def test_the_last_batch_flipped_after_a_close_is_lost(room: DataRoom) -> None:
    room.close()
    flip(room.segments[-1], room.segments[-1].stat().st_size - 1)
    (lost,) = room.inspect()
    assert (lost.kind, lost.offset, lost.next_offset) == ("lost", 19, 20)


def test_a_segment_that_has_lost_its_end(room: DataRoom) -> None:
    room.close()
    first, second = room.segments[:2]
    data = first.read_bytes()
    first.write_bytes(data[: len(data) // 2])
    (lost,) = room.inspect()
    assert lost.kind == "lost"
    assert lost.next_offset == int(second.stem)


def test_a_segment_that_is_gone(room: DataRoom) -> None:
    room.close()
    _, second, third, *_ = room.segments
    for file in room.directory.glob(f"{second.stem}.*"):
        file.unlink()
    (lost,) = [each for each in room.inspect() if each.kind == "lost"]
    assert (lost.offset, lost.next_offset) == (int(second.stem), int(third.stem))
    assert lost.position == lost.end


def test_the_newest_segment_gone_after_its_records_were_synced(room: DataRoom) -> None:
    room.close()
    last = room.segments[-1]
    for file in room.directory.glob(f"{last.stem}.[lit]*"):
        file.unlink()
    (lost,) = [each for each in room.inspect() if each.kind == "lost"]
    assert (lost.offset, lost.next_offset) == (int(last.stem), 20)


def test_a_batch_whose_records_cannot_be_read(room: DataRoom) -> None:
    room.close()
    path = room.segments[0]
    data = bytearray(path.read_bytes())
    (first, *_) = split_batches(bytes(data))
    data[61] ^= 0x40  # the length of its record
    data[17:21] = crc32c(data[21 : first.size]).to_bytes(4, "big")
    path.write_bytes(data)
    (finding,) = room.inspect()
    assert finding.kind == "unreadable"
    assert (finding.position, finding.end) == (0, first.size)
    assert (finding.offset, finding.next_offset) == (0, 1)


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".index", "index"), (".timeindex", "time index")]
)
def test_every_byte_of_an_index_counts(room: DataRoom, suffix: str, kind: str) -> None:
    room.close()
    path = room.segments[1].with_suffix(suffix)
    right = path.read_bytes()
    assert right
    for position in range(len(right)):
        flip(path, position, 1)
        assert kinds_of(room.inspect()) == [kind], position
        path.write_bytes(right)
    path.write_bytes(right[:-1])
    assert kinds_of(room.inspect()) == [kind]
    path.unlink()
    assert room.inspect() == [], "without an index it only takes longer"


def test_leader_epochs_that_do_not_fit(room: DataRoom) -> None:
    room.crash().open()
    room.put(20)
    room.close()
    path = room.directory / "leader-epoch-checkpoint"
    right = path.read_bytes()
    assert right == b"0\n2\n0 0\n1 20\n"
    for wrong in (b"0\n2\n0 0\n1 19\n", b"0\n1\n0 0\n", b"0\n1\n1 0\n", b"?", b"0\n2\n0 0\n"):
        path.write_bytes(wrong)
        assert kinds_of(room.inspect()) == ["epochs"], wrong
    path.unlink()
    assert kinds_of(room.inspect()) == ["epochs"]
    path.write_bytes(right)
    assert room.inspect() == []


def test_a_snapshot_that_cannot_be_read_or_is_not_what_the_log_says(room: DataRoom) -> None:
    room.close()
    path = max(room.directory.glob("*.snapshot"))
    right = path.read_bytes()
    flip(path, len(right) - 1)
    assert kinds_of(room.inspect()) == ["snapshot"]
    table = ProducerTable()
    for number in range(3):
        table.replay(batch_of(b"x", producer_id=7, epoch=0, sequence=number))
    path.write_bytes(table.snapshot())
    (finding,) = room.inspect()
    assert finding.kind == "snapshot"
    assert "(0, 2, -1)" in finding.detail and "(0, 19, -1)" in finding.detail
    path.write_bytes(right)
    path.rename(path.with_name(f"{25:020d}.snapshot"))
    assert kinds_of(room.inspect()) == ["snapshot"], "it tells of offsets that are not there"


def test_the_catalog_and_the_directories(room: DataRoom, tmp_path: Path) -> None:
    room.log.create("u", 2, {})
    room.close()
    shutil.copytree(room.directory, room.path / "w-0")
    (room.path / f"t-1.{'0' * 32}-stray").mkdir()
    shutil.rmtree(room.path / "u-1")
    (room.path / "u-0" / "partition.metadata").unlink()
    metadata = room.directory / "partition.metadata"
    metadata.write_bytes(format_partition_metadata(bytes(range(16))))
    findings = room.inspect()
    assert kinds_of(findings) == ["foreign", "metadata", "missing partition", "unowned"]
    assert kinds_of(findings, damage=False) == ["leftover"]


@pytest.mark.parametrize(
    ("file", "content", "kind"),
    [
        ("isthmus-catalog", None, "catalog"),
        ("isthmus-catalog", b"isthmus-catalog 1 00000000\n{}", "catalog"),
        ("isthmus-catalog", b"\xff\x00", "catalog"),
        ("meta.properties", None, "identity"),
        ("meta.properties", b"version=1\n", "identity"),
        ("meta.properties", b"\xff", "identity"),
    ],
)
def test_what_a_start_needs(
    room: DataRoom, file: str, content: bytes | None, kind: str
) -> None:
    room.close()
    if content is None:
        (room.path / file).unlink()
    else:
        (room.path / file).write_bytes(content)
    assert kinds_of(room.inspect()) == [kind]


def test_a_checkpoint_that_cannot_be_read_is_a_note(room: DataRoom) -> None:
    room.close()
    (room.path / "recovery-point-offset-checkpoint").write_bytes(b"9\nnonsense")
    findings = room.inspect()
    assert kinds_of(findings) == []
    assert kinds_of(findings, damage=False) == ["checkpoint"]


def test_start_offsets_that_cannot_be_read_are_damage(room: DataRoom) -> None:
    room.close()
    (room.path / "log-start-offset-checkpoint").write_bytes(b"nonsense")
    assert kinds_of(room.inspect()) == ["starts"]


def test_records_deleted_from_the_beginning_are_not_missed(room: DataRoom) -> None:
    partition = room.log.partition("t", 0)
    assert partition is not None
    partition.delete_before(7, lambda _error: None)
    room.log.flush()
    room.runtime.settle()
    room.close()
    first = room.segments[0]
    flip(first, 5)
    found = Inspection(Files(), room.path)
    report = found.inspect(found.places[0])
    assert (report.start_offset, report.end_offset) == (7, 20)
    assert report.findings == []


def test_gaps_of_compaction_are_none_of_damage(room: DataRoom) -> None:
    room.close()
    path = room.segments[1]
    data = path.read_bytes()
    first, second, *_ = split_batches(data)
    path.write_bytes(data[: first.size] + data[first.size + second.size :])
    for beside in (".index", ".timeindex"):
        path.with_suffix(beside).unlink()
    assert kinds_of(room.inspect()) == ["lost"]
    (room.directory / "isthmus-compaction").write_bytes(format_compaction(10, 20))
    assert room.inspect() == []
    (room.directory / "isthmus-compaction").write_bytes(b"?")
    findings = room.inspect()
    assert kinds_of(findings) == []
    assert kinds_of(findings, damage=False) == ["compaction"]


def test_the_list_of_aborted_transactions(room: DataRoom) -> None:
    partition = room.log.partition("t", 0)
    assert partition is not None
    for batch in (
        batch_of(b"x", producer_id=9, epoch=0, sequence=0, transactional=True),
        build_marker(9, 0, EndMarker(commits=False, coordinator_epoch=0), NOW_MS),
    ):
        partition.append(batch, None, trusted=True)
        room.log.flush()
        room.runtime.settle()
    room.close()
    (path,) = room.directory.glob("*.txnindex")
    assert room.inspect() == []
    right = path.read_bytes()
    for wrong in (right[:-1], b"", right[:9] + b"\7" + right[10:]):
        path.write_bytes(wrong)
        assert kinds_of(room.inspect()) == ["aborted"], wrong
    path.unlink()
    assert kinds_of(room.inspect()) == ["aborted"]


def test_a_partition_of_which_only_the_checkpoint_knows(room: DataRoom) -> None:
    room.crash()
    points = format_offsets([("t", 0, 20)])
    (room.path / "recovery-point-offset-checkpoint").write_bytes(points)
    shutil.rmtree(room.directory)
    (finding,) = [each for each in room.inspect() if each.is_damage]
    assert finding.kind == "missing partition"
    assert "up to 19" in finding.detail


def test_what_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    kafka = tmp_path / "kafka"
    kafka.mkdir()
    (kafka / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=1\n")
    (kafka / ".lock").touch()
    newer = DataRoom(tmp_path / "newer").close()
    catalog = newer.path / "isthmus-catalog"
    catalog.write_bytes(catalog.read_bytes().replace(b"catalog 1 ", b"catalog 2 ", 1))
    for path, words in (
        (tmp_path / "nowhere", "is no directory"),
        (tmp_path / "file", "is no directory"),
        (tmp_path, "is no Isthmus data directory"),
        (kafka, "is no Isthmus data directory"),
        (newer.path, "version 2"),
    ):
        with pytest.raises(ConfigError, match=words):
            findings_of(path)


def test_the_table_says_everything_of_every_kind() -> None:
    assert all(kind.means and kind.advice for kind in KINDS.values())
    assert ACTIONS.keys() <= KINDS.keys()
    mended = {name for name, kind in KINDS.items() if kind.level == DAMAGE}
    assert mended - ACTIONS.keys() == {"overlap"}, "the only one that needs a person"
