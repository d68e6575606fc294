"""`isthmus users`: who may log in to a server that is stopped or runs, or by a file.

The password is asked for at the terminal, or is the first line of standard input; it is never
an argument, which other users of the machine could see. What is written down is made here, and
the password stays in this process.
"""

from __future__ import annotations

import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from isthmus.broker.users import checked_groups, checked_name, credentials_of
from isthmus.cli.options import SOURCES, read_address, sources_from
from isthmus.cli.topics import json_option, show
from isthmus.cli.user_stores import DirectoryStore, FileStore, ServerStore
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isthmus.broker.credentials import Credential
    from isthmus.cli.user_stores import Seen, Store
    from isthmus.config_listeners import Address

PASSWORD_BYTES_MAX: Final = 65_535  # what a CONNECT can hold


@contextmanager
def store_of(users_file: Path | None, http: Address | None, **options: Any) -> Iterator[Store]:
    """Open what the options name."""
    sources = sources_from(mqtt=None, kafka=None, http=None, assignments=(), **options)
    settings = sources.read().settings
    iterations = settings.authentication.iterations
    if users_file is not None:
        yield FileStore(users_file, iterations)
        return
    if http is not None:
        yield ServerStore(http, iterations)
        return
    try:
        directory = DirectoryStore(Path(settings.storage.local.directory), iterations)
    except ConfigError as error:  # it is in use, say
        raise ConfigError(f"{error}; or ask a server that runs with --http") from None
    try:
        yield directory
    finally:
        directory.close()


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `store_of`."""
    command = click.option(
        "--http",
        metavar="HOST:PORT",
        callback=lambda context, option, text: text and read_address(context, option, text),
        help="The users of the server that runs there.",
    )(command)
    command = click.option(
        "--file",
        "users_file",
        metavar="USERS_FILE",
        type=click.Path(path_type=Path),
        help="The users of this file.",
    )(command)
    for option in reversed(SOURCES[:2]):
        command = option(command)
    return command


name_argument = click.argument("name")
group_option = click.option(
    "--group", "groups", multiple=True, help="A group of the user; may be repeated."
)


@click.group()
def users() -> None:
    """Say who may log in: the users of a server that is stopped or runs, or of a file.

    Without --http and --file it is the data directory, which no server may have open.
    """


@users.command()
@name_argument
@group_option
@store_options
def add(name: str, groups: tuple[str, ...], **options: Any) -> None:
    """Add a user, whose password is asked for."""
    name, found = checked_name(name), checked_groups(groups)
    with store_of(**options) as store:
        if store.find(name) is not None:
            raise click.ClickException(f"there is a user {name!r} already: see passwd, groups")
        store.put(name, credentials=read_credentials(store), groups=found)


@users.command()
@name_argument
@store_options
def passwd(name: str, **options: Any) -> None:
    """Give a user another password, which is asked for."""
    with store_of(**options) as store:
        name = present(store, name)
        store.put(name, credentials=read_credentials(store))


@users.command()
@name_argument
@store_options
def remove(name: str, **options: Any) -> None:
    """Remove a user."""
    with store_of(**options) as store:
        store.remove(present(store, name))


@users.command()
@name_argument
@store_options
def disable(name: str, **options: Any) -> None:
    """Let a user not log in any more, until `enable`."""
    with store_of(**options) as store:
        store.put(present(store, name), is_enabled=False)


@users.command()
@name_argument
@store_options
def enable(name: str, **options: Any) -> None:
    """Let a user log in again, with the password of before."""
    with store_of(**options) as store:
        store.put(present(store, name), is_enabled=True)


@users.command("groups")
@name_argument
@click.argument("groups", nargs=-1)
@store_options
def set_groups(name: str, groups: tuple[str, ...], **options: Any) -> None:
    """Put a user into GROUPS, and out of all others."""
    found = checked_groups(groups)
    with store_of(**options) as store:
        store.put(present(store, name), groups=found)


@users.command("list")
@json_option
@store_options
def list_users(as_json: bool, **options: Any) -> None:
    """List the users, and nothing that is kept of their passwords."""
    with store_of(**options) as store:
        show([row_of(user, as_json=as_json) for user in store.all()], as_json=as_json)


def row_of(user: Seen, *, as_json: bool) -> dict[str, Any]:
    """Return what is shown of a user."""
    if as_json:
        return {"name": user.name, "groups": user.groups, "enabled": user.is_enabled}
    return {
        "name": user.name,
        "groups": ",".join(user.groups) or "-",
        "enabled": "yes" if user.is_enabled else "no",
    }


def present(store: Store, name: str) -> str:
    """Return the name of a user that is there. Raises ClickException."""
    checked = checked_name(name)
    if store.find(checked) is None:
        raise click.ClickException(f"there is no user {name!r}")
    return checked


def read_credentials(store: Store) -> tuple[Credential, ...]:
    """Ask for a password at the terminal, twice; elsewhere read a line."""
    if sys.stdin.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
        data = password.encode()
    else:
        data = sys.stdin.buffer.readline().rstrip(b"\r\n")
    if not 0 < len(data) <= PASSWORD_BYTES_MAX:
        raise click.ClickException(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes")
    return credentials_of(data, store.iterations, secrets.token_bytes)
