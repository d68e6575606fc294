"""The file that says from where on each partition must be checked after a crash.

`recovery-point-offset-checkpoint` is Kafka's; a partition stands there by name and by id.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from isthmus.storage.local.checkpoints import (
    BY_ID,
    RECOVERY_POINT_FILE,
    format_partition_offsets,
    id_text,
    parse_offsets,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from isthmus.storage.local.files import Files
    from isthmus.storage.local.partition import LocalPartition

logger = logging.getLogger(__name__)


class RecoveryPoints:
    """The recovery points of all partitions that are open, as the file has them."""

    __slots__ = ("_files", "_found", "_path", "_points")

    def __init__(self, files: Files, directory: Path) -> None:
        self._files = files
        self._path = directory / RECOVERY_POINT_FILE
        self._found: dict[tuple[str, int], int] = {}  # when the log was opened
        self._points: dict[LocalPartition, int] = {}

    def load(self) -> None:
        """Read the file; one that cannot be used says nothing. Raises OSError."""
        data = self._files.read_file(self._path)
        try:
            self._found = {} if data is None else parse_offsets(data)
        except ValueError as error:
            logger.warning("%s is of no use (%s): all is checked", self._path, error)

    def found(self, topic_id: bytes, index: int) -> int:
        """Return what the file said of a partition when it was read, 0 for nothing."""
        return self._found.get((BY_ID + id_text(topic_id), index), 0)

    def add(self, partition: LocalPartition) -> None:
        """A partition is open."""
        self._points[partition] = partition.durable_recovery_point

    def move(self, partition: LocalPartition, offset: int) -> None:
        """The recovery point of a partition, if it is still open, is on the disk."""
        if partition in self._points:
            self._points[partition] = offset

    def forget(self, partition: LocalPartition) -> None:
        """A partition is deleted."""
        self._points.pop(partition, None)

    def copy(self) -> dict[LocalPartition, int]:
        """Return the points of all open partitions."""
        return dict(self._points)

    def write(self, points: Mapping[LocalPartition, int]) -> None:
        """Write the file anew, on any thread but one at a time. Raises OSError.

        After an error it may be the old one or the new one; both tell the truth.
        """
        self._files.replace(self._path, format_partition_offsets(points.items()))
