"""Records read back from the log one by one, for deliveries that had to wait.

Each session that catches up walks a partition on its own, a record or a few at a time. What was
read around the last ones is kept, the last used first, so that a walk costs one read for many
records and walks in different places do not disturb each other. Bounded in number and in bytes.
A record is decoded when it is asked for, because a walk may want one in a hundred. When what is
read, and for whom, is next door (catching_up.py).
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from enum import Enum
from typing import TYPE_CHECKING, Final

from isthmus.errors import CorruptBatch, Refused
from isthmus.record.batch import RecordBatch, RecordReader, split_batches

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
    """Consecutive batches of one partition, as they were read at once."""

    __slots__ = (
        "_asked",
        "_batch",
        "_batches",
        "_reader",
        "first",
        "last",
        "partition",
        "size",
    )

    def __init__(self, partition: Partition, batches: list[RecordBatch], size: int) -> None:
        self.partition = partition
        self.size = size
        self.first = batches[0].base_offset
        self.last = batches[-1].last_offset
        self._batches = batches
        self._batch: RecordBatch | None = None  # that the reader stands in
        self._reader = RecordReader(batches[0])
        self._asked = -1  # the offset that was asked for last

    def holds(self, offset: int) -> bool:
        """Whether a record with this offset would be here."""
        return self.first <= offset <= self.last

    def at(self, offset: int) -> Record | None:
        """Return one record, None where there is none: compacted away, or not readable.

        Offsets that grow cost one step over each record; before the last one, it begins anew.
        """
        place = bisect_right(self._batches, offset, key=_base_offset_of) - 1
        if place < 0:
            return None
        batch = self._batches[place]
        if batch.is_control or offset > batch.last_offset:
            return None
        try:
            if batch is not self._batch or offset < self._asked:
                self._batch, self._reader = batch, RecordReader(batch)
                self._asked = -1
            if (self._asked < 0 or self._reader.offset < offset) and not (
                self._reader.advance_to(offset)
            ):
                self._batch = None
                return None
            self._asked = offset
            return self._reader.record() if self._reader.offset == offset else None
        except CorruptBatch as error:
            self._batch = None
            warn_unreadable(batch, error)
            return None


def _base_offset_of(batch: RecordBatch) -> int:
    return batch.base_offset


class RecentRecords:
    """The windows of all walks that are under way."""

    def __init__(self) -> None:
        self._windows: list[Window] = []
        self._size = 0

    def find(self, partition: Partition, offset: int) -> Window | None:
        """Return the window that holds an offset, None where none does."""
        windows = self._windows
        for number, window in enumerate(windows):
            if window.first <= offset <= window.last and window.partition is partition:
                if number:
                    windows.insert(0, windows.pop(number))
                return window
        return None

    def read(self, partition: Partition, offset: int) -> Window | Loading | None:
        """Return a window that begins at an offset, or near where there is a gap.

        None: the log no longer holds anything from there on, or cannot read it. LOADING:
        `partition.wait(offset, …)` tells when it is there. Raises StorageError if the disk
        cannot be read now.
        """
        window = self.find(partition, offset)
        if window is not None:
            return window
        try:
            found = partition.read(offset, READ_BYTES)
        except (Refused, CorruptBatch):  # deleted, or behind the start by now, or damaged
            return None
        if found.is_loading:
            return LOADING
        batches = [batch for buffer in found.buffers for batch in split_batches(buffer)]
        if not batches:
            return None
        window = Window(partition, batches, found.size)
        windows = self._windows
        windows.insert(0, window)
        self._size += window.size
        while len(windows) > WINDOWS_MAX or (self._size > BYTES_MAX and len(windows) > 1):
            self._size -= windows.pop().size
        return window

    def at(self, partition: Partition, offset: int) -> Record | Loading | None:
        """Return one record, or None if the log no longer holds it or cannot read it.

        LOADING and StorageError as with `read`.
        """
        window = self.read(partition, offset)
        return window if window is None or window is LOADING else window.at(offset)

    def clear(self) -> None:
        """Forget all, because a log topic was deleted."""
        self._windows.clear()
        self._size = 0


def readable_records(batch: RecordBatch) -> list[Record]:
    """Return a batch's records; none, and a line in the log, if they cannot be read.

    A Kafka producer may store what it likes behind a valid checksum.
    """
    if batch.is_control:
        return []
    try:
        return batch.records()
    except CorruptBatch as error:
        warn_unreadable(batch, error)
        return []


def warn_unreadable(batch: RecordBatch, error: CorruptBatch) -> None:
    """Say that a batch, or the rest of it, is left out."""
    logger.warning("batch not readable base_offset=%d error=%s", batch.base_offset, error)
