"""Levels of features: lowered, raised again, kept, and obeyed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.broker.features import FEATURES_LOG_TOPIC, GROUP, TRANSACTION, Features
from isthmus.errors import NoSpace
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import BatchBuilder

UPGRADE, SAFE, UNSAFE = 1, 2, 3
OK, INVALID = ErrorCode.NONE, ErrorCode.INVALID_UPDATE_VERSION


@pytest.fixture
def peer() -> Peer:
    return ShoreRoom().peer()


def update(
    peer: Peer, *updates: tuple[str, int, int], version: int = 2, dry: bool = False
) -> dict[str, Any]:
    rows = [
        {"feature": name, "max_version_level": level}
        | ({"upgrade_type": kind} if version else {"allow_downgrade": kind != UPGRADE})
        for name, level, kind in updates
    ]
    body: dict[str, Any] = {"feature_updates": rows}
    if version:
        body["validate_only"] = dry
    return peer.ask(ApiKey.UPDATE_FEATURES, version, body)


def told(peer: Peer) -> tuple[dict[str, int], int]:
    """Return what a client that comes now is told, and the epoch of it."""
    named = {"client_software_name": "x", "client_software_version": "1"}
    answer = peer.ask(ApiKey.API_VERSIONS, 4, named)
    rows = answer["finalized_features"]
    levels = {row["name"]: row["max_version_level"] for row in rows}
    return levels, answer["finalized_features_epoch"]


@pytest.mark.parametrize("version", versions(ApiKey.UPDATE_FEATURES))
def test_a_level_is_lowered_and_raised(peer: Peer, version: int) -> None:
    before, epoch = told(peer)
    assert before[TRANSACTION] == 2
    answer = update(peer, (TRANSACTION, 1, SAFE), version=version)
    assert answer["error_code"] == OK
    if version < 2:
        assert [row["feature"] for row in answer["results"]] == [TRANSACTION]
    assert told(peer) == ({**before, TRANSACTION: 1}, epoch + 1)
    assert update(peer, (TRANSACTION, 2, UPGRADE), version=version)["error_code"] == OK
    assert told(peer) == (before, epoch + 2)


def test_without_its_feature_the_consumer_protocol_is_refused(peer: Peer) -> None:
    update(peer, (GROUP, 0, UNSAFE))
    assert GROUP not in told(peer)[0]
    beat = {"group_id": "g", "member_id": "m"}
    answer = peer.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, beat)
    assert answer["error_code"] == ErrorCode.UNSUPPORTED_VERSION
    answer = peer.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, 1, {"group_ids": ["g"]})
    assert answer["groups"][0]["error_code"] == ErrorCode.UNSUPPORTED_VERSION


def test_a_request_is_done_as_a_whole_or_not_at_all(peer: Peer) -> None:
    before = told(peer)
    answer = update(peer, (GROUP, 0, SAFE), ("nothing", 1, UPGRADE), version=1)
    assert (answer["error_code"], answer["results"]) == (INVALID, [])
    assert update(peer, (GROUP, 0, SAFE), dry=True)["error_code"] == OK
    assert update(peer, (GROUP, 1, UPGRADE))["error_code"] == OK
    assert told(peer) == before
    assert FEATURES_LOG_TOPIC not in peer.room.log.topics


def test_levels_are_kept(peer: Peer) -> None:
    update(peer, (GROUP, 0, SAFE))
    update(peer, (TRANSACTION, 0, SAFE))
    room = peer.room
    again = Features(room.runtime, room.log, room.appends)
    assert (again.level(GROUP), again.level(TRANSACTION), again.epoch) == (0, 0, 2)
    room.appends.error = NoSpace("full")
    assert update(peer, (GROUP, 1, UPGRADE))["error_code"] not in (OK, INVALID)
    assert room.shore.features.level(GROUP) == 0


def test_what_is_no_level_is_left_out(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    update(peer, (GROUP, 0, SAFE))
    room = peer.room
    builder = BatchBuilder()
    builder.append(0, b"finalized", b'{"group.version":"-1"}')
    partition = room.log.topics[FEATURES_LOG_TOPIC].partitions[0]
    room.appends.append(partition, builder.seal(), None)
    room.runtime.settle()
    assert Features(room.runtime, room.log, room.appends).level(GROUP) == 0
    assert "settings skipped" in caplog.text
