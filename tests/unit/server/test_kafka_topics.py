"""Metadata, and log topics made, described and deleted, in every version that is served."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.broker.features import METADATA, SUPPORTED
from isthmus.errors import NoSpace
from isthmus.kafka.api import ApiKey, apis
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.table import HANDLERS

NOW = 1_700_000_000_000
OK = ErrorCode.NONE


@pytest.fixture
def peer() -> Peer:
    room = ShoreRoom()
    room.log.create("t", 2, {})
    return room.peer()


@pytest.mark.parametrize("version", versions(ApiKey.API_VERSIONS))
def test_api_versions_is_the_table_of_handlers(peer: Peer, version: int) -> None:
    named = {"client_software_name": "x", "client_software_version": "1.0"}
    answer = peer.ask(ApiKey.API_VERSIONS, version, named if version >= 3 else {})
    rows = {
        row["api_key"]: (row["min_version"], row["max_version"]) for row in answer["api_keys"]
    }
    assert rows.keys() == HANDLERS.keys()
    assert rows.pop(ApiKey.PRODUCE) == (0, 13), "or librdkafka gives up compression"
    assert rows == {key: tuple(apis()[key].versions) for key in rows}
    levels = {row["name"]: row["max_version_level"] for row in answer["finalized_features"]}
    highest = {name: levels.most for name, levels in SUPPORTED.items()}
    assert levels == (highest if version >= 3 else {})
    supported = {
        row["name"]: (row["min_version"], row["max_version"])
        for row in answer["supported_features"]
    }
    told = SUPPORTED if version >= 4 else {METADATA: SUPPORTED[METADATA]}
    assert supported == (told if version >= 3 else {}), "none from 0 before (KAFKA-17492)"


@pytest.mark.parametrize("name", ["", "-x", "a b", "ü"])
def test_a_client_must_have_a_decent_name(peer: Peer, name: str) -> None:
    named = {"client_software_name": name, "client_software_version": "1"}
    answer = peer.ask(ApiKey.API_VERSIONS, 3, named)
    assert answer["error_code"] == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", versions(ApiKey.METADATA))
def test_metadata_of_everything(peer: Peer, version: int) -> None:
    peer.room.log.create("__consumer_offsets", 1, {})
    topics: list | None = [] if version == 0 else None
    answer = peer.ask(ApiKey.METADATA, version, {"topics": topics})
    assert [(row["name"], len(row["partitions"])) for row in answer["topics"]] == [
        ("__consumer_offsets", 1),
        ("t", 2),
    ]
    if version >= 1:
        assert [row["is_internal"] for row in answer["topics"]] == [True, False]
        assert answer["controller_id"] == 1
        assert peer.ask(ApiKey.METADATA, version, {"topics": []})["topics"] == []
    if version >= 7:
        assert answer["topics"][1]["partitions"][0]["leader_epoch"] == 0


def test_metadata_tells_once_what_is_asked_twice(peer: Peer) -> None:
    answer = peer.ask(ApiKey.METADATA, 12, {"topics": [{"name": "t"}, {"name": "t"}]})
    assert [row["name"] for row in answer["topics"]] == ["t"]


def test_metadata_makes_log_topics_where_that_is_allowed(peer: Peer) -> None:
    def ask(name: str, *, allow: bool = True) -> dict[str, Any]:
        body = {"topics": [{"name": name}], "allow_auto_topic_creation": allow}
        return peer.ask(ApiKey.METADATA, 12, body)["topics"][0]

    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert ask("new", allow=False)["error_code"] == unknown
    assert (ask("new")["error_code"], len(ask("new")["partitions"])) == (OK, 4)
    assert ask("a/b")["error_code"] == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert ask("__consumer_offsets")["error_code"] == unknown, "only the server makes those"
    refusing = ShoreRoom(auto_create_topics=False).peer()
    answer = refusing.ask(ApiKey.METADATA, 4, {"topics": [{"name": "new"}]})
    assert answer["topics"][0]["error_code"] == unknown


@pytest.mark.parametrize("version", [10, 11, 12, 13])
def test_metadata_by_topic_id(peer: Peer, version: int) -> None:
    topic_id = peer.room.log.topics["t"].topic_id
    asked = [{"name": None, "topic_id": one} for one in (topic_id, b"?" * 16, bytes(16))]
    asked.append({"name": "", "topic_id": topic_id})  # the Java client, of a pattern's topics
    rows = peer.ask(ApiKey.METADATA, version, {"topics": asked})["topics"]
    found, unknown, nothing, named = rows
    assert (found["name"], found["error_code"]) == (named["name"], OK) == ("t", OK)
    assert unknown["error_code"] == ErrorCode.UNKNOWN_TOPIC_ID
    assert unknown["name"] == (None if version >= 12 else "")
    assert nothing["error_code"] == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_metadata_tells_authorized_operations_when_asked(peer: Peer) -> None:  # KIP-430
    body = {
        "topics": None,
        "include_cluster_authorized_operations": True,
        "include_topic_authorized_operations": True,
    }
    answer = peer.ask(ApiKey.METADATA, 8, body)
    assert answer["cluster_authorized_operations"] > 0
    assert answer["topics"][0]["topic_authorized_operations"] > 0


@pytest.mark.parametrize("version", versions(ApiKey.FIND_COORDINATOR))
def test_the_coordinator_of_groups_and_transactions_is_here(peer: Peer, version: int) -> None:
    body: dict[str, Any] = {"coordinator_keys": ["g"]} if version >= 4 else {"key": "g"}
    for kind in (0, 1) if version >= 1 else (0,):
        kinds = {"key_type": kind} if kind else {}
        answer = peer.ask(ApiKey.FIND_COORDINATOR, version, {**body, **kinds})
        found = answer["coordinators"][0] if version >= 4 else answer
        assert (found["error_code"], found["host"], found["port"]) == (OK, "10.0.0.1", 9092)
        assert ("__consumer_offsets", "__transaction_state")[kind] in peer.room.log.topics


def test_a_coordinator_that_cannot_write_is_not_available(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise NoSpace("no room")

    monkeypatch.setattr(peer.room.log, "create", full)
    answer = peer.ask(ApiKey.FIND_COORDINATOR, 6, {"coordinator_keys": ["g"]})
    (found,) = answer["coordinators"]
    not_available = ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert (found["error_code"], found["error_message"]) == (not_available, "no room")


def create(peer: Peer, name: str = "new", *, version: int = 7, **more: Any) -> dict[str, Any]:
    wanted = {"name": name, "num_partitions": 3, "replication_factor": 1, **more}
    dry = wanted.pop("validate_only", False)
    body = {"topics": [wanted], "validate_only": dry}
    return peer.ask(ApiKey.CREATE_TOPICS, version, body)["topics"][0]


@pytest.mark.parametrize("version", versions(ApiKey.CREATE_TOPICS))
def test_a_log_topic_is_created(peer: Peer, version: int) -> None:
    configs = [{"name": "retention.ms", "value": "1000"}]
    assert (
        create(peer, version=version, configs=configs, validate_only=True)["error_code"] == OK
    )
    assert "new" not in peer.room.log.topics
    row = create(peer, version=version, configs=configs)
    assert (row["error_code"], row["error_message"]) == (OK, None)
    made = peer.room.log.topics["new"]
    assert (len(made.partitions), dict(made.configs)) == (3, {"retention.ms": "1000"})
    if version >= 5:
        assert (row["num_partitions"], row["replication_factor"]) == (3, 1)
        sources = {one["name"]: one["config_source"] for one in row["configs"]}
        assert (sources["retention.ms"], sources["segment.ms"]) == (1, 5)
    if version >= 7:
        assert row["topic_id"] == made.topic_id
    again = create(peer, version=version)
    assert again["error_code"] == ErrorCode.TOPIC_ALREADY_EXISTS


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"name": "a b"}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"name": ".."}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"name": "x" * 250}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"name": "a_b"}, ErrorCode.INVALID_TOPIC_EXCEPTION),  # there is a.b
        ({"name": "__mqtt_retained"}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"num_partitions": 0}, ErrorCode.INVALID_PARTITIONS),
        ({"num_partitions": (1 << 31) - 1}, ErrorCode.INVALID_PARTITIONS),
        ({"replication_factor": 0}, ErrorCode.INVALID_REPLICATION_FACTOR),
        ({"replication_factor": 3}, OK),
        ({"num_partitions": -1, "replication_factor": -1}, OK),
        ({"configs": [{"name": "retention.ms", "value": "x"}]}, ErrorCode.INVALID_CONFIG),
        ({"configs": [{"name": "retention.ms", "value": None}]}, ErrorCode.INVALID_CONFIG),
        ({"configs": [{"name": "nonsense", "value": "1"}]}, ErrorCode.INVALID_CONFIG),
        (
            {"assignments": [{"partition_index": 0, "broker_ids": [1]}]},
            ErrorCode.INVALID_REQUEST,
        ),
    ],
)
def test_a_bad_log_topic_is_refused(peer: Peer, more: dict[str, Any], error: ErrorCode) -> None:
    peer.room.log.create("a.b", 1, {})
    for dry in (True, False):
        row = create(peer, validate_only=dry, **more)
        assert row["error_code"] == error
        assert (row["error_message"] is None) == (error == OK)


def test_replicas_can_be_refused() -> None:
    peer = ShoreRoom(replication_factor_policy="strict").peer()
    refused = create(peer, replication_factor=3)
    assert refused["error_code"] == ErrorCode.INVALID_REPLICATION_FACTOR


def test_partitions_can_be_assigned_to_the_only_broker(peer: Peer) -> None:
    def assign(*rows: tuple[int, list[int]]) -> dict[str, Any]:
        assignments = [{"partition_index": index, "broker_ids": ids} for index, ids in rows]
        return create(peer, num_partitions=-1, replication_factor=-1, assignments=assignments)

    wrong = ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert assign((0, [1]), (2, [1]))["error_code"] == wrong
    assert assign((0, [2]))["error_code"] == wrong
    assert assign((1, [1]), (0, [1]))["num_partitions"] == 2


def test_a_name_given_twice_is_refused_once(peer: Peer) -> None:
    wanted = {"name": "x", "num_partitions": 1, "replication_factor": 1}
    answer = peer.ask(ApiKey.CREATE_TOPICS, 7, {"topics": [wanted, wanted]})
    assert [row["error_code"] for row in answer["topics"]] == [ErrorCode.INVALID_REQUEST]


@pytest.mark.parametrize("version", versions(ApiKey.DELETE_TOPICS))
def test_log_topics_are_deleted(peer: Peer, version: int) -> None:
    peer.room.log.create("__mqtt_retained", 1, {})
    names = ["t", "absent", "__mqtt_retained"]
    body: dict[str, Any] = {"topic_names": names}
    if version >= 6:
        body = {"topics": [{"name": name} for name in names]}
    rows = peer.ask(ApiKey.DELETE_TOPICS, version, body)["responses"]
    assert [row["error_code"] for row in rows] == [
        OK,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
    ]
    assert [*peer.room.log.topics] == ["__mqtt_retained"]


def test_log_topics_are_deleted_by_id(peer: Peer) -> None:
    topic_id = peer.room.log.topics["t"].topic_id
    asked = [
        {"name": None, "topic_id": topic_id},
        {"name": None, "topic_id": b"?" * 16},
        {"name": "t", "topic_id": topic_id},
        {"name": None},
    ]
    rows = peer.ask(ApiKey.DELETE_TOPICS, 6, {"topics": asked})["responses"]
    assert [(row["name"], row["error_code"]) for row in rows] == [
        ("t", OK),
        (None, ErrorCode.UNKNOWN_TOPIC_ID),
        ("t", ErrorCode.INVALID_REQUEST),
        (None, ErrorCode.INVALID_REQUEST),
    ]


def test_what_is_named_twice_is_not_deleted(peer: Peer) -> None:
    rows = peer.ask(ApiKey.DELETE_TOPICS, 5, {"topic_names": ["t", "t"]})["responses"]
    assert [(row["name"], row["error_code"]) for row in rows] == [
        ("t", ErrorCode.INVALID_REQUEST)
    ]
    assert "t" in peer.room.log.topics


@pytest.mark.parametrize("version", versions(ApiKey.DESCRIBE_CONFIGS))
def test_every_setting_of_a_log_topic_is_described(peer: Peer, version: int) -> None:
    peer.room.log.create("c", 1, {"cleanup.policy": "compact"})
    resource = {"resource_type": 2, "resource_name": "c", "configuration_keys": None}
    body: dict[str, Any] = {"resources": [resource], "include_synonyms": True}
    if version >= 3:
        body["include_documentation"] = True
    (result,) = peer.ask(ApiKey.DESCRIBE_CONFIGS, version, body)["results"]
    rows = {row["name"]: row for row in result["configs"]}
    assert len(rows) > 30
    policy, retention = rows["cleanup.policy"], rows["retention.ms"]
    assert (policy["value"], policy["config_source"]) == ("compact", 1)
    assert [(one["value"], one["source"]) for one in policy["synonyms"]] == [
        ("compact", 1),
        ("delete", 5),
    ]
    assert (retention["value"], retention["config_source"]) == ("604800000", 5)
    assert rows["isthmus.durability"]["value"] == "synced"
    if version >= 3:
        assert (policy["config_type"], retention["config_type"]) == (7, 5)
        assert all(row["documentation"] for row in rows.values())
    resource["configuration_keys"] = ["retention.ms"]
    (result,) = peer.ask(ApiKey.DESCRIBE_CONFIGS, version, body)["results"]
    assert [row["name"] for row in result["configs"]] == ["retention.ms"]
    resource["configuration_keys"] = []  # all, as Apache Kafka has it
    (result,) = peer.ask(ApiKey.DESCRIBE_CONFIGS, version, body)["results"]
    assert {row["name"] for row in result["configs"]} == rows.keys()


def test_defaults_of_the_server_are_told_with_their_source(peer: Peer) -> None:
    configured = {"retention.ms": "1000", "retention.bytes": "-1"}
    peer.room.shore.server_configs.topic_defaults.update(configured)
    peer.room.log.create("own", 1, {"retention.ms": "2000"})
    asked = [(2, "t"), (2, "own"), (4, "1")]
    resources = [
        {"resource_type": kind, "resource_name": name, "configuration_keys": None}
        for kind, name in asked
    ]
    body = {"resources": resources, "include_synonyms": True}
    rows = [
        {row["name"]: row for row in result["configs"]}
        for result in peer.ask(ApiKey.DESCRIBE_CONFIGS, 4, body)["results"]
    ]
    found = [rows[0]["retention.ms"], rows[1]["retention.ms"], rows[2]["log.retention.ms"]]
    defaults = [("1000", 4), ("604800000", 5)]
    assert [(row["value"], row["config_source"]) for row in found] == [
        ("1000", 4),
        ("2000", 1),
        ("1000", 4),
    ]
    assert [[(one["value"], one["source"]) for one in row["synonyms"]] for row in found] == [
        defaults,
        [("2000", 1), *defaults],
        defaults,
    ]
    assert rows[0]["retention.bytes"]["config_source"] == 5  # the same as Kafka's


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [
        (2, "absent", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (2, "a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (4, "1", OK),
        (4, "", OK),
        (4, "2", ErrorCode.INVALID_REQUEST),
        (8, "1", OK),
        (8, "2", ErrorCode.INVALID_REQUEST),
        (8, "", ErrorCode.INVALID_REQUEST),
        (64, "1", ErrorCode.INVALID_REQUEST),
    ],
)
def test_the_server_is_described(peer: Peer, kind: int, name: str, error: ErrorCode) -> None:
    resource = {"resource_type": kind, "resource_name": name, "configuration_keys": None}
    body = {"resources": [resource]}
    (result,) = peer.ask(ApiKey.DESCRIBE_CONFIGS, 4, body)["results"]
    assert result["error_code"] == error
    if (kind, name) == (4, "1"):
        rows = {row["name"]: row["value"] for row in result["configs"]}
        assert rows["num.partitions"] == "4"
        assert rows["log.retention.ms"] == "604800000"


@pytest.mark.parametrize("api_key", HANDLERS)
def test_every_request_of_defaults_is_answered(peer: Peer, api_key: ApiKey) -> None:
    """A request may be empty; nobody may stumble over that."""
    for version in versions(api_key):
        frame = peer.frame(api_key, version, {"acks": 1} if api_key == ApiKey.PRODUCE else {})
        peer.feed(frame)
        peer.room.runtime.settle()
        assert not peer.transport.closed
        assert len(peer.answers()) == 1
