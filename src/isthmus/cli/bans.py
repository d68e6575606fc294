"""`isthmus bans`: who is kept out of a server that runs, and who is to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from isthmus.broker.bans import KINDS
from isthmus.cli.clients import rows_of
from isthmus.cli.options import http_option, read_duration
from isthmus.cli.rest import RestShore
from isthmus.cli.topics import json_option, show

if TYPE_CHECKING:
    from isthmus.config_listeners import Address

kind_argument = click.argument("kind", type=click.Choice(KINDS))


@click.group()
def bans() -> None:
    """Keep client ids, users, addresses and networks out of MQTT, and let them in again."""


@bans.command("list")
@http_option
@json_option
def list_bans(http: Address, as_json: bool) -> None:
    """List who is banned, since and until when, and why."""
    found = RestShore(http).items("bans")
    columns = ("kind", "who", "banned_at", "expires_at", "reason")
    show(list(found) if as_json else rows_of(found, columns), as_json=as_json)


@bans.command()
@http_option
@click.option(
    "--for",
    "for_s",
    metavar="TIME",
    callback=read_duration,
    help="How long: 30s, 10m, 1h, 7d; else for good.",
)
@click.option("--reason", help="What the client is told, and who lists the bans.")
@kind_argument
@click.argument("who", nargs=-1, required=True)
def add(
    http: Address, for_s: int | None, reason: str | None, kind: str, who: tuple[str, ...]
) -> None:
    """Ban clients by their ids, users, or addresses and networks, and disconnect them."""
    rest = RestShore(http)
    for each in who:
        rest.put("bans", kind, each, for_s=for_s, reason=reason)


@bans.command()
@http_option
@kind_argument
@click.argument("who", nargs=-1, required=True)
def remove(http: Address, kind: str, who: tuple[str, ...]) -> None:
    """Let somebody in again."""
    rest = RestShore(http)
    for each in who:
        rest.delete("bans", kind, each)
