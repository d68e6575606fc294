"""Producers and transactions of a partition over random lives: what the table says, what the
indexes say and what the batches themselves say is one and the same.

The model is the list of stored batches. After whatever happened, the table must be that of a
replay of all of it from the first offset on, the last stable offset and the aborted list what a
plain walk over the list finds. Nothing is forgotten by time here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.sim import SimRuntime
from tests.storage.batches import Answer, aborted_in, batch_of, marker_of
from tests.storage.disk import SimDisk

from isthmus.errors import BatchRefused
from isthmus.record.markers import read_marker
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.producers import SEQUENCE_MAX, ProducerTable

DIRECTORY = Path("/disk/data")
PRODUCERS = st.integers(1, 3)


class Decided(NamedTuple):
    """A transaction that has its marker."""

    producer_id: int
    first_offset: int
    marker_offset: int
    commits: bool


class Client:
    """A producer as it sees itself."""

    def __init__(self, sequence: int) -> None:
        self.epoch = 0
        self.sequence = sequence  # of its next record
        self.is_open = False
        self.sent: list[dict[str, Any]] = []  # in this epoch, newest last

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.sequence = 0
        self.sent.clear()


class ProducersThroughLives(RuleBasedStateMachine):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable()
        self.lives = 0
        self.coordinator_epoch = 0
        self.clients: dict[int, Client] = {}

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)

    @initialize(
        segment=st.sampled_from([300, 1200, 1 << 20]),
        checkpoint=st.sampled_from([200, 3000, 1 << 20]),
        tail=st.sampled_from([0, 1 << 20]),
        first=st.sampled_from([0, 5, SEQUENCE_MAX - 3]),
    )
    def begin(self, segment: int, checkpoint: int, tail: int, first: int) -> None:
        self.first = first
        self.settings = LocalSettings(
            tail_bytes_max=tail, open_segments_max=2, checkpoint_bytes=checkpoint
        )
        self.disk = SimDisk()
        self.open()
        configs = {"internal.segment.bytes": str(segment), "index.interval.bytes": "100"}
        self.log.create("t", 1, configs)
        self.partition = self.log.partition("t", 0)

    def open(self) -> None:
        self.lives += 1
        self.runtime = SimRuntime(self.lives)
        self.log = LocalLog(DIRECTORY, self.runtime, self.disk, self.settings)
        self.partition = self.log.partition("t", 0)

    # --- what happens -------------------------------------------------------------------------

    def client(self, producer_id: int) -> Client:
        return self.clients.setdefault(producer_id, Client(self.first))

    def append(self, batch: Any) -> Answer:
        answer = Answer()
        self.partition.append(batch, answer, trusted=True)
        return answer

    @rule(
        producer_id=PRODUCERS,
        count=st.integers(1, 5),
        transactional=st.sampled_from([True, True, False]),
        new_epoch=st.sampled_from([False] * 7 + [True]),
    )
    def produce(
        self, producer_id: int, count: int, transactional: bool, new_epoch: bool
    ) -> None:
        client = self.client(producer_id)
        if new_epoch:
            client.begin_epoch(client.epoch + 1)
        how = {
            "producer_id": producer_id,
            "epoch": client.epoch,
            "sequence": client.sequence,
            "transactional": transactional or client.is_open,
        }
        assert self.append(batch_of(*[b"v"] * count, **how)).error is None
        client.sequence = (client.sequence + count) & SEQUENCE_MAX
        client.is_open = client.is_open or transactional
        client.sent.append({"count": count, **how})

    @rule()
    def produce_without_id(self) -> None:
        self.append(batch_of(b"plain"))

    @rule(
        producer_id=PRODUCERS,
        commits=st.sampled_from([True, False, False]),
        bump=st.booleans(),
        coordinator_step=st.integers(0, 1),
    )
    def end_transaction(
        self, producer_id: int, commits: bool, bump: bool, coordinator_step: int
    ) -> None:
        client = self.client(producer_id)
        self.coordinator_epoch += coordinator_step
        if bump:  # transactions of version 2 (KIP-890)
            client.begin_epoch(client.epoch + 1)
        marker = marker_of(
            producer_id,
            commits=commits,
            epoch=client.epoch,
            coordinator_epoch=self.coordinator_epoch,
        )
        assert self.append(marker).error is None
        client.is_open = False
        if not client.sent:  # now it is known, by this marker alone
            client.sequence = 0

    @rule(producer_id=PRODUCERS, back=st.integers(1, 5))
    def send_again(self, producer_id: int, back: int) -> None:
        """A retry of one of the last five is answered as before, in this life or the next."""
        client = self.clients.get(producer_id)
        if client is None or len(client.sent) < back:
            return
        how = dict(client.sent[-back])
        answer = self.append(batch_of(*[b"v"] * how.pop("count"), **how))
        end = self.partition.end_offset
        self.flush()
        assert answer.error is None
        assert answer.base_offset < self.partition.end_offset
        assert self.partition.end_offset >= end
        assert [batch.base_offset for batch in self.stored()].count(answer.base_offset) == 1

    @precondition(lambda self: any(client.sent for client in self.clients.values()))
    @rule(data=st.data())
    def send_what_is_refused(self, data: Any) -> None:
        known = [each for each, client in self.clients.items() if client.sent]
        producer_id = data.draw(st.sampled_from(known))
        client = self.clients[producer_id]
        how = {"epoch": client.epoch, "sequence": (client.sequence + 1) & SEQUENCE_MAX}
        if data.draw(st.booleans()):
            how = {"epoch": client.epoch - 1, "sequence": client.sequence}
        before = dict(self.partition.producers)
        batch = batch_of(b"no", producer_id=producer_id, transactional=client.is_open, **how)
        assert isinstance(self.append(batch).error, BatchRefused)
        assert dict(self.partition.producers) == before

    @rule()
    def flush(self) -> None:
        self.log.flush()

    @rule()
    def settle(self) -> None:
        self.log.flush()
        self.runtime.settle()

    @rule(at=st.integers(1, 3), short=st.booleans())
    def fail_to_write(self, at: int, short: bool) -> None:
        """What could not be written is taken back, with all that was learnt from it."""
        self.disk.short, self.disk.fail_only = short, ("pwritev",)
        self.disk.calls, self.disk.fail_at = 0, at
        self.log.flush()
        self.disk.fail_at, self.disk.fail_only = 0, ()
        self.believe_the_log()

    # --- lives --------------------------------------------------------------------------------

    @rule()
    def close_and_open(self) -> None:
        self.log.close()
        self.disk = self.disk.cut_power(self.lives)
        self.open()

    @rule()
    def kill_and_open(self) -> None:
        self.disk = self.disk.kill()
        self.open()
        self.believe_the_log()

    @rule(seed=st.integers(0, 1000))
    def cut_power_and_open(self, seed: int) -> None:
        stable = self.partition.last_stable_offset
        self.disk = self.disk.cut_power(seed)
        self.open()
        assert self.partition.last_stable_offset >= stable
        self.believe_the_log()

    def believe_the_log(self) -> None:
        """Clients go on from what is stored: what was only sent is sent anew."""
        table = self.replay()
        for producer_id, client in self.clients.items():
            known = table.get(producer_id)
            if known is None:
                del client.sent[:]
                client.epoch, client.sequence, client.is_open = 0, self.first, False
                continue
            kept = {sent.first_sequence for sent in known.batches}
            client.sent = [
                each
                for each in client.sent
                if each["epoch"] == known.epoch and each["sequence"] in kept
            ]
            client.epoch = known.epoch
            client.sequence = (known.last_sequence + 1) & SEQUENCE_MAX
            client.is_open = known.transaction_start >= 0

    # --- what always holds --------------------------------------------------------------------

    def stored(self) -> list[Any]:
        return list(self.partition.batches(self.partition.start_offset))

    def replay(self) -> ProducerTable:
        table = ProducerTable()
        for batch in self.stored():
            table.replay(batch)
        return table

    def transactions(self) -> tuple[dict[int, int], list[Decided]]:
        """Return the open ones by producer, and the decided ones, from the batches alone."""
        open_ones: dict[int, int] = {}
        decided = []
        for batch in self.stored():
            if batch.is_control:
                first = open_ones.pop(batch.producer_id, None)
                if first is not None:
                    marker = read_marker(batch)
                    assert marker is not None
                    decided.append(
                        Decided(batch.producer_id, first, batch.base_offset, marker.commits)
                    )
            elif batch.is_transactional:
                open_ones.setdefault(batch.producer_id, batch.base_offset)
        return open_ones, decided

    @precondition(lambda self: hasattr(self, "partition"))
    @invariant()
    def all_say_the_same(self) -> None:
        partition = self.partition
        if not partition._queue:
            assert dict(partition.producers) == dict(self.replay())
        open_ones, decided = self.transactions()
        durable = partition.durable_offset
        firsts = [*open_ones.values(), durable]
        firsts += [each.first_offset for each in decided if each.marker_offset >= durable]
        stable = min(firsts)
        assert partition.last_stable_offset == stable
        for offset, end in ((0, stable), (stable // 2, stable), (stable // 3, stable // 2)):
            assert aborted_in(partition, offset, end) == sorted(
                (each.producer_id, each.first_offset)
                for each in decided
                if not each.commits and each.first_offset < end and each.marker_offset >= offset
            )


TestProducersThroughLives = ProducersThroughLives.TestCase
TestProducersThroughLives.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestProducersThroughLives.pytestmark = [pytest.mark.timeout(300)]
