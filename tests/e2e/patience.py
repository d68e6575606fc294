"""How the tests wait, so that a slow machine makes them slower and never makes them fail.

What has to happen is waited for, up to `TIMEOUT_S`, which only a hang reaches. What must not
happen too early is measured: a lower bound holds on any machine. What a client has to do within
a time that the server counts, such as to come back or to send a ping, is tried again with a
longer time where this machine was too slow for the short one (`in_time`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_S: Final = 180.0
HANG_S: Final = 900.0
"""After so long a test is ended from outside: above what its own waits come to."""
TICK_S: Final = 0.001
"""Servers count in whole milliseconds: what they wait may be shorter by less than one."""
LIMITS_S: Final = (1, 4, 16, 64)


class TooSlow(Exception):
    """This side took longer than the limit that it was to keep, so the test says nothing."""


def wait_until(
    condition: Callable[[], object],
    what: str | Callable[[], str],
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Poll until a condition holds, or fail naming it."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= end:
            named = what if isinstance(what, str) else what()
            raise AssertionError(f"{named} did not happen within {timeout_s} s")
        time.sleep(0.01)


def in_time(attempt: Callable[[int], None]) -> None:
    """Make an attempt with a limit of a second, and with longer ones while it is `TooSlow`."""
    for limit_s in LIMITS_S:
        try:
            attempt(limit_s)
        except TooSlow:
            continue
        return
    raise AssertionError(f"this machine is too slow for a limit of {limit_s} s")


def keep_within(limit_s: float, since_s: float) -> None:
    """Raise TooSlow unless less than `limit_s` have passed since then, on this side's clock."""
    if time.monotonic() - since_s >= limit_s - TICK_S:
        raise TooSlow
