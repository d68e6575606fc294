"""Compaction that is cut short: by the end of the process, of the power, or by the disk.

A compaction is recorded change by change; then at every moment of it the power is cut or the
process killed, and what a start finds is held against the model. The same with every single
call of it that fails.
"""

from __future__ import annotations

import errno
import logging
import random

import pytest
from tests.sim import SimRuntime
from tests.storage.compacting import DIRECTORY, SETTINGS, Topic, check

from isthmus.storage.local.compaction import RETRY_MS
from isthmus.storage.local.log import LocalLog

SEEDS = (0, 1)


@pytest.fixture(autouse=True)
def _few_words():
    """Only what is an error is noted."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def lively(seed) -> Topic:
    """Return a topic with all that compaction has to do with, once compacted already."""
    chance = random.Random(seed)
    topic = Topic()

    def pairs():
        keys = [b"a", b"b", b"c", chance.randbytes(1)]
        values = [None, chance.randbytes(20), chance.randbytes(70)]
        return [(chance.choice(keys), chance.choice(values)) for _ in range(3)]

    for turn in range(3):
        for _ in range(5):
            topic.put(pairs(), compression=chance.randrange(5))
            topic.put(pairs(), producer_id=1)
            topic.put(pairs(), producer_id=2, transactional=True)
            topic.put(pairs(), producer_id=3, transactional=True)
            topic.end_transaction(2, commits=True)
            topic.end_transaction(3, commits=False)
        topic.put([(b"roll", bytes(1150))])
        topic.put([(b"roll", bytes(1150))])
        if turn < 2:
            topic.compact()
            topic.age()
    return topic


def reopened(topic, disk) -> Topic:
    """The same model, on another disk."""
    other = object.__new__(Topic)
    other.__dict__ |= topic.__dict__
    other.runtime = SimRuntime(now_ms=topic.runtime.now_ms())
    other.start(disk)
    return other


def compact_to_the_end(topic) -> None:
    topic.compact()
    check(topic, compacted=True)
    names = topic.disk.names(DIRECTORY / "t-0")
    assert not [name for name in names if name.endswith((".cleaned", ".swap", ".deleted"))]
    bases = [segment.base_offset for segment in topic.partition.segments]
    assert sum(name.endswith(".log") for name in names) == len(bases)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_end_at_any_moment_leaves_the_old_or_the_new(seed, caplog):
    topic = lively(seed)
    producers, size = topic.producers(), topic.partition.size_bytes
    journal = topic.disk.record()
    topic.compact()
    assert topic.partition.size_bytes < size
    replay, chance = journal.replay(), random.Random(seed)
    for node, change, arguments in journal.entries:
        assert node is not None
        replay.apply(node, change, arguments)
        ends = [replay.cut_power(chance.getrandbits(32))]
        if chance.random() < 0.3:
            ends.append(replay.kill())
        for disk in ends:
            after = reopened(topic, disk)
            check(after)
            assert after.producers() == producers
            if chance.random() < 0.1:
                compact_to_the_end(after)
            after.log.close()
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_end_while_a_start_finishes_a_swap(seed):
    topic, chance = lively(seed), random.Random(seed)
    journal = topic.disk.record()
    topic.compact()
    replay, decided = journal.replay(), []
    for node, change, arguments in journal.entries:
        replay.apply(node, change, arguments)
        disk = replay.kill()
        if any(name.endswith(".swap") for name in disk.names(DIRECTORY / "t-0")):
            decided.append(disk)
    assert decided
    for disk in chance.sample(decided, 4):
        recovery = disk.record()
        LocalLog(DIRECTORY, SimRuntime(), disk, SETTINGS)
        replay = recovery.replay()
        for entry in recovery.entries:
            replay.apply(*entry)
            after = reopened(topic, replay.cut_power(chance.getrandbits(32)))
            check(after)
            after.log.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_call_that_fails_leaves_the_log_as_it_was(error):
    topic = lively(error)
    disk = topic.disk.copy()
    calls = topic.compact()
    for number in range(1, calls + 1):
        if number > 60 and number % 5:
            continue  # one swap is like the other
        other = reopened(topic, disk.copy())
        other.disk.fail_with = error
        other.compact(fail_at=number)
        check(other)
        other.put([(b"a", b"still writable")])
        check(other)
        other.restart(clean=number % 2 == 0)
        check(other)
        compact_to_the_end(other)
        assert other.disk.open_count < 20


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_swap_that_an_error_has_stopped_goes_on_without_a_restart(count):
    """One call fails, or several in a row: then what was decided is not taken back either."""
    topic = lively(count)
    disk = topic.disk.copy()
    calls = topic.compact()
    stopped = 0
    for number in range(calls - 50, calls + 1, 2):
        other = reopened(topic, disk.copy())
        other.disk.fail_count = count
        other.compact(fail_at=number)
        was_swapping = other.partition.segments.is_swapping
        stopped += was_swapping
        check(other)
        if was_swapping:
            other.put([(b"a", b"still writable")])
        other.compact()
        check(other)
        assert not other.partition.segments.is_swapping
        other.runtime.advance(RETRY_MS)
        other.compact()
        check(other, compacted=True)
        other.restart(clean=True)  # takes away what could not be removed
        compact_to_the_end(other)
        other.log.close()
        assert other.disk.open_count == 0
    assert stopped > 3


def test_a_log_topic_deleted_with_a_stopped_swap_leaves_nothing():
    topic = lively(3)
    disk = topic.disk.copy()
    calls = topic.compact()
    for number in range(calls - 40, calls + 1, 2):
        other = reopened(topic, disk.copy())
        other.disk.fail_count = 3
        other.compact(fail_at=number)
        other.log.delete("t")
        other.runtime.advance(RETRY_MS)
        other.log.close()
        assert other.disk.open_count == 0
