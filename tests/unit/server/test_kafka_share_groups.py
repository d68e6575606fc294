"""Share groups over the wire: who is given what, what becomes of it, what a restart knows."""

from __future__ import annotations

import pytest
from tests.unit.server.kafka_peer import versions
from tests.unit.server.share_room import (
    ACCEPT,
    REJECT,
    RELEASE,
    RENEW,
    Member,
    ShareRoom,
    acquired,
    said,
)

from isthmus.errors import NoSpace
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import BatchBuilder, split_batches
from isthmus.record.markers import EndMarker, build_marker

OK = ErrorCode.NONE


@pytest.fixture
def room() -> ShareRoom:
    return ShareRoom()


@pytest.mark.parametrize("version", versions(ApiKey.SHARE_FETCH))
def test_what_is_accepted_is_done_with_in_every_version(room: ShareRoom, version: int) -> None:
    member = room.member()
    room.write(b"a", b"b", b"c")
    answer = member.fetch(version=version)
    assert acquired(answer) == [(0, 0, 2, 1)]
    assert answer["acquisition_lock_timeout_ms"] == 30_000
    rows = {row["partition_index"]: row for row in answer["responses"][0]["partitions"]}
    (batch,) = split_batches(rows[0]["records"])
    assert [record.value for record in batch.records()] == [b"a", b"b", b"c"]
    assert rows[1]["acquired_records"] == [], "the first answer tells of all partitions"
    assert member.fetch(version=version)["responses"] == []
    assert member.say(said(0, 1, ACCEPT), said(2, 2, RELEASE), version=version) == OK
    assert member.acquire(version=version) == [(0, 2, 2, 2)]


def test_acknowledgements_come_with_the_next_fetch(room: ShareRoom) -> None:
    member = room.member()
    room.write(b"a", b"b", b"c")
    member.fetch()
    answer = member.fetch({0: [said(0, 2, ACCEPT, RELEASE, REJECT)]})
    (row,) = answer["responses"][0]["partitions"]
    assert row["acknowledge_error_code"] == OK
    assert acquired(answer) == [(0, 1, 1, 2)], "what was given back is given out at once"


def test_members_share_a_partition(room: ShareRoom) -> None:
    one, two = room.member("one"), room.member("two")
    room.write(b"a")
    room.write(b"b")
    assert one.acquire(max_records=1) == [(0, 0, 0, 1)]
    assert two.acquire(max_records=1) == [(0, 1, 1, 1)]
    assert two.say(said(0, 0, ACCEPT)) == ErrorCode.INVALID_RECORD_STATE
    assert room.member("three", group="other").acquire() == [(0, 0, 1, 1)]


def test_exactly_so_many_records_where_that_is_asked_for(room: ShareRoom) -> None:
    room.write(b"a", b"b", b"c")
    assert room.member("one").acquire(max_records=2, share_acquire_mode=1) == [(0, 0, 1, 1)]
    assert room.member("two", "h").acquire(max_records=2) == [(0, 0, 2, 1)]


def waits(member: Member) -> None:
    """Begin a fetch that has nothing to give."""
    member.peer.feed(member.peer.frame(ApiKey.SHARE_FETCH, 2, member.body({}, max_wait_ms=500)))
    member.room.runtime.settle()
    assert member.peer.answers() == []
    assert member.room.shore.share_fetches.waiting == 1


def test_a_fetch_waits_for_the_log(room: ShareRoom) -> None:
    member = room.member()
    waits(member)
    room.write(b"a")
    (answer,) = member.peer.answers()
    assert acquired(answer) == [(0, 0, 0, 1)]


def test_a_fetch_waits_for_what_others_give_back(room: ShareRoom) -> None:
    one, two = room.member("one"), room.member("two")
    room.write(b"a")
    one.fetch()
    waits(two)
    assert one.say(said(0, 0, RELEASE)) == OK
    (answer,) = two.peer.answers()
    assert acquired(answer) == [(0, 0, 0, 2)]


