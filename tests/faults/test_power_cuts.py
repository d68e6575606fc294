"""Every legal state that a power cut or a kill can leave, as far as chance finds them.

A life of a log is recorded: every write, truncate, fdatasync, rename and fsync of a directory,
in order, with what had been promised at each moment. Then the recording is played again, and
at chosen moments the power is cut (see `SimDisk`: pages and sectors lost or reordered, lengths
ahead of data, names that never reached the disk) or the process killed in the middle of a
write. Each state is opened and compared with what was promised by then; some are cut once more
while they are opened. A seed repeats it all: ISTHMUS_POWER_SEED, and ISTHMUS_POWER_LIVES says
how many.
"""

from __future__ import annotations

import logging
import os
import random
from typing import TYPE_CHECKING

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, contents
from tests.storage.disk import SECTOR, File, SimDisk
from tests.storage.life import Life
from tests.storage.promises import DIRECTORY, SETTINGS, Promises, examine, stored

from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

if TYPE_CHECKING:
    from tests.storage.disk import Replay

SEED = int(os.environ.get("ISTHMUS_POWER_SEED", "1000"))
LIVES = int(os.environ.get("ISTHMUS_POWER_LIVES", "20"))
STEPS = 150
STATES_PER_LIFE = 80


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(SEED, SEED + LIVES))
def test_what_was_promised_is_there_after_any_crash(seed):
    disk = SimDisk()
    journal = disk.record()
    Life(seed, disk).live(STEPS)
    chance = random.Random(seed)
    moments = [at for at, (node, _, _) in enumerate(journal.entries) if node is not None]
    chosen = set(chance.sample(moments, min(STATES_PER_LIFE, len(moments))))
    replay, promises = journal.replay(), Promises()
    for moment, (node, change, arguments) in enumerate(journal.entries):
        if node is None:
            promises.apply(arguments[0])
        elif moment in chosen and change == "write" and chance.random() < 0.3:
            crash(replay, promises, seed, moment, chance, unfinished=(node, *arguments))
            replay.apply(node, change, arguments)
        else:
            replay.apply(node, change, arguments)
            if moment in chosen:
                crash(replay, promises, seed, moment, chance)


def crash(replay: Replay, promises, seed, moment, chance, unfinished=None):
    """End it here, one way or the other, and see what a start makes of it."""
    power_cut, cut_seed = chance.random() < 0.8, chance.getrandbits(32)
    if unfinished is None:
        disk = replay.cut_power(cut_seed) if power_cut else replay.kill()
    else:  # a part of a write, as a kill in its middle leaves it
        disk = replay.kill()
        node, position, data = unfinished
        number = node.number
        file = replay.twin_in(disk.root, number)
        if isinstance(file, File):
            file.write(position, data[: chance.randrange(len(data))] if data else b"")
        if power_cut:
            disk = disk.cut_power(cut_seed)
    again = chance.random() < 0.3
    try:
        if again:
            disk = cut_while_opening(disk, chance)
        examine(disk, promises, power_cut=power_cut or again, seed=cut_seed)
    except Exception as error:
        end = f"power cut {cut_seed}" if power_cut else "kill"
        raise AssertionError(
            f"life {seed}, moment {moment}, {end}{', cut again' if again else ''}: {error}"
        ) from error


def cut_while_opening(disk: SimDisk, chance: random.Random) -> SimDisk:
    """Start on a disk and cut the power some time before, or just after, the start is over."""
    journal = disk.record()
    log = LocalLog(DIRECTORY, SimRuntime(), disk, SETTINGS)
    shown = {
        (topic.topic_id, partition.index): stored(partition)
        for topic in log.topics.values()
        for partition in topic.partitions
    }
    replay = journal.replay()
    moments = len(journal.entries)
    moment = moments if chance.random() < 0.3 else chance.randrange(moments + 1)
    for entry in journal.entries[:moment]:
        replay.apply(*entry)
    after = replay.cut_power(chance.getrandbits(32))
    if moment == moments:  # all that was shown to readers is as good as acknowledged
        log = LocalLog(DIRECTORY, SimRuntime(), after.copy(), SETTINGS)
        for topic in log.topics.values():
            for partition in topic.partitions:
                expected = shown[topic.topic_id, partition.index].items()
                assert expected <= stored(partition).items(), "shown, and gone"
    return after


# --- what this has found, each by itself ------------------------------------------------------


class Server:
    """A log on a simulated disk with one log topic at a time."""

    def __init__(self, disk=None, settings=SETTINGS):
        self.disk = disk or SimDisk()
        self.runtime = SimRuntime()
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, settings)

    def put(self, *values):
        for value in values:
            answer = Answer()
            self.partition.append(batch_of(value), answer)
            self.log.flush()
            self.runtime.settle()
            assert answer.is_durable

    @property
    def partition(self):
        return self.log.partition("t", 0)


