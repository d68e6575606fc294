"""The contract of `storage/log.py` as tests: every engine's test module inherits them.

A subclass gives `make_log(runtime)`. Nothing here knows how an engine keeps its records.
"""

from __future__ import annotations

import pytest
from tests.sim import SimRuntime
from tests.storage.batches import (
    Answer,
    aborted_in,
    batch_of,
    contents,
    find_max_time,
    find_time,
    marker_of,
    read,
    read_batches,
)

from isthmus.errors import (
    BatchRefused,
    BatchTooLarge,
    ConfigInvalid,
    CoordinatorFenced,
    CorruptBatch,
    LogClosed,
    OffsetOutOfRange,
    OutOfOrderSequence,
    PolicyViolation,
    ProducerFenced,
    TimestampInvalid,
    TopicExists,
    TopicInvalid,
    TopicUnknown,
    TransactionStateInvalid,
)
from isthmus.storage.log import ISOLATION_DURABLE, ISOLATION_WRITTEN

MIB = 1024 * 1024


class LogContract:
    """What every engine does."""

    def make_log(self, runtime):
        raise NotImplementedError

    @pytest.fixture
    def runtime(self):
        return SimRuntime()

    @pytest.fixture
    def log(self, runtime):
        log = self.make_log(runtime)
        yield log
        log.close()

    @pytest.fixture
    def partition(self, log):
        log.create("events", 1, {})
        return log.partition("events", 0)

    def put(self, log, partition, *values, **how):
        """Append one batch, write it, make it durable."""
        answer = Answer()
        partition.append(batch_of(*values, **how), answer)
        log.flush()
        self.runtime_of(log).settle()
        return answer

    def runtime_of(self, log):
        return self._runtime

    @pytest.fixture(autouse=True)
    def _remember_runtime(self, runtime):
        self._runtime = runtime

    # --- append -------------------------------------------------------------------------------

    def test_a_batch_is_written_at_flush_and_then_durable(self, log, partition, runtime):
        answer = Answer()
        partition.append(batch_of(b"a", b"b"), answer)
        assert answer.events == []
        assert partition.end_offset == 0
        log.flush()
        assert answer.events[0] == ("written", 0)
        assert partition.end_offset == 2
        runtime.settle()
        assert answer.events == [("written", 0), "durable"]
        assert partition.durable_offset == 2

    def test_offsets_and_epoch_are_stamped_and_nothing_else_changes(self, log, partition):
        before = bytes(batch_of(b"a", b"b").data)
        self.put(log, partition, b"x")
        self.put(log, partition, b"a", b"b")
        (stored,) = read(partition, 1, MIB).buffers
        assert int.from_bytes(stored[:8], "big") == 1
        assert int.from_bytes(stored[12:16], "big") == partition.leader_epoch
        assert bytes(stored[8:12]) == before[8:12]
        assert bytes(stored[16:]) == before[16:]

    def test_batches_of_one_turn_go_together_in_order(self, log, partition, runtime):
        answers = [Answer() for _ in range(5)]
        for number, answer in enumerate(answers):
            partition.append(batch_of(b"%d" % number), answer)
        log.flush()
        runtime.settle()
        assert [answer.events for answer in answers] == [
            [("written", number), "durable"] for number in range(5)
        ]
        assert contents(partition) == [b"0", b"1", b"2", b"3", b"4"]

    def test_nobody_need_wait_for_an_append(self, log, partition, runtime):
        partition.append(batch_of(b"a"), None)
        partition.append(batch_of(b"bad", magic_crc=False), None)
        log.flush()
        runtime.settle()
        assert contents(partition) == [b"a"]

    def test_a_ticket_that_does_not_want_to_hear_of_durable_does_not(
        self, log, partition, runtime
    ):
        answer, other = Answer(wants_durable=False), Answer()
        partition.append(batch_of(b"a"), answer)
        partition.append(batch_of(b"b"), other)
        log.flush()
        runtime.settle()
        assert answer.events == [("written", 0)]
        assert other.is_durable

    def test_size_grows_by_the_bytes_of_the_batch(self, log, partition):
        size = batch_of(b"a").size
        self.put(log, partition, b"a")
        assert partition.size_bytes == size

    # --- refusals -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("batch", "error"),
        [
            (lambda: batch_of(b"a", magic_crc=False), CorruptBatch),
            (lambda: batch_of(b"x" * 2 * MIB), BatchTooLarge),
            (lambda: batch_of(b"a", control=True, producer_id=1, epoch=0), BatchRefused),
            (lambda: batch_of(b"a", transactional=True), BatchRefused),
            (lambda: batch_of(b"a", producer_id=1, epoch=0, sequence=-1), BatchRefused),
            (lambda: batch_of(b"a", timestamp=1_700_000_000_000 + 4_000_000), TimestampInvalid),
        ],
        ids=["crc", "size", "control", "transaction", "sequence", "timestamp"],
    )
    def test_what_breaks_a_rule_is_refused_at_once(self, log, partition, batch, error):
        answer = Answer()
        partition.append(batch(), answer)
        assert type(answer.error) is error
        self.put(log, partition, b"next")
        assert contents(partition) == [b"next"]

    def test_a_compacted_log_topic_wants_keys_and_names_the_records_without(self, log):
        log.create("table", 1, {"cleanup.policy": "compact"})
        partition = log.partition("table", 0)
        answer = Answer()
        partition.append(batch_of(b"a", b"b", b"c", keys=[b"k", None, b"k"]), answer)
        assert type(answer.error) is BatchRefused
        assert [index for index, _ in answer.error.record_errors] == [1]
        assert self.put(log, partition, b"a", keys=[b"k"]).error is None

    def test_a_trusted_batch_may_be_a_control_batch(self, log, partition, runtime):
        answer = Answer()
        partition.append(marker_of(7, commits=True), answer, trusted=True)
        log.flush()
        runtime.settle()
        assert answer.events == [("written", 0), "durable"]

    def test_log_append_time_stamps_the_time_of_arrival(self, log, runtime):
        log.create("arrivals", 1, {"message.timestamp.type": "LogAppendTime"})
        partition = log.partition("arrivals", 0)
        self.put(log, partition, b"a", timestamp=5)
        assert find_time(partition, 0) == (0, runtime.now_ms())

    # --- idempotent producers -----------------------------------------------------------------

    def test_a_batch_sent_twice_is_stored_once_and_answered_alike(self, log, partition):
        first = self.put(log, partition, b"a", producer_id=9, epoch=0, sequence=0)
        self.put(log, partition, b"other")
        again = self.put(log, partition, b"a", producer_id=9, epoch=0, sequence=0)
        assert first.events == again.events == [("written", 0), "durable"]
        assert contents(partition) == [b"a", b"other"]

    def test_a_duplicate_within_one_turn_waits_for_the_first(self, log, partition, runtime):
        answers = [Answer(), Answer()]
        for answer in answers:
            partition.append(batch_of(b"a", producer_id=9, epoch=0, sequence=0), answer)
        log.flush()
        runtime.settle()
        assert [answer.events for answer in answers] == [[("written", 0), "durable"]] * 2
        assert contents(partition) == [b"a"]

    def test_a_gap_in_sequence_and_an_old_epoch_are_refused(self, log, partition):
        self.put(log, partition, b"a", producer_id=9, epoch=1, sequence=0)
        gap = self.put(log, partition, b"c", producer_id=9, epoch=1, sequence=2)
        old = self.put(log, partition, b"b", producer_id=9, epoch=0, sequence=1)
        assert type(gap.error) is OutOfOrderSequence
        assert type(old.error) is ProducerFenced
        assert self.put(log, partition, b"b", producer_id=9, epoch=1, sequence=1).error is None

    # --- read ---------------------------------------------------------------------------------

    def test_read_gives_the_batch_that_holds_the_offset(self, log, partition):
        self.put(log, partition, b"a", b"b", b"c")
        self.put(log, partition, b"d")
        assert len(read_batches(partition, 1, MIB)) == 2
        assert len(read_batches(partition, 3, MIB)) == 1
        assert read(partition, 4, MIB).size == 0

    def test_read_gives_at_least_one_batch_then_what_fits(self, log, partition):
        for value in (b"a" * 100, b"b" * 100, b"c" * 100):
            self.put(log, partition, value)
        size = read(partition, 0, 1).size
        assert size > 100
        assert len(read_batches(partition, 0, 2 * size)) == 2
        assert len(read_batches(partition, 0, 2 * size - 1)) == 1

    @pytest.mark.parametrize("offset", [-1, 3])
    def test_read_outside_of_the_log_is_an_error(self, log, partition, offset):
        self.put(log, partition, b"a", b"b")
        with pytest.raises(OffsetOutOfRange):
            partition.read(offset, MIB)

    # --- transactions -------------------------------------------------------------------------

    def put_in(self, log, partition, producer_id, sequence, *values):
        """Append one batch of a transaction."""
        how = {"producer_id": producer_id, "epoch": 0, "sequence": sequence}
        return self.put(log, partition, *values, transactional=True, **how)

    def end(self, log, partition, producer_id, *, commits, **how):
        """Append the marker of a transaction."""
        answer = Answer()
        marker = marker_of(producer_id, commits=commits, **how)
        partition.append(marker, answer, trusted=True)
        log.flush()
        self.runtime_of(log).settle()
        return answer

    def interleave(self, log, partition):
        """Write three transactions of two producers, and what belongs to none."""
        self.put(log, partition, b"0")
        self.put_in(log, partition, 1, 0, b"1")
        self.put_in(log, partition, 2, 0, b"2", b"3")
        self.put(log, partition, b"4")
        self.end(log, partition, 2, commits=False)  # 5
        self.put_in(log, partition, 2, 2, b"6")
        self.put_in(log, partition, 1, 1, b"7")
        self.end(log, partition, 1, commits=True)  # 8
        self.end(log, partition, 2, commits=False)  # 9
        self.put_in(log, partition, 1, 2, b"10")

    def check_interleaved(self, partition):
        """Compare what is told of `interleave` with what Kafka would tell."""
        assert partition.end_offset == 11
        assert partition.last_stable_offset == 10
        assert aborted_in(partition, 0, 10) == [(2, 2), (2, 6)]
        assert aborted_in(partition, 0, 3) == [(2, 2)]
        assert aborted_in(partition, 0, 2) == []
        assert aborted_in(partition, 5, 6) == [(2, 2)]
        assert aborted_in(partition, 6, 7) == [(2, 6)]
        assert aborted_in(partition, 10, 10) == []

    def test_open_transactions_hold_back_the_stable_offset(self, log, partition):
        self.put(log, partition, b"a")
        self.put_in(log, partition, 9, 0, b"b")
        self.put(log, partition, b"c")
        assert partition.last_stable_offset == 1
        assert partition.end_offset == 3
        assert len(read_batches(partition, 0, MIB, ISOLATION_DURABLE)) == 1
        self.end(log, partition, 9, commits=True)
        self.put(log, partition, b"d")
        assert partition.last_stable_offset == 5
        assert len(read_batches(partition, 0, MIB, ISOLATION_DURABLE)) == 5

    def test_what_was_aborted_is_told_for_each_stretch(self, log, partition):
        self.interleave(log, partition)
        self.check_interleaved(partition)

    def test_the_oldest_open_transaction_counts_whatever_ends_first(self, log, partition):
        for producer_id in (1, 2, 3):
            self.put_in(log, partition, producer_id, 0, b"v")
        stable = []
        for producer_id in (2, 1, 3):
            self.end(log, partition, producer_id, commits=True)
            stable.append(partition.last_stable_offset)
        assert stable == [0, 2, 6]

    def test_a_marker_counts_once_it_is_durable(self, log, partition, runtime):
        self.put_in(log, partition, 1, 0, b"v")
        partition.append(marker_of(1, commits=True), None, trusted=True)
        assert partition.last_stable_offset == 0
        log.flush()
        assert partition.last_stable_offset == (2 if partition.durable_offset == 2 else 0)
        partition.wait(0, lambda: None, ISOLATION_DURABLE)
        runtime.settle()
        assert partition.last_stable_offset == 2

    def test_a_waiter_for_what_is_decided_is_woken_by_the_marker(self, log, partition):
        self.put_in(log, partition, 1, 0, b"v")
        woken = []
        partition.wait(0, lambda: woken.append(1), ISOLATION_DURABLE)
        self.put(log, partition, b"other")
        assert woken == []
        self.end(log, partition, 1, commits=False)
        assert woken == [1]

    def test_a_marker_that_ends_nothing_is_stored_and_changes_nothing(self, log, partition):
        self.put(log, partition, b"a", producer_id=1, epoch=0, sequence=0)
        assert self.end(log, partition, 1, commits=False).is_durable
        assert self.end(log, partition, 2, commits=False).is_durable
        assert aborted_in(partition, 0, 3) == []
        assert partition.last_stable_offset == 3
        again = self.put(log, partition, b"a", producer_id=1, epoch=0, sequence=0)
        assert again.base_offset == 0

    def test_a_marker_may_bring_the_next_epoch(self, log, partition):
        """Transactions of version 2 (KIP-890)."""
        self.put_in(log, partition, 1, 0, b"v")
        self.end(log, partition, 1, commits=False, epoch=1)
        assert aborted_in(partition, 0, 2) == [(1, 0)]
        assert type(self.put_in(log, partition, 1, 1, b"late").error) is ProducerFenced
        first = self.put(log, partition, b"w", producer_id=1, epoch=1, sequence=0)
        assert first.base_offset == 2

    def test_what_contradicts_a_transaction_is_refused(self, log, partition):
        self.put_in(log, partition, 1, 0, b"v")
        outside = self.put(log, partition, b"w", producer_id=1, epoch=0, sequence=1)
        assert type(outside.error) is TransactionStateInvalid
        self.end(log, partition, 1, commits=True, coordinator_epoch=4)
        late = self.end(log, partition, 1, commits=True, coordinator_epoch=3)
        assert type(late.error) is CoordinatorFenced
        old = self.end(log, partition, 1, commits=True, epoch=-1, coordinator_epoch=4)
        assert type(old.error) is ProducerFenced
        other = Answer()
        control = batch_of(b"m", producer_id=1, epoch=0, control=True, transactional=True)
        partition.append(control, other, trusted=True)
        assert type(other.error) is CorruptBatch
        assert partition.end_offset == 2

    # --- wait ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("isolation", [ISOLATION_WRITTEN, ISOLATION_DURABLE])
    def test_a_waiter_is_woken_once(self, log, partition, runtime, isolation):
        woken = []
        partition.wait(0, lambda: woken.append(1), isolation)
        runtime.settle()
        assert woken == []
        self.put(log, partition, b"a")
        self.put(log, partition, b"b")
        assert woken == [1]

    @pytest.mark.parametrize("isolation", [ISOLATION_WRITTEN, ISOLATION_DURABLE])
    def test_waiting_for_what_is_there_wakes_but_not_from_within(
        self, log, partition, runtime, isolation
    ):
        self.put(log, partition, b"a")
        woken = []
        partition.wait(0, lambda: woken.append(1), isolation)
        assert woken == []
        runtime.settle()
        assert woken == [1]

    def test_a_cancelled_waiter_is_not_woken(self, log, partition):
        woken = []
        cancel = partition.wait(0, lambda: woken.append(1))
        cancel()
        cancel()
        self.put(log, partition, b"a")
        assert woken == []

    def test_a_durable_waiter_asks_for_the_sync_itself(self, log, partition, runtime):
        partition.append(batch_of(b"a"), None)
        log.flush()
        woken = []
        partition.wait(0, lambda: woken.append(1), ISOLATION_DURABLE)
        runtime.settle()
        assert woken == [1]
        assert partition.durable_offset == 1
        partition.wait(1, lambda: woken.append(2), ISOLATION_DURABLE)
        partition.append(batch_of(b"b"), None)
        log.flush()
        runtime.settle()
        assert woken == [1, 2]

    # --- deleting records ---------------------------------------------------------------------

    def delete_before(self, partition, offset):
        """Delete records and return what `done` was told."""
        told = []
        partition.delete_before(offset, told.append)
        self._runtime.settle()
        (answer,) = told
        return answer

    def test_deleted_records_are_gone_for_readers(self, log, partition):
        self.put(log, partition, b"a", b"b")
        self.put(log, partition, b"c")
        assert self.delete_before(partition, 2) is None
        assert (partition.start_offset, partition.end_offset) == (2, 3)
        assert contents(partition) == [b"c"]
        with pytest.raises(OffsetOutOfRange):
            partition.read(1, MIB)

    def test_the_start_may_lie_within_a_batch(self, log, partition):
        self.put(log, partition, b"a", b"b", b"c", timestamps=[10, 30, 20])
        assert self.delete_before(partition, 2) is None
        assert partition.start_offset == 2
        assert contents(partition) == [b"c"]
        assert find_time(partition, 0) == (2, 20)
        assert find_time(partition, 25) is None
        assert find_max_time(partition) == (2, 20)

    def test_all_may_be_deleted_and_offsets_go_on(self, log, partition):
        self.put(log, partition, b"a", b"b")
        assert self.delete_before(partition, -1) is None
        assert (partition.start_offset, partition.end_offset) == (2, 2)
        assert partition.read(2, MIB).size == 0
        assert find_time(partition, 0) is None
        assert find_max_time(partition) is None
        assert self.put(log, partition, b"c").base_offset == 2
        assert contents(partition) == [b"c"]

    def test_the_start_never_goes_back(self, log, partition):
        self.put(log, partition, b"a", b"b", b"c")
        assert self.delete_before(partition, 2) is None
        assert self.delete_before(partition, 1) is None
        assert partition.start_offset == 2

    @pytest.mark.parametrize("offset", [-2, 4])
    def test_what_is_not_there_cannot_be_deleted(self, log, partition, offset):
        self.put(log, partition, b"a", b"b", b"c")
        assert isinstance(self.delete_before(partition, offset), OffsetOutOfRange)
        assert partition.start_offset == 0

    def test_records_of_a_compacted_log_topic_stay(self, log):
        for policy, error in (("compact", PolicyViolation), ("compact,delete", type(None))):
            log.create(policy.replace(",", "."), 1, {"cleanup.policy": policy})
            partition = log.partition(policy.replace(",", "."), 0)
            self.put(log, partition, b"a", keys=[b"k"])
            assert isinstance(self.delete_before(partition, -1), error)

    def test_nothing_is_deleted_from_what_is_deleted_or_closed(self, log, partition):
        self.put(log, partition, b"a")
        log.delete("events")
        assert isinstance(self.delete_before(partition, 1), TopicUnknown)
        log.create("others", 1, {})
        partition = log.partition("others", 0)
        log.close()
        assert isinstance(self.delete_before(partition, 0), LogClosed)

    def test_deleting_keeps_what_producers_wrote(self, log, partition):
        numbered = {"producer_id": 7, "epoch": 0}
        self.put(log, partition, b"a", **numbered, sequence=0)
        assert self.delete_before(partition, -1) is None
        again = self.put(log, partition, b"a", **numbered, sequence=0)
        assert again.base_offset == 0  # answered as before, and not stored
        assert self.put(log, partition, b"b", **numbered, sequence=1).base_offset == 1

    def test_deleting_does_not_hold_back_the_stable_offset(self, log, partition):
        self.put(log, partition, b"a", producer_id=7, epoch=0, sequence=0, transactional=True)
        assert self.delete_before(partition, -1) is None
        assert partition.last_stable_offset == 1

    # --- time and epochs ----------------------------------------------------------------------

    def test_offset_for_time_is_exact_to_the_record(self, log, partition):
        self.put(log, partition, b"a", b"b", b"c", timestamps=[100, 200, 300])
        self.put(log, partition, b"d", b"e", timestamps=[250, 400], compression=1)
        assert find_time(partition, 0) == (0, 100)
        assert find_time(partition, 101) == (1, 200)
        assert find_time(partition, 300) == (2, 300)
        assert find_time(partition, 301) == (4, 400)
        assert find_time(partition, 401) is None
        assert find_max_time(partition) == (4, 400)

    def test_an_empty_partition_has_no_times(self, partition):
        assert find_time(partition, 0) is None
        assert find_max_time(partition) is None

    def test_the_newest_epoch_ends_with_the_log(self, log, partition):
        self.put(log, partition, b"a", b"b")
        assert partition.epoch_end_offset(partition.leader_epoch) == (partition.leader_epoch, 2)
        assert partition.epoch_end_offset(partition.leader_epoch + 9)[1] == 2
        assert partition.epoch_end_offset(-1) == (-1, -1)

    # --- log topics ---------------------------------------------------------------------------

    def test_log_topics_are_created_found_and_deleted(self, log):
        topic = log.create("a", 3, {"retention.ms": "1000"})
        assert (topic.name, len(topic.topic_id), len(topic.partitions)) == ("a", 16, 3)
        assert dict(topic.configs) == {"retention.ms": "1000"}
        assert log.topics["a"] is topic
        assert log.partition("a", 2) is topic.partitions[2]
        assert log.partition("a", 3) is None
        assert log.partition("a", -1) is None
        assert log.partition("b", 0) is None
        log.delete("a")
        assert "a" not in log.topics
        assert log.create("a", 1, {}).topic_id != topic.topic_id

    def test_impossible_log_topics_are_refused(self, log):
        log.create("a", 1, {})
        with pytest.raises(TopicExists):
            log.create("a", 1, {})
        with pytest.raises(TopicInvalid):
            log.create("../a", 1, {})
        with pytest.raises(ConfigInvalid, match=r"did you mean retention\.ms"):
            log.create("b", 1, {"retention.m": "1"})
        with pytest.raises(ConfigInvalid):
            log.create("b", 0, {})
        with pytest.raises(TopicUnknown):
            log.delete("c")
        assert list(log.topics) == ["a"]

    def test_partitions_can_be_added_but_not_taken(self, log):
        log.create("a", 1, {})
        log.add_partitions("a", 3)
        assert [partition.index for partition in log.topics["a"].partitions] == [0, 1, 2]
        with pytest.raises(ConfigInvalid):
            log.add_partitions("a", 3)
        with pytest.raises(TopicUnknown):
            log.add_partitions("b", 3)

    def test_settings_are_replaced_and_obeyed(self, log, partition):
        with pytest.raises(ConfigInvalid):
            log.configure("events", {"max.message.bytes": "-1"})
        log.configure("events", {"max.message.bytes": "100"})
        assert dict(log.topics["events"].configs) == {"max.message.bytes": "100"}
        assert type(self.put(log, partition, b"x" * 100).error) is BatchTooLarge
        log.configure("events", {})
        assert self.put(log, partition, b"x" * 100).error is None

    def test_other_defaults_hold_for_what_is_not_said(self, log, partition):
        before = dict(log.topic_defaults)
        log.create("own", 1, {"max.message.bytes": "1000"})
        log.set_topic_defaults({**before, "max.message.bytes": "100"})
        assert type(self.put(log, partition, b"x" * 100).error) is BatchTooLarge
        assert self.put(log, log.topics["own"].partitions[0], b"x" * 100).error is None
        log.create("new", 1, {})
        new = log.topics["new"].partitions[0]
        assert type(self.put(log, new, b"x" * 100).error) is BatchTooLarge
        log.set_topic_defaults(before)
        assert self.put(log, partition, b"x" * 100).error is None
        assert dict(log.topics["events"].configs) == {}

    def test_a_deleted_partition_wakes_and_refuses(self, log, partition, runtime):
        self.put(log, partition, b"a")
        woken = []
        partition.wait(1, lambda: woken.append(1))
        queued = Answer()
        partition.append(batch_of(b"b"), queued)
        log.delete("events")
        log.flush()
        runtime.settle()
        assert woken == [1]
        assert type(queued.error) is TopicUnknown
        with pytest.raises(TopicUnknown):
            partition.read(0, MIB)
        late = Answer()
        partition.append(batch_of(b"c"), late)
        assert type(late.error) is TopicUnknown

    def test_closing_answers_what_is_queued_and_refuses_what_comes(self, log, partition):
        answer, late = Answer(), Answer()
        partition.append(batch_of(b"a"), answer)
        log.close()
        assert answer.events == [("written", 0), "durable"]
        partition.append(batch_of(b"b"), late)
        assert type(late.error) is LogClosed
        log.close()

    def test_it_says_where_it_is_and_what_room_there_is(self, log):
        total, usable = log.volume()
        assert log.directory
        assert total >= usable >= -1

    def test_ids_look_like_kafkas(self, log):
        assert len(log.cluster_id) == 22
