"""What is measured: how a metric is declared, and the histograms that it may be made of.

Components count in plain numbers of their own, and know nothing of this. One table
(`app_metrics.py`) names what they have counted, and is asked when somebody wants to see it, so
nothing is paid for by messages. How it is shown is for `admin/metrics.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of how long something takes, from what a fast disk does on."""


class Histogram:
    """How often values came, by their size: a bucket has those up to its bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one: above all bounds
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """All values so far."""
        return sum(self.counts)


Value: TypeAlias = "int | float | Histogram"
Values: TypeAlias = "Value | Mapping[tuple[str, ...], Value]"


class Metric(NamedTuple):
    """One metric: its name, as Prometheus has them, and what it says.

    `collect(sources)` returns its value, or values by those of its labels, in their order.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    collect: Callable[[Any], Values]
    labels: tuple[str, ...] = ()
