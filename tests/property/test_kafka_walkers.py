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
from isthmus.kafka import codec, frames, schema
from isthmus.kafka.api import ApiKey
from isthmus.kafka.fetch import FetchedPartition, FetchRequest
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


@settings(max_examples=120, deadline=None)
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


@settings(max_examples=80, deadline=None)
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


# --- Fetch ------------------------------------------------------------------------------------

OF_PARTITION = {  # in which version it came, and what it is where it lacks
    "partition": (4, 0, "index"),
    "current_leader_epoch": (9, -1, "leader_epoch"),
    "fetch_offset": (4, 0, "offset"),
    "last_fetched_epoch": (12, -1, "last_fetched_epoch"),
    "partition_max_bytes": (4, 0, "bytes_max"),
}
OF_REQUEST = ("max_wait_ms", "min_bytes", "max_bytes", "isolation_level")
OF_SESSION = ("session_id", "session_epoch")


@st.composite
def fetch_bodies(draw: st.DrawFn, version: int) -> dict[str, Any]:
    def key() -> dict[str, Any]:
        return {"topic_id": draw(UUIDS)} if version >= 13 else {"topic": draw(NAMES)}

    def partition() -> dict[str, Any]:
        row = {
            name: draw(numbers(64 if name == "fetch_offset" else 32))
            for name, (first, _, _) in OF_PARTITION.items()
            if version >= first
        }
        if version >= 5:
            row["log_start_offset"] = draw(numbers(64))
        if version >= 17:
            row["replica_directory_id"] = draw(UUIDS | st.just(bytes(16)))
        if version >= 18:
            row["high_watermark"] = draw(numbers(64))
        return row

    some = st.integers(0, 3)
    body: dict[str, Any] = {name: draw(numbers(32)) for name in OF_REQUEST[:3]}
    body["isolation_level"] = draw(numbers(8))
    body["topics"] = [
        {**key(), "partitions": [partition() for _ in range(draw(some))]}
        for _ in range(draw(some))
    ]
    if version >= 7:
        body |= {name: draw(numbers(32)) for name in OF_SESSION}
        body["forgotten_topics_data"] = [
            {**key(), "partitions": draw(st.lists(numbers(32), max_size=3))}
            for _ in range(draw(some))
        ]
    if version >= 11:
        body["rack_id"] = draw(NAMES)
    if version >= 12:
        body["cluster_id"] = draw(TEXTS)
    if version >= 15:
        state = {"replica_id": draw(numbers(32)), "replica_epoch": draw(numbers(64))}
        body["replica_state"] = state
    else:
        body["replica_id"] = draw(numbers(32))
    return body


def walked_fetch(version: int, data: bytes) -> list[Any] | None:
    try:
        request = FetchRequest(version, data, len(BEFORE))
    except Malformed:
        return None
    found: list[Any] = [getattr(request, name) for name in (*OF_REQUEST, *OF_SESSION)]
    while request.next_topic():
        while request.next_partition():
            key = request.topic_id if version >= 13 else request.name
            found.append((key, [getattr(request, one) for _, _, one in OF_PARTITION.values()]))
    while request.next_forgotten():
        key = request.topic_id if version >= 13 else request.name
        found.append((key, request.index))
    assert not request.next_partition()
    return found


def decoded_fetch(version: int, data: bytes) -> list[Any] | None:
    body = decoded("FetchRequest", version, data)
    if body is None:
        return None
    key = "topic_id" if version >= 13 else "topic"
    found: list[Any] = [body[name] for name in (*OF_REQUEST, *OF_SESSION)]
    for topic in body["topics"]:
        rows = topic["partitions"]
        found += [(topic[key], [row[name] for name in OF_PARTITION]) for row in rows]
    for topic in body["forgotten_topics_data"]:
        found += [(topic[key], index) for index in topic["partitions"]]
    return found


@settings(max_examples=120, deadline=None)
@given(version=versions("FetchRequest"), data=st.data(), edits=EDITS)
def test_a_fetch_request_is_walked_as_it_is_decoded(
    version: int, data: st.DataObject, edits: list[tuple[str, int, bytes]]
) -> None:
    body = data.draw(fetch_bodies(version))
    message = BEFORE + edited(encoded("FetchRequest", version, body), edits) + BEHIND
    walked = walked_fetch(version, message)
    assert walked == decoded_fetch(version, message)
    assert walked is not None or edits


