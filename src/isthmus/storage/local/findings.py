"""What can be wrong with a data directory: the kinds, what each means and what to do about it.

`KINDS` is the one table; `inspect.py` finds, `repair.py` mends, the commands print. There are
two levels: `DAMAGE` needs somebody to act; a `NOTE` is what a running server or a crash leaves,
and what the next start deals with by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

DAMAGE: Final = "damage"
NOTE: Final = "note"

REPAIR: Final = "`isthmus log repair --yes` "
_BY_START: Final = "nothing: the next start of the server does it"


class Kind(NamedTuple):
    """One kind of trouble."""

    level: str
    means: str  # for readers
    advice: str


KINDS: Final[dict[str, Kind]] = {
    "lost": Kind(
        DAMAGE,
        "records that lay here cannot be read; readers step over them, all others are safe",
        REPAIR + "moves these bytes aside and closes the gap; the records themselves come back "
        "only from a copy",
    ),
    "unreadable": Kind(
        DAMAGE,
        "the batch is as it was written, but its records cannot be read: consumers stop here",
        REPAIR + "moves the batch aside and closes the gap",
    ),
    "closed": Kind(
        NOTE,
        "records that lay here are lost; readers step over them",
        "nothing: a repair has moved what was left of them to set-aside/",
    ),
    "overlap": Kind(
        DAMAGE,
        "some offsets are there twice; readers see what the older file has",
        "keep a copy of the directory and report it: no disk does this by itself",
    ),
    "torn": Kind(
        NOTE,
        "nothing: a write that a crash cut short was never acknowledged",
        "nothing: the next start of the server cuts it off",
    ),
    "writing": Kind(NOTE, "nothing: the server is writing here just now", "nothing"),
    "index": Kind(
        DAMAGE,
        "no record is lost: a read checks what an index says, and takes longer",
        REPAIR + "builds it again from the log",
    ),
    "time index": Kind(
        DAMAGE,
        "no record is lost, but a search by time may find a wrong one",
        REPAIR + "builds it again from the log",
    ),
    "epoch": Kind(
        DAMAGE,
        "the records are right; a consumer that trusts this leader epoch may be turned away",
        REPAIR + "writes the epoch that the checkpoint and the next batch have",
    ),
    "epochs": Kind(
        DAMAGE,
        "a consumer may not notice that records it has seen are gone (KIP-320)",
        REPAIR + "builds the file again from the log",
    ),
    "snapshot": Kind(
        DAMAGE,
        "a retry of an idempotent producer may be stored twice, or be refused",
        REPAIR + "builds it again from the log",
    ),
    "aborted": Kind(
        DAMAGE,
        "a read_committed consumer may be given records of an aborted transaction",
        REPAIR + "builds it again from the log",
    ),
    "compaction": Kind(
        NOTE, "nothing: compaction begins anew, and gaps are not told from damage", _BY_START
    ),
    "missing partition": Kind(
        DAMAGE,
        "all its records are gone; the server would begin an empty one in its place",
        "put back the directory from a copy before the server starts",
    ),
    "unowned": Kind(
        DAMAGE,
        "nobody can read what is in this directory: the catalog does not know it",
        REPAIR
        + "moves it aside; if its log topic should be there, put back the catalog instead",
    ),
    "foreign": Kind(
        DAMAGE,
        "nobody can read it: the next start puts the directory aside and begins an empty one",
        "put back the catalog that fits; or " + REPAIR + "moves the directory aside",
    ),
    "metadata": Kind(
        DAMAGE,
        "nothing, as long as the catalog is right; without the catalog the topic id is lost",
        REPAIR + "writes it again from the catalog",
    ),
    "catalog": Kind(
        DAMAGE,
        "the server does not start",
        "put back a copy of this file; or " + REPAIR + "makes it from the directories: names, "
        "ids and partitions come back, the settings of the log topics do not",
    ),
    "identity": Kind(
        DAMAGE,
        "the server does not start",
        "put back a copy of this file; or " + REPAIR + "gives the directory a new cluster id",
    ),
    "checkpoint": Kind(
        NOTE, "nothing: a start after a crash checks more than it would need to", _BY_START
    ),
    "starts": Kind(
        DAMAGE,
        "records that were deleted from the beginning of a partition may be there again",
        REPAIR + "moves it aside; retention deletes the records once more",
    ),
    "unclosed": Kind(
        NOTE, "the server was not ended in good order; what it wrote last is checked", _BY_START
    ),
    "leftover": Kind(NOTE, "nothing: nobody reads it", "nothing"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where."""

    kind: str
    file: str  # as it is called from the data directory
    detail: str
    position: int = -1  # first byte concerned and the one after the last, -1: the whole file
    end: int = -1
    offset: int = -1  # first record concerned and the one after the last, -1: none
    next_offset: int = -1
    left_by_crash: bool = False  # explained by an end without a close

    @property
    def is_damage(self) -> bool:
        """Whether somebody has to act."""
        return KINDS[self.kind].level == DAMAGE and not self.left_by_crash

    @property
    def means(self) -> str:
        """What it means for readers."""
        return KINDS[self.kind].means

    @property
    def advice(self) -> str:
        """What to do."""
        return _BY_START if self.left_by_crash else KINDS[self.kind].advice


@dataclass(slots=True)
class PartitionReport:
    """What was read of one partition, and what is wrong with it."""

    log_topic: str
    index: int
    segments: int = 0
    size_bytes: int = 0
    batches: int = 0
    records: int = 0
    start_offset: int = 0
    end_offset: int = 0  # one past the last record that is there
    oldest_ms: int = -1  # timestamps of records, -1 where there is none
    newest_ms: int = -1
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_damaged(self) -> bool:
        """Whether anything found needs somebody to act."""
        return any(finding.is_damage for finding in self.findings)
