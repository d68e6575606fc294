"""Where `isthmus users` finds users: in a file, in a data directory, at a server that runs.

Each takes changes in the same form. What is kept of a password was made before it comes here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click

from isthmus.broker.credentials import Credential, text_of
from isthmus.broker.scram import prepared
from isthmus.broker.users import User, Users, parse_users
from isthmus.cli.offline import OfflineRuntime
from isthmus.cli.rest import RestShore
from isthmus.cli.text_files import replace_file, text_in
from isthmus.errors import QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from isthmus.broker.access import Access
    from isthmus.broker.kept_rules import KeptRules
    from isthmus.config_listeners import Address
    from isthmus.errors import IsthmusError
    from isthmus.record.batch import RecordBatch
    from isthmus.storage.log import Partition, Ticket


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
        self._text = text_in(file)
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

    def put_in_force(self, access: Access) -> KeptRules:
        """Put the rules in force that the server keeps there, and return them."""
        from isthmus.broker.kept_rules import KeptRules

        return KeptRules(self._runtime, self._log, self, access)

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
