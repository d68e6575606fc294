"""The report of a load on a terminal: tables of what there is to say, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from isthmus.cli.offline import in_units

if TYPE_CHECKING:
    from isthmus.load.report import Report

RATES: Final = ("published", "produced", "acknowledged", "delivered", "consumed")

ALWAYS: Final = frozenset({"published", "lost", "doubled"})


def print_report(report: Report) -> None:
    """Print rates, latencies, and what went wrong."""
    said = report.as_dict()
    console = Console()
    console.print(rates(said), latencies(said["latency_ms"]), account(said), sep="\n")


def new_table(title: str) -> Table:
    """Return a table without frills."""
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)


def rates(said: dict[str, Any]) -> Table:
    """Return how much there was in the measured time."""
    table = new_table(f"{said['server']}, {said['seconds']:.3g} s")
    for name in ("", "messages", "messages/s", "payload/s"):
        table.add_column(name, justify="left" if not name else "right")
    for name in RATES:
        row = said.get(name)
        if row is not None:
            table.add_row(
                name,
                f"{row['messages']:,}",
                f"{row['messages_per_s']:,.0f}",
                in_units(int(row["bytes_per_s"])),
            )
    return table


def latencies(said: dict[str, Any]) -> Table:
    """Return the percentiles of what was measured."""
    names = ("p50", "p90", "p99", "p99.9", "max")
    table = new_table("latency, ms")
    for name in ("", *names):
        table.add_column(name, justify="left" if not name else "right")
    for what, found in said.items():
        if found is not None:
            table.add_row(what, *(f"{found[name]:,.3f}" for name in names))
    return table


def account(said: dict[str, Any]) -> Table:
    """Return what is to be known of every message and connection, errors last."""
    table = new_table("the account of all phases")
    table.show_header = False
    table.add_column()
    table.add_column(justify="right")
    for group in ("all_phases", "connections"):
        for name, value in said.get(group, {}).items():
            if value or name in ALWAYS:
                table.add_row(name.replace("_", " "), f"{value:,}")
    for text, count in said["errors"].items():
        table.add_row(f"[red]{text}[/red]", f"{count:,}")
    good = "[green]all is accounted for[/green]"
    table.add_row(good if said["good"] else "[red]that is not as it should be[/red]", "")
    return table
