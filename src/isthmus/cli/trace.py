"""`isthmus trace`: watch the packets of one client, address or topic filter, as they come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from isthmus.cli.offline import at_time
from isthmus.cli.options import http_option, read_duration
from isthmus.cli.rest import RestShore
from isthmus.cli.topics import json_option

if TYPE_CHECKING:
    from isthmus.config_listeners import Address

ARROWS: Final = {"in": "->", "out": "<-"}
AT_THE_FRONT: Final = ("at_ms", "direction", "client_id", "address", "packet")


@click.command()
@http_option
@json_option
@click.option("--client", "client_id", metavar="ID", help="All packets of this client.")
@click.option("--address", metavar="IP", help="All packets from and to this IP address.")
@click.option(
    "--topic", "filter", metavar="FILTER", help="What is published to names that it matches."
)
@click.option(
    "--for",
    "for_s",
    metavar="TIME",
    default="1m",
    show_default=True,
    callback=read_duration,
    help="How long: 30s, 10m, 1h.",
)
@click.option("--payload", is_flag=True, help="Show payloads, too.")
def trace(
    http: Address, as_json: bool, for_s: int, payload: bool, **wanted: str | None
) -> None:
    """Print the packets of one client, one address or one topic filter as they come."""
    if sum(value is not None for value in wanted.values()) != 1:
        raise click.UsageError("one of --client, --address and --topic is wanted")
    lines = RestShore(http).lines(
        "trace", for_s=for_s, payload="true" if payload else None, **wanted
    )
    for line in lines:
        click.echo(line.rstrip(b"\n") if as_json else in_words(json.loads(line)))


def in_words(line: dict[str, Any]) -> str:
    """Return a packet as a line for people: when, who, which way, and what is in it."""
    if "lost" in line:
        return f"({line['lost']} packets were not shown: this is too slow)"
    values = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in line.items()
        if name not in AT_THE_FRONT
    ]
    return " ".join(
        (
            at_time(line["at_ms"]),
            line["client_id"] or "-",
            line["address"],
            ARROWS[line["direction"]],
            line["packet"],
            *values,
        )
    )
