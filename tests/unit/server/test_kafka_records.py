"""Produce, Fetch and ListOffsets in every version that is served."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.broker.kafka_room import batch_of
from tests.unit.server.kafka_peer import Peer, ShoreRoom, versions

from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import ErrorCode
from isthmus.record.batch import BatchBuilder, RecordBatch, split_batches
from isthmus.record.markers import EndMarker, build_marker

NOW = 1_700_000_000_000
OK = ErrorCode.NONE


@pytest.fixture
def peer() -> Peer:
    room = ShoreRoom()
    room.log.create("t", 2, {})
    return room.peer()


def produce(
    peer: Peer, records: Any, *, version: int = 9, name: str = "t", index: int = 0, **more: Any
) -> dict[str, Any]:
    """Produce to one partition; return its row."""
    topic: dict[str, Any] = {"partition_data": [{"index": index, "records": records}]}
    if version >= 13:
        topic["topic_id"] = peer.room.shore.topic_ids.id_of(name)
    else:
        topic["name"] = name
    answer = peer.ask(
        ApiKey.PRODUCE, version, {"acks": -1, "timeout_ms": 1, "topic_data": [topic], **more}
    )
    (one,) = answer["responses"]
    (row,) = one["partition_responses"]
    return row


def good(*values: bytes) -> bytes:
    return bytes(batch_of(NOW, *(values or (b"v",))).data)


def fetch(peer: Peer, offset: int = 0, *, version: int = 12, **more: Any) -> dict[str, Any]:
    topic: dict[str, Any] = {
        "partitions": [{"partition": 0, "fetch_offset": offset, "partition_max_bytes": 1 << 20}]
    }
    if version >= 13:
        topic["topic_id"] = peer.room.shore.topic_ids.id_of("t")
    else:
        topic["topic"] = "t"
    answer = peer.ask(ApiKey.FETCH, version, {"topics": [topic], **more})
    assert answer["error_code"] == 0
    (row,) = answer["responses"][0]["partitions"]
    return row


def test_the_sentence_of_an_error_fits_into_the_answer(peer: Peer) -> None:
    topic = {"name": "n" * 32_767, "partition_data": [{"index": 0, "records": good()}]}
    answer = peer.ask(ApiKey.PRODUCE, 8, {"acks": -1, "timeout_ms": 1, "topic_data": [topic]})
    (row,) = answer["responses"][0]["partition_responses"]
    assert row["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert row["error_message"].startswith("no partition 0 of a log topic nnn")


@pytest.mark.parametrize("version", versions(ApiKey.PRODUCE))
def test_what_is_produced_is_fetched_byte_for_byte(peer: Peer, version: int) -> None:
    sent = good(b"a", b"b")
    row = produce(peer, sent, version=version)
    assert (row["error_code"], row["base_offset"], row["log_append_time_ms"]) == (OK, 0, -1)
    assert produce(peer, sent, version=version)["base_offset"] == 2
    stored = bytes(fetch(peer)["records"])
    assert stored[: len(sent)] == RecordBatch(bytearray(stored[: len(sent)])).data
    assert stored[17 : len(sent)] == sent[17:], "from the checksum on untouched"


@pytest.mark.parametrize("version", versions(ApiKey.FETCH))
def test_fetch_in_every_version(peer: Peer, version: int) -> None:
    produce(peer, good(b"a", b"b"))
    row = fetch(peer, 1, version=version, isolation_level=1)
    (batch,) = split_batches(row["records"])
    assert [record.value for record in batch.records()] == [b"a", b"b"]
    assert (row["high_watermark"], row["last_stable_offset"]) == (2, 2)
    assert row["aborted_transactions"] == []
    assert fetch(peer, 2, version=version)["aborted_transactions"] is None


def transactions(peer: Peer) -> None:
    """Two producers: offsets 0 to 2 of the first one aborted at 3; from 4 on one is open."""
    partition = peer.room.log.partition("t", 0)
    assert partition is not None
    builder = BatchBuilder()
    for producer_id, sequence in ((7, 0), (8, 0), (7, 1), (7, -1), (9, 0)):
        if sequence < 0:
            batch = build_marker(producer_id, 0, EndMarker(False, 0), NOW)
        else:
            builder.append(NOW + partition.end_offset, None, b"v")
            of_transaction = producer_id != 8
            batch = builder.seal(0, producer_id, 0, sequence, transactional=of_transaction)
        partition.append(batch, None, trusted=True)
        peer.room.log.flush()


@pytest.mark.parametrize("version", versions(ApiKey.FETCH))
def test_who_reads_what_is_decided_is_told_what_was_aborted(peer: Peer, version: int) -> None:
    transactions(peer)
    row = fetch(peer, 0, version=version, isolation_level=1)
    assert [batch.base_offset for batch in split_batches(row["records"])] == [0, 1, 2, 3]
    assert (row["high_watermark"], row["last_stable_offset"]) == (5, 4)
    assert row["aborted_transactions"] == [{"producer_id": 7, "first_offset": 0}]
    nothing = fetch(peer, 4, version=version, isolation_level=1)
    assert (bytes(nothing["records"]), nothing["aborted_transactions"]) == (b"", [])
    beyond = fetch(peer, 9, version=version, isolation_level=1)
    assert beyond["error_code"] == ErrorCode.OFFSET_OUT_OF_RANGE
    counted = peer.room.shore.counts.errors
    assert counted[ApiKey.FETCH, ErrorCode.OFFSET_OUT_OF_RANGE] == 1
    assert beyond["aborted_transactions"] is None
    everything = fetch(peer, 0, version=version)
    assert len(split_batches(everything["records"])) == 5
    assert (everything["last_stable_offset"], everything["aborted_transactions"]) == (4, None)


def two_batches() -> bytes:
    return good() + good()


def of_version_1() -> bytes:
    data = bytearray(good())
    data[16] = 1
    return bytes(data)


def damaged() -> bytes:
    data = bytearray(good())
    data[-1] ^= 1
    return bytes(data)


def control() -> bytes:
    builder = BatchBuilder()
    builder.append(NOW, b"k", b"v")
    return bytes(
        builder.seal(producer_id=1, producer_epoch=0, base_sequence=0, control=True).data
    )


def transactional() -> bytes:
    builder = BatchBuilder()
    builder.append(NOW, b"k", b"v")
    batch = builder.seal(producer_id=1, producer_epoch=0, base_sequence=0, transactional=True)
    return bytes(batch.data)


def zstd() -> bytes:
    builder = BatchBuilder()
    builder.append(NOW, b"k", b"v" * 100)
    return bytes(builder.seal(4).data)


@pytest.mark.parametrize(
    ("records", "version", "error"),
    [
        (None, 9, ErrorCode.INVALID_RECORD),
        (b"", 9, ErrorCode.INVALID_RECORD),
        (b"x" * 60, 9, ErrorCode.INVALID_RECORD),
        (two_batches(), 9, ErrorCode.INVALID_RECORD),
        (of_version_1(), 9, ErrorCode.INVALID_RECORD),
        (damaged(), 9, ErrorCode.CORRUPT_MESSAGE),
        (good()[:-1], 9, ErrorCode.CORRUPT_MESSAGE),
        (control(), 9, ErrorCode.INVALID_RECORD),
        (transactional(), 9, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        (zstd(), 6, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE),
        (zstd(), 7, OK),
        (good(b"v" * 1_048_600), 9, ErrorCode.MESSAGE_TOO_LARGE),
        (bytes(batch_of(NOW + 4_000_000, b"v").data), 9, ErrorCode.INVALID_TIMESTAMP),
    ],
)
def test_bad_batches_are_refused(
    peer: Peer, records: bytes | None, version: int, error: ErrorCode
) -> None:
    row = produce(peer, records, version=version)
    assert row["error_code"] == error
    assert row["base_offset"] == (0 if error == OK else -1)
    assert peer.ask(ApiKey.API_VERSIONS, 0)["error_code"] == OK, "the connection goes on"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"acks": 2}, ErrorCode.INVALID_REQUIRED_ACKS),
        ({"name": "absent"}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"index": 2}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"index": -1}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ({"name": "__consumer_offsets"}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"name": "__users"}, ErrorCode.INVALID_TOPIC_EXCEPTION),
        ({"name": "absent", "version": 13}, ErrorCode.UNKNOWN_TOPIC_ID),
    ],
)
def test_bad_produce_requests_are_refused(
    peer: Peer, more: dict[str, Any], error: ErrorCode
) -> None:
    row = produce(peer, good(), **more)
    assert row["error_code"] == error
    assert row["error_message"]


def test_records_at_fault_are_named(peer: Peer) -> None:  # KIP-467
    peer.room.log.create("c", 1, {"cleanup.policy": "compact"})
    builder = BatchBuilder()
    for key in (b"k", None, b"k"):
        builder.append(NOW, key, b"v")
    row = produce(peer, bytes(builder.seal().data), name="c")
    assert row["error_code"] == ErrorCode.INVALID_RECORD
    assert [one["batch_index"] for one in row["record_errors"]] == [1]


def test_one_bad_partition_does_not_harm_the_others(peer: Peer) -> None:
    rows = [{"index": index, "records": good()} for index in (0, 7, 1)]
    body = {"acks": 1, "topic_data": [{"name": "t", "partition_data": rows}]}
    answer = peer.ask(ApiKey.PRODUCE, 9, body)
    found = answer["responses"][0]["partition_responses"]
    assert [(row["index"], row["error_code"]) for row in found] == [(0, 0), (7, 3), (1, 0)]


def test_the_time_of_arrival_is_told_where_it_counts(peer: Peer) -> None:
    peer.room.log.create("l", 1, {"message.timestamp.type": "LogAppendTime"})
    row = produce(peer, good(), name="l")
    assert row["log_append_time_ms"] == peer.room.runtime.now_ms()


def test_an_idempotent_producer_is_recognised(peer: Peer) -> None:
    given = peer.ask(ApiKey.INIT_PRODUCER_ID, 4, {"transactional_id": None})
    assert (given["error_code"], given["producer_epoch"]) == (OK, 0)

    def send(sequence: int) -> dict[str, Any]:
        builder = BatchBuilder()
        builder.append(NOW, b"k", b"v")
        batch = builder.seal(
            producer_id=given["producer_id"], producer_epoch=0, base_sequence=sequence
        )
        return produce(peer, bytes(batch.data))

    assert [send(sequence)["base_offset"] for sequence in (0, 1, 0)] == [0, 1, 0]
    assert send(5)["error_code"] == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.mark.parametrize("version", versions(ApiKey.INIT_PRODUCER_ID))
def test_producer_ids_are_never_the_same(peer: Peer, version: int) -> None:
    ids = {
        peer.ask(ApiKey.INIT_PRODUCER_ID, version, {"transactional_id": None})["producer_id"]
        for _ in range(20)
    }
    assert len(ids) == 20
    assert min(ids) >= 0


def test_fetch_through_a_session(peer: Peer) -> None:
    topic_id = peer.room.log.topics["t"].topic_id
    wanted = [
        {"partition": index, "fetch_offset": 0, "partition_max_bytes": 1 << 20}
        for index in (0, 1)
    ]
    body = {"session_epoch": 0, "topics": [{"topic_id": topic_id, "partitions": wanted}]}
    opened = peer.ask(ApiKey.FETCH, 18, body)
    assert len(opened["responses"][0]["partitions"]) == 2
    session = opened["session_id"]
    assert session > 0
    produce(peer, good(), index=1)
    told = peer.ask(ApiKey.FETCH, 18, {"session_id": session, "session_epoch": 1})
    assert [row["partition_index"] for row in told["responses"][0]["partitions"]] == [1]
    assert told["responses"][0]["topic_id"] == topic_id
    wrong = peer.ask(ApiKey.FETCH, 18, {"session_id": session, "session_epoch": 1})
    assert wrong["error_code"] == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert wrong["session_id"] == 0


@pytest.mark.parametrize("version", versions(ApiKey.FETCH))
def test_zstd_is_fetched_in_every_version(peer: Peer, version: int) -> None:
    # As from Apache Kafka 4: rskafka reads zstd and speaks Fetch 4.
    produce(peer, zstd())
    row = fetch(peer, version=version)
    assert row["error_code"] == OK
    assert RecordBatch(bytearray(row["records"])).compression == 4


def test_a_fenced_reader_is_told_the_leader(peer: Peer) -> None:  # KIP-951
    peer.room.log.topics["t"].partitions[0].leader_epoch = 3
    topic_id = peer.room.log.topics["t"].topic_id
    wanted = [
        {
            "partition": 0,
            "fetch_offset": 0,
            "partition_max_bytes": 9,
            "current_leader_epoch": 2,
        }
    ]
    body = {"topics": [{"topic_id": topic_id, "partitions": wanted}]}
    answer = peer.ask(ApiKey.FETCH, 16, body)
    (row,) = answer["responses"][0]["partitions"]
    assert row["error_code"] == ErrorCode.FENCED_LEADER_EPOCH
    assert row["current_leader"] == {"leader_id": 1, "leader_epoch": 3}
    assert answer["node_endpoints"][0]["host"] == "10.0.0.1"


def test_deleting_a_log_topic_answers_who_waits_for_it(peer: Peer) -> None:
    wanted = [{"partition": 0, "fetch_offset": 0, "partition_max_bytes": 9}]
    body = {
        "max_wait_ms": 60_000,
        "min_bytes": 1,
        "topics": [{"topic": "t", "partitions": wanted}],
    }
    peer.feed(peer.frame(ApiKey.FETCH, 12, body))
    peer.room.peer().ask(ApiKey.DELETE_TOPICS, 5, {"topic_names": ["t"]})
    (answer,) = peer.answers()
    (row,) = answer["responses"][0]["partitions"]
    assert row["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def list_offset(
    peer: Peer, timestamp: int, version: int, *, isolation: int = 0, **more: Any
) -> dict[str, Any]:
    asked = {"partition_index": 0, "timestamp": timestamp, **more}
    topics = [{"name": "t", "partitions": [asked]}]
    body = {"replica_id": -1, "isolation_level": isolation, "topics": topics}
    return peer.ask(ApiKey.LIST_OFFSETS, version, body)["topics"][0]["partitions"][0]


@pytest.mark.parametrize("version", versions(ApiKey.LIST_OFFSETS))
def test_offsets_by_time_are_exact_per_record(peer: Peer, version: int) -> None:
    builder = BatchBuilder()
    for shift in (0, 10, 5, 20):
        builder.append(NOW + shift, None, b"v")
    produce(peer, bytes(builder.seal(2).data))

    def at(timestamp: int) -> tuple[int, int]:
        row = list_offset(peer, timestamp, version)
        assert row["error_code"] == OK
        return row["offset"], row["timestamp"]

    assert [at(NOW + shift) for shift in (-1, 0, 6, 11, 21)] == [
        (0, NOW),
        (0, NOW),
        (1, NOW + 10),
        (3, NOW + 20),
        (-1, -1),
    ]
    assert at(-1) == (4, -1)
    assert at(-2) == (0, -1)
    for timestamp, first, answer in (
        (-3, 7, (3, NOW + 20)),
        (-4, 8, (0, -1)),
        (-5, 9, (-1, -1)),
        (-6, 11, (-1, -1)),
    ):
        if version >= first:
            assert at(timestamp) == answer
        else:
            refused = list_offset(peer, timestamp, version)["error_code"]
            assert refused == ErrorCode.UNSUPPORTED_VERSION
    if version >= 4:
        assert list_offset(peer, NOW, version)["leader_epoch"] == 0


@pytest.mark.parametrize(
    "version", [each for each in versions(ApiKey.LIST_OFFSETS) if each > 1]
)
def test_who_reads_what_is_decided_finds_nothing_behind_it(peer: Peer, version: int) -> None:
    transactions(peer)

    def at(timestamp: int, isolation: int) -> int:
        row = list_offset(peer, timestamp, version, isolation=isolation)
        assert row["error_code"] == OK
        return row["offset"]

    assert [at(-1, isolation) for isolation in (0, 1)] == [5, 4]
    assert [at(-2, isolation) for isolation in (0, 1)] == [0, 0]
    assert [at(NOW + 2, isolation) for isolation in (0, 1)] == [2, 2]
    assert [at(NOW + 4, isolation) for isolation in (0, 1)] == [4, -1]
    if version >= 7:
        assert [at(-3, isolation) for isolation in (0, 1)] == [4, -1]


def test_list_offsets_checks_what_the_client_believes(peer: Peer) -> None:
    newer = list_offset(peer, -1, 4, current_leader_epoch=1)
    assert newer["error_code"] == ErrorCode.UNKNOWN_LEADER_EPOCH
    unknown = list_offset(peer, -1, 1, partition_index=5)
    assert unknown["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("version", versions(ApiKey.OFFSET_FOR_LEADER_EPOCH))
def test_where_an_epoch_ended(peer: Peer, version: int) -> None:
    produce(peer, good(b"a", b"b"))
    asked = [
        {"partition": index, "leader_epoch": 0, "current_leader_epoch": epoch}
        for index, epoch in ((0, 0), (0, 9), (5, -1))
    ]
    body = {"topics": [{"topic": "t", "partitions": asked}]}
    rows = peer.ask(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, body)["topics"][0]["partitions"]
    assert (rows[0]["leader_epoch"], rows[0]["end_offset"]) == (0, 2)
    assert rows[1]["error_code"] == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert rows[2]["error_code"] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_what_the_batches_of_a_request_come_to_is_limited(peer: Peer) -> None:
    """Of 2 KB each become 40 MB: some are looked into, then no more of the same request."""
    builder = BatchBuilder()
    builder.append(NOW, None, bytes(40 << 20))
    bomb, small = bytes(builder.seal(4).data), bytes(batch_of(NOW, b"v").data)
    assert len(bomb) < 4_000
    rows = [{"index": 0, "records": records} for records in (bomb, bomb, bomb, bomb, small)]
    topics = [{"name": "t", "partition_data": rows}]
    body = {"acks": -1, "timeout_ms": 1, "topic_data": topics}
    (topic,) = peer.ask(ApiKey.PRODUCE, 9, body)["responses"]
    codes = [row["error_code"] for row in topic["partition_responses"]]
    too_large = ErrorCode.MESSAGE_TOO_LARGE
    assert codes == [OK, OK, too_large, too_large, OK], "what is not compressed is as it is"
    assert produce(peer, bomb)["error_code"] == OK, "the next request has its own limit"
