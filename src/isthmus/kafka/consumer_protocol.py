"""What members of the protocol type `consumer` tell one another, read by the server.

In a classic group the members assign the partitions among themselves, and the server passes on
bytes. It looks into them to know which log topics a group reads: whose offsets are in use, and
whose may be forgotten; and where such members meet those of the consumer protocol, it assigns
for them. What cannot be read is None, never an error: the bytes are theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from isthmus.errors import Malformed
from isthmus.kafka import codec, schema
from isthmus.kafka.frames import encode_prefixed

if TYPE_CHECKING:
    from isthmus.kafka.codec import Body

PROTOCOL_TYPE: Final = "consumer"
_SUBSCRIPTION: Final = "ConsumerProtocolSubscription"
_ASSIGNMENT: Final = "ConsumerProtocolAssignment"

Partitions: TypeAlias = dict[str, list[int]]  # by the name of the log topic


class Said(NamedTuple):
    """What a member says of itself."""

    topic_names: frozenset[str]
    owned: Partitions
    generation: int  # in which it got what it owns; -1: it does not say
    rack_id: str | None


def read_subscription(metadata: bytes) -> Said | None:
    """Return what a member's metadata says."""
    body = _read(_SUBSCRIPTION, metadata)
    if body is None:
        return None
    owned = {one["topic"]: one["partitions"] for one in body["owned_partitions"]}
    return Said(frozenset(body["topics"]), owned, body["generation_id"], body["rack_id"])


def subscribed_topics(metadata: bytes) -> frozenset[str] | None:
    """Return the log topics that a member's metadata names."""
    said = read_subscription(metadata)
    return None if said is None else said.topic_names


def read_assignment(data: bytes) -> Partitions | None:
    """Return what a member was given; nothing where it was not given anything yet."""
    if not data:
        return {}
    body = _read(_ASSIGNMENT, data)
    if body is None:
        return None
    return {one["topic"]: one["partitions"] for one in body["assigned_partitions"]}


def write_assignment(partitions: Partitions, metadata: bytes) -> bytes:
    """Return what a member is given, in the version in which it said what it reads."""
    last = schema.heading(_ASSIGNMENT).versions.last
    version = min(int.from_bytes(metadata[:2], "big", signed=True), last)
    rows = [{"topic": name, "partitions": indexes} for name, indexes in partitions.items()]
    return encode_prefixed(_ASSIGNMENT, version, {"assigned_partitions": rows})


def _read(message: str, data: bytes) -> Body | None:
    """Read a message behind its version; newer versions only add at the end."""
    if len(data) < 2:
        return None
    version = int.from_bytes(data[:2], "big", signed=True)
    first, last = schema.heading(message).versions
    if version < first:
        return None
    try:
        return codec.decode_head(message, min(version, last), data, 2)[0]
    except Malformed:
        return None
