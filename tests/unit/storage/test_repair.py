"""Repair: what it puts right, what it keeps, and that it may be cut short at any moment."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import batch_of
from tests.unit.storage.data_rooms import (
    PRODUCER,
    DataRoom,
    findings_of,
    flip,
    kinds_of,
    tree_of,
)

from isthmus.errors import ConfigError
from isthmus.record.batch import RecordBatch, split_batches
from isthmus.record.markers import EndMarker, build_marker
from isthmus.storage.local.checkpoints import id_text
from isthmus.storage.local.files import Files
from isthmus.storage.local.repair import Repair, Step, empty_batch, planned

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.storage.local.findings import Finding

INTERNAL = {"__mine": {"cleanup.policy": "compact"}}


@pytest.fixture
def room(tmp_path: Path) -> DataRoom:
    return DataRoom(tmp_path / "data")


def repair(path: Path, files: Files | None = None, *, wanted: str = "") -> list[Step]:
    """Repair all partitions, or those of one log topic, and return the steps."""
    steps: list[Step] = []
    task = Repair(files or Files(), path, SimRuntime(), INTERNAL, steps.append)
    reports = task.run(lambda place: wanted in ("", place.log_topic), lambda _bytes: None)
    assert not any(report.is_damaged for report in reports)
    return steps


def spoil(room: DataRoom) -> set[int]:
    """Damage much of a crashed directory; return the offsets whose records are lost."""
    room.crash()
    first, second, third, *_, last = room.segments
    (batch, *_) = split_batches(first.read_bytes())
    flip(first, 0)  # the first record of all
    flip(second, batch.size + 70)  # one in the middle
    flip(third, third.stat().st_size - 1)  # the last one of a segment
    with last.open("ab") as file:
        file.write(b"torn" * 9)
    flip(second.with_suffix(".index"), 3)
    flip(first.with_suffix(".timeindex"), 3)
    (room.path / "isthmus-catalog").write_bytes(b"gone")
    (room.path / "meta.properties").unlink()
    following = int(room.segments[3].stem)
    return {0, int(second.stem) + 1, following - 1}


def test_what_is_well_is_left_as_it_is(room: DataRoom) -> None:
    room.close()
    before = tree_of(room.path)
    assert repair(room.path) == []
    after = tree_of(room.path)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {"LOCK"}


def test_everything_at_once(room: DataRoom) -> None:
    lost = spoil(room)
    spoilt = tree_of(room.path)
    would = planned(findings_of(room.path))
    steps = repair(room.path)
    assert {step.file for step in would} <= {step.file for step in steps}
    assert kinds_of(findings_of(room.path)) == []
    assert room.open().numbers() == {
        number: number for number in range(20) if number not in lost
    }
    room.put(20)
    assert room.numbers()[20] == 20, "no offset is used again"
    room.close()
    assert kinds_of(findings_of(room.path)) == []
    assert kinds_of(findings_of(room.path), damage=False) == ["closed"] * 3
    for step in steps:
        name, dot, stretch = step.set_aside.rpartition("/")[2].rpartition(".")
        if "-" in stretch and dot:
            start, end = map(int, stretch.split("-"))
            file = step.file if "/" in step.file else name
            kept = spoilt[file][start:end]
            assert tree_of(room.path)[_relative(step, room.path)] == kept


def finding_bytes(path: Path, finding: Finding) -> bytes:
    """Return the bytes of a segment that a finding is about."""
    if finding.position < 0:
        return b""
    return (path / finding.file).read_bytes()[finding.position : finding.end]


def _relative(step: Step, path: Path) -> str:
    return step.set_aside.removeprefix(f"{path}/")


def test_good_batches_stay_byte_for_byte(room: DataRoom) -> None:
    room.close()
    path = room.segments[1]
    data = path.read_bytes()
    (first, *_) = split_batches(data)
    size = first.size
    flip(path, size + 70)
    repair(room.path)
    base = int(path.stem)
    closing = empty_batch(base + 1, base + 2, 0)
    assert path.read_bytes() == data[:size] + closing + data[2 * size :]
    batch = RecordBatch(closing)
    batch.verify()
    assert (batch.count, batch.base_offset, batch.next_offset) == (0, base + 1, base + 2)
    assert batch.records() == []


def test_bytes_that_belong_to_no_batch_go_without_a_trace(room: DataRoom) -> None:
    room.close()
    path = room.segments[-1]
    data = path.read_bytes()
    path.write_bytes(data + bytes(100))
    (step,) = repair(room.path)
    assert path.read_bytes() == data
    assert tree_of(room.path)[_relative(step, room.path)] == bytes(100)


def test_what_recovery_cuts_is_kept_even_where_no_repair_is_wanted(room: DataRoom) -> None:
    room.crash()
    with room.segments[-1].open("ab") as file:
        file.write(b"torn")
    flip(room.segments[0], 5)
    (step,) = repair(room.path, wanted="u")
    assert tree_of(room.path)[_relative(step, room.path)] == b"torn"
    assert kinds_of(findings_of(room.path)) == ["lost"], "what was not named is left"


def test_records_lost_at_the_end_do_not_give_their_offsets_away(room: DataRoom) -> None:
    room.close()
    path = room.segments[-1]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 50])
    repair(room.path)
    assert room.open().numbers() == {number: number for number in range(19)}
    partition = room.log.partition("t", 0)
    assert partition is not None
    assert partition.end_offset == 20
    room.close()


@pytest.mark.parametrize("where", [12, 15])
def test_the_epoch_of_a_batch_is_put_right(room: DataRoom, where: int) -> None:
    room.close()
    path = room.segments[1]
    data = path.read_bytes()
    flip(path, split_batches(data)[0].size + where)
    repair(room.path)
    assert path.read_bytes() == data


def test_checkpoints_beside_the_log(room: DataRoom) -> None:
    room.close()
    epochs = room.directory / "leader-epoch-checkpoint"
    right = epochs.read_bytes()
    epochs.write_bytes(b"0\n1\n5 0\n")
    snapshot = max(room.directory.glob("*.snapshot"))
    flip(snapshot, 20)
    steps = repair(room.path)
    assert len(steps) == 2
    assert epochs.read_bytes() == right
    assert not snapshot.exists()
    room.open()
    known = room.log.topics["t"].partitions[0].producers.get(PRODUCER)
    assert known is not None
    assert known.last_sequence == 19, "replayed from the log"
    room.close()


def test_the_list_of_aborted_transactions_is_built_again(room: DataRoom) -> None:
    partition = room.log.partition("t", 0)
    assert partition is not None
    for batch in (
        batch_of(b"0020", producer_id=9, epoch=0, sequence=0, transactional=True),
        build_marker(9, 0, EndMarker(commits=False, coordinator_epoch=0), 1),
    ):
        partition.append(batch, None, trusted=True)
        room.log.flush()
        room.runtime.settle()
    room.close()
    (path,) = room.directory.glob("*.txnindex")
    right = path.read_bytes()
    flip(path, 9)
    (step,) = repair(room.path)
    assert step.what.endswith("built again")
    assert path.read_bytes() == right


def test_directories_that_nobody_knows_are_moved(room: DataRoom) -> None:
    room.log.create("u", 1, {})
    room.close()
    shutil.copytree(room.directory, room.path / "w-0")
    metadata = room.path / "u-0" / "partition.metadata"
    metadata.write_bytes((room.directory / "partition.metadata").read_bytes())
    moved = tree_of(room.path / "w-0")
    steps = repair(room.path)
    assert sorted(step.file for step in steps) == ["u-0", "w-0"]
    kept = {step.file: step.set_aside for step in steps}
    assert tree_of(room.path / kept["w-0"]) == moved
    room.open()
    assert room.numbers() == {number: number for number in range(20)}
    room.close()


def test_a_partition_begins_anew_behind_what_it_had(room: DataRoom) -> None:
    room.close()
    shutil.rmtree(room.directory)
    (step,) = repair(room.path)
    assert step.file == "t-0"
    room.open()
    partition = room.log.partition("t", 0)
    assert partition is not None
    assert (partition.start_offset, partition.end_offset) == (19, 20)
    room.put(20)
    assert room.numbers() == {20: 20}
    room.close()


def test_the_catalog_from_the_directories(room: DataRoom) -> None:
    room.log.create("__mine", 3, INTERNAL["__mine"])
    ids = {name: id_text(topic.topic_id) for name, topic in room.log.topics.items()}
    room.close()
    (room.path / "isthmus-catalog").unlink()
    (room.path / "no-partition-7").mkdir()
    (step,) = repair(room.path)
    assert "2 log topics" in step.what and "retention" in step.what
    room.open()
    topics = room.log.topics
    assert {name: id_text(topic.topic_id) for name, topic in topics.items()} == ids
    assert {name: len(topic.partitions) for name, topic in topics.items()} == {
        "t": 1,
        "__mine": 3,
    }
    assert dict(topics["t"].configs) == {"retention.ms": "-1"}, "no default deletes anything"
    assert dict(topics["__mine"].configs) == INTERNAL["__mine"]
    room.close()


def test_a_directory_in_use_is_refused(room: DataRoom) -> None:
    before = tree_of(room.path)
    with pytest.raises(ConfigError, match="is in use by process"):
        repair(room.path)
    assert tree_of(room.path) == before
    room.close()


class Died(BaseException):
    """The process ends here."""


CHANGES = ("pwritev", "truncate", "fdatasync", "rename", "remove", "make_directory")


class DyingFiles(Files):
    """Ends the process instead of the n-th call that changes something."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self._opened: set[int] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in CHANGES:
            self.left -= 1
            if self.left < 0:
                raise Died
        return super().__getattribute__(name)

    def open(self, path: Path, *, create: bool = False) -> int:
        descriptor = super().open(path, create=create)
        self._opened.add(descriptor)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._opened.discard(descriptor)
        super().close(descriptor)

    def bury(self) -> None:
        """Close what the system closes with the process."""
        for descriptor in tuple(self._opened):
            self.close(descriptor)


def test_it_may_end_at_any_moment_and_be_begun_again(room: DataRoom, tmp_path: Path) -> None:
    lost = spoil(room)
    wanted = {finding_bytes(room.path, one) for one in findings_of(room.path)} - {b""}
    good = {number: number for number in range(20) if number not in lost}
    calls = 0
    while True:
        path = tmp_path / f"copy-{calls}"
        shutil.copytree(room.path, path)
        files = DyingFiles(calls)
        try:
            repair(path, files)
        except Died:
            files.bury()
            repair(path)
        assert kinds_of(findings_of(path)) == [], calls
        again = DataRoom(path)
        assert again.numbers() == good, calls
        again.close()
        kept = {file.read_bytes() for file in (path / "set-aside").rglob("*.log.*")}
        assert wanted <= kept, calls
        shutil.rmtree(path)
        if files.left >= 0:
            break
        calls += 1
    assert calls > 40
