"""Bytes without meaning: one buffer to write into, one cursor to read with.

This is the readable twin of `buffer.pyx` and says what that does: where the extension module is
built Python imports it instead, and a property test holds the two equal operation by operation.
All integers are big endian. A value that does not fit its field is our bug and raises
OverflowError; bytes that end too early are the peer's fault and raise Malformed. A read that
fails leaves the cursor where it was.

Two kinds of varint, both little groups of seven bits: *uvarint* is MQTT's Variable Byte
Integer [MQTT-1.5.5] and Kafka's UNSIGNED_VARINT, *varint* is Kafka's zigzag VARINT and VARLONG
(KIP-98).

Not here: what the bytes mean (record/, mqtt/, kafka/).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

from isthmus.errors import Malformed

if TYPE_CHECKING:
    import builtins

Data: TypeAlias = "bytes | bytearray | memoryview"

KEEP_BYTES_MAX: Final = 1 << 20  # `take` gives more capacity than this back
UVARINT_BYTES_MAX: Final = 10
I32_VARINT_BYTES_MAX: Final = 5

_U64_END: Final = 1 << 64
_I64_END: Final = 1 << 63


def uvarint_size(value: int) -> int:
    """Return how many bytes `put_uvarint(value)` writes."""
    if not 0 <= value < _U64_END:
        raise OverflowError(f"{value} does not fit into 64 unsigned bits")
    return max(1, (value.bit_length() + 6) // 7)


def varint_size(value: int) -> int:
    """Return how many bytes `put_varint(value)` writes."""
    return uvarint_size(_zigzag(value))


def varint_bytes_size(data: Data | None) -> int:
    """Return how many bytes `put_varint_bytes(data)` writes."""
    if data is None:
        return 1
    size = memoryview(data).nbytes
    return varint_size(size) + size


def store_i16(data: bytearray | memoryview, position: int, value: int) -> None:
    """Overwrite two bytes of `data` in place; BufferError where it is read-only."""
    _store(data, position, value.to_bytes(2, "big", signed=True))


def store_i32(data: bytearray | memoryview, position: int, value: int) -> None:
    """Overwrite four bytes of `data` in place; BufferError where it is read-only."""
    _store(data, position, value.to_bytes(4, "big", signed=True))


def store_u32(data: bytearray | memoryview, position: int, value: int) -> None:
    """Overwrite four bytes of `data` in place; BufferError where it is read-only."""
    _store(data, position, value.to_bytes(4, "big"))


def store_i64(data: bytearray | memoryview, position: int, value: int) -> None:
    """Overwrite eight bytes of `data` in place; BufferError where it is read-only."""
    _store(data, position, value.to_bytes(8, "big", signed=True))


class WriteBuffer:
    """Bytes in the making, in memory that is kept from one use to the next."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return len(self._data)

    # --- integers ---------------------------------------------------------------------------

    def put_u8(self, value: int) -> None:
        self._data += value.to_bytes(1, "big")

    def put_u16(self, value: int) -> None:
        self._data += value.to_bytes(2, "big")

    def put_u32(self, value: int) -> None:
        self._data += value.to_bytes(4, "big")

    def put_u64(self, value: int) -> None:
        self._data += value.to_bytes(8, "big")

    def put_i8(self, value: int) -> None:
        self._data += value.to_bytes(1, "big", signed=True)

    def put_i16(self, value: int) -> None:
        self._data += value.to_bytes(2, "big", signed=True)

    def put_i32(self, value: int) -> None:
        self._data += value.to_bytes(4, "big", signed=True)

    def put_i64(self, value: int) -> None:
        self._data += value.to_bytes(8, "big", signed=True)

    def put_f64(self, value: float) -> None:
        self._data += struct.pack(">d", value)

    def put_uvarint(self, value: int) -> None:
        """Write an unsigned varint of up to 64 bits, in as few bytes as it needs."""
        if not 0 <= value < _U64_END:
            raise OverflowError(f"{value} does not fit into 64 unsigned bits")
        encoded = bytearray()
        while value > 0x7F:
            encoded.append(value & 0x7F | 0x80)
            value >>= 7
        encoded.append(value)
        self._data += encoded

    def put_varint(self, value: int) -> None:
        """Write a zigzag varint of up to 64 bits."""
        self.put_uvarint(_zigzag(value))

    # --- bytes ------------------------------------------------------------------------------

    def put_bytes(self, data: Data) -> None:
        """Append a copy of `data`, any contiguous buffer."""
        self._data += memoryview(data).cast("B")

    def put_varint_bytes(self, data: Data | None) -> None:
        """Write a zigzag length and the bytes, or the length -1 for None (KIP-98)."""
        if data is None:
            self.put_varint(-1)
            return
        flat = memoryview(data).cast("B")
        self.put_varint(len(flat))
        self._data += flat

    # --- change what is there ---------------------------------------------------------------

    def patch_u8(self, position: int, value: int) -> None:
        self._patch(position, value.to_bytes(1, "big"))

    def patch_u16(self, position: int, value: int) -> None:
        self._patch(position, value.to_bytes(2, "big"))

    def patch_u32(self, position: int, value: int) -> None:
        self._patch(position, value.to_bytes(4, "big"))

    def patch_i16(self, position: int, value: int) -> None:
        self._patch(position, value.to_bytes(2, "big", signed=True))

    def patch_i32(self, position: int, value: int) -> None:
        self._patch(position, value.to_bytes(4, "big", signed=True))

    def patch_i64(self, position: int, value: int) -> None:
        self._patch(position, value.to_bytes(8, "big", signed=True))

    def truncate(self, size: int) -> None:
        """Forget what was written after the first `size` bytes."""
        if not 0 <= size <= len(self._data):
            raise IndexError(f"cannot truncate {len(self._data)} bytes to {size}")
        del self._data[size:]

    def clear(self) -> None:
        """Forget everything; the memory is kept."""
        del self._data[:]

    # --- the way out ------------------------------------------------------------------------

    def take(self) -> bytes:
        """Return everything as a copy and clear the buffer."""
        taken = bytes(self._data)
        self.clear()
        return taken

    def take_mutable(self) -> bytearray:
        """Return everything as a copy that may be changed, and clear the buffer."""
        taken = bytearray(self._data)
        self.clear()
        return taken

    def view(self) -> memoryview:
        """Return a read-only view of everything; while it lives the size cannot change."""
        return memoryview(self._data).toreadonly()

    def _patch(self, position: int, encoded: bytes) -> None:
        end = position + len(encoded)
        if position < 0 or end > len(self._data):
            raise IndexError(
                f"cannot patch {len(encoded)} bytes at {position} of {len(self._data)}"
            )
        self._data[position:end] = encoded


