"""ProducerTable: the rules of KIP-98, against a model that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.storage.batches import batch_of, marker_of

from isthmus.errors import (
    CorruptBatch,
    OutOfOrderSequence,
    ProducerFenced,
    TransactionStateInvalid,
)
from isthmus.storage.producers import SEQUENCE_MAX, ProducerTable


def numbered(sequence, *, count=1, epoch=0, producer_id=1, **how):
    return batch_of(
        *[b"v"] * count, producer_id=producer_id, epoch=epoch, sequence=sequence, **how
    )


class Log:
    """Hands out offsets like a partition does."""

    def __init__(self):
        self.table = ProducerTable()
        self.end = 0

    def append(self, batch):
        """Return the offset of the first storing, and whether this was it."""
        sent = self.table.admit(batch, self.end)
        if sent is not None:
            return sent.base_offset, False
        batch.stamp(self.end, 0)
        self.end = batch.next_offset
        self.table.settle()
        return batch.base_offset, True


@pytest.fixture
def log():
    return Log()


def test_the_last_five_batches_are_recognised_and_the_sixth_is_not(log):
    for sequence in range(6):
        assert log.append(numbered(sequence)) == (sequence, True)
    for sequence in range(1, 6):
        assert log.append(numbered(sequence)) == (sequence, False)
    with pytest.raises(OutOfOrderSequence):
        log.append(numbered(0))


def test_a_batch_that_overlaps_but_is_not_the_same_is_out_of_order(log):
    log.append(numbered(0, count=3))
    with pytest.raises(OutOfOrderSequence):
        log.append(numbered(0, count=2))
    with pytest.raises(OutOfOrderSequence):
        log.append(numbered(1, count=3))


def test_sequences_wrap_to_zero_also_within_a_batch(log):
    log.append(numbered(SEQUENCE_MAX - 1, count=4))
    assert log.table.get(1).last_sequence == 1
    log.append(numbered(2))
    assert log.append(numbered(SEQUENCE_MAX - 1, count=4)) == (0, False)


def test_the_end_of_the_range_is_followed_by_zero(log):
    log.append(numbered(SEQUENCE_MAX))
    with pytest.raises(OutOfOrderSequence):
        log.append(numbered(1))
    assert log.append(numbered(0)) == (1, True)


def test_a_new_epoch_begins_at_zero_and_fences_the_old(log):
    log.append(numbered(0))
    with pytest.raises(OutOfOrderSequence):
        log.append(numbered(1, epoch=1))
    log.append(numbered(0, epoch=1))
    with pytest.raises(ProducerFenced):
        log.append(numbered(1, epoch=0))


def test_an_unknown_producer_may_begin_anywhere(log):
    assert log.append(numbered(77)) == (0, True)
    with pytest.raises(OutOfOrderSequence):
        log.append(numbered(77 + 2))


def test_a_coordinators_batch_has_no_sequence_but_is_fenced(log):
    log.append(numbered(-1, epoch=2))
    log.append(numbered(-1, epoch=2))
    with pytest.raises(ProducerFenced):
        log.append(numbered(-1, epoch=1))


def test_a_transaction_is_open_until_its_marker(log):
    log.append(numbered(0, transactional=True))
    log.append(numbered(1, transactional=True))
    log.append(numbered(0, producer_id=2, transactional=True))
    assert log.table.stable_offset(3) == 0
    with pytest.raises(TransactionStateInvalid):
        log.append(numbered(2))
    log.append(marker_of(1, commits=True))
    assert [log.table.stable_offset(durable) for durable in (3, 4)] == [0, 2]
    log.append(marker_of(2, commits=True))
    assert [log.table.stable_offset(durable) for durable in (4, 5)] == [2, 5]


def test_a_marker_with_a_new_epoch_starts_the_sequence_again(log):
    """Transactions of version 2 bump the epoch with the marker (KIP-890)."""
    log.append(numbered(0, transactional=True))
    log.append(marker_of(1, commits=True, epoch=1))
    with pytest.raises(OutOfOrderSequence):
        log.append(numbered(1, epoch=1, transactional=True))
    log.append(numbered(0, epoch=1, transactional=True))


def test_roll_back_forgets_what_was_not_written(log):
    log.append(numbered(0))
    table = log.table
    table.admit(numbered(1), 1)
    table.admit(numbered(2), 2)
    table.admit(numbered(0, producer_id=2, transactional=True), 3)
    table.roll_back()
    assert table.get(2) is None
    assert table.stable_offset(4) == 4
    assert log.append(numbered(1)) == (1, True)


def test_the_longest_unused_producer_makes_room(log):
    log.table = table = ProducerTable(producers_max=2)
    log.append(numbered(0, producer_id=1))
    log.append(numbered(0, producer_id=2))
    log.append(numbered(1, producer_id=1))
    log.append(numbered(0, producer_id=3))
    assert sorted(producer_id for producer_id, _ in table) == [1, 3]


def test_a_producer_with_an_open_transaction_is_never_forgotten(log):
    log.table = table = ProducerTable(producers_max=1)
    log.append(numbered(0, producer_id=1, transactional=True, timestamp=5))
    log.append(numbered(0, producer_id=2, timestamp=5))
    table.expire(before_ms=6)
    assert [producer_id for producer_id, _ in table] == [1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:9],
        lambda data: data[:-1],
        lambda data: b"\0\2" + data[2:],
        lambda data: data[:30] + bytes((data[30] ^ 1,)) + data[31:],
    ],
    ids=["short", "cut", "version", "bit"],
)
def test_a_damaged_snapshot_is_refused(log, spoil):
    log.append(numbered(0))
    with pytest.raises(CorruptBatch):
        ProducerTable().restore(spoil(log.table.snapshot()))


class ProducersAgainstAModel(RuleBasedStateMachine):
    """The model keeps every batch ever stored and looks the answer up."""

    def __init__(self):
        super().__init__()
        self.log = Log()
        self.stored = {1: [], 2: []}  # (epoch, first, last, offset), of each producer
        self.batches = []  # all, in order of offset

    def expected(self, producer_id, epoch, first, last):
        history = self.stored[producer_id]
        if not history:
            return "stored"
        newest = history[-1][0]
        if epoch < newest:
            return ProducerFenced
        if epoch > newest:
            return "stored" if first == 0 else OutOfOrderSequence
        same = [entry for entry in history if entry[0] == epoch]
        for entry in same[-5:]:
            if entry[1:3] == (first, last):
                return entry[3]
        wanted = 0 if same[-1][2] == SEQUENCE_MAX else same[-1][2] + 1
        return "stored" if first == wanted else OutOfOrderSequence

    @rule(
        producer_id=st.sampled_from([1, 2]),
        epoch_step=st.sampled_from([0, 0, 0, 0, 1, -1]),
        back=st.integers(-1, 7),
        count=st.integers(1, 3),
        jump=st.booleans(),
    )
    def send(self, producer_id, epoch_step, back, count, jump):
        history = self.stored[producer_id]
        epoch = max(0, (history[-1][0] if history else 0) + epoch_step)
        first = 0
        if not history and jump:
            first = SEQUENCE_MAX - 1
        if history and epoch_step == 0:
            first = (history[-1][2] + 1) & SEQUENCE_MAX
            if back == -1:
                first = (first + 1) & SEQUENCE_MAX
            elif 0 < back <= len(history):
                epoch, first, last, _ = history[-back]
                count = ((last - first) & SEQUENCE_MAX) + 1
        last = (first + count - 1) & SEQUENCE_MAX
        expected = self.expected(producer_id, epoch, first, last)
        batch = numbered(first, count=count, epoch=epoch, producer_id=producer_id)
        if isinstance(expected, type):
            with pytest.raises(expected):
                self.log.append(batch)
        elif expected == "stored":
            offset, stored = self.log.append(batch)
            assert stored
            history.append((epoch, first, last, offset))
            self.batches.append(batch)
        else:
            assert self.log.append(batch) == (expected, False)

    @rule()
    def restart_from_snapshot(self):
        table = ProducerTable()
        table.restore(self.log.table.snapshot())
        self.log.table = table

    @rule(at=st.floats(0, 1))
    def restart_by_replay(self, at):
        """From a snapshot of some earlier time, and the batches since."""
        count = int(at * len(self.batches))
        early = ProducerTable()
        for batch in self.batches[:count]:
            early.replay(batch)
        table = ProducerTable()
        table.restore(early.snapshot())
        for batch in self.batches[count:]:
            table.replay(batch)
        self.log.table = table

    @invariant()
    def at_most_five_are_kept(self):
        assert all(len(producer.batches) <= 5 for _, producer in self.log.table)


TestProducersAgainstAModel = ProducersAgainstAModel.TestCase
