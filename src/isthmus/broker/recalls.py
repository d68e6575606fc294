"""Messages that had to wait, as they go out: read back from their places in the log.

A delivery that waits is a partition and an offset. Recalling it may take the disk; then whoever
asked goes on when the record is there. Compiled, because a subscriber that catches up gets all
its messages through here.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.mapping import publish_of
from isthmus.broker.recent_records import LOADING, RecentRecords
from isthmus.broker.retained import RETAINED_LOG_TOPIC
from isthmus.broker.sessions import end_connection
from isthmus.broker.volatile import VOLATILE_LOG_TOPIC
from isthmus.errors import StorageError
from isthmus.mqtt.session import EXPIRED, NOT_YET

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.destinations import Destinations
    from isthmus.broker.permits import Permits
    from isthmus.mqtt.packets import Publish
    from isthmus.mqtt.session import Session
    from isthmus.runtime import Runtime

logger = logging.getLogger(__name__)

TOPIC_NAME_IS_KEY: Final = (RETAINED_LOG_TOPIC, VOLATILE_LOG_TOPIC)


class Recalls:
    """Reads back what waits."""

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

    def recall(
        self, session: Session, partition: Any, offset: int, *, begun: bool = False
    ) -> Publish | None:
        """Return the message of one record; None if it is gone, EXPIRED if it has expired.

        None as well where the session's client may not receive it, or not any more.

        `begun`: it was sent before, so it no longer expires [MQTT-4.3.3-7]. NOT_YET: it takes
        the disk to read it, and the session goes on when it is there; or the disk cannot be
        read, and the session's connection ends.
        """
        try:
            record = self._recent_records.at(partition, offset)
        except StorageError as error:
            logger.warning("message not recalled client=%s error=%s", session.client_id, error)
            self._runtime.defer(partial(end_connection, session, error))
            return NOT_YET
        if record is LOADING:
            session.recalling = True
            partition.wait(offset, partial(self._go_on, session))
            return NOT_YET
        if record is None:
            return None
        log_topic: str = partition.log_topic
        if log_topic in TOPIC_NAME_IS_KEY:
            topic_name = record.key
        else:
            topic_name = self._destinations.topic_name_of(log_topic, record)
        if topic_name is None:
            return None
        if self._permits.is_on and not self._permits.may_receive(session, topic_name):
            return None
        publish = publish_of(record, topic_name, self._runtime.now_ms(), 0, begun=begun)
        return EXPIRED if publish is None else publish

    def _go_on(self, session: Session) -> None:
        """What a session waited for has come from the disk."""
        session.recalling = False
        session.drain()
        self._touch(session)

    def forget(self) -> None:
        """A log topic was deleted: what was read of it is not to be given out."""
        self._recent_records.clear()
