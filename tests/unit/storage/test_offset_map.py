"""The map from keys to offsets: against a dict, and its limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.storage.local.offset_map import ENTRY_BYTES, OffsetMap


@given(st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 2**62)), max_size=200))
def test_it_is_a_dict(pairs):
    known: dict[bytes, int] = {}
    offsets = OffsetMap(1 << 20, len(pairs))
    for key, offset in pairs:
        offsets.put(key, offset)
        known[key] = offset
        assert offsets.get(key) == offset
    assert offsets.count == len(known)
    assert all(offsets.get(key) == offset for key, offset in known.items())
    assert offsets.get(b"never put") == -1
    offsets.close()


def test_it_is_full_before_it_is_slow():
    offsets = OffsetMap(100 * ENTRY_BYTES, 1_000_000)
    while not offsets.is_full:
        offsets.put(b"%d" % offsets.count, offsets.count)
    assert offsets.count == 75
    assert all(offsets.get(b"%d" % number) == number for number in range(75))


def test_it_takes_no_more_room_than_there_are_keys():
    offsets = OffsetMap(1 << 40, 3)
    for number in range(3):
        assert not offsets.is_full
        offsets.put(b"%d" % number, number)
