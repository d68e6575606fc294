"""What is walked by hand against the codec: the same bytes, the same meaning and refusals.

Random messages in every version, tagged fields that nobody knows, and bytes that were changed,
cut off or put in: whatever the general codec makes of them, the walkers must make of them, too.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import Malformed
from isthmus.kafka import codec, schema
from isthmus.kafka.produce import ProducedPartition, ProduceRequest, put_produce_response
from isthmus.wire.buffer import WriteBuffer

BEFORE = b"header"
BEHIND = b"what follows is nobody's business"
NAMES = st.text(max_size=9) | st.sampled_from(["a" * 126, "a" * 127, "ä" * 200])
UUIDS = st.binary(min_size=16, max_size=16)
TEXTS = st.none() | NAMES


def numbers(bits: int) -> st.SearchStrategy[int]:
    end = 1 << (bits - 1)
    return st.sampled_from([0, 1, -1, end - 1, -end]) | st.integers(-end, end - 1)


def versions(name: str) -> st.SearchStrategy[int]:
    first, last = schema.heading(name).versions
    return st.integers(first, last)


def encoded(name: str, version: int, body: dict[str, Any]) -> bytes:
    out = WriteBuffer()
    codec.encode(name, version, body, out)
    return out.take()


def decoded(name: str, version: int, data: bytes) -> dict[str, Any] | None:
    """Return what the codec makes of a message within other bytes; None where it refuses."""
    try:
        return codec.decode_head(name, version, data, len(BEFORE))[0]
    except Malformed:
        return None


# --- bytes that nobody meant ------------------------------------------------------------------

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["change", "cut", "insert", "remove"]),
        st.integers(0, 1 << 12),
        st.sampled_from([b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff"])
        | st.binary(min_size=1, max_size=3),
    ),
    max_size=3,
)
TAGS = st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=20)), max_size=3)


def tag_section(tags: list[tuple[int, bytes]]) -> bytes:
    out = WriteBuffer()
    out.put_uvarint(len(tags))
    for number, content in tags:
        out.put_uvarint(number)
        out.put_uvarint(len(content))
        out.put_bytes(content)
    return out.take()


def edited(message: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, piece in edits:
        at = place % (len(message) + 1)
        kept = {"change": at + len(piece), "remove": at + 1, "insert": at, "cut": None}[kind]
        tail = b"" if kept is None else message[kept:]
        message = message[:at] + (b"" if kind in ("cut", "remove") else piece) + tail
    return message


def with_tags(message: bytes, sections: list[list[tuple[int, bytes]]]) -> bytes:
    """Replace the empty tag sections at the end of a message, as many as are given."""
    assert message.endswith(bytes(len(sections)))
    return message[: len(message) - len(sections)] + b"".join(map(tag_section, sections))


# --- Produce ----------------------------------------------------------------------------------

RECORDS = st.none() | st.binary(max_size=200)


@st.composite
def produce_bodies(draw: st.DrawFn, version: int) -> dict[str, Any]:
    def topic() -> dict[str, Any]:
        counted = draw(st.integers(0, 3))
        rows = [{"index": draw(numbers(32)), "records": draw(RECORDS)} for _ in range(counted)]
        key = {"topic_id": draw(UUIDS)} if version >= 13 else {"name": draw(NAMES)}
        return {**key, "partition_data": rows}

    return {
        "transactional_id": draw(TEXTS),
        "acks": draw(numbers(16)),
        "timeout_ms": draw(numbers(32)),
        "topic_data": [topic() for _ in range(draw(st.integers(0, 3)))],
    }


def walked_produce(version: int, data: bytes) -> dict[str, Any] | None:
    try:
        request = ProduceRequest(version, data, len(BEFORE))
    except Malformed:
        return None
    topics = []
    while request.next_topic():
        key = (request.name, request.topic_id)
        rows = []
        while request.next_partition():
            rows.append({"index": request.index, "records": request.records()})
        topics.append({"name": key[0], "topic_id": key[1], "partition_data": rows})
    assert not request.next_partition()
    return {
        "transactional_id": request.transactional_id,
        "acks": request.acks,
        "timeout_ms": request.timeout_ms,
        "topic_data": topics,
    }


@settings(max_examples=300, deadline=None)
@given(version=versions("ProduceRequest"), data=st.data(), edits=EDITS)
def test_a_produce_request_is_walked_as_it_is_decoded(
    version: int, data: st.DataObject, edits: list[tuple[str, int, bytes]]
) -> None:
    body = data.draw(produce_bodies(version))
    message = BEFORE + edited(encoded("ProduceRequest", version, body), edits) + BEHIND
    walked = walked_produce(version, message)
    assert walked == decoded("ProduceRequest", version, message)
    if not edits:
        assert walked is not None
        assert walked["topic_data"] or not body["topic_data"]


@settings(max_examples=50, deadline=None)
@given(version=st.integers(9, 13), sections=st.lists(TAGS, min_size=3, max_size=3), edits=EDITS)
def test_tagged_fields_of_a_produce_request_are_stepped_over(
    version: int, sections: list[list[tuple[int, bytes]]], edits: list[tuple[str, int, bytes]]
) -> None:
    rows = [{"index": 7, "records": b"the batch"}]
    body = {"acks": 1, "topic_data": [{"partition_data": rows}]}
    plain = with_tags(encoded("ProduceRequest", version, body), sections)
    walked = walked_produce(version, BEFORE + plain + BEHIND)
    assert walked is not None
    assert walked["topic_data"][0]["partition_data"] == rows
    message = BEFORE + edited(plain, edits) + BEHIND
    assert walked_produce(version, message) == decoded("ProduceRequest", version, message)


def test_more_topics_than_a_message_may_have_are_refused() -> None:
    most = codec.ELEMENTS_MAX
    for count, is_fine in ((most, True), (most + 1, False)):
        message = BEFORE + b"\xff\xff\0\1\0\0\0\0" + count.to_bytes(4, "big") + bytes(6 * count)
        assert (decoded("ProduceRequest", 8, message) is not None) == is_fine
        if is_fine:
            ProduceRequest(8, message, len(BEFORE))
        else:
            with pytest.raises(Malformed):
                ProduceRequest(8, message, len(BEFORE))


@settings(max_examples=200, deadline=None)
@given(version=versions("ProduceResponse"), throttle_ms=numbers(32), data=st.data())
def test_a_produce_response_is_written_as_it_is_encoded(
    version: int, throttle_ms: int, data: st.DataObject
) -> None:
    topics: list[tuple[str | bytes, list[ProducedPartition]]] = []
    bodies = []
    for _ in range(data.draw(st.integers(0, 3))):
        key = data.draw(UUIDS) if version >= 13 else data.draw(NAMES)
        rows, row_bodies = [], []
        for _ in range(data.draw(st.integers(0, 3))):
            row = ProducedPartition(data.draw(numbers(32)))
            row.error_code = data.draw(numbers(16))
            row.error_message = data.draw(TEXTS)
            row.base_offset, row.log_append_time_ms = data.draw(
                st.tuples(numbers(64), numbers(64))
            )
            row.start_offset = data.draw(numbers(64))
            row.record_errors = data.draw(st.lists(st.tuples(numbers(32), TEXTS), max_size=3))
            if data.draw(st.booleans()):
                row.leader_id, row.leader_epoch = data.draw(
                    st.tuples(st.integers(0, 9), numbers(32))
                )
            rows.append(row)
            row_bodies.append(produced_body(version, row))
        topics.append((key, rows))
        name = "topic_id" if version >= 13 else "name"
        bodies.append({name: key, "partition_responses": row_bodies})
    out = WriteBuffer()
    put_produce_response(out, version, topics, throttle_ms)
    body = {"responses": bodies, "throttle_time_ms": throttle_ms}
    assert out.take() == encoded("ProduceResponse", version, body)


def produced_body(version: int, row: ProducedPartition) -> dict[str, Any]:
    body = {
        "index": row.index,
        "error_code": row.error_code,
        "base_offset": row.base_offset,
        "log_append_time_ms": row.log_append_time_ms,
        "log_start_offset": row.start_offset,
        "error_message": row.error_message,
        "record_errors": [
            {"batch_index": index, "batch_index_error_message": message}
            for index, message in row.record_errors
        ],
    }
    if version >= 10:
        leader = {"leader_id": row.leader_id, "leader_epoch": row.leader_epoch}
        body["current_leader"] = leader
    return body
