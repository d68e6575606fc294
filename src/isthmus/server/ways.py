"""The ways to find out who a client is, as the settings have them.

In two steps, so that what is wrong with a file is said before anything is opened: each part
reads its files when it is made, and gives its way when the server is there. What is never asked
for is not made, nor imported if it is large. SIGHUP has a part made anew whose settings have
changed; the way stays, so whoever holds it asks by the new ones.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from isthmus.broker.authentication import CertificateWay, Chain, Door
from isthmus.broker.delegation import DelegationTerms
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
from isthmus.broker.users import User, parse_users
from isthmus.config_listeners import mechanisms_of
from isthmus.errors import ConfigError
from isthmus.server.kafka_login import KafkaDoor
from isthmus.server.renewal import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from isthmus.broker.authentication import Way
    from isthmus.broker.guard import Guard
    from isthmus.broker.security import Security
    from isthmus.broker.tokens import Key
    from isthmus.config import AuthenticationSettings, DelegationTokenSettings, Settings
    from isthmus.config_listeners import KafkaListenerSettings, MqttListenerSettings
    from isthmus.runtime import Runtime
    from isthmus.server.authentication_hook import HookWay
    from isthmus.server.http_client import HttpClient
    from isthmus.server.renewal import Watched
    from isthmus.server.runtime import LoopRuntime

WORK_THREADS: Final = 2  # that check passwords, and as many for tokens: a thousand in a second
FETCH_S: Final = 5.0  # for a key set
MASTER_KEY_BYTES_MIN: Final = 32
WAITING_MAX: Final = 8192  # for each; more clients at once are told to try again


class Ways:
    """All ways of all listeners, each once; what they work with may be exchanged in use."""

    def __init__(self, settings: Settings) -> None:
        """Read what the ways of all listeners need. Raises ConfigError."""
        own = settings.authentication
        self.delegation = delegation_terms(own.delegation_tokens)
        self._parts = {name: PARTS[name](own) for name in wanted(settings)}
        self._ways: dict[str, Way] = {CERTIFICATE: CertificateWay()}

    def open(self, runtime: LoopRuntime, security: Security) -> None:
        """Make the ways."""
        self._runtime, self._security = runtime, security
        self._exchange(self._parts)

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Read what other settings name; return what has the ways work with it.

        What nobody asks for any more stays as it is, for those who came in by it.
        """
        own = settings.authentication
        fresh = {
            name: PARTS[name](own)
            for name in wanted(settings)
            if name not in self._parts or not self._parts[name].is_of(own)
        }
        users = self._security.users

        def put_in_place() -> None:
            self._exchange(fresh)
            users.iterations = own.iterations

        return put_in_place

    def _exchange(self, fresh: dict[str, Part]) -> None:
        for name, part in fresh.items():
            before = self._parts.get(name)
            if before is not None and before is not part:
                for each in before.watched:
                    each.leave()
            self._parts[name] = part
            known = self._ways.get(name)
            self._ways[name] = part.open(self._runtime, self._security, known)

    async def renew(self, *, forced: bool) -> None:
        """Look for what has changed outside meanwhile."""
        for part in [*self._parts.values()]:
            for each in [*part.watched]:
                await each.renew(forced=forced)

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

    def chain(self, names: Collection[str], allow_anonymous: bool = False) -> Chain:
        """Return ways that are asked one after the other. Raises ConfigError for others."""
        asked = [self._ways[name] for name in names if name in self._ways]
        if len(asked) < len(names):
            raise ConfigError("a way to find out who clients are is not there")
        return Chain(asked, allow_anonymous=allow_anonymous)


def wanted(settings: Settings) -> list[str]:
    """Return the ways that somebody is to be found out by, and that have something to read."""
    asked = {USERS, *settings.http.authentication}
    asked.update(way for each in settings.mqtt.listeners for way in each.authentication)
    asked.update(way for each in settings.kafka.listeners for way in each.authentication)
    return [name for name in PARTS if name in asked]


class Part(Protocol):
    """What one way works with: files, which are read when it is made, and addresses."""

    watched: list[Watched]

    def is_of(self, settings: AuthenticationSettings) -> bool:
        """Whether these settings mean the same."""

    def open(self, runtime: LoopRuntime, security: Security, known: Any) -> Way:
        """Make the way, or have the one that is `known` work with this."""


