"""One partition as a share group sees it: who works on which records, as a machine without I/O.

Between `start_offset` and `end_offset` lies what was given out and is not yet done with. It is
kept as runs: neighbouring records of which the same is to be said, so what whole batches share
is said once [KIP-932]. Behind the end nothing was ever given out; before the start all is done.

    AVAILABLE ── acquire ──► ACQUIRED ──┬─ accept ──────────────────► ACKNOWLEDGED
        ▲                               ├─ reject, gap, too often ──► ARCHIVED
        └── release, lock lapsed ◄──────┘

Time is an argument; `due_ms` says when `tick` is next needed. After any call `take_unstored`
gives what has changed for good: acknowledgements are answered when that is durable. Locks are
not kept: what was ACQUIRED before a restart is AVAILABLE after it. `take` is the way back.

Not here: the records, and waiting for them (broker/share_fetches.py), the log of what is kept
(broker/share_states.py), who is a member (share_group.py).
"""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.kafka.errors import ErrorCode, RefusedWithCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class RecordState(IntEnum):
    """What is to be said of a record; the values are those of Kafka's records of state."""

    AVAILABLE = 0
    ACQUIRED = 1
    ACKNOWLEDGED = 2
    ARCHIVED = 4


AVAILABLE: Final = RecordState.AVAILABLE
ACQUIRED: Final = RecordState.ACQUIRED
DONE: Final = frozenset({RecordState.ACKNOWLEDGED, RecordState.ARCHIVED})
_FIRST: Final = attrgetter("first")


class AckType(IntEnum):
    """What a member says of a record that it was given."""

    GAP = 0  # there is no such record
    ACCEPT = 1
    RELEASE = 2
    REJECT = 3
    RENEW = 4  # it needs more time [KIP-1222]


class AckRefused(RefusedWithCode):
    """An acknowledgement that changes nothing; `code` is for its client."""


class ShareLimits(NamedTuple):
    """What holds for the partitions of a share group.

    `locks_max` holds whatever the size of a batch; Apache Kafka gives out the whole of it.
    """

    deliveries_max: int = 5
    locks_max: int = 2_000  # records between start and end
    lock_ms: int = 30_000


class Offsets(NamedTuple):
    """Consecutive offsets, both ends included."""

    first: int
    last: int


class Run(NamedTuple):
    """Neighbouring records of which the same is to be said."""

    first: int
    last: int
    state: RecordState
    deliveries: int
    member_id: str = ""  # of who has them, while ACQUIRED
    due_ms: int = 0  # monotonic: until then

    @property
    def said(self) -> tuple[RecordState, int, str, int]:
        """What is said of each of them."""
        return self[2:]


class Acquired(NamedTuple):
    """Records that a member was given, and for which time."""

    first: int
    last: int
    deliveries: int


class AckBatch(NamedTuple):
    """What a member says of consecutive records: one type for all, or one for each."""

    first: int
    last: int
    types: Sequence[int]


class StateBatch(NamedTuple):
    """What is kept of neighbouring records."""

    first: int
    last: int
    state: RecordState
    deliveries: int


class Acquisition(NamedTuple):
    """Who wants records, how many, and for how long."""

    member_id: str
    records_max: int
    batch_records: int = 1  # no smaller pieces, where there are more
    is_exact: bool = False  # `records_max` cuts batches, too [KIP-1206]


