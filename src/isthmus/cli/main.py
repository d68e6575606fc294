"""The command `isthmus`: its table of commands, and the one place where failures become words.

Each command lives in its own module and is imported when it is asked for, so `serve` starts
without what the others need. A command raises; here a ConfigError becomes one sentence and exit
status 2, what a client or the disk refuses one sentence and exit status 1, and Ctrl-C nothing
but status 130.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from isthmus import __version__
from isthmus.errors import ConfigError, StorageError

COMMANDS: Final = {  # name -> module that holds a click command of that name
    "serve": "isthmus.cli.serve",
    "demo": "isthmus.cli.demo",
    "pub": "isthmus.cli.mqtt",
    "sub": "isthmus.cli.mqtt",
    "produce": "isthmus.cli.kafka",
    "consume": "isthmus.cli.kafka",
    "topics": "isthmus.cli.topics",
    "status": "isthmus.cli.clients",
    "clients": "isthmus.cli.clients",
    "sessions": "isthmus.cli.clients",
    "retained": "isthmus.cli.clients",
    "delayed": "isthmus.cli.delayed",
    "bans": "isthmus.cli.bans",
    "trace": "isthmus.cli.trace",
    "users": "isthmus.cli.users",
    "log": "isthmus.cli.log",
    "acls": "isthmus.cli.acls",
    "config": "isthmus.cli.settings",
    "bench": "isthmus.cli.bench",
    "version": "isthmus.cli.settings",
}
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count


class WrongConfiguration(click.ClickException):
    """A ConfigError on its way to the terminal."""

    exit_code = 2


class Commands(click.Group):
    """The commands of the table, imported one by one as they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise WrongConfiguration(str(error)) from error
        except StorageError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="isthmus")
def main() -> None:
    """One log with two shores: MQTT for devices, the Kafka protocol for the back end."""
