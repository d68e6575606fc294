"""Cold reads: what the kernel does not have in memory is read by another thread.

A `Load` is one read of one partition at one offset. It works on twins of segments
(`Segment.twin`), so nothing the loop uses is touched, and a segment may be deleted or replaced
meanwhile: then what was read of it is thrown away and whoever waited tries again. When it has
ended, its bytes are kept (loaded.py) for those who are woken, whatever becomes of the page
cache meanwhile.

After each load the kernel is asked to read on, so a reader who goes on from there finds the
next bytes in the page cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.errors import CorruptBatch
from isthmus.storage.local.files import known_error
from isthmus.storage.local.loaded import Loading, Loads
from isthmus.storage.local.reading import is_hollow, read_segment

if TYPE_CHECKING:
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.reading import Place, Reading
    from isthmus.storage.local.scan import Damage
    from isthmus.storage.local.segment import Segment

AHEAD_BYTES: Final = 8 * 1024 * 1024  # what the kernel is asked to read beyond a load


class Load(Loading):
    """One read that waits for the disk, or has."""

    __slots__ = (
        "_files",
        "_hollow",
        "_place",
        "_twin",
        "bytes_max",
        "damage",
        "limit",
        "met_damage",
        "reading",
        "segment",
    )

    def __init__(
        self, loads: PartitionLoads, files: Files, offset: int, bytes_max: int, limit: int
    ) -> None:
        super().__init__(loads, offset)
        self.bytes_max = bytes_max
        self.limit = limit
        self.segment: Segment | None = None
        self.reading: Reading | None = None
        self.damage: list[Damage] = []
        self.met_damage = False
        self._files = files
        self._hollow: tuple[Segment | None, Reading | None] | None = None
        self._place: Place | None = None
        self._twin: Segment | None = None

    @property
    def size(self) -> int:
        return super().size + (0 if self.reading is None else self.reading.held_bytes)

    def aim(self, segment: Segment, place: Place | None) -> None:
        """Read this segment next, from `place` where that is known."""
        self.segment = segment
        self._place = place
        self._twin = segment.twin()

    def set_aside(self) -> None:
        """What was read holds no record: it is of use only if nothing else comes."""
        self._hollow = (self.segment, self.reading)
        self.reading = None

    def take_back(self) -> None:
        """Nothing else has come."""
        if self._hollow is not None:
            self.segment, self.reading = self._hollow

    def run(self) -> None:
        """Read, on another thread. Raises OSError."""
        assert self._twin is not None
        twin = self._twin
        self.reading, self.damage = read_segment(
            self._files, twin, self._place, self.offset, self.bytes_max, self.limit
        )
        if self.reading is not None and self.reading.end < twin.size:
            self._files.will_need(twin.descriptor(), self.reading.end, AHEAD_BYTES)

    def land(self, *, is_current: bool) -> None:
        """Take back what the thread used, and what it has learnt if that is still of use."""
        assert self.segment is not None
        assert self._twin is not None
        twin, self._twin = self._twin, None
        if is_current:
            self.segment.adopt(twin)
        else:
            self.segment.release(twin)


class PartitionLoads(Loads[Load]):
    """The cold reads of one partition."""

    __slots__ = ()

    def begin(
        self, segment: Segment, place: Place | None, offset: int, bytes_max: int, limit: int
    ) -> None:
        """Begin to read; what is there for that offset is forgotten."""
        known = self._loads.get(offset)
        if known is not None:
            self.drop(known)
        load = self._loads[offset] = Load(self, self._files, offset, bytes_max, limit)
        self._start(load, segment, place)

    def _start(self, load: Load, segment: Segment, place: Place | None) -> None:
        load.aim(segment, place)
        self._runtime.offload_read(load.run, lambda _, error: self._ended(load, error))

    def _ended(self, load: Load, error: BaseException | None) -> None:
        """Take what a load has found; go on to the next segment if that is nothing."""
        segment = load.segment
        assert segment is not None
        is_wanted = self._loads.get(load.offset) is load  # else closed meanwhile
        is_current = self._segments.has(segment)
        load.land(is_current=is_wanted and is_current)
        if not is_wanted:
            return
        if not is_current:
            self.drop(load)  # deleted or replaced meanwhile
        elif error is not None:
            load.error = known_error(error, f"{segment.path} was not read")
            self._keep(load)
        else:
            self._segments.report(segment, load.damage)
            load.met_damage = load.met_damage or bool(load.damage)
            if load.reading is not None and is_hollow(segment, load.reading):
                load.set_aside()
            if load.reading is None:
                following = self._segments.after(segment)
                if following is not None and following.base_offset < load.limit:
                    self._start(load, following, None)
                    return
                load.take_back()
            is_gap = load.offset < self._segments.gap_end  # made by compaction
            if load.reading is None and (load.met_damage or not is_gap):
                load.error = CorruptBatch(
                    f"{self._segments.directory}: nothing is readable from {load.offset} "
                    f"to {load.limit}"
                )
            self._keep(load)
        load.waiters.wake_all()
