"""Headers, sizes and prefixes around messages, against bytes that Apache Kafka 4.3.1 made."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.errors import Malformed
from isthmus.kafka import codec, frames, schema
from isthmus.kafka.api import ApiKey
from isthmus.kafka.errors import RequestUnsupported

TOPIC_ID = bytes(7) + b"\x01" + bytes(7) + b"\x02"


# --- requests ---------------------------------------------------------------------------------


def test_a_header_with_a_client_id() -> None:
    frame = bytes.fromhex("0003 0001 0000004d 0002 6d65 ffffffff")
    assert frames.parse_request_header(frame) == (3, 1, 77, "me", 12)
    assert frames.decode_request(3, 1, frame, 12)["topics"] is None


def test_a_flexible_header_has_tagged_fields_but_no_compact_client_id() -> None:
    frame = bytes.fromhex("0012 0003 00000001 0002 6d65 00 0378790376 3100")
    assert frames.parse_request_header(frame) == (18, 3, 1, "me", 13)
    body = frames.decode_request(18, 3, frame, 13)
    assert body == {"client_software_name": "xy", "client_software_version": "v1"}


def test_unknown_tagged_fields_of_the_header_are_skipped() -> None:
    frame = bytes.fromhex("0012 0003 00000001 ffff 01 2a 03 010203 0101 00")
    assert frames.parse_request_header(frame) == (18, 3, 1, None, 16)


@pytest.mark.parametrize(
    "hex_frame",
    [
        "",
        "0003",
        "0003 0001 0000004d",
        "0003 0001 0000004d 0005 6d65",
        "0003 0001 0000004d 0001 ff",
    ],
)
def test_what_is_no_header_is_malformed(hex_frame: str) -> None:
    with pytest.raises(Malformed):
        frames.parse_request_header(bytes.fromhex(hex_frame))


@pytest.mark.parametrize(("api_key", "version"), [(18, 5), (0, 2), (4, 0), (999, 0), (3, -1)])
def test_an_unsupported_request_says_what_an_answer_needs(api_key: int, version: int) -> None:
    frame = api_key.to_bytes(2, "big") + version.to_bytes(2, "big", signed=True)
    with pytest.raises(RequestUnsupported) as caught:
        frames.parse_request_header(frame + b"\0\0\0\x09" + b"whatever follows")
    error = caught.value
    assert (error.api_key, error.version, error.correlation_id) == (api_key, version, 9)


# --- responses --------------------------------------------------------------------------------


def test_a_response_has_its_size_and_header() -> None:
    frame = frames.encode_response(ApiKey.HEARTBEAT, 3, 7, {"error_code": 27})
    assert frame == bytes.fromhex("0000000a 00000007 00000000 001b")
    frame = frames.encode_response(ApiKey.HEARTBEAT, 4, 7, {"error_code": 27})
    assert frame == bytes.fromhex("0000000c 00000007 00 00000000 001b 00")


def test_the_answer_to_unknown_api_versions_is_readable_by_all() -> None:
    rows = [{"api_key": 18, "min_version": 0, "max_version": 4}]
    frame = frames.encode_response(18, 0, 7, {"error_code": 35, "api_keys": rows})
    assert frame == bytes.fromhex("00000010 00000007 0023 00000001 0012 0000 0004")
    flexible = frames.encode_response(18, 4, 7, {"error_code": 0})
    assert flexible[8:10] == b"\0\0"  # the code follows the correlation id at once


def test_a_response_after_a_failed_one_is_whole() -> None:
    with pytest.raises(ValueError, match="no field"):
        frames.encode_response(ApiKey.HEARTBEAT, 4, 7, {"eror_code": 27})
    assert len(frames.encode_response(ApiKey.HEARTBEAT, 4, 7, {})) == 16


def fetched(*records: Any) -> dict[str, Any]:
    partitions = [
        {"partition_index": index, "high_watermark": 9, "records": one}
        for index, one in enumerate(records)
    ]
    return {"session_id": 1, "responses": [{"topic_id": TOPIC_ID, "partitions": partitions}]}


def test_records_travel_beside_the_response_uncopied() -> None:
    long = memoryview(bytes(5_000))
    body = fetched([long, long[:3_000]], None, b"short", [], long)
    buffers = frames.encode_response_buffers(ApiKey.FETCH, 17, 7, body)
    assert [one for one in buffers if one is long] == [long, long]
    flat = b"".join(buffers)
    assert int.from_bytes(flat[:4], "big") == len(flat) - 4
    assert flat == frames.encode_response(ApiKey.FETCH, 17, 7, body)
    decoded = codec.decode("FetchResponse", 17, flat, 9)
    partitions = decoded["responses"][0]["partitions"]
    read = [one["records"] for one in partitions]
    assert [None if one is None else len(one) for one in read] == [8_000, None, 5, 0, 5_000]


def test_a_response_without_records_is_one_buffer() -> None:
    buffers = frames.encode_response_buffers(ApiKey.FETCH, 12, 7, {"error_code": 70})
    assert buffers == [frames.encode_response(ApiKey.FETCH, 12, 7, {"error_code": 70})]


# --- prefixed: bytes made by Apache Kafka's own classes --------------------------------------

OFFSET = {"offset": 7, "leader_epoch": 2, "metadata": "x", "commit_timestamp": 1000}
MEMBER = {
    "member_id": "m",
    "group_instance_id": None,
    "client_id": "c",
    "client_host": "/h",
    "rebalance_timeout": 60_000,
    "session_timeout": 45_000,
    "subscription": b"\x01",
    "assignment": b"\x02\x03",
}
KAFKA_MADE = [
    (
        ("OffsetCommitKey", 0, {"group": "g", "topic": "plant", "partition": 3}),
        "0001 0001 67 0005 706c616e74 00000003",
    ),
    (("GroupMetadataKey", 0, {"group": "g"}), "0002 0001 67"),
    (
        ("ConsumerGroupMemberMetadataKey", 0, {"group_id": "g", "member_id": "m"}),
        "0005 0001 67 0001 6d",
    ),
    (("TransactionLogKey", 0, {"transactional_id": "t"}), "0000 0001 74"),
    (("OffsetCommitValue", 0, OFFSET), "0000 0000000000000007 0001 78 00000000000003e8"),
    (
        ("OffsetCommitValue", 1, {**OFFSET, "expire_timestamp": -1}),
        "0001 0000000000000007 0001 78 00000000000003e8 ffffffffffffffff",
    ),
    (
        ("OffsetCommitValue", 3, {**OFFSET, "topic_id": TOPIC_ID}),
        "0003 0000000000000007 00000002 0001 78 00000000000003e8",
    ),
    (
        ("OffsetCommitValue", 4, {**OFFSET, "topic_id": TOPIC_ID}),
        "0004 0000000000000007 00000002 02 78 00000000000003e8"
        "01 00 10 00000000000000010000000000000002",
    ),
    (
        (
            "GroupMetadataValue",
            3,
            {
                "protocol_type": "consumer",
                "generation": 5,
                "protocol": "range",
                "leader": "m",
                "current_state_timestamp": 9,
                "members": [MEMBER],
            },
        ),
        "0003 0008 636f6e73756d6572 00000005 0005 72616e6765 0001 6d 0000000000000009 00000001"
        "0001 6d ffff 0001 63 0002 2f68 0000ea60 0000afc8 00000001 01 00000002 0203",
    ),
    (
        (
            "ConsumerGroupMemberMetadataValue",
            0,
            {
                "client_id": "c",
                "client_host": "h",
                "subscribed_topic_names": ["t"],
                "subscribed_topic_regex": "",
                "rebalance_timeout_ms": 1,
                "instance_id": None,
                "rack_id": None,
                "server_assignor": None,
                "classic_member_metadata": {
                    "session_timeout_ms": 5,
                    "supported_protocols": [{"name": "range", "metadata": b"\x09"}],
                },
            },
        ),
        "0000 00 00 0263 0268 02 0274 01 00000001 00"
        "01 00 10 01 00000005 02 0672616e6765 0209 00 00",
    ),
    (
        (
            "TransactionLogValue",
            1,
            {
                "producer_id": 1,
                "previous_producer_id": 2,
                "next_producer_id": 3,
                "producer_epoch": 4,
                "next_producer_epoch": 5,
                "transaction_timeout_ms": 6,
                "transaction_status": 1,
                "transaction_partitions": [{"topic": "t", "partition_ids": [0, 1]}],
                "transaction_last_update_timestamp_ms": 8,
                "transaction_start_timestamp_ms": 9,
                "client_transaction_version": 2,
            },
        ),
        "0001 0000000000000001 0004 00000006 01 02 0274 03 00000000 00000001 00"
        "0000000000000008 0000000000000009"
        "04 00 08 0000000000000002 01 08 0000000000000003 02 02 0002 03 02 0005",
    ),
    (
        (
            "ConsumerProtocolSubscription",
            3,
            {
                "topics": ["a", "b"],
                "user_data": None,
                "generation_id": 4,
                "rack_id": "r",
                "owned_partitions": [{"topic": "a", "partitions": [0, 2]}],
            },
        ),
        "0003 00000002 0001 61 0001 62 ffffffff 00000001 0001 61 00000002 00000000 00000002"
        "00000004 0001 72",
    ),
]


@pytest.mark.parametrize(("message", "hex_bytes"), KAFKA_MADE)
def test_prefixed_bytes_are_kafkas(
    message: tuple[str, int, dict[str, Any]], hex_bytes: str
) -> None:
    name, version, body = message
    data = bytes.fromhex(hex_bytes)
    assert frames.encode_prefixed(name, version, body) == data
    decoded = frames.decode_prefixed(name, data)
    assert frames.encode_prefixed(name, version, decoded) == data
    if version == schema.heading(name).versions.last:
        assert {key: decoded[key] for key in body} == body


def test_a_newer_subscription_is_read_as_the_newest_known() -> None:
    data = bytes.fromhex("0009 00000001 0001 61 ffffffff 00000000 00000004 ffff 12345678")
    assert frames.decode_prefixed("ConsumerProtocolSubscription", data)["topics"] == ["a"]


@pytest.mark.parametrize(
    ("name", "hex_bytes"),
    [
        ("ConsumerProtocolSubscription", "ffff 00000000"),
        ("ConsumerProtocolSubscription", "00"),
        ("ConsumerProtocolSubscription", "0000 00000000 ffffffff 00"),
        ("GroupMetadataKey", "0001 0001 67"),
        ("GroupMetadataKey", "0002 0001 67 00"),
    ],
)
def test_what_is_not_prefixed_rightly_is_malformed(name: str, hex_bytes: str) -> None:
    with pytest.raises(Malformed):
        frames.decode_prefixed(name, bytes.fromhex(hex_bytes))
