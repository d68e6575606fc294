"""The ways to find out who a client is, as the settings have them.

In two steps, so that what is wrong with a file is said before anything is opened: the files are
read when this is made, and `open` wires the ways that any listener has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.broker.authentication import CertificateWay, Chain, Door
from isthmus.broker.identity import CERTIFICATE
from isthmus.broker.passwords import USERS, UsersWay
from isthmus.broker.users import User, Users, parse_users
from isthmus.server.renewal import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.broker.authentication import Way
    from isthmus.broker.broker import Broker
    from isthmus.broker.clients import Clients
    from isthmus.config import AuthenticationSettings
    from isthmus.config_listeners import MqttListenerSettings
    from isthmus.server.renewal import Renewed
    from isthmus.server.runtime import LoopRuntime

PASSWORD_THREADS: Final = 2  # that check passwords: a thousand in a second, or some
PASSWORDS_WAITING_MAX: Final = 8192  # more clients at once are told to try again


class Ways:
    """All ways of all listeners, each once."""

    def __init__(
        self, settings: AuthenticationSettings, listeners: Iterable[MqttListenerSettings]
    ) -> None:
        """Read what the ways need. Raises ConfigError."""
        self._settings = settings
        self._wanted = {way for listener in listeners for way in listener.authentication}
        self._ways: dict[str, Way] = {}
        self._users_file: WatchedFile[dict[str, User]] | None = None
        self.users: Users | None = None  # None: no listener asks for passwords
        self.watched: list[Renewed] = []
        if USERS in self._wanted and settings.users_file:
            setting = "authentication.users_file"
            self._users_file = WatchedFile(setting, settings.users_file, parse_users)
            self.watched.append(self._users_file)

    def open(self, runtime: LoopRuntime, broker: Broker, clients: Clients) -> None:
        """Make the ways. Raises StorageError."""
        if CERTIFICATE in self._wanted:
            self._ways[CERTIFICATE] = CertificateWay()
        if USERS in self._wanted:
            users = self.users = Users(runtime, broker.log, broker, self._settings.iterations)
            if self._users_file is not None:
                self._users_file.serve(users.use_file)
            users.changed = clients.users_changed
            crew = runtime.crew("passwords", PASSWORD_THREADS, PASSWORDS_WAITING_MAX)
            self._ways[USERS] = UsersWay(users, crew)

    def door(self, listener: MqttListenerSettings) -> Door | None:
        """Return what decides who comes in through a listener; None: whoever connects."""
        if not listener.authentication:
            return None
        ways = [self._ways[name] for name in listener.authentication]
        return Door(Chain(ways, allow_anonymous=listener.allow_anonymous))
