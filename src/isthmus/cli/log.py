"""`isthmus log`: look into the data directory itself, check it, mend it; no server needed.

`dump` prints what files hold, `verify` reads everything and says what is wrong, `repair` puts
it right and keeps what it takes out. Exit status: 0 all is well, 1 damage was found (or is
left), 2 it could not be looked at. The work is done in storage/local/ (inspect.py, repair.py);
here it is put into words, or into JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from isthmus.cli.offline import (
    CouldNotLook,
    OfflineRuntime,
    at_time,
    data_options,
    directory_of,
    in_units,
    progress_bar,
    reason_of,
)
from isthmus.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isthmus.storage.local.findings import Finding, PartitionReport
    from isthmus.storage.local.inspect import Inspection, Place
    from isthmus.storage.local.repair import Step

DAMAGED: Final = 1
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")


@click.group()
def log() -> None:
    """Look into a data directory: print it, verify it, repair it."""


# --- dump -------------------------------------------------------------------------------------


@log.command()
@data_options
@json_option
@click.option("--offset", type=click.IntRange(0), default=0, help="Begin at this offset.")
@click.option("--count", type=click.IntRange(1), help="End after so many rows.")
@click.option("--records/--batches", default=False, help="Print records; else batch headers.")
@click.argument("what", required=False, metavar="[TOPIC[-PARTITION] | FILE]")
def dump(
    file: Path | None,
    data: str | None,
    what: str | None,
    offset: int,
    count: int | None,
    **flags: bool,
) -> None:
    """Print what is in a log, or in one file of the data directory.

    FILE may be any file of the layout: .log, .index, .timeindex, .txnindex, .snapshot, the
    checkpoints, the catalog, a .wal of the journal. Without an argument: the log topics and
    their partitions. The records of the server's own log topics are decoded. A server may be
    running.
    """
    from isthmus.cli.log_dump import LogDump, Rows, file_rows, overview_rows
    from isthmus.storage.local.files import Files

    files = Files()
    log_dump = LogDump(files, offset, records=flags["records"])
    rows: Iterator[dict[str, Any]]
    try:
        if what is not None and Path(what).is_file():
            rows = file_rows(files, Path(what), log_dump)
        elif what is not None and "/" in what:
            raise CouldNotLook(f"there is no file {what}")
        else:
            look = inspection_of(directory_of(file, data))
            if what is None:
                rows = overview_rows(files, look)
            else:
                places = places_of(look, [what])
                rows = chain.from_iterable(log_dump.partition(look, one) for one in places)
        printed = Rows(as_json=flags["as_json"])
        for row in islice(rows, count):
            printed.show(row)
    except OSError as error:
        why = reason_of(error)
        raise CouldNotLook(f"{what or 'the directory'} cannot be read: {why}") from error


# --- verify -----------------------------------------------------------------------------------


@log.command()
@data_options
@json_option
@click.argument("log_topics", nargs=-1, metavar="[TOPIC[-PARTITION]]...")
@click.pass_context
def verify(
    context: click.Context,
    file: Path | None,
    data: str | None,
    log_topics: tuple[str, ...],
    as_json: bool,
) -> None:
    """Read everything and say what is wrong, where, and what to do.

    Every batch and record is read and held against its checksum, its neighbours and the files
    beside it. Nothing is changed, and a server may be running. Ends with status 1 where damage
    is found, 2 where the directory cannot be read.
    """
    directory = directory_of(file, data)
    damaged = 0
    try:
        look = inspection_of(directory)
        places = places_of(look, log_topics)
        tell_directory(look, as_json=as_json)
        with progress_bar(look.bytes_to_read(places), "verifying") as progress:
            for place in places:
                report = look.inspect(place, progress)
                damaged += report.is_damaged
                tell_partition(report, as_json=as_json)
    except OSError as error:
        raise CouldNotLook(f"{directory} cannot be read: {reason_of(error)}") from error
    damaged_directory = any(finding.is_damage for finding in look.findings)
    if not as_json:
        click.echo(summary(len(places), damaged, damaged_directory=damaged_directory))
    context.exit(DAMAGED if damaged or damaged_directory else 0)


def inspection_of(directory: Path) -> Inspection:
    """Begin to look at a directory. Raises ConfigError, OSError."""
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.inspect import Inspection

    return Inspection(Files(), directory)


def places_of(look: Inspection, words: Sequence[str]) -> list[Place]:
    """Return the partitions that the words name, by log topic or as TOPIC-PARTITION."""
    if not words:
        return look.places
    found = [place for place in look.places if {place.log_topic, place.name} & set(words)]
    known = {name for place in found for name in (place.log_topic, place.name)}
    for word in words:
        if word not in known:
            raise CouldNotLook(f"{look.path} holds no log topic or partition {word}")
    return found


def tell_directory(look: Inspection, *, as_json: bool) -> None:
    """Print what is to be said of the directory as a whole."""
    state = "closed in good order" if look.is_closed else "not closed in good order"
    state = "in use by a server" if look.is_in_use else state
    if as_json:
        findings = [fields_of(finding) for finding in look.findings]
        line = {"directory": str(look.path), "state": state, "findings": findings}
        click.echo(json.dumps(line))
        return
    click.echo(f"{look.path}: {state}, {len(look.places)} partitions")
    tell_findings([each for each in look.findings if each.kind != "unclosed"])  # said already


def tell_partition(report: PartitionReport, *, as_json: bool) -> None:
    """Print what was found in one partition."""
    if as_json:
        line: dict[str, Any] = {**asdict(report), "is_damaged": report.is_damaged}
        line["findings"] = [fields_of(finding) for finding in report.findings]
        click.echo(json.dumps(line))
        return
    word = click.style("DAMAGED", fg="red") if report.is_damaged else "ok"
    held = "no records"
    if report.records:
        held = (
            f"offsets {report.start_offset} to {report.end_offset - 1}, {report.records} "
            f"records, {in_units(report.size_bytes)} in {report.segments} segments"
        )
    if report.newest_ms >= 0:
        held += f", {at_time(report.oldest_ms)} to {at_time(report.newest_ms)}"
    click.echo(f"{report.log_topic}-{report.index}: {word}, {held}")
    tell_findings(report.findings)


def tell_findings(findings: Sequence[Finding]) -> None:
    """Print what is wrong and where; for each kind what it means and what to do."""
    kinds = dict.fromkeys((finding.kind, finding.is_damage) for finding in findings)
    for kind, is_damage in kinds:
        mark = click.style("damage", fg="red") if is_damage else "note"
        alike = [one for one in findings if (one.kind, one.is_damage) == (kind, is_damage)]
        for one in alike:
            where = one.file
            if one.position >= 0:
                where += f", bytes {one.position} to {one.end}"
            click.echo(f"  {mark}: {where}: {one.detail}")
        click.echo(f"    it means: {alike[0].means}")
        click.echo(f"    to do: {alike[0].advice}")


def fields_of(finding: Finding) -> dict[str, Any]:
    """Return a finding for JSON, without what does not apply."""
    found = {name: value for name, value in asdict(finding).items() if value != -1}
    words = {"means": finding.means, "advice": finding.advice}
    return {**found, "is_damage": finding.is_damage, **words}


def summary(partitions: int, damaged: int, *, damaged_directory: bool) -> str:
    """Return the last line."""
    if damaged:
        return f"damage in {damaged} of {partitions} partitions"
    if damaged_directory:
        return f"{partitions} partitions are well, the directory is not: see above"
    return f"all {partitions} partitions are well"


# --- repair -----------------------------------------------------------------------------------


@log.command()
@data_options
@click.option("--yes", is_flag=True, help="Do it; else only say what would be done.")
@click.argument("log_topics", nargs=-1, metavar="[TOPIC[-PARTITION]]...")
@click.pass_context
def repair(
    context: click.Context,
    file: Path | None,
    data: str | None,
    yes: bool,
    log_topics: tuple[str, ...],
) -> None:
    """Put right what `verify` finds; nothing is deleted, nothing happens without --yes.

    For a directory that no server has open. What is taken out is moved to set-aside/ in the
    data directory first. Records behind damage stay, at their offsets. Without --yes it ends
    with status 1 where there is something to do; with --yes, where damage is left.
    """
    directory = directory_of(file, data)
    try:
        look = inspection_of(directory)
        if look.is_in_use:
            raise ConfigError(f"{directory} is in use: stop the server, then repair")
        places = places_of(look, log_topics)
        if yes:
            left = mend(look, places, in_full=not log_topics)
        else:
            left = plan(look, places)
    except (OSError, StorageError) as error:
        why = reason_of(error)
        raise CouldNotLook(f"the repair of {directory} did not end: {why}") from error
    context.exit(DAMAGED if left else 0)


def plan(look: Inspection, places: Sequence[Place]) -> bool:
    """Print what a repair would do; whether that is anything."""
    from isthmus.storage.local.repair import planned

    steps = planned(look.findings)
    with progress_bar(look.bytes_to_read(places), "verifying") as progress:
        for place in places:
            steps += planned(look.inspect(place, progress).findings)
    for step in steps:
        tell_step(step)
    click.echo("nothing was changed: --yes does it" if steps else "there is nothing to repair")
    return bool(steps)


def mend(look: Inspection, places: Sequence[Place], *, in_full: bool) -> bool:
    """Repair and say each step; whether damage is left."""
    from isthmus.broker.retained import RETAINED_CONFIGS, RETAINED_LOG_TOPIC
    from isthmus.broker.session_log import SESSIONS_CONFIGS, SESSIONS_LOG_TOPIC
    from isthmus.kafka.group_records import GROUPS_CONFIGS, GROUPS_LOG_TOPIC
    from isthmus.storage.local.files import Files
    from isthmus.storage.local.repair import Repair

    configs = {
        GROUPS_LOG_TOPIC: GROUPS_CONFIGS,
        RETAINED_LOG_TOPIC: RETAINED_CONFIGS,
        SESSIONS_LOG_TOPIC: SESSIONS_CONFIGS,
    }
    steps: list[Step] = []

    def tell(step: Step) -> None:
        steps.append(step)
        tell_step(step)

    names = {place.name for place in places}
    task = Repair(Files(), look.path, OfflineRuntime(), configs, tell)
    total = look.bytes_to_read(places)
    total += 0 if look.is_closed else look.bytes_to_read(look.places)  # for the recovery
    with progress_bar(total, "repairing") as progress:
        reports = task.run(lambda place: in_full or place.name in names, progress)
    for report in reports:
        tell_partition(report, as_json=False)
    if not steps:
        click.echo("there was nothing to repair")
    return any(report.is_damaged for report in reports)


def tell_step(step: Step) -> None:
    """Print one step."""
    click.echo(f"{step.file}: {step.what}")
    if step.set_aside:
        click.echo(f"  kept in {step.set_aside}")
