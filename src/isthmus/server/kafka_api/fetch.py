"""Fetch: records as they are stored, without a copy.

Which partitions, from the fetch session [KIP-227]; reading and waiting, in broker/fetches.py;
here is only the wire form, and what depends on its version.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from isthmus.broker.access_rules import READ
from isthmus.broker.fetches import Fetch
from isthmus.kafka.errors import ErrorCode
from isthmus.kafka.fetch import IDS_FIRST_VERSION
from isthmus.kafka.frames import encode_fetch_response
from isthmus.server.kafka_api.throttles import fetchable, of_fetch
from isthmus.storage.log import ISOLATION_DURABLE, ISOLATION_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.broker.access import Rights
    from isthmus.broker.fetch_sessions import FetchContext
    from isthmus.broker.fetches import FetchPartition
    from isthmus.kafka.fetch import FetchRequest
    from isthmus.server.kafka_api.call import Call

READ_COMMITTED = 1
LEADER_FIRST_VERSION = 16  # [KIP-951]


def fetch(call: Call) -> None:
    """Answer with records, or with nothing once the client's patience ends."""
    shore = call.shore
    request: FetchRequest = call.request
    context = shore.fetch_sessions.begin(request, call.version)
    if context.error:
        call.answer({"error_code": context.error})
        return
    entries: list[FetchPartition] = context.entries
    denied: list[FetchPartition] = []
    if call.rights is not None:
        entries, denied = _readable(call, call.rights, entries)
    bytes_max, bytes_min = min(request.max_bytes, shore.fetch_bytes_left), request.min_bytes
    if shore.quotas.is_any:
        bytes_max = fetchable(call, bytes_max)
        bytes_min = min(bytes_min, max(1, bytes_max))  # more would never come
    is_committed = request.isolation_level == READ_COMMITTED
    wanted = Fetch(
        entries,
        ISOLATION_DURABLE if is_committed else ISOLATION_WRITTEN,
        bytes_max,
        bytes_min,
        request.max_wait_ms,
        spans=call.connection.takes_spans,
    )
    call.on_abandon = shore.fetches.serve(wanted, partial(_answer, call, context, denied))


def _readable(
    call: Call, rights: Rights, entries: list[FetchPartition]
) -> tuple[list[FetchPartition], list[FetchPartition]]:
    """Return what the client may read, and what not, which is told so each time."""
    kept: list[FetchPartition] = []
    denied: list[FetchPartition] = []
    for entry in entries:
        name = entry.name or call.shore.topic_ids.name_of(entry.topic_id)
        if name is None or rights.allows(READ, name):
            kept.append(entry)
            continue
        entry.forget_read()
        entry.error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        denied.append(entry)
    return kept, denied


def _answer(
    call: Call,
    context: FetchContext,
    denied: list[FetchPartition],
    reads: Sequence[FetchPartition],
) -> None:
    if call.shore.quotas.is_any:
        wait_ms = of_fetch(call, sum([read.size for read in reads]))
        if wait_ms:
            _answer_nothing(call, context, reads, wait_ms)
            return
    by_id = call.version >= IDS_FIRST_VERSION
    topics: dict[str | bytes, list[FetchPartition]] = {}
    is_fenced = False
    told = context.news([*reads, *denied] if denied else reads)
    for read in told:
        topics.setdefault(read.topic_id if by_id else read.name, []).append(read)
        if read.error:
            call.shore.counts.note_error(call.api_key, read.error)
        if read.error is ErrorCode.FENCED_LEADER_EPOCH:
            is_fenced = call.version >= LEADER_FIRST_VERSION
            read.leader_id = call.shore.node_id if is_fenced else -1
    host, port = call.connection.address
    response = encode_fetch_response(
        call.version,
        call.correlation_id,
        context.session_id,
        list(topics.items()),
        [(call.shore.node_id, host, port)] if is_fenced else [],
    )
    for read in told:
        read.buffers = ()  # they are the response's now
    call.answer_parts(response)


def _answer_nothing(
    call: Call, context: FetchContext, reads: Sequence[FetchPartition], wait_ms: int
) -> None:
    """Answer a client that has to wait; what was read it asks for again [KIP-219]."""
    for read in reads:
        read.forget_read()
    session_id = call.shore.fetch_sessions.put_off(context)
    head = call.version, call.correlation_id
    call.answer_parts(encode_fetch_response(*head, session_id, [], [], wait_ms))