class SharePartition:
    """The records of one partition for one share group."""

    def __init__(self, start_offset: int, limits: Callable[[], ShareLimits]) -> None:
        """`limits` are those of the group, now: they may change."""
        self.start_offset = start_offset
        self.end_offset = start_offset
        self.is_rewritten = False  # a snapshot is due: what was kept is no longer true
        self._limits = limits
        self._runs: list[Run] = []  # from start to end, without a gap, no two that could be one
        self._earliest_due_ms: int | None = None  # no lock lapses sooner
        self._kept_start = -1  # what the log knows
        self._unstored: list[StateBatch] = []

    @property
    def runs(self) -> Sequence[Run]:
        """What is between start and end."""
        return self._runs

    @property
    def done_count(self) -> int:
        """How many records between start and end are done with [KIP-1226]."""
        return sum(run.last - run.first + 1 for run in self._runs if run.state in DONE)

    def next_offset(self) -> int:
        """Return where the next record is that may be given out."""
        return next(
            (run.first for run in self._runs if run.state is AVAILABLE), self.end_offset
        )

    def has_room(self) -> bool:
        """Whether there may be something to acquire."""
        return self.next_offset() < self.end_offset or self._room() > 0

    def _room(self) -> int:
        return self._limits().locks_max - (self.end_offset - self.start_offset)

    # --- giving out ---------------------------------------------------------------------------

    def fit(self, log_start: int, log_end: int) -> None:
        """Forget what the log does not have: old records, and those that a crash has taken."""
        if self.end_offset > log_end:
            self._runs = [
                run._replace(last=min(run.last, log_end - 1))
                for run in self._runs
                if run.first < log_end
            ]
            self.end_offset = log_end
            self.start_offset = min(self.start_offset, log_end)
            self.is_rewritten = True
        if self.start_offset < log_start:
            self._drop_before(log_start)
        self._advance()

    def acquire(
        self,
        wish: Acquisition,
        batches: Sequence[Offsets],
        now_ms: int,
        dead: Iterable[Offsets] = (),
    ) -> list[Acquired]:
        """Give a member what is there of these batches, as read from `next_offset` on.

        What lies before the first of them is not in the log, and `dead` is what was written
        in transactions that were aborted: both are done with.
        """
        if not batches or wish.records_max <= 0:
            return []
        first, last = self.next_offset(), batches[-1].last
        self._extend(batches[0].first - 1)
        self._archive(Offsets(first, batches[0].first - 1))
        self._advance()
        self._extend(self._fresh_last(wish, batches))
        for span in dead:
            self._archive(span)
        given: list[Run] = []
        left, due_ms = wish.records_max, now_ms + self._limits().lock_ms
        for run in self._available(Offsets(first, last)):
            end = min(run.last, _cut_off(batches, run.first, left, wish))
            deliveries = run.deliveries + 1
            given.append(Run(run.first, end, ACQUIRED, deliveries, wish.member_id, due_ms))
            left -= end - run.first + 1
            if left <= 0:
                break
        self._say(given)
        if given:
            self._note_due(due_ms)
        self._advance()
        return [*_pieces(given, batches, wish.batch_records)]

    def _fresh_last(self, wish: Acquisition, batches: Sequence[Offsets]) -> int:
        """Return up to where these batches are to be between start and end from now on."""
        again = self._available(Offsets(batches[0].first, batches[-1].last))
        count = wish.records_max - sum(run.last - run.first + 1 for run in again)
        room = self._room()
        if min(count, room) <= 0:
            return self.end_offset - 1
        last = _cut_off(batches, self.end_offset, count, wish)
        return min(batches[-1].last, last, self.end_offset + room - 1)

    def _extend(self, last: int) -> None:
        """Let there be records up to `last`; with nothing between, the start moves there."""
        if last < self.end_offset:
            return
        run = Run(self.end_offset, last, AVAILABLE, 0)
        self.end_offset = last + 1
        self._put(len(self._runs), len(self._runs), [run])

    def _available(self, span: Offsets) -> list[Run]:
        """Return what of these offsets may be given out."""
        return [
            run._replace(first=max(run.first, span.first), last=min(run.last, span.last))
            for run in self._within(span)
            if run.state is AVAILABLE
        ]

    def _archive(self, span: Offsets) -> None:
        """Let nobody be given these offsets any more."""
        archived = RecordState.ARCHIVED
        self._say([run._replace(state=archived) for run in self._available(span)])

    # --- what becomes of it -------------------------------------------------------------------

    def acknowledge(self, member_id: str, batches: Sequence[AckBatch], now_ms: int) -> None:
        """Take in what a member says of its records, all or nothing. Raises AckRefused."""
        said_until = -1
        for batch in sorted(batches):
            if batch.first <= said_until:
                raise AckRefused(ErrorCode.INVALID_RECORD_STATE, "said twice of one record")
            said_until = batch.last
            self._check(member_id, batch)
        following: list[Run] = []
        for batch in sorted(batches):
            for said in _spoken(batch):
                for run in self._within(Offsets(said.first, said.last)):
                    begin, end = max(run.first, said.first), min(run.last, said.last)
                    part = run._replace(first=begin, last=end)
                    following.append(self._following(part, AckType(said.types[0]), now_ms))
        self._say(following)
        self._advance()

    def _check(self, member_id: str, batch: AckBatch) -> None:
        if batch.last < self.start_offset:
            return  # long done with
        if not self._runs:
            raise AckRefused(ErrorCode.INVALID_RECORD_STATE, "nothing was given out")
        if batch.last >= self.end_offset:
            raise AckRefused(ErrorCode.INVALID_REQUEST, "not all of this was given out")
        for run in self._within(Offsets(batch.first, batch.last)):
            if run.state is not ACQUIRED or run.member_id != member_id:
                raise AckRefused(
                    ErrorCode.INVALID_RECORD_STATE, f"{member_id} does not have {run.first}"
                )

    def _following(self, run: Run, said: AckType, now_ms: int) -> Run:
        """Return what is to be said of these records from now on."""
        if said is AckType.RENEW:
            due_ms = now_ms + self._limits().lock_ms
            self._note_due(due_ms)
            return run._replace(due_ms=due_ms)
        if said is AckType.RELEASE:
            return self._released(run)
        is_accepted = said is AckType.ACCEPT
        return _free(run, RecordState.ACKNOWLEDGED if is_accepted else RecordState.ARCHIVED)

    def _released(self, run: Run) -> Run:
        is_over = run.deliveries >= self._limits().deliveries_max
        return _free(run, RecordState.ARCHIVED if is_over else AVAILABLE)

    def release(self, member_id: str) -> bool:
        """Take from a member all that it has; say whether that was anything."""
        return self._release([run for run in self._runs if run.member_id == member_id])

    def due_ms(self) -> int | None:
        """Return when `tick` must be called next, or None while nothing is given out."""
        return self._earliest_due_ms

    def tick(self, now_ms: int) -> bool:
        """Take back what was not acknowledged in time; say whether that was anything."""
        self._earliest_due_ms = None
        late = [run for run in self._runs if run.state is ACQUIRED and run.due_ms <= now_ms]
        is_any = self._release(late)
        for run in self._runs:
            if run.state is ACQUIRED:
                self._note_due(run.due_ms)
        return is_any

    def _release(self, taken: Sequence[Run]) -> bool:
        self._say([self._released(run) for run in taken])
        self._advance()
        return bool(taken)

    def _note_due(self, due_ms: int) -> None:
        earliest = self._earliest_due_ms
        self._earliest_due_ms = due_ms if earliest is None else min(earliest, due_ms)

    # --- what is kept -------------------------------------------------------------------------

    def take_unstored(self) -> tuple[int, list[StateBatch]] | None:
        """Return the start and what has changed for good behind it; None where nothing has."""
        if self._kept_start == self.start_offset and not self._unstored:
            return None
        batches = [one for one in self._unstored if one.last >= self.start_offset]
        self._kept_start = self.start_offset
        self._unstored.clear()
        return self.start_offset, batches

    def snapshot(self) -> list[StateBatch]:
        """Return all that is kept behind the start; locks are not."""
        kept = [
            StateBatch(run.first, run.last, AVAILABLE, run.deliveries - 1)
            if run.state is ACQUIRED
            else StateBatch(*run[:4])
            for run in self._runs
        ]
        self.is_rewritten = False
        return [one for one in kept if one.state is not AVAILABLE or one.deliveries]

    def take(self, start_offset: int, batches: Iterable[StateBatch]) -> None:
        """Take in what was kept, newer than all before; a start of -1 is as it was."""
        if start_offset > self.start_offset:
            self._drop_before(start_offset)
        for one in batches:
            if one.last >= self.start_offset:
                self._extend(one.last)
                self._say([Run(max(one.first, self.start_offset), *one[1:])])
        self._advance()
        self._kept_start = self.start_offset
        self._unstored.clear()

    # --- runs ---------------------------------------------------------------------------------

    def _within(self, span: Offsets) -> Sequence[Run]:
        """Return the runs that have some of these offsets."""
        low = max(bisect_right(self._runs, span.first, key=_FIRST) - 1, 0)
        high = bisect_right(self._runs, span.last, key=_FIRST)
        return [run for run in self._runs[low:high] if run.last >= span.first]

    def _say(self, runs: Sequence[Run]) -> None:
        """Say something of offsets between start and end; in their order, all in one pass."""
        if not runs:
            return
        self._unstored += [StateBatch(*run[:4]) for run in runs if run.state is not ACQUIRED]
        low = bisect_right(self._runs, runs[0].first, key=_FIRST) - 1
        high = bisect_right(self._runs, runs[-1].last, key=_FIRST)
        parts: list[Run] = []
        number, at = 0, 0  # the next one said, and the first offset of which nothing is yet
        for run in self._runs[low:high]:
            at = max(at, run.first)
            while number < len(runs) and runs[number].first <= run.last:
                said = runs[number]
                if at < said.first:
                    parts.append(run._replace(first=at, last=said.first - 1))
                parts.append(said)
                number, at = number + 1, said.last + 1
            if at <= run.last:
                parts.append(run._replace(first=at))
                at = run.last + 1
        self._put(low, high, parts)

    def _put(self, low: int, high: int, runs: list[Run]) -> None:
        """Replace runs, and let neighbours be one where the same is said of them."""
        begin, end = max(low - 1, 0), high + 1
        joined: list[Run] = []
        for run in [*self._runs[begin:low], *runs, *self._runs[high:end]]:
            if joined and joined[-1].said == run.said:
                joined[-1] = joined[-1]._replace(last=run.last)
            else:
                joined.append(run)
        self._runs[begin:end] = joined

    def _drop_before(self, offset: int) -> None:
        """Let the start be here, whatever is said of what was before."""
        self._runs = [
            run._replace(first=max(run.first, offset))
            for run in self._runs
            if run.last >= offset
        ]
        self.start_offset = offset
        self.end_offset = max(self.end_offset, offset)

    def _advance(self) -> None:
        """Let the start move over what is done with."""
        done = 0
        for run in self._runs:
            if run.state not in DONE:
                break
            self.start_offset = run.last + 1
            done += 1
        del self._runs[:done]


