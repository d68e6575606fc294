"""A partition of a share group against a model that knows each record by itself.

Members are given records, say what became of them, or fall silent; the log grows, has holes,
loses old records and, in a crash, new ones; the server comes back with what was kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.share_partition import (
    AckBatch,
    AckRefused,
    AckType,
    Acquisition,
    Offsets,
    RecordState,
    ShareLimits,
    SharePartition,
)

LIMITS = ShareLimits(deliveries_max=2, locks_max=12, lock_ms=100)
MEMBERS = st.sampled_from(["a", "b"])
ACKS = st.sampled_from([*AckType, AckType.RELEASE])
FREE = RecordState.AVAILABLE
AFTER = {
    AckType.ACCEPT: RecordState.ACKNOWLEDGED,
    AckType.REJECT: RecordState.ARCHIVED,
    AckType.GAP: RecordState.ARCHIVED,
}


@dataclass(frozen=True)
class Place:
    """One record, between start and end."""

    state: RecordState = FREE
    deliveries: int = 0
    member: str = ""
    due_ms: int = 0

    def released(self) -> Place:
        is_over = self.deliveries >= LIMITS.deliveries_max
        return Place(RecordState.ARCHIVED if is_over else FREE, self.deliveries)


class SharedRecords(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.log: list[Offsets] = []
        self.log_start = self.log_end = 0
        self.places: dict[int, Place] = {}

    @initialize(start=st.integers(0, 3), sizes=st.lists(st.integers(1, 4), min_size=2))
    def begin(self, start: int, sizes: list[int]) -> None:
        self.log_start = self.log_end = self.start = self.end = start
        self.shared = SharePartition(start, lambda: LIMITS)
        self.kept = SharePartition(start, lambda: LIMITS)  # as the log of states has it
        self.store()
        for size in sizes:
            self.write(size, 0)

    # --- the log ------------------------------------------------------------------------------

    @rule(size=st.integers(1, 5), hole=st.sampled_from([0, 0, 0, 2]))
    def write(self, size: int, hole: int) -> None:
        first = self.log_end + hole
        self.log.append(Offsets(first, first + size - 1))
        self.log_end = first + size

    @rule(
        what=st.sampled_from(["old records", "new records", "all but what is kept", "updates"]),
        count=st.integers(1, 3),
    )
    def lose(self, what: str, count: int) -> None:
        if what == "old records":
            self.lose_old_records(count)
        elif what == "new records":
            self.crash(count)
        elif what == "updates":
            self.snapshot()
        else:
            self.restart()

    def lose_old_records(self, count: int) -> None:
        self.log_start = min(self.log_start + count, self.log_end)
        self.log = [one for one in self.log if one.last >= self.log_start]
        self.fit()

    def crash(self, count: int) -> None:
        """The newest batches are gone, and so is what nobody wrote down."""
        for lost in self.log[-count:]:
            self.log_end = max(min(self.log_end, lost.first), self.log_start)
        self.log = self.log[:-count]
        self.restart()
        self.fit()

    def fit(self) -> None:
        self.shared.fit(self.log_start, self.log_end)
        if self.end > self.log_end:
            self.end = self.log_end
            self.start = min(self.start, self.end)
        self.start = max(self.start, self.log_start)
        self.end = max(self.end, self.start)
        self.places = {at: self.places[at] for at in range(self.start, self.end)}
        self.advance()

    # --- members ------------------------------------------------------------------------------

    @rule(
        member=MEMBERS,
        records_max=st.sampled_from([1, 2, 4, 9]),
        batch=st.integers(0, 4),
        exact=st.booleans(),
        dead=st.sampled_from([None, None, None, 0, 1]),
    )
    def acquire(
        self, member: str, records_max: int, batch: int, exact: bool, dead: int | None
    ) -> None:
        self.fit()
        read = [one for one in self.log if one.last >= self.shared.next_offset()]
        aborted = [] if dead is None else read[dead : dead + 1]
        wish = Acquisition(member, records_max, batch, is_exact=exact)
        given = self.shared.acquire(wish, read, self.now_ms, aborted)
        expected = self.model_acquire(member, read, records_max, aborted, exact=exact)
        shown = {at: one.deliveries for one in given for at in range(one.first, one.last + 1)}
        assert shown == expected
        for piece, following in pairwise(given):
            assert piece.last < following.first
            is_cut = piece.last + 1 == following.first
            if is_cut and piece.deliveries == following.deliveries:
                assert piece.last - piece.first + 1 >= batch

    def model_acquire(
        self,
        member: str,
        read: list[Offsets],
        records_max: int,
        aborted: list[Offsets],
        *,
        exact: bool,
    ) -> dict[int, int]:
        if not read:
            return {}
        self.reach(read[0].first - 1)
        for at in range(self.start, read[0].first):
            self.archive(at)
        self.advance()
        window = range(read[0].first, read[-1].last + 1)
        again = sum(self.is_free(at) for at in window)
        room = LIMITS.locks_max - (self.end - self.start)
        if min(records_max - again, room) > 0:
            last = self.end + records_max - again - 1
            last = last if exact else max(last, self.batch_end(read, last))
            self.reach(last, min(window[-1], self.end + room - 1))
        for span in aborted:
            for at in range(span.first, span.last + 1):
                self.archive(at)
        given: dict[int, int] = {}
        overtime: tuple[int, int, int] | None = None  # the next offset, its like, its batch
        for at in window:
            if not self.is_free(at):
                continue
            place = self.places[at]
            if len(given) >= records_max and (at, place.deliveries) != (
                overtime and overtime[:2]
            ):
                break
            limit = overtime[2] if overtime else self.batch_end(read, at)
            if len(given) >= records_max and (exact or at > limit):
                break
            due_ms = self.now_ms + LIMITS.lock_ms
            given[at] = place.deliveries + 1
            self.places[at] = Place(RecordState.ACQUIRED, place.deliveries + 1, member, due_ms)
            is_last = len(given) == records_max
            limit = self.batch_end(read, at) if is_last else limit
            overtime = (at + 1, place.deliveries, limit) if len(given) >= records_max else None
        self.advance()
        return given

    @staticmethod
    def batch_end(read: list[Offsets], at: int) -> int:
        return max((one.last for one in read if one.first <= at), default=at)

    def is_free(self, at: int) -> bool:
        return at in self.places and self.places[at].state is FREE

    def archive(self, at: int) -> None:
        if self.is_free(at):
            self.places[at] = replace(self.places[at], state=RecordState.ARCHIVED)

    def reach(self, last: int, most: int | None = None) -> None:
        last = last if most is None else min(last, most)
        for at in range(self.end, last + 1):
            self.places[at] = Place()
        self.end = max(self.end, last + 1)

    def advance(self) -> None:
        while self.start < self.end and self.places[self.start].state not in (
            FREE,
            RecordState.ACQUIRED,
        ):
            del self.places[self.start]
            self.start += 1

    @precondition(lambda self: any(place.member for place in self.places.values()))
    @rule(which=st.integers(0, 5), skip=st.integers(0, 2), said=st.lists(ACKS, min_size=1))
    def acknowledge(self, which: int, skip: int, said: list[AckType]) -> None:
        """A member says something of what it has."""
        held = [run for run in self.shared.runs if run.member_id]
        run = held[which % len(held)]
        first = min(run.first + skip, run.last)
        if len(said) > 1:
            last = min(run.last, first + len(said) - 1)
            self.say(run.member_id, AckBatch(first, last, said[: last - first + 1]))
        else:
            self.say(run.member_id, AckBatch(first, run.last, said))

    @rule(member=MEMBERS, back=st.integers(0, 14), size=st.integers(1, 6), said=ACKS)
    def acknowledge_anything(self, member: str, back: int, size: int, said: AckType) -> None:
        """A member says something, whether it has that or not."""
        first = max(self.end - back, 0)
        self.say(member, AckBatch(first, first + size - 1, [said]))

    def say(self, member: str, batch: AckBatch) -> None:
        each = [*batch.types] * (batch.last - batch.first + 1 if len(batch.types) == 1 else 1)
        said = dict(enumerate(each, batch.first))
        error = self.model_refusal(member, said)
        try:
            self.shared.acknowledge(member, [batch], self.now_ms)
        except AckRefused as refused:
            assert refused.code is error
            return
        assert error is None
        for at in said.keys() & self.places.keys():
            one, place = said[at], self.places[at]
            if one is AckType.RENEW:
                self.places[at] = replace(place, due_ms=self.now_ms + LIMITS.lock_ms)
            elif one is AckType.RELEASE:
                self.places[at] = place.released()
            else:
                self.places[at] = Place(AFTER[one], place.deliveries)
        self.advance()
        self.store()

    def model_refusal(self, member: str, said: dict[int, Any]) -> ErrorCode | None:
        if max(said) < self.start:
            return None
        if not self.places:
            return ErrorCode.INVALID_RECORD_STATE
        if max(said) >= self.end:
            return ErrorCode.INVALID_REQUEST
        for at in said:
            place = self.places.get(at)
            if place and (place.state, place.member) != (RecordState.ACQUIRED, member):
                return ErrorCode.INVALID_RECORD_STATE
        return None

    @rule(member=MEMBERS)
    def leave(self, member: str) -> None:
        held = [at for at, place in self.places.items() if place.member == member]
        assert self.shared.release(member) is bool(held)
        self.release(held)

    @rule(passed_ms=st.sampled_from([1, 50, 100]))
    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms
        due_ms = self.shared.due_ms()
        late = [
            at
            for at, place in self.places.items()
            if place.state is RecordState.ACQUIRED and place.due_ms <= self.now_ms
        ]
        if due_ms is None or due_ms > self.now_ms:
            assert not late
            return
        assert self.shared.tick(self.now_ms) is bool(late)
        self.release(late)

    def release(self, offsets: list[int]) -> None:
        for at in offsets:
            self.places[at] = self.places[at].released()
        self.advance()
        self.store()

    # --- what is kept -------------------------------------------------------------------------

    def store(self) -> None:
        """Write down what has changed."""
        if self.shared.is_rewritten:
            self.snapshot()
            return
        changed = self.shared.take_unstored()
        if changed is not None:
            self.kept.take(*changed)

    def snapshot(self) -> None:
        self.kept = SharePartition(self.shared.start_offset, lambda: LIMITS)
        self.kept.take(-1, self.shared.snapshot())
        self.shared.take_unstored()

    def restart(self) -> None:
        """What was given out is free again; what was done with stays so."""
        self.shared = SharePartition(self.kept.start_offset, lambda: LIMITS)
        self.shared.take(-1, self.kept.snapshot())
        before, after = self.places, self.expanded(self.shared)
        for places, others in ((before, after), (after, before)):
            for at, place in places.items():
                if place.state is RecordState.ACKNOWLEDGED:
                    assert others[at].state is RecordState.ACKNOWLEDGED
        self.start, self.end = self.shared.start_offset, self.shared.end_offset
        self.places = self.expanded(self.shared)
        self.snapshot()

    @staticmethod
    def expanded(shared: SharePartition) -> dict[int, Place]:
        return {at: Place(*run[2:]) for run in shared.runs for at in range(run[0], run[1] + 1)}

    @invariant()
    def is_as_the_model_says(self) -> None:
        if not hasattr(self, "shared"):
            return
        assert (self.shared.start_offset, self.shared.end_offset) == (self.start, self.end)
        assert self.expanded(self.shared) == self.places
        for run, following in pairwise(self.shared.runs):
            assert run.last + 1 == following.first
            assert run.said != following.said
        free = [at for at, place in sorted(self.places.items()) if place.state is FREE]
        assert self.shared.next_offset() == next(iter(free), self.end)


SharedRecords.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None
)
TestSharedRecords = SharedRecords.TestCase
