"""Fetch: records as they are stored, without a copy.

Which partitions, from the fetch session [KIP-227]; reading and waiting, in broker/fetches.py;
here is only the wire form, and what depends on its version.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from isthmus.broker.fetch_sessions import IDS_FIRST_VERSION
from isthmus.broker.fetches import Fetch
from isthmus.kafka.errors import ErrorCode
from isthmus.storage.log import ISOLATION_DURABLE, ISOLATION_WRITTEN

if TYPE_CHECKING:
    from isthmus.broker.fetch_sessions import FetchContext
    from isthmus.broker.fetches import PartitionRead
    from isthmus.server.kafka_api.call import Call

READ_COMMITTED = 1
LEADER_FIRST_VERSION = 16  # [KIP-951]


def fetch(call: Call) -> None:
    """Answer with records, or with nothing once the client's patience ends."""
    request, shore = call.request, call.shore
    context = shore.fetch_sessions.begin(request, call.version)
    if context.error:
        call.answer({"error_code": context.error})
        return
    is_committed = request["isolation_level"] == READ_COMMITTED
    wanted = Fetch(
        context.entries,
        ISOLATION_DURABLE if is_committed else ISOLATION_WRITTEN,
        min(request["max_bytes"], shore.fetch_bytes_left),
        request["min_bytes"],
        request["max_wait_ms"],
        spans=call.connection.takes_spans,
    )
    call.on_abandon = shore.fetches.serve(wanted, partial(_answer, call, context))


def _answer(call: Call, context: FetchContext, reads: list[PartitionRead]) -> None:
    by_id = call.version >= IDS_FIRST_VERSION
    topics: dict[str | bytes, list[dict[str, Any]]] = {}
    is_fenced = False
    for read in context.news(reads):
        key = read.entry.topic_id if by_id else read.entry.name
        topics.setdefault(key, []).append(_row(call, read))
        is_fenced = is_fenced or read.error is ErrorCode.FENCED_LEADER_EPOCH
    name = "topic_id" if by_id else "topic"
    response: dict[str, Any] = {
        "session_id": context.session_id,
        "responses": [{name: key, "partitions": rows} for key, rows in topics.items()],
    }
    if is_fenced and call.version >= LEADER_FIRST_VERSION:
        host, port = call.connection.address
        response["node_endpoints"] = [
            {"node_id": call.shore.node_id, "host": host, "port": port}
        ]
    call.answer(response)


def _row(call: Call, read: PartitionRead) -> dict[str, Any]:
    high_watermark, last_stable_offset, start_offset = read.marks
    row: dict[str, Any] = {
        "partition_index": read.entry.index,
        "error_code": read.error,
        "high_watermark": high_watermark,
        "last_stable_offset": last_stable_offset,
        "log_start_offset": start_offset,
        "aborted_transactions": _aborted(read),
        # Batches as they are, zstd in the oldest versions too: the reader knows what it can.
        "records": [*read.buffers],
    }
    if read.diverging is not None:
        epoch, end_offset = read.diverging
        row["diverging_epoch"] = {"epoch": epoch, "end_offset": end_offset}
    if read.error is ErrorCode.FENCED_LEADER_EPOCH and call.version >= LEADER_FIRST_VERSION:
        row["current_leader"] = {
            "leader_id": call.shore.node_id,
            "leader_epoch": read.leader_epoch,
        }
    return row


def _aborted(read: PartitionRead) -> list[dict[str, int]] | None:
    """Name what a reader of decided records has to drop; null for all other readers."""
    if read.aborted is None:
        return None
    return [
        {"producer_id": producer_id, "first_offset": first_offset}
        for producer_id, first_offset in read.aborted
    ]
