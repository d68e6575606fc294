"""Finds the aborted transactions of a segment again, where its `.txnindex` is lost or wrong.

The file is a hint like the other indexes, but it takes more than the segment to make it again:
a marker does not say where its transaction began. So the batch headers are walked from the
newest snapshot of the producers that is old enough, or else from the beginning.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from isthmus.errors import CorruptBatch
from isthmus.storage.aborted import AbortedIndex
from isthmus.storage.producers import ProducerTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.segments import SegmentList

_SNAPSHOT: Final = re.compile(r"(\d{20})\.snapshot")

logger = logging.getLogger(__name__)


def snapshot_path(directory: Path, offset: int) -> Path:
    """Return where the state of the producers before `offset` lies."""
    return directory / f"{offset:020d}.snapshot"


def snapshots_among(names: Sequence[str]) -> list[int]:
    """Return the offsets of the snapshots among the names in a directory, ascending."""
    matches = map(_SNAPSHOT.fullmatch, names)
    return sorted(int(match[1]) for match in matches if match is not None)


def restore_newest(
    producers: ProducerTable, files: Files, directory: Path, offsets: Sequence[int]
) -> int | None:
    """Restore the last of these snapshots that can be read; return its offset, if there is one.

    Raises OSError. Where there is none, the table is empty.
    """
    for offset in reversed(offsets):
        path = snapshot_path(directory, offset)
        data = files.read_file(path)
        try:
            if data is not None:
                producers.restore(data)
                return offset
        except CorruptBatch as error:
            logger.warning("%s is of no use: %s", path, error)
    producers.clear()
    return None


class AbortedBuilder:
    """Learns from the batches before and in a segment which transactions were aborted there."""

    def __init__(self, base_offset: int) -> None:
        self.index = AbortedIndex()
        self._base_offset = base_offset
        self._producers = ProducerTable()

    def begin(self, files: Files, directory: Path, first_offset: int) -> int:
        """Return from where on the batches are needed. Raises OSError."""
        found = snapshots_among(files.names(directory))
        usable = [offset for offset in found if first_offset <= offset <= self._base_offset]
        begin = restore_newest(self._producers, files, directory, usable)
        return first_offset if begin is None else begin

    def visit(self, batch: RecordBatch) -> None:
        """Take the next batch."""
        self._producers.replay(batch)
        for aborted in self._producers.aborted:
            if aborted.last_offset >= self._base_offset:
                self.index.append(aborted)
        self._producers.settle()


def rebuild_aborted(segments: SegmentList, files: Files, base: int, end: int) -> AbortedIndex:
    """Return what was aborted by markers from `base` to before `end`. Raises OSError."""
    builder = AbortedBuilder(base)
    begin = builder.begin(files, segments.directory, segments.first_offset)
    segments.walk(begin, end, builder.visit)
    return builder.index