def _free(run: Run, state: RecordState) -> Run:
    """Return the records of a run in nobody's hands."""
    return Run(run.first, run.last, state, run.deliveries)


def _cut_off(batches: Sequence[Offsets], first: int, count: int, wish: Acquisition) -> int:
    """Return the last of `count` offsets, or of the batch that it is in."""
    last = first + count - 1
    if wish.is_exact:
        return last
    within = bisect_right(batches, last, key=_FIRST) - 1
    return max(last, batches[within].last) if within >= 0 else last


def _pieces(given: Iterable[Run], batches: Sequence[Offsets], size: int) -> Iterator[Acquired]:
    """Cut what was given where batches end, into pieces of at least `size` records."""
    for run in given:
        first = run.first
        for batch in batches[max(bisect_right(batches, first, key=_FIRST) - 1, 0) :]:
            if batch.last >= run.last:
                break
            if batch.last >= first and batch.last - first + 1 >= size:
                yield Acquired(first, batch.last, run.deliveries)
                first = batch.last + 1
        yield Acquired(first, run.last, run.deliveries)


def _spoken(batch: AckBatch) -> Iterator[AckBatch]:
    """Cut a batch into parts of which one thing is said."""
    if len(batch.types) == 1:
        yield batch
        return
    first = batch.first
    for said, same in groupby(batch.types):
        last = first + len([*same]) - 1
        yield AckBatch(first, last, (said,))
        first = last + 1
