"""Questions to a partition that take the disk, and no turn of the loop that waits for it.

A lookup is a generator on the loop. It yields segments and the work to be done with their twins
on another thread, and gets the result back, or None where a segment was deleted or replaced
meanwhile: then it looks again. `Lookup` answers a question with it; `as_job` makes it a part of
a job of housekeeping.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from isthmus.storage.local.files import known_error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from isthmus.errors import IsthmusError
    from isthmus.runtime import Runtime
    from isthmus.storage.local import housekeeping
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.segments import SegmentList

Step: TypeAlias = "tuple[list[Segment], Callable[[list[Segment]], Any]]"
Steps: TypeAlias = "Generator[Step, Any, Any]"
Piece: TypeAlias = "Callable[..., Callable[[], Any]]"


class Lookup:
    """One question on its way to its answer, which gets (what was found, None or an error)."""

    __slots__ = ("_answer", "_closed", "_runtime", "_segments", "_steps")

    def __init__(
        self,
        runtime: Runtime,
        segments: SegmentList,
        closed: Callable[[], IsthmusError | None],
        answer: Callable[[Any, IsthmusError | None], object],
    ) -> None:
        self._runtime = runtime
        self._segments = segments
        self._closed = closed  # why nothing is told any more, or None
        self._answer = answer
        self._steps: Steps | None = None

    def _begin(self, steps: Steps) -> None:
        self._steps = steps
        self._advance(None)

    def _advance(self, result: Any) -> None:
        assert self._steps is not None
        try:
            segments, work = self._steps.send(result)
        except StopIteration as end:
            self._answer(end.value, None)
            return
        except OSError as error:
            self._answer(None, self._not_read(error))
            return
        twins = [segment.twin() for segment in segments]
        self._runtime.offload_read(
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
        is_current = _give_back(self._segments, segments, twins)
        closed = self._closed()
        if closed is not None:
            self._answer(None, closed)
        elif not is_current:
            self._advance(None)
        elif error is not None:
            self._answer(None, self._not_read(error))
        else:
            self._advance(result)

    def _not_read(self, error: BaseException) -> IsthmusError:
        return known_error(error, f"{self._segments.directory} was not read")


def as_job(
    segments: SegmentList, steps: Steps, piece: Piece = partial
) -> Generator[housekeeping.Step, Any, Any]:
    """Take the steps of a lookup, each as a step of a job; return what it finds.

    `piece` makes of each work, given with its twins, what is done on the other thread. Raises
    OSError.
    """
    result: Any = None
    while True:
        try:
            wanted, work = steps.send(result)
        except StopIteration as end:
            return end.value
        twins = [segment.twin() for segment in wanted]
        try:
            result = yield piece(work, twins)
        finally:
            if not _give_back(segments, wanted, twins):
                result = None


def _give_back(segments: SegmentList, wanted: list[Segment], twins: list[Segment]) -> bool:
    """Let go of all twins; whether all their segments are still of the log."""
    pairs = zip(wanted, twins, strict=True)
    given_back = [segments.give_back(segment, twin) for segment, twin in pairs]
    return all(given_back)
