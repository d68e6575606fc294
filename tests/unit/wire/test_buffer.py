"""What the buffers promise, with the bytes that the specifications give as examples."""

from __future__ import annotations

import gc

import pytest

from isthmus.errors import Malformed
from isthmus.wire.buffer import (
    KEEP_BYTES_MAX,
    ReadBuffer,
    WriteBuffer,
    store_i16,
    store_i32,
    store_i64,
    store_u32,
    uvarint_size,
    varint_bytes_size,
    varint_size,
)


def reading(data: bytes | bytearray | memoryview) -> ReadBuffer:
    buffer = ReadBuffer()
    buffer.attach(data)
    return buffer


def written(name: str, value: object) -> bytes:
    buffer = WriteBuffer()
    getattr(buffer, name)(value)
    return buffer.take()


@pytest.mark.parametrize(
    ("kind", "value", "encoded"),
    [
        ("u8", 0xFE, b"\xfe"),
        ("u16", 0xFFFE, b"\xff\xfe"),
        ("u32", 0x01020304, b"\x01\x02\x03\x04"),
        ("u64", 0x0102030405060708, b"\x01\x02\x03\x04\x05\x06\x07\x08"),
        ("i8", -2, b"\xfe"),
        ("i16", -2, b"\xff\xfe"),
        ("i32", -2, b"\xff\xff\xff\xfe"),
        ("i64", -2, b"\xff\xff\xff\xff\xff\xff\xff\xfe"),
        ("f64", 1.5, b"\x3f\xf8\x00\x00\x00\x00\x00\x00"),
        # MQTT 5, table 1-1: the borders between one, two, three and four bytes [MQTT-1.5.5]
        ("uvarint", 127, b"\x7f"),
        ("uvarint", 128, b"\x80\x01"),
        ("uvarint", 16_383, b"\xff\x7f"),
        ("uvarint", 2_097_152, b"\x80\x80\x80\x01"),
        ("uvarint", 2**64 - 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        # Zigzag: small numbers of both signs are short (KIP-98)
        ("varint", 0, b"\x00"),
        ("varint", -1, b"\x01"),
        ("varint", 1, b"\x02"),
        ("varint", -65, b"\x81\x01"),
        ("varint", -(2**63), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ],
)
def test_numbers_are_written_and_read(kind: str, value: float, encoded: bytes) -> None:
    assert written(f"put_{kind}", value) == encoded
    buffer = reading(encoded)
    assert getattr(buffer, kind)() == value
    assert buffer.remaining == 0
    if "varint" in kind:
        size = {"uvarint": uvarint_size, "varint": varint_size}[kind]
        assert size(int(value)) == len(encoded)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("u8", 256), ("u16", -1), ("u32", 2**32), ("i8", 128), ("i64", 2**63), ("uvarint", -1)],
)
def test_a_number_that_does_not_fit_is_our_bug(kind: str, value: int) -> None:
    with pytest.raises(OverflowError):
        written(f"put_{kind}", value)


def test_a_read_past_the_end_names_what_is_missing_and_moves_nothing() -> None:
    buffer = reading(b"\x01\x02\x03")
    buffer.u8()
    with pytest.raises(Malformed, match="4 bytes wanted at 1, 2 left"):
        buffer.u32()
    with pytest.raises(Malformed):
        buffer.bytes(-1)
    assert buffer.u16() == 0x0203


@pytest.mark.parametrize("read", ["uvarint", "varint"])
def test_a_varint_is_bounded(read: str) -> None:
    endless = reading(b"\x80" * 20)
    with pytest.raises(Malformed, match="longer than allowed"):
        getattr(endless, read)()
    with pytest.raises(Malformed, match="longer than allowed"):
        getattr(endless, read)(4)  # MQTT's four bytes
    with pytest.raises(Malformed, match="longer than allowed"):
        getattr(reading(b"\xff" * 9 + b"\x02"), read)()  # the 65th bit
    with pytest.raises(Malformed, match="3 bytes wanted at 0, 2 left"):
        getattr(reading(b"\x80\x80"), read)()


@pytest.mark.parametrize("data", [b"abc", b"", bytearray(b"abc"), memoryview(b"xabcx")[1:4]])
def test_bytes_with_their_length(data: bytes) -> None:
    encoded = written("put_varint_bytes", data)
    assert encoded == bytes([2 * len(data)]) + data
    assert varint_bytes_size(data) == len(encoded)
    assert reading(encoded).varint_bytes() == data


