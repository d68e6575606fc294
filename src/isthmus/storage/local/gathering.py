"""Whether a round of syncing waits a moment for those whom the last one has answered.

A client with a window sends again once it is answered. A round that begins at once covers what
came while the last one was under way, and those whom that one has answered come too late for
it: every window is cut into two, and pays for two rounds. So where as many records as before
are outstanding at the end of each round, which is how windows show, those who were answered are
waited for, until most are back. If then few come while the round is under way, that was right:
everybody was in it. If many do, or most are not back in time, they send when they have
something to say and not when they may. Then nobody is waited for any more, and it takes twice
as many steady rounds until that is tried again.

Counted in records, which windows are made of. Not here: the rounds (sync.py). Compiled, see
`gathering.pxd`.
"""

from __future__ import annotations

from typing import Final

WAIT_ROUNDS: Final = 2  # is waited for at most, in lengths of the last round
WAIT_MAX_S: Final = 0.010  # and however long that took
STEADY_MIN: Final = 8  # rounds with as much outstanding, before one waits
STEADY_MAX: Final = 8192


class Gathering:
    """Looks at each round that ends, and may hold the next one."""

    __slots__ = (
        "_has_held",
        "_outstanding",
        "_steady",
        "_steady_min",
        "_until_s",
        "_wanted",
        "is_on",
    )

    def __init__(self) -> None:
        self.is_on = False  # the next round is to be asked about
        self._has_held = False  # the round under way was
        self._outstanding = 0  # records answered and waiting when the last round ended
        self._steady = 0  # rounds for which that was so
        self._steady_min = STEADY_MIN
        self._until_s = 0.0
        self._wanted = 0  # records that the next round waits for

    def ended(self, now_s: float, seconds: float, answered: int, waiting: int) -> None:
        """A round of so many seconds has answered for records; others came meanwhile."""
        outstanding = answered + waiting
        if abs(outstanding - self._outstanding) * 16 > outstanding:
            self._steady = 0
        elif self._has_held and waiting * 4 > answered:
            self._give_up()
        else:
            self._steady += 1
        if self._has_held and self._steady:
            self._steady_min = STEADY_MIN
        self._has_held = False
        self._outstanding = outstanding
        self._wanted = (outstanding * 7 + 7) // 8
        self._until_s = now_s + min(seconds * WAIT_ROUNDS, WAIT_MAX_S)
        self.is_on = self._steady >= self._steady_min

    def holds(self, now_s: float, waiting: int) -> bool:
        """Whether the next round has to wait, with so many records there; only while on."""
        if waiting < self._wanted and now_s < self._until_s:
            return True
        self.is_on = False
        self._has_held = True
        if waiting * 2 < self._wanted:
            self._give_up()
        return False

    def _give_up(self) -> None:
        self._steady = 0
        self._steady_min = min(2 * self._steady_min, STEADY_MAX)
