"""Error at the n-th file operation, for every n: nothing is lost, nothing hangs."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents
from tests.storage.disk import SimDisk
from tests.storage.life import Life
from tests.storage.promises import examine

from isthmus.errors import ConfigError, IsthmusError, StorageError, SyncFailed
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

SEED = int(os.environ.get("ISTHMUS_FAULT_SEED", "10"))
DIRECTORY = Path("/disk/data")
SETTINGS = LocalSettings(
    tail_bytes_max=2000,
    tails_bytes_max=3000,
    open_segments_max=2,
    checkpoint_bytes=4000,
    journal_file_bytes=16 * 1024,
    journal_files_max=3,
)
SMALL = {"internal.segment.bytes": "1500", "index.interval.bytes": "200"}


class History:
    """One life of a log: everything it was asked and everything it answered."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, bytes], Answer] = {}
        self.created: set[str] = set()
        self.deleted: set[str] = set()
        self.unknown: set[str] = set()  # deleted or not: only the disk knows

    def live(self, disk: SimDisk, *, close: bool = True) -> None:
        """Use the log in every way, going on after errors like a server that stays up."""
        runtime = SimRuntime()
        try:
            log = LocalLog(DIRECTORY, runtime, disk, SETTINGS)
        except (ConfigError, IsthmusError):
            return
        for name in ("a", "b", "c"):
            with suppress(IsthmusError):
                log.create(name, 1, SMALL)
                self.created.add(name)
        for turn in range(8):
            for name in ("a", "b", "c"):
                partition = log.partition(name, 0)
                if partition is not None:
                    self.append(partition, name, turn)
            log.flush()
            if turn % 3:
                runtime.settle()
            if turn == 5 and "c" in log.topics:
                self.delete(log, "c")
        for name in log.topics:
            with suppress(IsthmusError):
                contents(log.partition(name, 0))
        runtime.settle()
        if close:
            log.close()
            runtime.settle()

    def delete(self, log: LocalLog, name: str) -> None:
        try:
            log.delete(name)
            self.deleted.add(name)
        except SyncFailed:
            self.unknown.add(name)
        except IsthmusError:
            pass

    def append(self, partition, name: str, turn: int) -> None:
        for part in range(2):
            value = b"%s-%d-%d-" % (name.encode(), turn, part) + b"x" * 150
            self.answers[name, value] = answer = Answer()
            numbered = {"producer_id": 5, "epoch": 0, "sequence": 2 * turn + part}
            partition.append(batch_of(value, **(numbered if name == "a" else {})), answer)

    def check(self, disk: SimDisk, *, power_cut: bool = False) -> None:
        """Open what is left, on a disk that works, and compare with what was promised.

        A power cut may bring back the first half of a failed write, if the cut that followed it
        was not synced; so then a refused batch may be there. Its producer will send it again.
        """
        for (name, value), answer in self.answers.items():
            assert answer.events, f"{name}: {value[:8]} was never answered"
            assert answer.events[-1] != ("written", answer.base_offset), "and never durable"
        disk.fail_at = 0
        log = LocalLog(DIRECTORY, SimRuntime(seed=1), disk, SETTINGS)
        for name in self.created - self.deleted - self.unknown:
            assert name in log.topics
        assert not self.deleted & set(log.topics)
        for name, topic in log.topics.items():
            values = contents(topic.partitions[0])
            assert len(values) == len(set(values))
            for (topic_name, value), answer in self.answers.items():
                if topic_name != name:
                    continue
                if answer.is_durable:
                    assert values[answer.base_offset] == value
                elif answer.base_offset is None and not power_cut:
                    assert value not in values, "refused, and there all the same"
        log.close()


def calls_of_a_life() -> int:
    disk = SimDisk()
    history = History()
    history.live(disk)
    history.check(disk.kill())
    return disk.calls


CALLS = calls_of_a_life()


def lives(**fault):
    """Live once for every call, each time with another one failing."""
    for number in range(1, CALLS + 1):
        disk = SimDisk()
        disk.fail_at = number
        for name, value in fault.items():
            setattr(disk, name, value)
        history = History()
        history.live(disk)
        yield number, disk, history


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("fault", "crash"),
    [
        ({"fail_with": errno.EIO}, "power"),
        ({"fail_with": errno.ENOSPC}, "kill"),
        ({"fail_with": errno.ENOSPC, "short": True}, "kill"),
        ({"fail_with": errno.ENOSPC, "short": True}, "power"),
        ({"fail_with": errno.EIO, "fail_count": 10}, "power"),
        ({"fail_with": errno.ENOSPC, "fail_count": 10**9}, "kill"),
    ],
    ids=["EIO", "ENOSPC", "short", "short, power cut", "ten EIO", "ENOSPC for good"],
)
def test_nothing_acknowledged_is_lost(fault, crash):
    for number, disk, history in lives(**fault):
        after = disk.kill() if crash == "kill" else disk.cut_power(seed=number)
        history.check(after, power_cut=crash == "power")


def test_a_start_that_fails_can_be_tried_again():
    """A crash, then an error at every call of the start after it, then another crash."""
    history, disk = History(), SimDisk()
    history.live(disk, close=False)
    number = 0
    while True:
        number += 1
        after = disk.copy().cut_power(seed=7)
        after.fail_at = number
        with suppress(ConfigError, StorageError):
            LocalLog(DIRECTORY, SimRuntime(), after, SETTINGS)
        if after.calls < number:
            break
        history.check(after.cut_power(seed=number), power_cut=True)
    assert number > 50


def test_the_life_is_worth_failing():
    assert 200 < CALLS < 2000


# --- random lives: many partitions, rolls, producers, log topics that come and go -------------

LIFE_STEPS = 20
CALLS_WORTH_FAILING = range(100, 250)  # less is no life, more is much the same again


def life_with(seed, **fault):
    """Live a random life on a disk with a fault; return the disk and the life."""
    disk = SimDisk()
    for name, value in fault.items():
        setattr(disk, name, value)
    life = Life(seed, disk)
    life.live(LIFE_STEPS)
    return life.disk, life


@pytest.mark.parametrize(
    ("seed", "fault", "crash"),
    [
        (1, {"fail_with": errno.EIO}, "kill"),
        (2, {"fail_with": errno.EIO}, "power"),
        (3, {"fail_with": errno.ENOSPC}, "kill"),
        (4, {"fail_with": errno.EROFS, "fail_count": 10**9}, "kill"),
        (5, {"fail_with": errno.ENOSPC, "fail_count": 25}, "kill"),
        (6, {"fail_with": errno.ENOSPC, "short": True}, "kill"),
        (7, {"fail_with": errno.EIO, "short": True}, "power"),
    ],
    ids=["EIO", "EIO, power cut", "ENOSPC", "read-only", "25 ENOSPC", "short", "short, power"],
)
def test_a_random_life_keeps_its_promises_whatever_call_fails(seed, fault, crash):
    seed += SEED
    while (disk := life_with(seed)[0]).calls not in CALLS_WORTH_FAILING:
        seed += 1000
    for number in range(1, disk.calls + 1):
        try:
            broken, life = life_with(seed, fail_at=number, **fault)
            power_cut = crash == "power"
            after = broken.cut_power(number) if power_cut else broken.kill()
            examine(after, life.promises, power_cut=power_cut, seed=number)
        except Exception as error:
            raise AssertionError(f"life {seed}, call {number} failed: {error}") from error
