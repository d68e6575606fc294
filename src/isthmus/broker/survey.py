"""What waits for all MQTT sessions together, added up when somebody asks.

Nobody keeps such sums while messages come and go. There may be a million sessions, so they are
looked at some at a time, between the turns of others; what comes meanwhile may count or not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.sessions import SessionEntry, SessionTable
    from isthmus.runtime import Runtime

LOOKED_AT_PER_TURN: Final = 10_000


class Waiting(NamedTuple):
    """Deliveries of all sessions."""

    queued: int = 0
    in_flight: int = 0  # sent at QoS 1 or 2, and not acknowledged


def survey(runtime: Runtime, sessions: SessionTable, done: Callable[[Waiting], object]) -> None:
    """Give `done` what waits, perhaps within this call."""
    _look(runtime, list(sessions.entries.values()), Waiting(), done)


def _look(
    runtime: Runtime,
    entries: list[SessionEntry],
    found: Waiting,
    done: Callable[[Waiting], object],
) -> None:
    portion = [entry.session for entry in entries[-LOOKED_AT_PER_TURN:]]
    del entries[-LOOKED_AT_PER_TURN:]
    found = Waiting(
        found.queued + sum(session.queue.length for session in portion),
        found.in_flight + sum(len(session.inflight) for session in portion),
    )
    if entries:
        runtime.defer(partial(_look, runtime, entries, found, done))
    else:
        done(found)
