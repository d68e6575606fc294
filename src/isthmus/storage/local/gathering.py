"""Whether a round of syncing waits a moment for those whom the last one has answered.

A client with a window sends again once it is answered. A round that begins at once covers what
came while the last one was under way, and those whom that one has answered come too late for
it: every window is cut into two, and pays for two rounds. A window shows by its ceiling: so
many records are outstanding at the end of many rounds, and never more. Where there is one,
those who were answered are waited for, until most are back. If then few come while the round is
under way, that was right: everybody was in it. If many do, or most are not back in time, they
send when they have something to say and not when they may. Then nobody is waited for any more,
and the ceiling has to show for twice as long until that is tried again.

Counted in records, which windows are made of. Not here: the rounds (sync.py). Compiled, see
`gathering.pxd`.
"""

from __future__ import annotations

from typing import Final

WAIT_ROUNDS: Final = 2  # is waited for at most, in lengths of the last round
WAIT_MAX_S: Final = 0.010  # and however long that took
HIT: Final = 3  # counts as much for a ceiling as three rounds below it against it
SURE_MIN: Final = 8 * HIT  # from here on it is believed
SURE_MAX: Final = 8192 * HIT


class Gathering:
    """Looks at each round that ends, and may hold the next one."""

    __slots__ = (
        "_ceiling",
        "_has_held",
        "_score",
        "_sure",
        "_until_s",
        "_wanted",
        "is_on",
    )

    def __init__(self) -> None:
        self.is_on = False  # the next round is to be asked about
        self._ceiling = 0  # records answered and waiting at the end of a round, at most
        self._has_held = False  # the round under way was
        self._score = 0  # how well the ceiling shows
        self._sure = SURE_MIN  # from which score on it is believed
        self._until_s = 0.0
        self._wanted = 0  # records that the next round waits for

    def ended(self, now_s: float, seconds: float, answered: int, waiting: int) -> None:
        """A round of so many seconds has answered for records; others came meanwhile."""
        outstanding = answered + waiting
        if outstanding * 16 > self._ceiling * 17 or self._score < 0:
            self._ceiling = outstanding
            self._score = 0
        elif outstanding * 16 < self._ceiling * 15:
            self._score -= 1
        else:
            self._score = min(self._score + HIT, 2 * self._sure)
        if self._has_held:
            self._has_held = False
            if waiting * 4 > answered:
                self._give_up()
            else:
                self._sure = SURE_MIN
        self._wanted = (self._ceiling * 7 + 7) // 8
        self._until_s = now_s + min(seconds * WAIT_ROUNDS, WAIT_MAX_S)
        self.is_on = self._score >= self._sure

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
        self._score = 0
        self._sure = min(2 * self._sure, SURE_MAX)
