"""`isthmus users`: who may log in to a server that is stopped or runs, or by a file.

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
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import click

from isthmus.broker.credentials import Credential, text_of
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
from isthmus.cli.options import SOURCES, read_address, sources_from
from isthmus.cli.rest import RestShore
from isthmus.cli.topics import json_option, show
from isthmus.errors import ConfigError, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from isthmus.config_listeners import Address
    from isthmus.errors import IsthmusError
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition, Ticket

PASSWORD_BYTES_MAX: Final = 65_535  # what a CONNECT can hold
FILE_MODE: Final = 0o600


class Seen(NamedTuple):
    """What can be seen of a user."""

    name: str
    groups: tuple[str, ...]
    is_enabled: bool


class Store(Protocol):
    """Where users are."""

    iterations: int

    def all(self) -> list[Seen]:
        """Return the users in the order of their names."""

    def find(self, name: str) -> Seen | None:
        """Return one of them."""

    def put(
        self,
        name: str,
        *,
        credentials: tuple[Credential, ...] | None = None,
        groups: frozenset[str] | None = None,
        is_enabled: bool | None = None,
    ) -> None:
        """Add a user, with credentials, or change one; None: as it is."""

    def remove(self, name: str) -> None:
        """Take a user out."""


class OwnStore(ABC):
    """A store whose users this process reads and writes itself."""

    def all(self) -> list[Seen]:
        return [seen_of(user) for _, user in sorted(self.users().items())]

    def find(self, name: str) -> Seen | None:
        user = self.users().get(name)
        return None if user is None else seen_of(user)

    def put(self, name: str, **changes: Any) -> None:
        user = self.users().get(name) or User(name, ())
        self.write(user.but(**changes))

    @abstractmethod
    def users(self) -> Mapping[str, User]:
        """Return the users by name."""

    @abstractmethod
    def write(self, user: User) -> None:
        """Write down a user, new or changed."""


def seen_of(user: User) -> Seen:
    """Return what can be seen of a user."""
    return Seen(user.name, tuple(sorted(user.groups)), user.is_enabled)


class FileStore(OwnStore):
    """A file with a user in each line; other lines stay as they are."""

    def __init__(self, file: Path, iterations: int) -> None:
        self.iterations = iterations
        self._file = file
        try:
            self._text = file.read_text("utf-8") if file.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read: {error}") from None
        self._users = parse_users(self._text, str(file))

    def users(self) -> Mapping[str, User]:
        return self._users

    def write(self, user: User) -> None:
        self._replace(user.name, f"{user.name}:{user.text}")

    def remove(self, name: str) -> None:
        self._replace(name, None)

    def _replace(self, name: str, line: str | None) -> None:
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


class DirectoryStore(OwnStore):
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

    def users(self) -> Mapping[str, User]:
        return {user.name: user for user in self._users}

    def write(self, user: User) -> None:
        self._wait(lambda done: self._users.put(user, done))

    def remove(self, name: str) -> None:
        self._wait(lambda done: self._users.remove(name, done))

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _wait(self, change: Callable[[Callable[[IsthmusError | None], None]], None]) -> None:
        answers: list[IsthmusError | None] = []
        try:
            change(answers.append)
        except QuotaExceeded as error:
            raise click.ClickException(str(error)) from None
        self._runtime.turn_until(lambda: bool(answers))
        if answers[0] is not None:
            raise answers[0]


class ServerStore:
    """The users of a running server, over its REST API."""

    def __init__(self, address: Address, iterations: int) -> None:
        self.iterations = iterations
        self._rest = RestShore(address)

    def all(self) -> list[Seen]:
        return [seen_in(row) for row in self._rest.items("users")]

    def find(self, name: str) -> Seen | None:
        return next((user for user in self.all() if user.name == name), None)

    def put(
        self,
        name: str,
        *,
        credentials: tuple[Credential, ...] | None = None,
        groups: frozenset[str] | None = None,
        is_enabled: bool | None = None,
    ) -> None:
        change: dict[str, Any] = {}
        if credentials is not None:
            change["credentials"] = [text_of(each) for each in credentials]
        if groups is not None:
            change["groups"] = sorted(groups)
        if is_enabled is not None:
            change["enabled"] = is_enabled
        self._rest.put("users", name, body=change)

    def remove(self, name: str) -> None:
        self._rest.delete("users", name)


def seen_in(row: dict[str, Any]) -> Seen:
    """Return what an answer says of a user."""
    return Seen(row["name"], tuple(row["groups"]), row["enabled"])


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
