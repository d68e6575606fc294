"""Who is beyond a quota is answered at once, told to wait, and held back for so long."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.broker.kafka_room import batch_of
from tests.unit.server.kafka_peer import Peer, ShoreRoom

from isthmus.broker.quotas import entity_of
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api import throttles

SMALL, LARGE = b"v", bytes(11_300)  # a second's worth, and a bit more than ten


class QuotaRoom(ShoreRoom):
    """A Kafka shore with a log topic `t`."""

    def __init__(self) -> None:
        super().__init__()
        self.log.create("t", 1, {})

    def limit(self, names: dict[str, str | None], **limits: float) -> None:
        self.shore.quotas.set({entity_of(names): limits}, "root", lambda _: None)
        self.runtime.settle()
        assert self.shore.quotas.of(entity_of(names)) == limits


@pytest.fixture
def room() -> QuotaRoom:
    return QuotaRoom()


def produce(value: bytes, acks: int = -1) -> dict[str, Any]:
    partition = {"index": 0, "records": bytes(batch_of(0, value).data)}
    topic = {"name": "t", "partition_data": [partition]}
    return {"acks": acks, "timeout_ms": 1000, "topic_data": [topic]}


def fetch(session_id: int = 0, epoch: int = -1, **more: Any) -> dict[str, Any]:
    wanted = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}
    topics = [{"topic": "t", "partitions": [wanted]}] if epoch < 1 else []
    session = {"session_id": session_id, "session_epoch": epoch}
    return {"max_bytes": 1 << 20, "min_bytes": 1, "topics": topics, **session, **more}


def asked(peer: Peer, api_key: int, version: int, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Send a request, and return what is answered in this turn."""
    peer.feed(peer.frame(api_key, version, body))
    peer.room.runtime.settle()
    return peer.answers()


# --- bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [3, 8, 12])
def test_a_producer_is_answered_and_then_waits(room: QuotaRoom, version: int) -> None:
    room.limit({"client-id": "peer"}, producer_byte_rate=1000.0)
    peer = room.peer()
    (said,) = asked(peer, ApiKey.PRODUCE, version, produce(LARGE))
    (row,) = said["responses"][0]["partition_responses"]
    assert row["error_code"] == 0 and row["base_offset"] == 0
    wait_ms = said["throttle_time_ms"]
    assert 1_000 < wait_ms < 2_000
    assert not asked(peer, ApiKey.PRODUCE, version, produce(SMALL))
    room.runtime.advance(wait_ms - 1)
    assert not peer.answers()
    room.runtime.advance(1)
    room.runtime.settle()
    (said,) = peer.answers()
    assert said["responses"][0]["partition_responses"][0]["base_offset"] == 1
    assert room.shore.throttling.waits["producer_byte_rate"] >= 1
    assert room.shore.throttling.waited_ms["producer_byte_rate"] >= wait_ms


def test_a_producer_without_answers_waits_too(room: QuotaRoom) -> None:
    room.limit({"user": "ANONYMOUS"}, producer_byte_rate=1000.0)
    peer = room.peer()
    assert not asked(peer, ApiKey.PRODUCE, 9, produce(LARGE, acks=0))
    peer.skip_answer()
    assert not asked(peer, ApiKey.METADATA, 1, {"topics": []})
    room.runtime.advance(2_000)
    room.runtime.settle()
    assert len(peer.answers()) == 1


def test_other_connections_go_on(room: QuotaRoom) -> None:
    room.limit({"client-id": "peer"}, producer_byte_rate=1000.0)
    peer, other = room.peer(), room.peer()
    asked(peer, ApiKey.PRODUCE, 9, produce(LARGE))
    assert other.ask(ApiKey.METADATA, 9, {"topics": []})["throttle_time_ms"] == 0


def test_of_a_pipeline_no_more_begins_than_the_quota_has_room_for(room: QuotaRoom) -> None:
    room.limit({"client-id": "peer"}, producer_byte_rate=1000.0)
    peer = room.peer()
    peer.feed(b"".join(peer.frame(ApiKey.PRODUCE, 9, produce(LARGE)) for _ in range(3)))
    for _ in range(3):
        room.runtime.settle()
        (said,) = peer.answers()
        assert said["throttle_time_ms"] > 1_000
        room.runtime.advance(said["throttle_time_ms"] - 1)
        room.runtime.settle()
        assert not peer.answers()
        room.runtime.advance(1)