def test_no_bytes_at_all_have_the_length_minus_one() -> None:
    assert written("put_varint_bytes", None) == b"\x01"
    assert varint_bytes_size(None) == 1
    assert reading(b"\x01").varint_bytes() is None


def test_a_length_beyond_the_end_is_malformed() -> None:
    buffer = reading(b"\x08abc")
    with pytest.raises(Malformed):
        buffer.varint_bytes()
    assert buffer.position == 0


def test_a_view_is_of_the_attached_object() -> None:
    data = bytearray(b"0123456789")
    buffer = ReadBuffer()
    buffer.attach(data, 2, 8)
    view = buffer.view(3)
    data[3] = ord("x")
    assert view == b"2x4"
    assert (buffer.position, buffer.end, buffer.remaining) == (5, 8, 3)
    buffer.detach()
    assert view == b"2x4"
    with pytest.raises(BufferError):
        data.clear()  # the view still needs it
    view.release()
    data.clear()


def test_readers_and_what_they_read_may_be_collected_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector clears a memoryview whatever holds its bytes; that must be one it sees."""
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    for _ in range(10):
        view = memoryview(bytearray(100))
        reader = ReadBuffer()
        reader.attach(view)
        cycle: list[object] = [view, reader]
        cycle.append(cycle)
        del view, reader, cycle
    gc.collect()
    assert told == []


def test_peek_and_compare_leave_the_cursor() -> None:
    buffer = reading(b"abc")
    assert buffer.peek() == ord("a")
    assert buffer.compare(b"ab")
    assert not buffer.compare(b"ac")
    assert not buffer.compare(b"abcd")
    assert buffer.bytes(3) == b"abc"
    assert buffer.compare(b"")
    with pytest.raises(Malformed):
        buffer.peek()


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 5), (0, -2)])
def test_only_bytes_that_are_there_can_be_attached(start: int, end: int) -> None:
    buffer = reading(b"x")
    with pytest.raises(IndexError):
        buffer.attach(b"abcd", start, end)
    assert buffer.u8() == ord("x")


def test_patches_change_what_was_written() -> None:
    buffer = WriteBuffer()
    buffer.put_bytes(bytes(9))
    buffer.patch_u8(0, 1)
    buffer.patch_u32(1, 2)
    buffer.patch_i32(5, -3)
    assert buffer.view() == b"\x01\x00\x00\x00\x02\xff\xff\xff\xfd"
    for position in (-1, 8, 9):
        with pytest.raises(IndexError):
            buffer.patch_u16(position, 0)


def test_a_taken_buffer_starts_anew() -> None:
    buffer = WriteBuffer()
    buffer.put_bytes(bytes(KEEP_BYTES_MAX + 1))
    assert len(buffer.take()) == KEEP_BYTES_MAX + 1
    assert len(buffer) == buffer.size == 0
    buffer.put_u8(1)
    taken = buffer.take_mutable()
    taken[0] = 2
    assert (taken, buffer.take()) == (b"\x02", b"")


def test_the_size_is_locked_while_a_view_lives() -> None:
    buffer = WriteBuffer()
    buffer.put_u16(0x0102)
    with buffer.view() as view:
        for change in (buffer.clear, buffer.take, lambda: buffer.put_u8(3)):
            with pytest.raises(BufferError):
                change()
        buffer.patch_u8(0, 9)
        assert view == b"\x09\x02"
        with pytest.raises(TypeError):
            view[0] = 1
    buffer.put_u8(3)
    buffer.truncate(1)
    assert buffer.take() == b"\x09"


def test_stores_write_in_place_and_only_there() -> None:
    data = bytearray(8)
    store_i16(data, 0, -2)
    store_u32(memoryview(data)[2:6], 0, 0xFFFFFFFD)
    assert data == b"\xff\xfe\xff\xff\xff\xfd\x00\x00"
    store_i64(data, 0, 1)
    store_i32(data, 4, 2)
    assert data == b"\x00\x00\x00\x00\x00\x00\x00\x02"
    for position in (-1, 5):
        with pytest.raises(IndexError):
            store_i32(data, position, 0)
    with pytest.raises(BufferError):
        store_i16(b"\x00\x00", 0, 1)  # type: ignore[arg-type]
