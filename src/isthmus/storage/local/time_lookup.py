"""Finds an offset by time, without making the loop wait for the disk.

The first record at or after a time lies in the first segment whose newest timestamp is not
before it. Segments remember their newest timestamp, so to choose one costs nothing but the
first time after a start, when it is read from the ends of the indexes, many segments at once.
In that one segment the time index leads to the batches, and the walk over their records makes
the answer exact.

A lookup is a generator on the loop. It yields segments and the work to be done with their twins
on another thread, and gets the result back, or None where a segment was deleted or replaced
meanwhile: then it looks again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from isthmus.storage.local.files import known_error
from isthmus.storage.local.reading import find_time, newest_since

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from isthmus.storage.local.partition import LocalPartition
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.segments import SegmentList
    from isthmus.storage.log import TimeAnswer, TimeFound

Step: TypeAlias = "tuple[list[Segment], Callable[[list[Segment]], Any]]"
Steps: TypeAlias = "Generator[Step, Any, Any]"

MEASURED_AT_ONCE: Final = 64  # segments
_NEVER: Final = 2**63  # a time after all others


class TimeLookup:
    """One question to a partition on its way to its answer."""

    __slots__ = ("_answer", "_partition", "_segments", "_steps")

    def __init__(
        self, partition: LocalPartition, segments: SegmentList, answer: TimeAnswer
    ) -> None:
        self._partition = partition
        self._segments = segments
        self._answer = answer
        self._steps: Steps | None = None

    def find(self, timestamp_ms: int) -> None:
        """Look for the first record at or after `timestamp_ms`."""
        self._steps = self._find(timestamp_ms)
        self._advance(None)

    def find_newest(self) -> None:
        """Look for the first record with the largest timestamp."""
        self._steps = self._find_newest()
        self._advance(None)

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

    def _advance(self, result: Any) -> None:
        assert self._steps is not None
        try:
            segments, work = self._steps.send(result)
        except StopIteration as end:
            self._answer(end.value, None)
            return
        twins = [segment.twin() for segment in segments]
        self._partition.runtime.offload_read(
            lambda: work(twins),
            lambda result, error: self._landed(segments, twins, result, error),
        )

    def _landed(
        self,
        segments: list[Segment],
        twins: list[Segment],
        result: Any,
        error: BaseException | None,
    ) -> None:
        closed = self._partition.closed
        is_current = True
        for segment, twin in zip(segments, twins, strict=True):
            if closed is None and self._segments.has(segment):
                segment.adopt(twin)
            else:
                is_current = False
                segment.release(twin)
        if closed is not None:
            self._answer(None, closed)
        elif not is_current:
            self._advance(None)
        elif error is not None:
            self._answer(None, known_error(error, f"{self._segments.directory} was not read"))
        else:
            self._advance(result)


def _search(timestamp_ms: int, start_offset: int, twins: list[Segment]) -> Any:
    return find_time(twins[0], timestamp_ms, start_offset)


def _newest(start_offset: int, twins: list[Segment]) -> int:
    return newest_since(twins[0], start_offset)


def _measure(twins: list[Segment]) -> bool:
    for twin in twins:
        twin.newest_timestamp()
        if not twin.pins:
            twin.let_go()  # many segments: learn from each, open none
    return True
