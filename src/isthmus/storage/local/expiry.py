"""Forgets producers that have written nothing for long (`producer.id.expiration.ms`).

A producer that comes back later is one that nobody knows: it may begin anywhere. One with an
open transaction is remembered until it is decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from isthmus.storage.local.housekeeping import Steps
    from isthmus.storage.local.shared import Shared

INTERVAL_MS: Final = 600_000  # as Kafka's producer.id.expiration.check.interval.ms


def expire_producers(shared: Shared) -> Steps:
    """Make one pass over all partitions; the loop turns after each that has producers."""
    for partition in tuple(shared.partitions):
        if len(partition.producers):
            idle_since_ms = shared.runtime.now_ms() - shared.settings.producer_expiration_ms
            partition.producers.expire(idle_since_ms)
            yield None