def test_a_log_topic_does_not_inherit_the_recovery_point_of_one_that_had_its_name():
    server = Server()
    server.log.create("t", 1, {})
    server.put(*[b"%04d" % number + bytes(1000) for number in range(10)])
    assert server.partition.durable_recovery_point > 2
    server.log.delete("t")
    server.runtime.settle()
    server.log.create("t", 1, {})
    server.put(b"new-0", b"new-1")
    disk = server.disk.kill()
    tail = disk.file(DIRECTORY / "t-0" / f"{0:020d}.log")
    tail.write(len(tail.data), b"torn")
    again = Server(disk)
    assert contents(again.partition) == [b"new-0", b"new-1"]
    again.put(b"new-2")
    assert contents(Server(again.disk.kill()).partition) == [b"new-0", b"new-1", b"new-2"]


@pytest.mark.parametrize("crash_seed", range(40))
def test_the_files_of_a_deleted_log_topic_are_never_those_of_its_successor(crash_seed):
    server = Server()
    server.log.create("t", 1, {})
    server.put(b"old")
    server.log.delete("t")
    server.runtime.settle()  # the files are gone by now, each by itself
    disk = server.disk.cut_power(crash_seed)
    again = Server(disk)
    assert "t" not in again.log.topics
    again.log.create("t", 1, {})
    assert contents(again.partition) == []


def test_a_directory_that_does_not_say_whose_it_is_is_not_given_to_a_new_log_topic():
    server = Server()
    server.log.create("t", 1, {})
    server.put(b"old")
    disk = server.disk
    server.log.delete("t")  # and nothing of it is removed yet
    server.log.close()
    aside = next(name for name in disk.names(DIRECTORY) if name.endswith("-delete"))
    disk.rename(DIRECTORY / aside, DIRECTORY / "t-0")
    disk.remove(DIRECTORY / "t-0" / "partition.metadata")
    again = Server(disk.kill())
    again.log.create("t", 1, {})
    assert contents(again.partition) == []


def test_a_base_offset_that_is_torn_at_a_sector_border_is_not_believed():
    """It lies outside the checksum: what is left of it may name any offset."""
    no_copies = LocalSettings(journal_files_max=0)
    server = Server(settings=no_copies)
    server.log.create("t", 1, {})
    border = 4 * SECTOR
    filler = next(size for size in range(border) if batch_of(bytes(size)).size == border - 8)
    server.put(bytes(filler), b"whose base offset ends where a sector does")
    disk = server.disk.kill()
    tail = disk.file(DIRECTORY / "t-0" / f"{0:020d}.log")
    tail.data[:border] = bytes(border)
    again = Server(disk, no_copies)
    assert contents(again.partition) == []


def test_the_end_of_one_round_answers_nobody_who_waits_for_the_next():
    server = Server()
    server.log.create("t", 1, {})
    server.put(b"0", b"1", b"2")
    answers = []
    server.partition.delete_before(1, lambda error: answers.append((1, error)))
    server.runtime.turn()
    server.partition.delete_before(2, lambda error: answers.append((2, error)))
    work, done = server.runtime.offloaded.popleft()
    done(work(), None)
    assert answers == [(1, None)]
    assert Server(server.disk.copy()).partition.start_offset == 1
    server.runtime.settle()
    assert answers == [(1, None), (2, None)]
    assert Server(server.disk.kill()).partition.start_offset == 2


def test_a_start_offset_never_goes_back_with_the_next_round():
    server = Server()
    server.log.create("t", 1, {})
    server.put(b"0", b"1", b"2")
    answers = []
    server.partition.delete_before(2, answers.append)
    server.runtime.turn()
    server.partition.delete_before(1, answers.append)
    server.runtime.settle()
    assert answers == [None, None]
    assert server.partition.start_offset == 2
    assert Server(server.disk.kill()).partition.start_offset == 2


def test_a_start_finds_nothing_left_but_what_was_deleted():
    """The end of the log is gone with the power, and with it all that was not deleted."""
    server = Server()
    server.log.create("t", 1, {"isthmus.durability": "written"})
    server.put(b"0", b"1", b"2", b"3")
    answers = []
    server.partition.delete_before(3, answers.append)
    server.runtime.settle()
    assert answers == [None]
    disk = server.disk.kill()
    tail = disk.file(DIRECTORY / "t-0" / f"{0:020d}.log")
    size = len(tail.data) // 4
    tail.write(2 * size, bytes(2 * size))
    again = Server(disk)
    assert (again.partition.start_offset, again.partition.end_offset) == (3, 3)
    again.put(b"3 again")
    assert contents(Server(again.disk.kill()).partition) == [b"3 again"]
