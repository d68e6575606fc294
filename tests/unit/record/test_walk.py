"""Walking batches without objects: a reader gets what a plain list of batches would give."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.record.batch import HEADER_BYTES, BatchBuilder, RecordBatch, split_batches
from isthmus.record.rebuild import emptied
from isthmus.record.walk import holds_records, offset_after, walk_batches

FAR = 2**60


def batches_of(counts: list[int], base_offset: int = 0) -> list[RecordBatch]:
    builder, batches = BatchBuilder(), []
    for count in counts:
        for number in range(count):
            builder.append(1_000, None, b"value %d" % number)
        batch = builder.seal()
        batch.stamp(base_offset, 3)
        base_offset = batch.next_offset
        batches.append(batch)
    return batches


def joined(batches: list[RecordBatch]) -> bytearray:
    return bytearray(b"".join(batch.data for batch in batches))


def model(
    batches: list[RecordBatch], offset: int, limit: int, bytes_max: int
) -> list[RecordBatch]:
    found: list[RecordBatch] = []
    for batch in batches:
        if batch.next_offset <= offset:
            continue
        if batch.next_offset > limit or (found and batch.size > bytes_max):
            break
        found.append(batch)
        bytes_max -= batch.size
    return found


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    base=st.sampled_from([0, 7, 2**40]),
    at=st.integers(0, 80),
    limit_at=st.integers(0, 80),
    bytes_max=st.integers(0, 1500),
    anywhere=st.booleans(),
)
def test_a_reader_gets_what_a_list_would_give(
    counts: list[int], base: int, at: int, limit_at: int, bytes_max: int, anywhere: bool
) -> None:
    batches = batches_of(counts, base)
    data = joined(batches)
    offset, limit = base + at, base + limit_at
    expected = model(batches, offset, limit, bytes_max)
    span = walk_batches(data, -1 if anywhere else base, offset, limit, bytes_max)
    found = split_batches(memoryview(data)[span.start : span.end])
    assert [batch.base_offset for batch in found] == [batch.base_offset for batch in expected]
    if expected:
        assert span.next_offset == expected[-1].next_offset


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_data_that_ends_early_says_how_much_it_takes(
    counts: list[int], choice: st.DataObject
) -> None:
    batches = batches_of(counts)
    data = joined(batches)
    cut = choice.draw(st.integers(0, len(data) - 1))
    span = walk_batches(data[:cut], 0, 0, FAR, FAR)
    ends = [sum(batch.size for batch in batches[: n + 1]) for n in range(len(batches))]
    end = max([0, *(end for end in ends if end <= cut)])
    following = next(end for end in ends if end > cut)
    assert (span.start, span.end) == (0, end)
    assert cut < span.wanted <= following
    more = walk_batches(data[: span.wanted], 0, 0, FAR, FAR)
    assert more.end == following or more.wanted == following


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_flipped_bit_ends_the_walk_before_its_batch(
    counts: list[int], choice: st.DataObject
) -> None:
    batches = batches_of(counts)
    data = joined(batches)
    place = choice.draw(st.integers(0, len(data) - 1))
    starts = [sum(batch.size for batch in batches[:n]) for n in range(len(batches))]
    start = max(start for start in starts if start <= place)
    if 12 <= place - start < 16:
        return  # the leader epoch is under no checksum, and readers do not depend on it
    data[place] ^= 1 << choice.draw(st.integers(0, 7))
    span = walk_batches(data, 0, 0, FAR, FAR)
    assert (span.start, span.end) == (0, start)
    assert span.wanted != 0


def gapped() -> list[RecordBatch]:
    """Three batches of two records each at 0, 10 and 20: as compaction leaves them."""
    batches = batches_of([2, 2, 2])
    for number, batch in enumerate(batches):
        batch.stamp(number * 10, 0)
    return batches


@pytest.mark.parametrize(
    ("offset", "gap_end", "start", "end"),
    [(0, 22, 0, 3), (5, 22, 1, 3), (12, 22, 2, 3), (0, 12, 0, 2), (0, 11, 0, 1), (0, 0, 0, 1)],
)
def test_offsets_may_be_missing_where_the_log_was_compacted(
    offset: int, gap_end: int, start: int, end: int
) -> None:
    batches = gapped()
    size = batches[0].size
    span = walk_batches(joined(batches), 0, offset, FAR, FAR, gap_end)
    assert (span.start, span.end) == (start * size, end * size)
    assert span.wanted == (-1 if end < 3 else 3 * size + HEADER_BYTES)


def test_a_gap_that_what_follows_denies_is_damage() -> None:
    batches = gapped()
    batches[1].stamp(100, 0)
    size = batches[0].size
    span = walk_batches(joined(batches), 0, 0, FAR, FAR, 200)
    assert (span.end, span.wanted) == (size, -1)
    partly = walk_batches(joined(batches)[: 2 * size + 3], 0, 0, FAR, FAR, 200)
    assert (partly.end, partly.wanted) == (size, 2 * size + HEADER_BYTES)


@given(st.lists(st.integers(1, 5), max_size=6), st.integers(0, 1_000))
def test_the_offset_after_all_is_that_of_the_last_batch(counts: list[int], base: int) -> None:
    batches = batches_of(counts, base)
    assert offset_after(joined(batches)) == (base + sum(counts) if counts else -1)


@given(st.lists(st.booleans(), max_size=6))
def test_one_record_is_enough_to_hold_records(has_record: list[bool]) -> None:
    (full,) = batches_of([2])
    hollow = RecordBatch(emptied(full))
    data = joined([full if each else hollow for each in has_record])
    assert holds_records(data) == any(has_record)
