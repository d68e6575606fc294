"""Takes batches out of one segment: many at once where all is in order, else one by one.

In the ordinary case a read is one pread from the right place and one walk over the headers
(record/walk.py), and gives one view of whole, verified batches. Where anything is unusual
(damage, an index that is wrong, a batch larger than it may be) `read_segment` goes over the
file with a `Scan`, which steps over what is bad and tells of it.

`read_cached` is for the loop: it touches nothing but memory and what the kernel has cached.
Everything else here may wait for the disk and is for another thread, or for the start.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.record.batch import HEADER_BYTES, RecordReader
from isthmus.record.walk import holds_records, walk_batches
from isthmus.storage.local.scan import CHUNK_BYTES, Damage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.record.batch import Data, RecordBatch
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.segment import Segment

    Pread = Callable[[int, int, int], Data]

Found = tuple[int, int]  # offset and timestamp of a record

WAY_BYTES: Final = 8 * 1024  # the way from an index entry to what it leads to, mostly
READ_BYTES_MIN: Final = 4 * 1024
TIME_CHUNK_BYTES: Final = 64 * 1024
_BASE_OFFSET = struct.Struct(">q")
_LAST_DELTA = struct.Struct(">i")
_LAST_DELTA_POSITION: Final = 23


class Place(NamedTuple):
    """Where in a segment to begin, and what is known of the batch there."""

    position: int
    base_offset: int  # of the batch; -1: not known
    last_offset: int = -1  # of the batch; -1: not known


class Reading(NamedTuple):
    """Whole batches of a segment, one after the other."""

    data: memoryview
    next_offset: int  # after the last batch
    end: int  # position after it

    @property
    def held_bytes(self) -> int:
        """Memory that the data keeps."""
        return memoryview(self.data.obj).nbytes

    @property
    def start(self) -> int:
        """Position of the first batch."""
        return self.end - len(self.data)

    @property
    def following(self) -> Place:
        """Return where the next read begins."""
        return Place(self.end, self.next_offset)


def is_hollow(segment: Segment, reading: Reading) -> bool:
    """Whether a read to the end of a segment has brought batches, and no record in them.

    Compaction leaves such batches for what they tell of their producers. A reader who gets
    nothing else has to conclude from them where to go on, and not every client does (kafkajs
    asks for the same offset for ever); so he gets what follows, if anything does.
    """
    if reading.end < segment.size or reading.next_offset > segment.gap_end:
        return False
    return not holds_records(reading.data)


def read_cached(
    files: Files,
    segment: Segment,
    place: Place,
    offset: int,
    bytes_max: int,
    limit: int,
    scratch: bytearray | None = None,
) -> Reading | None:
    """Return what `read_segment` would if the kernel has it at hand and all is in order.

    The segment must be open. With a `scratch` what is found is in it mostly, and good until it
    is used again. Raises OSError.
    """
    pread = files.pread_cached if scratch is None else partial(_read_into, files, scratch)
    return _take(pread, segment, place, offset, bytes_max, limit)


def _read_into(
    files: Files, scratch: bytearray, descriptor: int, size: int, position: int
) -> bytearray | memoryview:
    if size > len(scratch):
        return files.pread_cached(descriptor, size, position)
    view = memoryview(scratch)[:size]
    return view[: files.preadv_cached(descriptor, view, position)]


def read_segment(
    files: Files, segment: Segment, place: Place | None, offset: int, bytes_max: int, limit: int
) -> tuple[Reading | None, list[Damage]]:
    """Return whole batches from the one that holds `offset` to before `limit`.

    At least one where there is one, whatever its size; then as many as fit into `bytes_max`.
    Also tells what damage lay on the way. Raises OSError.
    """
    reading = _take(
        files.pread, segment, place or segment.find(offset), offset, bytes_max, limit
    )
    return (reading, []) if reading is not None else _step(segment, offset, bytes_max, limit)


def _take(
    pread: Pread, segment: Segment, place: Place, offset: int, bytes_max: int, limit: int
) -> Reading | None:
    """Read and walk from `place`; None where that does not lead to what is wanted."""
    left = segment.size - place.position
    way = 0 if place.base_offset == offset else WAY_BYTES
    size = min(max(bytes_max, READ_BYTES_MIN) + way, left)
    while size > 0:
        data = pread(segment.descriptor(), size, place.position)
        if place.last_offset >= 0 and not begins_with(data, place.last_offset):
            return None
        span = walk_batches(data, place.base_offset, offset, limit, bytes_max, segment.gap_end)
        if span.end > span.start:
            view = memoryview(data)[span.start : span.end]
            return Reading(view, span.next_offset, place.position + span.end)
        if len(data) < size or not size < span.wanted <= left:
            return None
        size = span.wanted
    return None


def begins_with(data: Data, last_offset: int) -> bool:
    """Whether the first batch ends with the offset that the index names."""
    if len(data) < HEADER_BYTES:
        return False
    last_delta = _LAST_DELTA.unpack_from(data, _LAST_DELTA_POSITION)[0]
    return bool(_BASE_OFFSET.unpack_from(data)[0] + last_delta == last_offset)


def _step(
    segment: Segment, offset: int, bytes_max: int, limit: int
) -> tuple[Reading | None, list[Damage]]:
    """Do the same batch by batch, stepping over what is bad."""
    scan = segment.scan_from(offset, min(bytes_max + WAY_BYTES, CHUNK_BYTES))
    found: list[RecordBatch] = []
    end = 0
    for position, batch in scan:
        if batch.next_offset <= offset:
            continue
        if batch.next_offset > limit or (found and batch.size > bytes_max):
            break
        found.append(batch)
        end = position + batch.size
        bytes_max -= batch.size
        if bytes_max <= 0:
            break
    else:
        if scan.position < segment.size:
            scan.damage.append(
                Damage(scan.position, segment.size, scan.next_offset, segment.next_offset)
            )
    if not found:
        return None, scan.damage
    data = memoryview(b"".join(batch.data for batch in found))
    return Reading(data, found[-1].next_offset, end), scan.damage


def walk_segments(
    segments: Iterable[Segment], offset: int, end: int, visit: Callable[[RecordBatch], None]
) -> None:
    """Call `visit` with every batch from `offset` to `end`, unverified. Raises OSError."""
    for segment in segments if offset < end else ():
        for _, batch in segment.scan_from(offset, verify=False):
            if batch.base_offset >= end:
                return
            if batch.base_offset >= offset:
                visit(batch)


def find_time(
    segment: Segment, timestamp_ms: int, start_offset: int
) -> tuple[Found | None, list[Damage]]:
    """Return (offset, timestamp) of the first record at or after `timestamp_ms`.

    Exact to the record, also within a compressed batch; none before `start_offset` counts.
    Raises OSError, CorruptBatch.
    """
    begin = segment.offset_before_time(timestamp_ms)
    scan = segment.scan_from(max(begin, start_offset), TIME_CHUNK_BYTES)
    for _, batch in scan:
        if batch.max_timestamp >= timestamp_ms and batch.next_offset > start_offset:
            found = _first_in(batch, timestamp_ms, start_offset)
            if found is not None:
                return found, scan.damage
    return None, scan.damage


def _first_in(batch: RecordBatch, timestamp_ms: int, start_offset: int) -> Found | None:
    reader = RecordReader(batch)
    while reader.advance():
        if reader.timestamp >= timestamp_ms and reader.offset >= start_offset:
            return reader.offset, reader.timestamp
    return None


def newest_since(segment: Segment, start_offset: int) -> int:
    """Return the largest timestamp of the records from `start_offset` on.

    Raises OSError, CorruptBatch.
    """
    newest = -(2**63)  # no record, no time
    for _, batch in segment.scan_from(max(start_offset, segment.base_offset)):
        if batch.base_offset >= start_offset and batch.count:
            newest = max(newest, batch.max_timestamp)
        elif batch.next_offset > start_offset:
            reader = RecordReader(batch)
            while reader.advance():
                if reader.offset >= start_offset:
                    newest = max(newest, reader.timestamp)
    return newest
