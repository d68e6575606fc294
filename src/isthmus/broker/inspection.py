"""What an administrator sees of clients, sessions, retained messages, bans, and does to them.

A hundred thousand of them are shown in pages, and no page looks at more than some thousand: one
with few items, or none, is not the last one where it has a `next`. Sessions come in the order
in which they began. Of those that are there from the first page to the last, each is shown
once; one that comes or goes meanwhile may be shown or not.

The payloads are in the log and may have to be read from the disk, so what is asked about
retained messages is answered through a function. Not here: HTTP (admin/api.py), and who may
ask.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from heapq import nsmallest
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from msgspec import Struct

from isthmus.broker.bans import Ban
from isthmus.broker.mapping import publish_of, topic_name_in
from isthmus.broker.recent_records import LOADING, RecentRecords
from isthmus.broker.sessions import EXPIRY_NEVER
from isthmus.errors import AdministrativeAction, StorageError
from isthmus.mqtt.packets import Publish
from isthmus.mqtt.properties import CONTENT_TYPE, USER_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.broker.bans import Kind
    from isthmus.broker.broker import Broker
    from isthmus.broker.clients import Clients
    from isthmus.broker.delayed import Entry as DelayedEntry
    from isthmus.broker.retained import Entry
    from isthmus.broker.sessions import SessionEntry
    from isthmus.broker.subscriptions import Subscription
    from isthmus.errors import IsthmusError
    from isthmus.mqtt.session import Session
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Partition
    from isthmus.topics.names import Walk

PAGE_MAX: Final = 1_000  # items of one page
SESSIONS_PER_PAGE_MAX: Final = 10_000  # that are looked at for it, some milliseconds
STEPS_PER_PAGE_MAX: Final = 10_000  # of a walk over the retained messages, likewise
READING_MS_MAX: Final = 5  # at a time, of the records of one page
WALKS_MAX: Final = 16  # listings of retained messages that a next page may be asked of
VERSIONS: Final = {3: "3.1", 4: "3.1.1", 5: "5.0"}

_NUMBER: Final = attrgetter("number")
_OFFSET: Final = attrgetter("offset")


class SessionView(Struct, frozen=True, kw_only=True):
    """A session, whether its client is connected or not; times are in ms since the epoch."""

    client_id: str
    user: str
    """Who connected last; empty: nobody with a name."""
    connected: bool
    expiry_s: int | None
    """How long it outlives its connection; none: for ever."""
    disconnected_at_ms: int | None
    expires_at_ms: int | None
    """When it ends if its client does not come back; none: it is connected, or never ends."""
    subscriptions: int
    queued: int
    in_flight: int
    """Deliveries at QoS 1 and 2 that the client has not acknowledged."""
    dropped: int
    """Deliveries that were given up."""
    dropped_by_reason: dict[str, int]
    """Why: no room in the `queue`, `expired` while they waited, `too_large` for the client,
    `gone` from the log, at QoS 0 while the client was `offline`, or `denied` to it by rules."""


class ClientView(SessionView, frozen=True, kw_only=True):
    """A client that is connected, with its session."""

    address: str
    port: int
    listener: str
    protocol: str
    is_bridge: bool
    keep_alive_s: int
    connected_at_ms: int


class SubscriptionView(Struct, frozen=True, kw_only=True):
    """One topic filter of a session, with its options."""

    topic_filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    retain_handling: int
    identifier: int | None
    automatic: bool


class RetainedView(Struct, frozen=True, kw_only=True):
    """A retained message."""

    topic_name: str
    qos: int
    payload_bytes: int
    retained_at_ms: int
    expires_at_ms: int | None


class RetainedMessage(RetainedView, frozen=True, kw_only=True):
    """A retained message with what is in it."""

    payload: bytes
    content_type: str | None
    user_properties: list[tuple[str, str]]


class DelayedView(Struct, frozen=True, kw_only=True):
    """A message that waits for its moment."""

    id: str
    topic_name: str
    payload_bytes: int
    delayed_at_ms: int
    due_at_ms: int


class BanView(Struct, frozen=True, kw_only=True):
    """Who is kept out."""

    kind: str
    who: str
    banned_at_ms: int
    expires_at_ms: int | None
    """When it is over; none: never."""
    reason: str


class Page(NamedTuple):
    """Some items, and the cursor of those that follow them; None: that were all."""

    items: Sequence[Struct]
    next: str | None


class Wanted(NamedTuple):
    """Which clients or sessions are asked for; what is empty or None does not matter."""

    search: str = ""  # is part of the client id
    user: str = ""
    address: str = ""
    listener: str = ""
    topic_name: str = ""  # is subscribed to, alone or in a group
    connected: bool | None = None

    def admits(self, entry: SessionEntry) -> bool:
        """Whether a session is one of these; one without a connection has no address."""
        connection = entry.connection
        if self.connected is not None and self.connected != (connection is not None):
            return False
        if self.search not in entry.session.client_id:
            return False
        if self.user and self.user != entry.principal.user:
            return False
        for name in ("address", "listener"):
            value = getattr(self, name)
            if value and (connection is None or getattr(connection.identity, name) != value):
                return False
        return True


class CursorUnknown(Exception):
    """The listing that a page is to go on with is not there any more; begin it anew."""


class Inspection:
    """The administrator's look at one broker and its clients."""

    def __init__(self, broker: Broker, clients: Clients) -> None:
        self._broker = broker
        self._sessions = clients.sessions
        self._guard = clients.guard
        self._walks: OrderedDict[str, tuple[str, Walk]] = OrderedDict()

    # --- clients and sessions -----------------------------------------------------------------

    def sessions(self, wanted: Wanted, after: int, count_max: int) -> Page:
        """Return sessions that began after number `after`; -1: from the first one on.

        Those that are wanted as connected are shown as clients.
        """
        entries = list(self._sessions.entries.values())
        start = bisect_right(entries, after, key=_NUMBER)
        show = self._client_view if wanted.connected else self._session_view
        subscribers = self._subscribers_of(wanted.topic_name) if wanted.topic_name else None
        found: list[Struct] = []
        place = start
        for entry in islice(entries, start, start + SESSIONS_PER_PAGE_MAX):
            place += 1
            if subscribers is not None and entry.session not in subscribers:
                continue
            if wanted.admits(entry):
                found.append(show(entry))
                if len(found) == count_max:
                    break
        return Page(found, str(entries[place - 1].number) if place < len(entries) else None)

    def _subscribers_of(self, topic_name: str) -> set[Session]:
        """Return the sessions that a message could come to, whatever the rules say."""
        subscriptions = self._broker.subscriptions
        receivers, groups = subscriptions.receivers(topic_name)
        found = {receiver.session for receiver in receivers}
        return found.union(*(group.members for group in groups))

    def session(self, client_id: str) -> SessionView | None:
        """Return one session, as a client if it is connected; None where there is none."""
        entry = self._sessions.entries.get(client_id)
        if entry is None:
            return None
        return (
            self._session_view(entry) if entry.connection is None else self._client_view(entry)
        )

    def subscriptions(self, client_id: str, after: str, count_max: int) -> Page | None:
        """Return a session's subscriptions, by topic filter; None where there is no session."""
        entry = self._sessions.entries.get(client_id)
        if entry is None:
            return None
        own = self._broker.subscriptions.of(entry.session)
        names = sorted(own)
        start = bisect_right(names, after)
        chosen = names[start : start + count_max]
        more = start + len(chosen) < len(names)
        return Page(
            [_subscription_view(own[name]) for name in chosen], chosen[-1] if more else None
        )

    def _session_view(self, entry: SessionEntry) -> SessionView:
        return SessionView(**self._state_of(entry))

    def _client_view(self, entry: SessionEntry) -> ClientView:
        connection = entry.connection
        assert connection is not None, "asked before"
        identity = connection.identity
        return ClientView(
            **self._state_of(entry),
            address=identity.address,
            port=identity.port,
            listener=identity.listener,
            protocol=VERSIONS[entry.session.version],
            is_bridge=entry.is_bridge,
            keep_alive_s=connection.keep_alive_s,
            connected_at_ms=connection.connected_at_ms,
        )

    def _state_of(self, entry: SessionEntry) -> dict[str, Any]:
        session = entry.session
        never = entry.expiry_s == EXPIRY_NEVER
        detached_at_ms = None if entry.connection is not None else entry.detached_at_ms
        return {
            "client_id": session.client_id,
            "user": entry.principal.user,
            "connected": entry.connection is not None,
            "expiry_s": None if never else entry.expiry_s,
            "disconnected_at_ms": detached_at_ms,
            "expires_at_ms": (
                None
                if detached_at_ms is None or never
                else detached_at_ms + entry.expiry_s * 1000
            ),
            "subscriptions": len(session.subscriptions),
            "queued": session.queue.length,
            "in_flight": len(session.inflight),
            "dropped": session.dropped.total,
            "dropped_by_reason": session.dropped.by_reason(),
        }

    def kick(self, client_id: str) -> bool:
        """Disconnect a client, with 0x98 where it understands that; False if it is not there.

        Its session stays, if it is to outlive connections; its will is sent [MQTT-3.1.2-8].
        """
        entry = self._sessions.entries.get(client_id)
        if entry is None or entry.connection is None:
            return False
        entry.connection.close(AdministrativeAction("an administrator ended the connection"))
        return True

    def end_session(
        self, client_id: str, done: Callable[[IsthmusError | None], object]
    ) -> bool:
        """End a session, and its connection, and tell `done` once that is durable.

        With the error if it cannot be. False, and nothing is told, where there is none.
        """
        entry = self._sessions.entries.get(client_id)
        if entry is None:
            return False
        self.kick(client_id)
        self._sessions.end(entry)
        self._broker.session_log.when_durable(done)
        return True

    # --- bans ---------------------------------------------------------------------------------

    def bans(self, after: str, count_max: int) -> Page:
        """Return bans by kind and name; `after` is the cursor of the page before, or empty.

        All bans are looked at for each page.
        """
        following = ((name_of_ban(ban), ban) for ban in self._guard.bans)
        found = nsmallest(count_max + 1, (each for each in following if each[0] > after))
        views = [ban_view(ban) for _, ban in found[:count_max]]
        return Page(views, found[count_max - 1][0] if len(found) > count_max else None)

    def ban(
        self,
        kind: Kind,
        who: str,
        *,
        seconds: int | None,
        reason: str,
        done: Callable[[IsthmusError | None], object],
    ) -> BanView:
        """Keep somebody out, for a while or for good, and tell `done` once that is durable.

        Raises ConfigInvalid, QuotaExceeded.
        """
        until_ms = 0 if seconds is None else self._broker.runtime.now_ms() + seconds * 1000
        return ban_view(self._guard.ban(Ban(kind, who, until_ms, reason), done))

    def unban(
        self, kind: Kind, who: str, done: Callable[[IsthmusError | None], object]
    ) -> bool:
        """Let somebody in again; False, and nothing is told, where there is no such ban.

        Raises ConfigInvalid.
        """
        return self._guard.unban(kind, who, done)

    # --- delayed messages ---------------------------------------------------------------------

    def delayed(
        self, after: int, count_max: int, done: Callable[[Page | StorageError], object]
    ) -> None:
        """Give `done` messages that wait, after the one of this number, as they came in."""
        found = list(islice(self._broker.delayed.after(after), count_max + 1))
        chosen = found[:count_max]
        following = str(chosen[-1].number) if len(found) > count_max else None

        def give(views: list[Any] | StorageError) -> None:
            done(views if isinstance(views, StorageError) else Page(views, following))

        partition = self._broker.delayed.partition
        _Reading(self._broker.runtime, partition, chosen, _delayed_view, give).go_on()

    def cancel_delayed(self, key: str, done: Callable[[IsthmusError | None], object]) -> bool:
        """Have a message not come; tell `done` once that is durable. False: it is not there."""
        return self._broker.delayed.cancel(key, done)

    # --- retained messages --------------------------------------------------------------------

    def retained(
        self,
        topic_filter: str,
        cursor: str | None,
        count_max: int,
        done: Callable[[Page | StorageError], object],
    ) -> None:
        """Give `done` the next retained messages that a valid topic filter matches.

        Or what keeps the log from being read. Perhaps within this call. A cursor is good for
        one page, and as long as few other listings are begun after it; CursorUnknown is raised
        for another one.
        """
        if cursor is None:
            walk = self._broker.retained.walk(topic_filter)
        else:
            begun = self._walks.pop(cursor, None)
            if begun is None or begun[0] != topic_filter:
                raise CursorUnknown
            walk = begun[1]
        entries = walk.take(count_max, STEPS_PER_PAGE_MAX)
        following = None
        if not walk.is_done:
            following = self._broker.runtime.random_bytes(8).hex()
            self._walks[following] = (topic_filter, walk)
            if len(self._walks) > WALKS_MAX:
                self._walks.popitem(last=False)

        def give(messages: list[Any] | StorageError) -> None:
            if isinstance(messages, StorageError):
                done(messages)
                return
            views = [_without_payload(message) for message in messages]
            done(Page(sorted(views, key=attrgetter("topic_name")), following))

        self._read_retained(entries, give)

    def retained_message(
        self, topic_name: str, done: Callable[[RetainedMessage | StorageError | None], object]
    ) -> None:
        """Give `done` what is retained under one topic name; None: nothing."""
        entry = self._broker.retained.get(topic_name.encode())

        def give(messages: list[Any] | StorageError) -> None:
            if isinstance(messages, StorageError):
                done(messages)
            else:
                done(messages[0] if messages else None)

        self._read_retained([] if entry is None else [entry], give)

    def _read_retained(
        self, entries: list[Entry], give: Callable[[list[Any] | StorageError], object]
    ) -> None:
        runtime = self._broker.runtime
        now_ms = runtime.now_ms()

        def view(record: Any, entry: Entry) -> RetainedMessage | None:
            return None if entry.has_expired(now_ms) else _message_of(record, entry, now_ms)

        _Reading(runtime, self._broker.retained.partition, entries, view, give).go_on()

    def remove_retained(
        self, topic_name: str, done: Callable[[IsthmusError | None], object]
    ) -> bool:
        """Remove what is retained under a topic name, and tell `done` once that is durable.

        With the error if it cannot be. False, and nothing is told, where nothing is retained.
        """
        retained = self._broker.retained
        if retained.get(topic_name.encode()) is None:
            return False
        waiting = cast("Any", _Removal(done))
        if retained.put(Publish(topic_name.encode(), b"", 1, True), waiting):
            self._broker.schedule()
        return True