def test_a_fetch_waits_no_longer_than_its_client(room: ShareRoom) -> None:
    member = room.member()
    waits(member)
    room.runtime.advance(500)
    (answer,) = member.peer.answers()
    assert acquired(answer) == []
    assert room.shore.share_fetches.waiting == 0


def test_who_is_gone_waits_for_nothing(room: ShareRoom) -> None:
    member = room.member()
    waits(member)
    member.peer.connection.connection_lost(None)
    assert room.shore.share_fetches.waiting == 0
    assert len(room.shore.share_sessions) == 0


def test_a_lock_lapses_unless_it_is_renewed(room: ShareRoom) -> None:
    one, two = room.member("one"), room.member("two")
    room.write(b"a", b"b")
    one.fetch()
    room.runtime.advance(29_999)
    assert one.say(said(1, 1, RENEW), is_renew_ack=True) == OK
    assert two.acquire() == []
    room.runtime.advance(1)
    assert two.acquire() == [(0, 0, 0, 2)]
    assert one.say(said(1, 1, ACCEPT)) == OK


def test_what_is_given_out_too_often_is_given_up(room: ShareRoom) -> None:
    member = room.member()
    assert member.configure("share.delivery.count.limit", "2") == OK
    room.write(b"a")
    for deliveries in (1, 2):
        assert member.acquire() == [(0, 0, 0, deliveries)]
        member.say(said(0, 0, RELEASE))
    assert member.acquire() == []


@pytest.mark.parametrize("how", ["connection", "session", "fetch", "heartbeat"])
def test_who_goes_leaves_its_records_to_others(room: ShareRoom, how: str) -> None:
    one, two = room.member("one"), room.member("two")
    room.write(b"a", b"b")
    one.fetch()
    one.say(said(0, 0, ACCEPT))
    if how == "connection":
        one.peer.connection.connection_lost(None)
    elif how == "session":
        one.epoch = -1
        assert one.say(said(1, 1, RENEW)) == ErrorCode.INVALID_REQUEST
    elif how == "fetch":
        one.epoch = -1
        assert one.fetch()["responses"] == []
    else:
        assert one.beat(-1)["error_code"] == OK
    assert two.acquire() == [(0, 1, 1, 2)]


@pytest.mark.parametrize(
    ("batch", "more"),
    [
        (said(0, 0), {}),
        (said(0, 1, ACCEPT, ACCEPT, ACCEPT), {}),
        (said(1, 0, ACCEPT), {}),
        (said(-1, 0, ACCEPT), {}),
        (said(0, 0, 5), {}),
        (said(0, 0, -1), {}),
        (said(0, 0, RENEW), {}),
        (said(0, 0, 5), {"is_renew_ack": True}),
        (said(0, 5, ACCEPT), {}),
    ],
)
def test_what_cannot_be_said(room: ShareRoom, batch: dict, more: dict) -> None:
    member = room.member()
    room.write(b"a", b"b")
    member.fetch()
    assert member.say(batch, **more) == ErrorCode.INVALID_REQUEST
    assert member.say(said(0, 1, ACCEPT)) == OK


def test_nothing_is_said_twice_of_one_record(room: ShareRoom) -> None:
    member = room.member()
    room.write(b"a", b"b")
    member.fetch()
    twice = (said(0, 1, ACCEPT), said(1, 1, RELEASE))
    assert member.say(*twice) == ErrorCode.INVALID_RECORD_STATE
    assert member.say(said(0, 1, ACCEPT)) == OK


@pytest.mark.parametrize(
    ("epoch", "more", "code"),
    [
        (1, {}, ErrorCode.SHARE_SESSION_NOT_FOUND),
        (-1, {}, ErrorCode.SHARE_SESSION_NOT_FOUND),
        (0, {"group_id": None}, ErrorCode.INVALID_REQUEST),
        (0, {"member_id": None}, ErrorCode.INVALID_REQUEST),
        (0, {"member_id": ""}, ErrorCode.INVALID_REQUEST),
        (0, {"share_acquire_mode": 2}, ErrorCode.INVALID_REQUEST),
        (0, {"is_renew_ack": True}, ErrorCode.INVALID_REQUEST),
    ],
)
def test_requests_without_a_session(
    room: ShareRoom, epoch: int, more: dict, code: ErrorCode
) -> None:
    member = room.member()
    member.epoch = epoch
    assert member.fetch(**more)["error_code"] == code


