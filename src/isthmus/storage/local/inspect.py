"""Looks at a data directory and says what is wrong with it, changing nothing.

For whoever asks whether the log can be trusted: `isthmus log verify`, and repair.py, which acts
on what is found here. Nothing is locked, so it may look at a directory that a server is writing
to: what stands beside the log is read before the log, each file is taken as long as it is when
its turn comes, and what is unfinished at the end is *being written*.

Every batch is read, from the first byte to the last and in chunks: header, place, checksum, and
each record, decompressed. What stands beside it is held against it (beside.py): indexes, leader
epochs, snapshots of producers, checkpoints; and the catalog against the directories. What a
crash leaves and the next start of the server deals with is told as such, not as damage.

Not here: what is in the files, in words (cli/log_dump.py); changing anything (repair.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from isthmus.errors import ConfigError, CorruptBatch
from isthmus.record.batch import RecordReader
from isthmus.storage.local.beside import EpochCheck, IndexCheck, SnapshotCheck, TimeIndexCheck
from isthmus.storage.local.catalog import CATALOG_FILE, Catalog, CatalogDamaged
from isthmus.storage.local.checkpoints import (
    CLEAN_SHUTDOWN_FILE,
    LEADER_EPOCH_FILE,
    META_PROPERTIES_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINT_FILE,
    LeaderEpochs,
    id_text,
    parse_offsets,
    parse_partition_metadata,
    parse_properties,
)
from isthmus.storage.local.directory import LOCK_FILE
from isthmus.storage.local.findings import Finding, PartitionReport
from isthmus.storage.local.scan import CHUNK_BYTES, Damage, Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.local.files import Files

SET_ASIDE: Final = "set-aside"  # the directory that repair.py moves things to
EPOCH_POSITION: Final = 12  # of the leader epoch in a batch
EPOCH_BYTES: Final = 4
_FAR: Final = 2**62  # a position after all others
_PARTITION: Final = re.compile(r"(.+)-(\d+)")
SEGMENT: Final = re.compile(r"(\d{20})\.log")
_SNAPSHOT: Final = re.compile(r"(\d{20})\.snapshot")
_PUT_ASIDE: Final = re.compile(r".+\.[0-9a-f]{32}-(delete|stray)")


@dataclass(frozen=True, slots=True)
class Place:
    """A partition as the directory has it; `topic_id` is the catalog's, None without one."""

    log_topic: str
    index: int
    topic_id: bytes | None

    @property
    def name(self) -> str:
        """The name of its directory."""
        return f"{self.log_topic}-{self.index}"


