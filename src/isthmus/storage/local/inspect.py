"""Looks at a data directory and says what is wrong with it, changing nothing.

For whoever asks whether the log can be trusted: `isthmus log verify`, and repair.py, which acts
on what is found here. Nothing is locked, so it may look at a directory that a server is writing
to: what stands beside the log is read before the log, each file is taken as long as it is when
its turn comes, and what is unfinished at the end is *being written*. Where there was no close,
segments are read as they will be once a start has replayed the journal.

The catalog is held against the directories, and each partition is read as a whole (audit.py).
What a crash leaves and the next start of the server deals with is told as such, not as damage.

Not here: what is in the files, in words (cli/log_dump.py); changing anything (repair.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from isthmus.errors import ConfigError
from isthmus.storage.local.audit import SEGMENT, PartitionAudit
from isthmus.storage.local.catalog import CATALOG_FILE, Catalog, CatalogDamaged
from isthmus.storage.local.checkpoints import (
    BY_ID,
    CLEAN_SHUTDOWN_FILE,
    META_PROPERTIES_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINT_FILE,
    START_OFFSET_FILE,
    id_text,
    parse_offsets,
    parse_partition_metadata,
    parse_properties,
)
from isthmus.storage.local.directory import LOCK_FILE
from isthmus.storage.local.findings import Finding, PartitionReport
from isthmus.storage.local.journal import DIRECTORY as JOURNAL
from isthmus.storage.local.journal import read_headers, to_replay
from isthmus.storage.local.overlay import Overlay
from isthmus.storage.local.replay import Replay, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from isthmus.storage.local.files import Files

SET_ASIDE: Final = "set-aside"  # the directory that repair.py moves things to
TRIES_MAX: Final = 3  # against a server that rewrites the files meanwhile
_PARTITION: Final = re.compile(r"(.+)-(\d+)")
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
        self.points = self._load_offsets(RECOVERY_POINT_FILE)
        self._starts = self._load_offsets(START_OFFSET_FILE)
        self._load_identity()
        self._load_catalog(has_partitions=any(map(_PARTITION.fullmatch, names)))
        self.places = self._find_places(names)
        if not self.is_in_use and not self.is_closed:
            self._replay()
        if not self.is_in_use and not self.is_closed and self.points:
            self._note("unclosed", ".", "was not closed")

    def _replay(self) -> None:
        """Look at the segments as a start would, which puts into them what the journal has."""
        targets = {}
        for place in self.places:
            owner = place.topic_id or self.owner_of(place)[0]
            if owner is not None:
                point = self.points.get((BY_ID + id_text(owner), place.index), 0)
                targets[owner, place.index] = Target(self.path / place.name, point)
        after = Overlay(self._files)
        Replay(after, targets).run(to_replay(read_headers(after, self.path / JOURNAL)))
        self._files = after

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

    def _load_offsets(self, file: str) -> dict[tuple[str, int], int]:
        data = self._files.read_file(self.path / file)
        try:
            return {} if data is None else parse_offsets(data)
        except ValueError as error:
            kind = "checkpoint" if file == RECOVERY_POINT_FILE else "starts"
            self._note(kind, file, f"cannot be read: {error}")
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
        for _ in range(TRIES_MAX - 1):
            audit = self._audit(place, progress)
            if not audit.was_overtaken:
                return audit.report
        return self._audit(place, progress).report

    def _start_of(self, place: Place) -> int:
        """Return the start offset of a partition if it is not that of its oldest segment."""
        topic_id = place.topic_id
        key = place.log_topic if topic_id is None else BY_ID + id_text(topic_id)
        return self._starts.get((key, place.index), 0)

    def _audit(self, place: Place, progress: Callable[[int], object]) -> PartitionAudit:
        point = self.points.get((place.log_topic, place.index), 0)
        audit = PartitionAudit(self._files, self.path, place, progress)
        audit.is_in_use = self.is_in_use
        audit.synced_offset = point
        audit.start_offset = self._start_of(place)
        audit.checked_by_start = None if self.is_closed else point
        audit.run()
        return audit
