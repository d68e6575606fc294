"""What a timer that comes late says of the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim import SimRuntime

from isthmus.server.loop_meter import TICK_MS, LoopMeter

if TYPE_CHECKING:
    import pytest


class BusyRuntime(SimRuntime):
    """A world in which something else takes its time before a timer is looked at."""

    hold_ms = 0

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self.hold_ms


def test_the_longest_hold_is_known() -> None:
    runtime = BusyRuntime()
    meter = LoopMeter(runtime)
    meter.start()
    runtime.advance(100 * TICK_MS)
    assert (meter.longest_ms, meter.long_holds) == (0, 0)
    for hold_ms in (5, 40, 90, 30):  # each the later by what came before it
        runtime.hold_ms += hold_ms
        runtime.advance(TICK_MS)
    assert (meter.longest_ms, meter.long_holds) == (90, 3)


def test_a_hold_that_everybody_notices_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    runtime = BusyRuntime()
    LoopMeter(runtime).start()
    runtime.hold_ms = 1_500
    runtime.advance(TICK_MS)
    assert [record.getMessage() for record in caplog.records] == [
        "everything was held up ms=1500"
    ]
