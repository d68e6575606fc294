"""One transactional id: which requests it allows when, and what follows (KIP-98, 360, 890).

    Empty ─────► Ongoing ──┬─► PrepareCommit ─► CompleteCommit ─┐
      ▲            ▲       └─► PrepareAbort  ─► CompleteAbort  ─┤
      └── init ────┴──────────── the next partition ────────────┘

A machine without I/O. A request either gets an error code, or what the id is to be next: that
is `ahead` until whoever keeps it has stored it and says so (`settle`); meanwhile most requests
are told to come again. A *prepared* end is decided for good, whatever happens.

Clients end transactions in one of two forms, told apart by the version of the request. In the
classic one the epoch stays until somebody else takes over. In the newer one (KIP-890, `bumps`)
each end raises the epoch, so that what comes late from before cannot get into the next
transaction; then a retry is known by the epoch before. Who is silent too long, or is fenced,
is ended as in the newer form, whatever it speaks. An epoch never gets to 2^15-1 in the hands of
a client: before that its producer id is replaced.

Source: Apache Kafka 4.3, `TransactionCoordinator`, `TransactionMetadata`. Not here: storing,
markers, timers (broker/transactions.py), two-phase commit (KIP-939).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from isthmus.kafka.errors import ErrorCode

Place: TypeAlias = "tuple[str, int]"  # log topic and partition
Producer: TypeAlias = "tuple[int, int]"  # producer id and epoch

NO_PRODUCER_ID: Final = -1
NO_EPOCH: Final = -1
EPOCH_MAX: Final = 2**15 - 1
CLASSIC: Final = 0
BUMPING: Final = 2  # `transaction.version` of clients whose epoch grows with each end


class State(IntEnum):
    """What is kept of a transactional id says one of these, in Kafka's numbers."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6  # about to be forgotten
    PREPARE_EPOCH_FENCE = 7  # Kafka passes through it; never stored, and never seen here

    @property
    def title(self) -> str:
        """The name as Kafka writes it: PrepareCommit."""
        return self.name.title().replace("_", "")


NEXT: Final[dict[State, tuple[State, ...]]] = {
    State.EMPTY: (State.EMPTY, State.ONGOING, State.PREPARE_ABORT, State.DEAD),
    State.ONGOING: (State.ONGOING, State.PREPARE_COMMIT, State.PREPARE_ABORT),
    State.PREPARE_COMMIT: (State.COMPLETE_COMMIT,),
    State.PREPARE_ABORT: (State.COMPLETE_ABORT,),
    State.COMPLETE_COMMIT: (State.EMPTY, State.ONGOING, State.PREPARE_ABORT, State.DEAD),
    State.COMPLETE_ABORT: (State.EMPTY, State.ONGOING, State.PREPARE_ABORT, State.DEAD),
}
PREPARED: Final = (State.PREPARE_COMMIT, State.PREPARE_ABORT)
SETTLED: Final = (State.EMPTY, State.COMPLETE_COMMIT, State.COMPLETE_ABORT)
COMPLETED: Final = {
    State.PREPARE_COMMIT: State.COMPLETE_COMMIT,
    State.PREPARE_ABORT: State.COMPLETE_ABORT,
}


class Transaction(NamedTuple):
    """What is kept of a transactional id; replaced as a whole, never changed."""

    producer_id: int
    epoch: int
    timeout_ms: int
    state: State
    partitions: frozenset[Place]
    start_ms: int  # wall clock: when its transaction began; -1 before the first
    updated_ms: int
    last_epoch: int = NO_EPOCH  # before the newest bump its client knows of; not stored
    previous_producer_id: int = NO_PRODUCER_ID
    next_producer_id: int = NO_PRODUCER_ID  # takes over when the end is complete
    client_version: int = CLASSIC

    @property
    def is_exhausted(self) -> bool:
        """Whether the producer id has no epoch left that a client may get."""
        return is_exhausted(self.epoch)


