"""Requests that no client would send: each is answered, or ends its own connection.

Made from the schema table, for every request in every version that is served; what must hold
is in kafka_strangers.py.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.kafka_strangers import NAMES, RECORDS, Strangers, mended
from tests.fuzz.targets import NoBugs
from tests.unit.server.kafka_peer import versions

from isthmus.kafka import schema
from isthmus.kafka.api import request_name
from isthmus.server.kafka_api.table import HANDLERS

# Few values, so that fields agree with one another and with what is there.
TEXTS = st.sampled_from([*NAMES, "ü", "x" * 300])
TOPIC_IDS = st.sampled_from([bytes(16), b"?" * 16, *Strangers().topic_ids])
PRODUCED = st.sampled_from([*RECORDS, *(one * 2 for one in RECORDS)]) | st.binary(max_size=80)
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
            "float64": st.floats(),
            "string": TEXTS,
            "bytes": st.binary(max_size=5),
            "uuid": TOPIC_IDS,
            "records": PRODUCED,
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


@settings(max_examples=150)
@given(asked=st.lists(requests(), min_size=1, max_size=4), who_log_in=st.booleans())
def test_any_request_is_answered_or_closes(
    asked: list[tuple[int, int, dict[str, Any]]], *, who_log_in: bool
) -> None:
    with NoBugs():
        strangers = Strangers(who_log_in=who_log_in)
        for request in asked:
            strangers.say(strangers.peer.frame(*request))
        strangers.check()


@settings(max_examples=150)
@given(request=requests(), data=st.data())
def test_a_damaged_request_harms_nobody_else(
    request: tuple[int, int, dict[str, Any]], data: st.DataObject
) -> None:
    with NoBugs():
        strangers = Strangers()
        frame = bytearray(strangers.peer.frame(*request)[4:])
        for _ in range(data.draw(st.integers(1, 3))):
            position = data.draw(st.integers(0, len(frame) - 1))
            frame[position] = data.draw(st.integers(0, 255))
        frame = frame[: data.draw(st.integers(1, len(frame)))]
        strangers.say(mended(len(frame).to_bytes(4, "big") + frame))
        strangers.check()
