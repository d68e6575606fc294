"""`isthmus topics`: list, describe, create and delete log topics over the Kafka protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isthmus.cli.options import kafka_option, pairs_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isthmus.config import Listener

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


all_option = click.option(
    "--all", "with_internal", is_flag=True, help="The server's own as well."
)


@click.group(invoke_without_command=True)
@kafka_option
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
@kafka_option
@json_option
@all_option
def list_topics(kafka: Listener, **flags: bool) -> None:
    """List the log topics with their partitions and records."""
    from isthmus.cli.kafka_client import KafkaShore, LogView

    view = LogView(KafkaShore(kafka))
    rows = []
    for name, found in sorted(view.topics().items()):
        if flags["with_internal"] or not name.startswith("__"):
            ranges = view.ranges(name, found)
            records = sum(end - start for start, end in ranges.values())
            rows.append({"log_topic": name, "partitions": len(ranges), "records": records})
    show(rows, as_json=flags["as_json"])


@topics.command()
@kafka_option
@json_option
@click.argument("log_topic")
def describe(kafka: Listener, log_topic: str, as_json: bool) -> None:
    """Show a log topic's partitions with their offsets, and the settings it was given."""
    from isthmus.cli.kafka_client import KafkaShore, LogView

    view = LogView(KafkaShore(kafka))
    found = view.topics(log_topic)[log_topic]
    rows = [
        {"partition": partition, "start_offset": start, "end_offset": end}
        for partition, (start, end) in sorted(view.ranges(log_topic, found).items())
    ]
    configs = view.configs(log_topic)
    if as_json:
        described = {"log_topic": log_topic, "configs": configs, "partitions": rows}
        click.echo(json.dumps(described))
        return
    show(rows)
    for name, value in sorted(configs.items()):
        click.echo(f"{name}={value}")


@topics.command()
@kafka_option
@click.option("-p", "--partitions", type=click.IntRange(1), help="How many; else the server's.")
@click.option("-c", "--config", "configs", multiple=True, metavar="NAME=VALUE")
@click.argument("log_topics", nargs=-1, required=True)
def create(
    kafka: Listener,
    partitions: int | None,
    configs: tuple[str, ...],
    log_topics: tuple[str, ...],
) -> None:
    """Create log topics, all alike."""
    given = dict(pairs_of(configs, "--config"))

    from isthmus.cli.kafka_client import KafkaShore, LogView

    view = LogView(KafkaShore(kafka))
    for name in log_topics:
        view.create(name, partitions, given)


@topics.command()
@kafka_option
@click.argument("log_topics", nargs=-1, required=True)
def delete(kafka: Listener, log_topics: tuple[str, ...]) -> None:
    """Delete log topics with all their records."""
    from isthmus.cli.kafka_client import KafkaShore, LogView

    view = LogView(KafkaShore(kafka))
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