def test_a_session_expects_an_epoch(room: ShareRoom) -> None:
    member = room.member()
    assert member.fetch({0: [said(0, 0, ACCEPT)]})["error_code"] == ErrorCode.INVALID_REQUEST
    member.fetch()
    member.epoch = 7
    assert member.fetch()["error_code"] == ErrorCode.INVALID_SHARE_SESSION_EPOCH
    answer = member.ask(ApiKey.SHARE_ACKNOWLEDGE, {}, 2, share_session_epoch=0)
    assert answer["error_code"] == ErrorCode.INVALID_SHARE_SESSION_EPOCH


def test_there_are_only_so_many_sessions() -> None:
    room = ShareRoom(group_share_sessions_max=1)
    one, two = room.member("one"), room.member("two")
    assert one.fetch()["error_code"] == OK
    assert two.fetch()["error_code"] == ErrorCode.SHARE_SESSION_LIMIT_REACHED
    one.epoch = 0
    assert one.fetch()["error_code"] == OK, "it begins anew"


def test_partitions_that_there_are_not(room: ShareRoom) -> None:
    member = room.member()
    rows = [{"partition_index": 9}]
    topics = [{"topic_id": name, "partitions": rows} for name in (room.topic_id, b"x" * 16)]
    found = member.fetch(topics=topics)["responses"]
    codes = [row["error_code"] for topic in found for row in topic["partitions"]]
    assert codes == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID]
    stranger = Member(room.peer(), "x", "nobody's")
    answer = stranger.fetch()["responses"][0]["partitions"]
    assert {row["error_code"] for row in answer} == {ErrorCode.GROUP_ID_NOT_FOUND}


@pytest.mark.parametrize(
    ("reset", "first"),
    [("latest", 2), ("earliest", 0), ("by_duration:PT1M", 1), ("by_duration:P1DT1.5S", 0)],
)
def test_where_a_group_begins(room: ShareRoom, reset: str, first: int) -> None:
    room.write(b"old")
    room.runtime.advance(120_000)
    room.write(b"new")
    room.member(reset=reset).fetch()
    room.runtime.settle()
    assert started(room) == first


def started(room: ShareRoom) -> int:
    return room.shore.share_groups.started("g", (room.topic_id, 0)).start_offset


def test_only_what_is_decided_where_that_is_asked_for(room: ShareRoom) -> None:
    member = room.member()
    assert member.configure("share.isolation.level", "read_committed") == OK
    partition = room.log.partition("t", 0)
    assert partition is not None
    given = []
    for producer, commits in ((7, False), (8, True)):
        builder = BatchBuilder()
        builder.append(room.runtime.now_ms(), b"k", b"v")
        batch = builder.seal(0, producer, 0, 0, transactional=True)
        room.appends.append(partition, batch, None)
        room.runtime.settle()
        given += member.acquire()
        assert partition.end_offset - 1 not in [one[1] for one in given]
        marker = build_marker(producer, 0, EndMarker(commits, 0), room.runtime.now_ms())
        room.appends.append(partition, marker, None, trusted=True)
        room.runtime.settle()
    given += member.acquire()
    offsets = {at for one in given for at in range(one[1], one[2] + 1)}
    assert offsets == {1, 2, 3}, "markers, which clients step over, and what was committed"


def test_a_restart_knows_what_was_done_with(room: ShareRoom) -> None:
    member = room.member()
    room.write(b"a", b"b", b"c", b"d")
    member.fetch()
    member.say(said(0, 0, ACCEPT), said(2, 2, ACCEPT), said(1, 1, RELEASE))
    room.start()
    room.runtime.settle()
    again = Member(room.peer(), "m", "g")
    assert again.acquire() == [(0, 1, 1, 2), (0, 3, 3, 1)]
    assert again.beat(2)["error_code"] == OK, "the member, too"


