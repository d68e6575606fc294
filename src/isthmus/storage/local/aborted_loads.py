"""Which transactions were aborted, for readers of what is decided, without waiting for a disk.

Mostly memory has the transaction indexes of the segments that a reader is in. Those that it
lacks are loaded by another thread, one after the other, and one that is lost or wrong is built
again there, which may take a walk over many segments. The reader is told to come back. What was
found is kept for him, and until he has had it he gets no records behind those that it is about:
so he comes to his end, however little stays in memory.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from isthmus.errors import LogClosed
from isthmus.storage.local.aborted import AbortedBuilder
from isthmus.storage.local.loaded import Loading, Loads
from isthmus.storage.local.lookup import Lookup
from isthmus.storage.local.reading import walk_segments

if TYPE_CHECKING:
    from collections.abc import Generator

    from isthmus.errors import IsthmusError
    from isthmus.storage.aborted import AbortedIndex
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.lookup import Step
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.segments import SegmentList

Found: TypeAlias = "list[tuple[int, int]]"  # producer id and first offset of each transaction

PAIR_BYTES: Final = 128  # that one transaction takes of an answer

logger = logging.getLogger(__name__)


class AbortedLoad(Loading):
    """What was aborted of the records from `offset` to before `end`, or the way to know it."""

    __slots__ = ("end", "found")

    def __init__(self, loads: AbortedLoads, offset: int, end: int) -> None:
        super().__init__(loads, offset)
        self.end = end
        self.found: Found = []

    @property
    def size(self) -> int:
        return super().size + PAIR_BYTES * len(self.found)

    def found_before(self, end: int) -> Found:
        """Return what was found of the records before `end`."""
        return [pair for pair in self.found if pair[1] < end]


class AbortedLoads(Loads[AbortedLoad]):
    """The lookups of one partition."""

    __slots__ = ()

    def begin(self, offset: int, end: int) -> None:
        """Begin to look for what was aborted of the records from `offset` to before `end`."""
        load = self._loads[offset] = AbortedLoad(self, offset, end)
        lookup = AbortedLookup(
            self._runtime,
            self._segments,
            lambda: None if self._loads.get(offset) is load else LogClosed("closed meanwhile"),
            lambda found, error: self._ended(load, found, error),
        )
        lookup.find(self._files, offset, end)

    def _ended(
        self, load: AbortedLoad, found: Found | None, error: IsthmusError | None
    ) -> None:
        if self._loads.get(load.offset) is load:  # else closed meanwhile
            load.found, load.error = found or [], error
            self._keep(load)
            load.waiters.wake_all()


class AbortedLookup(Lookup):
    """One question for what was aborted on its way to its answer."""

    __slots__ = ()

    def find(self, files: Files, offset: int, end: int) -> None:
        """Look for the transactions that have records from `offset` to before `end`."""
        self._begin(self._find(files, offset, end))

    def _find(self, files: Files, offset: int, end: int) -> Generator[Step, Any, Found]:
        found: Found = []
        segment = self._segments.at(offset)
        while segment is not None:
            index = segment.known_aborted
            if segment.has_aborts and index is None:
                index = yield from load_aborted(files, self._segments, segment)
                if index is None:  # deleted or replaced meanwhile
                    found.clear()
                    segment = self._segments.at(offset)
                    continue
            if segment.has_aborts and index is not None and index.collect(offset, end, found):
                break
            segment = self._segments.after(segment)
        return found


def load_aborted(
    files: Files, segments: SegmentList, segment: Segment
) -> Generator[Step, Any, AbortedIndex | None]:
    """Return the index of a segment, as it is in its file or built again, by steps.

    None where the segment was deleted or replaced meanwhile.
    """
    result = yield [segment], lambda twins: [twins[0].aborted()]
    if result is None:
        return None
    loaded: AbortedIndex | None = result[0]
    if loaded is not None:
        return loaded
    logger.warning("%s is wrong and is built again", segment.index_paths[2])
    base, end = segment.base_offset, segment.next_offset
    directory, first = segments.directory, segments.first_offset
    builder = AbortedBuilder(base)
    begin = yield [segment], lambda _: builder.begin(files, directory, first)
    if begin is None:
        return None
    group = [each for each in segments.since(begin) if each.base_offset <= base]
    if (yield group, lambda twins: _walk(twins, begin, end, builder)) is None:
        return None
    segment.take_aborted(builder.index)
    return builder.index


def _walk(twins: list[Segment], begin: int, end: int, builder: AbortedBuilder) -> bool:
    walk_segments(twins, begin, end, builder.visit)
    return True
