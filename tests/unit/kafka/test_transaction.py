"""The machine of a transactional id: what ends when, and what happens when epochs run out."""

from __future__ import annotations

import pytest

from isthmus.errors import Malformed
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.transaction import EPOCH_MAX, State, Transaction, Transactional
from isthmus.kafka.transaction_records import (
    read_transaction,
    read_transaction_key,
    transaction_key,
    transaction_value,
)

NOW = 1_700_000_000_000
ID, FRESH = 7, 8
PLACES = frozenset({("t", 0), ("t", 1), ("u", 4)})
FENCED, INVALID = ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_TXN_STATE
AGAIN, OK = ErrorCode.CONCURRENT_TRANSACTIONS, ErrorCode.NONE


def machine(state: State, epoch: int = 5, **more: int) -> Transactional:
    """Return a machine in this state; an end has raised its epoch to `epoch`."""
    busy = state in (State.ONGOING, State.PREPARE_COMMIT, State.PREPARE_ABORT)
    places = PLACES if busy else frozenset[tuple[str, int]]()
    return Transactional(Transaction(ID, epoch, 1_000, state, places, NOW, NOW, **more))


def end(at: Transactional, epoch: int, *, commits: bool, bumps: bool) -> object:
    """Ask for the end; return the code, or the state that follows."""
    followed = at.end((ID, epoch), commits=commits, bumps=bumps, fresh_id=FRESH, now_ms=NOW + 1)
    return followed if isinstance(followed, ErrorCode) else followed.state


@pytest.mark.parametrize(
    ("state", "abort", "commit"),
    [
        (State.EMPTY, INVALID, INVALID),
        (State.ONGOING, State.PREPARE_ABORT, State.PREPARE_COMMIT),
        (State.PREPARE_COMMIT, INVALID, AGAIN),
        (State.PREPARE_ABORT, AGAIN, INVALID),
        (State.COMPLETE_COMMIT, INVALID, OK),
        (State.COMPLETE_ABORT, OK, INVALID),
    ],
)
def test_what_a_classic_client_may_end(state: State, abort: object, commit: object) -> None:
    assert end(machine(state), 5, commits=False, bumps=False) == abort
    assert end(machine(state), 5, commits=True, bumps=False) == commit
    for epoch in (4, 6):
        assert end(machine(state), epoch, commits=True, bumps=False) is FENCED


@pytest.mark.parametrize(
    ("state", "abort_again", "abort", "commit_again", "commit"),
    [
        (State.EMPTY, FENCED, State.PREPARE_ABORT, FENCED, INVALID),
        (State.ONGOING, FENCED, State.PREPARE_ABORT, FENCED, State.PREPARE_COMMIT),
        (State.PREPARE_COMMIT, INVALID, AGAIN, AGAIN, AGAIN),
        (State.PREPARE_ABORT, AGAIN, AGAIN, INVALID, AGAIN),
        (State.COMPLETE_COMMIT, INVALID, State.PREPARE_ABORT, OK, INVALID),
        (State.COMPLETE_ABORT, OK, State.PREPARE_ABORT, INVALID, INVALID),
    ],
)
def test_what_a_newer_client_may_end_and_what_is_a_retry(
    state: State, abort_again: object, abort: object, commit_again: object, commit: object
) -> None:
    """The epoch before the present one is that of a retry [KIP-890]."""
    newer = {"client_version": 2}
    assert end(machine(state, **newer), 4, commits=False, bumps=True) == abort_again
    assert end(machine(state, **newer), 5, commits=False, bumps=True) == abort
    assert end(machine(state, **newer), 4, commits=True, bumps=True) == commit_again
    assert end(machine(state, **newer), 5, commits=True, bumps=True) == commit
    for epoch in (3, 6):
        assert end(machine(state, **newer), epoch, commits=True, bumps=True) is FENCED


def test_what_a_classic_client_has_ended_is_not_taken_for_the_end_before() -> None:
    """Whoever had the epoch before it has been fenced."""
    for state in (State.COMPLETE_COMMIT, State.PREPARE_COMMIT):
        assert end(machine(state), 4, commits=True, bumps=True) is FENCED


def test_who_is_on_the_way_is_told_to_come_again() -> None:
    at = machine(State.EMPTY)
    assert isinstance(at.add((ID, 5), PLACES, 0, NOW), Transaction)
    assert at.add((ID, 5), PLACES, 0, NOW) is AGAIN
    assert at.initialise(1_000, None, FRESH, NOW) is AGAIN
    assert end(at, 5, commits=True, bumps=False) is AGAIN
    assert end(at, 4, commits=True, bumps=False) is FENCED, "whatever is on the way"
    at.settle(stored=False)
    assert at.at.state is State.EMPTY
    assert isinstance(at.add((ID, 5), PLACES, 0, NOW), Transaction)
    at.settle(stored=True)
    assert at.add((ID, 5), PLACES, 0, NOW) is OK, "nothing new"


def test_an_end_with_the_last_epoch_replaces_the_producer_id() -> None:
    last = EPOCH_MAX - 1
    at = machine(State.ONGOING, last)
    assert end(at, last, commits=True, bumps=True) is State.PREPARE_COMMIT
    prepared = at.settle(stored=True)
    assert (prepared.producer_id, prepared.epoch) == (ID, EPOCH_MAX), "of the markers"
    assert prepared.next_producer_id == FRESH
    assert at.add((FRESH, 0), PLACES, 2, NOW) is AGAIN, "its client knows already"
    again = at.end((FRESH, 0), commits=False, bumps=True, fresh_id=9, now_ms=NOW)
    assert again is AGAIN
    at.complete(NOW + 2)
    complete = at.settle(stored=True)
    assert (complete.producer_id, complete.epoch) == (FRESH, 0)
    assert end(at, last, commits=True, bumps=True) is OK, "a retry"
    assert end(at, last, commits=False, bumps=True) is INVALID
    assert end(at, last, commits=True, bumps=False) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
    retried = at.initialise(1_000, (ID, last), FRESH + 1, NOW)
    assert isinstance(retried, Transaction)
    assert (retried.producer_id, retried.epoch) == (FRESH, 0)


def test_the_last_epoch_is_for_fencing() -> None:
    at = machine(State.ONGOING, EPOCH_MAX - 1)
    assert at.fence(NOW).epoch == EPOCH_MAX
    at.settle(stored=True)
    at.complete(NOW)
    at.settle(stored=True)
    begun = at.initialise(1_000, None, FRESH, NOW)
    assert isinstance(begun, Transaction)
    assert (begun.producer_id, begun.epoch) == (FRESH, 0)


def test_what_is_kept_comes_back() -> None:
    kept = machine(State.PREPARE_ABORT, previous_producer_id=6, next_producer_id=8).at
    kept = kept._replace(client_version=2)
    data = transaction_value(kept)
    assert read_transaction(data) == kept
    assert read_transaction_key(transaction_key("x")) == "x"
    with pytest.raises(Malformed):
        read_transaction(data[:5])
    with pytest.raises(Malformed):
        read_transaction(data[:16] + b"\x63" + data[17:])
