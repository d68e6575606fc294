"""Every file of a data directory damaged in every way that chance finds, one at a time.

Bits flipped, stretches zeroed, ends cut off, garbage appended. Then the log is opened again:
what is only a hint costs no record; of a segment nothing is lost but the batches that were hit;
the catalog is refused in a sentence; and never is anything read that was not written, nor does
anything fail in another way than it may. A seed repeats it: ISTHMUS_FLIP_SEED.
"""

from __future__ import annotations

import logging
import os
import random
from typing import NamedTuple

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, read_batches
from tests.storage.disk import SECTOR, Directory, File, SimDisk
from tests.storage.life import Life
from tests.storage.promises import DIRECTORY, READ_BYTES, SETTINGS

from isthmus.errors import ConfigError, CorruptBatch
from isthmus.record.batch import split_batches
from isthmus.storage.local.log import LocalLog

SEED = int(os.environ.get("ISTHMUS_FLIP_SEED", "50"))
LIVES = 3
DAMAGES_PER_FILE = 3
EPOCH = slice(12, 16)  # of a batch; lies outside its checksum, and says nothing of its records


class Damage(NamedTuple):
    """What was done to a file: the bytes from `start` to `end` are not what they were."""

    kind: str
    start: int
    end: int


def damage(data: bytearray, chance: random.Random) -> Damage:
    kind = chance.choice(("flip", "flip", "zero", "cut", "grow"))
    size = len(data)
    if kind == "grow" or size == 0:
        data += chance.choice((bytes(100), chance.randbytes(100), bytes(5000)))
        return Damage("grow", size, size)
    start = chance.randrange(size)
    if kind == "cut":
        del data[start:]
        return Damage(kind, start, size)
    if kind == "flip":
        data[start] ^= 1 << chance.randrange(8)
        return Damage(kind, start, start + 1)
    end = min(size, start + chance.choice((1, 30, 600)))
    data[start:end] = bytes(end - start)
    return Damage(kind, start, end)


def files_of(directory: Directory, path: str = "") -> dict[str, File]:
    """Return the files below a directory by their paths in it."""
    found: dict[str, File] = {}
    for name, node in directory.names.items():
        if isinstance(node, File):
            found[f"{path}{name}"] = node
        else:
            found |= files_of(node, f"{path}{name}/")
    return found


def data_files(disk: SimDisk) -> dict[str, File]:
    return {path.removeprefix("disk/data/"): file for path, file in files_of(disk.root).items()}


def readable(partition) -> dict[int, bytes]:
    """Return all batches that a reader comes to who steps over what cannot be read."""
    found: dict[int, bytes] = {}
    offset = partition.start_offset
    while offset < partition.end_offset:
        try:
            batches = read_batches(partition, offset, READ_BYTES)
        except CorruptBatch:
            offset += 1
            continue
        for batch in batches:
            batch.verify()
            found[batch.base_offset] = bytes(batch.data)
            offset = batch.next_offset
    return found


def everything(log: LocalLog) -> dict[tuple[str, int], dict[int, bytes]]:
    return {
        (name, partition.index): readable(partition)
        for name, topic in log.topics.items()
        for partition in topic.partitions
    }


def without_epoch(raw: bytes) -> bytes:
    return raw[: EPOCH.start] + raw[EPOCH.stop :]


def hit_by(path: str, data: bytes, done: Damage) -> set[int]:
    """Return the base offsets of the batches of a segment file that were damaged.

    The batch behind the damage counts as hit, too, where its base offset lies across the border
    of two sectors and it is the last: nobody can say then whether the offset is right.
    """
    hit: set[int] = set()
    position, doubtful = 0, -1
    for batch in split_batches(data) if path.endswith(".log") else ():
        if position < done.end and done.start < position + batch.size:
            hit.add(batch.base_offset)
        doubtful = batch.base_offset if position % SECTOR > SECTOR - EPOCH.start else -1
        position += batch.size
    return hit | {doubtful} if hit else hit


def check(disk: SimDisk, path: str, done: Damage, hit: set[int], expected) -> None:
    """Open the damaged log and compare; `expected` is all there was."""
    try:
        log = LocalLog(DIRECTORY, SimRuntime(), disk, SETTINGS)
    except ConfigError as error:
        assert path in ("isthmus-catalog", "meta.properties"), f"not opened: {error}"
        assert len(str(error).splitlines()) == 1
        return
    assert path != "isthmus-catalog", "a damaged list of log topics was believed"
    place = path.partition("/")[0].rpartition("-")
    for (name, index), batches in everything(log).items():
        whole = expected[name, index]
        if path == "log-start-offset-checkpoint":
            continue  # it alone says where a partition begins
        for base, raw in batches.items():
            assert without_epoch(raw) == without_epoch(whole[base]), "was never written"
        missing = set(whole) - set(batches)
        if (name, str(index)) == (place[0], place[2]):
            missing -= hit
        assert not missing, f"{name}-{index} lost {sorted(missing)}"
    for topic in log.topics.values():
        for partition in topic.partitions:
            answer = Answer()
            partition.append(batch_of(b"after", keys=[b"k"]), answer)
            log.flush()
            log._runtime.settle()
            assert answer.is_durable
    before = everything(log)
    log.close()
    again = LocalLog(DIRECTORY, SimRuntime(1), disk, SETTINGS)
    for place, batches in everything(again).items():
        assert before[place].items() <= batches.items()
    again.close()


@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("seed", range(SEED, SEED + LIVES))
def test_damage_costs_no_more_than_what_it_hit(seed, clean):
    logging.disable()
    try:
        chance = random.Random(seed)
        life = Life(seed, SimDisk())
        life.live(90, close=clean)
        disk = life.disk if clean else life.disk.kill()
        expected = everything(LocalLog(DIRECTORY, SimRuntime(), disk.copy(), SETTINGS))
        for path, file in data_files(disk).items():
            for _ in range(DAMAGES_PER_FILE):
                broken = disk.copy()
                whole = bytes(file.data)
                done = damage(data_files(broken)[path].data, chance)
                try:
                    check(broken, path, done, hit_by(path, whole, done), expected)
                except Exception as error:
                    raise AssertionError(f"life {seed}, {path}, {done}: {error!r}") from error
    finally:
        logging.disable(logging.NOTSET)
