"""Who the users are: those of the `__users` log topic, and those of a file.

A user has a name, credentials (broker/credentials.py), groups, and may be disabled. In the file
that is one line, `name:credential credential:group,group`, with `!` before the credentials of
one that is disabled; Mosquitto's password files are such files. In the log topic the key is the
name and the value what stands behind it in a line. Where both have a name the file's counts,
and the server does not change it.

A change counts when it is durable; then whoever follows hears of the names, so that who is
connected as one of them can be sent away. Not here: how somebody shows to be a user
(passwords.py).
"""

from __future__ import annotations

import hmac
import logging
import re
from heapq import nsmallest
from itertools import chain
from typing import TYPE_CHECKING, Final

from isthmus.broker.appends import append_own, counting
from isthmus.broker.credentials import Credential, parse_credential, text_of
from isthmus.broker.destinations import ensure_own
from isthmus.broker.recent_records import readable_records
from isthmus.broker.scram import HASHES, SALT_BYTES, ScramKeys, keys_of, prepared
from isthmus.errors import ConfigError, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from isthmus.broker.appends import Appends, Done
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

logger = logging.getLogger(__name__)

USERS_LOG_TOPIC: Final = "__users"
USERS_CONFIGS: Final = {"cleanup.policy": "compact", "segment.bytes": "16777216"}
USERS_MAX: Final = 100_000  # beside those of a file
SECRET_KEY: Final = b"\0secret"  # no user's: no name has a NUL
SECRET_BYTES: Final = 32
CREDENTIALS_MAX: Final = 4
GROUPS_MAX: Final = 100
DISABLED: Final = "!"
_NAME: Final = re.compile(
    r"[^\s:#!\x00-\x1f\x7f-\x9f][^:\x00-\x1f\x7f-\x9f\u2028\u2029]{0,254}"
)
_GROUP: Final = re.compile(r"[^\s:,\x00-\x1f\x7f-\x9f\u2028\u2029]{1,100}")


class User:
    """One user, never changed: who changes becomes another `User` of the same name."""

    __slots__ = ("credentials", "groups", "is_enabled", "name", "proof")

    def __init__(
        self,
        name: str,
        credentials: tuple[Credential, ...],
        groups: frozenset[str] = frozenset(),
        *,
        is_enabled: bool = True,
    ) -> None:
        """Take what was checked by `check_name` and the like; at least one credential."""
        self.name = name
        self.credentials = credentials
        self.groups = groups
        self.is_enabled = is_enabled
        self.proof = b""  # of the password that was right last, see passwords.py

    @property
    def is_foreign(self) -> bool:
        """Whether the password is kept as another program does it only."""
        return not any(isinstance(each, ScramKeys) for each in self.credentials)

    def keys(self, mechanism: str) -> ScramKeys | None:
        """Return what is kept of the password for one mechanism of SCRAM, if anything is."""
        for each in self.credentials:
            if isinstance(each, ScramKeys) and each.mechanism == mechanism:
                return each
        return None

    def but(
        self,
        *,
        credentials: tuple[Credential, ...] | None = None,
        groups: frozenset[str] | None = None,
        is_enabled: bool | None = None,
    ) -> User:
        """Return the user with changes; None: as it is."""
        return User(
            self.name,
            self.credentials if credentials is None else credentials,
            self.groups if groups is None else groups,
            is_enabled=self.is_enabled if is_enabled is None else is_enabled,
        )

    @property
    def text(self) -> str:
        """Return what stands behind the name in a line of a file."""
        credentials = " ".join(map(text_of, self.credentials))
        groups = ":" + ",".join(sorted(self.groups)) if self.groups else ""
        return f"{'' if self.is_enabled else DISABLED}{credentials}{groups}"


# --- text -------------------------------------------------------------------------------------


def parse_users(text: str, file: str) -> dict[str, User]:
    """Read a file of users. Raises ConfigError that names the line."""
    users: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, rest = line.partition(":")
        try:
            if not separator:
                raise ConfigError("a line is `name:credential`")
            user = parse_user(name, rest)
            if user.name in users:
                raise ConfigError(f"the user {name!r} stands here twice")
            users[user.name] = user
        except ConfigError as error:
            raise ConfigError(f"{file}:{number}: {error}") from None
    return users


def parse_user(name: str, text: str) -> User:
    """Read what stands behind a name. Raises ConfigError."""
    credentials, _, groups = text.rstrip().partition(":")
    is_enabled = not credentials.startswith(DISABLED)
    parts = credentials.removeprefix(DISABLED).split()
    if not 0 < len(parts) <= CREDENTIALS_MAX:
        raise ConfigError(f"a user has one to {CREDENTIALS_MAX} credentials")
    return User(
        checked_name(name),
        tuple(map(parse_credential, parts)),
        checked_groups(groups.split(",") if groups else ()),
        is_enabled=is_enabled,
    )


def checked_name(name: str) -> str:
    """Return a name as it is compared. Raises ConfigError for what cannot be one."""
    name = prepared(name)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:300]!r} is no user name: 1 to 255 characters, without ':' and control"
            " characters, and not beginning with '#', '!' or a space"
        )
    return name


def checked_groups(groups: Iterable[str]) -> frozenset[str]:
    """Return the names of groups. Raises ConfigError for what cannot be one."""
    found = frozenset(groups)
    for group in found:
        if not _GROUP.fullmatch(group):
            raise ConfigError(
                f"{group[:200]!r} is no name of a group: 1 to 100 characters, without spaces,"
                " ',' and ':'"
            )
    if len(found) > GROUPS_MAX:
        raise ConfigError(f"a user is in {GROUPS_MAX} groups at most")
    return found


