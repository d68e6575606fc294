"""Share sessions: a member names its partitions once, then only what changes [KIP-932].

A session belongs to one member of one group; its partitions are read in turns, each request
from another one on. Each request carries the epoch that is expected: 0 begins a session anew,
-1 ends it. When it ends, or its connection does, what the member has not acknowledged is given
to others. The number of sessions is limited, as in Apache Kafka.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isthmus.kafka.errors import ErrorCode, RefusedWithCode

if TYPE_CHECKING:
    from collections.abc import Iterable

EPOCH_INITIAL = 0
EPOCH_FINAL = -1
EPOCH_MAX = (1 << 31) - 1


class SessionRefused(RefusedWithCode):
    """A request that does not fit its session; `code` is for its client."""


class Member(NamedTuple):
    """A member of a share group."""

    group_id: str
    member_id: str


Wanted = tuple[bytes, int]  # topic id and partition


class ShareSession:
    """What one member reads."""

    __slots__ = ("connection", "epoch", "member", "places")

    def __init__(self, member: Member, connection: object) -> None:
        self.member = member
        self.connection = connection  # on which it was begun
        self.epoch = 1  # what the next request must carry
        self.places: dict[Wanted, None] = {}

    def in_turn(self) -> list[Wanted]:
        """Return what is read, each time from another place on."""
        places = [*self.places]
        first = (self.epoch - 1) % len(places) if places else 0
        return places[first:] + places[:first]


class ShareSessions:
    """All share sessions of the server."""

    def __init__(self, sessions_max: int = 2_000) -> None:
        self._sessions_max = sessions_max
        self._sessions: dict[Member, ShareSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self, member: Member, connection: object, places: Iterable[Wanted]
    ) -> ShareSession:
        """Begin a session, in place of one that the member has. Raises SessionRefused."""
        self._sessions.pop(member, None)
        if len(self._sessions) >= self._sessions_max:
            raise SessionRefused(
                ErrorCode.SHARE_SESSION_LIMIT_REACHED, "there are as many sessions as may be"
            )
        session = self._sessions[member] = ShareSession(member, connection)
        session.places = dict.fromkeys(places)
        return session

    def check(self, member: Member, epoch: int) -> ShareSession:
        """Return the session that a request is of. Raises SessionRefused."""
        session = self._sessions.get(member)
        if session is None and epoch != EPOCH_INITIAL:
            raise SessionRefused(ErrorCode.SHARE_SESSION_NOT_FOUND, "there is no such session")
        if session is None or epoch not in (session.epoch, EPOCH_FINAL):
            raise SessionRefused(ErrorCode.INVALID_SHARE_SESSION_EPOCH, f"epoch {epoch}")
        return session

    def go_on(
        self, session: ShareSession, more: Iterable[Wanted] = (), less: Iterable[Wanted] = ()
    ) -> None:
        """Take in what a request of a session changes."""
        session.epoch = 1 if session.epoch == EPOCH_MAX else session.epoch + 1
        session.places.update(dict.fromkeys(more))
        for place in less:
            session.places.pop(place, None)

    def close(self, member: Member) -> None:
        """End the session of a member, if it has one."""
        self._sessions.pop(member, None)

    def lost(self, connection: object) -> list[Member]:
        """Return whose sessions were on a connection that has ended; they end with it."""
        if not self._sessions:
            return []
        gone = [one.member for one in self._sessions.values() if one.connection is connection]
        for member in gone:
            del self._sessions[member]
        return gone
