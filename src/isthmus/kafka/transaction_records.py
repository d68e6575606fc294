"""What `__transaction_state` holds of a transactional id, in the format of Apache Kafka.

One record per id; no value means forgotten. Written is version 1 (KIP-890), read is version 0,
too. Not here: when they are written and read (broker/transactions.py).
"""

from __future__ import annotations

from typing import Final

from isthmus.errors import Malformed
from isthmus.kafka.frames import decode_prefixed, encode_prefixed
from isthmus.kafka.transaction import State, Transaction

TRANSACTIONS_LOG_TOPIC: Final = "__transaction_state"
TRANSACTIONS_CONFIGS: Final = {
    "cleanup.policy": "compact",
    "compression.type": "uncompressed",
    "segment.bytes": "104857600",
}
_VALUE_VERSION: Final = 1


def transaction_key(transactional_id: str) -> bytes:
    """Return the record key of a transactional id."""
    return encode_prefixed("TransactionLogKey", 0, {"transactional_id": transactional_id})


def transaction_value(kept: Transaction) -> bytes:
    """Return the record value of a transactional id."""
    topics: dict[str, list[int]] = {}
    for log_topic, partition in sorted(kept.partitions):
        topics.setdefault(log_topic, []).append(partition)
    partitions = [{"topic": name, "partition_ids": ids} for name, ids in topics.items()]
    return encode_prefixed(
        "TransactionLogValue",
        _VALUE_VERSION,
        {
            "producer_id": kept.producer_id,
            "previous_producer_id": kept.previous_producer_id,
            "next_producer_id": kept.next_producer_id,
            "producer_epoch": kept.epoch,
            "transaction_timeout_ms": kept.timeout_ms,
            "transaction_status": kept.state,
            "transaction_partitions": None if kept.state is State.EMPTY else partitions,
            "transaction_last_update_timestamp_ms": kept.updated_ms,
            "transaction_start_timestamp_ms": kept.start_ms,
            "client_transaction_version": kept.client_version,
        },
    )


def read_transaction_key(data: bytes) -> str:
    """Return the transactional id that a record is about. Raises Malformed."""
    return str(decode_prefixed("TransactionLogKey", data)["transactional_id"])


def read_transaction(data: bytes) -> Transaction:
    """Return what a record value holds. Raises Malformed."""
    body = decode_prefixed("TransactionLogValue", data)
    try:
        state = State(body["transaction_status"])
    except ValueError:
        raise Malformed(f"a transaction in state {body['transaction_status']}") from None
    return Transaction(
        body["producer_id"],
        body["producer_epoch"],
        body["transaction_timeout_ms"],
        state,
        frozenset(
            (one["topic"], partition)
            for one in body["transaction_partitions"] or ()
            for partition in one["partition_ids"]
        ),
        body["transaction_start_timestamp_ms"],
        body["transaction_last_update_timestamp_ms"],
        previous_producer_id=body["previous_producer_id"],
        next_producer_id=body["next_producer_id"],
        client_version=body["client_transaction_version"],
    )
