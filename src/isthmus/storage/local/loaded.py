"""What other threads have got for readers, until these come for it.

Who reads something that takes the disk is told to come back, and woken. What he waited for is
kept for him and for others who want the same, one thing for each offset of a partition; an
error is kept in its place. `LoadedBytes` bounds what is kept for those who never come, the
longest unused going first. What is loaded is told in loads.py (records) and aborted_loads.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from isthmus.storage.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.errors import IsthmusError
    from isthmus.runtime import Runtime
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.segments import SegmentList

LOAD_COST_BYTES: Final = 1024  # what Python needs to keep one load beyond its bytes


class LoadedBytes:
    """The loads of one log that have ended, the longest unused first, and their limits."""

    __slots__ = (
        "_loads",
        "partition_bytes_max",
        "read_bytes",
        "reads",
        "total_bytes",
        "total_bytes_max",
    )

    def __init__(self, partition_bytes_max: int, total_bytes_max: int) -> None:
        self.partition_bytes_max = partition_bytes_max
        self.total_bytes_max = total_bytes_max
        self.total_bytes = 0
        self.reads = 0  # that have come, since the start
        self.read_bytes = 0
        self._loads: dict[Loading, None] = {}

    def add(self, load: Loading) -> None:
        """Keep what a load has read, giving up others where it is too much with them."""
        self._loads[load] = None
        self.total_bytes += load.size
        self.reads += 1
        self.read_bytes += load.size - LOAD_COST_BYTES
        loads = load.loads
        loads.kept_bytes += load.size
        while loads.kept_bytes > self.partition_bytes_max:
            if not self._drop_oldest(load, loads):
                break
        while self.total_bytes > self.total_bytes_max:
            if not self._drop_oldest(load, None):
                break

    def use(self, load: Loading) -> None:
        """Note that a load is of use."""
        self._loads[load] = self._loads.pop(load)  # None, moved to the end

    def remove(self, load: Loading) -> None:
        """Forget a load."""
        if load in self._loads:
            del self._loads[load]
            self.total_bytes -= load.size
            load.loads.kept_bytes -= load.size

    def _drop_oldest(self, newest: Loading, loads: Loads[Any] | None) -> bool:
        for load in self._loads:
            if load is not newest and (loads is None or load.loads is loads):
                load.loads.drop(load)
                return True
        return False


class Loading:
    """Something that is on its way from the disk, or has come."""

    __slots__ = ("error", "is_over", "loads", "offset", "waiters")

    def __init__(self, loads: Loads[Any], offset: int) -> None:
        self.loads = loads
        self.offset = offset
        self.error: IsthmusError | None = None
        self.is_over = False
        self.waiters = Waiters()

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory."""
        return LOAD_COST_BYTES


AnyLoad = TypeVar("AnyLoad", bound=Loading)


class Loads(Generic[AnyLoad]):
    """The loads of one kind of one partition, by offset."""

    __slots__ = ("_files", "_kept", "_loads", "_runtime", "_segments", "kept_bytes")

    def __init__(
        self, runtime: Runtime, files: Files, kept: LoadedBytes, segments: SegmentList
    ) -> None:
        self.kept_bytes = 0
        self._runtime = runtime
        self._files = files
        self._kept = kept
        self._segments = segments
        self._loads: dict[int, AnyLoad] = {}

    def find(self, offset: int) -> AnyLoad | None:
        """Return the load for `offset`, under way or over."""
        load = self._loads.get(offset)
        if load is not None and load.is_over:
            self._kept.use(load)
        return load

    def take(self, load: AnyLoad) -> None:
        """A reader has come for it: raise its error.

        Others who were woken with him get it, too, then it is forgotten.
        """
        self._runtime.defer(lambda: self.drop(load))
        if load.error is not None:
            raise load.error.with_traceback(None)

    def drop(self, load: AnyLoad) -> None:
        """Forget a load."""
        self._kept.remove(load)
        if self._loads.get(load.offset) is load:
            del self._loads[load.offset]

    def wait(self, offset: int, wake: Callable[[], None]) -> Callable[[], None] | None:
        """Call `wake` once the load for `offset` is over; None if there is none under way."""
        load = self._loads.get(offset)
        return None if load is None or load.is_over else load.waiters.park(offset, wake)

    def close(self) -> None:
        """Forget all and wake who waits."""
        loads, self._loads = self._loads, {}
        for load in loads.values():
            self._kept.remove(load)
            load.waiters.wake_all()

    def _keep(self, load: AnyLoad) -> None:
        load.is_over = True
        self._kept.add(load)
