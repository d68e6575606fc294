"""DescribeLogDirs in every version: one directory, its room, what partitions take of it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.storage.batches import batch_of
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.errors import StorageError, SyncFailed
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

EVERY_VERSION = versions(ApiKey.DESCRIBE_LOG_DIRS)


@pytest.fixture
def peer() -> Peer:
    room = ShoreRoom()
    room.log.create("a", 2, {})
    room.log.create("b", 1, {})
    partition = room.log.partition("a", 1)
    assert partition is not None
    partition.append(batch_of(b"x" * 1000), None)
    room.log.flush()
    room.log.directory = "/data"
    return room.peer()


def sizes(result: dict[str, Any]) -> dict[str, dict[int, int]]:
    return {
        topic["name"]: {
            one["partition_index"]: one["partition_size"] for one in topic["partitions"]
        }
        for topic in result["topics"]
    }


def ask(peer: Peer, topics: Any, version: int = EVERY_VERSION[-1]) -> dict[str, Any]:
    answer = peer.ask(ApiKey.DESCRIBE_LOG_DIRS, version, {"topics": topics})
    assert answer.get("error_code", 0) == ErrorCode.NONE
    (result,) = answer["results"]
    return result


@pytest.mark.parametrize("version", EVERY_VERSION)
def test_everything(peer: Peer, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.room.log, "volume", lambda: (1 << 40, 1 << 39))
    result = ask(peer, None, version)
    size = peer.room.log.topics["a"].partitions[1].size_bytes
    assert size > 1000
    assert (result["error_code"], result["log_dir"]) == (ErrorCode.NONE, "/data")
    assert sizes(result) == {"a": {0: 0, 1: size}, "b": {0: 0}}
    rows = [row for topic in result["topics"] for row in topic["partitions"]]
    assert all(row["offset_lag"] == 0 and not row["is_future_key"] for row in rows)
    if version >= 4:
        assert (result["total_bytes"], result["usable_bytes"]) == (1 << 40, 1 << 39)
    if version >= 5:
        assert result["is_cordoned"] is False


def test_only_what_is_asked_for_and_there_is(peer: Peer) -> None:
    asked = [
        {"topic": "a", "partitions": [1, 7, -1]},
        {"topic": "a", "partitions": [0, 1]},
        {"topic": "b", "partitions": [1]},
        {"topic": "unknown", "partitions": [0]},
    ]
    result = ask(peer, asked)
    assert {name: list(rows) for name, rows in sizes(result).items()} == {"a": [0, 1]}
    assert sizes(ask(peer, [])) == {}


def test_room_that_nobody_knows(peer: Peer) -> None:
    result = ask(peer, None)
    assert (result["total_bytes"], result["usable_bytes"]) == (-1, -1)


def test_a_failed_log_shows_and_its_sizes_too(peer: Peer) -> None:
    peer.room.log.error = SyncFailed("fdatasync failed")
    result = ask(peer, None)
    assert result["error_code"] == ErrorCode.KAFKA_STORAGE_ERROR
    assert len(sizes(result)) == 2


def test_a_disk_that_does_not_answer(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def volume() -> tuple[int, int]:
        raise StorageError("no room known")

    monkeypatch.setattr(peer.room.log, "volume", volume)
    result = ask(peer, None)
    assert result["error_code"] == ErrorCode.KAFKA_STORAGE_ERROR
    assert (result["total_bytes"], result["usable_bytes"]) == (-1, -1)
