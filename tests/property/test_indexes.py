"""The two indexes of a segment against plain lists: any entries, cuts, saves, files, damage.

A list of pairs stands beside the index, and beside the list the bytes of its file, as a segment
writes them. Entries are looked for one after the other, so that what the index finds by halves
is held against what anybody would find. Segments with their indexes are in test_segment.py.
"""

from __future__ import annotations

import struct
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isthmus.storage.local.index import OffsetIndex, TimeIndex

BASES = st.sampled_from([0, 1, 1000, 2**40])
STEPS = st.integers(1, 9)
FAR = 2**31 - 1  # no entry of a test is as far from the base

Entry = tuple[int, int]  # as stored: both numbers of the file, the offset from the base


class LivesOfAnIndex(RuleBasedStateMachine):
    """What both have in common; `entries` is the model, `file` what has been saved."""

    FORMAT: ClassVar[struct.Struct]
    KIND: ClassVar[type[OffsetIndex] | type[TimeIndex]]

    index: OffsetIndex | TimeIndex

    @initialize(base=BASES)
    def begin(self, base: int) -> None:
        self.base = base
        self.index = self.KIND(base)
        self.entries: list[Entry] = []
        self.file = b""

    def packed(self, entries: list[Entry]) -> bytes:
        return b"".join(self.FORMAT.pack(*entry) for entry in entries)

    def told(self, entry: Entry) -> tuple[int, int]:
        """Return an entry as the index tells it, with the offset itself."""
        raise NotImplementedError

    def limit(self, second: int) -> int:
        """Return the end of a segment that just has an entry with this second number."""
        raise NotImplementedError

    # --- what happens -------------------------------------------------------------------------

    @rule()
    def save(self) -> None:
        data, position = self.index.unsaved()
        self.file = self.file[:position] + data
        self.index.saved = len(self.index)
        assert self.file == self.packed(self.entries)

    @rule(keep=st.floats(0, 1), nudge=st.integers(0, 1))
    def cut(self, keep: float, nudge: int) -> None:
        """Drop the entries from one on, asking with its own number or the one before."""
        slot = int(keep * len(self.entries))
        if slot < len(self.entries):
            second = self.entries[slot][1]
            before = self.entries[slot - 1][1] if slot else -1
            self.index.cut(self.limit(max(second - nudge, before + 1)) - 1)
            del self.entries[slot:]

    @rule()
    def load_again(self) -> None:
        self.save()
        self.index = self.KIND(self.base)
        end = self.limit(self.entries[-1][1]) if self.entries else self.limit(-1)
        assert self.index.load(self.file, end)
        assert self.index.unsaved() == (b"", len(self.file))

    @precondition(lambda self: self.entries)
    @rule(length=st.integers(1, 11))
    def a_file_of_another_length_is_refused(self, length: int) -> None:
        data = self.packed(self.entries)
        size = len(data) - length
        expected = size >= 0 and size % self.FORMAT.size == 0
        self.load_elsewhere(data[: max(size, 0)] if size >= 0 else data + b"x", expected)

    @precondition(lambda self: self.entries)
    @rule()
    def a_file_that_leads_behind_the_end_is_refused(self) -> None:
        self.load_elsewhere(
            self.packed(self.entries), False, self.limit(self.entries[-1][1]) - 1
        )

    @precondition(lambda self: len(self.entries) > 1)
    @rule(slot=st.integers(0, 1))
    def a_file_that_does_not_ascend_is_refused(self, slot: int) -> None:
        first, last = list(self.entries[0]), list(self.entries[-1])
        last[slot] = first[slot]
        ends = [(first[0], first[1]), *self.entries[1:-1], (last[0], last[1])]
        self.load_elsewhere(self.packed(ends), False)

    def load_elsewhere(self, data: bytes, expected: bool, end: int = -1) -> None:
        """Load a file into another index; one that is refused leaves it empty."""
        other = self.KIND(self.base)
        assert other.load(data, end if end >= 0 else self.limit(FAR)) is expected
        assert other.size == (len(data) if expected else 0)
        assert other.saved == len(other)
        assert (other.last() is None) == (not expected or not data)

    def around(self, base: int) -> set[int]:
        """Return what one may look for: each entry's first number, and those beside it."""
        firsts = [base, *(base + entry[0] for entry in self.entries)]
        return {first + nudge for first in firsts for nudge in (-1, 0, 1)}

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def the_entries_are_those_of_the_list(self) -> None:
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.entries)
        assert self.index.size == len(self.entries) * self.FORMAT.size
        assert self.index.last() == (self.told(self.entries[-1]) if self.entries else None)
        data, position = self.index.unsaved()
        assert self.file[:position] + data == self.packed(self.entries)


class LivesOfAnOffsetIndex(LivesOfAnIndex):
    FORMAT = struct.Struct(">II")
    KIND = OffsetIndex
    index: OffsetIndex

    def told(self, entry: Entry) -> tuple[int, int]:
        return self.base + entry[0], entry[1]

    def limit(self, second: int) -> int:
        return second + 1  # bytes

    @rule(offsets=STEPS, size=STEPS)
    def append(self, offsets: int, size: int) -> None:
        offset, position = self.entries[-1] if self.entries else (-1, -size)
        self.entries.append((offset + offsets, position + size))
        self.index.append(self.base + offset + offsets, position + size)

    @rule()
    def entry_before(self) -> None:
        for offset in self.around(self.base):
            before = [each for each in self.entries if self.base + each[0] <= offset]
            expected = self.told(before[-1]) if before else None
            assert self.index.entry_before(offset) == expected


class LivesOfATimeIndex(LivesOfAnIndex):
    FORMAT = struct.Struct(">qI")
    KIND = TimeIndex
    index: TimeIndex

    def told(self, entry: Entry) -> tuple[int, int]:
        return entry[0], self.base + entry[1]

    def limit(self, second: int) -> int:
        return self.base + second + 1  # an offset

    @rule(later=st.integers(-3, 5), offsets=STEPS)
    def append(self, later: int, offsets: int) -> None:
        """Only what is newer than all says something new."""
        timestamp, offset = self.entries[-1] if self.entries else (-1, -1)
        self.index.append(timestamp + later, self.base + offset + offsets)
        if later > 0 or not self.entries:
            self.entries.append((timestamp + later, offset + offsets))

    @rule()
    def entry_before(self) -> None:
        for timestamp in self.around(0):
            older = [each for each in self.entries if each[0] < timestamp]
            expected = self.told(older[-1]) if older else None
            assert self.index.entry_before(timestamp) == expected


SETTINGS = settings(max_examples=60, stateful_step_count=25)
TestOffsetIndex = LivesOfAnOffsetIndex.TestCase
TestOffsetIndex.settings = SETTINGS
TestTimeIndex = LivesOfATimeIndex.TestCase
TestTimeIndex.settings = SETTINGS
