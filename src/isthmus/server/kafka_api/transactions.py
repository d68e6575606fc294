"""InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit on the wire.

Also here: whether a batch or an offset of a transaction may be written (`admit_write`). Newer
clients do not say beforehand which partitions their transaction has; writing to one adds it
(KIP-890). For older ones it is only looked whether they have said so: what comes late, behind
the end of its transaction, would otherwise stay open for ever.

The rules are in kafka/transaction.py, the transactional ids in broker/transactions.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.state_log import state_code_of
from isthmus.broker.transactions import NOBODY
from isthmus.errors import IsthmusError
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.transaction import BUMPING, CLASSIC, NO_EPOCH, NO_PRODUCER_ID
from isthmus.server.kafka_api.group_offsets import commit_topic
from isthmus.server.kafka_api.log_topics import RequestRefused, is_internal

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.kafka.transaction import Place, Producer
    from isthmus.record.batch import RecordBatch
    from isthmus.server.kafka_api.call import Call
    from isthmus.storage.log import Partition, Ticket

MANY_TRANSACTIONS: Final = 4  # AddPartitionsToTxn: several at once, and only to verify
# From which version on a client knows the code PRODUCER_FENCED [KIP-588].
FENCED_FIRST: Final = {"init": 4, "add_partitions": 2, "add_offsets": 2, "end": 2}
END_BUMPS: Final = 5  # EndTxn
PRODUCE_ADDS: Final = 12
PRODUCE_ABORTABLE: Final = 11  # knows TRANSACTION_ABORTABLE
COMMIT_ADDS: Final = 5  # TxnOffsetCommit
COMMIT_ABORTABLE: Final = 4
LOADING_FIRST: Final = 2  # TxnOffsetCommit: producers before Kafka 2.0 end at that code

# What is about to pass, and is no answer to Produce that old clients would try again after.
_PASSING: Final = (
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
)


def init_producer_id(call: Call) -> None:
    """Give a producer its id and epoch [KIP-98]; a transactional one takes over with it.

    An idempotent producer that has an id already and asks again (to begin a new epoch, KIP-360)
    gets another.
    """
    request = call.request
    transactions = call.shore.transactions
    expected: Producer = (request["producer_id"], request["producer_epoch"])

    def reply(code: ErrorCode, producer: Producer) -> None:
        code = _known_code(call, "init", code)
        producer_id, epoch = producer
        call.answer({"error_code": code, "producer_id": producer_id, "producer_epoch": epoch})

    if (expected[0] == NO_PRODUCER_ID) != (expected[1] == NO_EPOCH):
        reply(ErrorCode.INVALID_REQUEST, NOBODY)
    elif request["transactional_id"] is None:
        reply(ErrorCode.NONE, (transactions.fresh_id(), 0))
    else:
        transactions.initialise(
            request["transactional_id"],
            request["transaction_timeout_ms"],
            None if expected == NOBODY else expected,
            reply,
        )


def _known_code(call: Call, kind: str, code: ErrorCode) -> ErrorCode:
    """Return the code as a client of this version knows it."""
    if code is ErrorCode.PRODUCER_FENCED and call.version < FENCED_FIRST[kind]:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return code


# --- what belongs to a transaction ------------------------------------------------------------


def add_partitions_to_txn(call: Call) -> None:
    """Let transactions have partitions, or say whether they do."""
    request = call.request
    if call.version < MANY_TRANSACTIONS:
        prefix = "v3_and_below_"
        fields = ("transactional_id", "producer_id", "producer_epoch", "topics")
        one = {name: request[prefix + name] for name in fields}
        AddPartitions(call, [{**one, "verify_only": False}]).run()
    else:
        AddPartitions(call, request["transactions"]).run()


class AddPartitions:
    """One request, until all its transactions have an answer."""

    __slots__ = ("_asked", "_call", "_left", "_results")

    def __init__(self, call: Call, asked: list[dict[str, Any]]) -> None:
        self._call = call
        self._asked = asked
        self._left = len(asked)
        self._results: list[dict[str, Any]] = []

    def run(self) -> None:
        """Begin all; the last answer sends the response."""
        if not self._asked:
            self._call.answer({"results_by_transaction": []})
        for one in self._asked:
            self._begin(one)

    def _begin(self, one: dict[str, Any]) -> None:
        producer: Producer = (one["producer_id"], one["producer_epoch"])
        transactional_id = one["transactional_id"]
        transactions = self._call.shore.transactions
        places = {
            (topic["name"], index): ErrorCode.NONE
            for topic in one["topics"]
            for index in topic["partitions"]
        }
        if one["verify_only"]:
            for place in places:
                places[place] = transactions.verify(transactional_id, producer, place)
            self._end(transactional_id, places)
            return
        refused = {place: code for place in places if (code := self._refusal(place))}
        if refused:
            others = dict.fromkeys(places, ErrorCode.OPERATION_NOT_ATTEMPTED)
            self._end(transactional_id, {**others, **refused})
            return

        def added(code: ErrorCode) -> None:
            code = _known_code(self._call, "add_partitions", code)
            self._end(transactional_id, dict.fromkeys(places, code))

        version = CLASSIC if self._call.version < MANY_TRANSACTIONS else BUMPING
        transactions.add(transactional_id, producer, places, added, version)

    def _refusal(self, place: Place) -> ErrorCode:
        if self._call.version < MANY_TRANSACTIONS and is_internal(place[0]):
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED
        if self._call.shore.log.partition(*place) is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        return ErrorCode.NONE

    def _end(self, transactional_id: str, codes: dict[Place, ErrorCode]) -> None:
        topics: dict[str, list[dict[str, Any]]] = {}
        for (name, index), code in codes.items():
            row = {"partition_index": index, "partition_error_code": code}
            topics.setdefault(name, []).append(row)
        rows = [{"name": name, "results_by_partition": each} for name, each in topics.items()]
        self._results.append({"transactional_id": transactional_id, "topic_results": rows})
        self._left -= 1
        if self._left == 0 and self._call.version < MANY_TRANSACTIONS:
            self._call.answer({"results_by_topic_v3_and_below": rows})
        elif self._left == 0:
            self._call.answer({"results_by_transaction": self._results})


def add_offsets_to_txn(call: Call) -> None:
    """Let a transaction have the partition in which the offsets of a group are kept."""
    request = call.request

    def reply(code: ErrorCode) -> None:
        call.answer({"error_code": _known_code(call, "add_offsets", code)})

    try:
        place = call.shore.groups.log_place(request["group_id"])
    except IsthmusError as error:
        reply(state_code_of(error))
        return
    producer: Producer = (request["producer_id"], request["producer_epoch"])
    transactional_id = request["transactional_id"]
    call.shore.transactions.add(transactional_id, producer, [place], reply, CLASSIC)


def end_txn(call: Call) -> None:
    """Commit or abort; on whatever connection, by whoever has id and epoch."""
    request = call.request

    def reply(code: ErrorCode, producer: Producer) -> None:
        body: dict[str, Any] = {"error_code": _known_code(call, "end", code)}
        if call.version >= END_BUMPS:
            body["producer_id"], body["producer_epoch"] = producer
        call.answer(body)

    call.shore.transactions.end(
        request["transactional_id"],
        (request["producer_id"], request["producer_epoch"]),
        reply,
        commits=request["committed"],
        bumps=call.version >= END_BUMPS,
    )


# --- what is written in one -------------------------------------------------------------------


def append_in_transaction(
    call: Call, partition: Partition, batch: RecordBatch, ticket: Ticket
) -> None:
    """Append a batch that belongs to a transaction, once that has the partition."""
    adds = call.version >= PRODUCE_ADDS
    producer: Producer = (batch.producer_id, batch.producer_epoch)

    def go_on(code: ErrorCode) -> None:
        if code in _PASSING:
            code = ErrorCode.NOT_ENOUGH_REPLICAS
        elif not code and adds and _lacks_beginning(partition, batch):
            code = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        if code:
            ticket.failed(RequestRefused(code, _why(code, partition)))
        else:
            call.shore.broker.append(partition, batch, ticket)

    name, knows = call.request.transactional_id, call.version >= PRODUCE_ABORTABLE
    admit_write(call, name, partition, producer, go_on, adds=adds, knows_abortable=knows)


def _lacks_beginning(partition: Partition, batch: RecordBatch) -> bool:
    """Whether this cannot be the first that the producer has sent here."""
    return batch.base_sequence > 0 and partition.producers.get(batch.producer_id) is None


def _why(code: ErrorCode, partition: Partition) -> str:
    if code in (ErrorCode.INVALID_TXN_STATE, ErrorCode.TRANSACTION_ABORTABLE):
        return f"the transaction does not have {partition.log_topic}-{partition.index}"
    return f"the transaction cannot be written to: {code.name}"


def admit_write(
    call: Call,
    transactional_id: str,
    partition: Partition,
    producer: Producer,
    go_on: Callable[[ErrorCode], None],
    *,
    adds: bool,
    knows_abortable: bool,
) -> None:
    """Tell `go_on` when and whether the transaction of a request may write to a partition.

    Nobody is asked where it has written before: then the partition itself knows.
    """
    known = partition.producers.get(producer[0])
    if known is not None and known.epoch == producer[1] and known.transaction_start >= 0:
        go_on(ErrorCode.NONE)
        return

    def answered(code: ErrorCode) -> None:
        if code is ErrorCode.PRODUCER_FENCED:
            code = ErrorCode.INVALID_PRODUCER_EPOCH
        elif code is ErrorCode.TRANSACTION_ABORTABLE and not knows_abortable:
            code = ErrorCode.INVALID_TXN_STATE
        go_on(code)

    place = (partition.log_topic, partition.index)
    if adds:
        call.shore.transactions.add(transactional_id, producer, [place], answered, BUMPING)
    else:
        answered(call.shore.transactions.verify(transactional_id, producer, place))


def txn_offset_commit(call: Call) -> None:
    """Commit offsets of a group as a part of a transaction."""
    request = call.request
    offsets: dict[Place, Any] = {}
    waiting: list[dict[str, Any]] = []  # rows whose code is decided for all
    topics = [commit_topic(call, topic, offsets, waiting) for topic in request["topics"]]

    def reply(code: ErrorCode) -> None:
        if code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and call.version < LOADING_FIRST:
            code = ErrorCode.COORDINATOR_NOT_AVAILABLE
        elif code in (ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.STALE_MEMBER_EPOCH):
            code = ErrorCode.ILLEGAL_GENERATION
        for row in waiting:
            row["error_code"] = code
        call.answer({"topics": topics})

    if not waiting:
        call.answer({"topics": topics})
        return
    group_id = request["group_id"]
    member = (request["member_id"], request["group_instance_id"], request["generation_id"])
    producer: Producer = (request["producer_id"], request["producer_epoch"])

    def go_on(code: ErrorCode) -> None:
        if code:
            reply(code)
        else:
            commit = call.shore.group_offsets.commit
            commit(group_id, member, offsets, reply, producer=producer)

    if not group_id:
        reply(ErrorCode.INVALID_GROUP_ID)
        return
    try:
        partition = call.shore.log.partition(*call.shore.groups.log_place(group_id))
    except IsthmusError as error:
        reply(state_code_of(error))
        return
    assert partition is not None
    name, adds = request["transactional_id"], call.version >= COMMIT_ADDS
    knows = call.version >= COMMIT_ABORTABLE
    admit_write(call, name, partition, producer, go_on, adds=adds, knows_abortable=knows)
