"""The Kafka codec against two independent implementations, and against bytes that are wrong.

For random bodies of every message in every version our bytes must be kio's, and kafka-python
must read and write them unchanged. kio gets well-formed messages only: a malformed one can
abort the process. What is no message may only ever raise Malformed, and costs next to nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import io
import random
import string
import tracemalloc
import types
import typing
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.serial import entity_writer

from isthmus.errors import Malformed, UnsupportedVersion
from isthmus.kafka import api, codec, frames, schema
from isthmus.wire.buffer import WriteBuffer

BODIES = 6  # random bodies for each version of each message
EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)
LIMITS = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    # kio keeps these as error codes, timedeltas and dates, which hold less
    "error_code": (-1, 133),
    "timedelta_i32": (-(1 << 31), (1 << 31) - 1),
    "timedelta_i64": (-(1 << 40), 1 << 40),
    "datetime_i64": (0, 1 << 47),
}
UNKNOWN_TO_KIO = ("Key", "Value")  # records of internal topics
MESSAGES = [name for name in schema.names() if not name.endswith(UNKNOWN_TO_KIO)]


def encode(name: str, version: int, body: dict[str, Any]) -> bytes:
    out = WriteBuffer()
    codec.encode(name, version, body, out)
    return out.take()


def versions_of(name: str) -> range:
    first, last = schema.heading(name).versions
    return range(first, last + 1)


# --- kio as the oracle ------------------------------------------------------------------------


def kio_class(name: str, version: int) -> type:
    kind = next((one for one in ("Request", "Response") if name.endswith(one)), "")
    module = {"Request": "request", "Response": "response"}.get(kind, "data")
    if name.endswith("Header"):
        module = "header"
    package = snake_case(name.removesuffix(kind))
    return getattr(importlib.import_module(f"kio.schema.{package}.v{version}.{module}"), name)


def snake_case(name: str) -> str:
    return "".join(f"_{one.lower()}" if one.isupper() else one for one in name).lstrip("_")


def random_entity(
    chance: random.Random, entity: type, fields: tuple[schema.Field, ...]
) -> tuple[Any, dict[str, Any]]:
    """Return one value twice: as kio holds it, and as we do."""
    theirs, ours = {}, {}
    by_name = {one.name: one for one in fields}
    for field in dataclasses.fields(entity):
        if "tag" in field.metadata and chance.random() < 0.5:
            continue
        name = field.name.rstrip("_")
        if name not in by_name:
            name += "_ms"  # kio drops the unit where the value carries it
        nested = by_name[name].fields
        theirs[field.name], ours[name] = random_field(chance, field, nested)
    return entity(**theirs), ours


def random_field(
    chance: random.Random, field: dataclasses.Field[Any], nested: tuple[schema.Field, ...]
) -> tuple[Any, Any]:
    kind, is_optional = field.type, False
    if typing.get_origin(kind) is types.UnionType:
        is_optional = True
        kind = next(one for one in typing.get_args(kind) if one is not types.NoneType)
    kafka_type = field.metadata.get("kafka_type")
    can_be_null = is_optional and kafka_type not in ("uuid", "datetime_i64")
    if "tag" in field.metadata and field.default is not None:
        can_be_null = False
    if can_be_null and chance.random() < 0.3:
        return None, None
    if typing.get_origin(kind) is tuple:
        inner = next(one for one in typing.get_args(kind) if one is not Ellipsis)
        count = chance.choice((0, 1, 1, 2, 5))
        values = [random_value(chance, inner, kafka_type, nested) for _ in range(count)]
        return tuple(value[0] for value in values), [value[1] for value in values]
    return random_value(chance, kind, kafka_type, nested)


def random_value(
    chance: random.Random, kind: Any, kafka_type: str | None, nested: tuple[schema.Field, ...]
) -> tuple[Any, Any]:
    if kafka_type is None:
        return random_entity(chance, kind, nested)
    if kafka_type == "bool":
        return (value := chance.random() < 0.5), value
    if kafka_type == "float64":
        return (value := chance.uniform(-1e9, 1e9)), value
    if kafka_type == "string":
        alphabet = string.ascii_letters + "äλ中🜁"
        return (value := "".join(chance.choices(alphabet, k=some_length(chance)))), value
    if kafka_type in ("bytes", "records"):
        return (value := chance.randbytes(some_length(chance))), value
    if kafka_type == "uuid":
        raw = chance.choice((bytes(16), chance.randbytes(16)))
        return (uuid.UUID(bytes=raw) if any(raw) else None), raw
    low, high = LIMITS[kafka_type]
    number = chance.choice((low, high, 0, chance.randint(low, high)))
    if kafka_type == "error_code":
        error_codes = importlib.import_module("kio.schema.errors").ErrorCode
        return error_codes(number), number
    if kafka_type.startswith("timedelta"):
        return datetime.timedelta(milliseconds=number), number
    if kafka_type == "datetime_i64":
        return EPOCH + datetime.timedelta(milliseconds=number), number
    return number, number


def some_length(chance: random.Random) -> int:
    return chance.choice((0, 1, 7, 126, 127, 128, 300))


def plain(value: Any) -> Any:
    """Replace views by bytes, so that equal content is equal."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return bytes(value) if isinstance(value, memoryview) else value


