"""Reads one partition without ever waiting for the disk.

Records come from the first of these that has them: the tail in memory; what was loaded before
(loads.py); the page cache. What is only on the disk is loaded by another thread, and the reader
is told to come back. Readers mostly go on where they ended, so the places where reads ended are
remembered: the next one needs no index.

`batches` does wait; it is for the start, before anybody is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.errors import OffsetOutOfRange
from isthmus.record.batch import split_batches
from isthmus.record.walk import walk_batches
from isthmus.storage.local.aborted_loads import AbortedLoads
from isthmus.storage.local.files import storage_error
from isthmus.storage.local.loads import AHEAD_BYTES, PartitionLoads
from isthmus.storage.local.reading import Place, is_hollow, read_cached, read_segment
from isthmus.storage.local.spans import SPAN_BYTES_MIN, LocalSpan, find_span
from isthmus.storage.log import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isthmus.record.batch import RecordBatch
    from isthmus.storage.local.loads import Load
    from isthmus.storage.local.reading import Reading
    from isthmus.storage.local.segment import Segment
    from isthmus.storage.local.segments import SegmentList
    from isthmus.storage.local.shared import Shared
    from isthmus.storage.local.tail import Tail

PLACES_MAX: Final = 64  # readers of one partition that need no index
CHUNK_BYTES: Final = 1024 * 1024


class PartitionReader:
    """The reading side of a partition."""

    __slots__ = (
        "_aborted",
        "_files",
        "_loads",
        "_places",
        "_read_bytes_max",
        "_runtime",
        "_scratch",
        "_segments",
        "_tail",
    )

    def __init__(self, shared: Shared, segments: SegmentList, tail: Tail) -> None:
        self._runtime = shared.runtime
        self._files = shared.files
        self._read_bytes_max = shared.settings.read_bytes_max
        self._scratch = shared.scratch
        self._segments = segments
        self._tail = tail
        self._loads = PartitionLoads(shared.runtime, shared.files, shared.loaded, segments)
        self._aborted = AbortedLoads(
            shared.runtime, shared.files, shared.loaded_aborted, segments
        )
        # Offset at which a read ended → (segment, place, position that was read ahead to)
        self._places: dict[int, tuple[Segment, Place, int]] = {}

    def read(
        self,
        offset: int,
        bytes_max: int,
        start: int,
        end: int,
        limit: int,
        *,
        spans: bool = False,
    ) -> Records:
        """Return whole batches from the one that holds `offset` to before `limit`.

        With `spans`, many at once may come as a span of the file. Raises OffsetOutOfRange for
        an offset not from `start` to `end`, CorruptBatch, StorageError.
        """
        if not start <= offset <= end:
            raise OffsetOutOfRange(f"offset {offset} is not from {start} to {end}")
        if offset >= limit:
            return Records()
        buffers = self._tail.read(offset, bytes_max, limit)
        in_memory = None if buffers is None else Records(buffers)
        if spans and (in_memory is None or in_memory.size >= SPAN_BYTES_MIN):
            span = self._span(offset, bytes_max, limit)
            if span is not None:
                return Records(span=span)
        if in_memory is not None:
            return in_memory
        bytes_max = min(bytes_max, self._read_bytes_max)
        load = self._loads.find(offset)
        if load is not None and not load.is_over:
            return Records(is_loading=True)
        if load is not None and load.bytes_max >= bytes_max:
            return self._loaded(load, bytes_max, limit)
        segment, place, ahead = self._place_of(offset)
        if place is not None and segment.is_open:
            scratch = self._scratch if spans else None
            try:
                reading = read_cached(
                    self._files, segment, place, offset, bytes_max, limit, scratch
                )
                if reading is not None and not is_hollow(segment, reading):
                    self._remember(segment, reading, self._read_ahead(segment, reading, ahead))
                    return self._verified(segment, reading, spans=spans)
            except OSError as error:
                raise storage_error(error, f"{segment.path} was not read") from error
        segment.verified.forget_from(0 if place is None else place.position)
        self._loads.begin(segment, place, offset, bytes_max, limit)
        return Records(is_loading=True)

    def read_decided(
        self,
        offset: int,
        bytes_max: int,
        start: int,
        end: int,
        limit: int,
        *,
        spans: bool = False,
    ) -> Records:
        """Return the same with what was aborted of it."""
        load = self._aborted.find(offset)
        if load is not None:
            if not load.is_over:
                return Records(is_loading=True)
            limit = min(limit, load.end)
        records = self.read(offset, bytes_max, start, end, limit, spans=spans)
        if records.size == 0:
            return records
        if load is not None:
            self._aborted.take(load)
            records.aborted = load.found_before(records.end_offset)
            return records
        aborted = self._segments.aborted(offset, records.end_offset)
        if aborted is None:
            self._aborted.begin(offset, records.end_offset)
            return Records(is_loading=True)
        records.aborted = aborted
        return records

    def wait(
        self, offset: int, wake: Callable[[], None], *, decided: bool
    ) -> Callable[[], None] | None:
        """Call `wake` once what a read has begun to load is there; None where it has not."""
        loading = self._loads.wait(offset, wake)
        return self._aborted.wait(offset, wake) if loading is None and decided else loading

    def batches(self, offset: int, end: int) -> Iterator[RecordBatch]:
        """Yield the batches from the one that holds `offset` to `end`, waiting for the disk."""
        segment = self._segments.at(offset)
        while segment is not None and offset < end:
            try:
                reading, damage = read_segment(
                    self._files, segment, None, offset, CHUNK_BYTES, end
                )
            except OSError as error:
                raise storage_error(error, f"{segment.path} was not read") from error
            self._segments.report(segment, damage)
            if reading is None:
                segment = self._segments.after(segment)
                continue
            yield from split_batches(reading.data)
            offset = reading.next_offset

    def close(self) -> None:
        """Give up what was loaded; wake who waits for more."""
        self._places.clear()
        self._loads.close()
        self._aborted.close()

    def _loaded(self, load: Load, bytes_max: int, limit: int) -> Records:
        """Return what a load has brought, as far as this reader may have it."""
        self._loads.take(load)
        reading, segment = load.reading, load.segment
        if reading is None or segment is None:
            return Records()  # offsets up to the limit have gone with a compaction
        span = walk_batches(reading.data, -1, load.offset, limit, bytes_max, limit)
        if span.next_offset == reading.next_offset:
            self._remember(segment, reading, reading.end + AHEAD_BYTES)
        found = reading.data[span.start : span.end]
        return Records([found] if found else ())

    def _span(self, offset: int, bytes_max: int, limit: int) -> LocalSpan | None:
        """Return a span of the file where there is one that needs no look at its bytes."""
        segment, place, ahead = self._place_of(offset)
        if place is None or not segment.is_open:
            return None
        try:
            span = find_span(self._files, segment, place, offset, bytes_max, limit)
        except OSError as error:
            raise storage_error(error, f"{segment.path} was not read") from error
        if span is not None:
            following = Place(span.position + len(span), span.next_offset)
            self._keep_place(span.next_offset, segment, following, ahead)
        return span

    def _verified(self, segment: Segment, reading: Reading, *, spans: bool) -> Records:
        """Return what was read and is good: where it lies, or its bytes. Raises OSError."""
        if not spans:
            return Records([reading.data])
        size = len(reading.data)
        if size < SPAN_BYTES_MIN:
            return Records([bytes(reading.data)])  # the scratch is used again
        return Records(
            span=LocalSpan(
                self._files, segment.descriptor(), reading.start, size, reading.next_offset
            )
        )

    def _place_of(self, offset: int) -> tuple[Segment, Place | None, int]:
        """Return the segment to look in, and where, if that is known without the disk."""
        segment = self._segments.at(offset)
        assert segment is not None, "what is in no tail is in a file"
        known = self._places.get(offset)
        if known is not None and known[0] is segment:
            return known
        return segment, segment.place_of(offset), 0

    def _remember(self, segment: Segment, reading: Reading, ahead: int) -> None:
        segment.verified.add(reading.start, reading.end)
        self._keep_place(reading.next_offset, segment, reading.following, ahead)

    def _keep_place(self, offset: int, segment: Segment, place: Place, ahead: int) -> None:
        places = self._places
        places.pop(offset, None)
        places[offset] = (segment, place, ahead)
        if len(places) > PLACES_MAX:
            del places[next(iter(places))]

    def _read_ahead(self, segment: Segment, reading: Reading, ahead: int) -> int:
        """Keep the kernel reading before a reader for whom something had to be loaded."""
        if not ahead or ahead >= segment.size or reading.end + AHEAD_BYTES // 2 < ahead:
            return ahead
        twin = segment.twin()
        self._runtime.offload_read(
            lambda: self._files.will_need(twin.descriptor(), ahead, AHEAD_BYTES),
            lambda _result, _error: segment.adopt(twin),  # it was only a hint
        )
        return ahead + AHEAD_BYTES
