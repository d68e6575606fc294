"""`isthmus status`, `clients`, `sessions`, `retained`: what a server has, and what is to go.

They ask its REST API. Times are in UTC for people, in milliseconds since the epoch in JSON.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from isthmus.cli.offline import at_time
from isthmus.cli.options import http_option
from isthmus.cli.rest import RestShore
from isthmus.cli.topics import json_option, show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.config_listeners import Address

COLUMNS: Final = {
    "clients": (
        *("client_id", "user", "address", "listener", "protocol", "connected_at"),
        *("subscriptions", "queued", "in_flight", "dropped"),
    ),
    "sessions": (
        *("client_id", "user", "connected", "disconnected_at", "expires_at"),
        *("subscriptions", "queued", "in_flight", "dropped"),
    ),
}

limit_option = click.option("--limit", type=click.IntRange(1), help="Not more than so many.")
search_option = click.option("--search", metavar="TEXT", help="Client ids that hold this.")
topic_option = click.option(
    "--topic", "topic_name", metavar="NAME", help="Subscribed to this topic name."
)


def rows_of(items: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what the API says in columns for people."""
    return [{name: in_words(item, name) for name in columns} for item in items]


def in_words(item: dict[str, Any], name: str) -> str:
    """Return one field for people; a time that the API gives in milliseconds as a time."""
    if name == "address" and item["port"]:
        return f"{item['address']} {item['port']}"
    if name.endswith("_at"):
        moment = item[f"{name}_ms"]
        return "-" if moment is None else at_time(moment)
    value = item[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in ("", None) else str(value)


def show_one(item: dict[str, Any], *, as_json: bool) -> None:
    """Print one thing with all its fields."""
    if as_json:
        click.echo(json.dumps(item))
        return
    for name in item:
        shown = name.removesuffix("_ms") if name.endswith("_at_ms") else name
        click.echo(f"{shown}={in_words(item, shown)}")


@click.command()
@http_option
@json_option
def status(http: Address, as_json: bool) -> None:
    """Print how the server is: what there is of it, and what has gone wrong so far."""
    show_one(RestShore(http).get("status"), as_json=as_json)


# --- clients ----------------------------------------------------------------------------------


@click.group()
def clients() -> None:
    """Look at the MQTT clients that are connected, and disconnect them."""


@clients.command("list")
@http_option
@json_option
@limit_option
@search_option
@topic_option
@click.option("--user", help="Of this user.")
@click.option("--address", help="From this IP address.")
@click.option("--listener", help="Through the listener of this name.")
def list_clients(http: Address, as_json: bool, **query: Any) -> None:
    """List the clients, the one whose session began first first."""
    found = RestShore(http).items("clients", **query)
    show(list(found) if as_json else rows_of(found, COLUMNS["clients"]), as_json=as_json)


@clients.command("show")
@http_option
@json_option
@click.argument("client_id")
def show_client(http: Address, client_id: str, as_json: bool) -> None:
    """Show one client, and its subscriptions."""
    show_session(http, "clients", client_id, as_json=as_json)


@clients.command()
@http_option
@click.argument("client_ids", nargs=-1, required=True)
def kick(http: Address, client_ids: tuple[str, ...]) -> None:
    """Disconnect clients; those whose sessions last may come back to them."""
    rest = RestShore(http)
    for client_id in client_ids:
        rest.delete("clients", client_id)


def show_session(http: Address, kind: str, client_id: str, *, as_json: bool) -> None:
    """Print a client or a session, and the subscriptions of it."""
    rest = RestShore(http)
    found = rest.get(kind, client_id)
    filters = list(rest.items("subscriptions", client_id=client_id))
    if as_json:
        click.echo(json.dumps({**found, "subscriptions": filters}))
        return
    show_one(found, as_json=False)
    show([{name: in_words(each, name) for name in each} for each in filters])


# --- sessions ---------------------------------------------------------------------------------


@click.group()
def sessions() -> None:
    """Look at MQTT sessions, those of clients that are away too, and end them."""


@sessions.command("list")
@http_option
@json_option
@limit_option
@search_option
@topic_option
@click.option(
    "--connected/--away", default=None, help="Only those of clients that are connected, or not."
)
def list_sessions(http: Address, as_json: bool, connected: bool | None, **query: Any) -> None:
    """List the sessions, the one that began first first."""
    if connected is not None:
        query["connected"] = "true" if connected else "false"
    found = RestShore(http).items("sessions", **query)
    show(list(found) if as_json else rows_of(found, COLUMNS["sessions"]), as_json=as_json)


@sessions.command("show")
@http_option
@json_option
@click.argument("client_id")
def show_one_session(http: Address, client_id: str, as_json: bool) -> None:
    """Show the session of one client, and its subscriptions."""
    show_session(http, "sessions", client_id, as_json=as_json)


@sessions.command()
@http_option
@click.argument("client_ids", nargs=-1, required=True)
def end(http: Address, client_ids: tuple[str, ...]) -> None:
    """End sessions with all that waits in them; a client that is connected is disconnected."""
    rest = RestShore(http)
    for client_id in client_ids:
        rest.delete("sessions", client_id)


# --- retained messages ------------------------------------------------------------------------


@click.group()
def retained() -> None:
    """Look at retained messages, and delete them."""


@retained.command("list")
@http_option
@json_option
@limit_option
@click.argument("topic_filter", default="#")
def list_retained(http: Address, topic_filter: str, limit: int | None, as_json: bool) -> None:
    """List the retained messages that a topic filter matches (all)."""
    found = RestShore(http).items("retained", limit=limit, filter=topic_filter)
    columns = ("topic_name", "qos", "payload_bytes", "retained_at", "expires_at")
    show(list(found) if as_json else rows_of(found, columns), as_json=as_json)


@retained.command("show")
@http_option
@json_option
@click.argument("topic_name")
def show_retained(http: Address, topic_name: str, as_json: bool) -> None:
    """Print the payload that is retained under a topic name, byte for byte."""
    message = RestShore(http).get("retained", topic_name)
    if as_json:
        click.echo(json.dumps(message))
    elif "payload" in message:
        click.echo(message["payload"])
    else:
        sys.stdout.buffer.write(base64.b64decode(message["payload_base64"]))


@retained.command("delete")
@http_option
@click.argument("topic_names", nargs=-1, required=True)
def delete_retained(http: Address, topic_names: tuple[str, ...]) -> None:
    """Delete what is retained under topic names; whoever has got it is not told."""
    rest = RestShore(http)
    for topic_name in topic_names:
        rest.delete("retained", topic_name)