def test_many_changes_become_snapshots_and_the_log_is_cut(room: ShareRoom) -> None:
    member = room.member()
    room.write(*[b"v"] * 2_000)
    member.configure("share.delivery.count.limit", "10")
    assert member.acquire() == [(0, 0, 1_999, 1)]
    states = room.shore.share_states
    places = states.places
    (place,) = [one for key, one in places.items() if key.partition == 0]
    for offset in range(0, 1_400, 2):
        assert member.say(said(offset, offset, ACCEPT)) == OK
    assert place.snapshot_epoch == 2
    states._rows_written = 1 << 20  # as after many more
    assert member.say(said(1_998, 1_998, ACCEPT)) == OK
    room.runtime.settle()
    partition = room.log.partition("__share_group_state", 0)
    assert partition is not None
    assert partition.start_offset > 500
    room.start()
    room.runtime.settle()
    kept = room.shore.share_states.places[place.key].partition
    assert kept is not None
    assert kept.done_count == 700, "699 within, and one behind the start"
    assert kept.start_offset == 1


def test_a_log_topic_that_is_deleted_is_forgotten(room: ShareRoom) -> None:
    member = room.member()
    room.write(b"a")
    member.fetch()
    waits(member)
    room.log.delete("t")
    room.shore.forget_log_topic("t")
    room.runtime.settle()
    (answer,) = member.peer.answers()
    codes = {row["error_code"] for row in answer["responses"][0]["partitions"]}
    assert codes == {ErrorCode.UNKNOWN_TOPIC_ID}
    assert not room.shore.share_states.places
    assert not room.shore.share_groups.begun("g")


def test_acknowledgements_that_are_not_stored_are_told_so(room: ShareRoom) -> None:
    member = room.member()
    room.write(b"a")
    member.fetch()
    room.appends.error = NoSpace("full")
    assert member.say(said(0, 0, ACCEPT)) == ErrorCode.NOT_COORDINATOR


# --- where groups are -------------------------------------------------------------------------


def offsets(member: Member, names: list[str] | None, version: int = 1) -> dict[str, list]:
    topics = None if names is None else [{"topic_name": n, "partitions": [0, 9]} for n in names]
    groups = [{"group_id": "g", "topics": topics}, {"group_id": "absent", "topics": None}]
    found = member.peer.ask(ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, version, {"groups": groups})
    assert {group["error_code"] for group in found["groups"]} == {OK}
    assert found["groups"][1]["topics"] == []
    return {
        topic["topic_name"]: [(row["start_offset"], row["lag"]) for row in topic["partitions"]]
        for topic in found["groups"][0]["topics"]
    }


def alter(member: Member, start: int, group: str = "g") -> dict:
    rows = [{"partition_index": index, "start_offset": start} for index in (0, 9)]
    topics = [{"topic_name": "t", "partitions": rows}, {"topic_name": "u", "partitions": rows}]
    body = {"group_id": group, "topics": topics}
    return member.peer.ask(ApiKey.ALTER_SHARE_GROUP_OFFSETS, 0, body)


def delete(member: Member, group: str = "g") -> dict:
    body = {"group_id": group, "topics": [{"topic_name": "t"}, {"topic_name": "u"}]}
    return member.peer.ask(ApiKey.DELETE_SHARE_GROUP_OFFSETS, 0, body)


def test_lag_is_what_is_not_done_with(room: ShareRoom) -> None:
    member = room.member()
    assert offsets(member, None) == {"t": [(-1, -1), (-1, -1)]}
    room.write(b"a", b"b", b"c", b"d")
    member.fetch()
    member.say(said(0, 0, ACCEPT), said(2, 2, ACCEPT))
    assert offsets(member, None) == {"t": [(1, 2), (0, 0)]}
    assert offsets(member, ["t", "u"]) == {"t": [(1, 2), (-1, -1)], "u": [(-1, -1)] * 2}
    assert offsets(member, ["t"], 0) == {"t": [(1, -1), (-1, -1)]}


