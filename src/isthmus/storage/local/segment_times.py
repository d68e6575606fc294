"""The times of a segment's records: the newest, and the one that its age counts from.

A segment remembers them while it is written. What no server remembers is read from the ends of
the indexes, and compared with the file; so it may take the disk, and is for another thread,
done with a twin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.storage.local.segment import NEVER, PROBE_BYTES

if TYPE_CHECKING:
    from isthmus.storage.local.segment import Segment


def knows_times(segment: Segment) -> bool:
    """Whether both are remembered."""
    return segment.newest_known and (segment.first_timestamp is not None or segment.size == 0)


def first_timestamp(segment: Segment) -> int:
    """Return the timestamp that the age of a segment counts from. Raises OSError."""
    if segment.first_timestamp is None:
        for _, batch in segment.scan(verify=False, chunk_bytes=PROBE_BYTES):
            segment.first_timestamp = batch.max_timestamp
            break
    return NEVER if segment.first_timestamp is None else segment.first_timestamp


def newest_timestamp(segment: Segment) -> int:
    """Return the largest timestamp in a segment. Raises OSError."""
    if not segment.newest_known:
        entry, newest = segment.last_entries()
        if newest is None or not _bears_out(segment, entry, newest):
            segment.rebuild_indexes()
        elif not segment.newest_known:  # else an index was built again on the way
            segment.max_timestamp, segment.max_timestamp_offset = newest
            segment.newest_known = True
    return segment.max_timestamp


def _bears_out(
    segment: Segment, entry: tuple[int, int] | None, newest: tuple[int, int]
) -> bool:
    """Whether the batch that brought `newest` is there, and none behind it is newer.

    Mostly the last `entry` of the offset index is not behind it, and all there is to look at.
    Where it is, older records may have come late; or the time index lacks its end.
    """
    timestamp, last_offset = newest
    if entry is not None and entry[0] > last_offset:
        scan = segment.scan_from(last_offset, verify=False)
    elif entry is not None and not segment.holds(entry):
        return False
    else:
        begin = 0 if entry is None else entry[1]
        scan = segment.scan(begin, verify=False, chunk_bytes=PROBE_BYTES)
    is_met = timestamp == NEVER
    for _, batch in scan:
        time = batch.max_timestamp if batch.count else NEVER
        if time > timestamp:
            return False
        is_met = is_met or (batch.last_offset, time) == (last_offset, timestamp)
    return is_met
