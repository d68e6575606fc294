"""`isthmus config`, `isthmus version`: what is in force, where it comes from, what this is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import asdict

from isthmus import __version__
from isthmus.cli.options import source_options, sources_from
from isthmus.config_changes import value_of
from isthmus.config_listeners import LIMITS, own_of
from isthmus.config_sources import DEFAULT, FIELDS, Configuration, shown, table_of

if TYPE_CHECKING:
    from isthmus.config import Settings


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@source_options
def show(**options: Any) -> None:
    """Print the settings in force as TOML, each with who decided it.

    Takes the options of `serve` and prints what `serve` would run with.
    """
    click.echo(listing(sources_from(**options).read()))


@config.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default="isthmus-config",
    show_default=True,
    help="Where to write what comes of it.",
)
def import_(file: Path, out: Path) -> None:
    """Turn mosquitto.conf into settings, users and rules of Isthmus.

    Names each line that has no equivalent. The exit status is 1 if somebody could do more than
    before for want of one: such lines are marked SECURITY.
    """
    from isthmus.cli.mosquitto_import import import_mosquitto

    files, notes = import_mosquitto(file, out)
    for note in notes:
        click.echo(str(note))
    opening = sum(note.opens for note in notes)
    click.echo(f"wrote {', '.join(str(out / name) for name in files)}")
    click.echo(
        f"{len(notes)} lines are otherwise than they were, {opening} of them for SECURITY"
    )
    sys.exit(1 if opening else 0)


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"isthmus {__version__}")


def listing(configuration: Configuration) -> str:
    """Return the configuration as a TOML file whose comments name the origins."""
    settings = configuration.settings
    lines: list[tuple[str, str]] = []
    tables: list[tuple[str, str]] = []  # they come after the other keys of their section
    section = ""
    for name in FIELDS:
        here, _, key = name.rpartition(".")
        if here != section:
            lines += [*tables, ("", ""), (f"[{here}]", "")] if here else tables
            section, tables = here, []
        origin = configuration.origins[name]
        rows = tables_of(settings, name)
        if any(len(row) > 1 for row in rows) or not here:
            for row in rows:
                tables += [("", ""), (f"[[{name}]]", origin)]
                tables += [(f"{key} = {shown(part)}", "") for key, part in row.items()]
        elif rows:
            lines.append((f"{key} = {shown([row['address'] for row in rows])}", origin))
        else:
            lines.append((f"{key} = {shown(value_of(settings, name))}", origin))
    lines = [*lines, *tables][1:]
    width = max(len(left) for left, origin in lines if origin == DEFAULT or len(left) < 60)
    return "\n".join(
        f"{left:<{width}}  # {origin}" if origin else left for left, origin in lines
    )


def tables_of(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Return what the tables of a list say, each without what it has from its section."""
    if table_of(FIELDS[name].kind) in LIMITS:
        section = value_of(settings, name.partition(".")[0])
        return [
            {"address": listener.address, **own_of(listener, section, settings.tls)}
            for listener in section.listeners
        ]
    if table_of(FIELDS[name].kind) is None:
        return []
    return [
        {key: part for key, part in asdict(each).items() if part is not None}
        for each in value_of(settings, name)
    ]
