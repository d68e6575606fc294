"""The newest timestamp of a segment that nobody remembers: what the indexes say, checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.storage.batches import batch_of
from tests.storage.disk import SimDisk

from isthmus.storage.local.open_segments import OpenSegments
from isthmus.storage.local.segment import Segment
from isthmus.storage.local.segment_times import newest_timestamp


def written(disk: SimDisk, times: list[int]) -> Segment:
    """Return a segment of one batch for each time, every one in both indexes, closed."""
    segment = Segment(disk, OpenSegments(10), Path("/disk"), 0, 1)
    for number, time in enumerate(times):
        batch = batch_of(b"v", timestamp=time)
        batch.stamp(number, 0)
        segment.append([batch], [batch.data])
    segment.save_indexes(complete=True)
    segment.close()
    return segment


def found(disk: SimDisk, size: int, count: int) -> Segment:
    """Return the segment as a start finds it."""
    segment = Segment(disk, OpenSegments(10), Path("/disk"), 0, 1)
    segment.size, segment.next_offset, segment.newest_known = size, count, False
    return segment


@pytest.mark.parametrize("kept", [0, 1, 5])
@pytest.mark.parametrize("late", [(), (900, 901)], ids=["ascending", "older ones last"])
def test_a_time_index_that_lacks_its_end_makes_no_segment_look_older(
    kept: int, late: tuple[int, ...]
) -> None:
    disk = SimDisk()
    times = [*range(1_000, 1_010), *late]
    old = written(disk, times)
    index = disk.file(old.index_paths[1]).data
    assert len(index) > 12 * kept
    del index[12 * kept :]
    segment = found(disk, old.size, len(times))
    assert newest_timestamp(segment) == 1_009
    assert segment.max_timestamp_offset == 9
    segment.close()


def test_where_older_records_came_late_the_index_is_believed() -> None:
    disk = SimDisk()
    old = written(disk, [1_000, 1_009, *range(1_001, 1_008)])
    segment = found(disk, old.size, 9)
    assert newest_timestamp(segment) == 1_009
    assert segment.max_timestamp_offset == 1
    assert not segment.changed, "nothing was built again"
    segment.close()


def test_a_segment_without_any_timestamp_has_none() -> None:
    disk = SimDisk()
    old = written(disk, [-1, -1])
    segment = found(disk, old.size, 2)
    assert newest_timestamp(segment) == -1
    segment.close()