class Inspection:
    """A look at one data directory.

    `findings` is about the directory as a whole and `places` are its partitions; `inspect`
    reads one of them. Raises ConfigError where `path` is no data directory of this version of
    Isthmus, OSError where it cannot be read.
    """

    def __init__(self, files: Files, path: Path, *, is_ours: bool = False) -> None:
        """`is_ours`: whoever looks holds the lock."""
        self.path = path
        self.findings: list[Finding] = []
        self.catalog: Catalog | None = Catalog(files, path)
        self._files = files
        names = self._names()
        self.is_in_use = not is_ours and files.is_locked(path / LOCK_FILE)
        self.is_closed = CLEAN_SHUTDOWN_FILE in names
        self.points = self._load_points()
        self._load_identity()
        self._load_catalog(has_partitions=any(map(_PARTITION.fullmatch, names)))
        self.places = self._find_places(names)
        if not self.is_in_use and not self.is_closed and self.points:
            self._note("unclosed", ".", "was not closed")

    # --- the directory ------------------------------------------------------------------------

    def _names(self) -> list[str]:
        try:
            names = self._files.names(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{self.path} is no directory: name one with --data") from None
        if CATALOG_FILE not in names and not {META_PROPERTIES_FILE, LOCK_FILE} <= set(names):
            raise ConfigError(f"{self.path} is no Isthmus data directory: name one with --data")
        return names

    def _note(self, kind: str, file: str, detail: str) -> None:
        self.findings.append(Finding(kind, file, detail))

    def _load_points(self) -> dict[tuple[str, int], int]:
        data = self._files.read_file(self.path / RECOVERY_POINT_FILE)
        try:
            return {} if data is None else parse_offsets(data)
        except ValueError as error:
            self._note("checkpoint", RECOVERY_POINT_FILE, f"cannot be read: {error}")
            return {}

    def _load_identity(self) -> None:
        data = self._files.read_file(self.path / META_PROPERTIES_FILE)
        try:
            known = data is not None and bool(parse_properties(data).get("cluster.id"))
        except ValueError:
            known = False
        if not known:
            what = "is missing" if data is None else "names no cluster.id"
            self._note("identity", META_PROPERTIES_FILE, what)

    def _load_catalog(self, *, has_partitions: bool) -> None:
        assert self.catalog is not None
        try:
            if self.catalog.load() or not has_partitions:
                return
            what = "is missing"
        except CatalogDamaged as error:
            what = f"cannot be read: {error.why}"
        self.catalog = None
        self._note("catalog", CATALOG_FILE, what)

    def _find_places(self, names: Sequence[str]) -> list[Place]:
        """Return the partitions; hold the catalog against the directories."""
        directories = {name for name in names if _PARTITION.fullmatch(name)}
        if self.catalog is None:
            found = map(_PARTITION.fullmatch, filter(self._is_partition, sorted(directories)))
            return [Place(one[1], int(one[2]), None) for one in found if one is not None]
        places = []
        going = set()
        for entry in self.catalog.topics.values():
            for index in range(entry.partitions):
                place = Place(entry.name, index, entry.topic_id)
                if entry.deleting:
                    going.add(place.name)
                elif place.name not in directories:
                    self._miss(place)
                else:
                    places.append(place)
                    self._check_owner(place)
        known = {place.name for place in places}
        for name in names:
            if _PUT_ASIDE.fullmatch(name) or name in going - known:
                self._note("leftover", name, "was put aside by the server")
            elif name in directories - known and self._is_partition(name):
                self._note("unowned", name, "is not in the catalog")
        return sorted(places, key=lambda place: (place.log_topic, place.index))

    def _is_partition(self, name: str) -> bool:
        """Whether a directory looks like a partition even to one who has no catalog."""
        within = self._files.names(self.path / name)
        return PARTITION_METADATA_FILE in within or any(map(SEGMENT.fullmatch, within))

    def _miss(self, place: Place) -> None:
        """A directory that the catalog names is not there; new ones come late after a crash."""
        point = self.points.get((place.log_topic, place.index), 0)
        if point or self.is_closed:
            held = f"held offsets up to {point - 1}" if point else "was empty"
            self._note("missing partition", place.name, f"is not there; it {held}")

    def _check_owner(self, place: Place) -> None:
        found, what = self.owner_of(place)
        file = f"{place.name}/{PARTITION_METADATA_FILE}"
        if found is None:
            by_crash = not self.is_closed
            self.findings.append(Finding("metadata", file, what, left_by_crash=by_crash))
        elif place.topic_id is not None and found != place.topic_id:
            what = (
                f"is of log topic {id_text(found)}, the catalog has {id_text(place.topic_id)}"
            )
            self._note("foreign", place.name, what)

    def owner_of(self, place: Place) -> tuple[bytes | None, str]:
        """Return the topic id that a directory says it belongs to, or None and why."""
        data = self._files.read_file(self.path / place.name / PARTITION_METADATA_FILE)
        if data is None:
            return None, "is missing"
        try:
            return parse_partition_metadata(data), ""
        except ValueError as error:
            return None, f"cannot be read: {error}"

    def bytes_to_read(self, places: Sequence[Place]) -> int:
        """Return the size of all segment files of these partitions. Raises OSError."""
        return sum(
            self._files.size(self.path / place.name / name)
            for place in places
            for name in self._files.names(self.path / place.name)
            if SEGMENT.fullmatch(name)
        )

    # --- one partition ------------------------------------------------------------------------

    def inspect(
        self, place: Place, progress: Callable[[int], object] = lambda _bytes: None
    ) -> PartitionReport:
        """Read a partition as a whole; `progress` hears of the bytes as they are read.

        Raises OSError.
        """
        point = self.points.get((place.log_topic, place.index), 0)
        walk = _PartitionWalk(self._files, self.path, place, progress)
        walk.is_in_use = self.is_in_use
        walk.synced_offset = point
        walk.checked_by_start = None if self.is_closed else point
        walk.run()
        return walk.report


class _PartitionWalk:
    """One reading of one partition, into its report."""

    def __init__(
        self, files: Files, root: Path, place: Place, progress: Callable[[int], object]
    ) -> None:
        self.report = PartitionReport(place.log_topic, place.index)
        self.is_in_use = False
        self.synced_offset = 0  # all before it was on the disk once
        self.checked_by_start: int | None = None  # what a start checks from, None: nothing
        self._files = files
        self._directory = root / place.name
        self._place = place
        self._progress = progress
        self._epochs: EpochCheck | None = None
        self._snapshots = SnapshotCheck(())
        self._lost_to = 0  # one past the last record that is known to be lost

    def run(self) -> None:
        """Read everything. Raises OSError."""
        names = self._files.names(self._directory)
        self._load_epochs(has_records=any(map(SEGMENT.fullmatch, names)))
        self._snapshots = SnapshotCheck(list(self._load_snapshots(names)))
        bases = [int(one[1]) for one in map(SEGMENT.fullmatch, names) if one is not None]
        report = self.report
        if bases:
            report.start_offset = report.end_offset = bases[0]
        for base, following in zip_longest(bases, bases[1:]):
            try:
                self._walk_segment(base, following)
            except FileNotFoundError:
                if not self.is_in_use:  # else retention was quicker
                    raise
        self._judge_epochs()
        self._snapshots.finish(max(report.end_offset, self._lost_to))
        for offset, wrong in self._snapshots.wrong:
            self._find("snapshot", f"{offset:020d}.snapshot", wrong, beyond=offset)

    def _find(
        self, kind: str, file: str, detail: str, *, beyond: int = 0, **where: int
    ) -> None:
        """Report something that a crash explains if it is about what lies `beyond` a start."""
        unchecked = self.checked_by_start
        by_crash = unchecked is not None and (beyond > unchecked or unchecked == 0)
        self.report.findings.append(
            Finding(kind, f"{self._place.name}/{file}", detail, **where, left_by_crash=by_crash)
        )

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
        descriptor = self._files.open_read(path)
        try:
            size = self._files.size(path)
            scan = Scan(self._files, descriptor, 0, size, base, verify=True)
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
        elif scan.position < size or end < following:
            self._lose(path.name, scan.position, size, end, following)
        elif end > following:
            what = f"holds offsets up to {end - 1}, and the next segment begins at {following}"
            self._find("overlap", path.name, what, offset=following, next_offset=end)
        if scan.position < size or self._lost_to > end:  # an index may point there
            scan.damage.append(Damage(scan.position, _FAR, end, following or end))
        for kind, file, check in checks:
            wrong = check.verdict(scan.damage)
            if wrong:
                self._find(kind, file, wrong, beyond=end)

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
                self._snapshots.lose(scan.damage[lost].offset)
                lost = len(scan.damage)
            for _, _, check in checks:
                check.visit(position, batch)
            if batch.count == 0 and batch.producer_id < 0:
                self._pass_closed(file, position, batch)
            self._snapshots.visit(batch)
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
        if self._epochs is not None and batch.count:
            self._epochs.visit(file, position, batch)

    def _pass_closed(self, file: str, position: int, batch: RecordBatch) -> None:
        """A batch of nothing and nobody stands where repair.py has cut something out."""
        self._snapshots.lose(batch.base_offset)
        what = "an empty batch stands for " + _offsets(batch.base_offset, batch.next_offset)
        self._find("closed", file, what, position=position, end=position + batch.size)

    # --- what is not there --------------------------------------------------------------------

    def _lose(self, file: str, position: int, end: int, offset: int, next_offset: int) -> None:
        self._snapshots.lose(offset)
        self._lost_to = max(self._lost_to, next_offset)
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
