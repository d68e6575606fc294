"""Writes the markers that end transactions, into any partition, and says what hangs on them.

In `__consumer_offsets` a marker decides about offsets that groups have committed as a part of
the transaction; elsewhere the log and the relays know by themselves what it means. Not here:
which markers are to be written (transactions.py; an administrator, by WriteTxnMarkers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.broker.appends import WhenDurable
from isthmus.errors import TopicUnknown
from isthmus.kafka.group_records import GROUPS_LOG_TOPIC
from isthmus.record.markers import build_marker

if TYPE_CHECKING:
    from isthmus.broker.appends import Appends, Done
    from isthmus.broker.groups import GroupTable
    from isthmus.errors import IsthmusError
    from isthmus.kafka.transaction import Place, Producer
    from isthmus.record.markers import EndMarker
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log


class MarkerWriter:
    """Appends markers, and tells the groups of theirs."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        appends: Appends,
        groups: GroupTable,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._appends = appends
        self._groups = groups

    def write(self, place: Place, producer: Producer, marker: EndMarker, done: Done) -> None:
        """End the producer's transaction in one partition; `done` when that is durable.

        Fails with TopicUnknown, ProducerFenced, CoordinatorFenced, StorageError.
        """
        partition = self._log.partition(*place)
        if partition is None:
            done(TopicUnknown(f"no partition {place[1]} of a log topic {place[0]}"))
            return

        def stored(error: IsthmusError | None) -> None:
            if error is None and place[0] == GROUPS_LOG_TOPIC:
                self._groups.decide(place[1], producer[0], commits=marker.commits)
            done(error)

        batch = build_marker(*producer, marker, self._runtime.now_ms())
        self._appends.append(partition, batch, WhenDurable(stored), trusted=True)