def test_the_longest_wait_holds(room: QuotaRoom) -> None:
    peer = room.peer()
    for wait_ms in (1_000, 3_000, 2_000):
        peer.connection.mute(wait_ms)
    peer.feed(peer.frame(ApiKey.METADATA, 9, {"topics": []}))
    room.runtime.advance(2_999)
    room.runtime.settle()
    assert not peer.answers()
    room.runtime.advance(1)
    room.runtime.settle()
    assert len(peer.answers()) == 1


def test_a_connection_that_waits_may_end(room: QuotaRoom) -> None:
    room.limit({"client-id": "peer"}, producer_byte_rate=1000.0)
    peer = room.peer()
    asked(peer, ApiKey.PRODUCE, 9, produce(LARGE))
    peer.feed(peer.frame(ApiKey.METADATA, 9, {"topics": []}))
    peer.connection.connection_lost(None)
    room.runtime.advance(60_000)
    assert not peer.answers()


def test_a_reader_is_told_to_wait_and_gets_nothing_yet(room: QuotaRoom) -> None:
    peer = room.peer()
    peer.ask(ApiKey.PRODUCE, 9, produce(LARGE))
    room.limit({"client-id": "peer"}, consumer_byte_rate=1000.0)
    (said,) = asked(peer, ApiKey.FETCH, 12, fetch(epoch=0))
    assert 1_000 < said["throttle_time_ms"] < 2_000
    assert (said["session_id"], said["responses"]) == (0, [])
    assert not room.shore.fetch_sessions
    # what did not go out has not counted
    room.runtime.advance(2_000)
    (said,) = asked(peer, ApiKey.FETCH, 12, fetch(epoch=0))
    assert 1_000 < said["throttle_time_ms"] < 2_000


def test_a_fetch_session_goes_on_after_a_wait(room: QuotaRoom) -> None:
    peer = room.peer()
    said = peer.ask(ApiKey.FETCH, 12, fetch(epoch=0, min_bytes=0))
    peer.ask(ApiKey.PRODUCE, 9, produce(LARGE))
    session_id = said["session_id"]
    room.limit({"client-id": "peer"}, consumer_byte_rate=1000.0)
    (said,) = asked(peer, ApiKey.FETCH, 12, fetch(session_id, 1))
    assert said["throttle_time_ms"] > 0
    assert (said["session_id"], said["responses"]) == (session_id, [])
    room.limit({"client-id": "peer"})
    room.runtime.advance(2_000)
    (said,) = asked(peer, ApiKey.FETCH, 12, fetch(session_id, 2))
    (row,) = said["responses"][0]["partitions"]
    assert len(row["records"]) > len(LARGE)


def test_a_reader_gets_no_more_than_ten_seconds_give(room: QuotaRoom) -> None:
    peer = room.peer()
    for _ in range(6):
        peer.ask(ApiKey.PRODUCE, 9, produce(bytes(3_000)))
    room.limit({"client-id": "peer"}, consumer_byte_rate=1000.0)
    said = peer.ask(ApiKey.FETCH, 12, fetch(min_bytes=1 << 19, max_wait_ms=0))
    (row,) = said["responses"][0]["partitions"]
    assert 9_000 < len(row["records"]) < 10_000


# --- time -------------------------------------------------------------------------------------


