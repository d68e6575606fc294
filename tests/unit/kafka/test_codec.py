"""The Kafka codec: what a decoded message holds, and what encoding forgives."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.errors import Malformed
from isthmus.kafka import codec, schema
from isthmus.wire.buffer import WriteBuffer


def encode(name: str, version: int, body: dict[str, Any]) -> bytes:
    out = WriteBuffer()
    codec.encode(name, version, body, out)
    return out.take()


# --- decode -----------------------------------------------------------------------------------


def test_a_decoded_message_has_every_field_of_the_table() -> None:
    decoded = codec.decode("FetchRequest", 4, encode("FetchRequest", 4, {"max_wait_ms": 5}))
    assert decoded["max_wait_ms"] == 5
    assert decoded["session_epoch"] == -1  # of version 7
    assert decoded["rack_id"] == ""
    assert decoded["forgotten_topics_data"] == []
    assert decoded["replica_state"] == {"replica_id": -1, "replica_epoch": -1}
    assert decoded["cluster_id"] is None


def test_a_tagged_field_that_was_not_sent_has_its_default() -> None:
    decoded = codec.decode("FetchRequest", 17, encode("FetchRequest", 17, {}))
    assert decoded["replica_state"] == {"replica_id": -1, "replica_epoch": -1}


def test_two_messages_share_nothing_that_can_be_changed() -> None:
    data = encode("FetchRequest", 4, {})
    one, other = codec.decode("FetchRequest", 4, data), codec.decode("FetchRequest", 4, data)
    one["forgotten_topics_data"].append(1)
    one["replica_state"]["replica_id"] = 5
    assert other["forgotten_topics_data"] == []
    assert other["replica_state"]["replica_id"] == -1


@pytest.mark.parametrize("version", [3, 8, 9, 13])
def test_records_are_a_view_of_the_request(version: int) -> None:
    records = b"batch" * 100
    partition = {"index": 0, "records": records}
    body = {"topic_data": [{"partition_data": [partition]}]}
    data = bytearray(b"head" + encode("ProduceRequest", version, body))
    decoded = codec.decode("ProduceRequest", version, data, 4)
    view = decoded["topic_data"][0]["partition_data"][0]["records"]
    assert isinstance(view, memoryview)
    assert view == records
    position = data.index(records)
    data[position] = ord("B")
    assert view[0] == ord("B")


def test_a_view_of_a_view() -> None:
    body = {"topic_data": [{"partition_data": [{"index": 0, "records": b"batch"}]}]}
    data = memoryview(b"xx" + encode("ProduceRequest", 9, body))[2:]
    decoded = codec.decode("ProduceRequest", 9, data)
    assert decoded["topic_data"][0]["partition_data"][0]["records"] == b"batch"


def test_null_where_it_is_not_allowed_is_malformed() -> None:
    with pytest.raises(Malformed, match="may not be null"):
        codec.decode("MetadataRequest", 0, b"\xff\xff\xff\xff")
    assert codec.decode("MetadataRequest", 1, b"\xff\xff\xff\xff")["topics"] is None


def test_text_that_is_not_utf_8_is_malformed() -> None:
    with pytest.raises(Malformed, match="UTF-8"):
        codec.decode("SaslHandshakeRequest", 0, b"\x00\x02\xc3\x28")


def test_the_error_says_which_message() -> None:
    with pytest.raises(Malformed, match="HeartbeatRequest v4"):
        codec.decode("HeartbeatRequest", 4, b"\x05ab")
    with pytest.raises(Malformed, match="MetadataRequest v0: 1 bytes too many"):
        codec.decode("MetadataRequest", 0, b"\0\0\0\0\0")


def test_a_tagged_field_shorter_than_its_value_is_malformed() -> None:
    data = bytearray(encode("FetchRequest", 17, {"cluster_id": "abc"}))
    at = data.index(b"\x04abc")
    assert data[at - 1] == 4
    data[at - 1] = 3
    with pytest.raises(Malformed):
        codec.decode("FetchRequest", 17, bytes(data))


def test_a_message_or_version_that_is_not_in_the_table() -> None:
    with pytest.raises(ValueError, match="no version 99"):
        codec.decode("FetchRequest", 99, b"")
    with pytest.raises(KeyError):
        codec.decode("LeaderAndIsrRequest", 0, b"")


def test_more_may_follow_the_head_of_something() -> None:
    body, end = codec.decode_head("MetadataRequest", 0, b"xx\0\0\0\0more", 2)
    assert (body["topics"], end) == ([], 6)


# --- encode -----------------------------------------------------------------------------------


def test_absent_fields_are_their_defaults() -> None:
    told = {"error_code": 0, "generation_id": -1, "protocol_type": None, "members": []}
    assert encode("JoinGroupResponse", 9, {}) == encode("JoinGroupResponse", 9, told)


def test_a_field_that_the_table_does_not_know_is_our_error() -> None:
    with pytest.raises(ValueError, match="HeartbeatResponse v4 has no field eror_code"):
        encode("HeartbeatResponse", 4, {"eror_code": 1})
    with pytest.raises(ValueError, match="FetchResponse v12 responses has no field topics"):
        encode("FetchResponse", 12, {"responses": [{"topics": []}]})


def test_what_a_version_cannot_carry_is_dropped_only_if_ignorable() -> None:
    assert encode("FetchRequest", 4, {"session_id": 5}) == encode("FetchRequest", 4, {})
    with pytest.raises(ValueError, match="cannot carry last_fetched_epoch"):
        partitions = [{"partition": 0, "last_fetched_epoch": 3}]
        encode("FetchRequest", 4, {"topics": [{"topic": "t", "partitions": partitions}]})


def test_the_default_of_what_a_version_cannot_carry_is_no_error() -> None:
    body = {"forgotten_topics_data": [], "replica_state": {"replica_id": -1}}
    assert encode("FetchRequest", 4, body) == encode("FetchRequest", 4, {})
    with pytest.raises(ValueError, match="cannot carry replica_state"):
        encode("FetchRequest", 4, {"replica_state": {"replica_id": 1}})


def test_a_tagged_field_with_its_default_is_not_sent() -> None:
    plain = encode("FetchRequest", 17, {})
    assert encode("FetchRequest", 17, {"cluster_id": None, "replica_state": {}}) == plain
    assert encode("FetchRequest", 17, {"replica_state": {"replica_epoch": -1}}) == plain
    assert len(encode("FetchRequest", 17, {"replica_state": {"replica_epoch": 2}})) > len(plain)


@pytest.mark.parametrize("size", [125, 126, 127, 128, 40_000])
def test_a_tagged_field_of_any_size(size: int) -> None:
    body = {"cluster_id": "c" * size, "replica_state": {"replica_id": 7}}
    decoded = codec.decode("FetchRequest", 17, encode("FetchRequest", 17, body))
    assert decoded["cluster_id"] == "c" * size
    assert decoded["replica_state"]["replica_id"] == 7


def test_a_nullable_struct() -> None:
    cursor = {"topic_name": "t", "partition_index": 3}
    for value in (None, cursor):
        data = encode("DescribeTopicPartitionsRequest", 0, {"cursor": value})
        assert codec.decode("DescribeTopicPartitionsRequest", 0, data)["cursor"] == value


def test_records_may_come_in_parts() -> None:
    def fetched(records: Any) -> dict[str, Any]:
        return {"responses": [{"partitions": [{"records": records}]}]}

    whole = encode("FetchResponse", 12, fetched(b"abcdef"))
    assert encode("FetchResponse", 12, fetched([b"ab", memoryview(b"cd"), b"ef"])) == whole
    assert encode("FetchResponse", 12, fetched(memoryview(b"abcdef"))) == whole


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("HeartbeatResponse", {"error_code": 40_000}),
        ("HeartbeatResponse", {"throttle_time_ms": None}),
        ("HeartbeatResponse", {"error_code": "0"}),
        ("HeartbeatRequest", {"group_id": None}),
        ("FetchRequest", {"topics": None}),
        ("FetchRequest", {"topics": [{"topic_id": b"short"}]}),
    ],
)
def test_a_value_of_the_wrong_kind_leaves_the_buffer_as_it_was(
    name: str, body: dict[str, Any]
) -> None:
    out = WriteBuffer()
    out.put_bytes(b"before")
    version = schema.heading(name).versions.last
    with pytest.raises((ValueError, TypeError, OverflowError, AttributeError)):
        codec.encode(name, version, body, out)
    assert out.take() == b"before"