def credentials_of(
    password: bytes, iterations: int, random_bytes: Callable[[int], bytes]
) -> tuple[Credential, ...]:
    """Return what is kept of a password, for both mechanisms of SCRAM; slow."""
    return tuple(
        keys_of(mechanism, password, random_bytes(SALT_BYTES), iterations)
        for mechanism in HASHES
    )


# --- the users of a server --------------------------------------------------------------------


class Users:
    """All users, by name."""

    def __init__(self, runtime: Runtime, log: Log, appends: Appends, iterations: int) -> None:
        """Read the log topic. Raises StorageError.

        `iterations` is how much work the passwords that come are to be.
        """
        self.iterations = iterations
        self.random_bytes = runtime.random_bytes
        self._followers: list[Callable[[set[str]], object]] = []
        self._runtime = runtime
        self._appends = appends
        self._partition = ensure_own(log, USERS_LOG_TOPIC, USERS_CONFIGS).partitions[0]
        self._kept: dict[str, User] = {}
        self._listed: dict[str, User] = {}
        self._decoys: list[User] | None = None
        self._secret = b""
        self._load()

    def follow(self, changed: Callable[[set[str]], object]) -> None:
        """Have a function called with the names of users that become others."""
        self._followers.append(changed)

    def find(self, name: str) -> User | None:
        """Return the user of a name."""
        return self._listed.get(name) or self._kept.get(name)

    def is_listed(self, name: str) -> bool:
        """Whether a user is the file's, where the server cannot change it."""
        return name in self._listed

    def __iter__(self) -> Iterator[User]:
        """Go through all users in the order of their names."""
        names = sorted(self._kept.keys() | self._listed.keys())
        return (user for name in names if (user := self.find(name)) is not None)

    def page(self, after: str, limit: int) -> list[User]:
        """Return some users in the order of their names, those that come after one."""
        names = (name for name in {*self._kept, *self._listed} if name > after)
        found = map(self.find, nsmallest(limit, names))
        return [user for user in found if user is not None]

    def use_file(self, users: dict[str, User]) -> None:
        """Have these users instead of those of the file as it was."""
        before = {name: self.find(name) for name in self._listed.keys() | users.keys()}
        self._listed = {
            name: old if old is not None and old.text == new.text else new
            for name, new in users.items()
            for old in (self._listed.get(name),)
        }
        self._tell(before)

    def put(
        self,
        user: User,
        done: Done,
        *,
        same_password: bool = False,
    ) -> None:
        """Write down a user, new or changed; `done` when it counts, or with why it does not.

        `same_password`: what is kept of it is another thing, the user is the same. Raises
        QuotaExceeded.
        """
        if user.name not in self._kept and len(self._kept) >= USERS_MAX:
            raise QuotaExceeded(f"there are {USERS_MAX} users, and no room for more")

        def store() -> None:
            before = {user.name: self.find(user.name)}
            self._kept[user.name] = user
            self._decoys = None
            if not same_password:
                self._tell(before)

        self._write(user.name.encode(), user.text.encode(), store, done)

    def remove(self, name: str, done: Done) -> None:
        """Write down that there is no such user any more."""

        def store() -> None:
            before = {name: self.find(name)}
            self._kept.pop(name, None)
            self._tell(before)

        self._write(name.encode(), None, store, done)

    # --- for those who ask for a user that is not there ---------------------------------------

    def decoy(self, name: str) -> User | None:
        """Return a user whose password is checked in place of one's that is not there.

        Always the same one for a name, so that the work tells nobody which names are there.
        """
        if self._decoys is None:
            self._decoys = list(chain(self._listed.values(), self._kept.values()))
        if not self._decoys:
            return None
        number = int.from_bytes(self._hidden(b"decoy", name)[:8], "big")
        return self._decoys[number % len(self._decoys)]

    def decoy_keys(self, mechanism: str, name: str) -> ScramKeys:
        """Return what a user that is not there would have, by all that can be seen of it."""
        decoy = self.decoy(name)
        keys = decoy.keys(mechanism) if decoy is not None else None
        iterations = keys.iterations if keys is not None else self.iterations
        salt = self._hidden(mechanism.encode(), name)[:SALT_BYTES]
        never = b"\0" * (64 if HASHES[mechanism] == "sha512" else 32)
        return ScramKeys(mechanism, iterations, salt, never, never)

    def _hidden(self, purpose: bytes, name: str) -> bytes:
        return hmac.digest(self._secret, purpose + b"\0" + name.encode(), "sha256")

    # --- the log topic ------------------------------------------------------------------------

    def _load(self) -> None:
        for batch in self._partition.batches(self._partition.start_offset):
            for record in readable_records(batch):
                key, value = record.key or b"", record.value
                if key == SECRET_KEY:
                    self._secret = value or b""
                    continue
                name = key.decode()
                self._kept.pop(name, None)
                try:
                    if value is not None:
                        self._kept[name] = parse_user(name, value.decode())
                except ConfigError as error:  # of another version, or for want of argon2
                    logger.error("user not readable user=%s reason=%s", name, error)
        if not self._secret:
            self._secret = self.random_bytes(SECRET_BYTES)
            self._write(SECRET_KEY, self._secret, lambda: None, lambda _: None)

    def _write(
        self,
        key: bytes,
        value: bytes | None,
        store: Callable[[], None],
        done: Done,
    ) -> None:
        rows, counts = [(key, value)], counting(store, done)
        append_own(self._appends, self._partition, self._runtime.now_ms(), rows, counts)

    def _tell(self, before: dict[str, User | None]) -> None:
        """Say who is another than before: not there, changed, or there for the first time."""
        self._decoys = None
        names = {name for name, user in before.items() if self.find(name) is not user}
        if names:
            for changed in self._followers:
                changed(names)