class Passwords:
    """The users of the server and those of a file."""

    def __init__(self, settings: AuthenticationSettings) -> None:
        self._file_name = settings.users_file
        self._file: WatchedFile[dict[str, User]] | None = None
        self.watched: list[Watched] = []
        if settings.users_file:
            setting = "authentication.users_file"
            self._file = WatchedFile(setting, settings.users_file, parse_users)
            self.watched.append(self._file)

    def is_of(self, settings: AuthenticationSettings) -> bool:
        return settings.users_file == self._file_name

    def open(
        self, runtime: LoopRuntime, security: Security, known: UsersWay | None
    ) -> UsersWay:
        users = security.users
        if self._file is not None:
            self._file.serve(users.use_file)
        elif known is not None:
            users.use_file({})
        if known is not None:
            return known
        crew = runtime.crew("passwords", WORK_THREADS, WAITING_MAX)
        return UsersWay(users, security.delegation, crew)


class Tokens:
    """Keys in files and at a URL, and what a token has to say."""

    def __init__(self, settings: AuthenticationSettings) -> None:
        check_library()
        jwt = self._settings = settings.jwt
        self._rules = TokenRules(jwt)
        self._files = {file: self._file("keys", file, parse_keys) for file in jwt.keys}
        if jwt.secret_file:
            file = self._file("secret_file", jwt.secret_file, parse_secret)
            self._files[jwt.secret_file] = file
        self._client: HttpClient | None = None
        self.watched: list[Watched] = [*self._files.values()]
        if jwt.keys_url:
            setting = "authentication.jwt.keys_url"
            self._client = client_of(setting, jwt.keys_url, FETCH_S, jwt.ca, self.watched)
        elif not self._files:
            raise ConfigError("authentication.jwt needs keys, keys_url or secret_file")

    def is_of(self, settings: AuthenticationSettings) -> bool:
        return settings.jwt == self._settings

    def open(self, runtime: LoopRuntime, _: Security, known: TokensWay | None) -> TokensWay:
        crew = runtime.crew("tokens", WORK_THREADS, WAITING_MAX)
        way = known or TokensWay(self._rules, crew, runtime.now_ms)
        url = self._settings.keys_url
        way.change(self._rules, {*self._files, url})
        for name, file in self._files.items():
            file.serve(partial(way.use, name))
        if self._client is not None:
            from isthmus.server.key_sets import KeySetUrl

            key_set = KeySetUrl(self._client, url, self._settings.keys_url_s, way)
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
        hook = self._settings = settings.http
        self.watched: list[Watched] = []
        setting, timeout_s = "authentication.http.url", hook.timeout_ms / 1000
        self._client = client_of(setting, hook.url, timeout_s, hook.ca, self.watched)
        self._header: WatchedFile[str] | None = None
        if hook.authorization_file:
            setting = "authentication.http.authorization_file"
            self._header = WatchedFile(setting, hook.authorization_file, parse_header)
            self.watched.append(self._header)

    def is_of(self, settings: AuthenticationSettings) -> bool:
        return settings.http == self._settings

    def open(self, runtime: LoopRuntime, _: Security, known: HookWay | None) -> HookWay:
        from isthmus.server.authentication_hook import HookWay

        hook = self._settings
        crew = runtime.crew("hook", hook.connections_max, WAITING_MAX)
        way = known or HookWay(self._client, crew, runtime)
        way.change(self._client, remember_s=hook.remember_s)
        if self._header is not None:
            self._header.serve(way.show)
        return way


def client_of(
    setting: str, url: str, timeout_s: float, ca: str, watched: list[Watched]
) -> HttpClient:
    """Return what asks a URL; `watched` gets the file of the CAs to believe there, if any."""
    from isthmus.server.http_client import HttpClient, believing

    client = HttpClient(setting, url, timeout_s=timeout_s)
    if ca:
        authorities = WatchedFile(f"{setting.rpartition('.')[0]}.ca", ca, believing)
        authorities.serve(client.believe)
        watched.append(authorities)
    return client


def parse_header(text: str, file: str) -> str:
    """Return the value of a header that a file holds. Raises ConfigError."""
    value = text.strip()
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(f"{file} has several lines, or what no header may have")
    return value


def delegation_terms(settings: DelegationTokenSettings) -> DelegationTerms:
    """Return what holds for delegation tokens. Raises ConfigError."""
    name, master_key = settings.master_key_file, b""
    if name:
        try:
            master_key = Path(name).read_bytes().strip()
        except OSError as error:
            raise ConfigError(
                f"authentication.delegation_tokens.master_key_file: {error}"
            ) from None
        if len(master_key) < MASTER_KEY_BYTES_MIN:
            raise ConfigError(f"{name} holds a key of less than {MASTER_KEY_BYTES_MIN} bytes")
    return DelegationTerms(
        master_key,
        settings.lifetime_max_s * 1000,
        settings.expiry_s * 1000,
        settings.expiry_check_s * 1000,
    )


PARTS: Final[dict[str, Callable[[AuthenticationSettings], Part]]] = {
    USERS: Passwords,
    JWT: Tokens,
    "http": Hook,
}
