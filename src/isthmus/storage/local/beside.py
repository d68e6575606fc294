"""What stands beside a segment's batches, held against them while they are walked.

Each check gets the content of one file, is shown every batch in order (`visit`), and says at
the end what is wrong, as a sentence without its subject; an empty one where all is right. What
the log itself has lost is excused: an index that was right when the batch was there stays so.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.errors import CorruptBatch
from isthmus.storage.aborted import ROW_BYTES, AbortedTransaction
from isthmus.storage.local.index import OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES
from isthmus.storage.producers import ProducerTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.local.checkpoints import LeaderEpochs
    from isthmus.storage.local.scan import Damage
    from isthmus.storage.producers import Producer

_OFFSET_ENTRY: Final = struct.Struct(">II")
_TIME_ENTRY: Final = struct.Struct(">qI")
_ABORTED_ROW: Final = struct.Struct(">hqqqq")  # as storage/aborted.py has it
_NEVER: Final = -1  # a timestamp older than all
ODD_EPOCHS_MAX: Final = 1000  # told one by one
EVERY_PRODUCER: Final = 2**31  # a replay forgets none for want of room


def offset_entries(data: bytes, base_offset: int) -> Iterator[tuple[int, int]]:
    """Yield (last offset of a batch, position) of an `.index` file; a part at the end not."""
    whole = data[: len(data) - len(data) % OFFSET_ENTRY_BYTES]
    for offset, position in _OFFSET_ENTRY.iter_unpack(whole):
        yield base_offset + offset, position


def time_entries(data: bytes, base_offset: int) -> Iterator[tuple[int, int]]:
    """Yield (timestamp, offset) of a `.timeindex` file; a part at the end not."""
    whole = data[: len(data) - len(data) % TIME_ENTRY_BYTES]
    for timestamp, offset in _TIME_ENTRY.iter_unpack(whole):
        yield timestamp, base_offset + offset


def aborted_rows(data: bytes) -> Iterator[AbortedTransaction]:
    """Yield the rows of a `.txnindex` file; a part at the end not."""
    for row in _ABORTED_ROW.iter_unpack(data[: len(data) - len(data) % ROW_BYTES]):
        yield AbortedTransaction(*row[1:])


class IndexCheck:
    """Whether each entry of an `.index` points at the batch that ends with its offset."""

    def __init__(self, data: bytes, base_offset: int) -> None:
        entries = list(offset_entries(data, base_offset))
        self._wrong = _unusable(data, OFFSET_ENTRY_BYTES, entries)
        self._entries = {position: offset for offset, position in entries}

    def visit(self, position: int, batch: RecordBatch) -> None:
        """Be shown the next batch."""
        offset = self._entries.pop(position, batch.last_offset)
        if offset != batch.last_offset and not self._wrong:
            self._wrong = (
                f"says that the batch at byte {position} ends with offset {offset}, "
                f"which is {batch.last_offset}"
            )

    def verdict(self, lost: Sequence[Damage]) -> str:
        """Return what is wrong."""
        for position in self._entries:
            if not any(damage.position <= position < damage.end for damage in lost):
                return self._wrong or f"points to byte {position}, where no batch begins"
        return self._wrong


class TimeIndexCheck:
    """Whether each entry of a `.timeindex` has the largest timestamp up to its offset."""

    def __init__(self, data: bytes, base_offset: int) -> None:
        entries = list(time_entries(data, base_offset))
        self._wrong = _unusable(data, TIME_ENTRY_BYTES, entries)
        self._entries = entries
        self._next = 0
        self._newest = _NEVER
        self._later: list[tuple[int, int, int]] = []  # entries above what the log has

    def visit(self, _position: int, batch: RecordBatch) -> None:
        """Be shown the next batch."""
        self._compare(batch.base_offset - 1)
        self._newest = max(self._newest, batch.max_timestamp)
        self._compare(batch.last_offset)

    def _compare(self, offset: int) -> None:
        while self._next < len(self._entries) and self._entries[self._next][1] <= offset:
            timestamp, up_to = self._entries[self._next]
            self._next += 1
            if timestamp < self._newest and not self._wrong:
                self._wrong = (
                    f"says that nothing up to offset {up_to} is newer than {timestamp}, "
                    f"but a record has {self._newest}"
                )
            elif timestamp > self._newest:
                self._later.append((timestamp, up_to, self._newest))

    def verdict(self, lost: Sequence[Damage]) -> str:
        """Return what is wrong."""
        if self._wrong or lost:
            return self._wrong
        if self._next < len(self._entries):
            return f"tells of offset {self._entries[self._next][1]}, which is not here"
        for timestamp, offset, newest in self._later:
            return f"has {timestamp} at offset {offset}, where the newest record has {newest}"
        return ""


def _unusable(data: bytes, entry_bytes: int, entries: list[tuple[int, int]]) -> str:
    """Return why a file cannot be an index at all."""
    if len(data) % entry_bytes:
        return f"has {len(data)} bytes, which is no multiple of {entry_bytes}"
    for before, after in pairwise(entries):
        if after[0] <= before[0] or after[1] <= before[1]:
            return f"does not ascend from {before} to {after}"
    return ""


class OddEpoch(NamedTuple):
    """A batch whose leader epoch is not what the checkpoint says for its offset."""

    number: int  # of the batch, in the order of the log
    file: str
    position: int
    offset: int
    epoch: int
    known: int  # what the checkpoint says


class EpochCheck:
    """Whether batches and the checkpoint of leader epochs agree, and which of them is right.

    The epoch of a batch lies outside its checksum. Epochs only grow: a batch that is above the
    next one or below the one before is wrong itself; else the checkpoint is.
    """

    def __init__(self, epochs: LeaderEpochs) -> None:
        self._epochs = epochs
        self._count = 0
        self._before = -1  # the epoch of the batch before
        self._odd: list[OddEpoch] = []  # the checkpoint is wrong
        self._wrong: list[OddEpoch] = []  # these batches are

    def visit(self, file: str, position: int, batch: RecordBatch) -> None:
        """Be shown the next batch."""
        self._count += 1
        known, epoch = self._epochs.at(batch.base_offset), batch.leader_epoch
        last = self._odd[-1] if self._odd else None
        if last is not None and last.number == self._count - 1 and last.epoch > epoch:
            self._wrong.append(self._odd.pop())
        if epoch != known and len(self._odd) < ODD_EPOCHS_MAX:
            odd = OddEpoch(self._count, file, position, batch.base_offset, epoch, known)
            (self._odd if epoch >= self._before else self._wrong).append(odd)
        else:
            self._before = epoch

    def verdict(self) -> tuple[OddEpoch | None, list[OddEpoch]]:
        """Return the first that shows a wrong checkpoint, or the batches that are wrong."""
        return (self._odd[0], []) if self._odd else (None, self._wrong)


class ProducerCheck:
    """Whether snapshots and `.txnindex` files say what a replay of the producers says.

    Compared is what decides about the next batch of a producer: its epoch, last sequence
    number and open transaction. A producer known to one side only is excused: its batches may
    be gone with old segments, or it was idle for so long that it was forgotten.
    """

    def __init__(self, snapshots: Sequence[tuple[int, bytes]]) -> None:
        self._snapshots = list(snapshots)  # (offset, content), ascending
        self._replayed = ProducerTable(EVERY_PRODUCER)
        self._is_known = True  # what came before is known without a gap
        self._aborted: list[AbortedTransaction] = []  # in this segment
        self.wrong: list[tuple[int, str]] = []  # (offset of the snapshot, what)

    def visit(self, batch: RecordBatch) -> None:
        """Be shown the next batch."""
        self._compare(batch.base_offset)
        self._replayed.replay(batch)
        self._aborted += self._replayed.aborted
        self._replayed.settle()

    def lose(self, offset: int) -> None:
        """Batches are lost from this offset on."""
        self._compare(offset)
        self._is_known = False

    def judge_aborted(self, data: bytes | None) -> str:
        """Return what is wrong with the content of a segment's `.txnindex`; the segment ends.

        Rows that the replay does not know are excused: their transactions may have begun in
        what was deleted, lost or compacted since.
        """
        replayed, self._aborted = self._aborted, []
        if data is not None and len(data) % ROW_BYTES:
            return f"has {len(data)} bytes, which is no multiple of {ROW_BYTES}"
        kept = {
            (row.producer_id, row.first_offset, row.last_offset)
            for row in aborted_rows(data or b"")
        }
        for row in replayed:
            if (row.producer_id, row.first_offset, row.last_offset) not in kept:
                return (
                    f"lacks the transaction of producer {row.producer_id} from offset "
                    f"{row.first_offset} to {row.last_offset}, which was aborted"
                )
        return ""

    def finish(self, end_offset: int) -> None:
        """The log ends here."""
        self._compare(end_offset)
        for offset, _ in self._snapshots:
            self.wrong.append((offset, f"tells of a log that ends with {end_offset - 1}"))

    def _compare(self, offset: int) -> None:
        while self._snapshots and self._snapshots[0][0] <= offset:
            place, data = self._snapshots.pop(0)
            kept = ProducerTable(EVERY_PRODUCER)
            try:
                kept.restore(data)
            except CorruptBatch as error:
                self.wrong.append((place, f"cannot be read: {error}"))
                continue
            if self._is_known:
                self._compare_tables(place, kept)

    def _compare_tables(self, offset: int, kept: ProducerTable) -> None:
        for producer_id, replayed in self._replayed:
            known = kept.get(producer_id)
            if known is not None and _essence(known) != _essence(replayed):
                self.wrong.append(
                    (
                        offset,
                        f"has producer {producer_id} with epoch, sequence and transaction "
                        f"{_essence(known)}, the log says {_essence(replayed)}",
                    )
                )
                return


def _essence(producer: Producer) -> tuple[int, int, int]:
    return producer.epoch, producer.last_sequence, producer.transaction_start
