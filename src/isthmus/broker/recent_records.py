"""Records read back from the log one by one, for deliveries that had to wait.

Each session that catches up walks a partition on its own, a record or a few at a time. What was
read around the last ones is kept, the last used first, so that a walk costs one read for many
records and walks in different places do not disturb each other. Bounded in number and in bytes.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, Final

from isthmus.errors import CorruptBatch, Refused
from isthmus.record.batch import RecordBatch, split_batches

if TYPE_CHECKING:
    from isthmus.record.batch import Record
    from isthmus.storage.log import Partition

logger = logging.getLogger(__name__)

READ_BYTES: Final = 1 << 16
WINDOWS_MAX: Final = 32
BYTES_MAX: Final = 32 << 20


class Loading(Enum):
    """The one value that stands for a record on its way from the disk."""

    LOADING = 0


LOADING: Final = Loading.LOADING


class Window:
    """Consecutive records of one partition, as they were read at once."""

    __slots__ = ("first", "last", "partition", "records", "size")

    def __init__(self, partition: Partition, records: list[Record], size: int) -> None:
        self.partition = partition
        self.records = records
        self.size = size
        self.first = records[0].offset
        self.last = records[-1].offset


class RecentRecords:
    """The windows of all walks that are under way."""

    def __init__(self) -> None:
        self._windows: list[Window] = []
        self._size = 0

    def at(self, partition: Partition, offset: int) -> Record | Loading | None:
        """Return one record, or None if the log no longer holds it or cannot read it.

        LOADING: `partition.wait(offset, …)` tells when it is there. Raises StorageError if the
        disk cannot be read now.
        """
        window = self._window(partition, offset)
        if window is None or window is LOADING:
            return window
        place = offset - window.first
        if place < len(window.records) and window.records[place].offset == offset:
            return window.records[place]
        # Offsets have gaps only where records were compacted away.
        return next((record for record in window.records if record.offset == offset), None)

    def clear(self) -> None:
        """Forget all, because a log topic was deleted."""
        self._windows.clear()
        self._size = 0

    def _window(self, partition: Partition, offset: int) -> Window | Loading | None:
        windows = self._windows
        for number, window in enumerate(windows):
            if window.partition is partition and window.first <= offset <= window.last:
                if number:
                    windows.insert(0, windows.pop(number))
                return window
        try:
            found = partition.read(offset, READ_BYTES)
        except (Refused, CorruptBatch):  # deleted, or behind the start by now, or damaged
            return None
        if found.is_loading:
            return LOADING
        records = [
            record
            for buffer in found.buffers
            for batch in split_batches(buffer)
            for record in readable_records(batch)
        ]
        if not records:
            return None
        window = Window(partition, records, found.size)
        windows.insert(0, window)
        self._size += window.size
        while len(windows) > WINDOWS_MAX or (self._size > BYTES_MAX and len(windows) > 1):
            self._size -= windows.pop().size
        return window


def readable_records(batch: RecordBatch) -> list[Record]:
    """Return a batch's records; none, and a line in the log, if they cannot be read.

    A Kafka producer may store what it likes behind a valid checksum.
    """
    if batch.is_control:
        return []
    try:
        return batch.records()
    except CorruptBatch as error:
        logger.warning("batch not readable base_offset=%d error=%s", batch.base_offset, error)
        return []
