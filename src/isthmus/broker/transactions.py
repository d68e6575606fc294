"""All transactional ids: their machines, their timeouts, and what is kept of them (KIP-98).

The coordinator of transactions. Each step of a machine (kafka/transaction.py) is stored in
`__transaction_state` and counts from when it is durable; so is the answer to its request. A
*prepared* end is what decides: from there on the markers are written into all partitions of
the transaction, again after any crash, and the end is *complete* when all of them are durable.
The client is answered before that; who comes in between waits, or is told to come again.

Nothing depends on a connection: who knows id and epoch may end a transaction from anywhere. A
transaction that is open for longer than its client asked for is aborted; an id that nobody uses
is forgotten after a week. Not here: the markers (transaction_markers.py), which offsets hang on
them (pending_offsets.py), what is on the wire (server/kafka_api/transactions.py).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from isthmus.broker.state_log import StateLog
from isthmus.errors import CoordinatorFenced, Malformed, ProducerFenced, TopicUnknown
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.transaction import (
    NO_EPOCH,
    NO_PRODUCER_ID,
    PREPARED,
    Place,
    Producer,
    State,
    Transaction,
    Transactional,
)
from isthmus.kafka.transaction_records import (
    TRANSACTIONS_CONFIGS,
    TRANSACTIONS_LOG_TOPIC,
    read_transaction,
    read_transaction_key,
    transaction_key,
    transaction_value,
)
from isthmus.record.markers import EndMarker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from isthmus.broker.appends import Appends
    from isthmus.broker.transaction_markers import MarkerWriter
    from isthmus.errors import IsthmusError
    from isthmus.record.batch import Record, RecordBatch
    from isthmus.runtime import Runtime
    from isthmus.storage.log import Log

logger = logging.getLogger(__name__)

TIMEOUT_CHECK_MS = 1_000
EXPIRY_CHECK_MS = 3_600_000
RETRY_MS = 1_000  # after what the disk has refused
NOBODY: Producer = (NO_PRODUCER_ID, NO_EPOCH)

# A marker refused like this has nothing to end: the partition is gone, or saw a newer one.
_NOTHING_TO_END = (TopicUnknown, ProducerFenced, CoordinatorFenced)


class Waiting(NamedTuple):
    """Partitions that are to belong to a transaction, and who waits for it."""

    producer: Producer
    places: frozenset[Place]
    version: int
    reply: Callable[[ErrorCode], None]


class Entry:
    """One transactional id with what belongs to it."""

    __slots__ = ("machine", "transactional_id", "waiting")

    def __init__(self, transactional_id: str, machine: Transactional) -> None:
        self.transactional_id = transactional_id
        self.machine = machine
        self.waiting: list[Waiting] = []


class TransactionTable:
    """Finds transactional ids, stores their steps and brings their ends about."""

    def __init__(
        self,
        runtime: Runtime,
        log: Log,
        appends: Appends,
        markers: MarkerWriter,
        *,
        timeout_max_ms: int = 900_000,
        expiration_ms: int = 604_800_000,
        ids_max: int = 100_000,
        partitions: int = 1,
    ) -> None:
        self._runtime = runtime
        self._markers = markers
        self._timeout_max_ms = timeout_max_ms
        self._expiration_ms = expiration_ms
        self._ids_max = ids_max
        self._entries: dict[str, Entry] = {}
        self._ongoing: dict[str, Entry] = {}  # of these, those with an open transaction
        self._checks_timeouts = False
        self._is_loading = True
        self._found: dict[str, Transaction] = {}
        self.kept = StateLog(
            *(runtime, log, appends),
            *(TRANSACTIONS_LOG_TOPIC, TRANSACTIONS_CONFIGS, partitions),
        )
        self.kept.load(self._replay, self._restore)
        runtime.later(EXPIRY_CHECK_MS, self._expire)

    # --- the protocol -------------------------------------------------------------------------

    def fresh_id(self) -> int:
        """Return a new producer id.

        63 random bits, like a UUID: unique over restarts and servers with nothing to store.
        """
        return int.from_bytes(self._runtime.random_bytes(8), "big") >> 1

    def initialise(
        self,
        transactional_id: str,
        timeout_ms: int,
        expected: Producer | None,
        reply: Callable[[ErrorCode, Producer], None],
    ) -> None:
        """InitProducerId: `reply` gets the producer, or why there is none."""
        entry = self._entries.get(transactional_id)
        error = self._refusal(transactional_id)
        if not error and not 0 < timeout_ms <= self._timeout_max_ms:
            error = ErrorCode.INVALID_TRANSACTION_TIMEOUT
        if not error and entry is None and len(self._entries) >= self._ids_max:
            error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        if error:
            reply(error, NOBODY)
            return
        now_ms, fresh_id = self._runtime.now_ms(), self.fresh_id()
        if entry is None:
            entry = Entry(transactional_id, Transactional.new(fresh_id, timeout_ms, now_ms))
            self._entries[transactional_id] = entry
        ahead = entry.machine.initialise(timeout_ms, expected, fresh_id, now_ms)
        if isinstance(ahead, ErrorCode):
            reply(ahead, NOBODY)
            return

        def stored(failure: ErrorCode) -> None:
            if failure:
                reply(failure, NOBODY)
            elif ahead.state is State.EMPTY:
                reply(ErrorCode.NONE, (ahead.producer_id, ahead.epoch))
            else:  # what was open is aborted first
                reply(ErrorCode.CONCURRENT_TRANSACTIONS, NOBODY)

        self._store(entry, stored)

    def add(
        self,
        transactional_id: str,
        producer: Producer,
        places: Iterable[Place],
        reply: Callable[[ErrorCode], None],
        version: int,
    ) -> None:
        """AddPartitionsToTxn: answered when it is durable.

        Kafka tells who comes while an end is being completed to come again; here it waits for
        that, and so does what comes behind it: all are answered in the order of their coming.
        """
        entry = self._known(transactional_id)
        if isinstance(entry, ErrorCode):
            reply(entry)
            return
        entry.waiting.append(Waiting(producer, frozenset(places), version, reply))
        self._add_waiting(entry)

    def verify(self, transactional_id: str, producer: Producer, place: Place) -> ErrorCode:
        """Say whether the partition belongs to the open transaction of this producer."""
        entry = self._known(transactional_id)
        return entry if isinstance(entry, ErrorCode) else entry.machine.verify(producer, place)

    def end(
        self,
        transactional_id: str,
        producer: Producer,
        reply: Callable[[ErrorCode, Producer], None],
        *,
        commits: bool,
        bumps: bool,
    ) -> None:
        """EndTxn: answered when the decision is durable; with the producer to go on as."""
        entry = self._known(transactional_id)
        if isinstance(entry, ErrorCode):
            reply(entry, NOBODY)
            return
        machine = entry.machine
        now_ms, fresh_id = self._runtime.now_ms(), self.fresh_id()
        ahead = machine.end(
            producer, commits=commits, bumps=bumps, fresh_id=fresh_id, now_ms=now_ms
        )
        if isinstance(ahead, ErrorCode):
            at = machine.at
            reply(ahead, NOBODY if ahead else (at.producer_id, at.epoch))
            return
        following: Producer = (ahead.producer_id, ahead.epoch)
        if ahead.next_producer_id != NO_PRODUCER_ID:
            following = (ahead.next_producer_id, 0)

        def stored(failure: ErrorCode) -> None:
            reply(failure, NOBODY if failure else following)

        self._store(entry, stored)

    # --- administration -----------------------------------------------------------------------

    def described(self, transactional_id: str) -> Transaction | ErrorCode:
        """DescribeTransactions: return what is kept of an id."""
        entry = self._known(transactional_id)
        if entry is ErrorCode.INVALID_PRODUCER_ID_MAPPING:
            return ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
        return entry if isinstance(entry, ErrorCode) else entry.machine.at

    def listed(self) -> dict[str, Transaction] | ErrorCode:
        """ListTransactions: return what is kept of all ids."""
        if self._is_loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return {name: entry.machine.at for name, entry in self._entries.items()}

    # --- inside -------------------------------------------------------------------------------

    def _refusal(self, transactional_id: str) -> ErrorCode:
        if not transactional_id:
            return ErrorCode.INVALID_REQUEST
        if self._is_loading:
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        return ErrorCode.NONE

    def _known(self, transactional_id: str) -> Entry | ErrorCode:
        """Return what has this id, or what its client is told."""
        error = self._refusal(transactional_id)
        if error:
            return error
        return self._entries.get(transactional_id, ErrorCode.INVALID_PRODUCER_ID_MAPPING)

    def _store(self, entry: Entry, done: Callable[[ErrorCode], None]) -> None:
        """Store the step that the machine is to take; tell `done`, then go on from there."""
        ahead = entry.machine.ahead
        assert ahead is not None
        name = entry.transactional_id
        value = None if ahead.state is State.DEAD else transaction_value(ahead)

        def stored(failure: ErrorCode) -> None:
            at = entry.machine.settle(stored=not failure)
            if at.state is State.DEAD or at.epoch == NO_EPOCH:  # forgotten, or never stored
                self._entries.pop(name, None)
            self._note(entry)
            done(failure)
            if at.state is State.DEAD:
                waiting, entry.waiting = entry.waiting, []
                _tell(waiting, ErrorCode.INVALID_PRODUCER_ID_MAPPING)
            elif at.state in PREPARED and not failure:
                self._finish(entry)
            else:
                self._add_waiting(entry)

        self.kept.write(name, [(transaction_key(name), value)], stored)

    def _note(self, entry: Entry) -> None:
        """Look after an open transaction as long as it is one."""
        if entry.machine.at.state is not State.ONGOING:
            self._ongoing.pop(entry.transactional_id, None)
            return
        self._ongoing[entry.transactional_id] = entry
        if not self._checks_timeouts:
            self._checks_timeouts = True
            self._runtime.later(TIMEOUT_CHECK_MS, self._check_timeouts)

    def _add_waiting(self, entry: Entry) -> None:
        """Add the partitions that are waited for, all of one producer in one step."""
        while entry.waiting:
            producer, _, version, _ = entry.waiting[0]
            ready = [each for each in entry.waiting if each.producer == producer]
            places = frozenset[Place]().union(*(each.places for each in ready))
            ahead = entry.machine.add(producer, places, version, self._runtime.now_ms())
            if ahead is ErrorCode.CONCURRENT_TRANSACTIONS:
                return
            entry.waiting = [each for each in entry.waiting if each.producer != producer]
            if not isinstance(ahead, ErrorCode):
                self._store(entry, partial(_tell, ready))
                return
            _tell(ready, ahead)

    # --- the end of a transaction -------------------------------------------------------------

    def _finish(self, entry: Entry) -> None:
        """Write the markers of a prepared end; after the last one it is complete."""
        at = entry.machine.at
        coordinator_epoch = self.kept.partition_for(entry.transactional_id).leader_epoch
        marker = EndMarker(at.state is State.PREPARE_COMMIT, coordinator_epoch)
        left = set(at.partitions)

        def write(place: Place) -> None:
            producer = (at.producer_id, at.epoch)
            self._markers.write(place, producer, marker, lambda error: marked(place, error))

        def marked(place: Place, error: IsthmusError | None) -> None:
            if error is not None:
                logger.warning(
                    "marker not written id=%s error=%s", entry.transactional_id, error
                )
                if not isinstance(error, _NOTHING_TO_END):
                    self._runtime.later(RETRY_MS, lambda: write(place))
                    return
            left.discard(place)
            if not left:
                self._complete(entry)

        for place in sorted(at.partitions):
            write(place)
        if not at.partitions:
            self._complete(entry)

    def _complete(self, entry: Entry) -> None:
        entry.machine.complete(self._runtime.now_ms())

        def stored(failure: ErrorCode) -> None:
            if failure:
                self._runtime.later(RETRY_MS, lambda: self._complete(entry))

        self._store(entry, stored)

    # --- time ---------------------------------------------------------------------------------

    def _check_timeouts(self) -> None:
        """Abort what is open for too long."""
        self._checks_timeouts = False
        now_ms = self._runtime.now_ms()
        for entry in [*self._ongoing.values()]:
            machine, at = entry.machine, entry.machine.at
            if machine.ahead is None and at.start_ms + at.timeout_ms < now_ms:
                logger.info("transaction timed out id=%s", entry.transactional_id)
                machine.fence(now_ms)
                self._store(entry, _ignore)
        if self._ongoing and not self._checks_timeouts:
            self._checks_timeouts = True
            self._runtime.later(TIMEOUT_CHECK_MS, self._check_timeouts)

    def _expire(self) -> None:
        """Forget ids that were not used for long."""
        now_ms = self._runtime.now_ms()
        for entry in [*self._entries.values()]:
            machine = entry.machine
            if machine.is_idle and machine.at.updated_ms + self._expiration_ms <= now_ms:
                logger.info("transactional id expired id=%s", entry.transactional_id)
                machine.expire(now_ms)
                self._store(entry, _ignore)
        self._runtime.later(EXPIRY_CHECK_MS, self._expire)

    # --- the start ----------------------------------------------------------------------------

    def _replay(self, _index: int, batch: RecordBatch) -> None:
        for record in () if batch.is_control else batch.records():
            self._replay_record(record)

    def _replay_record(self, record: Record) -> None:
        """Take in one record, newer than all before of the same id."""
        try:
            transactional_id = read_transaction_key(record.key or b"")
            if record.value is None:
                self._found.pop(transactional_id, None)
            else:
                self._found[transactional_id] = read_transaction(record.value)
        except Malformed as error:
            logger.warning(
                "transaction record skipped offset=%d error=%s", record.offset, error
            )

    def _restore(self) -> None:
        """Bring the ids to life after the last record was read, and finish what was decided."""
        found, self._found, self._is_loading = self._found, {}, False
        for name, transaction in found.items():
            self._entries[name] = Entry(name, Transactional(transaction))
        prepared = [
            each for each in self._entries.values() if each.machine.at.state in PREPARED
        ]
        for entry in self._entries.values():
            self._note(entry)
        for entry in prepared:
            self._finish(entry)
        logger.info(
            "transactions loaded ids=%d open=%d prepared=%d",
            *(len(found), len(self._ongoing), len(prepared)),
        )


def _tell(waiting: list[Waiting], code: ErrorCode) -> None:
    for each in waiting:
        each.reply(code)


def _ignore(_: ErrorCode) -> None:
    """What becomes of it is in the log."""
