"""`isthmus delayed`: messages that wait for their moment, and those that are not to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from isthmus.cli.clients import limit_option, rows_of
from isthmus.cli.options import http_option
from isthmus.cli.rest import RestShore
from isthmus.cli.topics import json_option, show

if TYPE_CHECKING:
    from isthmus.config_listeners import Address


@click.group()
def delayed() -> None:
    """Look at delayed messages, and cancel them."""


@delayed.command("list")
@limit_option
@http_option
@json_option
def list_delayed(http: Address, limit: int | None, as_json: bool) -> None:
    """List the messages that wait for their moment, as they came in."""
    found = RestShore(http).items("delayed", limit=limit)
    columns = ("id", "topic_name", "payload_bytes", "delayed_at", "due_at")
    show(list(found) if as_json else rows_of(found, columns), as_json=as_json)


@delayed.command("cancel")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@http_option
def cancel_delayed(http: Address, ids: tuple[str, ...]) -> None:
    """Have messages not come; returns when that is durable."""
    rest = RestShore(http)
    for each in ids:
        rest.delete("delayed", each)
