"""Where groups are kept: the compacted log topic `__consumer_offsets`, written and read back.

All records of one group go to one partition, so they are read back in the order in which they
were written. The log topic is made when the first record needs it. Not here: what the records
say (kafka/group_records.py) and mean (groups.py).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from isthmus.broker.appends import WhenDurable
from isthmus.errors import IsthmusError, StorageError
from isthmus.kafka.errors import ErrorCode, code_of
from isthmus.kafka.group_records import GROUPS_CONFIGS, GROUPS_LOG_TOPIC, partition_of
from isthmus.record.batch import BatchBuilder, split_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.broker.appends import Appends
    from isthmus.record.batch import Record
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log, Partition

logger = logging.getLogger(__name__)

LOAD_BYTES = 1 << 20
BATCH_RECORDS_MAX = 1_000

Rows = list[tuple[bytes, bytes | None]]


class GroupLog:
    """Writes records about groups, and reads them all at the start."""

    def __init__(self, runtime: Runtime, log: Log, appends: Appends, partitions: int) -> None:
        self._runtime = runtime
        self._log = log
        self._appends = appends
        self._partitions = partitions
        self._loading: set[int] = set()  # partitions whose records are not all read yet

    def write(self, group_id: str, rows: Rows, done: Callable[[ErrorCode], None]) -> None:
        """Append records about one group; `done` when all are durable, or one failed."""
        try:
            log_topic = self._log.topics.get(GROUPS_LOG_TOPIC)
            if log_topic is None:
                log_topic = self._log.create(GROUPS_LOG_TOPIC, self._partitions, GROUPS_CONFIGS)
        except IsthmusError as error:
            done(_code_for(error))
            return
        partition = log_topic.partitions[partition_of(group_id, len(log_topic.partitions))]
        now_ms = self._runtime.now_ms()
        builder = BatchBuilder()
        starts = range(0, len(rows), BATCH_RECORDS_MAX)

        def stored(error: IsthmusError | None) -> None:
            done(ErrorCode.NONE if error is None else _code_for(error))

        ticket = WhenDurable(stored, len(starts))
        for start in starts:
            for key, value in rows[start : start + BATCH_RECORDS_MAX]:
                builder.append(now_ms, key, value)
            self._appends.append(partition, builder.seal(), ticket)

    def load(self, replay: Callable[[Record], None], done: Callable[[], None]) -> None:
        """Hand over all records, then call `done`; at once, if there are few."""
        log_topic = self._log.topics.get(GROUPS_LOG_TOPIC)
        if log_topic is None:
            done()
            return
        self._loading = {partition.index for partition in log_topic.partitions}
        for partition in log_topic.partitions:
            self._load_from(partition, partition.start_offset, replay, done)

    def _load_from(
        self,
        partition: Partition,
        offset: int,
        replay: Callable[[Record], None],
        done: Callable[[], None],
    ) -> None:
        """Hand over what one read gives from `offset` on, and come back for the rest."""
        following = offset
        if offset < partition.end_offset:
            try:
                for buffer in partition.read(offset, LOAD_BYTES).buffers:
                    for batch in split_batches(buffer):
                        for record in () if batch.is_control else batch.records():
                            replay(record)
                        following = batch.next_offset
            except IsthmusError:
                logger.exception("groups not loaded index=%d at=%d", partition.index, offset)
                return  # better no groups than groups that forgot how far they were
        go_on = partial(self._load_from, partition, following, replay, done)
        if following >= partition.end_offset:
            self._loading.discard(partition.index)
            if not self._loading:
                done()
        elif following > offset:
            self._runtime.defer(go_on)
        else:
            partition.wait(offset, go_on)


def _code_for(error: IsthmusError) -> ErrorCode:
    """Return what a client is told of records that were not stored.

    It looks for its coordinator again and repeats the request, as with Apache Kafka
    (GroupMetadataManager.storeGroup); a code that it does not expect here would end it.
    """
    return ErrorCode.NOT_COORDINATOR if isinstance(error, StorageError) else code_of(error)
