"""Settings of single groups: set, told, kept, and in force with the next heartbeat."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.kafka_peer import Peer, ShoreRoom

from isthmus.broker.group_configs import CONFIGS_LOG_TOPIC, GroupConfigs, ShareTerms
from isthmus.errors import NoSpace
from isthmus.kafka.api import ApiKey
from isthmus.kafka.consumer_types import Terms
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import BatchBuilder

GROUP = 32
SESSION, HEARTBEAT = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
SET, DELETE, APPEND = 0, 1, 2
OK, INVALID = ErrorCode.NONE, ErrorCode.INVALID_CONFIG


@pytest.fixture
def peer() -> Peer:
    return ShoreRoom().peer()


def alter(peer: Peer, name: str, value: str | None, operation: int = SET, **more: Any) -> int:
    config = {"name": name, "config_operation": operation, "value": value}
    resource = {"resource_type": GROUP, "resource_name": more.pop("group", "g")}
    body = {"resources": [{**resource, "configs": [config]}], **more}
    (row,) = peer.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, body)["responses"]
    return int(row["error_code"])


def described(peer: Peer, group: str = "g") -> dict[str, dict[str, Any]]:
    resource = {"resource_type": GROUP, "resource_name": group, "configuration_keys": None}
    body = {"resources": [resource], "include_synonyms": True}
    (result,) = peer.ask(ApiKey.DESCRIBE_CONFIGS, 4, body)["results"]
    assert result["error_code"] == OK
    return {row["name"]: row for row in result["configs"]}


def heartbeat(peer: Peer) -> int:
    body = {
        "group_id": "g",
        "member_id": "m",
        "rebalance_timeout_ms": 1_000,
        "subscribed_topic_names": [],
        "topic_partitions": [],
    }
    return int(peer.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, body)["heartbeat_interval_ms"])


def test_a_setting_holds_from_the_next_heartbeat_on(peer: Peer) -> None:
    assert heartbeat(peer) == 5_000
    assert alter(peer, HEARTBEAT, "7000") == OK
    assert heartbeat(peer) == 7_000
    assert alter(peer, HEARTBEAT, None, DELETE) == OK
    assert heartbeat(peer) == 5_000


def test_settings_are_described_with_where_they_come_from(peer: Peer) -> None:
    assert alter(peer, SESSION, "50000") == OK
    rows = described(peer)
    of_consumers = [name for name in rows if name.startswith("consumer.")]
    assert of_consumers == [SESSION, HEARTBEAT, "consumer.assignment.interval.ms"]
    assert (rows[SESSION]["value"], rows[SESSION]["config_source"]) == ("50000", 8)
    assert [one["value"] for one in rows[SESSION]["synonyms"]] == ["50000", "45000"]
    assert (rows[HEARTBEAT]["value"], rows[HEARTBEAT]["config_source"]) == ("5000", 4)
    assert rows[HEARTBEAT]["synonyms"][0]["name"] == f"group.{HEARTBEAT}"
    assert not rows[HEARTBEAT]["read_only"]
    assert described(peer, "other")[SESSION]["value"] == "45000"
    listed = peer.ask(ApiKey.LIST_CONFIG_RESOURCES, 1, {"resource_types": [GROUP]})
    assert [one["resource_name"] for one in listed["config_resources"]] == ["g"]


@pytest.mark.parametrize(
    ("name", "value", "operation", "code"),
    [
        (SESSION, "1", SET, INVALID),
        (SESSION, "60001", SET, INVALID),
        (SESSION, "x", SET, INVALID),
        (SESSION, "-45000", SET, INVALID),
        ("cleanup.policy", "compact", SET, INVALID),
        (SESSION, "45000", APPEND, INVALID),
        (SESSION, None, SET, ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_cannot_be_set(
    peer: Peer, name: str, value: str | None, operation: int, code: ErrorCode
) -> None:
    assert alter(peer, name, value, operation) == code
    assert described(peer)[SESSION]["value"] == "45000"


def test_all_groups_at_once_have_no_settings(peer: Peer) -> None:
    assert alter(peer, SESSION, "50000", group="") == ErrorCode.INVALID_REQUEST
    assert alter(peer, SESSION, "50000", validate_only=True) == OK
    assert peer.room.shore.group_configs.group_ids == []


def test_a_session_is_longer_than_what_is_between_heartbeats() -> None:
    room = ShoreRoom(
        group_consumer_session_timeout_ms=1_000, group_consumer_heartbeat_interval_ms=100
    )
    peer = room.peer()
    assert alter(peer, HEARTBEAT, "1000") == INVALID
    assert alter(peer, HEARTBEAT, "999") == OK, "the server's own is below the usual limits"


def test_a_change_that_is_not_stored_is_none(peer: Peer) -> None:
    peer.room.appends.error = NoSpace("full")
    assert alter(peer, SESSION, "50000") != OK
    assert described(peer)[SESSION]["value"] == "45000"


def test_settings_outlive_the_server(peer: Peer) -> None:
    alter(peer, SESSION, "50000")
    alter(peer, SESSION, "55000", group="h")
    alter(peer, SESSION, None, DELETE, group="h")
    room = peer.room
    partition = room.log.partition(CONFIGS_LOG_TOPIC, 0)
    assert partition is not None
    builder = BatchBuilder()
    for key, value in ((b"\xff", b"{}"), (b"i", b"?"), (b"j", b'{"no.such": "1"}')):
        builder.append(room.runtime.now_ms(), key, value)
    room.appends.append(partition, builder.seal(), None)
    room.runtime.settle()
    kept = GroupConfigs(room.runtime, room.log, room.appends, Terms(), ShareTerms())
    room.runtime.settle()
    assert kept.group_ids == ["g"], "what nobody here wrote is skipped"
    assert kept.terms("g").session_timeout_ms == 50_000
