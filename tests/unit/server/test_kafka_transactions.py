"""Transactions on the wire: in every version, of both kinds, over restarts at every append."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.kafka_peer import versions
from tests.unit.server.transaction_room import GROUP, Client, TransactionRoom

from isthmus.errors import NoSpace
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.transaction import State
from isthmus.kafka.transaction_records import TRANSACTIONS_LOG_TOPIC, read_transaction
from isthmus.record.batch import split_batches

OK = ErrorCode.NONE
BOTH = pytest.mark.parametrize("bumps", [False, True], ids=["classic", "newer"])


@pytest.fixture
def room() -> TransactionRoom:
    return TransactionRoom()


def begun(room: TransactionRoom, name: str = "x", *, bumps: bool) -> Client:
    client = Client(room, name, bumps=bumps)
    assert client.init() is OK
    return client


def state_of(room: TransactionRoom, name: str = "x") -> State:
    kept = room.shore.transactions.described(name)
    assert not isinstance(kept, ErrorCode)
    return kept.state


@BOTH
def test_what_is_committed_is_seen_together_and_what_is_aborted_never(
    room: TransactionRoom, *, bumps: bool
) -> None:
    client = begun(room, bumps=bumps)
    for number, commits in enumerate((True, False, True)):
        for index in (0, 1):
            assert client.send(b"%d" % number, index) is OK
        assert room.is_open(0), "nobody sees it before the marker"
        assert client.end(commits=commits) is OK
        room.runtime.settle()
        assert not room.is_open(0)
    assert room.decided(0) == room.decided(1) == [b"0", b"2"]
    assert state_of(room) is State.COMPLETE_COMMIT


@BOTH
def test_offsets_of_a_group_count_with_the_transaction(
    room: TransactionRoom, *, bumps: bool
) -> None:
    client = begun(room, bumps=bumps)
    assert client.commit_offset(5) is OK
    assert room.committed() == (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT)
    assert room.committed(stable=False) == (-1, OK)
    room.restart()
    assert room.committed() == (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT)
    assert client.end(commits=True) is OK
    assert room.committed() == (5, OK)
    assert client.commit_offset(9) is OK
    assert client.end(commits=False) is OK
    assert room.committed() == (5, OK)
    room.restart()
    assert room.committed() == (5, OK)


@BOTH
def test_an_offset_committed_later_is_not_replaced_by_a_transaction(
    room: TransactionRoom, *, bumps: bool
) -> None:
    client = begun(room, bumps=bumps)
    assert client.commit_offset(5) is OK
    one = {"partition_index": 0, "committed_offset": 7}
    topics = [{"name": "t", "partitions": [one]}]
    room.peer().ask(ApiKey.OFFSET_COMMIT, 5, {"group_id": GROUP, "topics": topics})
    assert client.end(commits=True) is OK
    assert room.committed() == (7, OK)
    room.restart()
    assert room.committed() == (7, OK)


@BOTH
def test_who_is_no_member_of_the_generation_commits_nothing(
    room: TransactionRoom, *, bumps: bool
) -> None:
    client = begun(room, bumps=bumps)
    stale = {"generation_id": 3, "member_id": "gone"}
    assert client.commit_offset(5, **stale) is ErrorCode.ILLEGAL_GENERATION
    assert client.end(commits=True) is OK
    assert room.committed() == (-1, OK)


@BOTH
def test_who_comes_second_fences_the_first(room: TransactionRoom, *, bumps: bool) -> None:
    first = begun(room, bumps=bumps)
    assert first.send(b"zombie") is OK
    second = begun(room, bumps=bumps)
    assert (second.id, second.epoch) == (first.id, first.epoch + 2), "one for the fence"
    fenced = {ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_PRODUCER_EPOCH}
    assert first.send(b"late") in fenced
    assert first.commit_offset(3) in fenced
    assert first.end(commits=True) in fenced
    assert second.send(b"new") is OK
    assert second.end(commits=True) is OK
    assert room.decided() == [b"new"]


@BOTH
def test_a_transaction_open_for_too_long_is_aborted(
    room: TransactionRoom, *, bumps: bool
) -> None:
    client = Client(room, bumps=bumps)
    assert client.init(timeout_ms=5_000) is OK
    assert client.send(b"slow") is OK
    room.runtime.advance(4_000)
    assert room.is_open()
    room.runtime.advance(3_000)
    assert not room.is_open()
    assert client.end(commits=True) in (ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_TXN_STATE)
    assert state_of(room) is State.COMPLETE_ABORT
    if bumps:  # a newer client that aborts hears which epoch it has now
        assert client.end(commits=False) is OK
        assert client.send(b"again") is OK
        assert client.end(commits=True) is OK
        assert room.decided() == [b"again"]


@BOTH
def test_the_end_may_come_over_any_connection_and_a_retry_hears_the_same(
    room: TransactionRoom, *, bumps: bool
) -> None:
    client = begun(room, bumps=bumps)
    assert client.send(b"v") is OK
    elsewhere = Client(room, bumps=bumps)
    elsewhere.id, elsewhere.epoch = client.id, client.epoch
    assert elsewhere.end(commits=True) is OK
    assert client.end(commits=True) is OK
    assert (client.id, client.epoch) == (elsewhere.id, elsewhere.epoch)
    assert client.epoch == (1 if bumps else 0)
    assert room.decided() == [b"v"]


def test_a_batch_of_an_older_client_has_to_be_announced(room: TransactionRoom) -> None:
    client = begun(room, bumps=False)
    assert client.send(b"v", version=9) is ErrorCode.INVALID_TXN_STATE
    assert client.send(b"v", version=11) is ErrorCode.TRANSACTION_ABORTABLE
    assert client.add(1) is OK
    assert client.send(b"v", 0, version=9) is ErrorCode.INVALID_TXN_STATE
    assert client.send(b"v", 1, version=9) is OK
    assert client.end(commits=True) is OK
    assert client.send(b"late", 1, version=9) is ErrorCode.INVALID_TXN_STATE
    client.name = "nobody"
    assert client.send(b"v", version=9) is ErrorCode.INVALID_PRODUCER_ID_MAPPING


def test_a_newer_client_begins_with_the_first_sequence(room: TransactionRoom) -> None:
    client = begun(room, bumps=True)
    client.sequences[0] = 3
    assert client.send(b"v") is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_batches_that_come_at_once_wait_for_the_end_before_and_keep_their_order(
    room: TransactionRoom,
) -> None:
    client = begun(room, bumps=True)
    assert client.send(b"0") is OK
    peer = room.peer()
    own = {"transactional_id": "x", "producer_id": client.id, "producer_epoch": client.epoch}
    peer.feed(peer.frame(ApiKey.END_TXN, 5, {**own, "committed": True}))
    client.epoch, client.sequences = client.epoch + 1, {}
    other = room.peer()
    for number in range(3):
        client.sequences[0] = number
        one = {"index": 0, "records": client.batch(b"%d" % (number + 1))}
        topics = [{"name": "t", "partition_data": [one]}]
        body = {"acks": -1, "transactional_id": "x", "topic_data": topics}
        frame = other.frame(ApiKey.PRODUCE, 12, body)
        while not peer.transport.sent and number == 0:
            room.runtime.turn()  # the end is decided, and not complete
        other.feed(frame)
    assert state_of(room) is State.PREPARE_COMMIT
    room.runtime.settle()
    rows = [answer["responses"][0]["partition_responses"][0] for answer in other.answers()]
    assert [row["error_code"] for row in rows] == [OK, OK, OK]
    assert [row["base_offset"] for row in rows] == [2, 3, 4], "behind the marker"


@pytest.mark.parametrize("version", versions(ApiKey.ADD_PARTITIONS_TO_TXN))
def test_partitions_are_added_or_refused_in_every_version(
    room: TransactionRoom, version: int
) -> None:
    client = begun(room, bumps=False)

    def add(topics: dict[str, list[int]], name: str = "x", **more: Any) -> dict[Any, int]:
        rows = [{"name": topic, "partitions": each} for topic, each in topics.items()]
        own = {"transactional_id": name, "producer_id": client.id, "topics": rows}
        own["producer_epoch"] = client.epoch
        body = {"transactions": [{**own, **more}]}
        if version < 4:
            body = {f"v3_and_below_{field}": value for field, value in own.items()}  # type: ignore[misc]
        answer = client.ask(ApiKey.ADD_PARTITIONS_TO_TXN, version, body)
        assert answer is not None
        found = answer["results_by_topic_v3_and_below"]
        if version >= 4:
            (result,) = answer["results_by_transaction"]
            found = result["topic_results"]
        return {
            (topic["name"], row["partition_index"]): row["partition_error_code"]
            for topic in found
            for row in topic["results_by_partition"]
        }

    assert add({"t": [0, 9]}) == {
        ("t", 0): ErrorCode.OPERATION_NOT_ATTEMPTED,
        ("t", 9): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert add({"t": [0]}) == {("t", 0): OK}
    if version >= 4:
        assert add({"t": [0, 1]}, verify_only=True) == {
            ("t", 0): OK,
            ("t", 1): ErrorCode.TRANSACTION_ABORTABLE,
        }
    else:
        refused = add({"__consumer_offsets": [0]})
        assert refused == {("__consumer_offsets", 0): ErrorCode.TOPIC_AUTHORIZATION_FAILED}
    mapping = ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert add({"t": [1]}, name="nobody") == {("t", 1): mapping}
    client.epoch += 1
    known = ErrorCode.PRODUCER_FENCED if version >= 2 else ErrorCode.INVALID_PRODUCER_EPOCH
    assert add({"t": [1]}) == {("t", 1): known}


@pytest.mark.parametrize("version", versions(ApiKey.INIT_PRODUCER_ID))
def test_a_producer_goes_on_with_what_it_has(room: TransactionRoom, version: int) -> None:
    client = begun(room, bumps=False)

    def init(producer_id: int, epoch: int, **more: Any) -> tuple[int, int, int]:
        body = {"transactional_id": "x", "transaction_timeout_ms": 9_000, **more}
        if version >= 3:
            body |= {"producer_id": producer_id, "producer_epoch": epoch}
        answer = client.ask(ApiKey.INIT_PRODUCER_ID, version, body)
        assert answer is not None
        return answer["error_code"], answer["producer_id"], answer["producer_epoch"]

    assert init(-1, -1) == (OK, client.id, 1)
    invalid = ErrorCode.INVALID_TRANSACTION_TIMEOUT
    for timeout_ms in (0, -1, 900_001):
        assert init(-1, -1, transaction_timeout_ms=timeout_ms) == (invalid, -1, -1)
    assert init(-1, -1, transactional_id="") == (ErrorCode.INVALID_REQUEST, -1, -1)
    if version < 3:
        return
    known = ErrorCode.PRODUCER_FENCED if version >= 4 else ErrorCode.INVALID_PRODUCER_EPOCH
    assert init(client.id, 1) == (OK, client.id, 2)
    assert init(client.id, 1) == (OK, client.id, 2), "a retry"
    assert init(client.id, 0) == (known, -1, -1)
    assert init(client.id + 1, 2) == (known, -1, -1)
    assert init(client.id, -1) == (ErrorCode.INVALID_REQUEST, -1, -1)


@pytest.mark.parametrize("version", versions(ApiKey.END_TXN))
def test_what_cannot_be_ended_is_refused(room: TransactionRoom, version: int) -> None:
    client = begun(room, bumps=version >= 5)

    def end(epoch: int, *, commits: bool, producer_id: int = client.id) -> int:
        body = {"transactional_id": "x", "producer_id": producer_id}
        body |= {"producer_epoch": epoch, "committed": commits}
        answer = client.ask(ApiKey.END_TXN, version, body)
        assert answer is not None
        return int(answer["error_code"])

    fenced = ErrorCode.PRODUCER_FENCED if version >= 2 else ErrorCode.INVALID_PRODUCER_EPOCH
    assert end(0, commits=True) == ErrorCode.INVALID_TXN_STATE, "nothing has begun"
    assert end(0, commits=True, producer_id=5) == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert end(1, commits=True) == fenced
    assert end(0, commits=False) == (OK if version >= 5 else ErrorCode.INVALID_TXN_STATE)


@pytest.mark.parametrize("version", versions(ApiKey.TXN_OFFSET_COMMIT))
def test_offsets_are_committed_in_every_version(room: TransactionRoom, version: int) -> None:
    client = begun(room, bumps=False)
    own = {"transactional_id": "x", "producer_id": client.id, "producer_epoch": 0}
    one = {"partition_index": 0, "committed_offset": 5, "committed_metadata": None}

    def commit(group: str = GROUP, **more: Any) -> list[int]:
        rows = [{**one, **more}, {**one, "partition_index": 7}]
        topics = [{"name": "t", "partitions": rows}]
        answer = client.ask(
            ApiKey.TXN_OFFSET_COMMIT, version, {**own, "group_id": group, "topics": topics}
        )
        assert answer is not None
        return [row["error_code"] for row in answer["topics"][0]["partitions"]]

    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert commit("") == [ErrorCode.INVALID_GROUP_ID, unknown]
    if version < 5:
        missing = (
            ErrorCode.TRANSACTION_ABORTABLE if version >= 4 else ErrorCode.INVALID_TXN_STATE
        )
        assert commit() == [missing, unknown]
        for added in versions(ApiKey.ADD_OFFSETS_TO_TXN):
            answer = client.ask(ApiKey.ADD_OFFSETS_TO_TXN, added, {**own, "group_id": GROUP})
            assert answer is not None
            assert answer["error_code"] == OK
    assert commit() == [OK, unknown]
    assert room.committed() == (-1, ErrorCode.UNSTABLE_OFFSET_COMMIT)
    assert client.end(commits=True) is OK
    assert room.committed() == (5, OK)


def test_it_is_stored_as_kafka_does(room: TransactionRoom) -> None:
    client = begun(room, bumps=True)
    client.send(b"v", 1)
    client.end(commits=True)
    partition = room.log.partition(TRANSACTIONS_LOG_TOPIC, 0)
    assert partition is not None
    batches = [
        batch
        for buffer in partition.read(0, 1 << 30).buffers
        for batch in split_batches(buffer)
    ]
    stored = [
        read_transaction(record.value or b"") for each in batches for record in each.records()
    ]
    assert [(each.state.title, each.epoch, each.partitions) for each in stored] == [
        ("Empty", 0, frozenset()),
        ("Ongoing", 0, {("t", 1)}),
        ("PrepareCommit", 1, {("t", 1)}),
        ("CompleteCommit", 1, frozenset()),
    ]
    assert {each.producer_id for each in stored} == {client.id}


@BOTH
def test_what_the_disk_refuses_counts_for_nothing(
    room: TransactionRoom, *, bumps: bool
) -> None:
    client = begun(room, bumps=bumps)
    assert client.send(b"v") is OK
    room.appends.error = NoSpace("full")
    assert client.end(commits=True) is ErrorCode.NOT_COORDINATOR
    assert client.send(b"w", 1) is ErrorCode.NOT_ENOUGH_REPLICAS if bumps else True
    room.appends.error = None
    assert state_of(room) is State.ONGOING
    assert client.end(commits=True) is OK
    assert room.decided() == [b"v"]


def test_markers_that_the_disk_refuses_are_written_when_it_can(room: TransactionRoom) -> None:
    client = begun(room, bumps=False)
    assert client.send(b"v") is OK
    peer = room.peer()
    own = {"transactional_id": "x", "producer_id": client.id, "producer_epoch": 0}
    peer.feed(peer.frame(ApiKey.END_TXN, 4, {**own, "committed": True}))
    while not peer.transport.sent:
        room.runtime.turn()
        room.appends.error = NoSpace("full")
    room.runtime.advance(5_000)
    assert state_of(room) is State.PREPARE_COMMIT
    room.appends.error = None
    room.runtime.advance(5_000)
    assert state_of(room) is State.COMPLETE_COMMIT
    assert room.decided() == [b"v"]


@BOTH
def test_a_restart_at_any_append_leaves_a_transaction_whole(*, bumps: bool) -> None:
    """Each transaction writes its number twice and commits it as the group's offset."""
    appends = 0
    while True:
        room = TransactionRoom()
        room.appends.left = appends  # type: ignore[attr-defined]
        client = Client(room, bumps=bumps)
        done = 0
        if client.init() is OK:
            for number in range(1, 4):
                steps = [client.send(b"%d" % number, index) is OK for index in (0, 1)]
                steps.append(client.commit_offset(number) is OK)
                if not all(steps) or client.end(commits=True) is not OK:
                    break
                done = number
        ended = room.appends.ended  # type: ignore[attr-defined]
        room.restart()
        room.runtime.advance(20_000)  # what was not decided is aborted
        assert not room.is_open(0)
        assert not room.is_open(1)
        values = room.decided(0)
        assert values == room.decided(1)
        assert values in ([b"%d" % n for n in range(1, m + 1)] for m in (done, done + 1))
        assert room.committed() == (int(values[-1]) if values else -1, OK)
        assert begun(room, bumps=bumps).send(b"next") is OK
        if not ended:
            break
        appends += 1
    assert appends > 30


def test_a_topic_deleted_meanwhile_holds_nothing_up(room: TransactionRoom) -> None:
    client = begun(room, bumps=True)
    assert client.send(b"v") is OK
    room.log.delete("t")
    assert client.end(commits=True) is OK
    room.runtime.settle()
    assert state_of(room) is State.COMPLETE_COMMIT


def test_an_id_that_nobody_uses_is_forgotten(room: TransactionRoom) -> None:
    client = begun(room, bumps=False)
    idle = begun(room, "idle", bumps=False)
    room.runtime.advance(100 * 3_600_000)
    assert client.send(b"v") is OK
    assert client.end(commits=True) is OK
    room.runtime.advance(100 * 3_600_000)
    for _ in range(2):
        assert idle.end(commits=True) is ErrorCode.INVALID_PRODUCER_ID_MAPPING
        assert state_of(room) is State.COMPLETE_COMMIT
        room.restart()