class _Removal:
    """Waits for a tombstone as the publisher of an empty retained message would."""

    __slots__ = ("settle",)

    def __init__(self, settle: Callable[[IsthmusError | None], object]) -> None:
        self.settle = settle


class _Reading:
    """Reads messages from the log, in its order, and waits for the disk if need be."""

    def __init__(
        self,
        runtime: Runtime,
        partition: Partition,
        entries: Sequence[Any],
        view: Callable[[Any, Any], Struct | None],
        done: Callable[[list[Any] | StorageError], object],
    ) -> None:
        """`view(record, entry)` is how one is shown that an entry's offset leads to."""
        self._partition = partition
        self._runtime = runtime
        self._entries = sorted(entries, key=_OFFSET)
        self._place = 0
        self._records = RecentRecords()
        self._found: list[Struct] = []
        self._view = view
        self._done = done

    def go_on(self) -> None:
        """Read on as far as records are at hand, some milliseconds at a time."""
        end_ms = self._runtime.monotonic_ms() + READING_MS_MAX
        while self._place < len(self._entries):
            if self._runtime.monotonic_ms() > end_ms:
                self._runtime.defer(self.go_on)
                return
            entry = self._entries[self._place]
            try:
                record = self._records.at(self._partition, entry.offset)
            except StorageError as error:
                self._done(error)
                return
            if record is LOADING:
                self._partition.wait(entry.offset, self.go_on)
                return
            self._place += 1
            shown = self._view(record, entry) if record is not None else None
            if shown is not None:
                self._found.append(shown)
        self._done(self._found)


