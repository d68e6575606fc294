"""Random lives of a partition on a disk that fails, against a plain list.

The list holds what was written. After the end of a process all of it is there; after a power
cut, all that was acknowledged as durable, and of the rest whatever the disk kept, each record
where it was. Never may one (leader epoch, offset) stand for two different records.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.sim import SimRuntime
from tests.storage.batches import Answer, batch_of, find_max_time, find_time, read_batches
from tests.storage.disk import SimDisk

from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.log import ISOLATION_DURABLE

DIRECTORY = Path("/disk/data")
MIB = 1024 * 1024


class LivesOfAPartition(RuleBasedStateMachine):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable()
        self.number = 0
        self.model: list[bytes | None] = []  # by offset; None where a power cut left a gap
        self.queued: list[tuple[list[bytes], Answer]] = []
        self.open_answers: list[tuple[int, Answer]] = []  # written, by end offset
        self.durable = 0  # acknowledged up to here
        self.seen: dict[tuple[int, int], bytes] = {}
        self.epoch = -1

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)

    @initialize(
        durability=st.sampled_from(["synced", "synced", "written"]),
        tail=st.sampled_from([0, 3000, MIB]),
        segment=st.sampled_from([400, 1500, MIB]),
        checkpoint=st.sampled_from([500, 5000, MIB]),
    )
    def begin(self, durability, tail, segment, checkpoint):
        self.synced = durability == "synced"
        self.settings = LocalSettings(
            tail_bytes_max=tail, open_segments_max=2, checkpoint_bytes=checkpoint
        )
        self.disk = SimDisk()
        self.open()
        configs = {
            "internal.segment.bytes": str(segment),
            "index.interval.bytes": "100",
            "isthmus.durability": durability,
        }
        self.log.create("t", 1, configs)
        self.partition = self.log.partition("t", 0)

    def open(self):
        self.runtime = SimRuntime(self.number)
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)
        self.partition = self.log.partition("t", 0)

    # --- what happens -------------------------------------------------------------------------

    @rule(
        count=st.integers(1, 4),
        size=st.sampled_from([1, 60, 600]),
        wanted=st.booleans(),
        compression=st.sampled_from([0, 0, 1]),
    )
    def append(self, count, size, wanted, compression):
        values = []
        for _ in range(count):
            self.number += 1
            values.append(b"%d-" % self.number + bytes(size))
        answer = Answer() if wanted else None
        stamps = [1000 + self.number - count + index for index in range(1, count + 1)]
        batch = batch_of(*values, timestamps=stamps, compression=compression)
        self.partition.append(batch, answer)
        self.queued.append((values, answer))

    @rule()
    def flush(self):
        self.log.flush()
        for values, answer in self.queued:
            if answer is not None:
                assert answer.base_offset == len(self.model)
            for value in values:
                self.seen[self.partition.leader_epoch, len(self.model)] = value
                self.model.append(value)
            if answer is not None:
                self.open_answers.append((len(self.model), answer))
        self.queued.clear()
        self.collect()

    @rule()
    def settle(self):
        self.runtime.settle()
        self.collect()

    def collect(self):
        for end, answer in self.open_answers:
            if answer.is_durable:
                self.durable = max(self.durable, end)
        self.open_answers = [each for each in self.open_answers if not each[1].is_durable]

    @rule()
    def close_and_open(self):
        queued = sum(len(values) for values, _ in self.queued)
        self.flush()
        self.log.close()
        assert all(answer.is_durable for _, answer in self.open_answers)
        self.collect()
        self.runtime.settle()
        assert self.disk.open_count == 0
        self.durable = len(self.model)
        self.disk = self.disk.cut_power(queued)
        before = self.partition.leader_epoch
        self.open()
        assert self.partition.leader_epoch == before
        self.compare(lost_from=len(self.model))

    @rule()
    def kill_and_open(self):
        self.disk = self.disk.kill()
        self.crashed(lost_from=len(self.model))

    @rule(seed=st.integers(0, 1000))
    def cut_power_and_open(self, seed):
        self.disk = self.disk.cut_power(seed)
        self.crashed(lost_from=self.durable if self.synced else 0)

    def crashed(self, lost_from):
        before = self.partition.leader_epoch
        self.queued.clear()
        self.open_answers.clear()
        self.open()
        assert self.partition.leader_epoch > before
        self.compare(lost_from)

    def compare(self, lost_from):
        """Compare what is there with the model, and take the losses that are allowed."""
        end = self.partition.end_offset
        assert lost_from <= end <= len(self.model)
        assert self.partition.durable_offset == end
        found = self.read_all()
        for offset in range(end):
            if offset in found:
                assert found[offset] == self.model[offset]
            else:
                assert offset >= lost_from or self.model[offset] is None
                self.model[offset] = None
        del self.model[end:]
        self.durable = end

    def read_all(self):
        found = {}
        offset = self.partition.start_offset
        end = self.partition.end_offset
        while offset < end:
            for batch in read_batches(self.partition, offset, MIB):
                for record in batch.records():
                    found[record.offset] = record.value
                    key = (batch.leader_epoch, record.offset)
                    assert self.seen.setdefault(key, record.value) == record.value
                offset = batch.next_offset
        return found

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def ends_are_in_order(self):
        if hasattr(self, "partition") and self.partition is not None:
            partition = self.partition
            assert partition.end_offset == len(self.model)
            assert self.durable <= partition.durable_offset <= partition.end_offset
            assert partition.last_stable_offset == partition.durable_offset
            if not self.synced:
                assert partition.durable_offset == partition.end_offset

    @precondition(lambda self: self.model)
    @rule(data=st.data(), bytes_max=st.sampled_from([1, 200, 2000, MIB]))
    def read(self, data, bytes_max):
        offset = data.draw(st.integers(0, len(self.model) - 1))
        batches = read_batches(self.partition, offset, bytes_max)
        assert len(batches) == 1 or sum(batch.size for batch in batches) <= bytes_max
        there = [at for at in range(offset, len(self.model)) if self.model[at] is not None]
        assert batches[0].base_offset <= there[0] <= batches[0].last_offset
        for batch in batches:
            for record in batch.records():
                assert record.value == self.model[record.offset]
        for batch in read_batches(self.partition, offset, bytes_max, ISOLATION_DURABLE):
            assert batch.next_offset <= self.partition.durable_offset

    @precondition(lambda self: any(self.model))
    @rule(data=st.data())
    def find_time(self, data):
        stamps = {
            offset: 1000 + int(value.split(b"-")[0])
            for offset, value in enumerate(self.model)
            if value is not None
        }
        wanted = data.draw(st.integers(1000, 1000 + self.number + 1))
        expected = next(((at, ts) for at, ts in stamps.items() if ts >= wanted), None)
        assert find_time(self.partition, wanted) == expected
        newest = max(stamps, key=stamps.__getitem__)
        assert find_max_time(self.partition) == (newest, stamps[newest])


TestLivesOfAPartition = LivesOfAPartition.TestCase
TestLivesOfAPartition.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLivesOfAPartition.pytestmark = [pytest.mark.timeout(120)]