class ReadBuffer:
    """A cursor over somebody else's bytes, from `position` to `end`.

    The bytes stay locked (a bytearray cannot change its size) until the next `attach` or
    `detach`.
    """

    __slots__ = ("_memory", "end", "position")

    def __init__(self) -> None:
        self._memory: memoryview | None = None
        self.position = 0
        self.end = 0

    def attach(self, data: Data, start: int = 0, end: int = -1) -> None:
        """Read `data[start:end]` from now on; `end` -1 stands for the end of `data`."""
        memory = memoryview(data).cast("B")
        if end == -1:
            end = len(memory)
        if not 0 <= start <= end <= len(memory):
            raise IndexError(f"no bytes {start} to {end} in {len(memory)}")
        self.detach()
        self._memory, self.position, self.end = memory, start, end

    def detach(self) -> None:
        """Let go of the bytes; views that were given out stay valid."""
        if self._memory is not None:
            self._memory.release()
        self._memory, self.position, self.end = None, 0, 0

    @property
    def remaining(self) -> int:
        """Bytes between the cursor and the end."""
        return self.end - self.position

    # --- integers ---------------------------------------------------------------------------

    def u8(self) -> int:
        return int.from_bytes(self._next(1), "big")

    def u16(self) -> int:
        return int.from_bytes(self._next(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self._next(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self._next(8), "big")

    def i8(self) -> int:
        return int.from_bytes(self._next(1), "big", signed=True)

    def i16(self) -> int:
        return int.from_bytes(self._next(2), "big", signed=True)

    def i32(self) -> int:
        return int.from_bytes(self._next(4), "big", signed=True)

    def i64(self) -> int:
        return int.from_bytes(self._next(8), "big", signed=True)

    def f64(self) -> float:
        value: float = struct.unpack(">d", self._next(8))[0]
        return value

    def uvarint(self, bytes_max: int = UVARINT_BYTES_MAX) -> int:
        """Read an unsigned varint of at most `bytes_max` bytes and 64 bits."""
        value = 0
        for index in range(bytes_max):
            at = self.position + index
            if self._memory is None or at >= self.end:
                raise _short(index + 1, self.position, self.remaining)
            byte = self._memory[at]
            value |= (byte & 0x7F) << 7 * index
            if value >= _U64_END:
                break
            if byte < 0x80:
                self.position = at + 1
                return value
        raise Malformed(f"varint at {self.position} is longer than allowed")

    def varint(self, bytes_max: int = UVARINT_BYTES_MAX) -> int:
        """Read a zigzag varint; the same limits as `uvarint`."""
        value = self.uvarint(bytes_max)
        return value >> 1 ^ -(value & 1)

    # --- bytes ------------------------------------------------------------------------------

    def bytes(self, size: int) -> builtins.bytes:
        """Return the next `size` bytes as a copy."""
        return self._next(size)

    def varint_bytes(self) -> builtins.bytes | None:
        """Read a zigzag length and as many bytes; None for a length below 0."""
        start = self.position
        size = self.varint(I32_VARINT_BYTES_MAX)
        if size < 0:
            return None
        try:
            return self._next(size)
        except Malformed:
            self.position = start
            raise

    def view(self, size: int) -> memoryview:
        """Return the next `size` bytes as a view of the attached object."""
        start = self.position
        self.skip(size)
        return memoryview(b"") if self._memory is None else self._memory[start : self.position]

    def skip(self, size: int) -> None:
        """Move the cursor `size` bytes on."""
        if not 0 <= size <= self.remaining:
            raise _short(size, self.position, self.remaining)
        self.position += size

    def seek(self, position: int) -> None:
        """Move the cursor to `position`, at most `end`."""
        if not 0 <= position <= self.end:
            raise Malformed(f"position {position} is outside of {self.end} bytes")
        self.position = position

    def peek(self) -> int:
        """Return the next byte and leave the cursor."""
        value = self.u8()
        self.position -= 1
        return value

    def compare(self, data: builtins.bytes) -> bool:
        """Tell whether the next bytes are exactly `data`; leave the cursor."""
        if self._memory is None or len(data) > self.remaining:
            return not data
        return self._memory[self.position : self.position + len(data)] == data

    def _next(self, size: int) -> builtins.bytes:
        start = self.position
        self.skip(size)
        return b"" if self._memory is None else self._memory[start : self.position].tobytes()


def _zigzag(value: int) -> int:
    if not -_I64_END <= value < _I64_END:
        raise OverflowError(f"{value} does not fit into 64 bits")
    return value << 1 ^ value >> 63


def _store(data: bytearray | memoryview, position: int, encoded: bytes) -> None:
    flat = memoryview(data).cast("B")
    if flat.readonly:
        raise BufferError("cannot write in place: the bytes are read-only")
    end = position + len(encoded)
    if position < 0 or end > len(flat):
        raise IndexError(f"cannot store {len(encoded)} bytes at {position} of {len(flat)}")
    flat[position:end] = encoded


def _short(size: int, position: int, left: int) -> Malformed:
    return Malformed(f"{size} bytes wanted at {position}, {left} left")
