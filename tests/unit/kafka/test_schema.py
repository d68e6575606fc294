"""The schema table: the notation is read as its head says, and the table is in order."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isthmus.kafka import schema
from isthmus.kafka.schema import Span


def field_of(name: str, *path: str) -> schema.Field:
    fields = schema.message(name).fields
    for step in path:
        found = next(field for field in fields if field.name == step)
        fields = found.fields
    return found


def test_a_heading_holds_key_versions_and_the_first_flexible_one() -> None:
    fetch = schema.message("FetchRequest")
    assert (fetch.key, fetch.versions, fetch.flexible_first) == (1, Span(4, 18), 12)
    assert schema.heading("FetchRequest") == fetch._replace(fields=())


def test_a_message_that_is_never_flexible() -> None:
    assert schema.message("SaslHandshakeRequest").flexible_first > 1_000


def test_a_field_is_in_every_version_unless_it_says_otherwise() -> None:
    assert field_of("FetchRequest", "max_wait_ms").versions == Span(4, 18)
    assert field_of("FetchRequest", "replica_id").versions == Span(4, 14)
    assert field_of("FetchRequest", "rack_id").versions == Span(11, 18)


def test_a_nested_field_has_at_most_the_versions_of_its_struct() -> None:
    assert field_of("FetchRequest", "replica_state", "replica_epoch").versions == Span(15, 18)


def test_null_is_allowed_where_the_mark_says() -> None:
    assert field_of("ProduceRequest", "transactional_id").nullable == Span(3, 13)
    assert field_of("MetadataRequest", "topics").nullable == Span(1, 13)
    assert 0 not in field_of("MetadataRequest", "topics").nullable
    assert 4 not in field_of("FetchRequest", "rack_id").nullable


def test_defaults_are_those_of_the_table_or_of_the_type() -> None:
    assert field_of("FetchRequest", "cluster_id").default is None
    assert field_of("FetchRequest", "max_bytes").default == 0x7FFF_FFFF
    assert field_of("FetchRequest", "topics").default == []
    assert field_of("FetchRequest", "replica_state").default == {}
    assert field_of("FetchRequest", "topics", "topic_id").default == bytes(16)
    assert field_of("MetadataRequest", "allow_auto_topic_creation").default is True
    assert field_of("FetchResponse", "responses", "partitions", "records").default is None


def test_tags_and_marks() -> None:
    cluster_id = field_of("FetchRequest", "cluster_id")
    assert cluster_id.tag == 0
    assert cluster_id.is_ignorable
    assert field_of("FetchRequest", "max_wait_ms").tag is None
    assert not field_of("FetchRequest", "max_wait_ms").is_ignorable
    assert field_of("RequestHeader", "client_id").is_inflexible


@pytest.mark.parametrize("name", schema.names())
def test_every_paragraph_is_in_order(name: str) -> None:
    message = schema.message(name)
    assert message.versions.first <= message.versions.last
    check_fields(message.fields, message.versions)


def check_fields(fields: tuple[schema.Field, ...], outer: Span) -> None:
    tags = [field.tag for field in fields if field.tag is not None]
    assert len(set(tags)) == len(tags)
    for field in fields:
        assert outer.first <= field.versions.first <= field.versions.last <= outer.last
        assert field.tag is None or field.type != "records"
        check_fields(field.fields, field.versions)


def test_requests_and_responses_come_in_pairs() -> None:
    for name in schema.names():
        if name.endswith("Request"):
            request = schema.heading(name)
            response = schema.heading(f"{name.removesuffix('Request')}Response")
            assert request[1:] == response[1:]


def test_an_unknown_message_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        schema.message("LeaderAndIsrRequest")


def test_the_table_is_not_read_before_it_is_needed() -> None:
    program = """
from isthmus.kafka import codec, frames, schema
assert schema._paragraphs.cache_info().currsize == 0
schema.message("FetchRequest")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
