"""Settings and partitions of log topics changed; what is asked about brokers and replicas."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.alter_configs import Operation

OK = ErrorCode.NONE
TOPIC, BROKER = 2, 4


@pytest.fixture
def peer() -> Peer:
    room = ShoreRoom()
    room.log.create("t", 2, {"retention.ms": "1000"})
    room.log.create("u", 3, {})
    room.log.directory = "/data"
    return room.peer()


# --- settings -------------------------------------------------------------------------------


def increment(
    peer: Peer,
    *changes: tuple[str, int, str | None],
    name: str = "t",
    kind: int = TOPIC,
    dry: bool = False,
    version: int = 1,
) -> int:
    configs = [
        {"name": name, "config_operation": operation, "value": value}
        for name, operation, value in changes
    ]
    resource = {"resource_type": kind, "resource_name": name, "configs": configs}
    body = {"resources": [resource], "validate_only": dry}
    (row,) = peer.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, version, body)["responses"]
    assert (row["resource_type"], row["resource_name"]) == (kind, name)
    assert (row["error_message"] is None) == (row["error_code"] == OK)
    return int(row["error_code"])


def configs_of(peer: Peer) -> dict[str, str]:
    return dict(peer.room.log.topics["t"].configs)


@pytest.mark.parametrize("version", versions(ApiKey.INCREMENTAL_ALTER_CONFIGS))
def test_settings_are_changed_one_by_one(peer: Peer, version: int) -> None:
    change = ("segment.ms", Operation.SET, "5")
    assert increment(peer, change, version=version, dry=True) == OK
    assert configs_of(peer) == {"retention.ms": "1000"}
    assert increment(peer, change, version=version) == OK
    assert configs_of(peer) == {"retention.ms": "1000", "segment.ms": "5"}
    gone = ("retention.ms", Operation.DELETE, None)
    assert increment(peer, gone, ("flush.ms", Operation.DELETE, None), version=version) == OK
    assert configs_of(peer) == {"segment.ms": "5"}


def test_lists_are_appended_to_and_subtracted_from(peer: Peer) -> None:
    policy = "cleanup.policy"
    assert increment(peer, (policy, Operation.APPEND, "compact,delete")) == OK
    assert configs_of(peer)[policy] == "delete,compact", "the default holds until it is set"
    assert increment(peer, (policy, Operation.SUBTRACT, "delete")) == OK
    assert configs_of(peer)[policy] == "compact"
    no_list = ("retention.ms", Operation.APPEND, "5")
    assert increment(peer, no_list) == ErrorCode.INVALID_CONFIG


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("retention.ms", Operation.SET, "soon"), ErrorCode.INVALID_CONFIG),
        (("retention.m", Operation.SET, "5"), ErrorCode.INVALID_CONFIG),
        (("no.such", Operation.APPEND, "5"), ErrorCode.INVALID_CONFIG),
        (("retention.ms", Operation.SET, None), ErrorCode.INVALID_REQUEST),
        (("cleanup.policy", Operation.APPEND, None), ErrorCode.INVALID_REQUEST),
        (("retention.ms", 9, "5"), ErrorCode.INVALID_REQUEST),
    ],
)
def test_of_a_resource_all_is_changed_or_nothing(
    peer: Peer, change: tuple[str, int, str | None], code: ErrorCode
) -> None:
    assert increment(peer, ("segment.ms", Operation.SET, "5"), change) == code
    assert configs_of(peer) == {"retention.ms": "1000"}


def test_what_cannot_be_changed(peer: Peer) -> None:
    change = ("retention.ms", Operation.SET, "5")
    assert increment(peer, change, change) == ErrorCode.INVALID_REQUEST
    assert increment(peer, change, name="none") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert increment(peer, change, name="a/b") == ErrorCode.INVALID_TOPIC_EXCEPTION
    peer.room.log.create("__consumer_offsets", 1, {})
    internal = increment(peer, change, name="__consumer_offsets")
    assert internal == ErrorCode.INVALID_TOPIC_EXCEPTION
    for kind, name in ((BROKER, "1"), (BROKER, ""), (BROKER, "2"), (99, "x")):
        assert increment(peer, change, kind=kind, name=name) == ErrorCode.INVALID_REQUEST
    gone = ("follower.replication.throttled.rate", Operation.DELETE, None)
    assert increment(peer, gone, kind=BROKER, name="1") == OK, "it was never there"
    resource = {"resource_type": TOPIC, "resource_name": "t", "configs": []}
    body = {"resources": [resource, resource], "validate_only": False}
    rows = peer.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, body)["responses"]
    assert {row["error_code"] for row in rows} == {ErrorCode.INVALID_REQUEST}


@pytest.mark.parametrize("version", versions(ApiKey.ALTER_CONFIGS))
def test_settings_are_replaced(peer: Peer, version: int) -> None:
    def ask(value: str | None, *, dry: bool = False) -> int:
        resource = {
            "resource_type": TOPIC,
            "resource_name": "t",
            "configs": [{"name": "segment.ms", "value": value}],
        }
        body = {"resources": [resource], "validate_only": dry}
        (row,) = peer.ask(ApiKey.ALTER_CONFIGS, version, body)["responses"]
        return int(row["error_code"])

    assert ask("7", dry=True) == OK
    assert configs_of(peer) == {"retention.ms": "1000"}
    assert ask("7") == OK
    assert configs_of(peer) == {"segment.ms": "7"}
    assert ask(None) == ErrorCode.INVALID_REQUEST


# --- partitions -----------------------------------------------------------------------------


def grow(
    peer: Peer,
    count: int,
    assignments: list | None = None,
    *,
    name: str = "t",
    dry: bool = False,
    version: int = 3,
) -> int:
    if assignments is not None:
        assignments = [{"broker_ids": brokers} for brokers in assignments]
    wanted = {"name": name, "count": count, "assignments": assignments}
    body = {"topics": [wanted], "validate_only": dry}
    (row,) = peer.ask(ApiKey.CREATE_PARTITIONS, version, body)["results"]
    assert (row["error_message"] is None) == (row["error_code"] == OK)
    return int(row["error_code"])


@pytest.mark.parametrize("version", versions(ApiKey.CREATE_PARTITIONS))
def test_a_log_topic_grows(peer: Peer, version: int) -> None:
    assert grow(peer, 3, dry=True, version=version) == OK
    assert len(peer.room.log.topics["t"].partitions) == 2
    assert grow(peer, 4, version=version) == OK
    assert grow(peer, 5, [[1]], version=version) == OK
    assert len(peer.room.log.topics["t"].partitions) == 5


def test_a_log_topic_does_not_shrink_nor_leave_the_broker(peer: Peer) -> None:
    for count in (0, 1, 2, 10_001, -1):
        assert grow(peer, count) == ErrorCode.INVALID_PARTITIONS
    for assignments in ([], [[1], [1]], [[2]], [[]]):
        assert grow(peer, 3, assignments) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert grow(peer, 3, name="none") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    peer.room.log.create("__consumer_offsets", 1, {})
    assert grow(peer, 3, name="__consumer_offsets") == ErrorCode.INVALID_TOPIC_EXCEPTION
    wanted = {"name": "t", "count": 3, "assignments": None}
    body = {"topics": [wanted, wanted], "validate_only": False}
    (row,) = peer.ask(ApiKey.CREATE_PARTITIONS, 3, body)["results"]
    assert row["error_code"] == ErrorCode.INVALID_REQUEST
    assert len(peer.room.log.topics["t"].partitions) == 2


@pytest.mark.parametrize(
    ("policy", "code"), [("strict", ErrorCode.INVALID_REPLICA_ASSIGNMENT), ("clamp", OK)]
)
def test_replicas_elsewhere_are_a_matter_of_policy(policy: str, code: ErrorCode) -> None:
    room = ShoreRoom(replication_factor_policy=policy)
    room.log.create("t", 2, {})
    assert grow(room.peer(), 3, [[1, 2]]) == code


def described(
    peer: Peer, *names: str, limit: int = 2000, cursor: tuple[str, int] | None = None
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "topics": [{"name": name} for name in names],
        "response_partition_limit": limit,
        "cursor": cursor and {"topic_name": cursor[0], "partition_index": cursor[1]},
    }
    return peer.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, body)


def rows_of(answer: dict[str, Any]) -> list[tuple[str, int, list[int]]]:
    return [
        (row["name"], row["error_code"], [one["partition_index"] for one in row["partitions"]])
        for row in answer["topics"]
    ]


def test_partitions_are_described(peer: Peer) -> None:
    answer = described(peer)
    assert rows_of(answer) == [("t", OK, [0, 1]), ("u", OK, [0, 1, 2])]
    assert answer["next_cursor"] is None
    row = answer["topics"][0]
    assert row["topic_id"] == peer.room.log.topics["t"].topic_id
    assert row["topic_authorized_operations"] > 0
    (first, _) = row["partitions"]
    assert (first["leader_id"], first["replica_nodes"], first["isr_nodes"]) == (1, [1], [1])
    unknown, invalid = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.INVALID_TOPIC_EXCEPTION
    assert rows_of(described(peer, "none", "a/b", "t")) == [
        ("a/b", invalid, []),
        ("none", unknown, []),
        ("t", OK, [0, 1]),
    ]


@pytest.mark.parametrize("limit", [-1, 0, 1, 2, 3, 4, 5, 9])
def test_partitions_are_described_page_by_page(peer: Peer, limit: int) -> None:
    found: list[tuple[str, int]] = []
    cursor: tuple[str, int] | None = None
    for _ in range(10):
        answer = described(peer, limit=limit, cursor=cursor)
        page = [(name, index) for name, _, indexes in rows_of(answer) for index in indexes]
        assert 1 <= len(page) <= max(1, limit)
        found += page
        if answer["next_cursor"] is None:
            break
        cursor = tuple(answer["next_cursor"].values())  # type: ignore[assignment]
    assert found == [("t", 0), ("t", 1), ("u", 0), ("u", 1), ("u", 2)]


def test_a_cursor_that_leads_nowhere(peer: Peer) -> None:
    invalid = ErrorCode.INVALID_REQUEST
    assert rows_of(described(peer, "t", "u", cursor=("s", 0))) == [
        ("t", invalid, []),
        ("u", invalid, []),
    ]
    assert rows_of(described(peer, "t", cursor=("t", -1))) == [("t", invalid, [])]
    assert rows_of(described(peer, cursor=("t", 7))) == [("t", OK, []), ("u", OK, [0, 1, 2])]


# --- brokers and replicas -------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(ApiKey.DESCRIBE_CLUSTER))
def test_the_cluster_is_this_broker(peer: Peer, version: int) -> None:
    body: dict[str, Any] = {"include_cluster_authorized_operations": True}
    answer = peer.ask(ApiKey.DESCRIBE_CLUSTER, version, body)
    (broker,) = answer["brokers"]
    assert (broker["broker_id"], broker["host"], broker["port"]) == (1, "10.0.0.1", 9092)
    assert answer["cluster_id"] == peer.room.log.cluster_id
    assert answer["controller_id"] == 1
    assert answer["cluster_authorized_operations"] > 0
    answer = peer.ask(ApiKey.DESCRIBE_CLUSTER, version, {})
    assert answer["cluster_authorized_operations"] == -(1 << 31)
    if version >= 1:
        for kind, code in (
            (2, ErrorCode.MISMATCHED_ENDPOINT_TYPE),
            (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
        ):
            answer = peer.ask(ApiKey.DESCRIBE_CLUSTER, version, {"endpoint_type": kind})
            assert (answer["error_code"], answer["brokers"]) == (code, [])


def test_what_has_settings_is_listed(peer: Peer) -> None:
    def ask(*kinds: int, version: int = 1) -> list[tuple[int, str]] | int:
        body = {"resource_types": list(kinds)} if version else {}
        answer = peer.ask(ApiKey.LIST_CONFIG_RESOURCES, version, body)
        return answer["error_code"] or [
            (one["resource_type"], one["resource_name"]) for one in answer["config_resources"]
        ]

    assert ask(version=0) == []
    assert ask() == [(TOPIC, "t"), (TOPIC, "u"), (BROKER, "1"), (8, "1")]
    assert ask(BROKER) == [(BROKER, "1")]
    assert ask(16, 32) == []
    assert ask(3) == ErrorCode.UNSUPPORTED_VERSION


@pytest.mark.parametrize("version", versions(ApiKey.ELECT_LEADERS))
def test_no_leader_is_elected(peer: Peer, version: int) -> None:
    body: dict[str, Any] = {"topic_partitions": [{"topic": "t", "partitions": [0, 2]}]}
    answer = peer.ask(ApiKey.ELECT_LEADERS, version, body)
    (row,) = answer["replica_election_results"]
    assert [one["error_code"] for one in row["partition_result"]] == [
        ErrorCode.ELECTION_NOT_NEEDED,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]
    answer = peer.ask(ApiKey.ELECT_LEADERS, version, {"topic_partitions": None})
    assert answer["replica_election_results"] == []
    if version >= 1:
        answer = peer.ask(ApiKey.ELECT_LEADERS, version, {**body, "election_type": 2})
        assert answer["error_code"] == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", versions(ApiKey.ALTER_PARTITION_REASSIGNMENTS))
def test_partitions_stay_where_they_are(peer: Peer, version: int) -> None:
    asked = [
        (0, [1], OK),
        (0, None, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS),
        (1, [1, 2], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (1, [], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (2, [1], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    partitions = [{"partition_index": one, "replicas": where} for one, where, _ in asked]
    body = {"topics": [{"name": "t", "partitions": partitions}]}
    answer = peer.ask(ApiKey.ALTER_PARTITION_REASSIGNMENTS, version, body)
    (row,) = answer["responses"]
    assert [one["error_code"] for one in row["partitions"]] == [code for *_, code in asked]
    answer = peer.ask(ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, {"topics": None})
    assert (answer["error_code"], answer["topics"]) == (OK, [])


@pytest.mark.parametrize("version", versions(ApiKey.ALTER_REPLICA_LOG_DIRS))
def test_there_is_one_directory(peer: Peer, version: int) -> None:
    def ask(path: str) -> list[int]:
        topics = [{"name": "t", "partitions": [0, 2]}]
        body = {"dirs": [{"path": path, "topics": topics}]}
        (row,) = peer.ask(ApiKey.ALTER_REPLICA_LOG_DIRS, version, body)["results"]
        return [one["error_code"] for one in row["partitions"]]

    assert ask("/data") == [OK, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert ask("/other") == [ErrorCode.LOG_DIR_NOT_FOUND] * 2
