"""Clients that use more than their quota are made to wait [KIP-13, KIP-124, KIP-219, KIP-599].

Each is answered at once, and told for how long it should send nothing; for so long nothing more
of its connection is begun, whether it keeps to that or not, and whatever version it speaks.
These are called only where somebody has a quota. Of several quotas that are exceeded the one
with the longest wait counts. What was used is counted in broker/throttling.py.
"""

from __future__ import annotations

from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from isthmus.broker.quotas import CONSUMER, MUTATION, PRODUCER, REQUEST
from isthmus.kafka import schema
from isthmus.kafka.api import ApiKey, response_name
from isthmus.kafka.errors import ErrorCode
from isthmus.server.kafka_api.log_topics import RequestRefused

if TYPE_CHECKING:
    from isthmus.server.kafka_api.call import Call

ANONYMOUS: Final = "ANONYMOUS"  # Kafka's name for whoever has none
FIELD: Final = "throttle_time_ms"
EXEMPT: Final = frozenset({ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE})
STRICT_FIRST_VERSION: Final = {  # before, clients would take the refusal for final
    ApiKey.CREATE_TOPICS: 6,
    ApiKey.DELETE_TOPICS: 5,
    ApiKey.CREATE_PARTITIONS: 3,
}


def who(call: Call) -> tuple[str, str]:
    """Return the user and the client id, as quotas name them."""
    principal = call.connection.principal
    user = principal.user if principal is not None else ""
    return user or ANONYMOUS, call.client_id or ""


def of_produce(call: Call) -> int:
    """Count the bytes of a Produce request; return the milliseconds that its client waits.

    When it begins: of a pipeline no more begins then than the quota has room for.
    """
    return _wait(call, {PRODUCER: call.shore.throttling.produced(*who(call), call.size)})


def of_time(call: Call) -> int:
    """Count the time that a request took; return the milliseconds that its client waits."""
    return _wait(call, {REQUEST: call.shore.throttling.worked(*who(call), seconds_of(call))})


def of_fetch(call: Call, size: int) -> int:
    """Count a Fetch with what it found; where there is a wait, it is to be answered empty."""
    throttling = call.shore.throttling
    waits = {
        REQUEST: throttling.worked(*who(call), seconds_of(call)),
        CONSUMER: throttling.fetched(*who(call), size),
    }
    if waits[REQUEST] and not waits[CONSUMER]:
        throttling.not_fetched(*who(call), size)
    return _wait(call, waits)


def fetchable(call: Call, most: int) -> int:
    """Return how many bytes of records may go out at once, `most` at most."""
    found = call.shore.throttling.fetchable(*who(call))
    return most if found is None else min(found, most)


def of_request(call: Call, body: dict[str, Any]) -> None:
    """Count any other request, and say in its answer how long its client waits."""
    throttling = call.shore.throttling
    if call.api_key in EXEMPT or call.connection.principal is None:
        return
    waits = {REQUEST: throttling.worked(*who(call), seconds_of(call))}
    if call.mutations is not None:
        waits[MUTATION] = call.mutations.wait_ms
    wait_ms = _wait(call, waits)
    if wait_ms and tells(call.api_key):
        body[FIELD] = wait_ms


def take_partitions(call: Call, count: int) -> None:
    """Count partitions that a request makes or deletes.

    Raises RequestRefused where the client's quota is used up.
    """
    if not call.shore.quotas.is_any:
        return
    if call.mutations is None:
        call.mutations = call.shore.throttling.mutating(*who(call))
    is_strict = call.version >= STRICT_FIRST_VERSION[ApiKey(call.api_key)]
    if call.mutations is not None and not call.mutations.take(count, is_strict=is_strict):
        raise RequestRefused(
            ErrorCode.THROTTLING_QUOTA_EXCEEDED, "the quota of partitions is used up"
        )


def may_make(call: Call, count: int) -> bool:
    """Count partitions that are made because somebody asked about them, if they may be.

    Who has used up the quota is not made to wait: it is told that there is no such log topic,
    as by Apache Kafka, and asks again.
    """
    if not call.shore.quotas.is_any:
        return True
    mutations = call.shore.throttling.mutating(*who(call))
    return mutations is None or mutations.take(count, is_strict=True)


def seconds_of(call: Call) -> float:
    """Return how long the loop was busy with a request; what it waited for does not count."""
    return call.worked_s or perf_counter() - call.began_s


@cache
def tells(api_key: int) -> bool:
    """Whether the answer to a request has a place for the time to wait."""
    return any(field.name == FIELD for field in schema.message(response_name(api_key)).fields)


def _wait(call: Call, waits: dict[str, int]) -> int:
    """Hold the connection back for the longest wait, and return it."""
    key = max(waits, key=lambda each: waits[each])
    wait_ms = waits[key]
    if wait_ms:
        call.shore.throttling.note(key, wait_ms)
        call.connection.mute(wait_ms)
    return wait_ms
