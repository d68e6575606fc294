"""What members of the protocol type `consumer` tell one another, read by the server.

In a classic group the members assign the partitions among themselves, and the server passes on
bytes. It looks into them only to know which log topics a group reads: whose offsets are in use,
and whose may be forgotten. What cannot be read is None, never an error: the bytes are theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.errors import Malformed
from isthmus.kafka import codec, schema

if TYPE_CHECKING:
    from isthmus.kafka.codec import Body

PROTOCOL_TYPE: Final = "consumer"
_SUBSCRIPTION: Final = "ConsumerProtocolSubscription"


def subscribed_topics(metadata: bytes) -> frozenset[str] | None:
    """Return the log topics that a member's metadata names."""
    body = _read(_SUBSCRIPTION, metadata)
    return None if body is None else frozenset(body["topics"])


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
