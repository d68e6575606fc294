"""Administration as Kafka's own tools and libraries do it.

What is asked by hand gets the codes that Apache Kafka 4.3 gives; see README.md for how to point
these tests there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import ElectionType, Producer, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from tests.e2e.kafka_asker import Asker
from tests.e2e.kafka_commands import JavaConsole, java_command, run_to_end
from tests.e2e.kafka_libraries import create_topic
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import text_of

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Shores

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


@pytest.fixture(scope="module")
def admin(shores: Shores) -> AdminClient:
    return AdminClient({"bootstrap.servers": text_of(shores.kafka)})


@pytest.fixture(scope="module")
def asker(shores: Shores) -> Iterator[Asker]:
    asker = Asker(shores.kafka)
    yield asker
    asker.close()


def test_a_producer_is_held_back_by_a_quota_of_the_console(shores: Shores, unique: str) -> None:
    if JavaConsole().missing():
        pytest.skip(JavaConsole().missing())
    where = ["--bootstrap-server", text_of(shores.kafka)]
    tool = [*java_command("kafka.admin.ConfigCommand"), *where]
    entity = ["--entity-type", "clients", "--entity-name", unique]
    limit = ["--add-config", "producer_byte_rate=1000,request_percentage=80.5"]
    run_to_end([*tool, "--alter", *entity, *limit])
    said = run_to_end([*tool, "--describe", *entity]).decode()
    assert "producer_byte_rate=1000.0" in said and "request_percentage=80.5" in said
    create_topic(shores.kafka, unique)
    waits: list[float] = []
    producer = Producer(
        {
            "bootstrap.servers": text_of(shores.kafka),
            "client.id": unique,
            "throttle_cb": lambda event: waits.append(event.throttle_time),
        }
    )
    producer.produce(unique, bytes(11_300))
    assert producer.flush(TIMEOUT_S) == 0
    wait_until(lambda: producer.poll(0.01) is not None and waits, "that librdkafka is told")
    assert 1 < waits[0] < 2


def value_of(admin: AdminClient, log_topic: str, name: str) -> str:
    resource = ConfigResource(ResourceType.TOPIC, log_topic)
    [described] = admin.describe_configs([resource]).values()
    return str(described.result(TIMEOUT_S)[name].value)


def test_librdkafka_changes_settings(admin: AdminClient, shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique, **{"segment.ms": "123456"})
    entries = [
        ConfigEntry("retention.ms", "7777", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry(
            "cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND
        ),
        ConfigEntry("segment.ms", None, incremental_operation=AlterConfigOpType.DELETE),
    ]
    resource = ConfigResource(ResourceType.TOPIC, unique, incremental_configs=entries)
    [altered] = admin.incremental_alter_configs([resource]).values()
    altered.result(TIMEOUT_S)
    assert value_of(admin, unique, "retention.ms") == "7777"
    assert value_of(admin, unique, "cleanup.policy") == "delete,compact"
    assert value_of(admin, unique, "segment.ms") == "604800000"


def test_librdkafka_makes_partitions(admin: AdminClient, shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique, 2)
    [made] = admin.create_partitions([NewPartitions(unique, 5)]).values()
    made.result(TIMEOUT_S)
    [described] = admin.describe_topics(TopicCollection([unique])).values()
    assert [one.id for one in described.result(TIMEOUT_S).partitions] == [0, 1, 2, 3, 4]


def test_librdkafka_describes_the_cluster(admin: AdminClient, shores: Shores) -> None:
    cluster = admin.describe_cluster(include_authorized_operations=True).result(TIMEOUT_S)
    [node] = cluster.nodes
    assert (node.host, node.port) == shores.kafka
    assert cluster.controller.id == node.id
    assert len(cluster.cluster_id) == 22
    assert cluster.authorized_operations


def test_librdkafka_elects_no_leader(admin: AdminClient) -> None:
    assert admin.elect_leaders(ElectionType.PREFERRED, None).result(TIMEOUT_S) == {}


# --- by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([("retention.ms", SET, "5")], ErrorCode.NONE),
        ([("no.such", DELETE, None)], ErrorCode.NONE),
        ([("retention.ms", SET, "soon")], ErrorCode.INVALID_CONFIG),
        ([("no.such", SET, "5")], ErrorCode.INVALID_CONFIG),
        ([("retention.ms", APPEND, "5")], ErrorCode.INVALID_CONFIG),
        ([("no.such", SUBTRACT, "5")], ErrorCode.INVALID_CONFIG),
        ([("retention.ms", SET, None)], ErrorCode.INVALID_REQUEST),
        ([("retention.ms", SET, "5"), ("retention.ms", SET, "6")], ErrorCode.INVALID_REQUEST),
    ],
)
def test_changes_of_settings(
    changes: list[tuple[str, int, str | None]],
    code: ErrorCode,
    asker: Asker,
    shores: Shores,
    unique: str,
) -> None:
    create_topic(shores.kafka, unique)
    configs = [
        {"name": name, "config_operation": operation, "value": value}
        for name, operation, value in changes
    ]
    resource = {"resource_type": TOPIC, "resource_name": unique, "configs": configs}
    body = {"resources": [resource], "validate_only": True}
    (row,) = asker.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, body)["responses"]
    assert (row["resource_type"], row["resource_name"]) == (TOPIC, unique)
    assert row["error_code"] == code


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC, "not-there", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "a/b", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (TOPIC, "", ErrorCode.INVALID_REQUEST),
        (BROKER, "77", ErrorCode.INVALID_REQUEST),
        (99, "x", ErrorCode.INVALID_REQUEST),
    ],
)
def test_settings_of_something_else(
    kind: int, name: str, code: ErrorCode, asker: Asker
) -> None:
    config = {"name": "retention.ms", "config_operation": SET, "value": "5"}
    resource = {"resource_type": kind, "resource_name": name, "configs": [config]}
    body = {"resources": [resource], "validate_only": False}
    (row,) = asker.ask(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, body)["responses"]
    assert row["error_code"] == code
    replaced = [{"name": "retention.ms", "value": "5"}]
    body = {"resources": [{**resource, "configs": replaced}], "validate_only": False}
    (row,) = asker.ask(ApiKey.ALTER_CONFIGS, 2, body)["responses"]
    assert row["error_code"] == code


@pytest.mark.parametrize(
    ("count", "brokers", "code"),
    [
        (4, None, ErrorCode.NONE),
        (4, [[1], [1]], ErrorCode.NONE),
        (2, None, ErrorCode.INVALID_PARTITIONS),
        (1, None, ErrorCode.INVALID_PARTITIONS),
        (-1, None, ErrorCode.INVALID_PARTITIONS),
        (4, [[1]], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (3, [[77]], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (3, [[]], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
    ],
)
def test_more_partitions(
    count: int, brokers: list | None, code: ErrorCode, asker: Asker, shores: Shores, unique: str
) -> None:
    create_topic(shores.kafka, unique, 2)
    assignments = brokers and [{"broker_ids": one} for one in brokers]
    wanted = {"name": unique, "count": count, "assignments": assignments}
    body = {"topics": [wanted], "timeout_ms": 10_000, "validate_only": True}
    (row,) = asker.ask(ApiKey.CREATE_PARTITIONS, 3, body)["results"]
    assert (row["name"], row["error_code"]) == (unique, code)


def test_partitions_page_by_page(asker: Asker, shores: Shores, unique: str) -> None:
    names = [unique + end for end in "abc"]
    for name in names:
        create_topic(shores.kafka, name, 3)
    asked = [{"name": name} for name in (*names, unique + "none")]
    cursor: dict[str, Any] | None = None
    pages = []
    for _ in range(4):
        body = {"topics": asked, "response_partition_limit": 4, "cursor": cursor}
        answer = asker.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, body)
        pages.append(
            [
                (row["name"][len(unique) :], row["error_code"], len(row["partitions"]))
                for row in answer["topics"]
            ]
        )
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert pages == [
        [("a", 0, 3), ("b", 0, 1)],
        [("b", 0, 2), ("c", 0, 2)],
        [("c", 0, 1), ("none", unknown, 0)],
    ]
    wrong = {"topic_name": "elsewhere", "partition_index": 0}
    body = {"topics": asked[:1], "response_partition_limit": 4, "cursor": wrong}
    answer = asker.ask(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, body)
    assert [row["error_code"] for row in answer["topics"]] == [ErrorCode.INVALID_REQUEST]


def test_leaders_and_replicas(asker: Asker, shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique, 2)
    body: dict[str, Any] = {
        "election_type": 0,
        "topic_partitions": [{"topic": unique, "partitions": [0, 7]}],
    }
    (row,) = asker.ask(ApiKey.ELECT_LEADERS, 2, body)["replica_election_results"]
    assert [one["error_code"] for one in row["partition_result"]] == [
        ErrorCode.ELECTION_NOT_NEEDED,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]
    asked = [
        (0, [1], ErrorCode.NONE),
        (1, None, ErrorCode.NO_REASSIGNMENT_IN_PROGRESS),
        (1, [77], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (1, [], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (7, [1], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    for index, replicas, code in asked:
        partitions = [{"partition_index": index, "replicas": replicas}]
        body = {"topics": [{"name": unique, "partitions": partitions}]}
        answer = asker.ask(ApiKey.ALTER_PARTITION_REASSIGNMENTS, 1, body)
        assert answer["responses"][0]["partitions"][0]["error_code"] == code
    answer = asker.ask(ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, {"topics": None})
    assert answer["topics"] == []


def test_endpoints_and_resources(asker: Asker, shores: Shores, unique: str) -> None:
    create_topic(shores.kafka, unique)
    for kind, code in (
        (2, ErrorCode.MISMATCHED_ENDPOINT_TYPE),
        (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE),
    ):
        answer = asker.ask(ApiKey.DESCRIBE_CLUSTER, 2, {"endpoint_type": kind})
        assert answer["error_code"] == code
    answer = asker.ask(ApiKey.LIST_CONFIG_RESOURCES, 1, {"resource_types": [TOPIC, BROKER]})
    found = [(one["resource_type"], one["resource_name"]) for one in answer["config_resources"]]
    assert (TOPIC, unique) in found
    assert [name for kind, name in found if kind == BROKER] == ["1"]
    answer = asker.ask(ApiKey.LIST_CONFIG_RESOURCES, 0, {})
    assert answer["config_resources"] == []
    answer = asker.ask(ApiKey.LIST_CONFIG_RESOURCES, 1, {"resource_types": [3]})
    assert answer["error_code"] == ErrorCode.UNSUPPORTED_VERSION


# --- Kafka's own tools ------------------------------------------------------------------------


def test_the_tools_of_kafka(shores: Shores, unique: str, tmp_path: Path) -> None:
    if JavaConsole().missing():
        pytest.skip(JavaConsole().missing())
    server = text_of(shores.kafka)

    def run(tool: str, *words: str) -> str:
        command = [*java_command(tool), "--bootstrap-server", server, *words]
        return run_to_end(command).decode()

    create_topic(shores.kafka, unique, 2)
    topics = "org.apache.kafka.tools.TopicCommand"
    run(topics, "--alter", "--topic", unique, "--partitions", "3")
    told = run(topics, "--describe", "--topic", unique)
    assert "PartitionCount: 3" in told
    configs = "kafka.admin.ConfigCommand"
    entity = ("--entity-type", "topics", "--entity-name", unique)
    change = ("--add-config", "retention.ms=9999,cleanup.policy=[compact,delete]")
    run(configs, "--alter", *entity, *change)
    told = run(configs, "--describe", *entity)
    assert "retention.ms=9999" in told
    assert "cleanup.policy=compact,delete" in told
    run(configs, "--alter", *entity, "--delete-config", "retention.ms")
    assert "retention.ms" not in run(configs, "--describe", *entity)
    plan = tmp_path / "plan.json"
    move = {"topic": unique, "partition": 0, "replicas": [1]}
    plan.write_text(json.dumps({"version": 1, "partitions": [move]}))
    reassign = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
    run(reassign, "--execute", "--reassignment-json-file", str(plan))
    assert "is completed" in run(reassign, "--verify", "--reassignment-json-file", str(plan))
    told = run("org.apache.kafka.tools.FeatureCommand", "describe")
    assert "transaction.version" in told and "FinalizedVersionLevel: 4.3-IV0" in told
    elect = "org.apache.kafka.tools.LeaderElectionCommand"
    assert "Valid replica already elected" in run(
        elect, "--election-type", "preferred", "--topic", unique, "--partition", "0"
    )
