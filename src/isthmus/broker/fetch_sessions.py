"""Fetch sessions: a client names its partitions once, then only what changed [KIP-227].

A session remembers the partitions of a client and what the client was last told of each, so a
request lists changes only, and a response only partitions that have news. Each request carries
the session's epoch, which must be the one we expect: both sides agree on what the other has
seen. A partition that gave data moves to the end of the order, so that none starves.

The number of sessions is limited. A new one takes the place of one that was idle for a while;
where there is none, the client is served without a session, which the protocol allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.broker.fetches import FetchPartition
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.fetch import IDS_FIRST_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.kafka.fetch import FetchRequest
    from isthmus.runtime import Runtime

EPOCH_INITIAL = 0
EPOCH_FINAL = -1
EPOCH_MAX = (1 << 31) - 1
Key = tuple[str | bytes, int]


def entries_of(request: FetchRequest) -> list[FetchPartition]:
    """Return the partitions that a request names."""
    entries = []
    while request.next_topic():
        while request.next_partition():
            entries.append(_entry_of(request))
    return entries


def _entry_of(request: FetchRequest) -> FetchPartition:
    """Return the partition that a request stands at."""
    return FetchPartition(
        request.name,
        request.topic_id,
        request.index,
        request.offset,
        request.bytes_max,
        request.leader_epoch,
        request.last_fetched_epoch,
    )


class FetchSession:
    """The partitions of one client, in the order in which they are served next."""

    __slots__ = ("entries", "epoch", "session_id", "used_ms", "uses_ids")

    def __init__(self, session_id: int, now_ms: int, *, uses_ids: bool) -> None:
        self.session_id = session_id
        self.uses_ids = uses_ids
        self.epoch = 1  # what the next request must carry
        self.entries: dict[Key, FetchPartition] = {}
        self.used_ms = now_ms

    def update(self, request: FetchRequest) -> None:
        """Add partitions, or change what is wanted of them; forget others."""
        while request.next_topic():
            while request.next_partition():
                known = self.entries.get((request.name or request.topic_id, request.index))
                if known is None:
                    entry = _entry_of(request)
                    self.entries[entry.key] = entry
                else:
                    known.want(
                        request.offset,
                        request.bytes_max,
                        request.leader_epoch,
                        request.last_fetched_epoch,
                    )
        while request.next_forgotten():
            self.entries.pop((request.name or request.topic_id, request.index), None)

    def news(self, reads: Sequence[FetchPartition]) -> list[FetchPartition]:
        """Return the reads that the client must hear of, and note that it did."""
        told = []
        for read in reads:
            if read.has_news:
                told.append(read)
                # An error is told again and again, until the client does something about it.
                read.told = None if read.error else read.marks
            if read.size and self.entries.get(read.key) is read:
                del self.entries[read.key]
                self.entries[read.key] = read
        return told


class FetchContext:
    """How one request is to be served: what to read, and what of it to tell."""

    __slots__ = ("entries", "error", "is_full", "session")

    def __init__(
        self,
        entries: list[FetchPartition],
        session: FetchSession | None = None,
        error: ErrorCode = ErrorCode.NONE,
        *,
        is_full: bool = False,
    ) -> None:
        self.entries = entries
        self.session = session
        self.error = error
        self.is_full = is_full

    @property
    def session_id(self) -> int:
        """What the response says; 0 is no session."""
        return 0 if self.session is None else self.session.session_id

    def news(self, reads: Sequence[FetchPartition]) -> Sequence[FetchPartition]:
        """Return what the response must hold; the first one of a session holds all."""
        if self.session is None:
            return reads
        told = self.session.news(reads)
        return reads if self.is_full else told


class FetchSessions:
    """All fetch sessions of the server."""

    def __init__(
        self, runtime: Runtime, *, sessions_max: int = 1_000, idle_ms: int = 120_000
    ) -> None:
        self._runtime = runtime
        self._sessions_max = sessions_max
        self._idle_ms = idle_ms
        self._sessions: dict[int, FetchSession] = {}  # the longest unused first

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, request: FetchRequest, version: int) -> FetchContext:
        """Find out what a request wants; the context says so where its session is wrong."""
        session_id, epoch = request.session_id, request.session_epoch
        if epoch == EPOCH_FINAL:
            self._sessions.pop(session_id, None)
            return FetchContext(entries_of(request))
        if epoch == EPOCH_INITIAL:
            self._sessions.pop(session_id, None)
            return self._open(request, version)
        session = self._sessions.get(session_id)
        if session is None:
            return FetchContext([], error=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if session.epoch != epoch:
            return FetchContext([], error=ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.uses_ids != (version >= IDS_FIRST_VERSION):
            return FetchContext([], error=ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        return self._go_on(session, request)

    def put_off(self, context: FetchContext) -> int:
        """Return what a response says that tells of nothing yet; 0: nothing has begun."""
        if context.is_full and context.session is not None:
            self._sessions.pop(context.session.session_id, None)
            context.session = None
        return context.session_id

    def _open(self, request: FetchRequest, version: int) -> FetchContext:
        now_ms = self._runtime.monotonic_ms()
        session = FetchSession(self._fresh_id(), now_ms, uses_ids=version >= IDS_FIRST_VERSION)
        session.update(request)
        entries = [*session.entries.values()]
        if not entries:
            return FetchContext(entries)
        if len(self._sessions) >= self._sessions_max:
            oldest = next(iter(self._sessions.values()))
            if oldest.used_ms + self._idle_ms > now_ms:
                return FetchContext(entries)
            del self._sessions[oldest.session_id]
        self._sessions[session.session_id] = session
        return FetchContext(entries, session, is_full=True)

    def _go_on(self, session: FetchSession, request: FetchRequest) -> FetchContext:
        session.update(request)
        del self._sessions[session.session_id]
        if not session.entries:
            return FetchContext([])
        self._sessions[session.session_id] = session
        session.used_ms = self._runtime.monotonic_ms()
        session.epoch = 1 if session.epoch == EPOCH_MAX else session.epoch + 1
        return FetchContext([*session.entries.values()], session)

    def _fresh_id(self) -> int:
        while True:
            session_id = int.from_bytes(self._runtime.random_bytes(4), "big") & EPOCH_MAX
            if session_id and session_id not in self._sessions:
                return session_id
