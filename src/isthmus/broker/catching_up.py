"""Sessions that catch up: what waits for them is read back from the log, and sent.

A client that comes back, or takes output again, has `begin` called for its session, and what
waits goes out from the end of this turn on. Ten thousand of them at once are served a few
milliseconds in each turn, so that nobody else waits for them; their CONNACKs do not either.

Each session walks the log on its own, from message to message. Where its next one is not in
memory, it is read, if nobody else waits for that; else the session is *parked* at that place.
First all that are ready go on, each until its connection takes no more or it is parked; then
the next part of the log at which sessions are parked is read, once for all of them, and they
are ready again. So they cross the log together, and it is read once, not ten thousand times.
Who is parked behind the place where the others are waits until these have come to the end, so
nobody waits longer than that takes.

Where each part of the log has one message for each of them, each write to a socket would be one
message. So what a parked session has to send is held until it is worth a write, or some time
has passed.

Compiled, because a subscriber that catches up gets all its messages through here.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from isthmus.broker.mapping import publish_of
from isthmus.broker.recent_records import LOADING, RecentRecords
from isthmus.broker.retained import RETAINED_LOG_TOPIC
from isthmus.broker.sessions import end_connection
from isthmus.broker.volatile import VOLATILE_LOG_TOPIC
from isthmus.errors import StorageError
from isthmus.mqtt.session import DENIED, EXPIRED, NOT_YET

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.destinations import Destinations
    from isthmus.broker.permits import Permits
    from isthmus.broker.recent_records import Window
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.session import Session
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Partition

logger = logging.getLogger(__name__)

SLICE_MS: Final = 5  # at a time, over all sessions
LOADS_MAX: Final = 16  # parts of the log that come from the disk at one time
HOLD_BYTES_MAX: Final = 4_096  # of the output of one parked session
HOLD_MS_MAX: Final = 500
READS_AT_ONCE: Final = 4  # in a turn, for sessions that find nobody waiting
START: Final = (-1, 0)  # before every place
TOPIC_NAME_IS_KEY: Final = (RETAINED_LOG_TOPIC, VOLATILE_LOG_TOPIC)


class Parked(NamedTuple):
    """A session whose next message stands in a part of the log that is not in memory."""

    partition_number: int
    offset: int
    number: int  # no two are equal, so what follows is never compared
    session: Session
    partition: Partition


class CatchingUp:
    """All sessions that have something to send, and wait for their turn or for the log."""

    def __init__(
        self,
        runtime: Runtime,
        destinations: Destinations,
        permits: Permits,
        touch: Callable[[Session], None],
    ) -> None:
        """`touch(session)` has a session's output sent."""
        self._runtime = runtime
        self._destinations = destinations
        self._permits = permits
        self._touch = touch
        self._recent_records = RecentRecords()
        self._ready: OrderedDict[Session, None] = OrderedDict()
        self._held: dict[Session, None] = {}  # whose output is not sent yet
        self._hold_end_ms = 0
        self._parked: list[Parked] = []  # a heap: what lies before the walk
        self._behind: list[Parked] = []  # a heap: what is for the next walk
        self._at = START  # how far this walk has come: partition number, offset
        self._partition_numbers: dict[Partition, int] = {}
        self._number = 0
        self._loads = 0
        self._reads_left = READS_AT_ONCE
        self._absent: tuple[Partition, int] | None = None  # a place with no record, found last
        self._is_due = False

    def __len__(self) -> int:
        return len(self._ready) + len(self._parked) + len(self._behind)

    def begin(self, session: Session) -> None:
        """Have a session send what waits, as far as there is room, from this turn's end on."""
        if not session.recalling:  # else it goes on by itself
            self._ready[session] = None
            self._go_on_later()

    def recall(
        self,
        session: Session,
        partition: Partition,
        offset: int,
        *,
        begun: bool = False,
        shared: bool = False,
    ) -> Publish | None:
        """Return the message of one record; None if it is gone, EXPIRED if it has expired.

        DENIED where the session's client may not receive it, or not any more; that is not asked
        where it is `shared`, and may go to another.

        `begun`: it was sent before, so it no longer expires [MQTT-4.3.3-7]. NOT_YET: it has to
        be read, and the session goes on when it is; or the disk cannot be read, and the
        session's connection ends.
        """
        window = self._recent_records.find(partition, offset)
        if window is None:
            if offset < partition.start_offset or self._absent == (partition, offset):
                return None
            window = self._read_at_once(partition, offset)
            if window is None:
                self._park(session, partition, offset)
                return NOT_YET
        record = window.at(offset)
        if record is None:
            return None
        log_topic: str = partition.log_topic
        if log_topic in TOPIC_NAME_IS_KEY:
            topic_name = record.key
        else:
            topic_name = self._destinations.topic_name_of(log_topic, record)
        if topic_name is None:
            return None
        permits = self._permits
        if permits.is_on and not shared and not permits.may_receive(session, topic_name):
            return DENIED
        publish = publish_of(record, topic_name, self._runtime.now_ms(), 0, begun=begun)
        return EXPIRED if publish is None else publish

    def forget(self) -> None:
        """A log topic was deleted or changed: read anew."""
        self._recent_records.clear()

    # --- inside -------------------------------------------------------------------------------

    def _read_at_once(self, partition: Partition, offset: int) -> Window | None:
        """Read for a session that need not wait for others.

        Few do in a turn, or thousands that acknowledge one message after the other would read
        the log anew for each.
        """
        if self._reads_left == 0 or self._parked or self._behind:
            return None
        self._reads_left -= 1
        self._go_on_later()
        try:
            window = self._recent_records.read(partition, offset)
        except StorageError:
            return None  # it is told when the session's turn comes
        return None if window is None or window is LOADING else window

    def _park(self, session: Session, partition: Partition, offset: int) -> None:
        session.recalling = True
        numbers = self._partition_numbers
        self._number += 1
        partition_number = numbers.setdefault(partition, len(numbers))
        is_ahead = (partition_number, offset) >= self._at
        parked = Parked(partition_number, offset, self._number, session, partition)
        heappush(self._parked if is_ahead else self._behind, parked)
        self._go_on_later()

    def _go_on_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._runtime.defer(self._go_on)

    def _go_on(self) -> None:
        """Serve sessions for a while, then leave the rest to the next turn of the loop."""
        runtime = self._runtime
        self._reads_left = READS_AT_ONCE
        end_ms = runtime.monotonic_ms() + SLICE_MS
        while self._ready or self._read_next():
            session, _ = self._ready.popitem(last=False)
            session.drain()
            if session.recalling and session.output.size < HOLD_BYTES_MAX:
                self._held[session] = None
            elif session.output.size or session.step:
                self._touch(session)
            if runtime.monotonic_ms() > end_ms:
                break
        self._is_due = False
        goes_on = len(self._ready) > 0 or (len(self) > 0 and self._loads < LOADS_MAX)
        if goes_on:
            self._go_on_later()
        if not goes_on or end_ms > self._hold_end_ms:
            self._send_held(end_ms)

    def _send_held(self, now_ms: int) -> None:
        """Have the output of parked sessions sent."""
        for session in self._held:
            self._touch(session)
        self._held = {}
        self._hold_end_ms = now_ms + HOLD_MS_MAX

    def _read_next(self) -> bool:
        """Read on where sessions are parked, and have these ready; False where none is."""
        while not self._ready and self._loads < LOADS_MAX:
            if not self._parked:
                if not self._behind:
                    self._at = START
                    self._partition_numbers.clear()
                    return False
                self._parked, self._behind = self._behind, self._parked
                self._at = START
            self._read(self._parked[0])
        return bool(self._ready)

    def _read(self, first: Parked) -> None:
        """Read where the walk goes on."""
        partition, offset = first.partition, first.offset
        try:
            window = self._recent_records.read(partition, offset)
        except StorageError as error:
            heappop(self._parked)
            self._fail(first.session, error)
            return
        if window is LOADING:
            heappop(self._parked)
            self._loads += 1
            partition.wait(offset, partial(self._loaded, first))
            return
        last = offset
        if window is None or not window.holds(offset):
            self._absent = partition, offset
        else:
            last = window.last
        self._at = first.partition_number, last
        parked = self._parked
        while parked and parked[0].partition is partition and parked[0].offset <= last:
            session = heappop(parked).session
            session.recalling = False
            self._ready[session] = None

    def _loaded(self, parked: Parked) -> None:
        """A part of the log has come from the disk: it is read next."""
        self._loads -= 1
        heappush(self._parked, parked)
        self._go_on_later()

    def _fail(self, session: Session, error: StorageError) -> None:
        """The log cannot be read: the session's connection ends."""
        logger.warning("message not recalled client=%s error=%s", session.client_id, error)
        session.recalling = False
        end_connection(session, error)
