"""`isthmus serve`: read the settings, set up the log lines, hand over to `isthmus.app`."""

from __future__ import annotations

import sys
from typing import Any

import click

from isthmus import logs
from isthmus.cli.options import source_options, sources_from


@click.command()
@source_options
def serve(**options: Any) -> None:
    """Run the server until it is told to stop.

    Without options it listens on 127.0.0.1 only: MQTT on 1883, Kafka on 9092, HTTP on 8080, and
    keeps its data in ./isthmus-data. Once all listen, one line that begins with "ready" goes to
    standard output.
    """
    sources = sources_from(**options)
    settings = sources.read().settings
    logs.configure(settings.log)

    from isthmus.app import run

    sys.exit(run(settings, lambda: sources.read().settings))
