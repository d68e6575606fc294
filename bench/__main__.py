"""The command: choose rows, systems and rounds, measure in turn, print, save.

Within a round every system of a row is measured once, and each round begins with another one,
so no system always follows the same neighbour.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from confluent_kafka import KafkaException

from bench import machine, report
from bench.crowd_rows import crowd_rows
from bench.footprint_rows import footprint_rows
from bench.kafka_rows import kafka_rows
from bench.mqtt_rows import mqtt_rows
from bench.process import BenchError, fresh_directory
from bench.report import Outcome
from bench.retained_rows import retained_rows
from bench.session_rows import session_rows
from bench.subscription_rows import subscription_rows
from bench.sync_rows import sync_rows

if TYPE_CHECKING:
    from bench.process import System
    from bench.rows import Row

SECONDS, SECONDS_QUICK = 3.0, 0.6
ROUNDS, ROUNDS_QUICK = 5, 1
BUSY_PERCENT_MAX = 10


def all_rows() -> list[Row]:
    """Return every row, in the order of the budget."""
    return [
        *mqtt_rows(),
        *retained_rows(),
        *session_rows(),
        *subscription_rows(),
        *kafka_rows(),
        *crowd_rows(),
        *sync_rows(),
        *footprint_rows(),
    ]


def split_names(names: str) -> list[str]:
    """Split a list given as one option."""
    return [name.strip() for name in names.split(",") if name.strip()]


def choose_rows(names: str) -> list[Row]:
    """Return the named rows; all for an empty string."""
    rows = {row.key: row for row in all_rows()}
    unknown = [name for name in split_names(names) if name not in rows]
    if unknown:
        raise click.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(rows)}")
    return [rows[name] for name in split_names(names) or rows]


def available(rows: list[Row], wanted: str) -> tuple[set[str], dict[str, str]]:
    """Return the names of the systems that can run here, and what each one is or lacks."""
    systems = {system.name: system for row in rows for system in row.systems}
    names = [
        name
        for name in systems
        if not wanted or any(name.startswith(word) for word in split_names(wanted))
    ]
    present, versions = set(), {}
    for name in names:
        try:
            versions[name] = systems[name].version()
            present.add(name)
        except BenchError as error:
            versions[name] = f"left out: {error}"
    return present, versions


def measure_row(
    row: Row, systems: list[System], rounds: int, seconds: float, parent: Path
) -> Outcome:
    """Measure one row, all rounds, the systems in turn."""
    outcome = Outcome(row, {system.name: [] for system in systems})
    for number in range(rounds):
        turn = number % max(1, len(systems))
        for system in systems[turn:] + systems[:turn]:
            try:
                with fresh_directory(parent) as directory:
                    found = row.measure(system, directory, seconds)
            except (BenchError, OSError, KafkaException) as error:
                outcome.rounds[system.name].append(None)
                outcome.failures[system.name] = str(error)
                shown = f"failed: {error}"
            else:
                outcome.rounds[system.name].append(found)
                shown = f"{report.figure(found.value)} {row.unit}"
            click.echo(f"  {row.key} round {number + 1} {system.name}: {shown}", err=True)
    return outcome


@click.command()
@click.option("--rows", default="", help="Rows to measure, with commas; all without it.")
@click.option("--systems", default="", help="Beginnings of system names, with commas.")
@click.option("--rounds", type=click.IntRange(min=1), help=f"Rounds, {ROUNDS} without it.")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Seconds of each measurement.")
@click.option("--quick", is_flag=True, help="One short round: does it work at all? Not saved.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=tempfile.gettempdir(),
    help="Where the servers keep their data; decides what fdatasync costs.",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="The JSON file."
)
@click.option("--list", "list_rows", is_flag=True, help="Name the rows and end.")
def main(
    rows: str,
    systems: str,
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    data: Path,
    output: Path | None,
    list_rows: bool,
) -> None:
    """Measure Isthmus and its peers side by side."""
    chosen = choose_rows(rows)
    if list_rows:
        for row in chosen:
            click.echo(f"{row.key:18} {row.title}")
        return
    machine.become_driver()
    present, versions = available(chosen, systems)
    facts: dict[str, Any] = machine.describe(data)
    facts["rounds"] = rounds or (ROUNDS_QUICK if quick else ROUNDS)
    facts["seconds"] = seconds or (SECONDS_QUICK if quick else SECONDS)
    facts["systems"] = versions
    if facts["busy_percent_before"] > BUSY_PERCENT_MAX:
        click.echo("other programs keep this machine busy: trust ratios, not figures", err=True)
    outcomes = [
        measure_row(
            row,
            [system for system in row.systems if system.name in present],
            facts["rounds"],
            facts["seconds"],
            data,
        )
        for row in chosen
    ]
    for line in (*report.fact_lines(facts), *report.table_lines(outcomes)):
        click.echo(line)
    if output is None and not quick:
        output = report.history_path(facts["date"], machine.short_name())
    if output is not None:
        report.save(output, outcomes, facts)
        click.echo(f"saved {output}", err=True)


if __name__ == "__main__":
    main()
