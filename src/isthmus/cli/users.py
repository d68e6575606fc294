"""`isthmus users`: who may log in, in a data directory that no server has open, or in a file.

The password is asked for at the terminal, or is the first line of standard input; it is never
an argument, which other users of the machine could see. What is written down is made here, and
the password stays in this process.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from isthmus.broker.scram import prepared
from isthmus.broker.users import (
    User,
    Users,
    checked_groups,
    checked_name,
    credentials_of,
    parse_users,
)
from isthmus.cli.offline import OfflineRuntime
from isthmus.cli.options import SOURCES, sources_from
from isthmus.cli.topics import json_option, show
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from isthmus.errors import IsthmusError
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition, Ticket

PASSWORD_BYTES_MAX: Final = 65_535  # what a CONNECT can hold
FILE_MODE: Final = 0o600


class Store(Protocol):
    """Where users are."""

    iterations: int

    def all(self) -> Mapping[str, User]:
        """Return the users by name."""

    def put(self, user: User) -> None:
        """Write down a user, new or changed."""

    def remove(self, name: str) -> None:
        """Take a user out."""


class FileStore:
    """A file with a user in each line; other lines stay as they are."""

    def __init__(self, file: Path, iterations: int) -> None:
        self.iterations = iterations
        self._file = file
        try:
            self._text = file.read_text("utf-8") if file.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read: {error}") from None
        self._users = parse_users(self._text, str(file))

    def all(self) -> Mapping[str, User]:
        return self._users

    def put(self, user: User) -> None:
        self._write(user.name, f"{user.name}:{user.text}")

    def remove(self, name: str) -> None:
        self._write(name, None)

    def _write(self, name: str, line: str | None) -> None:
        """Put a line in the place of a user's, or behind all others; None: take it out."""
        lines = self._text.splitlines()
        names = [prepared(each.partition(":")[0]) for each in lines]
        places = [place for place, each in enumerate(names) if each == name]
        at = places[0] if places else len(lines)
        lines[at : at + 1] = [] if line is None else [line]
        replace_file(self._file, "".join(f"{each}\n" for each in lines))


def replace_file(file: Path, text: str) -> None:
    """Write a file anew, in one step for whoever reads it; its owner and mode stay."""
    file = file.resolve()
    try:
        before = file.stat() if file.exists() else None
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with open(descriptor, "w", encoding="utf-8") as new:  # noqa: PTH123  # it is open
            new.write(text)
            new.flush()
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode) if before else FILE_MODE)
            if before and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fsync(descriptor)
        Path(name).replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from None


class DirectoryStore:
    """The users of a server that does not run."""

    def __init__(self, directory: Path, iterations: int) -> None:
        from isthmus.storage.local.log import LocalLog
        from isthmus.storage.local.settings import LocalSettings

        self.iterations = iterations
        self._runtime = OfflineRuntime()
        self._log = LocalLog(directory, self._runtime, settings=LocalSettings())
        self._users = Users(self._runtime, self._log, self, iterations)

    def append(
        self,
        partition: Partition,
        batch: RecordBatch,
        ticket: Ticket | None,
        *,
        trusted: bool = False,
    ) -> None:
        """Write a batch at once, as a broker does at the end of its turn."""
        partition.append(batch, ticket, trusted=trusted)
        self._log.flush()

    def forget_log_topic(self) -> None:
        """Nothing is remembered of log topics here."""

    def all(self) -> Mapping[str, User]:
        return {user.name: user for user in self._users}

    def put(self, user: User) -> None:
        self._wait(lambda done: self._users.put(user, done))

    def remove(self, name: str) -> None:
        self._wait(lambda done: self._users.remove(name, done))

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _wait(self, change: Callable[[Callable[[IsthmusError | None], None]], None]) -> None:
        answers: list[IsthmusError | None] = []
        change(answers.append)
        self._runtime.turn_until(lambda: bool(answers))
        if answers[0] is not None:
            raise answers[0]