def assert_holds(decoded: Any, told: Any) -> None:
    """Assert that `decoded` is what was `told`, and nothing but defaults beside it."""
    if isinstance(told, dict):
        for name, value in told.items():
            assert_holds(decoded[name], value)
    elif isinstance(told, list):
        assert len(decoded) == len(told)
        for one, other in zip(decoded, told, strict=True):
            assert_holds(one, other)
    else:
        assert decoded == told


@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_are_those_of_kio(name: str) -> None:
    for version in versions_of(name):
        entity = kio_class(name, version)
        fields = schema.message(name).fields
        write = entity_writer(entity)
        for number in range(BODIES):
            chance = random.Random(f"{name} {version} {number}")
            theirs, ours = random_entity(chance, entity, fields)
            buffer = io.BytesIO()
            write(buffer, theirs)
            wanted = buffer.getvalue()
            assert encode(name, version, ours) == wanted, (name, version, number)
            decoded = plain(codec.decode(name, version, wanted))
            assert_holds(decoded, ours)
            assert encode(name, version, decoded) == wanted, (name, version, number)


# --- kafka-python as the oracle ---------------------------------------------------------------


def kafka_python_classes() -> dict[str, Any]:
    found = {}
    for package in ("admin", "consumer", "metadata", "producer"):
        module = importlib.import_module(f"kafka.protocol.{package}")
        found |= {name: getattr(module, name) for name in module.__all__}
    exchanged = [name for name in MESSAGES if name.endswith(("Request", "Response"))]
    return {name: found[name] for name in exchanged if name in found}


@pytest.mark.parametrize("name", kafka_python_classes())
def test_kafka_python_reads_and_writes_the_same_frames(name: str) -> None:
    theirs = kafka_python_classes()[name]
    message = schema.message(name)
    for version in versions_of(name):
        body = random_body(random.Random(f"{name} {version}"), message.fields, version)
        if name == "ApiVersionsResponse":
            body["error_code"] = 0  # any other is read as version 0
        if name.endswith("Request"):
            frame = request_frame(message.key, version, encode(name, version, body))
        else:
            frame = frames.encode_response(message.key, version, 77, body)
        read = theirs.decode(frame, version=version, header=True, framed=True)
        assert read.encode(header=True, framed=True) == frame, version


def request_frame(api_key: int, version: int, body: bytes) -> bytes:
    header = {
        "request_api_key": api_key,
        "request_api_version": version,
        "correlation_id": 77,
        "client_id": "me",
    }
    frame = encode("RequestHeader", api.request_header_version(api_key, version), header) + body
    return len(frame).to_bytes(4, "big") + frame


# --- our own random bodies --------------------------------------------------------------------


def random_body(
    chance: random.Random, fields: tuple[schema.Field, ...], version: int
) -> dict[str, Any]:
    """Return a body with every field that the version has; tagged ones are left to chance."""
    return {
        field.name: random_one(chance, field, version)
        for field in fields
        if version in field.versions and (field.tag is None or chance.random() < 0.7)
    }


def random_one(chance: random.Random, field: schema.Field, version: int) -> Any:
    if version in field.nullable and chance.random() < 0.3:
        return None
    if field.is_array:
        one = field._replace(is_array=False, nullable=schema.Span(0, -1))
        return [random_one(chance, one, version) for _ in range(chance.choice((0, 1, 3)))]
    if field.type == "struct":
        return random_body(chance, field.fields, version)
    if field.type == "string":
        return "".join(chance.choices(string.ascii_letters + "é", k=some_length(chance)))
    if field.type in ("bytes", "records"):
        return chance.randbytes(some_length(chance))
    if field.type == "uuid":
        return chance.randbytes(16)
    if field.type == "bool":
        return chance.random() < 0.5
    if field.type == "float64":
        return chance.uniform(-1e9, 1e9)
    return chance.randint(*LIMITS[field.type])


def random_message(seed: int) -> tuple[str, int, bytes]:
    chance = random.Random(seed)
    name = chance.choice(schema.names())
    version = chance.choice(versions_of(name))
    return (
        name,
        version,
        encode(name, version, random_body(chance, schema.message(name).fields, version)),
    )


SEEDS = st.integers(0, 1 << 32)


@pytest.mark.parametrize("name", schema.names())
def test_what_was_encoded_is_decoded(name: str) -> None:
    fields = schema.message(name).fields
    for version in versions_of(name):
        body = random_body(random.Random(f"{name} {version}"), fields, version)
        data = encode(name, version, body)
        decoded = plain(codec.decode(name, version, data))
        assert_holds(decoded, body)
        assert encode(name, version, decoded) == data
        assert set(decoded) == {field.name for field in fields}


