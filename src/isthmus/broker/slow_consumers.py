"""Connected clients that do not take what waits for them, counted and told of in the log.

Looked for from time to time: who had deliveries waiting at one look and at the next, and took
none of them meanwhile, is a slow consumer until it takes some. What waits is bounded anyway, as
places in the log (`mqtt/delivery.py`); this says whose it is.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from isthmus.broker.sessions import SessionEntry, SessionTable
    from isthmus.mqtt.session import Session
    from isthmus.runtime import Runtime

logger = logging.getLogger(__name__)

LOOKED_AT_PER_TURN: Final = 10_000
LINES_MAX: Final = 10  # of one look


class SlowConsumers:
    """Who is slow now, and how often somebody became it."""

    def __init__(self, runtime: Runtime, sessions: SessionTable) -> None:
        self.now = 0  # at the last look
        self.total = 0
        self._runtime = runtime
        self._sessions = sessions
        self._period_ms = 0
        self._drops_oldest = False
        self._taken: dict[SessionEntry, int] = {}  # of those for whom something waited
        self._slow: set[SessionEntry] = set()

    def start(self, period_s: int, *, drops_oldest: bool) -> None:
        """Look each `period_s`, from now on.

        `drops_oldest`: where too much waits, what goes is from the queue's front.
        """
        self._period_ms = period_s * 1000
        self._drops_oldest = drops_oldest
        self._runtime.later(self._period_ms, self._look)

    def _look(self) -> None:
        before, self._taken = self._taken, {}
        self._look_at(list(self._sessions.entries.values()), before, set(), 0)

    def _look_at(
        self,
        entries: list[SessionEntry],
        before: dict[SessionEntry, int],
        slow: set[SessionEntry],
        lines: int,
    ) -> None:
        """Look at some, and come back for the others."""
        for entry in entries[-LOOKED_AT_PER_TURN:]:
            session = entry.session
            if entry.connection is None or not session.queue.length:
                continue
            taken = self._taken[entry] = self._taken_by(session)
            if before.get(entry) != taken:
                continue
            slow.add(entry)
            if entry not in self._slow:
                self.total += 1
                lines += 1
                if lines <= LINES_MAX:
                    logger.warning(
                        "client takes nothing client=%s peer=%s waiting=%d",
                        session.client_id,
                        entry.connection.identity,
                        session.queue.length,
                    )
        del entries[-LOOKED_AT_PER_TURN:]
        if entries:
            self._runtime.defer(partial(self._look_at, entries, before, slow, lines))
            return
        self._slow, self.now = slow, len(slow)
        self._runtime.later(self._period_ms, self._look)

    def _taken_by(self, session: Session) -> int:
        """Return how many deliveries have left the queue, but for those dropped from it."""
        gone = session.queue.pushed - session.queue.length
        return gone - session.dropped.queue if self._drops_oldest else gone