def test_an_empty_group_begins_elsewhere(room: ShareRoom) -> None:
    member = room.member()
    room.write(b"a", b"b")
    member.fetch()
    member.say(said(0, 1, ACCEPT))
    for refused in (alter(member, 0), delete(member)):
        assert refused["error_code"] == ErrorCode.NON_EMPTY_GROUP
    member.beat(-1)
    answer = alter(member, 1)
    codes = [[row["error_code"] for row in one["partitions"]] for one in answer["responses"]]
    assert codes == [[OK, 3], [3, 3]]
    room.start()
    room.runtime.settle()
    again = room.member()
    again.epoch = 0
    assert again.acquire() == [(0, 1, 1, 1)]


def test_setting_where_a_group_begins_makes_it(room: ShareRoom) -> None:
    member = room.member(group="other")
    room.write(b"a", b"b")
    assert delete(member)["error_code"] == ErrorCode.GROUP_ID_NOT_FOUND
    assert alter(member, 1)["error_code"] == OK
    assert offsets(member, None) == {"t": [(1, 1)]}
    assert [row["error_code"] for row in delete(member)["responses"]] == [OK, 3]
    assert offsets(member, None) == {}
    assert [row["error_code"] for row in delete(member)["responses"]] == [3, 3]


def test_a_group_of_another_kind_has_no_start(room: ShareRoom) -> None:
    member = room.member(group="other")
    classic = {"group_id": "g", "session_timeout_ms": 10_000, "protocol_type": "consumer"}
    joined = {**classic, "protocols": [{"name": "range", "metadata": b""}]}
    member.peer.ask(ApiKey.JOIN_GROUP, 3, joined)
    for refused in (alter(member, 0), delete(member)):
        assert refused["error_code"] == ErrorCode.GROUP_ID_NOT_FOUND
    stranger = Member(room.peer(), "m", "g")
    beat = stranger.beat(0, subscribed_topic_names=["t"])
    assert beat["error_code"] == ErrorCode.GROUP_ID_NOT_FOUND


def test_what_is_kept_goes_with_the_group(room: ShareRoom) -> None:
    member = room.member()
    room.write(b"a")
    member.fetch()
    member.beat(-1)
    gone = member.peer.ask(ApiKey.DELETE_GROUPS, 2, {"groups_names": ["g"]})
    assert gone["results"][0]["error_code"] == OK
    room.start()
    room.runtime.settle()
    assert not room.shore.share_states.places
    assert room.shore.groups.listed() == {}


@pytest.mark.parametrize(
    ("key", "body"),
    [
        (ApiKey.SHARE_GROUP_HEARTBEAT, {"group_id": "g"}),
        (ApiKey.SHARE_GROUP_DESCRIBE, {"group_ids": ["g"]}),
        (ApiKey.SHARE_FETCH, {"group_id": "g"}),
        (ApiKey.SHARE_ACKNOWLEDGE, {"group_id": "g"}),
        (ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, {"groups": [{"group_id": "g"}]}),
        (ApiKey.ALTER_SHARE_GROUP_OFFSETS, {"group_id": "g"}),
        (ApiKey.DELETE_SHARE_GROUP_OFFSETS, {"group_id": "g"}),
    ],
)
def test_nothing_of_share_groups_is_served_while_they_are_off(
    room: ShareRoom, key: ApiKey, body: dict
) -> None:
    peer = room.peer()
    off = [{"feature": "share.version", "max_version_level": 0, "upgrade_type": 2}]
    peer.ask(ApiKey.UPDATE_FEATURES, 2, {"feature_updates": off})
    answer = peer.ask(key, versions(key)[0], body)
    rows = answer.get("groups", [answer])
    assert [row["error_code"] for row in rows] == [ErrorCode.UNSUPPORTED_VERSION]