def test_requests_that_take_the_loop_make_their_client_wait(
    room: QuotaRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.limit({"client-id": "peer"}, request_percentage=10.0)
    seconds = 0.5
    monkeypatch.setattr(throttles, "seconds_of", lambda _: seconds)
    peer = room.peer()
    assert peer.ask(ApiKey.METADATA, 9, {"topics": []})["throttle_time_ms"] == 0
    seconds = 0.55  # with what was before, half a percent above ten in ten seconds
    (said,) = asked(peer, ApiKey.METADATA, 9, {"topics": []})
    assert said["throttle_time_ms"] == 500
    assert not asked(peer, ApiKey.LIST_GROUPS, 4, {})
    room.runtime.advance(500)
    room.runtime.settle()
    (said,) = peer.answers()
    assert said["throttle_time_ms"] == 1_000  # a second at most
    assert room.shore.throttling.waits == {"request_percentage": 2}


def test_an_answer_that_has_no_place_for_it_makes_wait_all_the_same(
    room: QuotaRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.limit({"client-id": "peer"}, request_percentage=10.0)
    monkeypatch.setattr(throttles, "seconds_of", lambda _: 5.0)
    peer = room.peer()
    (said,) = asked(peer, ApiKey.METADATA, 1, {"topics": []})
    assert said["throttle_time_ms"] == 0
    assert not asked(peer, ApiKey.METADATA, 1, {"topics": []})


def test_what_a_request_waits_for_is_no_time_of_the_loop(room: QuotaRoom) -> None:
    room.limit({"client-id": "peer"}, request_percentage=50.0)
    peer = room.peer()
    peer.feed(peer.frame(ApiKey.FETCH, 12, fetch(max_wait_ms=60_000)))
    room.runtime.settle()
    (call,) = peer.connection._under_way
    assert 0 < throttles.seconds_of(call) == call.worked_s


# --- partitions -------------------------------------------------------------------------------


def topic(name: str, partitions: int) -> dict[str, Any]:
    return {"name": name, "num_partitions": partitions, "replication_factor": 1}


@pytest.mark.parametrize(
    ("version", "code", "made"),
    [(6, ErrorCode.THROTTLING_QUOTA_EXCEEDED, ["a"]), (5, ErrorCode.NONE, ["a", "b", "c"])],
)
def test_partitions_are_made_while_the_quota_lasts(
    room: QuotaRoom, version: int, code: int, made: list[str]
) -> None:
    room.limit({"client-id": "peer"}, controller_mutation_rate=1.0)
    wanted = [topic("a", 12), topic("b", 1), topic("c", 1)]
    (said,) = asked(room.peer(), ApiKey.CREATE_TOPICS, version, {"topics": wanted})
    assert [one["error_code"] for one in said["topics"]] == [0, code, code]
    assert said["throttle_time_ms"] == (1_000 if version == 6 else 3_000)
    assert sorted({*room.log.topics} & {"a", "b", "c"}) == made
    assert room.shore.throttling.waits == {"controller_mutation_rate": 1}


def test_partitions_that_go_and_more_of_them_count(room: QuotaRoom) -> None:
    room.limit({"client-id": "peer"}, controller_mutation_rate=1.0)
    grow = {"topics": [{"name": "t", "count": 20, "assignments": None}]}
    assert room.peer().ask(ApiKey.CREATE_PARTITIONS, 3, grow)["results"][0]["error_code"] == 0
    gone = {"topics": [{"name": "t"}]}
    (row,) = room.peer().ask(ApiKey.DELETE_TOPICS, 6, gone)["responses"]
    assert row["error_code"] == ErrorCode.THROTTLING_QUOTA_EXCEEDED
    assert "t" in room.log.topics
    room.runtime.advance(8_000)
    (row,) = room.peer().ask(ApiKey.DELETE_TOPICS, 6, gone)["responses"]
    assert row["error_code"] == 0


def test_log_topics_that_are_asked_about_count_when_they_are_made(room: QuotaRoom) -> None:
    room.limit({"client-id": "peer"}, controller_mutation_rate=1.0)
    names = ["a", "b", "c", "d", "e"]  # of four partitions each, and there are eleven
    body = {"topics": [{"name": name} for name in names], "allow_auto_topic_creation": True}
    answer = room.peer().ask(ApiKey.METADATA, 9, body)
    codes = {row["name"]: row["error_code"] for row in answer["topics"]}
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert codes == {"a": 0, "b": 0, "c": 0, "d": unknown, "e": unknown}
    assert answer["throttle_time_ms"] == 0
    room.runtime.advance(2_000)
    body = {"topics": [{"name": "d"}], "allow_auto_topic_creation": True}
    (row,) = room.peer().ask(ApiKey.METADATA, 9, body)["topics"]
    assert row["error_code"] == 0


# --- connections ------------------------------------------------------------------------------


def test_connections_beyond_the_quota_are_closed_after_their_wait(room: QuotaRoom) -> None:
    room.limit({"ip": "10.0.0.9"}, connection_creation_rate=1.0)
    peers = [room.peer() for _ in range(11)]
    assert not any(peer.transport.closed for peer in peers)  # the last one waits for its end
    peers[10].feed(peers[10].frame(ApiKey.METADATA, 1, {"topics": []}))
    room.runtime.advance(1_000)
    assert [peer.transport.closed for peer in peers] == [False] * 10 + [True]
    assert not peers[10].transport.sent
    assert room.listener.admission.refusals == {"ConnectionThrottled": 1}
    assert room.listener.admission.connections == 10
    assert not room.peer(peer=("10.0.0.8", 5)).transport.closed
