"""Options that commands share: which settings are in force, and which server to talk to."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from isthmus.config_listeners import PLAIN_SCHEMES, Address, parse_address
from isthmus.config_sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Command = TypeVar("Command", bound=Callable[..., Any])

UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

SOURCES = (
    click.option(
        "--config",
        "file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The configuration, in TOML.",
    ),
    click.option("--data", metavar="DIR", help="Where the log is kept (./isthmus-data)."),
    click.option("--mqtt", metavar="HOST:PORT", help="Serve MQTT here (127.0.0.1:1883)."),
    click.option("--kafka", metavar="HOST:PORT", help="Serve Kafka here (127.0.0.1:9092)."),
    click.option("--http", metavar="HOST:PORT", help="Serve HTTP here (127.0.0.1:8080)."),
    click.option(
        "--set",
        "assignments",
        metavar="SECTION.KEY=VALUE",
        multiple=True,
        help="One setting; may be given many times.",
    ),
)


def source_options(command: Command) -> Command:
    """Give a command the options of `serve`; it takes them as keywords for `sources_from`."""
    for option in reversed(SOURCES):
        command = option(command)
    return command


def sources_from(
    *,
    file: Path | None,
    data: str | None,
    mqtt: str | None,
    kafka: str | None,
    http: str | None,
    assignments: tuple[str, ...],
) -> Sources:
    """Return what the options say, with the environment below them."""
    flags: dict[str, tuple[str, Any]] = {}
    if data is not None:
        flags["storage.local.directory"] = ("--data", data)
    for section, address in (("mqtt", mqtt), ("kafka", kafka), ("http", http)):
        if address is not None:
            flags[f"{section}.listeners"] = (f"--{section}", [f"tcp://{address}"])
    return Sources(file=file, environ=dict(os.environ), assignments=assignments, flags=flags)


# --- for commands that are clients ------------------------------------------------------------


def read_address(_: click.Context, __: click.Parameter, address: str) -> Address:
    """Read HOST:PORT, as an option's callback. Raises ConfigError."""
    return parse_address(f"tcp://{address}")


def read_http_address(_: click.Context, __: click.Parameter, address: str) -> Address:
    """Read HOST:PORT, or `https://HOST:PORT`, as an option's callback. Raises ConfigError."""
    scheme, separator, authority = address.partition("://")
    if separator and scheme not in {"http", "https"}:
        raise click.BadParameter(f"{address!r} is neither HOST:PORT nor https://HOST:PORT")
    where = authority.rstrip("/") if separator else address
    return parse_address(f"{'tls' if scheme == 'https' else 'tcp'}://{where}", PLAIN_SCHEMES)


mqtt_option = click.option(
    "--mqtt",
    metavar="HOST:PORT",
    default="127.0.0.1:1883",
    show_default=True,
    callback=read_address,
    help="The MQTT server.",
)
kafka_option = click.option(
    "--kafka",
    metavar="HOST:PORT",
    default="127.0.0.1:9092",
    show_default=True,
    callback=read_address,
    help="The Kafka server.",
)
http_option = click.option(
    "--http",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    callback=read_http_address,
    help="The HTTP server; https://HOST:PORT where it speaks TLS.",
)


def read_duration(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Read `90s`, `10m`, `1h` or `7d` as seconds, as an option's callback; None: not given."""
    if text is None:
        return None
    found = re.fullmatch("([0-9]{1,5})([smhd]?)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no time such as 30s, 10m, 1h or 7d")
    return int(found[1]) * UNITS[found[2]]


Login = tuple[str, bytes]  # user name and password


def login_options(command: Command) -> Command:
    """Give a command `--user` and `--password-file`, keywords for `login_of`."""
    command = click.option(
        "--password-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Whose first line is the password; without it, it is asked for.",
    )(command)
    return click.option("-u", "--user", metavar="NAME", help="Log in as this user.")(command)


def login_of(user: str | None, password_file: Path | None) -> Login | None:
    """Return whom to log in as; a password is never an argument. Raises ClickException."""
    if user is None:
        if password_file is not None:
            raise click.UsageError("--password-file is for --user")
        return None
    if password_file is not None:
        try:
            return user, password_file.read_bytes().partition(b"\n")[0].rstrip(b"\r")
        except OSError as error:
            raise click.ClickException(f"{password_file}: {error.strerror}") from None
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password: --password-file")
    return user, str(click.prompt("Password", hide_input=True, err=True)).encode()


def pairs_of(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    """Read NAME=VALUE texts, order and duplicates kept."""
    pairs = []
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.UsageError(f"{option} {text} needs a value, as in {option} {text}=1")
        pairs.append((name, value))
    return pairs


def read_lines() -> Iterator[bytes]:
    """Yield the lines of standard input without their ends, as they come."""
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n")
