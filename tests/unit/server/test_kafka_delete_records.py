"""DeleteRecords in every version: each partition alone, answered when the disk knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.storage.batches import batch_of
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.errors import StorageError
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_VERSION = versions(ApiKey.DELETE_RECORDS)
EARLIEST = -2


@pytest.fixture
def peer() -> Peer:
    room = ShoreRoom()
    room.log.create("a", 2, {})
    for name in ("compacted", "__consumer_offsets", "__mqtt_internal"):
        room.log.create(name, 1, {"cleanup.policy": "compact"})
    for name, index in (("a", 0), ("a", 1), ("compacted", 0)):
        partition = room.log.partition(name, index)
        assert partition is not None
        partition.append(batch_of(b"0", b"1", b"2", b"3", keys=[b"k"] * 4), None)
    room.log.flush()
    return room.peer()


def request(*topics: tuple[str, dict[int, int]]) -> dict[str, Any]:
    return {
        "topics": [
            {
                "name": name,
                "partitions": [
                    {"partition_index": index, "offset": offset}
                    for index, offset in offsets.items()
                ],
            }
            for name, offsets in topics
        ],
        "timeout_ms": 30_000,
    }


def ask(
    peer: Peer, *topics: tuple[str, dict[int, int]], version: int = EVERY_VERSION[-1]
) -> dict[tuple[str, int], tuple[int, int]]:
    """Return (error code, low watermark) by log topic and partition."""
    answer = peer.ask(ApiKey.DELETE_RECORDS, version, request(*topics))
    return {
        (topic["name"], one["partition_index"]): (one["error_code"], one["low_watermark"])
        for topic in answer["topics"]
        for one in topic["partitions"]
    }


@pytest.mark.parametrize("version", EVERY_VERSION)
def test_each_partition_begins_where_it_was_asked_to(peer: Peer, version: int) -> None:
    told = ask(peer, ("a", {0: 3, 1: -1}), version=version)
    assert told == {("a", 0): (0, 3), ("a", 1): (0, 4)}
    assert [each.start_offset for each in peer.room.log.topics["a"].partitions] == [3, 4]


def test_where_it_begins_later_already_nothing_changes(peer: Peer) -> None:
    assert ask(peer, ("a", {0: 3})) == {("a", 0): (0, 3)}
    assert ask(peer, ("a", {0: 1})) == {("a", 0): (0, 3)}


def test_what_fails_fails_alone(peer: Peer) -> None:
    told = ask(
        peer,
        ("a", {0: 5, 1: 2, 7: 0}),
        ("unknown", {0: 0}),
        ("compacted", {0: 1}),
        ("__consumer_offsets", {0: 0}),
        ("__mqtt_internal", {0: 0}),
    )
    assert told == {
        ("a", 0): (ErrorCode.OFFSET_OUT_OF_RANGE, -1),
        ("a", 1): (ErrorCode.NONE, 2),
        ("a", 7): (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        ("unknown", 0): (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        ("compacted", 0): (ErrorCode.POLICY_VIOLATION, -1),
        ("__consumer_offsets", 0): (ErrorCode.INVALID_TOPIC_EXCEPTION, -1),
        ("__mqtt_internal", 0): (ErrorCode.INVALID_TOPIC_EXCEPTION, -1),
    }


def test_nothing_asked_for_is_answered_with_nothing(peer: Peer) -> None:
    assert ask(peer) == {}


def test_the_answer_waits_for_the_last_partition(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Callable[..., object]] = []
    for partition in peer.room.log.topics["a"].partitions:
        monkeypatch.setattr(
            partition, "delete_before", lambda offset, done: waiting.append(done)
        )
    peer.feed(peer.frame(ApiKey.DELETE_RECORDS, 2, request(("a", {0: 1, 1: 1}))))
    peer.room.runtime.settle()
    assert peer.answers() == []
    waiting[1](None)
    assert peer.answers() == []
    waiting[0](StorageError("the disk is gone"))
    (answer,) = peer.answers()
    rows = answer["topics"][0]["partitions"]
    assert [row["error_code"] for row in rows] == [
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.NONE,
    ]


def test_readers_find_the_new_start(peer: Peer) -> None:
    ask(peer, ("a", {0: 3}))
    wanted = {"partition_index": 0, "timestamp": EARLIEST, "current_leader_epoch": -1}
    answer = peer.ask(
        ApiKey.LIST_OFFSETS,
        7,
        {
            "replica_id": -1,
            "isolation_level": 0,
            "topics": [{"name": "a", "partitions": [wanted]}],
        },
    )
    assert answer["topics"][0]["partitions"][0]["offset"] == 3
