"""Takes away what left the log: segments behind the start, deleted log topics.

A segment goes when all of it lies before its partition's start offset, which is on the disk by
then (start_offsets.py), and when a restart after a crash would not ask for it: it is sealed and
the recovery point on the disk has passed it. Its files get the suffix `.deleted`, the `.log`
last, so that a crash in between leaves a segment that still counts as one and goes the next
time. After `file.delete.delay.ms` they are removed. Readers that have the file open read on.

What a crash leaves behind (`.deleted` files, directories that end in `-delete`) is found when
the log is opened and goes the same way.
"""

from __future__ import annotations

import heapq
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.housekeeping import Housekeeping, Steps
    from isthmus.storage.local.partition import LocalPartition

CHECKPOINT_WAIT_MS: Final = 1000  # before it is looked again whether a checkpoint has come

logger = logging.getLogger(__name__)


class Removals:
    """What is to be removed, and when."""

    __slots__ = ("_files", "_files_due", "_job", "_partitions", "_runtime", "_trees")

    def __init__(self, runtime: Runtime, files: Files, housekeeping: Housekeeping) -> None:
        self._files = files
        self._files_due: list[tuple[int, Path]] = []  # a heap, by monotonic time
        self._job = housekeeping.add("the removal of files", self._run, None)
        self._partitions: dict[LocalPartition, None] = {}  # may have segments to take out
        self._runtime = runtime
        self._trees: list[tuple[list[Path], Callable[[], object]]] = []

    def take_out(self, partition: LocalPartition) -> None:
        """Take out the segments that lie before a partition's start, as soon as may be."""
        if _has_expired_segment(partition) or partition.start_offset == partition.end_offset:
            self._partitions[partition] = None
            self._job.wake()

    def remove_files(self, paths: Iterable[Path], delay_ms: int) -> None:
        """Remove files that belong to nobody any more, in `delay_ms`."""
        due_ms = self._runtime.monotonic_ms() + delay_ms
        for path in paths:
            heapq.heappush(self._files_due, (due_ms, path))
        self._job.wake(delay_ms)

    def remove_directories(self, paths: list[Path], done: Callable[[], object]) -> None:
        """Remove directories with all that is in them; `done` is called when they are gone.

        If they cannot be removed, it is not: they go at the next start.
        """
        self._trees.append((paths, done))
        self._job.wake()

    # --- the job ------------------------------------------------------------------------------

    def _run(self) -> Steps:
        partitions, self._partitions = self._partitions, {}
        for partition in partitions:
            try:
                yield from self._take_out(partition)
            except OSError as error:
                logger.warning("%s keeps a segment for now: %s", partition.directory, error)
                self._wait_for(partition)
        while self._trees:
            yield from self._remove_directories(*self._trees.pop())
        now_ms = self._runtime.monotonic_ms()
        while self._files_due and self._files_due[0][0] <= now_ms:
            _, path = heapq.heappop(self._files_due)
            try:
                yield partial(self._files.remove, path)
            except OSError as error:
                logger.warning("%s stays until the next start: %s", path, error)
        if self._files_due:
            self._job.wake(self._files_due[0][0] - now_ms)

    def _take_out(self, partition: LocalPartition) -> Steps:
        if partition.start_offset == partition.end_offset and partition.roll():
            # The empty successor must be there for sure before the last one with records goes.
            yield partial(self._files.sync_directory, partition.directory)
        segments = partition.segments
        while _has_expired_segment(partition):
            oldest_end = segments.oldest_end
            assert oldest_end is not None
            is_needed = oldest_end > partition.unneeded_before
            if is_needed:
                partition.ask_checkpoint()
            if is_needed or segments.is_swapping:
                self._wait_for(partition)
                return
            paths = segments.take_out_oldest()
            self.remove_files(paths, partition.config.file_delete_delay_ms)
            yield None

    def _wait_for(self, partition: LocalPartition) -> None:
        self._partitions[partition] = None
        self._job.wake(CHECKPOINT_WAIT_MS)

    def _remove_directories(self, paths: list[Path], done: Callable[[], object]) -> Steps:
        for directory in paths:
            try:
                for name in (yield partial(self._files.names, directory)):
                    yield partial(self._files.remove, directory / name)
                yield partial(self._files.remove_directory, directory)
            except FileNotFoundError:
                continue  # it never was, or went before
            except OSError as error:
                logger.warning(
                    "what is left of %s goes at the next start: %s", directory, error
                )
                return
        done()


def _has_expired_segment(partition: LocalPartition) -> bool:
    """Whether all of the oldest segment lies before the start."""
    oldest_end = partition.segments.oldest_end
    return (
        oldest_end is not None
        and oldest_end <= partition.start_offset
        and partition.closed is None
    )
