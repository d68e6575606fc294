"""A Kafka connection: frames, order, back pressure, and what costs a peer its connection."""

from __future__ import annotations

import logging
import struct
from typing import Any

import pytest
from tests.unit.broker.kafka_room import batch_of
from tests.unit.server.kafka_peer import Peer, ShoreRoom

from isthmus.config_listeners import PLAIN_SCHEMES, KafkaLimits, parse_address
from isthmus.errors import Banned
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.server import kafka, kafka_shore
from isthmus.server.kafka_api import table
from isthmus.server.kafka_listener import KafkaListener

V0 = {"topics": None}


def produce_body(room: ShoreRoom, name: str = "t", *, acks: int = -1, size: int = 1) -> dict:
    batch = bytes(batch_of(room.runtime.now_ms(), b"v" * size).data)
    rows = [{"index": 0, "records": batch}]
    return {"acks": acks, "topic_data": [{"name": name, "partition_data": rows}]}


def fetch_body(*, wait_ms: int = 500, name: str = "t") -> dict:
    wanted = [{"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1 << 20}]
    return {
        "max_wait_ms": wait_ms,
        "min_bytes": 1,
        "topics": [{"topic": name, "partitions": wanted}],
    }


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 1 << 20])
def test_requests_are_found_however_they_arrive(chunk: int) -> None:
    room = ShoreRoom()
    peer = room.peer()
    frames = [peer.frame(ApiKey.METADATA, version, V0) for version in (1, 9, 12)]
    peer.feed(b"".join(frames), chunk=chunk)
    room.runtime.settle()
    assert [answer["cluster_id"] for answer in peer.answers()][1:] == [room.log.cluster_id] * 2


@pytest.mark.parametrize("chunk", [100_000, 1 << 20])
def test_a_large_request_is_gathered_without_loss(chunk: int) -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {"max.message.bytes": str(1 << 22)})
    peer = room.peer()
    frames = [peer.frame(ApiKey.PRODUCE, 9, produce_body(room, size=3_000_000)) for _ in "ab"]
    peer.feed(b"".join(frames), chunk=chunk)
    room.runtime.settle()
    for number, answer in enumerate(peer.answers()):
        (row,) = answer["responses"][0]["partition_responses"]
        assert (row["error_code"], row["base_offset"]) == (ErrorCode.NONE, number)


