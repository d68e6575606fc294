"""The background work of the local engine: one schedule, one piece of work at a time.

What must be done now and then and is in nobody's way (retention, compaction, expiry of
producers, removing files) is a job. A job is a name, an interval and a generator that makes one
pass: it runs on the loop, and what it yields is done elsewhere before it goes on.

    def run(self) -> Steps:
        for partition in tuple(self._partitions):
            if partition.is_of_interest:
                found = yield lambda: look_at_the_disk(partition)   # on another thread
                partition.take_note(found)                          # on the loop again
            yield None                                              # the loop turns once

    job = housekeeping.add("retention", run, interval_ms=30_000)
    job.wake()             # the next pass begins now (or after the one under way) ...
    job.wake(500)          # ... or in half a second at the latest

What a job may rely on, and what is asked of it:

- Between two yields it runs alone on the loop: state is as it was left. Over a yield anything
  may have happened, also the deletion of its partition.
- What it yields runs on another thread, touches files only, and must be short (a second at
  most; a long task yields many pieces): the other jobs and the close wait for it.
- An exception of such a piece is raised at the yield. What leaves the generator is logged, ends
  that pass, and stops no other job.
- With the close, the piece under way is waited for and the generator is closed where it stands.
- A job with more work than one pass should do takes turns with the others by its yields.

Only one piece is ever on a thread, so of the threads that `Runtime.offload` has, one is always
left for the rounds of syncing: no acknowledgement waits for housekeeping.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from isthmus.errors import IsthmusError
from isthmus.storage.local.once import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from isthmus.runtime import Runtime

Step: TypeAlias = "Callable[[], Any] | None"  # for another thread; None: the loop turns once
Steps: TypeAlias = "Generator[Step, Any, None]"
Outcome: TypeAlias = "tuple[Any, BaseException | None]"

_NOTHING: Final[Outcome] = (None, None)

logger = logging.getLogger(__name__)


class Job:
    """Something that is done now and then; `Housekeeping.add` makes it."""

    __slots__ = (
        "_cancel",
        "_due_ms",
        "_housekeeping",
        "_run",
        "interval_ms",
        "is_early",
        "name",
        "outcome",
        "steps",
    )

    def __init__(
        self,
        housekeeping: Housekeeping,
        name: str,
        run: Callable[[], Steps],
        interval_ms: int | None,
    ) -> None:
        self.name = name
        self.interval_ms = interval_ms
        self.is_early = False  # woken before there was anybody to wake
        self.steps: Steps | None = None  # the pass under way
        self.outcome: Outcome = _NOTHING  # of the piece it waited for
        self._housekeeping = housekeeping
        self._run = run
        self._due_ms: int | None = None
        self._cancel: Callable[[], None] = _nothing

    def wake(self, delay_ms: int = 0) -> None:
        """Begin a pass in `delay_ms` at the latest, or when the one under way has ended."""
        runtime = self._housekeeping.runtime
        due_ms = runtime.monotonic_ms() + delay_ms
        if not self._housekeeping.is_running:
            self.is_early = True
        elif self._due_ms is None or due_ms < self._due_ms:
            self._cancel()
            self._due_ms = due_ms
            if delay_ms > 0:
                self._cancel = runtime.later(delay_ms, self._begin)
            else:
                self._cancel = _nothing
                runtime.defer(self._begin)

    def rest(self) -> None:
        """Be not called before the next `wake`."""
        self._cancel()
        self._cancel = _nothing
        self._due_ms = None

    def _begin(self) -> None:
        if self._due_ms is None:
            return  # called off
        if self.steps is not None:
            self._cancel = _nothing  # due stays: `end_pass` begins again
            return
        self.rest()
        self.steps = self._run()
        self._housekeeping.enqueue(self)

    def end_pass(self) -> None:
        """The generator is exhausted: wait for the interval, or begin again if woken."""
        self.steps = None
        now_ms = self._housekeeping.runtime.monotonic_ms()
        if self._due_ms is not None and self._due_ms <= now_ms:
            self.rest()
            self.wake()
        elif self.interval_ms is not None:
            self.wake(self.interval_ms)


class _Piece(Once):
    """One piece of work."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work

    def _do(self) -> Any:
        return self._work()


class Housekeeping:
    """The jobs of one log and whose turn it is."""

    __slots__ = ("_jobs", "_piece", "_ready", "_stepping", "is_running", "runtime")

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.is_running = False
        self._jobs: list[Job] = []
        self._ready: deque[Job] = deque()  # in the middle of a pass
        self._piece: _Piece | None = None  # on another thread
        self._stepping = False  # a turn of the loop was asked for

    def add(self, name: str, run: Callable[[], Steps], interval_ms: int | None) -> Job:
        """Add a job that comes up every `interval_ms`, or only when woken for None."""
        job = Job(self, name, run, interval_ms)
        self._jobs.append(job)
        if self.is_running and interval_ms is not None:
            job.wake(interval_ms)
        return job

    def start(self) -> None:
        """Begin: the first pass of each job is one interval away, or now if it was woken."""
        self.is_running = True
        for job in self._jobs:
            if job.is_early:
                job.wake()
            elif job.interval_ms is not None:
                job.wake(job.interval_ms)

    def close(self) -> None:
        """End all passes where they stand; nothing is under way when this returns."""
        self.is_running = False
        if self._piece is not None:
            self._piece.call_off()
        self._ready.clear()
        for job in self._jobs:
            job.rest()
            steps, job.steps = job.steps, None
            if steps is not None:
                steps.close()

    def enqueue(self, job: Job) -> None:
        """Let a job take its next step when the others had their turn."""
        self._ready.append(job)
        self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if self._ready and self._piece is None and not self._stepping:
            self._stepping = True
            self.runtime.defer(self._turn)

    def _turn(self) -> None:
        self._stepping = False
        if self._ready:
            self._step(self._ready.popleft())

    def _step(self, job: Job) -> None:
        """Let a job go on to its next yield."""
        steps = job.steps
        assert steps is not None
        (result, error), job.outcome = job.outcome, _NOTHING
        try:
            step = steps.send(result) if error is None else steps.throw(error)
        except StopIteration:
            job.end_pass()
        except (OSError, IsthmusError) as failure:
            logger.warning("%s was broken off, it is tried again: %s", job.name, failure)
            job.end_pass()
        except Exception:
            logger.exception("%s was broken off", job.name)
            job.end_pass()
        else:
            if step is None:
                self._ready.append(job)
            else:
                self._piece = piece = _Piece(step)
                self.runtime.offload(
                    piece.run, lambda result, error: self._ended(job, result, error)
                )
        self._ask_for_turn()

    def _ended(self, job: Job, result: Any, error: BaseException | None) -> None:
        self._piece = None
        if self.is_running:
            job.outcome = (result, error)
            self.enqueue(job)


def _nothing() -> None:
    """There is nothing to cancel."""
