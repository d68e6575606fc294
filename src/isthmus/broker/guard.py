"""Who is let in at all: not who is banned, who comes and goes too often, who guesses passwords.

Bans are an administrator's, and last (`bans.py`). The others are found out here and kept in
memory: a client id that connects again and again from one address (both together, so that
nobody can have others locked out by using their client id), and an address from which one
attempt to authenticate after the other fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from isthmus.broker.bans import BANS_CONFIGS, BANS_LOG_TOPIC, Bans
from isthmus.broker.destinations import ensure_own
from isthmus.broker.limits import LOCAL, network_of
from isthmus.errors import AdministrativeAction, Banned

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from isthmus.broker.appends import Done
    from isthmus.broker.bans import Ban, Kind
    from isthmus.broker.broker import Broker
    from isthmus.broker.identity import Identity
    from isthmus.broker.sessions import SessionEntry, SessionTable
    from isthmus.runtime import Runtime

STREAKS_MAX: Final = 100_000  # of one kind that are remembered
CHECKED_PER_TURN: Final = 2_000  # clients, of whom some may fall under a new ban


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaks:
    """How much of something is too much: `most` within `window_s`; 0: nothing is."""

    most: int = 0
    window_s: int = 60
    blocked_s: int = 300


class Streak:
    """What happened under one key since `begun_ms`; `until_ms`: until when it is blocked."""

    __slots__ = ("begun_ms", "count", "until_ms")

    def __init__(self, begun_ms: int) -> None:
        self.begun_ms = begun_ms
        self.count = 0
        self.until_ms = 0


class Counter:
    """Counts what comes again and again; too much of it in a while blocks its key."""

    def __init__(self, limits: Streaks, runtime: Runtime) -> None:
        self.limits = limits
        self.blocked = 0  # times that it was too much
        self._now_ms = runtime.monotonic_ms
        self._streaks: dict[Hashable, Streak] = {}

    def is_blocked(self, key: Hashable) -> bool:
        """Whether there was too much under a key lately."""
        streak = self._streaks.get(key)
        return streak is not None and self._now_ms() < streak.until_ms

    def count(self, key: Hashable) -> None:
        """Count one, which may be one too many."""
        limits, now_ms = self.limits, self._now_ms()
        if not limits.most:
            return
        streak = self._streaks.get(key)
        if streak is None or self._is_past(streak, now_ms):
            self._streaks.pop(key, None)  # so that the oldest stay the first
            if len(self._streaks) >= STREAKS_MAX:
                self._forget(now_ms)
            streak = self._streaks[key] = Streak(now_ms)
        streak.count += 1
        if streak.count == limits.most + 1:
            self.blocked += 1
            streak.until_ms = now_ms + limits.blocked_s * 1000

    def _is_past(self, streak: Streak, now_ms: int) -> bool:
        return now_ms >= max(streak.begun_ms + self.limits.window_s * 1000, streak.until_ms)

    def _forget(self, now_ms: int) -> None:
        """Forget what is past; where that is little, the older half of all."""
        kept = [each for each in self._streaks.items() if not self._is_past(each[1], now_ms)]
        if len(kept) > STREAKS_MAX // 2:
            del kept[: len(kept) - STREAKS_MAX // 2]
        self._streaks = dict(kept)


class Guard:
    """All that keeps a client out before it is asked who it is."""

    def __init__(
        self, broker: Broker, sessions: SessionTable, *, flapping: Streaks, failures: Streaks
    ) -> None:
        """Read the bans; what else keeps somebody out begins anew with the server."""
        runtime = broker.runtime
        topic = ensure_own(broker.log, BANS_LOG_TOPIC, BANS_CONFIGS)
        self.bans = Bans(broker, topic.partitions[0])
        self.flapping = Counter(flapping, runtime)  # by client id and address
        self.failures = Counter(failures, runtime)  # by address
        self._runtime = runtime
        self._sessions = sessions
        self._followers: list[Callable[[], None]] = []

    def follow(self, banned: Callable[[], None]) -> None:
        """Have a function called whenever somebody is banned."""
        self._followers.append(banned)

    def refuses(self, address: str) -> Banned | None:
        """Return why nobody is let in from an address, if nobody is."""
        ban = self.bans.of("address", address)
        if ban is not None:
            return banned(ban)
        if self.failures.is_blocked(network_of(address)):
            return Banned("too many attempts to authenticate from this address have failed")
        return None

    def refuses_user(self, user: str) -> Banned | None:
        """Return why a user is not let in; nobody has the empty name."""
        ban = self.bans.of("user", user)
        return banned(ban) if ban is not None else None

    def check(self, client_id: str, user: str, identity: Identity) -> None:
        """Count a CONNECT; raises Banned. `user` is whom it says to be, perhaps nobody."""
        refused = self.refuses(identity.address) or self.refuses_user(user)
        if refused is not None:
            raise refused
        ban = self.bans.of("client", client_id)
        if ban is not None:
            raise banned(ban)
        key = (client_id, network_of(identity.address))
        self.flapping.count(key)
        if self.flapping.is_blocked(key):
            raise Banned("this client has connected too often")

    def failed(self, identity: Identity) -> None:
        """An attempt to authenticate from there has failed."""
        network = network_of(identity.address)
        if network != LOCAL:
            self.failures.count(network)

    def ban(self, ban: Ban, done: Done | None = None) -> Ban:
        """Keep somebody out from now on, and end the connections that this is about.

        Clients are told of an administrative action (0x98) there, and that they are banned
        (0x8A) when they come again. See `Bans.add` for `done` and what is raised.
        """
        kept = self.bans.add(ban, done)
        if kept.kind == "client":
            entry = self._sessions.entries.get(kept.who)
            self._send_away([] if entry is None else [entry])
        else:
            self._send_away(list(self._sessions.entries.values()))
            for banned in self._followers:
                banned()
        return kept

    def unban(self, kind: Kind, who: str, done: Done | None = None) -> bool:
        """Let somebody in again; False if there is no such ban."""
        return self.bans.remove(kind, who, done)

    def _send_away(self, entries: list[SessionEntry]) -> None:
        """End the connections of those who are banned, some of them at a time."""
        for entry in entries[-CHECKED_PER_TURN:]:
            connection = entry.connection
            if connection is not None and self._covers(entry):
                connection.close(AdministrativeAction("banned"))
        del entries[-CHECKED_PER_TURN:]
        if entries:
            self._runtime.defer(partial(self._send_away, entries))

    def _covers(self, entry: SessionEntry) -> bool:
        assert entry.connection is not None
        identity = entry.connection.identity
        bans = self.bans
        return bool(
            bans.of("client", entry.session.client_id)
            or bans.of("address", identity.address)
            or bans.of("user", entry.principal.user)
        )


def banned(ban: Ban) -> Banned:
    """Return what a client is told of a ban."""
    return Banned(f"banned: {ban.reason}" if ban.reason else "banned")