@settings(max_examples=100, deadline=None)
@given(version=st.integers(12, 18), own=TAGS, of_topic=TAGS, of_partition=TAGS, edits=EDITS)
def test_tagged_fields_of_a_fetch_request_are_stepped_over(
    version: int,
    own: list[tuple[int, bytes]],
    of_topic: list[tuple[int, bytes]],
    of_partition: list[tuple[int, bytes]],
    edits: list[tuple[str, int, bytes]],
) -> None:
    row = {"partition": 7, "fetch_offset": 5, "partition_max_bytes": 0x0B0C0D0E}
    plain = encoded("FetchRequest", version, {"topics": [{"partitions": [row]}]})
    head, tail = plain.split(bytes.fromhex("0b0c0d0e"))
    assert tail == bytes.fromhex("0000 01 01 00"), "tags, nothing forgotten, no rack, tags"
    plain = (
        head
        + bytes.fromhex("0b0c0d0e")
        + tag_section(of_partition)
        + tag_section(of_topic)
        + b"\1\1"
        + tag_section(own)
    )
    message = BEFORE + edited(plain, edits) + BEHIND
    assert walked_fetch(version, message) == decoded_fetch(version, message)


@settings(max_examples=80, deadline=None)
@given(version=versions("FetchResponse"), session_id=numbers(32), data=st.data())
def test_a_fetch_response_is_written_as_it_is_encoded(
    version: int, session_id: int, data: st.DataObject
) -> None:
    some = st.integers(0, 3)
    records = st.lists(st.binary(max_size=40) | st.just(b"r" * 3_000), max_size=3)
    session_id = session_id if version >= 7 else 0
    topics: list[tuple[str | bytes, list[FetchedPartition]]] = []
    bodies = []
    for _ in range(data.draw(some)):
        key = data.draw(UUIDS) if version >= 13 else data.draw(NAMES)
        rows = []
        for _ in range(data.draw(some)):
            row = FetchedPartition(data.draw(numbers(32)))
            row.error = data.draw(numbers(16))
            row.high_watermark, row.last_stable_offset = data.draw(
                st.tuples(numbers(64), numbers(64))
            )
            row.start_offset = data.draw(numbers(64))
            pairs = st.lists(st.tuples(numbers(64), numbers(64)), max_size=3)
            row.aborted = data.draw(st.none() | pairs)
            row.buffers = data.draw(records)
            if version >= 12:
                row.diverging = data.draw(st.none() | st.tuples(st.integers(0, 9), numbers(64)))
                row.leader_id = data.draw(st.integers(-1, 3))
                row.leader_epoch = data.draw(numbers(32)) if row.leader_id >= 0 else -1
            rows.append(row)
        topics.append((key, rows))
        name = "topic_id" if version >= 13 else "topic"
        bodies.append({name: key, "partitions": [fetched_body(version, row) for row in rows]})
    body: dict[str, Any] = {"session_id": session_id, "responses": bodies}
    nodes = []
    if version >= 16:
        nodes = data.draw(st.lists(st.tuples(numbers(32), NAMES, numbers(32)), max_size=2))
        body["node_endpoints"] = [
            {"node_id": node, "host": host, "port": port} for node, host, port in nodes
        ]
    written = frames.encode_fetch_response(version, 7, session_id, topics, nodes)
    assert b"".join(written) == frames.encode_response(ApiKey.FETCH, version, 7, body)


def fetched_body(version: int, row: FetchedPartition) -> dict[str, Any]:
    aborted = row.aborted
    if aborted is not None:
        aborted = [{"producer_id": one, "first_offset": two} for one, two in aborted]
    body: dict[str, Any] = {
        "partition_index": row.index,
        "error_code": row.error,
        "high_watermark": row.high_watermark,
        "last_stable_offset": row.last_stable_offset,
        "log_start_offset": row.start_offset,
        "aborted_transactions": aborted,
        "records": list(row.buffers),
    }
    if row.diverging is not None:
        epoch, end_offset = row.diverging
        body["diverging_epoch"] = {"epoch": epoch, "end_offset": end_offset}
    if version >= 12:
        leader = {"leader_id": row.leader_id, "leader_epoch": row.leader_epoch}
        body["current_leader"] = leader
    return body
