"""Reads one partition: from the tail in memory where it can, from the files where it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import CorruptBatch, OffsetOutOfRange
from isthmus.storage.local.files import storage_error
from isthmus.storage.log import Records

if TYPE_CHECKING:
    from isthmus.storage.local.segments import SegmentList
    from isthmus.storage.local.tail import Tail


class PartitionReader:
    """The reading side of a partition."""

    __slots__ = ("_segments", "_tail")

    def __init__(self, segments: SegmentList, tail: Tail) -> None:
        self._segments = segments
        self._tail = tail

    def read(self, offset: int, bytes_max: int, start: int, end: int, limit: int) -> Records:
        """Return whole batches from the one that holds `offset` to before `limit`.

        Raises OffsetOutOfRange for an offset not from `start` to `end`, CorruptBatch,
        StorageError.
        """
        if not start <= offset <= end:
            raise OffsetOutOfRange(f"offset {offset} is not from {start} to {end}")
        if offset >= limit:
            return Records()
        buffers = self._tail.read(offset, bytes_max, limit)
        if buffers is None:
            try:
                buffers = self._segments.read(offset, bytes_max, limit)
            except OSError as error:
                raise storage_error(error, f"{self._where} was not read") from error
            if not buffers:
                raise CorruptBatch(
                    f"{self._where}: nothing is readable from {offset} to {limit}"
                )
        return Records(buffers)

    def aborted(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Return the aborted transactions that have records from `offset` to before `end`."""
        try:
            return self._segments.aborted(offset, end)
        except OSError as error:
            raise storage_error(error, f"{self._where} was not read") from error

    def offset_for_time(self, timestamp_ms: int, start: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record at or after `timestamp_ms`."""
        try:
            return self._segments.offset_for_time(timestamp_ms, start)
        except OSError as error:
            raise storage_error(error, f"{self._where} was not read") from error

    def offset_for_max_time(self, start: int) -> tuple[int, int] | None:
        """Return (offset, timestamp) of the first record with the largest timestamp."""
        try:
            return self._segments.offset_for_max_time(start)
        except OSError as error:
            raise storage_error(error, f"{self._where} was not read") from error

    @property
    def _where(self) -> str:
        return str(self._segments.directory)
