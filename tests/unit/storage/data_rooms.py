"""Data directories for the tests of inspection and repair: made, left by a crash, spoilt."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.sim import SimRuntime
from tests.storage.batches import NOW_MS, batch_of, read_batches

from isthmus.storage.local.files import Files
from isthmus.storage.local.inspect import Inspection
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.storage.local.findings import Finding

CONFIGS = {"internal.segment.bytes": "1000", "index.interval.bytes": "200"}
PRODUCER = 7


class DataRoom:
    """One data directory with the log topic `t`: twenty records in several segments."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runtime = SimRuntime()
        self.log = LocalLog(path, self.runtime, settings=LocalSettings(tail_bytes_max=0))
        if not self.log.topics:
            self.log.create("t", 1, CONFIGS)
            for number in range(20):
                self.put(number)

    @property
    def directory(self) -> Path:
        return self.path / "t-0"

    @property
    def segments(self) -> list[Path]:
        return sorted(self.directory.glob("*.log"))

    def put(self, number: int) -> None:
        """Append a record that says its number; a producer with sequence numbers wrote it."""
        batch = batch_of(
            b"%04d" % number + bytes(100),
            timestamp=NOW_MS + number,
            producer_id=PRODUCER,
            epoch=0,
            sequence=number,
        )
        partition = self.log.partition("t", 0)
        assert partition is not None
        partition.append(batch, None)
        self.log.flush()
        self.runtime.settle()

    def close(self) -> DataRoom:
        self.log.close()
        return self

    def crash(self) -> DataRoom:
        """Go on with the directory as a crash at this moment would leave it."""
        left = self.path.with_name("left")
        shutil.copytree(self.path, left)
        self.log.close()
        shutil.rmtree(self.path)
        left.rename(self.path)
        return self

    def open(self) -> DataRoom:
        self.log = LocalLog(self.path, self.runtime, settings=LocalSettings(tail_bytes_max=0))
        return self

    def numbers(self) -> dict[int, int]:
        """Return the number that each offset says, as a reader sees it."""
        partition = self.log.partition("t", 0)
        assert partition is not None
        seen = {}
        offset = partition.start_offset
        while offset < partition.end_offset:
            batches = read_batches(partition, offset, 1 << 20)
            assert batches, f"a reader is stuck at {offset}"
            for batch in batches:
                batch.verify()
                for record in batch.records():
                    seen[record.offset] = int(record.value[:4])
                offset = batch.next_offset
        return seen

    def inspect(self) -> list[Finding]:
        return findings_of(self.path)


def findings_of(path: Path) -> list[Finding]:
    """Return all that an inspection finds, of the directory and of each partition."""
    before = tree_of(path)
    look = Inspection(Files(), path)
    found = list(look.findings)
    for place in look.places:
        found += look.inspect(place).findings
    assert tree_of(path) == before, "looking changes nothing"
    return found


def kinds_of(findings: list[Finding], *, damage: bool = True) -> list[str]:
    """Return the kinds of those that are damage, or of those that are not."""
    return sorted(finding.kind for finding in findings if finding.is_damage == damage)


def tree_of(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def flip(path: Path, position: int, mask: int = 0x10) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)
