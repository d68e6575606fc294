"""The figures on paper: one table for the eye, one JSON file for the history.

A value is the median of its rounds; spread is (largest - smallest) / median. A ratio to the
peer is the median of the ratios round by round, so that what slows the whole machine for a
while slows both sides of each ratio.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.rows import Measurement, Row

HISTORY = Path(__file__).parent / "history"
LINE = "  {:<17}{:>13} {:<6}{:>8}{:>9}{:>8}{:>8}  {}"
HEADING = LINE.format("system", "median", "", "spread", "CPU s/M", "lost", "x peer", "more")
CEILING = "ceiling"
NEAR_CEILING = 0.8


@dataclass(slots=True)
class Outcome:
    """What one row brought: per system the measurement of each round, or why there is none."""

    row: Row
    rounds: dict[str, list[Measurement | None]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def measured(self, system: str) -> list[Measurement]:
        """Return the rounds of `system` that succeeded."""
        return [one for one in self.rounds.get(system, []) if one is not None]

    def median(self, system: str) -> float | None:
        """Return the median value, None where nothing was measured."""
        values = [one.value for one in self.measured(system)]
        return statistics.median(values) if values else None

    def spread(self, system: str) -> float | None:
        """Return (largest - smallest) / median, None below two rounds."""
        values = [one.value for one in self.measured(system)]
        middle = self.median(system)
        if len(values) < 2 or not middle:
            return None
        return (max(values) - min(values)) / middle

    def cpu_s_per_million(self, system: str) -> float | None:
        """Return the median CPU seconds of the server per million messages."""
        values = [
            cost for one in self.measured(system) if (cost := one.cpu_s_per_million) is not None
        ]
        return statistics.median(values) if values else None

    def lost(self, system: str) -> int | None:
        """Return what was lost in all rounds together."""
        values = [one.lost for one in self.measured(system) if one.lost is not None]
        return sum(values) if values else None

    def ratio(self, system: str) -> float | None:
        """Return the median of this system's value over the peer's, round by round."""
        if self.row.peer is None or system in (self.row.peer, CEILING):
            return None
        pairs = zip(
            self.rounds.get(system, []), self.rounds.get(self.row.peer, []), strict=False
        )
        ratios = [
            mine.value / theirs.value
            for mine, theirs in pairs
            if mine and theirs and theirs.value
        ]
        return statistics.median(ratios) if ratios else None

    def details(self, system: str) -> dict[str, float]:
        """Return the medians of the further figures."""
        rounds = self.measured(system)
        names = rounds[0].details if rounds else {}
        return {name: statistics.median(one.details[name] for one in rounds) for name in names}

    def near_ceiling(self, system: str) -> bool:
        """Tell whether the load generator, not the server, set this figure."""
        mine, ceiling = self.median(system), self.median(CEILING)
        if mine is None or ceiling is None or system == CEILING or not self.row.more_is_better:
            return False
        return mine > NEAR_CEILING * ceiling


def figure(value: float | None) -> str:
    """Write a figure with three or more significant digits and no more than the eye needs."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def table_lines(outcomes: list[Outcome]) -> list[str]:
    """Return the table: for each row its title, bar and aim, then one line per system."""
    lines = []
    for outcome in outcomes:
        row = outcome.row
        goal = f"   [bar: {row.bar} | aim: {row.aim}]" if row.bar else ""
        lines += ["", f"{row.key}: {row.title}{goal}", HEADING.rstrip()]
        systems = [one.name for one in row.systems if one.name in outcome.rounds]
        lines += [_system_line(outcome, system) for system in systems]
        lines += [f"    {name}: {reason}" for name, reason in outcome.failures.items()]
    return lines


def _system_line(outcome: Outcome, system: str) -> str:
    spread, lost, ratio = outcome.spread(system), outcome.lost(system), outcome.ratio(system)
    notes = [f"{name} {figure(value)}" for name, value in outcome.details(system).items()]
    if outcome.near_ceiling(system):
        notes.append("NEAR THE CEILING: the generator's figure")
    cells = (
        system,
        figure(outcome.median(system)) or "failed",
        outcome.row.unit,
        "" if spread is None else f"{spread:.0%}",
        figure(outcome.cpu_s_per_million(system)),
        "" if lost is None else f"{lost:,}",
        "" if ratio is None else f"{ratio:.2f}",
        ", ".join(notes),
    )
    return LINE.format(*cells).rstrip()


def fact_lines(facts: dict[str, Any]) -> list[str]:
    """Return the facts of the machine, one a line."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines.append(f"{name}:")
            lines += [f"  {inner}: {what}" for inner, what in value.items()]
        else:
            lines.append(f"{name}: {value}")
    return lines


def as_json(outcomes: list[Outcome], facts: dict[str, Any]) -> dict[str, Any]:
    """Return everything that was measured, every round included."""
    rows = {}
    for outcome in outcomes:
        rows[outcome.row.key] = {
            "title": outcome.row.title,
            "unit": outcome.row.unit,
            "bar": outcome.row.bar,
            "aim": outcome.row.aim,
            "peer": outcome.row.peer,
            "systems": {
                system: {
                    "median": outcome.median(system),
                    "spread": outcome.spread(system),
                    "cpu_s_per_million": outcome.cpu_s_per_million(system),
                    "lost": outcome.lost(system),
                    "ratio_to_peer": outcome.ratio(system),
                    "details": outcome.details(system),
                    "failure": outcome.failures.get(system),
                    "rounds": [one and asdict(one) for one in rounds],
                }
                for system, rounds in outcome.rounds.items()
            },
        }
    return {"facts": facts, "rows": rows}


def history_path(date: str, machine_name: str) -> Path:
    """Return a free name for a run of `date` (ISO) on the machine."""
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        path = HISTORY / f"{date[:10]}-{machine_name}{suffix}.json"
        if not path.exists():
            return path
        number += 1


def save(path: Path, outcomes: list[Outcome], facts: dict[str, Any]) -> None:
    """Write the JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(outcomes, facts), indent=1) + "\n")
