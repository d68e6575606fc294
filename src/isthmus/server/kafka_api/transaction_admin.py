"""DescribeProducers, DescribeTransactions, ListTransactions, WriteTxnMarkers on the wire.

Who looks for a transaction that hangs asks the first three, and ends it with the last one: so
does `kafka-transactions.sh abort`. WriteTxnMarkers is otherwise what Kafka's brokers tell each
other; it is served because this command, and every admin client, sends it to a broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.expressions import ExpressionInvalid, compiled
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.group_records import GROUPS_LOG_TOPIC
from isthmus.kafka.transaction import BUMPING, State
from isthmus.record.markers import EndMarker
from isthmus.server.kafka_api.log_topics import is_internal, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.errors import IsthmusError
    from isthmus.kafka.transaction import Place, Transaction
    from isthmus.server.kafka_api.call import Call

_STATES: Final = {state.title: state for state in State}
_NOBODY: Final = {
    "transaction_state": "",
    "transaction_timeout_ms": 0,
    "transaction_start_time_ms": 0,
    "producer_id": 0,
    "producer_epoch": 0,
    "topics": [],
}


def describe_producers(call: Call) -> None:
    """Tell who has written to partitions lately, and what of it is open [KIP-664]."""
    topics = []
    for topic in call.request["topics"]:
        name, indexes = topic["name"], topic["partition_indexes"]
        rows = [_producers(call, (name, index)) for index in indexes]
        topics.append({"name": name, "partitions": rows})
    call.answer({"topics": topics})


def _producers(call: Call, place: Place) -> dict[str, Any]:
    partition = call.shore.log.partition(*place)
    row: dict[str, Any] = {"partition_index": place[1], "active_producers": []}
    if partition is None:
        return {**row, "error_code": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
    row["active_producers"] = [
        {
            "producer_id": producer_id,
            "producer_epoch": known.epoch,
            "last_sequence": known.last_sequence,
            "last_timestamp": known.timestamp,
            "coordinator_epoch": known.coordinator_epoch,
            "current_txn_start_offset": known.transaction_start,
        }
        for producer_id, known in partition.producers
    ]
    return row


def describe_transactions(call: Call) -> None:
    """Tell what is kept of transactional ids."""
    names = call.request["transactional_ids"]
    call.answer({"transaction_states": [_transaction(call, name) for name in names]})


def _transaction(call: Call, name: str) -> dict[str, Any]:
    kept = call.shore.transactions.described(name)
    if isinstance(kept, ErrorCode):
        return {**_NOBODY, "error_code": kept, "transactional_id": name}
    topics: dict[str, list[int]] = {}
    for log_topic, index in sorted(kept.partitions):
        topics.setdefault(log_topic, []).append(index)
    return {
        "error_code": ErrorCode.NONE,
        "transactional_id": name,
        "transaction_state": kept.state.title,
        "transaction_timeout_ms": kept.timeout_ms,
        "transaction_start_time_ms": kept.start_ms,
        "producer_id": kept.producer_id,
        "producer_epoch": kept.epoch,
        "topics": [{"topic": topic, "partitions": each} for topic, each in topics.items()],
    }


def list_transactions(call: Call) -> None:
    """List transactional ids: all, or those of some states, producers, durations or names."""
    request = call.request
    unknown = [name for name in request["state_filters"] if name not in _STATES]
    listed = call.shore.transactions.listed()
    if isinstance(listed, ErrorCode):
        call.answer({"error_code": listed})
        return
    try:
        wanted = _filter(call)
    except ExpressionInvalid:
        call.answer({"error_code": ErrorCode.INVALID_REGULAR_EXPRESSION})
        return
    rows = [
        {
            "transactional_id": name,
            "producer_id": kept.producer_id,
            "transaction_state": kept.state.title,
        }
        for name, kept in listed.items()
        if wanted(name, kept)
    ]
    call.answer({"unknown_state_filters": unknown, "transaction_states": rows})


def _filter(call: Call) -> Callable[[str, Transaction], bool]:
    """Return what tells whether an id is asked for. Raises ExpressionInvalid."""
    request = call.request
    states = {_STATES.get(name) for name in request["state_filters"]}
    ids = set(request["producer_id_filters"])
    duration_ms = request["duration_filter"]
    now_ms = call.shore.runtime.now_ms()
    pattern = request["transactional_id_pattern"]
    matches = compiled(pattern).fullmatch if pattern else None

    def wanted(name: str, kept: Transaction) -> bool:
        return (
            (not states or kept.state in states)
            and (not ids or kept.producer_id in ids)
            and (duration_ms < 0 or now_ms - kept.start_ms > duration_ms)
            and (matches is None or matches(name) is not None)
        )

    return wanted


def write_txn_markers(call: Call) -> None:
    """End transactions in the partitions named, whatever their coordinator thinks of it."""
    WriteMarkers(call).run()


class WriteMarkers:
    """One request, until all its markers are durable or refused."""

    __slots__ = ("_call", "_left", "_markers")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._left = 1  # one more than are not known yet, until all are asked
        self._markers: list[dict[str, Any]] = []

    def run(self) -> None:
        """Write all; the last answer sends the response."""
        for one in self._call.request["markers"]:
            topics = []
            for topic in one["topics"]:
                name, indexes = topic["name"], topic["partition_indexes"]
                rows = [self._begin(one, (name, index)) for index in indexes]
                topics.append({"name": name, "partitions": rows})
            self._markers.append({"producer_id": one["producer_id"], "topics": topics})
        self._answered()

    def _begin(self, one: dict[str, Any], place: Place) -> dict[str, Any]:
        row: dict[str, Any] = {"partition_index": place[1]}
        row["error_code"] = error = self._refusal(one, place)
        if error:
            return row

        def done(error: IsthmusError | None) -> None:
            if error is not None:
                row["error_code"] = refusal_of(error)
            self._answered()

        self._left += 1
        marker = EndMarker(one["transaction_result"], one["coordinator_epoch"])
        producer = (one["producer_id"], one["producer_epoch"])
        self._call.shore.markers.write(place, producer, marker, done)
        return row

    def _refusal(self, one: dict[str, Any], place: Place) -> ErrorCode:
        if is_internal(place[0]) and place[0] != GROUPS_LOG_TOPIC:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION  # nothing there is of a transaction
        producer = (one["producer_id"], one["producer_epoch"])
        if one["transaction_version"] >= BUMPING and self._is_not_raised(place, *producer):
            return ErrorCode.INVALID_PRODUCER_EPOCH
        return ErrorCode.NONE

    def _is_not_raised(self, place: Place, producer_id: int, epoch: int) -> bool:
        """Whether a marker of the newer form has the epoch of what it would end [KIP-1228]."""
        partition = self._call.shore.log.partition(*place)
        known = None if partition is None else partition.producers.get(producer_id)
        return known is not None and known.transaction_start >= 0 and epoch <= known.epoch

    def _answered(self) -> None:
        self._left -= 1
        if not self._left:
            self._call.answer({"markers": self._markers})
