"""Sweeps: what rounds of syncing leave behind, brought to its place in the background.

A round makes records durable and nothing else. What is left then: segments whose bytes are on
the disk only as copies in the journal, or not at all because nobody waited; indexes, snapshots
of producers, names. A sweep takes some partitions, syncs their segments, and moves their
recovery points where that is due, so that a restart after a crash has little to check whatever
the number of partitions. It is due

- when `checkpoint_bytes` were written that no recovery point covers, all partitions together:
  for those with most of them;
- `checkpoint_ms` after the first of them: for all;
- when a segment is sealed: for its partition;

and without moving recovery points, which costs several syncs more,

- when a file of the journal is full: for the partitions that have records in it;
- when too many files are open because they are not synced: for those that wait longest.

A sweep runs on another thread, beside the rounds. It opens every segment anew: the kernel tells
each open descriptor once of a failed write-back, so neither the round nor the sweep takes the
bad news from the other. A failure means what it means in a round (sync.py).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from isthmus.storage.local.files import lacks_room
from isthmus.storage.local.once import Once
from isthmus.storage.local.sync import sync_directories

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from threading import Event

    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.journal import Journal
    from isthmus.storage.local.open_segments import OpenSegments
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.recovery_points import RecoveryPoints
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.settings import LocalSettings
    from isthmus.storage.local.sync import OnFailure

PARTITIONS_PER_SWEEP: Final = 32  # so that beginning one is short on the loop

logger = logging.getLogger(__name__)


class SweepWork:
    """What one partition has to be swept; all before `end_offset` is in its place after it.

    `hints` are files that a restart would like to find and can do without (indexes, producer
    snapshots): if one cannot be written, only the recovery point stays where it is.
    """

    __slots__ = (
        "bytes_since",
        "directories",
        "end_offset",
        "hint_error",
        "hints",
        "indexes",
        "names_version",
        "partition",
        "recovery_point",
        "replacement",
        "segments",
    )

    def __init__(self, partition: LocalPartition) -> None:
        self.partition = partition
        self.end_offset = partition.end_offset
        self.segments = [(each, each.size) for each in partition.segments.dirty]
        self.directories: Sequence[Path] = ()
        self.names_version = 0
        self.indexes: list[tuple[Segment, Path]] = []  # whose files are among the hints
        self.hints: list[tuple[Path, bytes | None]] = []  # None: sync what is there
        self.replacement: tuple[Path, bytes] | None = None  # a hint that keeps its name
        self.hint_error: OSError | None = None
        self.recovery_point = -1  # where it is moved to, if it is
        self.bytes_since = 0  # written between the old one and the new one

    def run(self, files: Files) -> None:
        """Do all but the directories, on any thread. Raises OSError."""
        for segment, _ in self.segments:
            with suppress(FileNotFoundError):  # its log topic was deleted meanwhile
                files.sync_file(segment.path, None)
        try:
            for path, data in self.hints:
                files.sync_file(path, data)
            if self.replacement is not None:
                files.exchange(*self.replacement)
        except OSError as error:
            self.hint_error = error


class Sweep(Once):
    """One sweep; `error` tells how it ended."""

    __slots__ = (
        "_doubt",
        "_files",
        "_moved",
        "_points",
        "error",
        "lacks_room",
        "number",
        "works",
    )

    def __init__(
        self,
        files: Files,
        doubt: Event,
        points: RecoveryPoints,
        works: Sequence[SweepWork],
        number: int,
    ) -> None:
        super().__init__()
        self.works = works
        self.number = number
        self.error: OSError | None = None
        self.lacks_room = False  # writing again would help
        self._doubt = doubt
        self._files = files
        self._points = points
        moves = any(work.recovery_point >= 0 for work in works)
        self._moved = points.copy() if moves else {}

    def _do(self) -> None:
        try:
            self._sync()
        except OSError as error:
            self._doubt.set()
            self.error = error
            self.lacks_room = lacks_room(error)
            return
        try:
            sync_directories(
                self._files, [path for work in self.works for path in work.directories]
            )
        except OSError as error:
            self._doubt.set()
            self.error = error
            return
        if not self._doubt.is_set():
            self._move_points()

    def _sync(self) -> None:
        for work in self.works:
            work.run(self._files)

    def _move_points(self) -> None:
        moving = [
            work for work in self.works if work.recovery_point >= 0 and work.hint_error is None
        ]
        self._moved.update({work.partition: work.recovery_point for work in moving})
        try:
            if moving:
                self._points.write(self._moved)
        except OSError as error:
            for work in moving:
                work.hint_error = error


class Sweeper:
    """Runs the sweeps of one log, one at a time."""

    __slots__ = (
        "_asked",
        "_behind",
        "_cancel",
        "_doubt",
        "_files",
        "_holding_off",
        "_journal",
        "_number",
        "_on_failure",
        "_open_segments",
        "_points",
        "_runtime",
        "_settings",
        "_stopped",
        "_sweep",
        "unchecked_bytes",
    )

    def __init__(
        self,
        runtime: Runtime,
        files: Files,
        settings: LocalSettings,
        journal: Journal,
        points: RecoveryPoints,
        open_segments: OpenSegments,
        doubt: Event,
        on_failure: OnFailure,
    ) -> None:
        self._doubt = doubt  # see `Syncer`
        self.unchecked_bytes = 0  # that no recovery point covers, of all partitions
        self._runtime = runtime
        self._files = files
        self._settings = settings
        self._journal = journal
        self._points = points
        self._open_segments = open_segments
        self._on_failure = on_failure
        self._behind: dict[LocalPartition, None] = {}  # have such bytes, the oldest first
        self._asked: dict[LocalPartition, bool] = {}  # True: the recovery point is to move
        self._sweep: Sweep | None = None
        self._number = 0
        self._cancel: Callable[[], None] | None = None  # the timer
        self._holding_off = False  # a recovery point could not be moved: wait for the timer
        self._stopped = False

    def wrote(self, partition: LocalPartition, size: int) -> None:
        """Note that a partition has `size` bytes more that its recovery point does not cover.

        Also for what was found like that when the log was opened.
        """
        self.unchecked_bytes += size
        self._behind[partition] = None
        self._arm()
        if self._asked:
            return
        if self.unchecked_bytes > self._settings.checkpoint_bytes and not self._holding_off:
            self._ask_largest()
        elif self._open_segments.crowded:
            unswept = [each for each in self._behind if each.is_unswept]
            for other in unswept[: len(unswept) // 2 + 1]:
                self.ask(other, move=False)

    def ask(self, partition: LocalPartition, *, move: bool) -> None:
        """Take part in a sweep soon; see `start`."""
        self._asked[partition] = move or self._asked.get(partition, False)

    def forget(self, partition: LocalPartition) -> None:
        """A partition is closed; what is under way with it comes to nothing."""
        self._asked.pop(partition, None)
        self._journal.forget(partition)
        if partition in self._behind:
            del self._behind[partition]
            self.unchecked_bytes -= partition.unchecked_bytes

    @property
    def is_busy(self) -> bool:
        """Whether a sweep is under way."""
        return self._sweep is not None

    def next_number(self) -> int:
        """Return the number of a sweep that begins now."""
        self._number += 1
        return self._number

    def start(self) -> None:
        """Begin a sweep if one is wanted and none is under way."""
        for partition in self._journal.take_unswept(self._number + 1):
            self.ask(partition, move=False)
        may_begin = not self._stopped and not self._doubt.is_set()
        if self._asked and self._sweep is None and may_begin:
            self._sweep = current = self._begin()
            if current is not None:
                self._runtime.offload(current.run, self._ended)

    def finish(self) -> None:
        """Sweep all that asked here and now, and then no more; for the close."""
        if self._stopped and self._sweep is not None:
            self._sweep.call_off()
        while not self._stopped and (self._sweep is not None or self._asked):
            current, self._sweep = self._sweep or self._begin(), None
            assert current is not None, "nothing is queued any more"
            current.run()
            self._deliver(current)
        self.stop()

    def stop(self) -> None:
        """Begin no more sweeps."""
        self._stopped = True
        self._asked.clear()
        if self._cancel is not None:
            self._cancel()

    def _arm(self) -> None:
        if self._cancel is None and self._behind and not self._stopped:
            self._cancel = self._runtime.later(self._settings.checkpoint_ms, self._ask_all)

    def _ask_all(self) -> None:
        self._cancel = None
        self._holding_off = False
        for partition in self._behind:
            self.ask(partition, move=True)
        self.start()

    def _ask_largest(self) -> None:
        """Ask for the partitions with most unchecked bytes, up to half of all these bytes."""
        left = self.unchecked_bytes
        for partition in sorted(
            self._behind, key=lambda each: each.unchecked_bytes, reverse=True
        ):
            self.ask(partition, move=True)
            left -= partition.unchecked_bytes
            if left <= self._settings.checkpoint_bytes // 2:
                break

    def _begin(self) -> Sweep | None:
        """Begin with those that asked first; None where all of them have to wait."""
        works = []
        for partition, move in list(self._asked.items()):
            if move and partition.has_queued:
                continue  # the producers know of what is not written
            del self._asked[partition]
            works.append(work := partition.begin_sweep(move=move))
            self.unchecked_bytes -= work.bytes_since
            if len(works) == PARTITIONS_PER_SWEEP:
                break
        if not works:
            return None
        return Sweep(self._files, self._doubt, self._points, works, self.next_number())

    def _ended(self, _result: None, error: BaseException | None) -> None:
        if error is not None:
            raise error  # ours: a sweep turns what the disk says into `Sweep.error`
        current, self._sweep = self._sweep, None
        if current is None:
            return  # finished by the close
        self._deliver(current)
        self._arm()
        self.start()

    def _deliver(self, current: Sweep) -> None:
        if current.error is not None and not current.lacks_room:
            self._on_failure(current.error, lacks_room=False)
            return
        is_good = not self._doubt.is_set()
        for work in current.works:
            partition = work.partition
            if is_good:
                partition.end_sweep(work)
                self._journal.swept(partition, current.number)
            else:
                partition.undo_sweep(work)
            if work.hint_error is not None or not is_good:
                self._holding_off = True
            elif work.recovery_point >= 0:
                self._points.move(partition, work.recovery_point)
            if partition in self._behind:  # it is not, where it was closed meanwhile
                if work.hint_error is not None or not is_good:
                    self.unchecked_bytes += work.bytes_since
                if partition.unchecked_bytes == 0:
                    del self._behind[partition]
        if current.error is not None:
            self._on_failure(current.error, lacks_room=True)
