"""How long one turn of the event loop holds up all others: what each client may wait for.

A timer that comes late tells: nothing else on the loop, a read, an acknowledgement, came
earlier either. It ticks seldom, so a hold counts when one of its ticks falls into it: each one
of `TICK_MS` and more, of shorter ones some.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from isthmus.metrics import Histogram

if TYPE_CHECKING:
    from isthmus.runtime import Runtime

logger = logging.getLogger(__name__)

TICK_MS: Final = 50
LONG_MS: Final = 10
HELD_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SAID_MS: Final = 1_000


class LoopMeter:
    """Counts holds of the loop, from `start` on."""

    def __init__(self, runtime: Runtime) -> None:
        self.held = Histogram(HELD_S)  # seconds, of the holds that a tick fell into
        self.longest_ms = 0  # since the start
        self.long_holds = 0  # those of more than `LONG_MS` that a tick fell into
        self._runtime = runtime
        self._due_ms = 0

    def start(self) -> None:
        """Tick from now on."""
        self._due_ms = self._runtime.monotonic_ms() + TICK_MS
        self._runtime.later(TICK_MS, self._tick)

    def _tick(self) -> None:
        late_ms = self._runtime.monotonic_ms() - self._due_ms
        self.held.observe(max(0, late_ms) / 1000)
        if late_ms > LONG_MS:
            self.long_holds += 1
            self.longest_ms = max(self.longest_ms, late_ms)
        if late_ms > SAID_MS:
            logger.warning("everything was held up ms=%d", late_ms)
        self.start()
