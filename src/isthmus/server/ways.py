"""The ways to find out who a client is, as the settings have them.

In two steps, so that what is wrong with a file is said before anything is opened: each part
reads its files when it is made, and gives its way when the server is there. What is never asked
for is not made, nor imported if it is large.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from isthmus.broker.authentication import CertificateWay, Chain, Door
from isthmus.broker.identity import CERTIFICATE
from isthmus.broker.passwords import USERS, UsersWay
from isthmus.broker.tokens import (
    JWT,
    TokenRules,
    TokensWay,
    check_library,
    parse_keys,
    parse_secret,
)
from isthmus.broker.users import User, Users, parse_users
from isthmus.config_listeners import mechanisms_of
from isthmus.errors import ConfigError
from isthmus.server.kafka_login import KafkaDoor
from isthmus.server.renewal import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.authentication import Way
    from isthmus.broker.guard import Guard
    from isthmus.broker.tokens import Key
    from isthmus.config import AuthenticationSettings, Settings
    from isthmus.config_listeners import KafkaListenerSettings, MqttListenerSettings
    from isthmus.runtime import Runtime
    from isthmus.server.authentication_hook import HookWay
    from isthmus.server.http_client import HttpClient
    from isthmus.server.renewal import Renewed
    from isthmus.server.runtime import LoopRuntime

WORK_THREADS: Final = 2  # that check passwords, and as many for tokens: a thousand in a second
FETCH_S: Final = 5.0  # for a key set
WAITING_MAX: Final = 8192  # for each; more clients at once are told to try again


class Ways:
    """All ways of all listeners, each once."""

    def __init__(self, settings: Settings) -> None:
        """Read what the ways of all listeners need. Raises ConfigError."""
        wanted = {USERS, *settings.http.authentication}
        wanted.update(way for each in settings.mqtt.listeners for way in each.authentication)
        wanted.update(way for each in settings.kafka.listeners for way in each.authentication)
        own = settings.authentication
        self._parts: dict[str, Part] = {name: PARTS[name](own) for name in wanted}
        self._ways: dict[str, Way] = {}

    def open(self, runtime: LoopRuntime, users: Users) -> list[Renewed]:
        """Make the ways; return what may change outside meanwhile."""
        watched: list[Renewed] = []
        for name, part in self._parts.items():
            self._ways[name] = part.open(runtime, users)
            watched += part.watched
        return watched

    def door(self, listener: MqttListenerSettings) -> Door | None:
        """Return what decides who comes in through a listener; None: whoever connects."""
        if not listener.authentication:
            return None
        return Door(self.chain(listener.authentication, listener.allow_anonymous))

    def kafka_door(
        self, listener: KafkaListenerSettings, runtime: Runtime, guard: Guard
    ) -> KafkaDoor | None:
        """Return how clients of Kafka log in at a listener; None: they do not."""
        if not listener.authentication:
            return None
        chain = self.chain(listener.authentication, listener.allow_anonymous)
        return KafkaDoor(chain, listener, mechanisms_of(listener), runtime, guard)

    def chain(self, names: Iterable[str], allow_anonymous: bool = False) -> Chain:
        """Return ways that are asked one after the other."""
        return Chain([self._ways[name] for name in names], allow_anonymous=allow_anonymous)


class Part(Protocol):
    """One way before it is there."""

    watched: list[Renewed]

    def open(self, runtime: LoopRuntime, users: Users) -> Way:
        """Make the way."""


class Shown:
    """Certificates, which the transport has checked."""

    def __init__(self, _: AuthenticationSettings) -> None:
        self.watched: list[Renewed] = []

    def open(self, _: LoopRuntime, __: Users) -> CertificateWay:
        return CertificateWay()


class Passwords:
    """The users of the server and those of a file."""

    def __init__(self, settings: AuthenticationSettings) -> None:
        self._file: WatchedFile[dict[str, User]] | None = None
        self.watched: list[Renewed] = []
        if settings.users_file:
            setting = "authentication.users_file"
            self._file = WatchedFile(setting, settings.users_file, parse_users)
            self.watched.append(self._file)

    def open(self, runtime: LoopRuntime, users: Users) -> UsersWay:
        if self._file is not None:
            self._file.serve(users.use_file)
        return UsersWay(users, runtime.crew("passwords", WORK_THREADS, WAITING_MAX))


class Tokens:
    """Keys in files and at a URL, and what a token has to say."""

    def __init__(self, settings: AuthenticationSettings) -> None:
        check_library()
        jwt = self._settings = settings.jwt
        self._rules = TokenRules(jwt)
        self._files = [self._file("keys", file, parse_keys) for file in jwt.keys]
        if jwt.secret_file:
            self._files.append(self._file("secret_file", jwt.secret_file, parse_secret))
        self._client: HttpClient | None = None
        if jwt.keys_url:
            from isthmus.server.http_client import HttpClient

            setting = "authentication.jwt.keys_url"
            self._client = HttpClient(setting, jwt.keys_url, timeout_s=FETCH_S, ca=jwt.ca)
        elif not self._files:
            raise ConfigError("authentication.jwt needs keys, keys_url or secret_file")
        self.watched: list[Renewed] = list(self._files)

    def open(self, runtime: LoopRuntime, _: Users) -> TokensWay:
        crew = runtime.crew("tokens", WORK_THREADS, WAITING_MAX)
        way = TokensWay(self._rules, crew, runtime.now_ms)
        for number, file in enumerate(self._files):
            file.serve(partial(way.use, str(number)))
        if self._client is not None:
            from isthmus.server.key_sets import KeySetUrl

            url, period_s = self._settings.keys_url, self._settings.keys_url_s
            key_set = KeySetUrl(self._client, url, period_s, way)
            key_set.begin(crew)
            self.watched.append(key_set)
        return way

    @staticmethod
    def _file(
        setting: str, file: str, parse: Callable[[str, str], list[Key]]
    ) -> WatchedFile[list[Key]]:
        return WatchedFile(f"authentication.jwt.{setting}", file, parse)


class Hook:
    """A program that is asked over HTTP."""

    def __init__(self, settings: AuthenticationSettings) -> None:
        from isthmus.server.http_client import HttpClient

        hook = self._settings = settings.http
        timeout_s = hook.timeout_ms / 1000
        self._client = HttpClient(
            "authentication.http.url", hook.url, timeout_s=timeout_s, ca=hook.ca
        )
        self._authorization = header_in(hook.authorization_file)
        self.watched: list[Renewed] = []

    def open(self, runtime: LoopRuntime, _: Users) -> HookWay:
        from isthmus.server.authentication_hook import HookWay

        hook = self._settings
        return HookWay(
            self._client,
            runtime.crew("hook", hook.connections_max, WAITING_MAX),
            runtime,
            remember_s=hook.remember_s,
            authorization=self._authorization,
        )


def header_in(file: str) -> str:
    """Return the value of a header that a file holds. Raises ConfigError."""
    if not file:
        return ""
    try:
        value = Path(file).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"authentication.http.authorization_file: {error}") from None
    if not value.isprintable():
        raise ConfigError(f"authentication.http.authorization_file: {file} has several lines")
    return value


PARTS: Final[dict[str, Callable[[AuthenticationSettings], Part]]] = {
    CERTIFICATE: Shown,
    USERS: Passwords,
    JWT: Tokens,
    "http": Hook,
}
