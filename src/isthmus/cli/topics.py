"""`isthmus topics`: list, describe, create and delete log topics over the Kafka protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isthmus.cli.kafka_login import kafka_options, server_of
from isthmus.cli.offline import at_time, in_units
from isthmus.cli.options import pairs_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isthmus.cli.kafka_client import PartitionView

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


all_option = click.option(
    "--all", "with_internal", is_flag=True, help="The server's own as well."
)


@click.group(invoke_without_command=True)
@kafka_options
@json_option
@all_option
@click.pass_context
def topics(context: click.Context, /, **options: Any) -> None:
    """Look at log topics, create and delete them; without a command, list them."""
    if context.invoked_subcommand is None:
        context.invoke(list_topics, **options)
    elif any(
        context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in options
    ):
        raise click.UsageError(f"options go behind the command {context.invoked_subcommand}")


@topics.command("list")
@kafka_options
@json_option
@all_option
def list_topics(*, as_json: bool, with_internal: bool, **where: Any) -> None:
    """List the log topics: records, offsets, bytes, times of records, what is kept how long."""
    from isthmus.cli.kafka_client import KafkaShore, LogView

    view = LogView(KafkaShore(server_of(**where)))
    names = [name for name in view.topics() if with_internal or not name.startswith("__")]
    found = view.survey(sorted(names))
    settings = view.settings(sorted(names))
    show(
        [topic_row(name, found[name], settings[name], as_json=as_json) for name in found],
        as_json=as_json,
    )


def topic_row(
    name: str,
    partitions: Sequence[PartitionView],
    settings: Mapping[str, str],
    *,
    as_json: bool,
) -> dict[str, Any]:
    """Return a log topic as a row; sizes and times in numbers for JSON, in words for people."""
    sizes = [each.size_bytes for each in partitions if each.size_bytes is not None]
    oldest = min((each.oldest_ms for each in partitions if each.oldest_ms >= 0), default=-1)
    newest = max((each.newest_ms for each in partitions), default=-1)
    row: dict[str, Any] = {
        "log_topic": name,
        "partitions": len(partitions),
        "records": sum(each.end_offset - each.start_offset for each in partitions),
    }
    kept = {
        "cleanup_policy": settings.get("cleanup.policy"),
        "durability": settings.get("isthmus.durability"),
    }
    if as_json:
        offsets = [[each.start_offset, each.end_offset] for each in partitions]
        limits = {
            "retention_ms": number_of(settings.get("retention.ms")),
            "retention_bytes": number_of(settings.get("retention.bytes")),
        }
        size = sum(sizes) if sizes else None
        times = {"oldest_ms": oldest, "newest_ms": newest}
        return {**row, "bytes": size, "offsets": offsets, **times, **limits, **kept}
    return {
        **row,
        "offsets": offsets_in_words(partitions),
        "bytes": in_units(sum(sizes)) if sizes else "-",
        "oldest": at_time(oldest),
        "newest": at_time(newest),
        "retention": retention_in_words(settings),
        **{name: value or "-" for name, value in kept.items()},
    }


def offsets_in_words(partitions: Sequence[PartitionView]) -> str:
    """Return the first and the last offset, or of many partitions the outermost."""
    start = min((each.start_offset for each in partitions), default=0)
    end = max((each.end_offset for each in partitions), default=0)
    return f"{start} to {end - 1}" if end > start else "-"


def retention_in_words(settings: Mapping[str, str]) -> str:
    """Return how long and up to which size records are kept."""
    if "delete" not in settings.get("cleanup.policy", "delete"):
        return "newest of a key"
    limits = []
    age = number_of(settings.get("retention.ms"))
    if age is not None and age >= 0:
        limits.append(duration_in_words(age))
    size = number_of(settings.get("retention.bytes"))
    if size is not None and size >= 0:
        limits.append(in_units(size))
    return " or ".join(limits) or "for ever"


def duration_in_words(milliseconds: int) -> str:
    """Return a time in the largest unit that says it in full."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if milliseconds >= size and milliseconds % size == 0:
            return f"{milliseconds // size} {unit}"
    return f"{milliseconds} ms"


def number_of(text: str | None) -> int | None:
    """Return a setting's number, None where it is not known."""
    return None if text is None else int(text)


@topics.command()
@kafka_options
@json_option
@click.argument("log_topic")
def describe(log_topic: str, *, as_json: bool, **where: Any) -> None:
    """Show a log topic's partitions with offsets and sizes, and the settings it was given."""
    from isthmus.cli.kafka_client import KafkaShore, LogView

    view = LogView(KafkaShore(server_of(**where)))
    view.topics(log_topic)
    partitions = view.survey([log_topic])[log_topic]
    configs = view.configs(log_topic)
    rows: list[dict[str, Any]] = [
        {
            "partition": each.partition,
            "start_offset": each.start_offset,
            "end_offset": each.end_offset,
            "bytes": each.size_bytes,
            "oldest_ms": each.oldest_ms,
            "newest_ms": each.newest_ms,
        }
        for each in partitions
    ]
    if as_json:
        described = {"log_topic": log_topic, "configs": configs, "partitions": rows}
        click.echo(json.dumps(described))
        return
    for row in rows:
        size = row.pop("bytes")
        oldest, newest = row.pop("oldest_ms"), row.pop("newest_ms")
        row["bytes"] = "-" if size is None else in_units(size)
        row["oldest"], row["newest"] = at_time(oldest), at_time(newest)
    show(rows)
    for name, value in sorted(configs.items()):
        click.echo(f"{name}={value}")


topics.add_command(describe, "show")


@topics.command()
@kafka_options
@click.option("-p", "--partitions", type=click.IntRange(1), help="How many; else the server's.")
@click.option("-c", "--config", "configs", multiple=True, metavar="NAME=VALUE")
@click.argument("log_topics", nargs=-1, required=True)
def create(
    partitions: int | None,
    configs: tuple[str, ...],
    log_topics: tuple[str, ...],
    **where: Any,
) -> None:
    """Create log topics, all alike."""
    given = dict(pairs_of(configs, "--config"))

    from isthmus.cli.kafka_client import KafkaShore, LogView

    view = LogView(KafkaShore(server_of(**where)))
    for name in log_topics:
        view.create(name, partitions, given)


@topics.command()
@kafka_options
@click.argument("log_topics", nargs=-1, required=True)
def delete(log_topics: tuple[str, ...], **where: Any) -> None:
    """Delete log topics with all their records."""
    from isthmus.cli.kafka_client import KafkaShore, LogView

    view = LogView(KafkaShore(server_of(**where)))
    for name in log_topics:
        view.delete(name)


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool = False) -> None:
    """Print rows of one shape: one JSON object on each line, or columns under their names."""
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    if not rows:
        return
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(text.rstrip())
