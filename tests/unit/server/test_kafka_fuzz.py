"""Requests that no client would send: each is answered, or ends its own connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.broker.kafka_room import batch_of
from tests.unit.server.kafka_peer import ShoreRoom, versions

from isthmus.kafka import schema
from isthmus.kafka.api import request_name
from isthmus.server.kafka_api.table import HANDLERS

if TYPE_CHECKING:
    import pytest

NOW = 1_700_000_000_000
BATCH = bytes(batch_of(NOW, b"v").data)
# Few values, so that fields agree with one another and with what is there.
NAMES = st.sampled_from(["t", "g", "", "__consumer_offsets", "cleanup.policy", "ü", "x" * 300])
TOPIC_IDS = st.sampled_from([bytes(16), b"?" * 16])
RECORDS = st.one_of(st.just(BATCH), st.just(BATCH * 2), st.binary(max_size=80))
BITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}


def integers(bits: int) -> st.SearchStrategy[int]:
    usual = [-2, -1, 0, 1, 2, 5, 10_000]
    limits = [-(1 << bits), (1 << bits) - 1]
    return st.sampled_from(
        [*(one for one in usual if -(1 << bits) <= one < 1 << bits), *limits]
    )


def values(field: schema.Field, version: int) -> st.SearchStrategy[Any]:
    """Return what the wire can carry in this field."""
    if field.type == "struct":
        found = bodies(field.fields, version)
    elif field.type in BITS:
        found = integers(BITS[field.type])
    else:
        found = {
            "bool": st.booleans(),
            "string": NAMES,
            "bytes": st.binary(max_size=5),
            "uuid": TOPIC_IDS,
            "records": RECORDS,
        }[field.type]
    if field.is_array:
        found = st.lists(found, max_size=2)
    return st.none() | found if version in field.nullable else found


def bodies(fields: tuple[schema.Field, ...], version: int) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {one.name: values(one, version) for one in fields if version in one.versions}
    )


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, int, dict[str, Any]]:
    api_key = draw(st.sampled_from(sorted(HANDLERS)))
    version = draw(st.sampled_from(versions(api_key)))
    return api_key, version, draw(bodies(schema.message(request_name(api_key)).fields, version))


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=st.lists(requests(), min_size=1, max_size=4))
def test_any_request_is_answered_or_closes(
    asked: list[tuple[int, int, dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer = room.peer()
    for api_key, version, body in asked:
        if peer.transport.closed:
            break
        peer.feed(peer.frame(api_key, version, body))
        room.runtime.settle()
    room.runtime.advance(120_000)
    room.runtime.settle()
    assert "connection failed" not in caplog.text
    assert "Traceback" not in caplog.text
    other = room.peer()
    assert other.ask(18, 0)["error_code"] == 0


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(request=requests(), data=st.data())
def test_a_damaged_request_harms_nobody_else(
    request: tuple[int, int, dict[str, Any]],
    data: st.DataObject,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.clear()
    room = ShoreRoom()
    room.log.create("t", 1, {})
    peer = room.peer()
    frame = bytearray(peer.frame(*request)[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(frame) - 1))
        frame[position] = data.draw(st.integers(0, 255))
    frame = frame[: data.draw(st.integers(1, len(frame)))]
    peer.feed(len(frame).to_bytes(4, "big") + bytes(frame))
    room.runtime.settle()
    assert "connection failed" not in caplog.text
    assert room.peer().ask(18, 0)["error_code"] == 0
