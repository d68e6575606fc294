"""Puts what the journal holds into its places, after an end that was not clean.

A copy is written to its segment where the segment lacks it; a segment that a power cut took
whole, name and all, is made anew. So replaying twice is as good as once. Left out is

- what belongs to a log topic that is not in the catalog any more;
- what ends at or before the recovery point of its partition: it is on the disk for sure, and
  the segment may since have been compacted or deleted, which wait for that recovery point.

A round that is not whole, with nothing after it, was under way when the end came, and nobody
was told about it. Where rounds come after it, or numbers are missing, the journal itself is
damaged. That is reported, and what can be read is used all the same: which records are lost is
found when the segments are checked (recovery.py), and a damaged copy never costs another one.

Whoever calls this checks and syncs the segments afterwards, then makes the journal void.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.storage.local.journal_format import parse_rounds
from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from isthmus.storage.local.files import Files
    from isthmus.storage.local.journal_format import Entry, FileHeader, Round

OPEN_MAX: Final = 256  # segments open at a time

logger = logging.getLogger(__name__)


class Target(NamedTuple):
    """A partition that copies may belong to."""

    directory: Path
    recovery_point: int


class Replay:
    """One pass over the journal; holds one file of it in memory at a time."""

    __slots__ = ("_broken", "_files", "_number", "_open", "_targets")

    def __init__(self, files: Files, targets: Mapping[tuple[bytes, int], Target]) -> None:
        self._files = files
        self._targets = targets
        self._open: dict[Path, int] = {}
        self._number: int | None = None  # of the newest round so far
        self._broken = ""  # where a round is not whole, until we know whether it is the last

    def run(self, journal: Sequence[tuple[Path, FileHeader]]) -> None:
        """Replay the files, given with the oldest first. Raises OSError."""
        try:
            for path, header in journal:
                data = self._files.read_file(path)
                for found in parse_rounds(memoryview(data or b""), header.seed):
                    self._follow(path, found)
                    self._apply(path, found)
        finally:
            for descriptor in self._open.values():
                self._files.close(descriptor)
            self._open.clear()
        if self._broken:
            logger.info("%s is not whole: it was under way at the end", self._broken)

    def _follow(self, path: Path, found: Round) -> None:
        """Report what is missing before a round."""
        if self._broken and found.number != self._number:
            logger.error("%s is damaged, and newer rounds follow it", self._broken)
        self._broken = ""
        # Equal where a round could not be written and the next one took its number.
        if self._number is not None and not 0 <= found.number - self._number <= 1:
            logger.error(
                "the journal lacks rounds %d to %d: %s begins after them",
                self._number + 1,
                found.number - 1,
                path,
            )
        self._number = found.number

    def _apply(self, path: Path, found: Round) -> None:
        for entry, payload in found.entries:
            target = self._targets.get((entry.topic_id, entry.partition))
            if target is None or entry.end_offset <= target.recovery_point:
                continue
            if crc32c(payload) != entry.crc:
                self._broken = f"round {found.number} at byte {found.position} of {path}"
                continue
            self._put(target.directory / f"{entry.base_offset:020d}.log", entry, payload)

    def _put(self, path: Path, entry: Entry, payload: memoryview) -> None:
        descriptor = self._descriptor(path)
        if self._files.pread(descriptor, entry.size, entry.position) != payload:
            self._files.write(descriptor, [payload], entry.position)

    def _descriptor(self, path: Path) -> int:
        descriptor = self._open.pop(path, -1)
        if descriptor < 0:
            if len(self._open) >= OPEN_MAX:
                self._files.close(self._open.pop(next(iter(self._open))))
            descriptor = self._files.open(path, create=True)
        self._open[path] = descriptor
        return descriptor
