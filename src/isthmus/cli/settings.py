"""`isthmus config show` and `isthmus version`: what is in force, and what this is."""

from __future__ import annotations

from typing import Any

import click

from isthmus import __version__
from isthmus.cli.options import source_options, sources_from
from isthmus.config_sources import DEFAULT, FIELDS, Configuration, shown


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


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"isthmus {__version__}")


def listing(configuration: Configuration) -> str:
    """Return the configuration as a TOML file whose comments name the origins."""
    lines: list[tuple[str, str]] = []
    section = ""
    for name in FIELDS:
        here, _, key = name.rpartition(".")
        if here != section:
            lines += [("", ""), (f"[{here}]", "")] if section else [(f"[{here}]", "")]
            section = here
        value: Any = configuration.settings
        for part in name.split("."):
            value = getattr(value, part)
        lines.append((f"{key} = {shown(value)}", configuration.origins[name]))
    for route in configuration.settings.routes:
        lines += [("", ""), ("[[routes]]", configuration.origins["routes"])]
        parts = [(key, getattr(route, key)) for key in route.__struct_fields__]
        lines += [(f"{key} = {shown(part)}", "") for key, part in parts if part is not None]
    width = max(len(left) for left, origin in lines if origin == DEFAULT or len(left) < 60)
    return "\n".join(
        f"{left:<{width}}  # {origin}" if origin else left for left, origin in lines
    )
