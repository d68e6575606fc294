"""Finds an offset by time, without making the loop wait for the disk.

The first record at or after a time lies in the first segment whose newest timestamp is not
before it. Segments remember their newest timestamp, so to choose one costs nothing but the
first time after a start, when it is read from the ends of the indexes, many segments at once.
In that one segment the time index leads to the batches, and the walk over their records makes
the answer exact.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from isthmus.storage.local.lookup import Lookup
from isthmus.storage.local.reading import find_time, newest_since
from isthmus.storage.local.segment_times import newest_timestamp

if TYPE_CHECKING:
    from collections.abc import Generator

    from isthmus.storage.local.lookup import Step
    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.segments import SegmentList
    from isthmus.storage.log import TimeAnswer, TimeFound

MEASURED_AT_ONCE: Final = 64  # segments
_NEVER: Final = 2**63  # a time after all others


class TimeLookup(Lookup):
    """One question to a partition on its way to its answer."""

    __slots__ = ("_partition",)

    def __init__(
        self, partition: LocalPartition, segments: SegmentList, answer: TimeAnswer
    ) -> None:
        super().__init__(partition.runtime, segments, lambda: partition.closed, answer)
        self._partition = partition

    def find(self, timestamp_ms: int) -> None:
        """Look for the first record at or after `timestamp_ms`."""
        self._begin(self._find(timestamp_ms))

    def find_newest(self) -> None:
        """Look for the first record with the largest timestamp."""
        self._begin(self._find_newest())

    def _find(self, timestamp_ms: int) -> Generator[Step, Any, TimeFound]:
        offset = self._partition.start_offset
        while (segment := (yield from self._first(offset, timestamp_ms))) is not None:
            search = partial(_search, timestamp_ms, self._partition.start_offset)
            result = yield [segment], search
            if result is None:
                continue
            found: TimeFound = result[0]
            self._segments.report(segment, result[1])
            following = self._segments.after(segment)
            if found is not None or following is None:
                return found
            offset = following.base_offset
        return None

    def _find_newest(self) -> Generator[Step, Any, TimeFound]:
        while True:
            start = self._partition.start_offset
            yield from self._first(start, _NEVER)  # so that all are known
            segments = [each for each in self._segments.since(start) if each.size]
            claims = [segment.max_timestamp for segment in segments]
            while claims:
                slot = claims.index(max(claims))
                segment = segments[slot]
                result = yield [segment], partial(_search, claims[slot], start)
                if result is None:
                    break
                self._segments.report(segment, result[1])
                found: TimeFound = result[0]
                if found is not None:
                    return found
                # What has it lies before the start, or is damaged: see what is there.
                left = yield [segment], partial(_newest, start)
                if left is None:
                    break
                if left < claims[slot]:
                    claims[slot] = left
                else:  # a producer's word, and no record bears it out
                    del claims[slot], segments[slot]
            else:
                return None

    def _first(self, offset: int, timestamp_ms: int) -> Generator[Step, Any, Segment | None]:
        """Return the first segment from `offset` on that is not all older."""
        while True:
            unknown: list[Segment] = []
            for segment in self._segments.since(offset):
                if segment.size and not segment.newest_known:
                    unknown.append(segment)
                elif segment.size and segment.max_timestamp >= timestamp_ms:
                    if not unknown:
                        return segment
                    break
                if len(unknown) == MEASURED_AT_ONCE:
                    break
            if not unknown:
                return None
            yield unknown, _measure


def _search(timestamp_ms: int, start_offset: int, twins: list[Segment]) -> Any:
    return find_time(twins[0], timestamp_ms, start_offset)


def _newest(start_offset: int, twins: list[Segment]) -> int:
    return newest_since(twins[0], start_offset)


def _measure(twins: list[Segment]) -> bool:
    for twin in twins:
        newest_timestamp(twin)
        if not twin.pins:
            twin.let_go()  # many segments: learn from each, open none
    return True
