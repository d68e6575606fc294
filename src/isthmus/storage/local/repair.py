"""Mends a data directory that no server has open, and keeps every byte that it takes out.

Three passes, each of which may be cut short at any moment and begun again:

1. What keeps the log from being opened is made anew: the catalog from the directories, the
   identity. Directories that nobody owns are moved aside.
2. If there was no close, what recovery.py is about to cut off is copied aside, and the log is
   opened and closed, so that recovery does what a start does, in one place and once.
3. What is damaged is copied aside and cut out: the segment is written anew beside the old one,
   with an empty batch in place of the offsets that are lost (compaction leaves such batches, so
   every Kafka client and tool steps over them), and takes the old one's name. Good batches stay
   byte for byte, no offset changes and none is used again. What stands beside the log and is
   wrong is moved aside and built again.

What is taken out lies in `set-aside/<time>-<directory>/` of the data directory, synced before
anything changes: files by their names, parts of them as `<file>.<first byte>-<end>`.
"""

from __future__ import annotations

import struct
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.record.batch import MAGIC
from isthmus.storage.local.aborted import rebuild_aborted
from isthmus.storage.local.audit import SEGMENT
from isthmus.storage.local.catalog import CATALOG_FILE, Catalog, CatalogTopic
from isthmus.storage.local.checkpoints import (
    LEADER_EPOCH_FILE,
    META_PROPERTIES_FILE,
    PARTITION_METADATA_FILE,
    LeaderEpochs,
    format_partition_metadata,
    format_properties,
    id_text,
    parse_properties,
)
from isthmus.storage.local.chunks import ChunkBudget
from isthmus.storage.local.directory import DataDirectory
from isthmus.storage.local.inspect import SET_ASIDE, Inspection
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.open_segments import OpenSegments
from isthmus.storage.local.recovery import load_compaction
from isthmus.storage.local.scan import CHUNK_BYTES
from isthmus.storage.local.segments import SegmentList
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.topic_configs import TopicConfig
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.findings import Finding, PartitionReport
    from isthmus.storage.local.inspect import Place

ACTIONS: Final[Mapping[str, str]] = {  # what repair does about each kind of finding
    "lost": "cut out",
    "unreadable": "cut out",
    "torn": "cut off",
    "index": "built again",
    "time index": "built again",
    "epoch": "written again",
    "epochs": "built again",
    "aborted": "built again",
    "snapshot": "taken out; the log is replayed instead",
    "missing partition": "begun anew, empty, behind the offsets it had",
    "starts": "moved aside",
    "unowned": "moved aside",
    "foreign": "moved aside; an empty one is begun in its place",
    "metadata": "written again",
    "catalog": "made from the directories",
    "identity": "given a new cluster id",
}
# Nothing may be deleted by a default that nobody chose.
REBUILT_CONFIGS: Final[Mapping[str, str]] = {"retention.ms": "-1"}
_REWRITTEN: Final = ".repaired"
_HEAD = struct.Struct(">qiibI")  # base offset, length, leader epoch, version, checksum
_REST = struct.Struct(">hiqqqhii")  # attributes, last delta, times, producer, count
_BATCH_FROM_EPOCH: Final = 12  # bytes of a header that its length does not count
_NONE: Final = -1  # no timestamp, no producer, no sequence
_FAR: Final = 2**62  # an offset after all others


class Step(NamedTuple):
    """Something that was done: to which file, what, and where the bytes taken out are now."""

    file: str
    what: str
    set_aside: str = ""


def planned(findings: Iterable[Finding]) -> list[Step]:
    """Return what a repair would do about these findings."""
    return [
        Step(each.file, f"{each.detail}: to be {ACTIONS[each.kind]}")
        for each in findings
        if each.kind in ACTIONS and not each.left_by_crash  # the start in it sees to those
    ]


