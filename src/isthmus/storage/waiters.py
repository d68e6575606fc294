"""Who waits for a partition to grow: parked readers, each woken once.

Used by the engines for `Partition.wait`. A waiter names the offset that it could not read; it
is woken when the end that it watches has passed that offset. Waking is a plain call on the
loop, so whoever is woken may at once read, wait again or cancel others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Waiters:
    """Calls to make once an end offset has passed the offset each one waits at."""

    __slots__ = ("_number", "_parked")

    def __init__(self) -> None:
        self._parked: dict[int, tuple[int, Callable[[], None]]] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, offset: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Remember `wake` until an end passes `offset`; the returned function forgets it."""
        self._number += 1
        number = self._number
        self._parked[number] = (offset, wake)

        def cancel() -> None:
            self._parked.pop(number, None)

        return cancel

    def wake(self, end_offset: int) -> None:
        """Wake, in the order they came, all whose offset lies before `end_offset`."""
        if not self._parked:
            return
        due = [number for number, (offset, _) in self._parked.items() if offset < end_offset]
        for number in due:
            parked = self._parked.pop(number, None)  # an earlier one may have cancelled it
            if parked is not None:
                parked[1]()

    def wake_all(self) -> None:
        """Wake everyone: the partition is going away, and reading it will say so."""
        for number in list(self._parked):
            parked = self._parked.pop(number, None)
            if parked is not None:
                parked[1]()
