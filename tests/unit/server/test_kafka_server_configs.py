"""Settings of the server: changed while it runs, told with where they come from, and kept."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.server.kafka_peer import Peer, ShoreRoom

from isthmus.broker.client_metrics import METRICS_LOG_TOPIC
from isthmus.broker.client_metrics import check as check_metrics
from isthmus.broker.kept_configs import KeptConfigs
from isthmus.broker.server_configs import ServerConfigs
from isthmus.errors import NoSpace
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPIC, BROKER, LOGGER = 2, 4, 8
SET, DELETE, APPEND, SUBTRACT = range(4)
OK, INVALID = ErrorCode.NONE, ErrorCode.INVALID_REQUEST
OF_BROKER, OF_ALL, DEFAULT = 2, 3, 5


@pytest.fixture
def peer() -> Peer:
    room = ShoreRoom()
    room.log.create("t", 1, {})
    room.log.create("own", 1, {"retention.ms": "5"})
    return room.peer()


Change = tuple[str, int, str | None]


def alter(peer: Peer, name: str, *changes: Change, kind: int = BROKER, **more: Any) -> int:
    configs = [
        {"name": config, "config_operation": operation, "value": value}
        for config, operation, value in changes
    ]
    resource = {"resource_type": kind, "resource_name": name, "configs": configs}
    body = {"resources": [resource], **more}
    (row,) = peer.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, body)["responses"]
    return int(row["error_code"])


def described(peer: Peer, name: str, kind: int = BROKER) -> dict[str, dict[str, Any]]:
    resource = {"resource_type": kind, "resource_name": name, "configuration_keys": None}
    body = {"resources": [resource], "include_synonyms": True}
    (result,) = peer.ask(ApiKey.DESCRIBE_CONFIGS, 4, body)["results"]
    assert result["error_code"] == OK
    return {row["name"]: row for row in result["configs"]}


def values(row: dict[str, Any]) -> list[tuple[str, int]]:
    return [(one["value"], one["source"]) for one in row["synonyms"]]


def test_defaults_of_log_topics_change_at_once(peer: Peer) -> None:
    log = peer.room.log
    assert alter(peer, "", ("log.retention.ms", SET, "1000")) == OK
    assert log.topics["t"].partitions[0].config.retention_ms == 1000
    assert log.topics["own"].partitions[0].config.retention_ms == 5
    assert log.create("new", 1, {}).partitions[0].config.retention_ms == 1000
    assert alter(peer, "1", ("log.retention.ms", SET, "2000")) == OK  # comes first
    assert log.topics["t"].partitions[0].config.retention_ms == 2000
    assert alter(peer, "1", ("log.retention.ms", DELETE, None)) == OK
    assert alter(peer, "", ("log.retention.ms", DELETE, None)) == OK
    assert log.topics["t"].partitions[0].config.retention_ms == 604_800_000


def test_each_value_is_told_with_what_holds_without_it(peer: Peer) -> None:
    alter(peer, "", ("message.max.bytes", SET, "2000"))
    alter(peer, "1", ("message.max.bytes", SET, "3000"))
    row = described(peer, "1")["message.max.bytes"]
    assert (row["value"], row["config_source"], row["read_only"]) == ("3000", OF_BROKER, False)
    below = [("3000", OF_BROKER), ("2000", OF_ALL), ("1048588", DEFAULT)]
    assert values(row) == below
    assert values(described(peer, "t", TOPIC)["max.message.bytes"]) == below
    assert described(peer, "t", TOPIC)["max.message.bytes"]["config_source"] == OF_BROKER
    (row,) = described(peer, "").values()
    assert (row["name"], values(row)) == ("message.max.bytes", [("2000", OF_ALL)])
    assert described(peer, "1")["num.partitions"]["read_only"]


def test_the_number_of_connections_changes(peer: Peer) -> None:
    shore = peer.room.shore
    assert alter(peer, "1", ("max.connections", SET, "1")) == OK
    assert shore.total.maximum == 1
    assert peer.room.peer().transport.closed
    shore.limit_connections(7)  # the file is read again: what was set here comes first
    assert shore.total.maximum == 1
    assert values(described(peer, "1")["max.connections"])[:2] == [("1", OF_BROKER), ("7", 4)]
    assert alter(peer, "1", ("max.connections", DELETE, None)) == OK
    assert shore.total.maximum == 7


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("1", ("num.partitions", SET, "3"), INVALID),  # read at the start
        ("", ("num.partitions", SET, "3"), INVALID),
        ("1", ("anything", SET, "3"), INVALID),
        ("1", ("num.partitions", DELETE, None), OK),  # it was never there
        ("1", ("anything", DELETE, None), OK),
        ("1", ("message.max.bytes", SET, "x"), INVALID),
        ("1", ("message.max.bytes", SET, "-3"), INVALID),
        ("1", ("message.max.bytes", SET, None), INVALID),
        ("1", ("max.connections", SET, "-1"), INVALID),
        ("1", ("message.max.bytes", APPEND, "1"), ErrorCode.INVALID_CONFIG),
        ("", ("log.cleanup.policy", APPEND, "compact"), OK),
        ("2", ("message.max.bytes", SET, "1"), INVALID),
        ("x", ("message.max.bytes", SET, "1"), INVALID),
        ("1", ("sasl.kerberos.min.time.before.relogin", SET, "58000"), OK),
        ("", ("sasl.kerberos.min.time.before.relogin", SET, "58000"), INVALID),
        ("", ("leader.replication.throttled.rate", SET, "1"), OK),
    ],
)
def test_what_may_be_changed(peer: Peer, name: str, change: Change, code: ErrorCode) -> None:
    assert alter(peer, name, change, validate_only=True) == code
    assert not described(peer, "")
    assert alter(peer, name, change) == code


def test_a_list_of_defaults_grows(peer: Peer) -> None:
    assert alter(peer, "", ("log.cleanup.policy", APPEND, "compact")) == OK
    assert described(peer, "1")["log.cleanup.policy"]["value"] == "delete,compact"
    assert peer.room.log.topics["t"].partitions[0].config.compacts


def test_alter_configs_replaces_all(peer: Peer) -> None:
    alter(peer, "1", ("message.max.bytes", SET, "3000"), ("log.roll.ms", SET, "9"))
    resource = {"resource_type": BROKER, "resource_name": "1"}
    configs = [{"name": "log.roll.ms", "value": "8"}]
    body = {"resources": [{**resource, "configs": configs}]}
    (row,) = peer.ask(ApiKey.ALTER_CONFIGS, 2, body)["responses"]
    assert row["error_code"] == OK
    assert peer.room.shore.server_configs.of("1") == {"log.roll.ms": "8"}


def test_what_was_set_is_kept(peer: Peer) -> None:
    alter(peer, "", ("log.retention.ms", SET, "1000"))
    alter(peer, "1", ("max.connections", SET, "9"))
    room = peer.room
    again = ServerConfigs(room.runtime, room.log, room.appends, 1)
    assert again.in_force("log.retention.ms") == "1000" and again.connections_max == 9
    room.appends.error = NoSpace("full")
    assert alter(peer, "1", ("max.connections", SET, "8")) != OK
    assert room.shore.total.maximum == 9


# --- subscriptions to metrics of clients ------------------------------------------------------

METRICS = 16


def test_a_subscription_to_metrics_is_kept_and_told(peer: Peer) -> None:
    assert alter(peer, "s", ("metrics", SET, "a,b"), kind=METRICS, validate_only=True) == OK
    assert described(peer, "s", METRICS)["metrics"]["config_source"] == DEFAULT
    assert alter(peer, "s", ("metrics", SET, "a,b"), kind=METRICS) == OK
    rows = described(peer, "s", METRICS)
    assert values(rows["metrics"]) == [("a,b", 7)] and values(rows["interval.ms"]) == []
    room = peer.room
    again = KeptConfigs(
        *(room.runtime, room.log, room.appends, METRICS_LOG_TOPIC), check=check_metrics
    )
    assert again.names == ["s"]
    listed = peer.ask(ApiKey.LIST_CONFIG_RESOURCES, 0, {})["config_resources"]
    assert [one["resource_name"] for one in listed] == ["s"]
    assert alter(peer, "s", ("metrics", DELETE, None), kind=METRICS) == OK
    assert not peer.ask(ApiKey.LIST_CONFIG_RESOURCES, 0, {})["config_resources"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("anything", SET, "1"), INVALID),
        (("interval.ms", SET, "99"), INVALID),
        (("interval.ms", SET, "x"), ErrorCode.INVALID_CONFIG),
        (("match", SET, "client=a"), ErrorCode.INVALID_CONFIG),
        (("match", SET, "client_id=["), ErrorCode.INVALID_CONFIG),
        (("match", SET, "client_id=a,client_source_port=1.*"), OK),
        (("metrics", APPEND, "c"), ErrorCode.INVALID_CONFIG),
    ],
)
def test_what_a_subscription_may_be(peer: Peer, change: Change, code: ErrorCode) -> None:
    assert alter(peer, "s", change, kind=METRICS) == code
    assert alter(peer, "", change, kind=METRICS) == INVALID


# --- loggers ----------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("isthmus.server.kafka")
    yield logger
    logger.setLevel(logging.NOTSET)


def test_levels_of_loggers_change(peer: Peer, logger: logging.Logger) -> None:
    change = (logger.name, SET, "ERROR")
    assert alter(peer, "1", change, kind=LOGGER, validate_only=True) == OK
    assert logger.level == logging.NOTSET
    assert alter(peer, "1", change, kind=LOGGER) == OK
    assert not logger.isEnabledFor(logging.WARNING)
    row = described(peer, "1", LOGGER)[logger.name]
    assert (row["value"], row["config_source"], row["read_only"]) == ("ERROR", 6, False)
    assert alter(peer, "1", (logger.name, DELETE, None), kind=LOGGER) == OK
    names = {logging.WARNING: "WARN", logging.INFO: "INFO", logging.DEBUG: "DEBUG"}
    level = names[logging.root.getEffectiveLevel()]
    assert described(peer, "1", LOGGER)[logger.name]["value"] == level
    assert described(peer, "1", LOGGER)["root"]["value"] == level


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("1", ("kafka.server", SET, "INFO"), ErrorCode.INVALID_CONFIG),
        ("1", ("isthmus.server.kafka", SET, "info"), ErrorCode.INVALID_CONFIG),
        ("1", ("isthmus.server.kafka", APPEND, "INFO"), INVALID),
        ("1", ("isthmus.server.kafka", SUBTRACT, "INFO"), INVALID),
        ("1", ("kafka.server", DELETE, None), ErrorCode.INVALID_CONFIG),
        ("1", ("root", DELETE, None), INVALID),
        ("2", ("root", SET, "INFO"), INVALID),
        ("", ("root", SET, "INFO"), INVALID),
    ],
)
def test_what_is_no_level_is_refused(
    peer: Peer, name: str, change: Change, code: ErrorCode
) -> None:
    before = logging.root.level
    assert alter(peer, name, change, kind=LOGGER) == code
    assert logging.root.level == before


def test_levels_are_not_replaced_all_at_once(peer: Peer) -> None:
    config = {"name": "root", "value": "INFO"}
    resource = {"resource_type": LOGGER, "resource_name": "1", "configs": [config]}
    (row,) = peer.ask(ApiKey.ALTER_CONFIGS, 2, {"resources": [resource]})["responses"]
    assert row["error_code"] == INVALID
