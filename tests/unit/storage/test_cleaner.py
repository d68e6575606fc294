"""The rules of compaction, batch by batch."""

from __future__ import annotations

from tests.storage.batches import NOW_MS, batch_of

from isthmus.record.markers import EndMarker, build_marker
from isthmus.record.rebuild import delete_horizon
from isthmus.storage.aborted import AbortedTransaction
from isthmus.storage.local.cleaner import Cleaner, Transactions
from isthmus.storage.local.offset_map import OffsetMap
from isthmus.storage.producers import ProducerTable

RETENTION_MS = 1000


class Log:
    """Batches in the making, and one pass after the other over them."""

    def __init__(self):
        self.batches = []
        self.aborted = []
        self.producers = ProducerTable()
        self.now_ms = NOW_MS

    def add(self, batch):
        end = self.batches[-1].next_offset if self.batches else 0
        batch.stamp(end, 0)
        self.batches.append(batch)
        self.producers.replay(batch)
        self.aborted += self.producers.aborted
        self.producers.settle()

    def put(self, *pairs, **how):
        keys, values = zip(*pairs, strict=True)
        self.add(batch_of(*values, keys=keys, **how))

    def end(self, producer_id, *, commits):
        self.add(build_marker(producer_id, 0, EndMarker(commits, 0), self.now_ms))

    def clean(self, latest=2**40):
        newest = OffsetMap(1 << 16, 1000)
        for batch in self.batches:
            for record in () if batch.is_control else batch.records():
                if record.key is not None and record.offset <= latest:
                    newest.put(record.key, record.offset)
        transactions = Transactions(self.aborted)
        cleaner = Cleaner(
            newest,
            latest,
            transactions,
            dict(self.producers),
            end_offset=self.batches[-1].next_offset,
            now_ms=self.now_ms,
            retention_ms=RETENTION_MS,
        )
        left = [cleaner.clean(batch) for batch in self.batches]
        self.batches = [batch for batch in left if batch is not None]
        self.aborted = list(transactions.take_kept())

    def age(self):
        self.now_ms += RETENTION_MS

    @property
    def left(self):
        """(base offset, count of records) of each batch."""
        return [(batch.base_offset, batch.count) for batch in self.batches]


def test_the_last_batch_of_all_stays_even_if_it_is_empty():
    log = Log()
    log.put((b"a", b"1"))
    log.put((b"b", None))
    log.clean()
    log.age()
    log.clean()
    assert log.left == [(0, 1), (1, 0)]
    log.put((b"c", b"1"))
    log.clean()
    assert log.left == [(0, 1), (2, 1)]


def test_the_last_batch_of_a_producer_stays_until_it_is_forgotten():
    log = Log()
    log.put((b"a", b"1"), producer_id=1, epoch=0, sequence=0)
    log.put((b"a", b"2"), producer_id=1, epoch=0, sequence=1)
    log.put((b"a", b"3"), (b"z", b""))
    log.clean()
    assert log.left == [(1, 0), (2, 2)]
    assert log.batches[0].last_sequence == 1
    log.producers.clear()
    log.clean()
    assert log.left == [(2, 2)]


def test_what_lies_behind_what_was_learnt_stays():
    log = Log()
    for number in range(4):
        log.put((b"a", b"%d" % number))
    log.clean(latest=1)
    assert log.left == [(1, 1), (2, 1), (3, 1)]


def test_a_record_without_key_goes():
    log = Log()
    log.put((None, b"1"), (b"a", b"2"))
    log.put((b"z", b""))
    log.clean()
    assert [(each.offset, each.key) for each in log.batches[0].records()] == [(1, b"a")]


def test_a_committed_transaction_keeps_its_marker_and_then_as_long_as_a_tombstone():
    log = Log()
    log.put((b"a", b"1"), producer_id=1, epoch=0, sequence=0, transactional=True)
    log.end(1, commits=True)
    log.put((b"a", b"2"))
    log.put((b"z", b""))
    log.producers.clear()  # nobody asks for its sequence numbers any more
    log.clean()
    assert log.left == [(1, 1), (2, 1), (3, 1)]  # the batch is gone, and was there just now
    assert delete_horizon(log.batches[0]) is None
    log.clean()
    assert delete_horizon(log.batches[0]) == log.now_ms + RETENTION_MS
    log.now_ms += RETENTION_MS - 1
    log.clean()
    assert log.left == [(1, 1), (2, 1), (3, 1)]
    log.now_ms += 1
    log.clean()
    assert log.left == [(2, 1), (3, 1)]


def test_an_aborted_transaction_goes_and_takes_no_place_from_others():
    log = Log()
    log.put((b"a", b"kept"))
    log.put((b"a", b"aborted"), producer_id=1, epoch=0, sequence=0, transactional=True)
    log.end(1, commits=False)
    log.put((b"b", b"1"), producer_id=1, epoch=0, sequence=1, transactional=True)
    log.end(1, commits=True)
    log.put((b"z", b""))
    transactions = Transactions(log.aborted)
    assert [transactions.is_aborted(log.batches[at]) for at in (0, 1)] == [False, True]
    assert transactions.is_needless(log.batches[2]) is False
    assert list(transactions.take_kept()) == [AbortedTransaction(1, 1, 2, 3)]
    assert transactions.is_aborted(log.batches[3]) is False


def test_the_last_batch_of_a_producer_keeps_the_marker_that_aborted_it():
    log = Log()
    log.put((b"a", b"1"), producer_id=1, epoch=0, sequence=0, transactional=True)
    log.end(1, commits=False)
    log.put((b"z", b""))
    for _ in range(3):
        log.clean()
        log.age()
    assert log.left == [(0, 0), (1, 1), (2, 1)]
    assert log.aborted == [AbortedTransaction(1, 0, 1, 2)]
    log.producers.clear()
    for _ in range(4):
        log.clean()
        log.age()
    assert (log.left, log.aborted) == ([(2, 1)], [])
