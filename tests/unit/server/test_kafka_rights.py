"""Rights on the Kafka side: what each request needs, and how it is answered without them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.broker.kafka_room import batch_of
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.broker.access_rules import parse_rules
from isthmus.broker.identity import Principal
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.guards import FREE, GUARDS
from isthmus.server.kafka_api.table import HANDLERS

NO_TOPIC = ErrorCode.TOPIC_AUTHORIZATION_FAILED
NO_GROUP = ErrorCode.GROUP_AUTHORIZATION_FAILED
NO_CLUSTER = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
NO_TXN = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
NONE = ErrorCode.NONE


class Room(ShoreRoom):
    """A Kafka shore with two log topics, and rules; nothing is allowed but what they allow."""

    def __init__(self, *rules: str, default: bool | None = False) -> None:
        super().__init__()
        for name in ("open", "shut"):
            self.log.create(name, 1, {})
        self.rule(*rules, default=default)

    def rule(self, *rules: str, default: bool | None = False) -> None:
        parsed = parse_rules("\n".join(rules), "rules")
        self.security.access.replace(parsed, default=default, super_users=("root",))

    def of(self, user: str = "ann") -> Peer:
        """Return the connection of somebody who has logged in."""
        peer = self.peer()
        peer.connection.principal = Principal(user, "", peer.connection.identity)
        return peer

    def id_of(self, name: str) -> bytes:
        return self.log.topics[name].topic_id

    def ask(self, key: ApiKey, version: int, body: dict[str, Any], user: str = "ann") -> Any:
        return self.of(user).ask(key, version, body)

    def body(self, key: ApiKey, version: int, topic: str = "shut") -> dict[str, Any]:
        """Return a request about a log topic, a group g and a transaction t."""
        by_id = {"topic_id": self.id_of(topic)}
        named = {"name": topic}
        index, epoch = {"partition_index": 0}, {"producer_id": 1, "producer_epoch": 0}
        offset = {**index, "committed_offset": 0, "committed_metadata": ""}
        one = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1000}
        resource = {"resource_type": 2, "resource_name": topic}
        changed = {**resource, "configs": []}
        member = {"member_id": "m"}
        acl = {"resource_name": "x", "principal": "User:x", "host": "*", "operation": 3}
        acl |= {"resource_type": 2, "resource_pattern_type": 3, "permission_type": 3}
        every = {"resource_type_filter": 1, "pattern_type_filter": 1, "operation": 1}
        every |= {"permission_type": 1, "resource_name_filter": None}
        every |= {"principal_filter": None, "host_filter": None}
        batch = bytes(batch_of(self.runtime.now_ms(), b"v").data)
        bodies: dict[int, dict[str, Any]] = {
            ApiKey.PRODUCE: {
                "acks": 1,
                "topic_data": [
                    {**named, **by_id, "partition_data": [{"index": 0, "records": batch}]}
                ],
            },
            ApiKey.FETCH: {"topics": [{"topic": topic, **by_id, "partitions": [one]}]},
            ApiKey.LIST_OFFSETS: {"topics": [{**named, "partitions": [index]}]},
            ApiKey.METADATA: {"topics": [named]},
            ApiKey.OFFSET_COMMIT: {
                "group_id": "g",
                "topics": [{**named, **by_id, "partitions": [offset]}],
            },
            ApiKey.OFFSET_FETCH: {
                "group_id": "g",
                "topics": [{**named, "partition_indexes": [0]}],
                "groups": [
                    {"group_id": "g", "topics": [{**named, **by_id, "partition_indexes": [0]}]}
                ],
            },
            ApiKey.FIND_COORDINATOR: {"key": "g", "coordinator_keys": ["g"]},
            ApiKey.JOIN_GROUP: {"group_id": "g", "session_timeout_ms": 10_000, **member},
            ApiKey.HEARTBEAT: {"group_id": "g", **member},
            ApiKey.LEAVE_GROUP: {"group_id": "g", "members": [member], **member},
            ApiKey.SYNC_GROUP: {"group_id": "g", **member},
            ApiKey.DESCRIBE_GROUPS: {"groups": ["g"]},
            ApiKey.CREATE_TOPICS: {
                "topics": [{"name": "new", "num_partitions": 1, "replication_factor": 1}]
            },
            ApiKey.DELETE_TOPICS: {"topics": [named], "topic_names": [topic]},
            ApiKey.DELETE_RECORDS: {
                "topics": [{**named, "partitions": [{**index, "offset": 0}]}]
            },
            ApiKey.INIT_PRODUCER_ID: {"transactional_id": None},
            ApiKey.OFFSET_FOR_LEADER_EPOCH: {
                "topics": [{"topic": topic, "partitions": [{"partition": 0}]}]
            },
            ApiKey.ADD_PARTITIONS_TO_TXN: {
                "v3_and_below_transactional_id": "t",
                "v3_and_below_topics": [{**named, "partitions": [0]}],
            },
            ApiKey.ADD_OFFSETS_TO_TXN: {"transactional_id": "t", "group_id": "g", **epoch},
            ApiKey.END_TXN: {"transactional_id": "t", **epoch},
            ApiKey.WRITE_TXN_MARKERS: {
                "markers": [{**epoch, "topics": [{**named, "partition_indexes": [0]}]}]
            },
            ApiKey.TXN_OFFSET_COMMIT: {
                "transactional_id": "t",
                "group_id": "g",
                **epoch,
                "topics": [{**named, "partitions": [offset]}],
            },
            ApiKey.DESCRIBE_ACLS: every,
            ApiKey.CREATE_ACLS: {"creations": [acl]},
            ApiKey.DELETE_ACLS: {"filters": [every]},
            ApiKey.DESCRIBE_CONFIGS: {"resources": [{**resource, "configuration_keys": None}]},
            ApiKey.ALTER_CONFIGS: {"resources": [changed]},
            ApiKey.ALTER_REPLICA_LOG_DIRS: {
                "dirs": [{"path": "/", "topics": [{**named, "partitions": [0]}]}]
            },
            ApiKey.DESCRIBE_LOG_DIRS: {"topics": None},
            ApiKey.CREATE_PARTITIONS: {"topics": [{**named, "count": 2, "assignments": None}]},
            ApiKey.DELETE_GROUPS: {"groups_names": ["g"]},
            ApiKey.ELECT_LEADERS: {"topic_partitions": [{"topic": topic, "partitions": [0]}]},
            ApiKey.INCREMENTAL_ALTER_CONFIGS: {"resources": [changed]},
            ApiKey.OFFSET_DELETE: {
                "group_id": "g",
                "topics": [{**named, "partitions": [index]}],
            },
            ApiKey.ALTER_CLIENT_QUOTAS: {
                "entries": [{"entity": [{"entity_type": "user"}], "ops": []}]
            },
            ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: {"users": None},
            ApiKey.ALTER_USER_SCRAM_CREDENTIALS: {
                "deletions": [{"name": "x", "mechanism": 1}],
                "upsertions": [],
            },
            ApiKey.DESCRIBE_PRODUCERS: {"topics": [{**named, "partition_indexes": [0]}]},
            ApiKey.DESCRIBE_TRANSACTIONS: {"transactional_ids": ["t"]},
            ApiKey.CONSUMER_GROUP_HEARTBEAT: {
                "group_id": "g",
                "subscribed_topic_names": [topic],
                **member,
            },
            ApiKey.CONSUMER_GROUP_DESCRIBE: {"group_ids": ["g"]},
            ApiKey.SHARE_GROUP_HEARTBEAT: {
                "group_id": "g",
                "subscribed_topic_names": [topic],
                **member,
            },
            ApiKey.SHARE_GROUP_DESCRIBE: {"group_ids": ["g"]},
            ApiKey.SHARE_FETCH: {
                "group_id": "g",
                "topics": [{**by_id, "partitions": [index]}],
                **member,
            },
            ApiKey.SHARE_ACKNOWLEDGE: {"group_id": "g", **member},
            ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS: {
                "groups": [
                    {"group_id": "g", "topics": [{"topic_name": topic, "partitions": [0]}]}
                ]
            },
            ApiKey.ALTER_SHARE_GROUP_OFFSETS: {
                "group_id": "g",
                "topics": [{"topic_name": topic, "partitions": [index]}],
            },
            ApiKey.DELETE_SHARE_GROUP_OFFSETS: {
                "group_id": "g",
                "topics": [{"topic_name": topic}],
            },
            ApiKey.DESCRIBE_TOPIC_PARTITIONS: {"topics": [named]},
        }
        body = bodies.get(key, {})
        first, old, new = RENAMED.get(key, (0, (), ()))
        gone = old if version >= first else new
        return {field: body[field] for field in body if field not in gone}


RENAMED: dict[int, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    ApiKey.OFFSET_FETCH: (8, ("group_id", "topics"), ("groups",)),
    ApiKey.FIND_COORDINATOR: (4, ("key",), ("coordinator_keys",)),
    ApiKey.LEAVE_GROUP: (3, ("member_id",), ("members",)),
    ApiKey.DELETE_TOPICS: (6, ("topic_names",), ("topics",)),
}
"""Since when a request has other fields, those that went, and those that came."""


def codes_in(answer: Any) -> set[int]:
    """Return all error codes in an answer."""
    if isinstance(answer, list):
        return {code for each in answer for code in codes_in(each)}
    if not isinstance(answer, dict):
        return set()
    found = {answer[key] for key in answer if key.endswith("error_code") and answer[key]}
    return found | {code for each in answer.values() for code in codes_in(each)}


NEEDED: dict[ApiKey, tuple[int, set[str]]] = {
    ApiKey.PRODUCE: (NO_TOPIC, {"write log:shut"}),
    ApiKey.FETCH: (NO_TOPIC, {"read log:shut"}),
    ApiKey.LIST_OFFSETS: (NO_TOPIC, {"describe log:shut"}),
    ApiKey.METADATA: (NO_TOPIC, {"describe log:shut"}),
    ApiKey.OFFSET_COMMIT: (NO_GROUP, {"read group:g", "read log:shut"}),
    ApiKey.OFFSET_FETCH: (NO_GROUP, {"describe group:g", "describe log:shut"}),
    ApiKey.FIND_COORDINATOR: (NO_GROUP, {"describe group:g"}),
    ApiKey.JOIN_GROUP: (NO_GROUP, {"read group:g"}),
    ApiKey.HEARTBEAT: (NO_GROUP, {"read group:g"}),
    ApiKey.LEAVE_GROUP: (NO_GROUP, {"read group:g"}),
    ApiKey.SYNC_GROUP: (NO_GROUP, {"read group:g"}),
    ApiKey.DESCRIBE_GROUPS: (NO_GROUP, {"describe group:g"}),
    ApiKey.CREATE_TOPICS: (NO_TOPIC, {"create log:new"}),
    ApiKey.DELETE_TOPICS: (NO_TOPIC, {"delete log:shut"}),
    ApiKey.DELETE_RECORDS: (NO_TOPIC, {"delete log:shut"}),
    ApiKey.INIT_PRODUCER_ID: (NO_CLUSTER, {"write log:any"}),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (NO_TOPIC, {"describe log:shut"}),
    ApiKey.ADD_PARTITIONS_TO_TXN: (NO_TXN, {"write transaction:t", "write log:shut"}),
    ApiKey.ADD_OFFSETS_TO_TXN: (NO_TXN, {"write transaction:t", "read group:g"}),
    ApiKey.END_TXN: (NO_TXN, {"write transaction:t"}),
    ApiKey.WRITE_TXN_MARKERS: (NO_CLUSTER, {"cluster-action cluster"}),
    ApiKey.TXN_OFFSET_COMMIT: (
        NO_TXN,
        {"write transaction:t", "read group:g", "read log:shut"},
    ),
    ApiKey.DESCRIBE_ACLS: (NO_CLUSTER, {"describe cluster"}),
    ApiKey.CREATE_ACLS: (NO_CLUSTER, {"alter cluster"}),
    ApiKey.DELETE_ACLS: (NO_CLUSTER, {"alter cluster"}),
    ApiKey.DESCRIBE_CONFIGS: (NO_TOPIC, {"describe-configs log:shut"}),
    ApiKey.ALTER_CONFIGS: (NO_TOPIC, {"alter-configs log:shut"}),
    ApiKey.ALTER_REPLICA_LOG_DIRS: (NO_CLUSTER, {"alter cluster"}),
    ApiKey.DESCRIBE_LOG_DIRS: (NO_CLUSTER, {"describe cluster"}),
    ApiKey.CREATE_PARTITIONS: (NO_TOPIC, {"alter log:shut"}),
    ApiKey.DELETE_GROUPS: (NO_GROUP, {"delete group:g"}),
    ApiKey.ELECT_LEADERS: (NO_CLUSTER, {"alter cluster"}),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: (NO_TOPIC, {"alter-configs log:shut"}),
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: (NO_CLUSTER, {"alter cluster"}),
    ApiKey.LIST_PARTITION_REASSIGNMENTS: (NO_CLUSTER, {"describe cluster"}),
    ApiKey.OFFSET_DELETE: (NO_GROUP, {"delete group:g", "read log:shut"}),
    ApiKey.DESCRIBE_CLIENT_QUOTAS: (NO_CLUSTER, {"describe-configs cluster"}),
    ApiKey.ALTER_CLIENT_QUOTAS: (NO_CLUSTER, {"alter-configs cluster"}),
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: (NO_CLUSTER, {"describe cluster"}),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: (NO_CLUSTER, {"alter cluster"}),
    ApiKey.UPDATE_FEATURES: (NO_CLUSTER, {"alter cluster"}),
    ApiKey.DESCRIBE_PRODUCERS: (NO_TOPIC, {"read log:shut"}),
    ApiKey.DESCRIBE_TRANSACTIONS: (NO_TXN, {"describe transaction:t"}),
    ApiKey.CONSUMER_GROUP_HEARTBEAT: (NO_GROUP, {"read group:g", "describe log:shut"}),
    ApiKey.CONSUMER_GROUP_DESCRIBE: (NO_GROUP, {"describe group:g"}),
    ApiKey.SHARE_GROUP_HEARTBEAT: (NO_GROUP, {"read group:g", "describe log:shut"}),
    ApiKey.SHARE_GROUP_DESCRIBE: (NO_GROUP, {"describe group:g"}),
    ApiKey.SHARE_FETCH: (NO_GROUP, {"read group:g", "read log:shut"}),
    ApiKey.SHARE_ACKNOWLEDGE: (NO_GROUP, {"read group:g"}),
    ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS: (
        NO_GROUP,
        {"describe group:g", "describe log:shut"},
    ),
    ApiKey.ALTER_SHARE_GROUP_OFFSETS: (NO_GROUP, {"read group:g", "read log:shut"}),
    ApiKey.DELETE_SHARE_GROUP_OFFSETS: (NO_GROUP, {"delete group:g", "read log:shut"}),
    ApiKey.LIST_CONFIG_RESOURCES: (NO_CLUSTER, {"describe-configs cluster"}),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: (NO_TOPIC, {"describe log:shut"}),
}
FILTERED = {  # these leave out what may not be seen
    ApiKey.LIST_GROUPS,
    ApiKey.LIST_TRANSACTIONS,
    ApiKey.DESCRIBE_CLUSTER,
}
HIDDEN = {ApiKey.CREATE_TOPICS}  # of what they did some may not be told
DENIALS = {NO_TOPIC, NO_GROUP, NO_CLUSTER, NO_TXN}


def spoken(key: ApiKey) -> list[int]:
    """Return the versions to try: those that clients send, not brokers."""
    if key == ApiKey.ADD_PARTITIONS_TO_TXN:
        return [0, 3]
    if key == ApiKey.DESCRIBE_LOG_DIRS:
        return [3, 5]  # earlier ones have no error, see below
    return [versions(key)[0], versions(key)[-1]]


def test_every_request_has_a_guard() -> None:
    assert GUARDS.keys() == HANDLERS.keys()
    assert NEEDED.keys() | FILTERED | FREE == GUARDS.keys() | {ApiKey.PRODUCE}


@pytest.mark.parametrize("key", NEEDED, ids=lambda key: key.name)
def test_without_the_right_it_is_denied_and_with_it_not(key: ApiKey) -> None:
    denial, needed = NEEDED[key]
    for version in spoken(key):
        room = Room()
        answer = room.ask(key, version, room.body(key, version))
        assert codes_in(answer) & DENIALS == {denial}, (version, answer)
        assert {"open", "shut"} == {each for each in room.log.topics if each[0] != "_"}
        for missing in needed if len(needed) > 1 else ():
            some = [f"allow user:ann {each}" for each in needed - {missing}]
            room = Room(*some)
            answer = room.ask(key, version, room.body(key, version))
            assert codes_in(answer) & DENIALS, (version, missing, answer)
        rules = [f"allow user:ann {each}" for each in needed]
        for room in (Room(*rules), Room(), Room(default=None)):
            user = "root" if room.security.access.default is False and not rules else "ann"
            answer = room.ask(key, version, room.body(key, version), user)
            denied = codes_in(answer) & DENIALS
            assert not denied or (rules and key in HIDDEN), (version, answer)
            rules = []


def test_sizes_are_told_to_nobody_and_old_clients_hear_no_reason() -> None:
    answer = Room().ask(ApiKey.DESCRIBE_LOG_DIRS, 1, {"topics": None})
    assert answer["results"] == []


def names_in(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {row["name"]: row["error_code"] for row in rows}


@pytest.mark.parametrize("version", versions(ApiKey.METADATA))
def test_what_may_not_be_described_is_not_there(version: int) -> None:
    room = Room("allow user:ann describe log:open", "allow user:ann create log:made")
    for asked in (None, []) if version else ([],):
        answer = room.ask(ApiKey.METADATA, version, {"topics": asked})
        everything = asked is None or version == 0
        assert names_in(answer["topics"]) == ({"open": 0} if everything else {})
    wanted = [{"name": name} for name in ("open", "shut", "never")]
    answer = room.ask(ApiKey.METADATA, version, {"topics": wanted})
    assert names_in(answer["topics"]) == {"open": 0, "shut": NO_TOPIC, "never": NO_TOPIC}
    hidden = [row for row in answer["topics"] if row["error_code"]]
    assert all(not any(row.get("topic_id", b"")) and not row["partitions"] for row in hidden)
    answer = room.ask(ApiKey.METADATA, version, {"topics": [{"name": "shut"}]})
    assert names_in(answer["topics"]) == {"shut": NO_TOPIC}
    assert "never" not in room.log.topics


def test_a_log_topic_is_made_of_itself_with_the_right_to_create() -> None:
    room = Room(
        "allow user:ann describe log:*",
        "allow user:ann create log:made*",
        "allow user:bob describe log:*",
        "allow user:bob create cluster",
    )
    wanted = {"topics": [{"name": "made"}, {"name": "not"}], "allow_auto_topic_creation": True}
    answer = room.ask(ApiKey.METADATA, 9, wanted)
    assert names_in(answer["topics"]) == {"made": 0, "not": NO_TOPIC}
    wanted = {"topics": [{"name": "by-bob"}], "allow_auto_topic_creation": True}
    assert names_in(room.ask(ApiKey.METADATA, 9, wanted, "bob")["topics"]) == {"by-bob": 0}


def test_by_its_id_a_log_topic_is_denied_under_its_id() -> None:
    room = Room("allow user:ann read log:open")
    ids = [room.id_of("open"), room.id_of("shut"), bytes(15) + b"\1"]
    asked = [{"name": None, "topic_id": each} for each in ids]
    rows = room.ask(ApiKey.METADATA, 12, {"topics": asked})["topics"]
    assert {row["topic_id"]: (row["name"], row["error_code"]) for row in rows} == {
        ids[0]: ("open", 0),
        ids[1]: (None, NO_TOPIC),
        ids[2]: (None, ErrorCode.UNKNOWN_TOPIC_ID),
    }


def test_authorized_operations_are_those_that_are() -> None:
    room = Room("allow user:ann write log:open", "allow user:ann all group:g")
    body = {"topics": None, "include_topic_authorized_operations": True}
    body |= {"include_cluster_authorized_operations": True}
    answer = room.ask(ApiKey.METADATA, 10, body)
    assert answer["topics"][0]["topic_authorized_operations"] == 1 << 4 | 1 << 8
    assert answer["cluster_authorized_operations"] == 0
    body = {"groups": ["g"], "include_authorized_operations": True}
    (group,) = room.ask(ApiKey.DESCRIBE_GROUPS, 5, body)["groups"]
    assert group["authorized_operations"] == sum(1 << each for each in (3, 6, 8, 10, 11))
    room.rule("allow user:ann describe,alter cluster")
    body = {"include_cluster_authorized_operations": True}
    answer = room.ask(ApiKey.DESCRIBE_CLUSTER, 0, body)
    assert answer["cluster_authorized_operations"] == 1 << 7 | 1 << 8
    room.rule("allow user:ann create cluster")
    assert room.ask(ApiKey.DESCRIBE_CLUSTER, 0, body)["cluster_authorized_operations"] == 0


def test_what_is_allowed_in_a_request_is_done() -> None:
    room = Room("allow user:ann write log:open", "allow user:ann describe log:*")
    batch = bytes(batch_of(room.runtime.now_ms(), b"v").data)
    data = [
        {"name": name, "partition_data": [{"index": 0, "records": batch}]}
        for name in ("shut", "open")
    ]
    answer = room.ask(ApiKey.PRODUCE, 9, {"acks": -1, "topic_data": data})
    codes = {
        row["name"]: row["partition_responses"][0]["error_code"] for row in answer["responses"]
    }
    assert codes == {"shut": NO_TOPIC, "open": 0}
    wanted = {"topics": [room.body(ApiKey.FETCH, 12, name)["topics"][0] for name in codes]}
    room.rule("allow user:ann read log:open")
    answer = room.ask(ApiKey.FETCH, 12, {**wanted, "session_epoch": 0, "min_bytes": 1})
    found = {row["topic"]: row["partitions"][0] for row in answer["responses"]}
    assert (found["shut"]["error_code"], found["shut"]["high_watermark"]) == (NO_TOPIC, -1)
    assert found["open"]["error_code"] == 0 and found["open"]["records"]


def test_a_fetch_session_is_looked_at_each_time_and_by_whoever_uses_it() -> None:
    room = Room("allow user:ann read log:open")
    ann, bob = room.of("ann"), room.of("bob")
    topics = [room.body(ApiKey.FETCH, 12, name)["topics"][0] for name in ("open", "shut")]
    begun = {"topics": topics, "session_epoch": 0, "min_bytes": 0}

    def told(answer: dict[str, Any]) -> dict[str, int]:
        return {row["topic"]: row["partitions"][0]["error_code"] for row in answer["responses"]}

    answer = ann.ask(ApiKey.FETCH, 12, begun)
    assert told(answer) == {"open": 0, "shut": NO_TOPIC}
    go_on: dict[str, Any] = {"session_id": answer["session_id"], "topics": [], "min_bytes": 0}
    assert told(ann.ask(ApiKey.FETCH, 12, go_on | {"session_epoch": 1})) == {"shut": NO_TOPIC}
    stolen = bob.ask(ApiKey.FETCH, 12, go_on | {"session_epoch": 2})
    assert told(stolen) == {"open": NO_TOPIC, "shut": NO_TOPIC}
    room.rule("allow user:ann read log:shut")
    found = told(ann.ask(ApiKey.FETCH, 12, go_on | {"session_epoch": 3}))
    assert found == {"open": NO_TOPIC, "shut": 0}


def test_a_change_of_rules_counts_with_the_next_request() -> None:
    room = Room("allow user:ann describe log:open")
    peer = room.of()
    asked: tuple[Any, ...] = (ApiKey.METADATA, 9, {"topics": [{"name": "open"}]})
    assert names_in(peer.ask(*asked)["topics"]) == {"open": 0}
    room.rule("deny all all log:*", "allow user:ann describe log:open")
    assert names_in(peer.ask(*asked)["topics"]) == {"open": NO_TOPIC}
    room.rule(default=None)
    assert names_in(peer.ask(*asked)["topics"]) == {"open": 0}


def test_lists_show_what_may_be_described() -> None:
    room = Room("allow user:ann describe group:mine")
    joining = {"session_timeout_ms": 10_000, "protocol_type": "consumer", "member_id": ""}
    joining["protocols"] = [{"name": "range", "metadata": b""}]
    for name in ("mine", "theirs"):
        room.ask(ApiKey.JOIN_GROUP, 0, {"group_id": name, **joining}, "root")
    listed = room.ask(ApiKey.LIST_GROUPS, 4, {"states_filter": []})["groups"]
    assert [row["group_id"] for row in listed] == ["mine"]
    room.rule("allow user:ann describe cluster")
    listed = room.ask(ApiKey.LIST_GROUPS, 4, {"states_filter": []})["groups"]
    assert len(listed) == 2


def test_acks_0_without_the_right_costs_the_connection() -> None:
    room = Room()
    peer = room.of()
    body = room.body(ApiKey.PRODUCE, 9) | {"acks": 0}
    peer.feed(peer.frame(ApiKey.PRODUCE, 9, body))
    room.runtime.settle()
    assert peer.transport.closed and not peer.transport.sent


def test_an_idempotent_producer_needs_something_to_write_to() -> None:
    asked: tuple[Any, ...] = (ApiKey.INIT_PRODUCER_ID, 4, {"transactional_id": None})
    for rules, allowed in (
        (["allow user:ann idempotent-write cluster"], True),
        (["allow user:ann write log:a*"], True),
        (["allow user:ann write log:ab*", "deny all write log:a*"], False),
        (["allow user:ann write log:a", "deny all all log:*"], False),
        (["allow user:ann write log:a", "deny all write log:b"], True),
    ):
        code = Room(*rules).ask(*asked)["error_code"]
        assert code == (NONE if allowed else NO_CLUSTER), rules
    transaction = {"transactional_id": "t", "transaction_timeout_ms": 1000}
    assert Room().ask(ApiKey.INIT_PRODUCER_ID, 4, transaction)["error_code"] == NO_TXN


def test_the_settings_of_what_one_has_made_need_a_right_of_their_own() -> None:
    room = Room("allow user:ann create log:*", "allow user:ann describe-configs log:told")
    topics = [
        {"name": name, "num_partitions": 2, "replication_factor": 1}
        for name in ("told", "untold")
    ]
    rows = room.ask(ApiKey.CREATE_TOPICS, 7, {"topics": topics})["topics"]
    told = {
        row["name"]: (row["error_code"], row["topic_config_error_code"], row["num_partitions"])
        for row in rows
    }
    assert told == {"told": (0, 0, 2), "untold": (0, NO_TOPIC, -1)}
    assert [bool(row["configs"]) for row in rows] == [True, False]
    assert "untold" in room.log.topics


def test_a_pattern_reads_no_log_topic_that_may_not_be_known() -> None:
    group = "allow user:ann read group:g"
    room = Room(group, "allow user:ann describe log:open")
    peer = room.of()
    beat = {"group_id": "g", "member_id": "m", "member_epoch": 0}
    join = {"topic_partitions": [], "rebalance_timeout_ms": 10_000}
    join["subscribed_topic_regex"] = ".*"

    def heartbeat(**said: Any) -> dict[str, Any]:
        return peer.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, {**beat, **said})

    def read(answer: dict[str, Any]) -> set[bytes]:
        return {each["topic_id"] for each in answer["assignment"]["topic_partitions"]}

    joined = heartbeat(**join)
    assert read(joined) == {room.id_of("open")}
    room.rule(group, "allow user:ann describe log:*")
    more = heartbeat(member_epoch=joined["member_epoch"])
    assert read(more) == {room.id_of("open"), room.id_of("shut")}
    room.rule(group, "allow user:ann describe log:shut")
    owned = more["assignment"]["topic_partitions"]
    left = heartbeat(member_epoch=more["member_epoch"], topic_partitions=owned)
    assert read(left) == {room.id_of("shut")}


def test_a_group_whose_log_topics_may_not_be_known_is_not_described() -> None:
    room = Room("allow user:ann describe group:g")
    beat = {"group_id": "g", "member_id": "m", "subscribed_topic_names": ["shut"]}
    beat |= {"topic_partitions": [], "rebalance_timeout_ms": 10_000}
    for epoch in (0, 1):
        heartbeat = beat | {"member_epoch": epoch}
        room.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, heartbeat, "root")
    asked: tuple[Any, ...] = (ApiKey.CONSUMER_GROUP_DESCRIBE, 1, {"group_ids": ["g"]})
    (group,) = room.ask(*asked)["groups"]
    assert (group["error_code"], group["members"]) == (NO_TOPIC, [])
    room.rule("allow user:ann describe group:g", "allow user:ann describe log:shut")
    (group,) = room.ask(*asked)["groups"]
    assert (group["error_code"], len(group["members"])) == (0, 1)
