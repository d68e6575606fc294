"""What is measured: the rows of the table, and one measurement of one row.

A row knows its systems, its unit, the bar and the aim of DESIGN 8, and how to measure one
system once. Not here: rounds and their order (__main__.py), the figures on paper (report.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.process import System


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row, one system, one round. None means that the row has no such figure."""

    value: float
    messages: int | None = None
    cpu_s: float | None = None
    lost: int | None = None
    details: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_s_per_million(self) -> float | None:
        """Return the server's CPU seconds per million messages."""
        if self.cpu_s is None or not self.messages:
            return None
        return self.cpu_s / self.messages * 1_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the budget. `peer` names the system that the ratios compare with."""

    key: str
    title: str
    unit: str
    systems: Sequence[System]
    measure: Callable[[System, Path, float], Measurement]
    peer: str | None = None
    bar: str = ""
    aim: str = ""
    more_is_better: bool = True
