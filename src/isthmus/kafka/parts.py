"""The parts that Kafka's messages are made of: arrays, strings, records, tagged fields.

For the few messages that are walked by hand (produce.py, fetch.py) instead of being made into
dicts by codec.py, which says the same of every message and is what the tests compare with. The
same bounds hold: a length is checked against what remains before anything is made of it, and
there is a limit to all array elements of one message. Compiled, see `parts.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.errors import Malformed
from isthmus.kafka.codec import ELEMENTS_MAX
from isthmus.wire.buffer import ReadBuffer

if TYPE_CHECKING:
    from isthmus.kafka.codec import Data
    from isthmus.wire.buffer import WriteBuffer


class Walker:
    """Reads one message part by part; `source` is where plain numbers are read from."""

    __slots__ = ("elements_left", "is_flexible", "source")

    def __init__(self, data: Data, position: int, *, is_flexible: bool) -> None:
        self.source = ReadBuffer()
        self.source.attach(data, position)
        self.is_flexible = is_flexible
        self.elements_left = ELEMENTS_MAX

    def rewind(self, position: int) -> None:
        """Go back to `position`, to read again what was read."""
        self.source.seek(position)
        self.elements_left = ELEMENTS_MAX

    def length(self) -> int:
        """Read the length of records or an array; -1 for null."""
        return self.compact() if self.is_flexible else max(-1, self.source.i32())

    def compact(self) -> int:
        """Read a length that is stored plus one, 0 for null; return -1 for null."""
        source = self.source
        stored = source.uvarint()
        left = source.end - source.position
        if stored > left + 1:
            raise Malformed(f"{stored - 1} announced, {left} bytes left")
        return stored - 1

    def count(self, bytes_min: int) -> int:
        """Read how many elements of an array follow, each of at least `bytes_min` bytes."""
        count = self.length()
        if count < 0:
            raise Malformed("an array is null")
        left = self.source.end - self.source.position
        if count > left // bytes_min:
            raise Malformed(f"{count} elements announced, {left} bytes left")
        self.elements_left -= count
        if self.elements_left < 0:
            raise Malformed(f"more than {ELEMENTS_MAX} array elements")
        return count

    def text(self) -> str | None:
        """Read a string, or None for null."""
        size = self.compact() if self.is_flexible else self.source.i16()
        if size < 0:
            return None
        data = self.source.bytes(size)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a string is not UTF-8") from None

    def name(self) -> str:
        """Read a string that may not be null."""
        text = self.text()
        if text is None:
            raise Malformed("a name is null")
        return text

    def skip_tags(self) -> None:
        """Step over the tagged fields behind a struct, where there are any [KIP-482]."""
        if self.is_flexible:
            for _ in range(self.tags()):
                self.tag()
                self.source.skip(self.size())

    def tags(self) -> int:
        """Read how many tagged fields follow; for each call `tag` and then `size`."""
        count = self.source.uvarint()
        left = self.source.end - self.source.position
        if count > left // 2:
            raise Malformed(f"{count} tagged fields announced, {left} bytes left")
        return count

    def tag(self) -> int:
        """Read the number of a tagged field."""
        return self.source.uvarint()

    def size(self) -> int:
        """Read how many bytes a tagged field has."""
        size = self.source.uvarint()
        left = self.source.end - self.source.position
        if size > left:
            raise Malformed(f"a tagged field of {size} bytes, {left} left")
        return size


class Writer:
    """Writes the same parts; plain numbers go to `out`."""

    __slots__ = ("is_flexible", "out")

    def __init__(self, out: WriteBuffer, *, is_flexible: bool) -> None:
        self.out = out
        self.is_flexible = is_flexible

    def count(self, count: int) -> None:
        """Write the length of records or an array; -1 for null."""
        if self.is_flexible:
            self.out.put_uvarint(count + 1)
        else:
            self.out.put_i32(count)

    def text(self, text: str | None) -> None:
        """Write a string, or null."""
        data = b"" if text is None else text.encode("utf-8")
        length = -1 if text is None else len(data)
        if self.is_flexible:
            self.out.put_uvarint(length + 1)
        else:
            self.out.put_i16(length)
        self.out.put_bytes(data)

    def tags(self, count: int) -> None:
        """Write how many tagged fields follow, where there may be any."""
        if self.is_flexible:
            self.out.put_uvarint(count)