@contextmanager
def store_of(users_file: Path | None, **options: Any) -> Iterator[Store]:
    """Open what the options name."""
    sources = sources_from(mqtt=None, kafka=None, http=None, assignments=(), **options)
    settings = sources.read().settings
    iterations = settings.authentication.iterations
    if users_file is not None:
        yield FileStore(users_file, iterations)
        return
    directory = DirectoryStore(Path(settings.storage.local.directory), iterations)
    try:
        yield directory
    finally:
        directory.close()


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `store_of`."""
    command = click.option(
        "--file",
        "users_file",
        metavar="USERS_FILE",
        type=click.Path(path_type=Path),
        help="The users of this file, instead of those in the data directory.",
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
    """Say who may log in: the users of a server that is stopped, or of a file."""


@users.command()
@name_argument
@group_option
@store_options
def add(name: str, groups: tuple[str, ...], **options: Any) -> None:
    """Add a user, whose password is asked for."""
    name, found = checked_name(name), checked_groups(groups)
    with store_of(**options) as store:
        if name in store.all():
            raise click.ClickException(f"there is a user {name!r} already: see passwd, groups")
        credentials = credentials_of(read_password(), store.iterations, secrets.token_bytes)
        store.put(User(name, credentials, found))


@users.command()
@name_argument
@store_options
def passwd(name: str, **options: Any) -> None:
    """Give a user another password, which is asked for."""
    with store_of(**options) as store:
        user = user_in(store, name)
        credentials = credentials_of(read_password(), store.iterations, secrets.token_bytes)
        store.put(User(user.name, credentials, user.groups, is_enabled=user.is_enabled))


@users.command()
@name_argument
@store_options
def remove(name: str, **options: Any) -> None:
    """Remove a user."""
    with store_of(**options) as store:
        store.remove(user_in(store, name).name)


@users.command()
@name_argument
@store_options
def disable(name: str, **options: Any) -> None:
    """Let a user not log in any more, until `enable`."""
    enabled(name, options, is_enabled=False)


@users.command()
@name_argument
@store_options
def enable(name: str, **options: Any) -> None:
    """Let a user log in again, with the password of before."""
    enabled(name, options, is_enabled=True)


def enabled(name: str, options: dict[str, Any], *, is_enabled: bool) -> None:
    """Write down whether a user may log in."""
    with store_of(**options) as store:
        user = user_in(store, name)
        store.put(User(user.name, user.credentials, user.groups, is_enabled=is_enabled))


@users.command("groups")
@name_argument
@click.argument("groups", nargs=-1)
@store_options
def set_groups(name: str, groups: tuple[str, ...], **options: Any) -> None:
    """Put a user into GROUPS, and out of all others."""
    found = checked_groups(groups)
    with store_of(**options) as store:
        user = user_in(store, name)
        store.put(User(user.name, user.credentials, found, is_enabled=user.is_enabled))


@users.command("list")
@json_option
@store_options
def list_users(as_json: bool, **options: Any) -> None:
    """List the users, and nothing that is kept of their passwords."""
    with store_of(**options) as store:
        show([row_of(user, as_json=as_json) for user in sorted_by_name(store)], as_json=as_json)


def sorted_by_name(store: Store) -> Iterable[User]:
    """Return the users in the order of their names."""
    return [user for _, user in sorted(store.all().items())]


def row_of(user: User, *, as_json: bool) -> dict[str, Any]:
    """Return what is shown of a user."""
    groups = sorted(user.groups)
    if as_json:
        return {"name": user.name, "groups": groups, "enabled": user.is_enabled}
    return {
        "name": user.name,
        "groups": ",".join(groups) or "-",
        "enabled": "yes" if user.is_enabled else "no",
    }


def user_in(store: Store, name: str) -> User:
    """Return a user. Raises ClickException."""
    user = store.all().get(checked_name(name))
    if user is None:
        raise click.ClickException(f"there is no user {name!r}")
    return user


def read_password() -> bytes:
    """Ask for a password at the terminal, twice; elsewhere read a line."""
    if sys.stdin.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
        data = password.encode()
    else:
        data = sys.stdin.buffer.readline().rstrip(b"\r\n")
    if not 0 < len(data) <= PASSWORD_BYTES_MAX:
        raise click.ClickException(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes")
    return data
