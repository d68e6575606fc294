"""What `isthmus log verify` and `repair` make of a directory with a journal to be replayed.

After a power cut, acknowledged records may be in the journal and nowhere else. The next start
brings them to their segments; so that they are not there is no damage, and nothing to repair.
"""

from __future__ import annotations

import pytest
from tests.sim import SimRuntime
from tests.storage.disk import Directory, File
from tests.storage.test_journal_recovery import DIRECTORY, NAMES, Server

from isthmus.storage.local.files import Files
from isthmus.storage.local.inspect import Inspection
from isthmus.storage.local.overlay import Overlay
from isthmus.storage.local.repair import Repair

ROUNDS = 12
SEEDS = range(12)


def crashed(seed, *, damaged=False):
    """Return a disk after a power cut, and the values that every partition must have."""
    server = Server()
    for number in range(ROUNDS):
        server.round(b"%04d" % number + bytes(400))
    assert server.log.partition("a", 0).durable_recovery_point < ROUNDS
    if damaged:
        server.runtime.advance(60_000)
        server.round(b"last")
    return server.disk.cut_power(seed)


def bytes_of(node) -> dict[str, object]:
    if isinstance(node, File):
        return bytes(node.data)
    assert isinstance(node, Directory)
    return {name: bytes_of(child) for name, child in node.names.items()}


def look(disk):
    """Return the reports of all partitions; nothing may change by looking."""
    before = bytes_of(disk.root)
    seen = Inspection(disk, DIRECTORY)
    assert not [each for each in seen.findings if each.is_damage]
    reports = [seen.inspect(place) for place in seen.places]
    assert bytes_of(disk.root) == before
    assert disk.open_count == 0
    return reports


def segment_bytes(disk):
    return sum(
        disk.size(DIRECTORY / f"{name}-0" / file)
        for name in NAMES
        for file in disk.names(DIRECTORY / f"{name}-0")
        if file.endswith(".log")
    )


def test_what_a_start_will_restore_is_no_damage():
    lacking = 0
    for seed in SEEDS:
        disk = crashed(seed)
        reports = look(disk)
        lacking += sum(each.size_bytes for each in reports) > segment_bytes(disk)
        assert [each.log_topic for each in reports] == list(NAMES)
        for report in reports:
            assert not report.is_damaged, report.findings
            assert (report.records, report.end_offset) == (ROUNDS, ROUNDS)
    assert lacking > 5, "a power cut took something of the segments"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_repair_cuts_nothing_off_that_the_journal_has(seed):
    disk = crashed(seed)
    steps = []
    repair = Repair(disk, DIRECTORY, SimRuntime(), {}, steps.append)
    reports = repair.run(lambda _: True, lambda _: None)
    assert not [step for step in steps if step.file.endswith(".log")]
    assert not any(report.is_damaged for report in reports)
    after = Server(disk)
    for name in NAMES:
        assert len(after.values(name)) == ROUNDS


def test_damage_that_the_journal_does_not_mend_is_told_as_ever():
    disk = crashed(1, damaged=True)
    file = disk.file(DIRECTORY / "b-0" / "00000000000000000000.log")
    file.data[100] ^= 1
    file.durable = bytes(file.data)
    damaged = {each.log_topic: each.is_damaged for each in look(disk)}
    assert damaged == {"a": False, "b": True, "c": False, "d": False}


def test_an_overlay_reads_as_if_it_were_written(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"0123456789")
    files = Overlay(Files())
    descriptor = files.open(path)
    files.write(descriptor, [b"ab", b"c"], 8)
    files.write(descriptor, [b"X"], 0)
    assert files.pread(descriptor, 100, 0) == b"X1234567abc"
    assert files.pread(descriptor, 3, 7) == b"7ab"
    assert files.pread(descriptor, 5, 11) == b""
    files.close(descriptor)
    made = files.open(other, create=True)
    files.write(made, [b"far"], 4)
    files.close(made)
    assert files.read_file(other) == b"\0\0\0\0far"
    assert (files.size(path), files.size(other)) == (11, 7)
    assert files.names(tmp_path) == ["file", "other"]
    assert files.exists(other)
    with pytest.raises(FileNotFoundError):
        files.open_read(tmp_path / "none")
    assert path.read_bytes() == b"0123456789"
    assert not other.exists()