def is_exhausted(epoch: int) -> bool:
    """Whether no client may get a higher epoch: the highest is for fencing."""
    return epoch >= EPOCH_MAX - 1


class Transactional:
    """A transactional id."""

    __slots__ = ("ahead", "at")

    def __init__(self, at: Transaction) -> None:
        self.at = at
        self.ahead: Transaction | None = None  # what is being stored

    @classmethod
    def new(cls, producer_id: int, timeout_ms: int, now_ms: int) -> Transactional:
        """Return one that nobody has used; `initialise` gives it its first epoch."""
        nothing: frozenset[Place] = frozenset()
        return cls(
            Transaction(producer_id, NO_EPOCH, timeout_ms, State.EMPTY, nothing, -1, now_ms)
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing is open and nothing on its way."""
        return self.ahead is None and self.at.state in SETTLED

    def settle(self, *, stored: bool) -> Transaction:
        """`ahead` is stored, or cannot be; return what holds now."""
        assert self.ahead is not None
        if stored:
            self.at = self.ahead
        self.ahead = None
        return self.at

    # --- requests -----------------------------------------------------------------------------

    def initialise(
        self, timeout_ms: int, expected: Producer | None, fresh_id: int, now_ms: int
    ) -> Transaction | ErrorCode:
        """InitProducerId: give the client an epoch that fences all others.

        `expected` is what it has, where it goes on after an error [KIP-360]. A transaction that
        is open is aborted first; then the client has to come again.
        """
        at = self.at
        if self.ahead is not None:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if expected is not None and not self._may_expect(expected):
            return ErrorCode.PRODUCER_FENCED
        if at.state in PREPARED:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if at.state is State.ONGOING:
            return self.fence(now_ms)
        expected_epoch = None if expected is None else expected[1]
        producer_id, epoch, last_epoch = at.producer_id, at.epoch + 1, NO_EPOCH
        if at.is_exhausted and expected_epoch in (None, at.epoch):
            producer_id, epoch = fresh_id, 0
            last_epoch = NO_EPOCH if expected is None else at.epoch
        elif expected_epoch is not None and at.epoch != NO_EPOCH:
            if expected_epoch == at.epoch:
                last_epoch = at.epoch
            elif expected_epoch == at.last_epoch:  # a retry: it did not get the answer
                epoch, last_epoch = at.epoch, at.last_epoch
            else:
                return ErrorCode.PRODUCER_FENCED
        return self._go(
            State.EMPTY,
            now_ms,
            producer_id=producer_id,
            epoch=epoch,
            last_epoch=last_epoch,
            timeout_ms=timeout_ms,
            partitions=frozenset(),
            start_ms=-1,
        )

    def _may_expect(self, expected: Producer) -> bool:
        producer_id, epoch = expected
        at = self.at
        return (
            at.epoch == NO_EPOCH
            or producer_id == at.producer_id
            or (producer_id == at.previous_producer_id and is_exhausted(epoch))
        )

    def add(
        self, producer: Producer, partitions: frozenset[Place], version: int, now_ms: int
    ) -> Transaction | ErrorCode:
        """Let the transaction have these partitions; it begins with the first."""
        error = self._refusal(producer)
        if error:
            return error
        at = self.at
        if self.ahead is not None or at.state in PREPARED:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if at.state is State.ONGOING and partitions <= at.partitions:
            return ErrorCode.NONE
        return self._go(
            State.ONGOING,
            now_ms,
            partitions=at.partitions | partitions,
            start_ms=at.start_ms if at.state is State.ONGOING else now_ms,
            client_version=version,
        )

    def verify(self, producer: Producer, partition: Place) -> ErrorCode:
        """Say whether the partition belongs to the open transaction."""
        error = self._refusal(producer)
        if error:
            return error
        if self.at.state in PREPARED:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if partition not in self.at.partitions:
            return ErrorCode.TRANSACTION_ABORTABLE
        return ErrorCode.NONE

    def _refusal(self, producer: Producer) -> ErrorCode:
        at = self.at
        if producer == (at.next_producer_id, 0):  # it knows already who it will be
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if producer[0] != at.producer_id:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        return ErrorCode.PRODUCER_FENCED if producer[1] != at.epoch else ErrorCode.NONE

    def end(
        self, producer: Producer, *, commits: bool, bumps: bool, fresh_id: int, now_ms: int
    ) -> Transaction | ErrorCode:
        """EndTxn: NONE where this has happened before.

        In the newer form a client may abort what never began: it gets a new epoch by that. It
        is told to come again where the end before is not complete (Kafka takes it for fenced).
        """
        at = self.at
        bumped = bumps and at.client_version == BUMPING  # else no retry of this form
        overflowed = bumped and self._has_overflowed(producer)
        retried = overflowed or (bumped and at.epoch == producer[1] + 1)
        if producer == (at.next_producer_id, 0):
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if producer[0] != at.producer_id and not overflowed:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        current = producer[1] == at.epoch
        if at.state is State.ONGOING or at.state is State.EMPTY:
            retried = False
        if not current and not retried:
            return ErrorCode.PRODUCER_FENCED
        if self.ahead is not None or (bumps and at.state in PREPARED and not retried):
            return ErrorCode.CONCURRENT_TRANSACTIONS
        asked = State.PREPARE_COMMIT if commits else State.PREPARE_ABORT
        begun = at.state is State.ONGOING
        if begun or (bumps and not commits and not retried and at.state in SETTLED):
            next_id = fresh_id if bumps and at.is_exhausted else NO_PRODUCER_ID
            return self._prepare(asked, now_ms, bumps=bumps, next_id=next_id)
        if at.state is asked:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if at.state is COMPLETED[asked] and (retried or not bumps):
            return ErrorCode.NONE
        return ErrorCode.INVALID_TXN_STATE

    def _has_overflowed(self, producer: Producer) -> bool:
        """Whether this is a retry of the end that replaced the producer id."""
        at = self.at
        return producer == (at.previous_producer_id, EPOCH_MAX - 1) and at.epoch == 0

    # --- what the server does by itself -------------------------------------------------------

    def fence(self, now_ms: int) -> Transaction:
        """Abort the open transaction with an epoch that its client does not have."""
        assert self.ahead is None
        assert self.at.state is State.ONGOING
        return self._prepare(State.PREPARE_ABORT, now_ms, bumps=True, next_id=NO_PRODUCER_ID)

    def complete(self, now_ms: int) -> Transaction:
        """All markers of a prepared end are in the log."""
        at = self.at
        follows = at.next_producer_id != NO_PRODUCER_ID
        return self._go(
            COMPLETED[at.state],
            now_ms,
            producer_id=at.next_producer_id if follows else at.producer_id,
            epoch=0 if follows else at.epoch,
            next_producer_id=NO_PRODUCER_ID,
            partitions=frozenset(),
        )

    def expire(self, now_ms: int) -> None:
        """Be forgotten; `settle` says whether that could be stored."""
        self._go(State.DEAD, now_ms)

    def _prepare(self, state: State, now_ms: int, *, bumps: bool, next_id: int) -> Transaction:
        at = self.at
        epoch = min(at.epoch + 1, EPOCH_MAX) if bumps else at.epoch
        return self._go(
            state,
            now_ms,
            epoch=epoch,
            last_epoch=at.epoch if bumps else at.last_epoch,
            start_ms=at.start_ms if at.state is State.ONGOING else now_ms,
            next_producer_id=next_id,
            client_version=BUMPING if bumps else CLASSIC,
        )

    def _go(self, state: State, now_ms: int, **changes: object) -> Transaction:
        at = self.at
        assert self.ahead is None
        assert state in NEXT[at.state], f"{at.state.title} to {state.title}"
        known = at._replace(state=state, updated_ms=now_ms, previous_producer_id=at.producer_id)
        self.ahead = known._replace(**changes)  # type: ignore[arg-type]
        return self.ahead