def _message_of(record: Any, entry: Entry, now_ms: int) -> RetainedMessage | None:
    publish = publish_of(record, record.key, now_ms, 0)
    if publish is None or record.value is None:
        return None  # it was replaced since it was found
    properties = publish.properties or {}
    return RetainedMessage(
        topic_name=record.key.decode(),
        qos=entry.qos,
        payload_bytes=len(record.value),
        retained_at_ms=record.timestamp,
        expires_at_ms=entry.expires_ms or None,
        payload=record.value,
        content_type=properties.get(CONTENT_TYPE),
        user_properties=properties.get(USER_PROPERTY, []),
    )


def _delayed_view(record: Any, entry: DelayedEntry) -> DelayedView | None:
    topic_name = topic_name_in(record)
    if topic_name is None or record.value is None:
        return None
    return DelayedView(
        id=entry.key.decode(),
        topic_name=topic_name.decode(),
        payload_bytes=len(record.value),
        delayed_at_ms=record.timestamp,
        due_at_ms=entry.due_ms,
    )


def _without_payload(message: RetainedMessage) -> RetainedView:
    return RetainedView(
        **{name: getattr(message, name) for name in RetainedView.__struct_fields__}
    )


def name_of_ban(ban: Ban) -> str:
    """Return what tells a ban from all others."""
    return f"{ban.kind}:{ban.who}"


def ban_view(ban: Ban) -> BanView:
    """Return a ban as it is shown."""
    return BanView(
        kind=ban.kind,
        who=ban.who,
        banned_at_ms=ban.since_ms,
        expires_at_ms=ban.until_ms or None,
        reason=ban.reason,
    )


def _subscription_view(subscription: Subscription) -> SubscriptionView:
    return SubscriptionView(
        topic_filter=subscription.topic_filter,
        qos=subscription.qos,
        no_local=subscription.no_local,
        retain_as_published=subscription.retain_as_published,
        retain_handling=subscription.retain_handling,
        identifier=subscription.identifier or None,
        automatic=subscription.is_automatic,
    )
