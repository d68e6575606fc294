"""Reads one partition from the first byte to the last, and reports what is wrong with it.

Every batch: header, place, checksum, and each record, decompressed. What stands beside the log
is held against it (beside.py). Where compaction has been, offsets may be missing, below the
offset that its own file names; elsewhere a gap is damage. Not here: choosing partitions
(inspect.py).
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from isthmus.errors import CorruptBatch
from isthmus.record.batch import RecordReader
from isthmus.storage.local.beside import EpochCheck, IndexCheck, ProducerCheck, TimeIndexCheck
from isthmus.storage.local.checkpoints import (
    COMPACTION_FILE,
    LEADER_EPOCH_FILE,
    LeaderEpochs,
    parse_compaction,
)
from isthmus.storage.local.findings import Finding, PartitionReport
from isthmus.storage.local.scan import CHUNK_BYTES, Damage, Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.inspect import Place

SEGMENT: Final = re.compile(r"(\d{20})\.log")
EPOCH_POSITION: Final = 12  # of the leader epoch in a batch
EPOCH_BYTES: Final = 4
_SNAPSHOT: Final = re.compile(r"(\d{20})\.snapshot")
_SWAP_SUFFIX: Final = ".log.swap"
_FAR: Final = 2**62  # a position or offset after all others


class PartitionAudit:
    """One reading of one partition, into its report."""

    def __init__(
        self, files: Files, root: Path, place: Place, progress: Callable[[int], object]
    ) -> None:
        self.report = PartitionReport(place.log_topic, place.index)
        self.is_in_use = False
        self.synced_offset = 0  # all before it was on the disk once
        self.start_offset = 0  # records before it were deleted, even where their files are not
        self.checked_by_start: int | None = None  # what a start checks from, None: nothing
        self.was_overtaken = False  # the server changed the files: worth another try
        self._files = files
        self._directory = root / place.name
        self._place = place
        self._progress = progress
        self._epochs: EpochCheck | None = None
        self._producers = ProducerCheck(())
        self._lost_to = 0  # one past the last record that is known to be lost
        self._gap_end = 0  # offsets below it may be missing
        self._is_swapping = False  # compaction was at work when the server ended

    def run(self) -> None:
        """Read everything. Raises OSError."""
        names = self._files.names(self._directory)
        self._is_swapping = any(name.endswith(_SWAP_SUFFIX) for name in names)
        self._load_gap_end()
        self._load_epochs(has_records=any(map(SEGMENT.fullmatch, names)))
        snapshots = list(self._load_snapshots(names))
        self._note_synced(snapshots)
        self._producers = ProducerCheck(snapshots)
        bases = [int(one[1]) for one in map(SEGMENT.fullmatch, names) if one is not None]
        report = self.report
        oldest = bases[0] if bases else 0
        report.start_offset = max(oldest, self.start_offset)
        report.end_offset = oldest if bases else self.start_offset
        for base, following in zip_longest(bases, bases[1:]):
            try:
                self._walk_segment(base, following)
            except FileNotFoundError:
                if not self.is_in_use:  # else retention or compaction was quicker
                    raise
                self.was_overtaken = True
        self._judge_epochs()
        self._producers.finish(max(report.end_offset, self._lost_to))
        for offset, wrong in self._producers.wrong:
            self._find("snapshot", f"{offset:020d}.snapshot", wrong, beyond=offset)

    def _find(
        self, kind: str, file: str, detail: str, *, beyond: int = 0, **where: int
    ) -> None:
        """Report something that a crash explains if it is about what lies `beyond` a start."""
        unchecked = self.checked_by_start
        by_crash = unchecked is not None and (
            beyond > unchecked or unchecked == 0 or self._is_swapping
        )
        self.report.findings.append(
            Finding(kind, f"{self._place.name}/{file}", detail, **where, left_by_crash=by_crash)
        )

    def _load_gap_end(self) -> None:
        data = self._files.read_file(self._directory / COMPACTION_FILE)
        try:
            _, self._gap_end = (0, 0) if data is None else parse_compaction(data)
        except ValueError as error:
            self._gap_end = _FAR
            self._find("compaction", COMPACTION_FILE, f"cannot be read: {error}")

    def _note_synced(self, snapshots: Sequence[tuple[int, bytes]]) -> None:
        """A recovery point counts only with the snapshot written for it, see recovery.py."""
        offsets = [offset for offset, _ in snapshots if offset <= self.synced_offset]
        self.synced_offset = max(offsets, default=0)
        if self.checked_by_start is not None:
            self.checked_by_start = self.synced_offset

    def _load_epochs(self, *, has_records: bool) -> None:
        data = self._files.read_file(self._directory / LEADER_EPOCH_FILE)
        what = "is missing" if has_records else ""
        if data is not None:
            try:
                self._epochs = EpochCheck(LeaderEpochs.parse(data))
                what = ""
            except ValueError as error:
                what = f"cannot be read: {error}"
        if what:
            self._find("epochs", LEADER_EPOCH_FILE, what)

    def _judge_epochs(self) -> None:
        if self._epochs is None:
            return
        first, odd = self._epochs.verdict()
        if first is not None:
            what = f"puts offset {first.offset} into epoch {first.known}, its batch says"
            what += f" {first.epoch}"
            self._find("epochs", LEADER_EPOCH_FILE, what, beyond=first.offset + 1)
        for each in odd:
            what = f"offset {each.offset} is of epoch {each.known}, its batch says {each.epoch}"
            start = each.position + EPOCH_POSITION
            where = {"position": start, "end": start + EPOCH_BYTES, "offset": each.offset}
            self._find("epoch", each.file, what, next_offset=each.offset + 1, **where)

    def _load_snapshots(self, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        for match in map(_SNAPSHOT.fullmatch, names):
            data = None
            if match is not None:
                data = self._files.read_file(self._directory / match[0])
            if match is not None and data is not None:  # else the server was quicker
                yield int(match[1]), data

    # --- one segment --------------------------------------------------------------------------

    def _walk_segment(self, base: int, following: int | None) -> None:
        """Read a segment and what stands beside it; `following` is where the next begins."""
        path = self._directory / f"{base:020d}.log"
        checks = self._beside(path, base)
        aborted = self._files.read_file(path.with_suffix(".txnindex"))
        descriptor = self._files.open_read(path)
        try:
            size = self._files.size(path)
            scan = Scan(
                self._files, descriptor, 0, size, base, verify=True, gap_end=self._gap_end
            )
            self._walk(scan, path.name, checks)
        finally:
            self._files.close(descriptor)
        self.report.segments += 1
        self.report.size_bytes += size
        for lost in scan.damage:
            self._lose(path.name, lost.position, lost.end, lost.offset, lost.next_offset)
        end = scan.next_offset
        if following is None:
            self._end(path.name, scan.position, size, end)
        elif scan.position < size or end < following > self._gap_end:
            self._lose(path.name, scan.position, size, end, following)
        elif end > following:
            what = f"holds offsets up to {end - 1}, and the next segment begins at {following}"
            self.was_overtaken = self.is_in_use  # by compaction, which merges segments
            self._find("overlap", path.name, what, offset=following, next_offset=end)
        if scan.position < size or self._lost_to > end:  # an index may point there
            scan.damage.append(Damage(scan.position, _FAR, end, following or end))
        for kind, file, check in checks:
            wrong = check.verdict(scan.damage)
            if wrong:
                self._find(kind, file, wrong, beyond=end)
        self._check_aborted(path.with_suffix(".txnindex"), aborted, beyond=end)

    def _check_aborted(self, path: Path, data: bytes | None, *, beyond: int) -> None:
        """Hold a `.txnindex` against the markers of its segment."""
        wrong = self._producers.judge_aborted(data)
        if wrong and not (self.is_in_use and data is None):  # then it is written later
            self._find("aborted", path.name, wrong, beyond=beyond)

    def _beside(
        self, path: Path, base: int
    ) -> list[tuple[str, str, IndexCheck | TimeIndexCheck]]:
        """Return the checks of the indexes that there are."""
        checks: list[tuple[str, str, IndexCheck | TimeIndexCheck]] = []
        data = self._files.read_file(path.with_suffix(".index"))
        if data is not None:
            name = path.with_suffix(".index").name
            checks.append(("index", name, IndexCheck(data, base)))
        data = self._files.read_file(path.with_suffix(".timeindex"))
        if data is not None:
            name = path.with_suffix(".timeindex").name
            checks.append(("time index", name, TimeIndexCheck(data, base)))
        return checks

    def _walk(
        self,
        scan: Scan,
        file: str,
        checks: list[tuple[str, str, IndexCheck | TimeIndexCheck]],
    ) -> None:
        told = 0
        lost = 0
        for position, batch in scan:
            if len(scan.damage) > lost:
                self._producers.lose(scan.damage[lost].offset)
                lost = len(scan.damage)
            for _, _, check in checks:
                check.visit(position, batch)
            if batch.count == 0 and batch.producer_id < 0:
                self._pass_closed(file, position, batch)
            self._producers.visit(batch)
            self._visit(file, position, batch)
            if position - told >= CHUNK_BYTES:
                self._progress(position - told)
                told = position
        self._progress(scan.position - told)

    def _visit(self, file: str, position: int, batch: RecordBatch) -> None:
        report = self.report
        report.batches += 1
        report.records += batch.count
        report.end_offset = batch.next_offset
        if batch.count:
            if report.oldest_ms < 0 or batch.base_timestamp < report.oldest_ms:
                report.oldest_ms = batch.base_timestamp
            report.newest_ms = max(report.newest_ms, batch.max_timestamp)
        try:
            check_records(batch)
        except CorruptBatch as error:
            where = {"offset": batch.base_offset, "next_offset": batch.next_offset}
            end = position + batch.size
            self._find("unreadable", file, str(error), position=position, end=end, **where)
        if self._epochs is not None and batch.count and batch.base_offset >= self.start_offset:
            self._epochs.visit(file, position, batch)

    def _pass_closed(self, file: str, position: int, batch: RecordBatch) -> None:
        """A batch of nothing and nobody stands where repair.py has cut something out."""
        self._producers.lose(batch.base_offset)
        if batch.base_offset < self._gap_end:
            return  # or compaction did it
        what = "an empty batch stands for " + _offsets(batch.base_offset, batch.next_offset)
        self._find("closed", file, what, position=position, end=position + batch.size)

    # --- what is not there --------------------------------------------------------------------

    def _lose(self, file: str, position: int, end: int, offset: int, next_offset: int) -> None:
        self.was_overtaken = self.is_in_use  # or compaction has told of its gaps since
        self._producers.lose(offset)
        self._lost_to = max(self._lost_to, next_offset)
        if offset < next_offset <= self.start_offset:
            return  # had been deleted before
        self.report.findings.append(
            Finding(
                "lost",
                f"{self._place.name}/{file}",
                _lost(position, end, offset, next_offset),
                position,
                end,
                offset,
                next_offset,
            )
        )

    def _end(self, file: str, position: int, size: int, offset: int) -> None:
        """The newest segment is good up to `position`; what of it is missing or too much?"""
        synced = self.synced_offset
        if offset < synced or (position < size and self.checked_by_start is None):
            self._lose(file, position, size, offset, max(offset, synced))
        elif position < size:
            kind = "writing" if self.is_in_use else "torn"
            what = f"ends with {size - position} bytes that are no whole batch"
            self._find(kind, file, what, position=position, end=size)


def check_records(batch: RecordBatch) -> None:
    """Raise CorruptBatch where a stored batch has a record that cannot be read."""
    if batch.count == batch.last_offset_delta + 1:
        batch.verify_records()
        return
    reader = RecordReader(batch)  # compaction has taken records out, or all
    while reader.advance():
        reader.check()


def _offsets(first: int, end: int) -> str:
    return f"offset {first}" if end == first + 1 else f"offsets {first} to {end - 1}"


def _lost(position: int, end: int, offset: int, next_offset: int) -> str:
    if next_offset <= offset:
        return f"{end - position} bytes belong to no batch"
    where = f"{end - position} bytes are damaged" if end > position else "nothing is left"
    return f"{where}, {_offsets(offset, next_offset)} lost"
