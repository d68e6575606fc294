"""The wire form of the consumer protocol: what a heartbeat may say, what is told of a group."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode

OK = ErrorCode.NONE
JOIN: dict[str, Any] = {
    "rebalance_timeout_ms": 60_000,
    "subscribed_topic_names": ["t"],
    "topic_partitions": [],
}


@pytest.fixture
def peer() -> Peer:
    room = ShoreRoom()
    room.log.create("t", 2, {})
    return room.peer()


def beat(peer: Peer, epoch: int, version: int = 1, **said: Any) -> dict[str, Any]:
    body = {"group_id": "g", "member_id": "m1", "member_epoch": epoch, **said}
    return peer.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, version, body)


def topic_id(peer: Peer) -> bytes:
    return peer.room.log.topics["t"].topic_id


@pytest.mark.parametrize("version", versions(ApiKey.CONSUMER_GROUP_HEARTBEAT))
def test_a_member_joins_and_leaves_in_every_version(peer: Peer, version: int) -> None:
    answer = beat(peer, 0, version, **JOIN)
    assert (answer["error_code"], answer["member_id"], answer["member_epoch"]) == (OK, "m1", 2)
    assert answer["heartbeat_interval_ms"] == 5_000
    all_of_it = [{"topic_id": topic_id(peer), "partitions": [0, 1]}]
    assert answer["assignment"] == {"topic_partitions": all_of_it}
    again = beat(peer, 2, version, topic_partitions=all_of_it)
    assert (again["error_code"], again["assignment"]) == (OK, None)
    gone = beat(peer, -1, version)
    assert (gone["error_code"], gone["member_epoch"]) == (OK, -1)
    assert beat(peer, 2, version)["error_code"] == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_first_version_leaves_the_id_to_the_server(peer: Peer) -> None:
    answer = beat(peer, 0, 0, **JOIN, member_id="")
    assert len(answer["member_id"]) == 22
    assert beat(peer, 2, 0, member_id="")["error_code"] == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("epoch", "said", "code"),
    [
        (0, {"group_id": ""}, ErrorCode.INVALID_REQUEST),
        (0, {"member_id": ""}, ErrorCode.INVALID_REQUEST),
        (0, {"instance_id": ""}, ErrorCode.INVALID_REQUEST),
        (0, {"rack_id": ""}, ErrorCode.INVALID_REQUEST),
        (0, {"rebalance_timeout_ms": -1}, ErrorCode.INVALID_REQUEST),
        (0, {"topic_partitions": None}, ErrorCode.INVALID_REQUEST),
        (
            0,
            {"topic_partitions": [{"topic_id": b"t" * 16, "partitions": [0]}]},
            ErrorCode.INVALID_REQUEST,
        ),
        (0, {"subscribed_topic_names": None}, ErrorCode.INVALID_REQUEST),
        (0, {"server_assignor": "mine"}, ErrorCode.UNSUPPORTED_ASSIGNOR),
        (0, {"subscribed_topic_regex": "("}, ErrorCode.INVALID_REGULAR_EXPRESSION),
        (-2, {}, ErrorCode.INVALID_REQUEST),
        (-3, {}, ErrorCode.INVALID_REQUEST),
        (1, {}, ErrorCode.GROUP_ID_NOT_FOUND),
    ],
)
def test_what_a_heartbeat_may_not_say(
    peer: Peer, epoch: int, said: dict[str, Any], code: ErrorCode
) -> None:
    answer = beat(peer, epoch, **{**JOIN, **said})
    assert (answer["error_code"], answer["member_epoch"]) == (code, 0)
    assert answer["error_message"]
    assert peer.room.shore.groups.listed() == {}


@pytest.mark.parametrize("version", versions(ApiKey.CONSUMER_GROUP_DESCRIBE))
def test_groups_are_described(peer: Peer, version: int) -> None:
    beat(peer, 0, **JOIN, rack_id="r1", instance_id="i1", subscribed_topic_regex="x.*")
    peer.room.log.create("t2", 1, {})
    names = ["g", "absent", ""]
    body = {"group_ids": names, "include_authorized_operations": True}
    group, *others = peer.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, version, body)["groups"]
    codes = [other["error_code"] for other in others]
    assert codes == [ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.INVALID_GROUP_ID]
    assert (group["group_state"], group["assignor_name"]) == ("Stable", "uniform")
    assert (group["group_epoch"], group["assignment_epoch"]) == (2, 2)
    assert group["authorized_operations"] == 3400
    (member,) = group["members"]
    all_of_it = {"topic_id": topic_id(peer), "topic_name": "t", "partitions": [0, 1]}
    assert member["assignment"]["topic_partitions"] == [all_of_it]
    assert member["target_assignment"]["topic_partitions"] == [all_of_it]
    told = [member[name] for name in ("member_id", "instance_id", "rack_id", "member_epoch")]
    assert told == ["m1", "i1", "r1", 2]
    assert (member["client_id"], member["client_host"]) == ("peer", "/10.0.0.9")
    assert (member["subscribed_topic_names"], member["subscribed_topic_regex"]) == (
        ["t"],
        "x.*",
    )
    assert member["member_type"] == (1 if version >= 1 else -1)


def test_a_log_topic_that_is_gone_is_not_described(peer: Peer) -> None:
    beat(peer, 0, **JOIN)
    peer.room.log.delete("t")
    (group,) = peer.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, 1, {"group_ids": ["g"]})["groups"]
    assert group["members"][0]["assignment"]["topic_partitions"] == []


def test_requests_about_classic_groups_tell_it_apart(peer: Peer) -> None:
    beat(peer, 0, **JOIN)
    (listed,) = peer.ask(ApiKey.LIST_GROUPS, 5, {"types_filter": ["Consumer"]})["groups"]
    assert (listed["protocol_type"], listed["group_state"]) == ("consumer", "Stable")
    assert listed["group_type"] == "consumer"
    assert peer.ask(ApiKey.LIST_GROUPS, 5, {"types_filter": ["classic"]})["groups"] == []
    (described,) = peer.ask(ApiKey.DESCRIBE_GROUPS, 6, {"groups": ["g"]})["groups"]
    assert described["error_code"] == ErrorCode.GROUP_ID_NOT_FOUND
    (described,) = peer.ask(ApiKey.DESCRIBE_GROUPS, 5, {"groups": ["g"]})["groups"]
    assert (described["error_code"], described["group_state"]) == (OK, "Dead")


@pytest.mark.parametrize("version", versions(ApiKey.OFFSET_COMMIT))
def test_members_commit_with_their_epoch(peer: Peer, version: int) -> None:
    beat(peer, 0, **JOIN)
    row = {"partition_index": 0, "committed_offset": 5, "committed_metadata": ""}
    topic: dict[str, Any] = {"name": "t", "partitions": [row]}
    if version >= 10:
        topic = {"topic_id": topic_id(peer), "partitions": [row]}

    def commit(epoch: int) -> int:
        named = {"group_id": "g", "member_id": "m1", "generation_id_or_member_epoch": epoch}
        (answer,) = peer.ask(ApiKey.OFFSET_COMMIT, version, {**named, "topics": [topic]})[
            "topics"
        ]
        return int(answer["partitions"][0]["error_code"])

    if version < 9:
        assert commit(2) == ErrorCode.UNSUPPORTED_VERSION
    else:
        assert (commit(2), commit(1)) == (OK, ErrorCode.STALE_MEMBER_EPOCH)


@pytest.mark.parametrize("version", [9, 10])
def test_members_fetch_offsets_with_their_epoch(peer: Peer, version: int) -> None:
    beat(peer, 0, **JOIN)

    def fetch(epoch: int) -> int:
        group = {"group_id": "g", "member_id": "m1", "member_epoch": epoch, "topics": None}
        (answer,) = peer.ask(ApiKey.OFFSET_FETCH, version, {"groups": [group]})["groups"]
        return int(answer["error_code"])

    assert (fetch(2), fetch(1)) == (OK, ErrorCode.STALE_MEMBER_EPOCH)
