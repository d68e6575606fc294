"""Damage at the very end of what was on the disk for sure: it is no torn tail.

Whatever has happened to the last batches below the recovery point, their offsets are not given
again, the loss is told, and the log goes on behind them.
"""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from tests.storage.batches import read, read_batches
from tests.storage.test_recovery import SMALL, Server, numbers

from isthmus.errors import CorruptBatch
from isthmus.storage.local.audit import EPOCH_POSITION
from isthmus.storage.local.files import Files
from isthmus.storage.local.inspect import Inspection

COUNT = 10
BATCH_BYTES = 374  # of what `Server.fill` puts


def flip_last(path):
    data = bytearray(path.read_bytes())
    data[-10] ^= 0x10
    path.write_bytes(data)


def cut_last(path):
    os.truncate(path, path.stat().st_size - 40)


def cut_between(path):
    """The last batch is gone as if it had never been."""
    os.truncate(path, path.stat().st_size - BATCH_BYTES)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def remove(path):
    path.unlink()


def readable(partition):
    """Return the values that are left, up to the damage at the end."""
    values, offset = [], partition.start_offset
    with suppress(CorruptBatch):
        while offset < partition.end_offset:
            for batch in read_batches(partition, offset, 1 << 20):
                values += [record.value for record in batch.records()]
                offset = batch.next_offset
    return values


def filled(path, configs=SMALL):
    """Return a server of which everything is on the disk for sure."""
    server = Server(path / "data").create(configs)
    server.fill(COUNT + 1)
    server.runtime.advance(60_000)
    assert server.partition.durable_recovery_point == COUNT + 1
    return server


@pytest.mark.parametrize("closed", [False, True], ids=["killed", "closed"])
@pytest.mark.parametrize("harm", [flip_last, cut_last, cut_between, zero, remove])
@pytest.mark.parametrize("configs", [SMALL, {}], ids=["many segments", "one"])
def test_its_offsets_are_not_given_again(tmp_path, caplog, configs, harm, closed):
    server = filled(tmp_path, configs)
    end = COUNT + 1
    if closed:
        server.close()
    else:
        server.kill()
    harm(server.newest())
    server.start()
    left = readable(server.partition)
    assert 0 <= len(left) < end
    assert "are lost" in caplog.text
    assert server.partition.end_offset == end
    if server.partition.start_offset < end:
        with pytest.raises(CorruptBatch):
            read(server.partition, end - 1, 1000)
    for _ in range(2):
        server.kill()
        server.start()
        assert readable(server.partition) == left
    for number in range(end, end + 15):
        assert server.put(b"%04d" % number + bytes(300)) == number
    for stop in (server.kill, server.close):
        stop()
        server.start()
        expected = [int(value[:4]) for value in left] + list(range(end, end + 15))
        assert numbers(server) == expected
        assert server.partition.start_offset in (0, end)
    server.close()
    if harm in (flip_last, cut_last, cut_between):
        look = Inspection(Files(), server.path)
        [place] = look.places
        damage = [each for each in look.inspect(place).findings if each.is_damage]
        assert [(each.kind, each.offset, each.next_offset) for each in damage] == [
            ("lost", end - 1, end)
        ]


def test_what_follows_the_recovery_point_is_torn_as_ever(tmp_path):
    server = filled(tmp_path)
    server.fill(1)
    server.kill()
    cut_last(server.newest())
    server.start()
    assert server.partition.end_offset == COUNT + 1
    assert server.put(b"v") == COUNT + 1
    server.close()


@pytest.mark.parametrize("bit", [0x01, 0x40])
def test_an_epoch_that_cannot_be_is_not_believed(tmp_path, caplog, bit):
    """No checksum covers the leader epoch of a batch; believed once, it would stay for ever."""
    server = filled(tmp_path, {})
    server.fill(3)
    server.kill()
    server.flip(server.newest(), (COUNT + 2) * BATCH_BYTES + EPOCH_POSITION, bit)
    look = Inspection(Files(), server.path)
    [place] = look.places
    assert [each.kind for each in look.inspect(place).findings if each.is_damage] == ["epoch"]
    server.start()
    assert server.partition.leader_epoch == 1
    assert server.partition.end_offset == COUNT + 4
    assert "which cannot be" in caplog.text
    assert server.partition.epoch_end_offset(0) == (0, COUNT + 4)
    server.close()