# --- bytes that are wrong ---------------------------------------------------------------------


@given(seed=SEEDS)
def test_a_message_cut_short_is_malformed(seed: int) -> None:
    name, version, data = random_message(seed)
    for size in sorted({*range(min(len(data), 64)), len(data) // 2, len(data) - 1} - {-1}):
        if size < len(data):
            with pytest.raises(Malformed):
                codec.decode(name, version, data[:size])


@given(seed=SEEDS, more=st.binary(min_size=1, max_size=4))
def test_bytes_after_a_message_are_malformed(seed: int, more: bytes) -> None:
    name, version, data = random_message(seed)
    with pytest.raises(Malformed):
        codec.decode(name, version, data + more)


@settings(max_examples=400)
@given(seed=SEEDS, data=st.data())
def test_damaged_messages_only_raise_malformed(seed: int, data: st.DataObject) -> None:
    name, version, encoded = random_message(seed)
    damaged = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(damaged)))
        piece = data.draw(
            st.sampled_from((b"", b"\xff", b"\xff" * 5, b"\x7f\xff\xff\xff", b"\0"))
        )
        damaged[position : position + data.draw(st.integers(0, 8))] = piece
    decode_or_malformed(name, version, bytes(damaged))


@settings(max_examples=400)
@given(
    name=st.sampled_from(schema.names()),
    version=st.integers(0, 18),
    data=st.binary(max_size=120),
)
def test_random_bytes_only_raise_malformed(name: str, version: int, data: bytes) -> None:
    first, last = schema.heading(name).versions
    decode_or_malformed(name, min(max(version, first), last), data)


def decode_or_malformed(name: str, version: int, data: bytes) -> None:
    try:
        decoded = codec.decode(name, version, data)
    except Malformed:
        return
    encode(name, version, plain(decoded))


@given(data=st.binary(max_size=60))
def test_random_frames_only_raise_protocol_errors(data: bytes) -> None:
    try:
        api_key, version, _, _, position = frames.parse_request_header(data)
        frames.decode_request(api_key, version, data, position)
    except (Malformed, UnsupportedVersion):
        return


@given(
    name=st.sampled_from([one for one in schema.names() if one.endswith(("Key", "Value"))]),
    data=st.binary(max_size=60),
)
def test_random_records_only_raise_malformed(name: str, data: bytes) -> None:
    try:
        frames.decode_prefixed(name, data)
    except Malformed:
        return


@given(seed=SEEDS, tags=st.lists(st.tuples(st.integers(100, 1 << 31), st.binary(max_size=200))))
def test_unknown_tagged_fields_are_skipped(seed: int, tags: list[tuple[int, bytes]]) -> None:
    chance = random.Random(seed)
    name = chance.choice(
        [one for one in schema.names() if schema.heading(one).flexible_first < 99]
    )
    message = schema.message(name)
    version = message.versions.last
    untagged = tuple(field for field in message.fields if field.tag is None)
    data = encode(name, version, random_body(chance, untagged, version))
    out = WriteBuffer()
    out.put_bytes(data[:-1])  # its last byte says that no tagged fields follow
    out.put_uvarint(len(tags))
    for tag, value in tags:
        out.put_uvarint(tag)
        out.put_uvarint(len(value))
        out.put_bytes(value)
    assert plain(codec.decode(name, version, out.take())) == plain(
        codec.decode(name, version, data)
    )


@pytest.mark.parametrize(
    ("name", "version", "data"),
    [
        ("MetadataRequest", 12, b"\xff\xff\xff\xff\x0f"),  # aborts kio
        ("MetadataRequest", 1, b"\x7f\xff\xff\xff"),
        ("ProduceRequest", 9, b"\0\0\x01\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ("DeleteGroupsRequest", 2, b"\xff\xff\xff\xff\x0f" + b"\x01" * 2_000_000),
        ("MetadataRequest", 9, b"\x80\x89\x7a" + b"\x01\0" * 2_000_000),
        ("SaslAuthenticateRequest", 0, b"\x7f\xff\xff\xff"),
        ("ApiVersionsRequest", 3, b"\x01\x01\xff\xff\xff\xff\x0f\x01\xff\xff\xff\xff\x0f"),
    ],
)
def test_announced_lengths_are_not_believed(name: str, version: int, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            codec.decode(name, version, data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_what_a_message_costs_is_limited() -> None:
    out = WriteBuffer()
    out.put_uvarint(codec.ELEMENTS_MAX + 2)
    out.put_bytes(b"\x02a\0" * (codec.ELEMENTS_MAX + 1))
    out.put_bytes(b"\x01\x01\x01\0")
    with pytest.raises(Malformed, match="array elements"):
        codec.decode("MetadataRequest", 9, out.take())