def test_a_claim_alone_takes_no_memory() -> None:
    peer = ShoreRoom().peer()
    peer.feed(struct.pack(">i", 90 << 20) + b"\x00")
    assert len(peer.connection.get_buffer(-1)) < 100_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack(">i", -1), "Malformed"),
        (struct.pack(">i", (100 << 20) + 1), "TooLarge"),
        (b"GET / HTTP/1.1\r\n\r\n", "TooLarge"),
        (struct.pack(">i", 0), "Malformed"),
        (struct.pack(">ihhi", 8, 3, 12, 1), "Malformed"),
        (struct.pack(">ihhih", 10, 3, 99, 1, -1), "RequestUnsupported"),
        (struct.pack(">ihhih", 10, 999, 0, 1, -1), "RequestUnsupported"),
        (struct.pack(">ihhih", 10, 64, 0, 1, -1), "RequestUnsupported"),  # not served
        (struct.pack(">ihhihB", 11, 3, 12, 1, -1, 9), "Malformed"),
    ],
)
def test_who_breaks_the_rules_loses_the_connection(
    data: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    room = ShoreRoom()
    peer = room.peer()
    peer.feed(data)
    assert peer.transport.closed
    (record,) = [one for one in caplog.records if one.name == "isthmus.server.kafka"]
    assert f"reason={reason}" in record.getMessage()
    assert room.shore.connections == set()


def test_an_unknown_version_of_api_versions_is_answered_in_version_0() -> None:  # KIP-511
    room = ShoreRoom()
    peer = room.peer()
    peer.feed(struct.pack(">ihhihB", 11, 18, 99, 7, -1, 0))
    size, correlation, error, count = struct.unpack(">iihi", peer.transport.sent[:14])
    assert (correlation, error, count) == (7, ErrorCode.UNSUPPORTED_VERSION, 1)
    assert struct.unpack(">hhh", peer.transport.sent[14:20]) == (18, 0, 4)
    assert size + 4 == len(peer.transport.sent)
    assert not peer.transport.closed


def test_bytes_after_a_request_are_ignored() -> None:
    room = ShoreRoom()
    peer = room.peer()
    frame = peer.frame(ApiKey.METADATA, 12, V0) + b"\x01\x00\x00"
    peer.feed(struct.pack(">i", len(frame) - 4) + frame[4:])
    assert peer.answers()[0]["brokers"]


def test_a_bug_of_ours_costs_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(call: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(kafka, "HANDLERS", {**table.HANDLERS, ApiKey.METADATA: broken})
    room = ShoreRoom()
    peer, other = room.peer(), room.peer()
    peer.feed(peer.frame(ApiKey.METADATA, 1))
    assert peer.transport.closed
    assert "ZeroDivisionError" in caplog.text
    assert other.ask(ApiKey.API_VERSIONS, 0)["error_code"] == 0


def test_a_response_that_cannot_be_encoded_costs_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(call: Any) -> None:
        call.answer({"nonsense": 1})

    monkeypatch.setattr(kafka, "HANDLERS", {ApiKey.METADATA: wrong})
    peer = ShoreRoom().peer()
    peer.feed(peer.frame(ApiKey.METADATA, 1))
    assert peer.transport.closed
    assert "nonsense" in caplog.text
    caplog.clear()


def test_answers_keep_the_order_of_the_requests() -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer = room.peer()
    peer.feed(peer.frame(ApiKey.FETCH, 12, fetch_body()))
    peer.feed(peer.frame(ApiKey.METADATA, 12, V0))
    room.runtime.settle()
    assert peer.answers() == []
    room.runtime.advance(500)
    room.runtime.settle()
    fetched, metadata = peer.answers()
    assert "responses" in fetched
    assert "brokers" in metadata


def test_produce_requests_wait_for_the_disk_together() -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer = room.peer()
    frames = [peer.frame(ApiKey.PRODUCE, 9, produce_body(room)) for _ in range(3)]
    frames.append(peer.frame(ApiKey.METADATA, 12, V0))
    peer.feed(b"".join(frames))
    assert len(peer.connection._under_way) == 3, "all three began, the fourth did not"
    room.runtime.settle()
    answers = peer.answers()
    offsets = [one["responses"][0]["partition_responses"][0] for one in answers[:3]]
    assert [row["base_offset"] for row in offsets] == [0, 1, 2]
    assert "brokers" in answers[3]


def test_who_sends_much_ahead_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isthmus.server.kafka.TURN_S", 0)
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer, other = room.peer(), room.peer()
    frames = [peer.frame(ApiKey.PRODUCE, 9, produce_body(room)) for _ in range(3)]
    peer.feed(b"".join(frames))
    assert len(peer.connection._under_way) == 1
    other.feed(other.frame(ApiKey.PRODUCE, 9, produce_body(room)))
    room.runtime.settle()
    ((topic,),) = (one["responses"] for one in other.answers())
    assert topic["partition_responses"][0]["base_offset"] == 1
    assert len(peer.answers()) == 3


def test_acks_0_has_no_answer_and_keeps_the_order() -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer = room.peer()
    peer.feed(peer.frame(ApiKey.PRODUCE, 9, produce_body(room, acks=0)))
    peer.skip_answer()
    assert peer.ask(ApiKey.METADATA, 12, V0)["brokers"]
    partition = room.log.partition("t", 0)
    assert partition is not None
    assert partition.end_offset == 1


def test_an_error_with_acks_0_closes_the_connection() -> None:
    room = ShoreRoom()
    peer = room.peer()
    peer.feed(peer.frame(ApiKey.PRODUCE, 9, produce_body(room, "absent", acks=0)))
    assert peer.transport.closed


def test_who_sends_ahead_is_not_read_from() -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer = room.peer()
    peer.feed(peer.frame(ApiKey.FETCH, 12, fetch_body()))
    metadata = peer.frame(ApiKey.METADATA, 12, V0)
    count = kafka.AHEAD_BYTES_MAX // (len(metadata) - 4) + 2
    peer.feed(metadata + b"".join(peer.frame(ApiKey.METADATA, 12, V0) for _ in range(count)))
    assert not peer.transport.reading
    room.runtime.advance(500)
    room.runtime.settle()
    assert peer.transport.reading
    assert len(peer.answers()) == count + 2


def test_a_large_request_behind_a_parked_fetch_is_not_read_to_its_end() -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {"max.message.bytes": str(1 << 22)})
    peer = room.peer()
    peer.feed(peer.frame(ApiKey.FETCH, 12, fetch_body()))
    frame = peer.frame(ApiKey.PRODUCE, 9, produce_body(room, size=1_000_000))
    peer.feed(frame[:100_000])
    assert not peer.transport.reading
    room.runtime.advance(500)
    room.runtime.settle()
    assert peer.transport.reading
    peer.feed(frame[100_000:])
    room.runtime.settle()
    assert len(peer.answers()) == 2


def test_who_does_not_read_gets_nothing_new_begun() -> None:
    room = ShoreRoom()
    peer = room.peer()
    peer.connection.pause_writing()
    peer.feed(peer.frame(ApiKey.METADATA, 12, V0))
    room.runtime.settle()
    assert peer.answers() == []
    peer.connection.resume_writing()
    assert len(peer.answers()) == 1


def fetch_everything(peer: Peer) -> int:
    """Fetch all that there is, with no limits; return the bytes of records that came."""
    body = fetch_body()
    body["max_bytes"] = body["topics"][0]["partitions"][0]["partition_max_bytes"] = 2**31 - 1
    (topic,) = peer.ask(ApiKey.FETCH, 12, body)["responses"]
    return len(topic["partitions"][0]["records"])


def test_what_one_response_holds_is_limited_whatever_is_asked() -> None:
    room = ShoreRoom(fetch_bytes_max=3_000)
    room.log.create("t", 1, {})
    peer = room.peer()
    for _ in range(10):
        peer.ask(ApiKey.PRODUCE, 9, produce_body(room, size=1_000))
    assert 1_000 < fetch_everything(peer) <= 3_000


def test_what_all_slow_readers_hold_is_limited() -> None:
    room = ShoreRoom(fetch_unsent_bytes_max=10_000)
    room.log.create("t", 1, {})
    slow, peer = room.peer(), room.peer()
    for _ in range(10):
        peer.ask(ApiKey.PRODUCE, 9, produce_body(room, size=1_000))
    everything = fetch_everything(peer)
    slow.transport.unsent = 50_000
    slow.connection.pause_writing()
    one = fetch_everything(peer)
    assert 0 < one * 5 < everything
    end = fetch_body()
    end["topics"][0]["partitions"][0]["fetch_offset"] = 10
    peer.feed(peer.frame(ApiKey.FETCH, 12, end))
    room.runtime.settle()
    assert not peer.answers(), "who is at the end waits as ever, and does not ask all the time"
    room.runtime.advance(500)
    room.runtime.settle()
    assert len(peer.answers()) == 1
    slow.connection.resume_writing()
    assert fetch_everything(peer) == everything
    slow.connection.pause_writing()
    slow.connection.connection_lost(None)
    assert fetch_everything(peer) == everything


def test_a_lost_connection_ends_its_waiting() -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer = room.peer()
    peer.feed(peer.frame(ApiKey.FETCH, 12, fetch_body()))
    assert room.shore.fetches.waiting == 1
    peer.connection.connection_lost(None)
    assert room.shore.fetches.waiting == 0
    assert room.shore.connections == set()
    room.runtime.advance(1_000)
    assert peer.transport.sent == b""


def test_closing_the_shore_closes_every_connection() -> None:
    room = ShoreRoom()
    peers = [room.peer(), room.peer()]
    room.shore.close()
    assert all(peer.transport.closed for peer in peers)


def test_who_is_silent_for_long_is_cut_off() -> None:
    room = ShoreRoom()
    room.log.create("t", 1, {})
    silent, alive, waiting = room.peer(), room.peer(), room.peer()
    partition = {"partition": 0, "partition_max_bytes": 1}
    wanted = {"max_wait_ms": 1 << 30, "topics": [{"topic": "t", "partitions": [partition]}]}
    waiting.feed(waiting.frame(ApiKey.FETCH, 4, {**wanted, "min_bytes": 1}))
    for _ in range(2):
        room.runtime.advance(kafka_shore.IDLE_MS - 1)
        assert not silent.transport.closed
        alive.ask(ApiKey.METADATA, 1, {"topics": []})
        room.runtime.advance(1)
    assert silent.transport.closed
    assert len(room.shore.connections) == 2
    assert not alive.transport.closed
    assert not waiting.transport.closed


def test_the_number_of_connections_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    room = ShoreRoom(connections_max=1)
    first, second = room.peer(), room.peer()
    assert (first.transport.closed, second.transport.closed) == (False, True)
    assert room.listener.admission.refusals == {"ServerBusy": 1}
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize(
    ("local", "advertised", "told"),
    [
        (("192.0.2.7", 9092), None, ("192.0.2.7", 9092)),
        (("::1", 9092, 0, 0), None, ("::1", 9092)),
        (("192.0.2.7", 9092), "tcp://public.example:443", ("public.example", 443)),
        (("192.0.2.7", 9092), "tcp://public.example:0", ("public.example", 9092)),
    ],
)
def test_a_client_is_told_the_address_of_its_listener(
    local: tuple, advertised: str | None, told: tuple
) -> None:
    room = ShoreRoom(advertised and parse_address(advertised))
    peer = room.peer(local=local)
    (broker,) = peer.ask(ApiKey.METADATA, 12, V0)["brokers"]
    assert (broker["host"], broker["port"]) == told
    found = peer.ask(ApiKey.FIND_COORDINATOR, 1, {"key": "g", "key_type": 0})
    assert (found["host"], found["port"]) == told


def test_two_listeners_have_each_their_own_address_and_limits() -> None:
    room = ShoreRoom(parse_address("tcp://inside:1"))
    outside = KafkaListener(
        room.shore,
        "outside",
        KafkaLimits(connections_max=1),
        advertised=parse_address("tls://outside:2", PLAIN_SCHEMES),
    )
    inside = room.peer()
    room.listener = outside
    first, second = room.peer(), room.peer()
    for peer, told in ((inside, "inside"), (first, "outside")):
        assert peer.ask(ApiKey.METADATA, 12, V0)["brokers"][0]["host"] == told
    assert second.transport.closed
    first.connection.connection_lost(None)
    assert not room.peer().transport.closed


def test_who_is_banned_does_not_come_in() -> None:
    room = ShoreRoom()
    room.shore.refuses = lambda address: Banned("banned") if address == "10.0.0.9" else None
    room.listener = KafkaListener(room.shore, "again", room.settings)
    assert room.peer().transport.closed
    assert not room.peer(peer=("10.0.0.8", 1)).transport.closed