class Repair:
    """One repair of one data directory; `report` hears of each step when it is done.

    `configs` are the settings of the log topics that the server keeps for itself, by name: they
    are known even where the catalog is gone.
    """

    def __init__(
        self,
        files: Files,
        path: Path,
        runtime: Runtime,
        configs: Mapping[str, Mapping[str, str]],
        report: Callable[[Step], object],
    ) -> None:
        self._files = files
        self._path = path
        self._runtime = runtime
        self._configs = configs
        self._report = report
        self._stamp = ""  # begins the names of this repair's directories

    def run(
        self, wanted: Callable[[Place], bool], progress: Callable[[int], object]
    ) -> list[PartitionReport]:
        """Mend the directory and the partitions `wanted`; return how those mended are now.

        Raises ConfigError where the directory is in use or is none of ours, OSError and
        StorageError where the disk fails; then it can be run again.
        """
        with _Locked(self._files, self._path):
            look = self._look()
            points, is_closed = look.points, look.is_closed
            self._choose_stamp()
            self._make_openable(look)
            if not is_closed:
                look = self._look()
                for place in look.places:  # recovery does not choose
                    self._keep_tail(look.inspect(place, progress))
        if not is_closed:
            self._recover()
        with _Locked(self._files, self._path):
            look = self._look()
            for key, point in points.items():  # recovery may have moved them back
                look.points[key] = max(point, look.points.get(key, 0))
            mended = [
                place
                for place in filter(wanted, look.places)
                if self._mend(place, look.inspect(place, progress))
            ]
            return [look.inspect(place) for place in mended]

    def _look(self) -> Inspection:
        return Inspection(self._files, self._path, is_ours=True)

    # --- the directory ------------------------------------------------------------------------

    def _make_openable(self, look: Inspection) -> None:
        """Mend what concerns the directory as a whole."""
        if look.catalog is None:
            self._make_catalog(look)
            look = self._look()  # with it
        for finding in look.findings:
            match finding.kind:
                case "identity":
                    self._make_identity(finding)
                case "unowned" | "foreign" | "starts":
                    self._done(finding, self._move(self._path / finding.file))
                case "missing partition":
                    self._begin_partition(look, finding)
                case "metadata":
                    self._write_owner(look, finding)

    def _make_identity(self, finding: Finding) -> None:
        path = self._path / META_PROPERTIES_FILE
        kept = self._keep_file(path)
        properties = {"version": "1", "node.id": str(LocalSettings().node_id)}
        for name in ("cluster.id", "directory.id"):
            properties[name] = id_text(self._runtime.random_bytes(16))
        self._files.replace(path, format_properties(properties))
        self._done(finding, kept)

    def _make_catalog(self, look: Inspection) -> None:
        """List the log topics that the directories show."""
        kept = self._keep_file(self._path / CATALOG_FILE)
        catalog = Catalog(self._files, self._path)
        partitions: dict[str, int] = {}
        owners: dict[str, Counter[bytes]] = {}
        for place in look.places:
            count = partitions.get(place.log_topic, 0)
            partitions[place.log_topic] = max(place.index + 1, count)
            known = owners.setdefault(place.log_topic, Counter())
            owner, _ = look.owner_of(place)
            known.update(() if owner is None else (owner,))
            epoch = self._epochs(self._path / place.name).latest
            catalog.leader_epoch = max(catalog.leader_epoch, epoch)
        for name, count in partitions.items():
            most = owners[name].most_common(1)
            topic_id = most[0][0] if most else self._runtime.random_bytes(16)
            configs = dict(self._configs.get(name, REBUILT_CONFIGS))
            catalog.topics[topic_id] = CatalogTopic(name, topic_id, count, configs)
        catalog.save()
        what = (
            f"made from the directories, with {len(partitions)} log topics; their settings are "
            "lost, and until you set retention.ms nothing is deleted by age"
        )
        self._report(Step(CATALOG_FILE, what, kept))

    def _begin_partition(self, look: Inspection, finding: Finding) -> None:
        """Make a partition whose directory is gone, so that no offset of it is used again."""
        name, _, index = finding.file.rpartition("-")
        point = look.points.get((name, int(index)), 0)
        directory = self._path / finding.file
        files, catalog = self._files, look.catalog
        assert catalog is not None
        files.make_directory(directory)
        if point > 0:
            epoch = catalog.leader_epoch
            batch = empty_batch(point - 1, point, epoch)
            epochs = LeaderEpochs([(epoch, point - 1)])
            files.write_file(directory / LEADER_EPOCH_FILE, epochs.format(), sync=True)
            files.write_file(directory / f"{point - 1:020d}.log", batch, sync=True)
        for entry in catalog.topics.values():
            if entry.name == name:
                owner = format_partition_metadata(entry.topic_id)
                files.write_file(directory / PARTITION_METADATA_FILE, owner, sync=True)
        files.sync_directory(directory)
        files.sync_directory(self._path)
        self._done(finding)

    def _write_owner(self, look: Inspection, finding: Finding) -> None:
        name = finding.file.partition("/")[0]
        path = self._path / finding.file
        for place in look.places:
            if place.name == name and place.topic_id is not None:
                kept = self._keep_file(path)
                self._files.replace(path, format_partition_metadata(place.topic_id))
                self._done(finding, kept)

    # --- what a start does --------------------------------------------------------------------

    def _keep_tail(self, report: PartitionReport) -> None:
        """Copy aside what recovery cuts off: what is bad up to the end of a file."""
        for finding in report.findings:
            path = self._path / finding.file
            if finding.kind in ("torn", "lost") and finding.end == self._files.size(path):
                kept = self._keep(path, finding.position, finding.end)
                self._done(finding, kept)

    def _recover(self) -> None:
        properties = parse_properties(
            self._files.read_file(self._path / META_PROPERTIES_FILE) or b""
        )
        settings = LocalSettings(node_id=int(properties.get("node.id", "1")))
        LocalLog(self._path, self._runtime, self._files, settings).close()

    # --- one partition ------------------------------------------------------------------------

    def _mend(self, place: Place, report: PartitionReport) -> bool:
        """Mend what was found in a partition; whether there was something."""
        todo: dict[str, list[Finding]] = {}
        for finding in report.findings:
            if finding.kind in ACTIONS:
                todo.setdefault(finding.kind, []).append(finding)
        for finding in todo.get("epoch", ()):  # before anything moves
            self._write_epoch(finding)
        self._mend_segments(todo)
        for finding in todo.get("epochs", ()):
            self._build_epochs(self._path / place.name, finding)
        for finding in todo.get("aborted", ()):
            self._build_aborted(finding)
        for finding in todo.get("snapshot", ()):
            self._done(finding, self._move(self._path / finding.file))
        return bool(todo)

    def _mend_segments(self, todo: Mapping[str, Sequence[Finding]]) -> None:
        """Cut out what is bad, and index anew the segments that need it."""
        cuts: dict[str, list[Finding]] = {}
        for finding in (*todo.get("lost", ()), *todo.get("unreadable", ())):
            cuts.setdefault(finding.file, []).append(finding)
        indexes: dict[str, list[Finding]] = {file: [] for file in cuts}
        for finding in (*todo.get("index", ()), *todo.get("time index", ())):
            log = finding.file.rpartition(".")[0] + ".log"
            indexes.setdefault(log, []).append(finding)
        for file, findings in cuts.items():
            self._cut_out(self._path / file, sorted(findings, key=lambda one: one.position))
        for file, findings in indexes.items():
            kept = self._build_indexes(self._path / file)
            for finding in findings:
                self._done(finding, kept)

    def _cut_out(self, path: Path, findings: Sequence[Finding]) -> None:
        """Write a segment anew without the stretches found bad, which are kept aside."""
        files = self._files
        kept = [
            self._keep(path, one.position, one.end) if one.end > one.position else ""
            for one in findings
        ]
        target = path.with_name(path.name + _REWRITTEN)
        epochs = self._epochs(path.parent)
        source, copy = files.open_read(path), files.open(target, create=True)
        try:
            files.truncate(copy, 0)
            here = there = 0
            for one in findings:
                there = self._copy(source, here, one.position, copy, there)
                if one.next_offset > one.offset:
                    epoch = max(0, epochs.at(one.offset))
                    batch = empty_batch(one.offset, one.next_offset, epoch)
                    there = files.write(copy, [batch], there)
                here = one.end
            self._copy(source, here, files.size(path), copy, there)
            files.fdatasync(copy)
        finally:
            files.close(source)
            files.close(copy)
        for index in (path.with_suffix(".index"), path.with_suffix(".timeindex")):
            self._move(index)  # they point into the old file
        files.rename(target, path)
        files.sync_directory(path.parent)
        for one, where in zip(findings, kept, strict=True):
            self._done(one, where)

    def _copy(self, source: int, start: int, end: int, target: int, position: int) -> int:
        """Copy bytes from one open file to another; return the position after them."""
        while start < end:
            data = self._files.pread(source, min(CHUNK_BYTES, end - start), start)
            if not data:
                break
            position = self._files.write(target, [data], position)
            start += len(data)
        return position

    def _build_indexes(self, path: Path) -> str:
        """Make both indexes of a segment from it; return where the old ones are."""
        kept = self._move(path.with_suffix(".index"))
        kept = self._move(path.with_suffix(".timeindex")) or kept
        segments = self._segments(path.parent)
        for segment in segments:
            if segment.path == path:
                segment.rebuild_indexes()
                segment.save_indexes(complete=True)
                for index in segment.unsynced_indexes:
                    self._files.sync_file(index, None)
        segments.close()
        self._files.sync_directory(path.parent)
        return kept

    def _build_aborted(self, finding: Finding) -> None:
        """Make the list of aborted transactions of a segment from the log."""
        path = self._path / finding.file
        kept = self._move(path)
        segments = self._segments(path.parent)
        ends = [
            segment.base_offset for segment in segments if segment.base_offset > int(path.stem)
        ]
        index = rebuild_aborted(segments, self._files, int(path.stem), min(ends, default=_FAR))
        segments.close()
        data, _ = index.unsaved()
        self._files.write_file(path, data, sync=True)
        self._files.sync_directory(path.parent)
        self._done(finding, kept)

    def _segments(self, directory: Path) -> SegmentList:
        """Return the segments as a server has them."""
        segments = SegmentList(
            self._files, OpenSegments(1), ChunkBudget(0), directory, TopicConfig({})
        )
        load_compaction(segments, self._files)
        for match in map(SEGMENT.fullmatch, self._files.names(directory)):
            if match is not None:
                segments.restore(int(match[1]), self._files.size(directory / match[0]))
        return segments

    def _epochs(self, directory: Path) -> LeaderEpochs:
        data = self._files.read_file(directory / LEADER_EPOCH_FILE)
        try:
            return LeaderEpochs() if data is None else LeaderEpochs.parse(data)
        except ValueError:
            return LeaderEpochs()

    def _write_epoch(self, finding: Finding) -> None:
        """Give a batch the leader epoch of its offset; its checksum does not cover it."""
        path = self._path / finding.file
        epoch = self._epochs(path.parent).at(finding.offset)
        kept = self._keep(path, finding.position, finding.end)
        descriptor = self._files.open(path)
        try:
            self._files.write(descriptor, [epoch.to_bytes(4, "big")], finding.position)
            self._files.fdatasync(descriptor)
        finally:
            self._files.close(descriptor)
        self._done(finding, kept)

    def _build_epochs(self, directory: Path, finding: Finding) -> None:
        """Learn from the batches where each leader epoch begins."""
        epochs = LeaderEpochs()

        def visit(batch: RecordBatch) -> None:
            if batch.leader_epoch > epochs.latest:
                epochs.begin(batch.leader_epoch, batch.base_offset)

        segments = self._segments(directory)
        segments.walk(0, _FAR, visit)
        segments.close()
        path = directory / LEADER_EPOCH_FILE
        kept = self._keep_file(path)
        self._files.replace(path, epochs.format())
        self._done(finding, kept)

    # --- what is taken out --------------------------------------------------------------------

    def _done(self, finding: Finding, kept: str = "") -> None:
        what = f"{finding.detail}: {ACTIONS[finding.kind]}"
        self._report(Step(finding.file, what, kept))

    def _choose_stamp(self) -> None:
        """Choose a time that no other repair has taken."""
        above = self._path / SET_ASIDE
        taken = self._files.names(above) if self._files.exists(above) else []
        now_ms = self._runtime.now_ms()
        while not self._stamp or any(name.startswith(self._stamp) for name in taken):
            now = datetime.fromtimestamp(now_ms / 1000, UTC)
            self._stamp = f"{now:%Y%m%dT%H%M%S}.{now_ms % 1000:03d}Z"
            now_ms += 1

    def _aside(self, directory: Path) -> Path:
        """Return the directory for what is taken out of `directory`, made and synced."""
        above = self._path / SET_ASIDE
        name = "data" if directory == self._path else directory.name
        target = above / f"{self._stamp}-{name}"
        if not self._files.exists(target):
            self._files.make_directory(above)
            self._files.sync_directory(self._path)
            self._files.make_directory(target)
            self._files.sync_directory(above)
        return target

    def _keep(self, path: Path, start: int, end: int) -> str:
        """Copy bytes of a file aside; return where they are, once they are on the disk."""
        target = self._aside(path.parent) / f"{path.name}.{start}-{end}"
        source, copy = self._files.open_read(path), self._files.open(target, create=True)
        try:
            self._copy(source, start, end, copy, 0)
            self._files.fdatasync(copy)
        finally:
            self._files.close(source)
            self._files.close(copy)
        self._files.sync_directory(target.parent)
        return str(target)

    def _keep_file(self, path: Path) -> str:
        """Copy a whole file aside, if there is one."""
        return self._keep(path, 0, self._files.size(path)) if self._files.exists(path) else ""

    def _move(self, path: Path) -> str:
        """Move a file or directory aside, if there is one; return where it is."""
        if not self._files.exists(path):
            return ""
        target = self._aside(path.parent) / path.name
        self._files.rename(path, target)
        self._files.sync_directory(target.parent)
        self._files.sync_directory(path.parent)
        return str(target)


class _Locked:
    """The lock of a data directory, as long as something is changed in it."""

    def __init__(self, files: Files, path: Path) -> None:
        self._directory = DataDirectory(files, path)

    def __enter__(self) -> None:
        self._directory.lock()

    def __exit__(self, *_: object) -> None:
        self._directory.close()


def empty_batch(base_offset: int, next_offset: int, leader_epoch: int) -> bytes:
    """Return a batch without records that takes up the offsets before `next_offset`."""
    delta = next_offset - base_offset - 1
    rest = _REST.pack(0, delta, _NONE, _NONE, _NONE, _NONE, _NONE, 0)
    size = _HEAD.size + len(rest) - _BATCH_FROM_EPOCH
    return _HEAD.pack(base_offset, size, leader_epoch, MAGIC, crc32c(rest)) + rest
