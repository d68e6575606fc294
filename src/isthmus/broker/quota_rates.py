"""How fast something was used lately, counted as Apache Kafka counts it for its quotas.

`Rate` has samples of a second each and looks back over eleven of them. It takes the time that
it looks at for ten whole samples and what has passed of the newest, so that a client may use in
its first second what is meant for ten, and is then held back until the mean is right again.
`Tokens` is for what comes in bursts: a bucket that starts full, with as much in it [KIP-599].

Times are milliseconds of a clock that never goes back. Not here: whose rates there are, and
what they are held against (throttling.py).
"""

from __future__ import annotations

from typing import Final

SAMPLES: Final = 11  # Kafka's quota.window.num and controller.quota.window.num
SAMPLE_MS: Final = 1000  # quota.window.size.seconds, controller.quota.window.size.seconds
WINDOW_MS: Final = SAMPLES * SAMPLE_MS
WAIT_MS_MAX: Final = (1 << 31) - 1


class Sample:
    """What came from `begun_ms` on, for a second at most; the last of it at `last_ms`."""

    __slots__ = ("amount", "begun_ms", "last_ms")

    def __init__(self, now_ms: int) -> None:
        self.amount = 0.0
        self.begun_ms = now_ms
        self.last_ms = now_ms


class Rate:
    """What came in the last eleven seconds."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: list[Sample] = []  # the oldest first

    def record(self, amount: float, now_ms: int) -> None:
        """Count what came; an amount below 0 takes back what was counted before."""
        self._forget(now_ms)
        samples = self._samples
        if not samples or now_ms - samples[-1].begun_ms >= SAMPLE_MS:
            samples.append(Sample(now_ms))
        samples[-1].amount += amount
        samples[-1].last_ms = now_ms

    def wait_ms(self, bound: float, now_ms: int) -> int:
        """Return how long nothing may come for the mean to be `bound` a second; 0: it is."""
        window_ms = self._window_ms(now_ms)
        rate = sum(sample.amount for sample in self._samples) * 1000 / window_ms
        return _whole((rate / bound - 1) * window_ms) if rate > bound else 0

    def is_idle(self, now_ms: int) -> bool:
        """Whether nothing is counted any more."""
        self._forget(now_ms)
        return not self._samples

    def _window_ms(self, now_ms: int) -> int:
        """Return the time that the mean is about."""
        self._forget(now_ms)
        passed_ms = now_ms - self._samples[0].begun_ms if self._samples else 0
        missing = SAMPLES - 1 - passed_ms // SAMPLE_MS
        return max(1, passed_ms + max(0, missing) * SAMPLE_MS)

    def _forget(self, now_ms: int) -> None:
        samples = self._samples
        while samples and now_ms - samples[0].last_ms >= WINDOW_MS:
            del samples[0]


class Tokens:
    """What may come at once; it fills at a rate, a second, that is said each time."""

    __slots__ = ("_filled_ms", "_left", "_rate")

    def __init__(self) -> None:
        self._left = float("inf")  # full, whatever the rate
        self._filled_ms = 0
        self._rate = 0.0  # as it was said last

    def take(self, amount: float, rate: float, now_ms: int) -> None:
        """Take so much, be it there or not."""
        self._fill(rate, now_ms)
        self._left -= amount

    def wait_ms(self, rate: float, now_ms: int) -> int:
        """Return how long it takes until what was overdrawn is there; 0: nothing is."""
        self._fill(rate, now_ms)
        return _whole(-self._left / rate * 1000) if self._left < 0 else 0

    def is_idle(self, now_ms: int) -> bool:
        """Whether a new one would be the same."""
        self._fill(self._rate, now_ms)
        return self._left == self._rate * SAMPLES

    def _fill(self, rate: float, now_ms: int) -> None:
        came = (now_ms - self._filled_ms) / 1000 * rate
        self._left = min(self._left + came, rate * SAMPLES)
        self._filled_ms = now_ms
        self._rate = rate


def _whole(wait_ms: float) -> int:
    """Return a time as an answer can say it; limits close to 0 make it infinite."""
    return round(min(wait_ms, WAIT_MS_MAX))
