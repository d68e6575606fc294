"""Consumer groups and their offsets on the wire, in every version that is served."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

NOW = 1_700_000_000_000
OK = ErrorCode.NONE


@pytest.fixture
def peer() -> Peer:
    room = ShoreRoom()
    room.log.create("t", 2, {})
    return room.peer()


def join_body(version: int, member_id: str = "", **more: Any) -> dict[str, Any]:
    body = {
        "group_id": "g",
        "session_timeout_ms": 10_000,
        "member_id": member_id,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b"meta"}],
        **more,
    }
    if version >= 1:
        body["rebalance_timeout_ms"] = 10_000
    return body


def join(peer: Peer, version: int, member_id: str = "", **more: Any) -> dict[str, Any]:
    return peer.ask(ApiKey.JOIN_GROUP, version, join_body(version, member_id, **more))


@pytest.mark.parametrize("version", versions(ApiKey.JOIN_GROUP))
def test_a_member_joins_in_every_version(peer: Peer, version: int) -> None:
    answer = join(peer, version)
    if version >= 4:
        assert answer["error_code"] == ErrorCode.MEMBER_ID_REQUIRED
        answer = join(peer, version, answer["member_id"])
    assert answer["error_code"] == OK
    assert answer["member_id"] == answer["leader"]
    assert answer["member_id"].startswith("peer-")
    assert answer["members"][0]["metadata"] == b"meta"
    assert (answer["generation_id"], answer["protocol_name"]) == (1, "range")
    refused = join(peer, version, protocol_type="other")
    assert refused["error_code"] == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    short = join(peer, version, session_timeout_ms=5)
    assert short["error_code"] == ErrorCode.INVALID_SESSION_TIMEOUT


def member_of(peer: Peer) -> dict[str, Any]:
    return join(peer, 3)


@pytest.mark.parametrize("version", versions(ApiKey.SYNC_GROUP))
def test_a_member_gets_its_share_in_every_version(peer: Peer, version: int) -> None:
    name = member_of(peer)["member_id"]
    body: dict[str, Any] = {
        "group_id": "g",
        "generation_id": 1,
        "member_id": name,
        "assignments": [{"member_id": name, "assignment": b"share"}],
    }
    if version >= 5:
        body |= {"protocol_type": "consumer", "protocol_name": "range"}
    answer = peer.ask(ApiKey.SYNC_GROUP, version, body)
    assert (answer["error_code"], answer["assignment"]) == (OK, b"share")


@pytest.mark.parametrize("version", versions(ApiKey.HEARTBEAT))
def test_heartbeats_in_every_version(peer: Peer, version: int) -> None:
    name = member_of(peer)["member_id"]
    body = {"group_id": "g", "generation_id": 1, "member_id": name}
    assert peer.ask(ApiKey.HEARTBEAT, version, body)["error_code"] == OK
    body["generation_id"] = 0
    answer = peer.ask(ApiKey.HEARTBEAT, version, body)
    assert answer["error_code"] == ErrorCode.ILLEGAL_GENERATION


@pytest.mark.parametrize("version", versions(ApiKey.LEAVE_GROUP))
def test_members_leave_in_every_version(peer: Peer, version: int) -> None:
    name = member_of(peer)["member_id"]
    unknown = ErrorCode.UNKNOWN_MEMBER_ID
    if version < 3:
        body: dict[str, Any] = {"group_id": "g", "member_id": name}
        codes = [peer.ask(ApiKey.LEAVE_GROUP, version, body)["error_code"] for _ in "ab"]
    else:
        body = {"group_id": "g", "members": [{"member_id": name}, {"member_id": name}]}
        answer = peer.ask(ApiKey.LEAVE_GROUP, version, body)
        codes = [row["error_code"] for row in answer["members"]]
    assert codes == [OK, unknown]
    nowhere = peer.ask(ApiKey.LEAVE_GROUP, version, {**body, "group_id": ""})
    assert nowhere["error_code"] == ErrorCode.INVALID_GROUP_ID


def commit(peer: Peer, version: int, **more: Any) -> dict[str, Any]:
    row = {"partition_index": 1, "committed_offset": 5, "committed_metadata": "nöte"}
    topic: dict[str, Any] = {"name": "t", "partitions": [{**row, **more}]}
    if version >= 10:
        topic = {**topic, "name": "", "topic_id": peer.room.log.topics["t"].topic_id}
    body = {"group_id": "g", "topics": [topic]}
    answer = peer.ask(ApiKey.OFFSET_COMMIT, version, body)
    return answer["topics"][0]["partitions"][0]


@pytest.mark.parametrize("version", versions(ApiKey.OFFSET_COMMIT))
def test_offsets_are_committed_in_every_version(peer: Peer, version: int) -> None:
    assert commit(peer, version)["error_code"] == OK
    offsets = peer.room.shore.group_offsets.committed("g")
    assert isinstance(offsets, dict)
    assert (offsets["t", 1].offset, offsets["t", 1].metadata) == (5, "nöte")
    unknown = commit(peer, version, partition_index=9)
    assert unknown["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    long = commit(peer, version, committed_metadata="x" * 5_000)
    assert long["error_code"] == ErrorCode.OFFSET_METADATA_TOO_LARGE


def test_a_commit_to_an_unknown_topic_id_is_told(peer: Peer) -> None:
    row = {"partition_index": 0, "committed_offset": 1, "committed_metadata": None}
    body = {"group_id": "g", "topics": [{"topic_id": b"?" * 16, "partitions": [row]}]}
    answer = peer.ask(ApiKey.OFFSET_COMMIT, 10, body)["topics"][0]
    assert answer["partitions"][0]["error_code"] == ErrorCode.UNKNOWN_TOPIC_ID
    assert answer["topic_id"] == b"?" * 16


@pytest.mark.parametrize("version", versions(ApiKey.OFFSET_FETCH))
def test_offsets_are_fetched_in_every_version(
    peer: Peer, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(peer, 9)
    topic: dict[str, Any] = {"name": "t", "partition_indexes": [0, 1]}
    if version >= 10:
        topic_id = peer.room.log.topics["t"].topic_id
        topic = {"topic_id": topic_id, "partition_indexes": [0, 1]}

    def ask(group_id: str, topics: list | None) -> dict[str, Any]:
        if version < 8:
            body: dict[str, Any] = {"group_id": group_id, "topics": topics}
            return peer.ask(ApiKey.OFFSET_FETCH, version, body)
        body = {"groups": [{"group_id": group_id, "topics": topics}]}
        return peer.ask(ApiKey.OFFSET_FETCH, version, body)["groups"][0]

    rows = ask("g", [topic])["topics"][0]["partitions"]
    assert [(row["committed_offset"], row["metadata"]) for row in rows] == [
        (-1, ""),
        (5, "nöte"),
    ]
    assert ask("unknown", [topic])["topics"][0]["partitions"][1]["committed_offset"] == -1
    if version >= 2:
        (everything,) = ask("g", None)["topics"]
        assert [row["partition_index"] for row in everything["partitions"]] == [1]
    monkeypatch.setattr(peer.room.shore.groups, "_is_loading", True)
    refused = ask("g", [topic])
    if version >= 2:
        assert refused["error_code"] == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    else:
        codes = {row["error_code"] for row in refused["topics"][0]["partitions"]}
        assert codes == {ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}


def test_offsets_of_an_unknown_topic_id_are_not_there(peer: Peer) -> None:
    topic = {"topic_id": b"?" * 16, "partition_indexes": [0]}
    body = {"groups": [{"group_id": "g", "topics": [topic]}]}
    (group,) = peer.ask(ApiKey.OFFSET_FETCH, 10, body)["groups"]
    assert group["topics"][0]["partitions"][0]["error_code"] == ErrorCode.UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("version", versions(ApiKey.LIST_GROUPS))
def test_groups_are_listed(peer: Peer, version: int) -> None:
    member_of(peer)
    commit(peer, 9)
    (row,) = peer.ask(ApiKey.LIST_GROUPS, version)["groups"]
    assert (row["group_id"], row["protocol_type"]) == ("g", "consumer")
    if version >= 4:
        assert row["group_state"] == "CompletingRebalance"
        assert (
            peer.ask(ApiKey.LIST_GROUPS, version, {"states_filter": ["Empty"]})["groups"] == []
        )
    if version >= 5:
        assert row["group_type"] == "classic"
        assert (
            peer.ask(ApiKey.LIST_GROUPS, version, {"types_filter": ["consumer"]})["groups"]
            == []
        )
        assert peer.ask(ApiKey.LIST_GROUPS, version, {"types_filter": ["classic"]})["groups"]


@pytest.mark.parametrize("version", versions(ApiKey.DESCRIBE_GROUPS))
def test_groups_are_described(peer: Peer, version: int) -> None:
    name = member_of(peer)["member_id"]
    body: dict[str, Any] = {"groups": ["g", "absent"]}
    if version >= 3:
        body["include_authorized_operations"] = True
    joining, absent = peer.ask(ApiKey.DESCRIBE_GROUPS, version, body)["groups"]
    assert (joining["group_state"], joining["members"][0]["member_id"]) == (
        "CompletingRebalance",
        name,
    )
    assert absent["group_state"] == "Dead"
    assert absent["error_code"] == (ErrorCode.GROUP_ID_NOT_FOUND if version >= 6 else OK)
    shares = [{"member_id": name, "assignment": b"share"}]
    sync = {"group_id": "g", "generation_id": 1, "member_id": name, "assignments": shares}
    peer.ask(ApiKey.SYNC_GROUP, 0, sync)
    stable, _ = peer.ask(ApiKey.DESCRIBE_GROUPS, version, body)["groups"]
    (member,) = stable["members"]
    assert (stable["group_state"], stable["protocol_data"]) == ("Stable", "range")
    assert (member["member_metadata"], member["member_assignment"]) == (b"meta", b"share")
    assert (member["client_id"], member["client_host"]) == ("peer", "/10.0.0.9")
    if version >= 3:
        assert stable["authorized_operations"] == 3400, "what Apache Kafka says without ACLs"


def test_a_member_keeps_its_share_in_the_description_of_a_rebalance(peer: Peer) -> None:
    name = member_of(peer)["member_id"]
    shares = [{"member_id": name, "assignment": b"share"}]
    sync = {"group_id": "g", "generation_id": 1, "member_id": name, "assignments": shares}
    peer.ask(ApiKey.SYNC_GROUP, 0, sync)
    other = peer.room.peer()
    other.feed(other.frame(ApiKey.JOIN_GROUP, 3, join_body(3)))
    (group,) = peer.ask(ApiKey.DESCRIBE_GROUPS, 5, {"groups": ["g"]})["groups"]
    assert group["group_state"] == "PreparingRebalance"
    assert [one["member_assignment"] for one in group["members"]] == [b"share", b""]


@pytest.mark.parametrize("version", versions(ApiKey.DELETE_GROUPS))
def test_groups_are_deleted(peer: Peer, version: int) -> None:
    commit(peer, 9)
    body = {"groups_names": ["g", "absent", "g"]}
    answer = peer.ask(ApiKey.DELETE_GROUPS, version, body)
    assert [(row["group_id"], row["error_code"]) for row in answer["results"]] == [
        ("g", OK),
        ("absent", ErrorCode.GROUP_ID_NOT_FOUND),
    ]
    assert peer.ask(ApiKey.DELETE_GROUPS, version)["results"] == []


def test_offsets_are_deleted_row_by_row(peer: Peer) -> None:
    commit(peer, 9)
    rows = [{"partition_index": 1}, {"partition_index": 9}]
    topics = [{"name": "t", "partitions": rows}, {"name": "absent", "partitions": rows[:1]}]
    answer = peer.ask(ApiKey.OFFSET_DELETE, 0, {"group_id": "g", "topics": topics})
    codes = [[row["error_code"] for row in topic["partitions"]] for topic in answer["topics"]]
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert (answer["error_code"], codes) == (OK, [[OK, unknown], [unknown]])
    assert peer.room.shore.group_offsets.committed("g") == {}
    answer = peer.ask(ApiKey.OFFSET_DELETE, 0, {"group_id": "absent", "topics": topics})
    assert (answer["error_code"], answer["topics"]) == (ErrorCode.GROUP_ID_NOT_FOUND, [])


@pytest.mark.parametrize("version", versions(ApiKey.OFFSET_COMMIT))
def test_a_member_of_no_group_may_not_commit(peer: Peer, version: int) -> None:
    row = {"partition_index": 0, "committed_offset": 5, "committed_metadata": ""}
    topic: dict[str, Any] = {"name": "t", "partitions": [row]}
    if version >= 10:
        topic = {**topic, "name": "", "topic_id": peer.room.log.topics["t"].topic_id}
    body = {"group_id": "g", "generation_id_or_member_epoch": 3, "topics": [topic]}
    (answer,) = peer.ask(ApiKey.OFFSET_COMMIT, version, body)["topics"]
    unknown = ErrorCode.GROUP_ID_NOT_FOUND if version >= 9 else ErrorCode.ILLEGAL_GENERATION
    assert answer["partitions"][0]["error_code"] == unknown
