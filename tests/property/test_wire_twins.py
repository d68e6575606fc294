"""The compiled wire modules do exactly what their readable twins do, operation by operation.

Values, kinds of errors, and what is left after an error: all equal, for any history. Without
the extension modules there is nothing to compare, and the tests say so.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isthmus.wire import buffer, crc32c, records

if TYPE_CHECKING:
    from types import ModuleType


def twin_of(module: ModuleType) -> ModuleType:
    """Load the `.py` that lies beside a compiled module."""
    compiled = Path(module.__file__ or "")
    if compiled.suffix == ".py":
        pytest.skip(f"{module.__name__} is not compiled here", allow_module_level=True)
    source = compiled.with_name(compiled.name.split(".")[0] + ".py")
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_twin", source)
    assert spec is not None
    assert spec.loader is not None
    twin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twin)
    return twin


buffer_twin = twin_of(buffer)
crc32c_twin = twin_of(crc32c)
records_twin = twin_of(records)

BYTES = st.binary(max_size=40)
ANY_BYTES = BYTES | BYTES.map(bytearray) | BYTES.map(memoryview)
LARGE = st.integers(200, 5_000).map(bytes)  # makes the memory grow
# Around every border of every field, and anything.
NUMBERS = st.one_of(
    st.integers(-300, 300),
    st.builds(lambda sign, bit, more: sign * 2**bit + more,
              st.sampled_from([-1, 1]), st.integers(6, 66), st.integers(-2, 2)),
)  # fmt: skip
PLACES = st.integers(-2, 60)
INTEGERS = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "uvarint", "varint"]
PATCHES = ["u8", "u16", "u32", "i16", "i32", "i64"]

WRITES = st.one_of(
    st.tuples(st.sampled_from([f"put_{kind}" for kind in INTEGERS]), NUMBERS),
    st.tuples(st.just("put_f64"), st.floats()),
    st.tuples(st.just("put_bytes"), ANY_BYTES | LARGE | st.none() | st.text(max_size=3)),
    st.tuples(st.just("put_varint_bytes"), ANY_BYTES | LARGE | st.none() | st.text(max_size=3)),
    st.tuples(st.sampled_from([f"patch_{kind}" for kind in PATCHES]), PLACES, NUMBERS),
    st.tuples(st.just("truncate"), PLACES),
    st.tuples(st.sampled_from(["clear", "take", "take_mutable"])),
)

READS = st.one_of(
    st.tuples(st.sampled_from(INTEGERS)),
    st.tuples(st.sampled_from(["uvarint", "varint"]), st.integers(-1, 12)),
    st.tuples(st.sampled_from(["bytes", "view", "skip", "seek"]), st.integers(-3, 50)),
    st.tuples(st.sampled_from(["f64", "varint_bytes", "peek", "detach"])),
    st.tuples(st.just("compare"), st.binary(max_size=4)),
    st.tuples(st.just("attach"), ANY_BYTES, st.integers(-1, 9), st.integers(-2, 45)),
)

# Bytes that look like varints more often than chance would have it.
VARINT_LIKE = st.lists(st.sampled_from([0x00, 0x01, 0x02, 0x7F, 0x80, 0xFF]), max_size=24).map(
    bytes
)


def outcome(target: object, operation: tuple[Any, ...]) -> object:
    """Return what an operation answers, or the kind of its error."""
    name, *arguments = operation
    try:
        answer = getattr(target, name)(*arguments)
    except Exception as error:
        return type(error).__name__
    if isinstance(answer, memoryview):
        return bytes(answer)
    return repr(answer) if isinstance(answer, float) else answer


@given(st.lists(WRITES, max_size=30))
def test_write_buffers_are_equal(operations: list[tuple[Any, ...]]) -> None:
    one, other = buffer.WriteBuffer(), buffer_twin.WriteBuffer()
    for operation in operations:
        assert outcome(one, operation) == outcome(other, operation), operation
        assert len(one) == one.size == other.size
        assert one.view() == other.view()


@given(st.lists(WRITES, max_size=8), st.lists(WRITES, max_size=8))
def test_a_view_locks_both_in_the_same_way(
    before: list[tuple[Any, ...]], during: list[tuple[Any, ...]]
) -> None:
    one, other = buffer.WriteBuffer(), buffer_twin.WriteBuffer()
    for operation in before:
        outcome(one, operation), outcome(other, operation)
    with one.view() as view, other.view() as view_of_other:
        for operation in during:
            assert outcome(one, operation) == outcome(other, operation), operation
            assert view == view_of_other
        assert outcome(one, ("put_bytes", view)) == outcome(other, ("put_bytes", view_of_other))
    one.put_u8(7)
    other.put_u8(7)
    assert one.take() == other.take()


@given(BYTES | VARINT_LIKE, st.lists(READS, max_size=30))
@example(b"\xff" * 9 + b"\x02", [("uvarint",), ("uvarint", 5), ("varint",)])
@example(b"\xff" * 9 + b"\x01", [("uvarint",), ("seek", 0), ("varint",)])
def test_read_buffers_are_equal(data: bytes, operations: list[tuple[Any, ...]]) -> None:
    one, other = buffer.ReadBuffer(), buffer_twin.ReadBuffer()
    one.attach(data)
    other.attach(data)
    for operation in operations:
        assert outcome(one, operation) == outcome(other, operation), operation
        assert (one.position, one.end) == (other.position, other.end)
        assert one.remaining == other.remaining == one.end - one.position


@given(
    st.sampled_from(["store_i16", "store_i32", "store_u32", "store_i64"]),
    st.binary(max_size=12),
    st.booleans(),
    PLACES,
    NUMBERS,
)
def test_stores_are_equal(
    name: str, data: bytes, writable: bool, position: int, value: int
) -> None:
    one, other = (bytearray(data), bytearray(data)) if writable else (data, data)
    operation = (name, one, position, value)
    assert outcome(buffer, operation) == outcome(buffer_twin, (name, other, *operation[2:]))
    assert one == other


@given(NUMBERS, ANY_BYTES | LARGE | st.none())
def test_sizes_are_equal_and_true(value: int, data: bytes | None) -> None:
    for kind in ("uvarint", "varint"):
        operation = (f"{kind}_size", value)
        size = outcome(buffer, operation)
        assert size == outcome(buffer_twin, operation)
        written = buffer.WriteBuffer()
        if outcome(written, (f"put_{kind}", value)) is None:
            assert written.size == size
    written = buffer.WriteBuffer()
    written.put_varint_bytes(data)
    assert written.size == buffer.varint_bytes_size(data) == buffer_twin.varint_bytes_size(data)


@given(st.binary(max_size=200), NUMBERS, st.integers(-1, 20), st.integers(-2, 220))
def test_checksums_are_equal(data: bytes, value: int, start: int, end: int) -> None:
    for operation in (
        ("crc32c", data, value, start),
        ("crc32c", data, value & 0xFFFF_FFFF, start, end),
        ("crc32c_by_table", data, value, start),
    ):
        assert outcome(crc32c, operation) == outcome(crc32c_twin, operation)


@pytest.mark.parametrize("size", [511, 512, 1535, 1536, 1537, 3072, 4615, 70_001])
def test_long_checksums_are_equal(size: int) -> None:
    data = bytes(index * index % 251 for index in range(size + 3))
    expected = crc32c_twin.crc32c(data, 0, 3)
    assert crc32c.crc32c(data, 0, 3) == expected
    assert crc32c.crc32c_by_table(data, 0, 3) == expected
    assert crc32c.crc32c(memoryview(data)[3:]) == expected


# Pieces of records, of which many are plain ones.
RECORD_LIKE = st.lists(
    st.one_of(
        st.integers(0, 3).map(lambda delta: b"\x10\x00\x05%c\x02k\x02v\x00" % (2 * delta)),
        st.integers(0, 3).map(lambda delta: b"\x0c\x00\x05%c\x01\x01\x00" % (2 * delta)),
        st.sampled_from([b"\x00", b"\x02", b"\x80", b"\xff", b"\x10\x00", b"\x90\x00"]),
    ),
    max_size=6,
).map(b"".join)


@given(RECORD_LIKE, st.integers(-1, 6), st.integers(-1, 3))
def test_plain_records_are_equal(data: bytes, count: int, first: int) -> None:
    one, other = buffer.ReadBuffer(), buffer.ReadBuffer()
    one.attach(data)
    other.attach(data)
    answer = records.skip_plain_records(one, count, first)
    assert answer == records_twin.skip_plain_records(other, count, first)
    assert one.position == other.position
