"""Where what a coordinator knows is kept: a compacted log topic, written and read back.

Groups are in `__consumer_offsets`, transactions in `__transaction_state`, as in Kafka. All
records about one name (a group, a transactional id) go to one partition, so they are read back
in the order in which they were written. The log topic is made when somebody asks for the
coordinator, as in Kafka, whose clients look for it then.
Not here: what the records say (kafka/group_records.py, kafka/transaction_records.py) and mean
(groups.py, transactions.py).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from isthmus.broker.appends import WhenDurable
from isthmus.errors import IsthmusError, StorageError
from isthmus.kafka.errors import ErrorCode, code_of
from isthmus.kafka.group_records import partition_of
from isthmus.record.batch import BatchBuilder, split_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isthmus.broker.appends import Appends
    from isthmus.record.batch import RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log, LogTopic, Partition

logger = logging.getLogger(__name__)

LOAD_BYTES = 1 << 20
BATCH_RECORDS_MAX = 1_000

Rows = list[tuple[bytes, bytes | None]]
Replay: TypeAlias = "Callable[[int, RecordBatch], None]"  # of a partition, by its index


class StateLog:
    """Writes records about names, and reads them all at the start."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        appends: Appends,
        log_topic: str,
        configs: Mapping[str, str],
        partitions: int,
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._appends = appends
        self._log_topic = log_topic
        self._configs = configs
        self._partitions = partitions
        self._loading: set[int] = set()  # partitions whose records are not all read yet

    def ensure(self) -> LogTopic:
        """Return the log topic, made where it is not there. Raises what `Log.create` raises."""
        found = self._log.topics.get(self._log_topic)
        if found is None:
            found = self._log.create(self._log_topic, self._partitions, self._configs)
        return found

    def partition_for(self, name: str) -> Partition:
        """Return the partition that holds what is kept of `name`.

        Raises what `Log.create` raises, where the log topic is to be made first.
        """
        found = self.ensure()
        return found.partitions[partition_of(name, len(found.partitions))]

    def write(
        self,
        name: str,
        rows: Rows,
        done: Callable[[ErrorCode], None],
        *,
        producer: tuple[int, int] | None = None,
    ) -> None:
        """Append records about `name`; `done` when all are durable, or one failed.

        With a `producer` (id and epoch) they belong to its transaction, and mean nothing until
        the marker comes that commits it.
        """
        try:
            partition = self.partition_for(name)
        except IsthmusError as error:
            done(state_code_of(error))
            return
        now_ms = self._runtime.now_ms()
        builder = BatchBuilder()
        starts = range(0, len(rows), BATCH_RECORDS_MAX)

        def stored(error: IsthmusError | None) -> None:
            done(ErrorCode.NONE if error is None else state_code_of(error))

        ticket = WhenDurable(stored, len(starts))
        for start in starts:
            for key, value in rows[start : start + BATCH_RECORDS_MAX]:
                builder.append(now_ms, key, value)
            if producer is None:
                batch = builder.seal()
            else:
                batch = builder.seal(0, *producer, transactional=True)
            self._appends.append(partition, batch, ticket, trusted=True)

    def load(self, replay: Replay, done: Callable[[], None]) -> None:
        """Hand over all batches, control batches too, then call `done`; at once, if few.

        A log topic that has lost its settings (to a repair of the catalog) has them again.
        """
        log_topic = self._log.topics.get(self._log_topic)
        if log_topic is None:
            done()
            return
        if self._configs.keys() - log_topic.configs.keys():
            self._log.configure(self._log_topic, {**self._configs, **log_topic.configs})
        self._loading = {partition.index for partition in log_topic.partitions}
        for partition in log_topic.partitions:
            self._load_from(partition, partition.start_offset, replay, done)

    def _load_from(
        self, partition: Partition, offset: int, replay: Replay, done: Callable[[], None]
    ) -> None:
        """Hand over what one read gives from `offset` on, and come back for the rest."""
        following = offset
        if offset < partition.end_offset:
            try:
                for buffer in partition.read(offset, LOAD_BYTES).buffers:
                    for batch in split_batches(buffer):
                        replay(partition.index, batch)
                        following = batch.next_offset
            except IsthmusError:
                logger.exception(
                    "state not loaded log_topic=%s index=%d at=%d",
                    *(partition.log_topic, partition.index, offset),
                )
                return  # better nothing than names of which half is forgotten
        go_on = partial(self._load_from, partition, following, replay, done)
        if following >= partition.end_offset:
            self._loading.discard(partition.index)
            if not self._loading:
                done()
        elif following > offset:
            self._runtime.defer(go_on)
        else:
            partition.wait(offset, go_on)


def state_code_of(error: IsthmusError) -> ErrorCode:
    """Return what a client is told of records that were not stored.

    It looks for its coordinator again and repeats the request, as with Apache Kafka
    (GroupMetadataManager.storeGroup); a code that it does not expect here would end it.
    """
    return ErrorCode.NOT_COORDINATOR if isinstance(error, StorageError) else code_of(error)
