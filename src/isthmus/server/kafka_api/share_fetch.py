"""ShareFetch, ShareAcknowledge: records for members of share groups, and what became of them.

Which partitions, from the share session; who gets what, and waiting, in
broker/share_fetches.py. A ShareFetch may carry acknowledgements: they are taken in first, so
what is given back can be given out again, and the answer tells of both. What is wrong with one
partition is told of that one [KIP-932].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.access_rules import READ
from isthmus.broker.share_fetches import ShareFetch
from isthmus.broker.share_sessions import EPOCH_FINAL, EPOCH_INITIAL, Member, SessionRefused
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.share_partition import AckBatch, AckType
from isthmus.server.kafka_api.share_groups import where_enabled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from isthmus.broker.share_fetches import ShareRead
    from isthmus.broker.share_sessions import Wanted
    from isthmus.server.kafka_api.call import Call

BY_BATCHES: Final = 0  # what is meant by so many records [KIP-1206]
EXACTLY: Final = 1


class Said:
    """What a request says of records, and what is wrong with that."""

    def __init__(self, call: Call) -> None:
        self.batches: dict[Wanted, Sequence[AckBatch]] = {}
        self.codes: dict[Wanted, ErrorCode] = {}
        self.is_any = False
        renews = call.request["is_renew_ack"] and _may_renew(call)
        for wanted, partition in _partitions(call):
            rows = partition["acknowledgement_batches"]
            if not rows:
                continue
            self.is_any = True
            batches = [
                AckBatch(one["first_offset"], one["last_offset"], one["acknowledge_types"])
                for one in rows
            ]
            if not _may_read(call, wanted):
                self.codes[wanted] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            elif all(_is_sound(batch, renews=renews) for batch in batches):
                self.batches[wanted] = batches
            else:
                self.codes[wanted] = ErrorCode.INVALID_REQUEST


class Told:
    """An answer to a ShareFetch on its way: what was found, and what became of the rest."""

    def __init__(self, call: Call, said: Said, denied: Sequence[Wanted]) -> None:
        self._call = call
        self._said = said
        self._reads: Sequence[ShareRead] | None = None
        self._errors = dict.fromkeys(denied, ErrorCode.TOPIC_AUTHORIZATION_FAILED)
        self._is_acknowledged = False

    def acknowledged(self, codes: dict[Wanted, ErrorCode]) -> None:
        """What was said is durable, or has failed."""
        self._said.codes |= codes
        self._is_acknowledged = True
        self._answer()

    def fetched(self, reads: Sequence[ShareRead]) -> None:
        """These are the records for the member."""
        self._reads = reads
        self._answer()

    def _answer(self) -> None:
        if self._reads is None or not self._is_acknowledged:
            return
        is_first = self._call.request["share_session_epoch"] == EPOCH_INITIAL
        rows: dict[Wanted, dict[str, Any]] = {
            read.wanted: _read_row(read)
            for read in self._reads
            if is_first or read.error or read.acquired
        }
        for wanted, error in self._errors.items():
            rows[wanted] = {"partition_index": wanted[1], "error_code": error, "records": b""}
        for wanted, error in self._said.codes.items():
            row = rows.setdefault(wanted, {"partition_index": wanted[1], "records": b""})
            row["acknowledge_error_code"] = error
        self._call.answer({**_lock_time(self._call), "responses": _by_topic(rows)})


@where_enabled
def share_fetch(call: Call) -> None:
    """Answer with records for the member, or with none once its patience ends."""
    request, shore = call.request, call.shore
    try:
        member = _member(request)
        _check_limits(request)
        said = Said(call)
        places = _places(call, member, said)
    except SessionRefused as refused:
        call.answer({"error_code": refused.code, "error_message": str(refused)})
        return
    readable = [one for one in places if _may_read(call, one)]
    told = Told(call, said, [one for one in places if one not in readable])
    shore.share_fetches.acknowledge(member, said.batches, told.acknowledged)
    if request["share_session_epoch"] == EPOCH_FINAL:
        shore.share_fetches.release(member)
    wanted = ShareFetch(
        member,
        readable,
        0 if request["is_renew_ack"] else request["max_records"],
        request["batch_size"],
        request["share_acquire_mode"] == EXACTLY,
        min(request["max_bytes"], shore.fetch_bytes_left),
        request["min_bytes"],
        request["max_wait_ms"],
    )
    cancel = shore.share_fetches.serve(wanted, told.fetched)
    if call.response is None:
        call.on_abandon = cancel


@where_enabled
def share_acknowledge(call: Call) -> None:
    """Answer when what became of records is durable."""
    request, shore = call.request, call.shore
    epoch = request["share_session_epoch"]
    try:
        member = _member(request)
        if epoch == EPOCH_INITIAL:
            raise SessionRefused(ErrorCode.INVALID_SHARE_SESSION_EPOCH, "nothing was fetched")
        session = shore.share_sessions.check(member, epoch)
        said = Said(call)
    except SessionRefused as refused:
        call.answer({"error_code": refused.code, "error_message": str(refused)})
        return

    def acknowledged(codes: dict[Wanted, ErrorCode]) -> None:
        rows = {
            wanted: {"partition_index": wanted[1], "error_code": code}
            for wanted, code in (said.codes | codes).items()
        }
        call.answer({**_lock_time(call), "responses": _by_topic(rows)})

    if epoch == EPOCH_FINAL:
        shore.share_sessions.close(member)
    else:
        shore.share_sessions.go_on(session)
    shore.share_fetches.acknowledge(member, said.batches, acknowledged)
    if epoch == EPOCH_FINAL:
        shore.share_fetches.release(member)


def _member(request: dict[str, Any]) -> Member:
    """Return who asks. Raises SessionRefused."""
    group_id, member_id = request["group_id"], request["member_id"]
    if group_id is None or not member_id:
        raise SessionRefused(ErrorCode.INVALID_REQUEST, "a member has a group and an id")
    return Member(group_id, member_id)


def _check_limits(request: dict[str, Any]) -> None:
    """Raise SessionRefused where a request wants what goes not together."""
    if request["share_acquire_mode"] not in (BY_BATCHES, EXACTLY):
        raise SessionRefused(ErrorCode.INVALID_REQUEST, "there is no such way to acquire")
    limits = ("max_wait_ms", "min_bytes", "max_bytes", "max_records")
    if request["is_renew_ack"] and any(request[name] for name in limits):
        raise SessionRefused(ErrorCode.INVALID_REQUEST, "who renews locks gets no records")


def _places(call: Call, member: Member, said: Said) -> Sequence[Wanted]:
    """Return what is to be read, from the session of a member. Raises SessionRefused."""
    request, sessions = call.request, call.shore.share_sessions
    epoch = request["share_session_epoch"]
    named = [wanted for wanted, _ in _partitions(call)]
    if epoch == EPOCH_INITIAL:
        if said.is_any:
            raise SessionRefused(ErrorCode.INVALID_REQUEST, "nothing was fetched yet")
        return sessions.open(member, call.connection, named).in_turn()
    session = sessions.check(member, epoch)
    if epoch == EPOCH_FINAL:
        sessions.close(member)
        return ()
    forgotten = [
        (topic["topic_id"], index)
        for topic in request["forgotten_topics_data"]
        for index in topic["partitions"]
    ]
    sessions.go_on(session, named, forgotten)
    return session.in_turn()


def _partitions(call: Call) -> Iterable[tuple[Wanted, dict[str, Any]]]:
    for topic in call.request["topics"]:
        for partition in topic["partitions"]:
            yield (topic["topic_id"], partition["partition_index"]), partition


def _may_read(call: Call, wanted: Wanted) -> bool:
    """Whether the client may; an id that nothing has tells itself."""
    if call.rights is None:
        return True
    name = call.shore.topic_ids.name_of(wanted[0])
    return name is None or call.rights.allows(READ, name).allowed


def _may_renew(call: Call) -> bool:
    terms = call.shore.group_configs.share(call.request["group_id"])
    return terms.renew_acknowledge_enable == "true"


def _is_sound(batch: AckBatch, *, renews: bool) -> bool:
    """Whether something that can be said is said of records that there can be."""
    count = batch.last - batch.first + 1
    if batch.first < 0 or count <= 0 or len(batch.types) not in (1, count):
        return False
    last = AckType.RENEW if renews else AckType.REJECT
    return all(AckType.GAP <= each <= last for each in batch.types)


def _lock_time(call: Call) -> dict[str, int]:
    terms = call.shore.group_configs.share(call.request["group_id"])
    return {"acquisition_lock_timeout_ms": terms.record_lock_duration_ms}


def _read_row(read: ShareRead) -> dict[str, Any]:
    return {
        "partition_index": read.wanted[1],
        "error_code": read.error,
        "records": [batch.data for batch in read.batches],
        "acquired_records": [
            {
                "first_offset": one.first,
                "last_offset": one.last,
                "delivery_count": one.deliveries,
            }
            for one in read.acquired
        ],
    }


def _by_topic(rows: dict[Wanted, dict[str, Any]]) -> list[dict[str, Any]]:
    topics: dict[bytes, list[dict[str, Any]]] = {}
    for (topic_id, _), row in rows.items():
        topics.setdefault(topic_id, []).append(row)
    return [{"topic_id": topic_id, "partitions": of_it} for topic_id, of_it in topics.items()]
