"""Fetches: limits, waiting, and the sessions that shorten them."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
from tests.sim import SimRuntime
from tests.storage.disk import SimDisk
from tests.unit.broker.kafka_room import KafkaRoom, TurnAppends, batch_of

from isthmus.broker.fetch_sessions import EPOCH_FINAL, EPOCH_MAX, FetchContext, FetchSessions
from isthmus.broker.fetches import Fetch, Fetches, FetchPartition, epoch_end
from isthmus.broker.topic_ids import TopicIds
from isthmus.broker.users import USERS_LOG_TOPIC
from isthmus.kafka.codec import encode
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.fetch import FetchRequest
from isthmus.record.batch import BatchBuilder
from isthmus.record.markers import EndMarker, build_marker
from isthmus.record.walk import offset_after
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings
from isthmus.storage.log import ISOLATION_DURABLE
from isthmus.wire.buffer import WriteBuffer

BIG = 1 << 20
BATCH_BYTES = batch_of(1_700_000_000_000, b"v").size


class FetchRoom(KafkaRoom):
    """Fetches over three partitions of one log topic."""

    def __init__(self) -> None:
        super().__init__()
        self.topic = self.log.create("t", 3, {})
        self.fetches = Fetches(self.runtime, self.log, TopicIds(self.log))
        self.answers: list[list[FetchPartition]] = []

    def serve(self, *entries: FetchPartition, **limits: int) -> Any:
        return self.fetches.serve(Fetch(entries, **limits), self.answers.append)


def want(index: int = 0, offset: int = 0, bytes_max: int = BIG, **more: Any) -> FetchPartition:
    return FetchPartition("t", b"", index, offset, bytes_max, **more)


def test_what_is_there_is_answered_at_once() -> None:
    room = FetchRoom()
    room.produce("t", values=(b"a", b"b"))
    assert room.serve(want(), want(1), wait_ms=500) is None
    first, second = room.answers[0]
    assert (first.error, first.marks, first.leader_epoch) == (ErrorCode.NONE, (2, 2, 0), 0)
    assert first.size == sum(map(len, first.buffers)) > 0
    assert (second.size, second.marks) == (0, (0, 0, 0))


def test_what_is_kept_of_passwords_is_nobodys_to_read() -> None:
    room = FetchRoom()
    room.log.create(USERS_LOG_TOPIC, 1, {})
    room.produce(USERS_LOG_TOPIC)
    assert room.serve(FetchPartition(USERS_LOG_TOPIC, b"", 0, 0, BIG), wait_ms=500) is None
    (read,) = room.answers[0]
    assert (read.error, read.size) == (ErrorCode.TOPIC_AUTHORIZATION_FAILED, 0)


def test_an_empty_partition_is_waited_for() -> None:
    room = FetchRoom()
    assert room.serve(want(), want(1), wait_ms=500) is not None
    assert (room.answers, room.fetches.waiting) == ([], 1)
    room.produce("t", 1)
    assert [read.size for read in room.answers[0]] == [0, BATCH_BYTES]
    assert room.fetches.waiting == 0
    room.runtime.advance(1_000)
    assert len(room.answers) == 1


def test_one_turn_makes_one_answer() -> None:
    room = FetchRoom()
    room.serve(want(), want(1), wait_ms=500)
    for index in (0, 1):
        partition = room.log.partition("t", index)
        assert partition is not None
        room.appends.append(partition, batch_of(room.runtime.now_ms(), b"v"), None)
    room.runtime.settle()
    assert [read.size for read in room.answers[0]] == [BATCH_BYTES, BATCH_BYTES]


def test_the_wait_ends_with_what_is_there() -> None:
    room = FetchRoom()
    room.produce("t")
    room.serve(want(), wait_ms=500, bytes_min=1_000)
    room.produce("t")
    assert room.answers == []
    room.runtime.advance(500)
    assert [read.size for read in room.answers[0]] == [2 * BATCH_BYTES]


def test_enough_bytes_end_the_wait() -> None:
    room = FetchRoom()
    room.serve(want(), want(1), wait_ms=500, bytes_min=2 * BATCH_BYTES)
    room.produce("t", 0)
    assert room.answers == []
    room.produce("t", 1)
    assert len(room.answers) == 1


def test_a_wait_can_be_called_off() -> None:
    room = FetchRoom()
    cancel = room.serve(want(), wait_ms=500)
    cancel()
    cancel()
    room.produce("t")
    room.runtime.advance(1_000)
    assert (room.answers, room.fetches.waiting) == ([], 0)


def test_deleting_the_log_topic_ends_the_wait() -> None:
    room = FetchRoom()
    room.serve(want(), wait_ms=500)
    room.log.delete("t")
    room.fetches.recheck()
    room.runtime.settle()
    assert room.answers[0][0].error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_the_first_batch_is_served_whatever_its_size() -> None:  # KIP-74
    room = FetchRoom()
    for index in (0, 1):
        room.produce("t", index)
    room.serve(want(bytes_max=1), want(1), bytes_max=1)
    assert [read.size for read in room.answers[0]] == [BATCH_BYTES, 0]


def test_later_partitions_get_only_what_fits() -> None:
    room = FetchRoom()
    for index in (0, 1, 2):
        for _ in range(3):
            room.produce("t", index)
    room.serve(want(), want(1, bytes_max=1), want(2), bytes_max=5 * BATCH_BYTES)
    assert [read.size // BATCH_BYTES for read in room.answers[0]] == [3, 0, 2]


def test_a_fetch_from_within_a_batch_gets_the_whole_batch() -> None:
    room = FetchRoom()
    room.produce("t", values=(b"a", b"b", b"c"))
    room.serve(want(offset=2))
    assert room.answers[0][0].buffers[0][:8] == bytes(8)


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (want(9), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (want(offset=5), ErrorCode.OFFSET_OUT_OF_RANGE),
        (want(offset=-1), ErrorCode.OFFSET_OUT_OF_RANGE),
        (want(current_epoch=1), ErrorCode.UNKNOWN_LEADER_EPOCH),
        (FetchPartition("", b"x" * 16, 0, 0, BIG), ErrorCode.UNKNOWN_TOPIC_ID),
    ],
)
def test_errors_are_told_at_once(entry: FetchPartition, error: ErrorCode) -> None:
    room = FetchRoom()
    assert room.serve(entry, want(1), wait_ms=500) is None
    assert [read.error for read in room.answers[0]] == [error, ErrorCode.NONE]


def test_an_older_leader_epoch_is_fenced() -> None:
    room = FetchRoom()
    room.topic.partitions[0].leader_epoch = 3
    room.serve(want(current_epoch=2))
    assert room.answers[0][0].error is ErrorCode.FENCED_LEADER_EPOCH


def test_a_client_that_read_what_was_cut_off_is_told_where() -> None:  # KIP-595
    room = FetchRoom()
    room.produce("t")
    room.serve(want(offset=5, last_fetched_epoch=0), wait_ms=500)
    assert room.answers[0][0].diverging == (0, 1)
    assert room.answers[0][0].error is ErrorCode.NONE


@pytest.mark.parametrize(
    ("epoch", "ended"), [(-1, (-1, -1)), (0, (0, 0)), (1, (1, 0)), (2, (2, 2)), (3, (-1, -1))]
)
def test_an_epoch_without_records_ended_where_the_log_begins(
    epoch: int, ended: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server died twice before anything was written, and whoever waits at 0 lost nothing.
    room = FetchRoom()
    room.produce("t", values=(b"a", b"b"))
    partition = room.topic.partitions[0]
    partition.leader_epoch = 2
    known = {2: (2, 2), 3: (2, 2)}
    monkeypatch.setattr(partition, "epoch_end_offset", lambda one: known.get(one, (-1, -1)))
    assert epoch_end(partition, epoch) == ended


def test_what_was_read_in_an_epoch_to_come_is_out_of_range() -> None:
    room = FetchRoom()
    room.serve(want(last_fetched_epoch=1), wait_ms=500)
    assert room.answers[0][0].error is ErrorCode.OFFSET_OUT_OF_RANGE


def test_a_topic_id_does_not_find_a_later_log_topic_of_the_same_name() -> None:
    room = FetchRoom()
    room.produce("t")
    room.serve(FetchPartition("", room.topic.topic_id, 0, 0, BIG))
    assert room.answers[0][0].size
    room.log.delete("t")
    room.log.create("t", 1, {})
    room.serve(FetchPartition("", room.topic.topic_id, 0, 0, BIG))
    assert room.answers[1][0].error is ErrorCode.UNKNOWN_TOPIC_ID


def test_durable_readers_wait_for_the_last_stable_offset() -> None:
    room = FetchRoom()
    room.serve(want(), wait_ms=500, isolation=ISOLATION_DURABLE)
    room.produce("t")
    assert room.answers[0][0].size == BATCH_BYTES


# --- sessions ---------------------------------------------------------------------------------


class SessionRoom(FetchRoom):
    """A client that fetches through a session."""

    def __init__(self, **limits: int) -> None:
        super().__init__()
        self.sessions = FetchSessions(self.runtime, **limits)

    def begin(
        self,
        session_id: int,
        epoch: int,
        partitions: tuple[tuple[int, int], ...] = (),
        forgotten: tuple[int, ...] = (),
        *,
        version: int = 12,
    ) -> FetchContext:
        named = {"topic": "t", "topic_id": bytes(16)}
        if version >= 13:
            named = {"topic": "", "topic_id": self.topic.topic_id}
        wanted = [
            {
                "partition": index,
                "fetch_offset": offset,
                "partition_max_bytes": BIG,
                "current_leader_epoch": -1,
                "last_fetched_epoch": -1,
            }
            for index, offset in partitions
        ]
        out = WriteBuffer()
        body = {
            "session_id": session_id,
            "session_epoch": epoch,
            "topics": [{**named, "partitions": wanted}] if wanted else [],
            "forgotten_topics_data": [{**named, "partitions": list(forgotten)}],
        }
        encode("FetchRequest", version, body, out)
        return self.sessions.begin(FetchRequest(version, out.take(), 0), version)

    def told(self, context: FetchContext) -> list[int]:
        """Serve what the context wants; return the partitions that the response names."""
        reads = self.fetches.read(Fetch(context.entries))
        return [read.index for read in context.news(reads)]


def test_a_poll_makes_nothing_for_a_partition_that_a_session_knows() -> None:
    room = SessionRoom()
    opened = room.begin(0, 0, ((0, 0), (1, 0)))
    again = room.begin(opened.session_id, 1, ((1, 3),))
    assert list(map(id, again.entries)) == list(map(id, opened.entries))
    assert [entry.offset for entry in again.entries] == [0, 3]


def test_what_waits_holds_on_to_no_records() -> None:
    room = FetchRoom()
    room.produce("t")
    entry = want()
    assert room.serve(entry, wait_ms=500, bytes_min=BATCH_BYTES + 1) is not None
    assert entry.size == BATCH_BYTES
    assert not entry.buffers
    room.produce("t")
    assert sum(map(len, entry.buffers)) == 2 * BATCH_BYTES


def test_a_session_tells_only_news() -> None:
    room = SessionRoom()
    opened = room.begin(0, 0, ((0, 0), (1, 0), (2, 0)))
    session_id = opened.session_id
    assert session_id > 0
    assert room.told(opened) == [0, 1, 2], "the first response holds all"
    assert room.told(room.begin(session_id, 1)) == []
    room.produce("t", 1)
    assert room.told(room.begin(session_id, 2)) == [1]
    assert room.told(room.begin(session_id, 3, ((1, 1),))) == []
    assert room.told(room.begin(session_id, 4, forgotten=(0,))) == []
    room.produce("t", 0)
    assert room.told(room.begin(session_id, 5)) == [], "it was told to forget 0"
    assert room.told(room.begin(session_id, 6, ((0, 0),))) == [0]


def test_a_partition_that_gave_data_goes_to_the_end() -> None:
    room = SessionRoom()
    session_id = room.begin(0, 0, ((0, 0), (1, 0), (2, 0))).session_id
    for index in (0, 1, 2):
        room.produce("t", index)
    context = room.begin(session_id, 1)
    reads = room.fetches.read(Fetch(context.entries, bytes_max=1))
    assert [read.index for read in context.news(reads) if read.size] == [0]
    assert [entry.index for entry in room.begin(session_id, 2).entries] == [1, 2, 0]


def test_an_error_is_told_until_it_is_gone() -> None:
    room = SessionRoom()
    session_id = room.begin(0, 0, ((0, 7), (1, 0))).session_id
    assert room.told(room.begin(session_id, 1)) == [0, 1]
    assert room.told(room.begin(session_id, 2)) == [0]
    assert room.told(room.begin(session_id, 3, ((0, 0),))) == [0], "good news, too"
    assert room.told(room.begin(session_id, 4)) == []


def test_wrong_sessions_are_refused() -> None:
    room = SessionRoom()
    assert room.begin(5, 1).error is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    session_id = room.begin(0, 0, ((0, 0),)).session_id
    assert room.begin(session_id, 2).error is ErrorCode.INVALID_FETCH_SESSION_EPOCH
    mixed = room.begin(session_id, 1, version=13)
    assert mixed.error is ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
    assert mixed.session_id == 0


def test_a_session_can_be_closed_and_replaced() -> None:
    room = SessionRoom()
    first = room.begin(0, 0, ((0, 0),)).session_id
    second = room.begin(first, 0, ((0, 0),)).session_id
    assert second not in (0, first)
    last = room.begin(second, EPOCH_FINAL, ((0, 0),))
    assert (last.session_id, len(last.entries), len(room.sessions)) == (0, 1, 0)


def test_a_session_without_partitions_ends() -> None:
    room = SessionRoom()
    session_id = room.begin(0, 0, ((0, 0),)).session_id
    assert room.begin(session_id, 1, forgotten=(0,)).session_id == 0
    assert room.begin(session_id, 2).error is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert room.begin(0, 0).session_id == 0


def test_the_epoch_wraps_to_one() -> None:
    room = SessionRoom()
    opened = room.begin(0, 0, ((0, 0),))
    assert opened.session is not None
    opened.session.epoch = EPOCH_MAX
    assert room.begin(opened.session_id, EPOCH_MAX).error is ErrorCode.NONE
    assert room.begin(opened.session_id, 1).error is ErrorCode.NONE


def test_sessions_are_limited_and_idle_ones_make_room() -> None:
    room = SessionRoom(sessions_max=1)
    first = room.begin(0, 0, ((0, 0),)).session_id
    assert room.begin(0, 0, ((0, 0),)).session_id == 0, "served without a session"
    room.runtime.advance(120_000)
    second = room.begin(0, 0, ((0, 0),)).session_id
    assert second not in (0, first)
    assert room.begin(first, 1).error is ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_a_session_of_topic_ids_forgets_by_topic_id() -> None:
    room = SessionRoom()
    session_id = room.begin(0, 0, ((0, 0), (1, 0)), version=13).session_id
    entries = room.begin(session_id, 1, forgotten=(0,), version=13).entries
    assert [entry.index for entry in entries] == [1]


def test_a_session_tells_what_became_of_its_log_topic() -> None:  # KIP-516
    room = SessionRoom()
    opened = room.begin(0, 0, ((0, 0),), version=13)

    def error(context: FetchContext) -> ErrorCode:
        (read,) = room.fetches.read(Fetch(context.entries))
        return read.error

    assert error(opened) is ErrorCode.NONE
    room.log.delete("t")
    deleted = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert error(room.begin(opened.session_id, 1, version=13)) is deleted
    room.log.create("t", 1, {})
    again = room.begin(opened.session_id, 2, ((0, 5),), version=13)
    assert error(again) is ErrorCode.INCONSISTENT_TOPIC_ID


# --- a cold disk ------------------------------------------------------------------------------


class ColdRoom(FetchRoom):
    """The same over files of which nothing is in memory; three batches in each partition."""

    def __init__(self) -> None:
        self.runtime = SimRuntime()
        self.disk = SimDisk()
        self.reopen()
        self.topic = self.log.create("t", 3, {})
        self.answers = []
        for index in range(3):
            for _ in range(3):
                self.produce("t", index)
        self.disk.is_cold = True

    def reopen(self) -> None:
        self.log = LocalLog(  # type: ignore[assignment]
            Path("/disk/data"), self.runtime, self.disk, LocalSettings(tail_bytes_max=0)
        )
        self.appends = TurnAppends(self.runtime, self.log)
        self.fetches = Fetches(self.runtime, self.log, TopicIds(self.log))

    @property
    def sizes(self) -> list[list[int]]:
        return [[read.size // BATCH_BYTES for read in reads] for reads in self.answers]


@pytest.mark.parametrize("wait_ms", [0, 500])
@pytest.mark.parametrize("bytes_min", [0, 1])
def test_what_is_on_its_way_is_not_answered_with_nothing(wait_ms: int, bytes_min: int) -> None:
    room = ColdRoom()
    assert room.serve(want(), wait_ms=wait_ms, bytes_min=bytes_min) is not None
    room.runtime.turn()
    assert room.answers == []
    room.runtime.settle()
    assert room.sizes == [[3]]
    assert room.fetches.waiting == 0


def test_what_is_decided_comes_together_with_what_was_aborted() -> None:
    room = ColdRoom()
    partition = room.log.partition("t", 0)
    assert partition is not None
    batch = BatchBuilder()
    batch.append(room.runtime.now_ms(), None, b"x")
    partition.append(batch.seal(0, 7, 0, 0, transactional=True), None)
    marker = build_marker(7, 0, EndMarker(False, 0), room.runtime.now_ms())
    partition.append(marker, None, trusted=True)
    room.log.close()
    room.disk.is_cold = False
    room.reopen()
    room.serve(want(), wait_ms=500)
    room.runtime.settle()
    room.answers.clear()  # the records are at hand from here on
    assert room.serve(want(), isolation=ISOLATION_DURABLE) is not None
    room.runtime.turn()
    assert room.answers == []
    room.runtime.settle()
    ((read,),) = room.answers
    assert (read.aborted, offset_after(read.buffers[-1])) == ([(7, 3)], 5)


def test_patience_that_ends_before_the_disk_does_is_stretched() -> None:
    room = ColdRoom()
    room.serve(want(), wait_ms=500)
    reads, room.runtime.reads = room.runtime.reads, deque()
    room.runtime.advance(1_000)
    assert room.answers == []
    room.runtime.reads = reads
    room.runtime.settle()
    assert room.sizes == [[3]]


def test_a_fetch_takes_what_is_there_first_and_the_rest_next_time() -> None:
    room = ColdRoom()
    entries = [want(index) for index in range(3)]
    room.serve(*entries, wait_ms=500)
    work, done = room.runtime.reads.popleft()
    done(work(), None)
    room.runtime.turn()
    assert room.sizes == [[3, 0, 0]]
    room.runtime.finish_reads()
    room.serve(want(1), want(2))
    assert room.sizes[1:] == [[3, 3]]


def test_a_fetch_that_wants_much_waits_for_all_that_is_on_its_way() -> None:
    room = ColdRoom()
    room.serve(want(0), want(1), want(2), wait_ms=500, bytes_min=9 * BATCH_BYTES)
    room.runtime.settle()
    assert room.sizes == [[3, 3, 3]]


def test_waiting_for_the_disk_takes_no_turns() -> None:
    room = ColdRoom()
    room.serve(want(0), want(1), wait_ms=500)
    room.runtime.turn()
    assert not room.runtime._deferred
    room.runtime.settle()


def test_one_fetch_has_no_more_loaded_than_it_may_have() -> None:
    room = ColdRoom()
    room.serve(want(0), want(1), want(2), bytes_max=2 * BIG)
    assert len(room.runtime.reads) == 2
    room.runtime.turn()
    assert not room.runtime._deferred, "the third is not waited for either"
    room.runtime.settle()


def test_an_error_of_the_disk_is_told() -> None:
    room = ColdRoom()
    room.disk.fail_only, room.disk.fail_at = ("pread",), room.disk.calls + 1
    room.serve(want(), wait_ms=500)
    room.runtime.settle()
    assert room.answers[0][0].error is ErrorCode.KAFKA_STORAGE_ERROR


def test_a_log_topic_that_goes_while_it_is_read_is_told() -> None:
    room = ColdRoom()
    room.serve(want(), wait_ms=500)
    room.log.delete("t")
    room.fetches.recheck()
    room.runtime.settle()
    assert room.answers[0][0].error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
