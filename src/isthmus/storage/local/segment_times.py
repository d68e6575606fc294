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
        if newest is not None and _bears_out(segment, entry, newest):
            segment.max_timestamp, segment.max_timestamp_offset = newest
            segment.newest_known = True
        else:
            segment.rebuild_indexes()
    return segment.max_timestamp


def _bears_out(
    segment: Segment, entry: tuple[int, int] | None, newest: tuple[int, int]
) -> bool:
    """Whether what the last entry of the offset index leads to agrees with `newest`."""
    if entry is not None and not segment.holds(entry):
        return False
    begin = 0 if entry is None else entry[1]
    for _, batch in segment.scan(begin, verify=False, chunk_bytes=PROBE_BYTES):
        time = batch.max_timestamp if batch.count else NEVER
        if time > newest[0] or (batch.last_offset == newest[1] and time != newest[0]):
            return False
    return True
