"""What operators ask of transactions, and how they end one that hangs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.kafka_peer import versions
from tests.unit.server.transaction_room import Client, TransactionRoom

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group_records import GROUPS_LOG_TOPIC
from isthmus.kafka.transaction_records import TRANSACTIONS_LOG_TOPIC
from isthmus.record.batch import BatchBuilder

OK = ErrorCode.NONE
NOW = 1_700_000_000_000


@pytest.fixture
def room() -> TransactionRoom:
    room = TransactionRoom()
    for name, commits in (("done", True), ("dropped", False), ("open", None)):
        client = Client(room, name, bumps=True)
        assert client.init() is OK
        assert client.send(name.encode()) is OK
        if commits is not None:
            assert client.end(commits=commits) is OK
    return room


def listed(room: TransactionRoom, version: int = 2, **filters: Any) -> dict[str, str]:
    answer = room.peer().ask(ApiKey.LIST_TRANSACTIONS, version, filters)
    assert answer["error_code"] == OK
    return {
        row["transactional_id"]: row["transaction_state"]
        for row in answer["transaction_states"]
    }


@pytest.mark.parametrize("version", versions(ApiKey.LIST_TRANSACTIONS))
def test_transactions_are_listed_by_what_is_asked_for(
    room: TransactionRoom, version: int
) -> None:
    everything = {"done": "CompleteCommit", "dropped": "CompleteAbort", "open": "Ongoing"}
    assert listed(room, version) == everything
    assert listed(room, version, state_filters=["Ongoing"]) == {"open": "Ongoing"}
    assert listed(room, version, producer_id_filters=[1]) == {}
    kept = room.shore.transactions.described("done")
    assert not isinstance(kept, ErrorCode)
    assert set(listed(room, version, producer_id_filters=[kept.producer_id])) == {"done"}
    answer = room.peer().ask(
        ApiKey.LIST_TRANSACTIONS, version, {"state_filters": ["Ongoing", "Sleeping"]}
    )
    assert answer["unknown_state_filters"] == ["Sleeping"]
    assert len(answer["transaction_states"]) == 1
    assert listed(room, version, state_filters=["Sleeping"]) == {}
    if version >= 1:
        room.runtime.advance(5_000)
        assert listed(room, version, duration_filter=10_000) == {}
        assert listed(room, version, duration_filter=4_000) == everything
    if version >= 2:
        assert set(listed(room, transactional_id_pattern="d.*")) == {"done", "dropped"}
        assert listed(room, transactional_id_pattern="d") == {}, "the whole name"
        assert listed(room, transactional_id_pattern="") == everything
        answer = room.peer().ask(
            ApiKey.LIST_TRANSACTIONS, version, {"transactional_id_pattern": "["}
        )
        assert answer["error_code"] == ErrorCode.INVALID_REGULAR_EXPRESSION


def test_a_transaction_is_described(room: TransactionRoom) -> None:
    names = ["open", "done", "absent", ""]
    answer = room.peer().ask(ApiKey.DESCRIBE_TRANSACTIONS, 0, {"transactional_ids": names})
    found = answer["transaction_states"]
    assert [row["transactional_id"] for row in found] == names
    assert [row["error_code"] for row in found] == [
        *(OK, OK, ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, ErrorCode.INVALID_REQUEST)
    ]
    assert found[0]["topics"] == [{"topic": "t", "partitions": [0]}]
    assert (found[0]["transaction_state"], found[0]["transaction_timeout_ms"]) == (
        *("Ongoing", 10_000),
    )
    assert (found[0]["transaction_start_time_ms"], found[0]["producer_epoch"]) == (NOW, 0)
    assert (found[1]["topics"], found[1]["producer_epoch"]) == ([], 1)


def producers(room: TransactionRoom, name: str = "t", index: int = 0) -> dict[str, Any]:
    topics = [{"name": name, "partition_indexes": [index]}]
    answer = room.peer().ask(ApiKey.DESCRIBE_PRODUCERS, 0, {"topics": topics})
    return answer["topics"][0]["partitions"][0]


def test_producers_of_a_partition_are_described(room: TransactionRoom) -> None:
    rows = producers(room)["active_producers"]
    assert [row["producer_epoch"] for row in rows] == [1, 1, 0]
    assert [row["current_txn_start_offset"] for row in rows] == [-1, -1, 4]
    assert [row["last_sequence"] for row in rows] == [-1, -1, 0]
    assert [row["coordinator_epoch"] for row in rows] == [0, 0, -1]
    absent = producers(room, index=7)
    assert absent["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def write_marker(
    room: TransactionRoom, producer: tuple[int, int], version: int = 2, **more: Any
) -> int:
    name, index = more.pop("place", ("t", 1))
    marker = {
        "producer_id": producer[0],
        "producer_epoch": producer[1],
        "transaction_result": False,
        "topics": [{"name": name, "partition_indexes": [index]}],
        **more,
    }
    answer = room.peer().ask(ApiKey.WRITE_TXN_MARKERS, version, {"markers": [marker]})
    (row,) = answer["markers"][0]["topics"][0]["partitions"]
    return int(row["error_code"])


@pytest.mark.parametrize("version", versions(ApiKey.WRITE_TXN_MARKERS))
def test_a_transaction_that_nobody_knows_any_more_is_ended_by_hand(
    room: TransactionRoom, version: int
) -> None:
    partition = room.log.partition("t", 1)
    assert partition is not None
    builder = BatchBuilder()
    builder.append(NOW, b"k", b"hangs")
    partition.append(builder.seal(0, 77, 3, 0, transactional=True), None)
    room.log.flush()
    assert room.is_open(1)
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert write_marker(room, (77, 3), version, place=("t", 9)) == unknown
    assert write_marker(room, (77, 3), version, place=(TRANSACTIONS_LOG_TOPIC, 0)) == unknown
    fenced = ErrorCode.INVALID_PRODUCER_EPOCH
    assert write_marker(room, (77, 2), version) == fenced
    if version >= 2:
        assert write_marker(room, (77, 3), transaction_version=2) == fenced, (
            "it has to be higher"
        )
    assert room.is_open(1)
    assert write_marker(room, (77, 3), version) == OK
    assert not room.is_open(1)
    assert room.decided(1) == []
    refused = ErrorCode.TRANSACTION_COORDINATOR_FENCED
    assert write_marker(room, (77, 3), version, coordinator_epoch=-1) == refused


def test_a_marker_by_hand_decides_about_offsets_too(room: TransactionRoom) -> None:
    client = Client(room, bumps=False)
    assert client.init() is OK
    assert client.commit_offset(5) is OK
    place = (GROUPS_LOG_TOPIC, 0)
    committed = {"place": place, "transaction_result": True}
    assert write_marker(room, (client.id, client.epoch), **committed) == OK
    assert room.committed() == (5, OK)
