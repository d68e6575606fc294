"""When the sessions end that nobody comes back to: ten bytes for each that has long to wait.

A hundred thousand sessions at rest have days to go, and a deadline of its own would cost each
a tenth of its memory. So one whose end is far lies on a shelf with all others that end within
the same minute. When that minute begins, each on the shelf gets its own deadline (timers.py),
some of them at a time. Whoever comes back before is left on the shelf, and passed over.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.sessions import SessionEntry
    from isthmus.broker.timers import Deadlines
    from isthmus.runtime import Runtime

SHELF_MS: Final = 1 << 16  # so that a moment on it has 16 bits
NEAR_MS: Final = 2 * SHELF_MS  # what ends before gets its deadline at once
TAKEN_MAX: Final = 500  # entries at a time
GONE_MIN: Final = 1_000  # so many entries may lie on any shelf for nothing


class Shelf:
    """The sessions that end within one minute, unless their clients come back."""

    __slots__ = ("entries", "gone", "moments", "number")

    def __init__(self, number: int) -> None:
        self.number = number  # of the minute
        self.entries: list[SessionEntry] = []
        self.moments = array("H")  # of their ends, in ms from its beginning
        self.gone = 0  # of them, who do not wait here any more

    def add(self, entry: SessionEntry, moment_ms: int) -> None:
        """Have a session wait here."""
        self.entries.append(entry)
        self.moments.append(moment_ms)
        entry.end_due = self

    def tidy(self) -> None:
        """Leave those out who have gone. Of one who has come again the later moment counts."""
        before = zip(reversed(self.entries), reversed(self.moments), strict=True)
        self.entries, self.moments, self.gone = [], array("H"), 0
        for entry, moment_ms in before:
            if entry.end_due is self:
                entry.end_due = None
                self.entries.append(entry)
                self.moments.append(moment_ms)
        for entry in self.entries:
            entry.end_due = self


class SessionEnds:
    """The ends of all sessions without a connection, but for those that never end."""

    def __init__(
        self,
        runtime: Runtime,
        deadlines: Deadlines,
        expire: Callable[[SessionEntry], None],
    ) -> None:
        """`expire(entry)` is called when the time of a session is over."""
        self._runtime = runtime
        self._deadlines = deadlines
        self._expire = expire
        self._shelves: dict[int, Shelf] = {}  # by number

    def begin(self, entry: SessionEntry, left_ms: int) -> None:
        """Have a session end after so long, unless `cancel` is called."""
        if left_ms < NEAR_MS:
            entry.end_due = self._deadlines.after(left_ms, self._expire, entry)
            return
        now_ms = self._runtime.monotonic_ms()
        number, moment_ms = divmod(now_ms + left_ms, SHELF_MS)
        shelf = self._shelves.get(number)
        if shelf is None:
            shelf = self._shelves[number] = Shelf(number)
            self._deadlines.after(number * SHELF_MS - now_ms, self._take_down, shelf)
        shelf.add(entry, moment_ms)

    def cancel(self, entry: SessionEntry) -> None:
        """Have a session not end."""
        due, entry.end_due = entry.end_due, None
        if isinstance(due, Shelf):
            due.gone += 1
            if due.gone > max(GONE_MIN, len(due.entries) // 2):
                due.tidy()
        elif due is not None:
            self._deadlines.cancel(due)

    def _take_down(self, shelf: Shelf) -> None:
        """The minute has come: give sessions their deadlines, some now and some later."""
        since_ms = self._runtime.monotonic_ms() - shelf.number * SHELF_MS
        for _ in range(min(TAKEN_MAX, len(shelf.entries))):
            entry, moment_ms = shelf.entries.pop(), shelf.moments.pop()
            if entry.end_due is shelf:
                left_ms = max(moment_ms - since_ms, 0)
                entry.end_due = self._deadlines.after(left_ms, self._expire, entry)
        if shelf.entries:
            self._deadlines.after(0, self._take_down, shelf)
        else:
            del self._shelves[shelf.number]
