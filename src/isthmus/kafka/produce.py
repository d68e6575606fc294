"""Produce, walked by hand: no dict, no list and no object for a topic or a partition.

    request    transactional id string? | acks i16 | timeout i32 | [topic] | tags
    topic      name string (from v13 on: uuid) | [partition] | tags
    partition  index i32 | records? | tags

`ProduceRequest` is a cursor over a request that was checked whole when it was made, so that
nothing is appended of one that turns out malformed later. `put_produce_response` writes what
`ProducedPartition` says of each partition. What the fields mean is the server's business, see
server/kafka_api/produce.py. The tests hold both equal to codec.py. Compiled, see `produce.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from isthmus.kafka.parts import Walker, Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.kafka.codec import Data
    from isthmus.wire.buffer import WriteBuffer

START_OFFSET_FIRST_VERSION: Final = 5
RECORD_ERRORS_FIRST_VERSION: Final = 8  # [KIP-467]
FLEXIBLE_FIRST_VERSION: Final = 9
LEADER_FIRST_VERSION: Final = 10  # [KIP-951]
IDS_FIRST_VERSION: Final = 13  # [KIP-516]
UUID_BYTES: Final = 16

_START_OFFSET_FIRST_VERSION: Final = START_OFFSET_FIRST_VERSION  # the same as C constants
_RECORD_ERRORS_FIRST_VERSION: Final = RECORD_ERRORS_FIRST_VERSION
_FLEXIBLE_FIRST_VERSION: Final = FLEXIBLE_FIRST_VERSION
_LEADER_FIRST_VERSION: Final = LEADER_FIRST_VERSION
_IDS_FIRST_VERSION: Final = IDS_FIRST_VERSION
_UUID_BYTES: Final = UUID_BYTES
_LEADER_TAG: Final = bytes((1, 0, 9))  # one tagged field: number 0, nine bytes


class ProduceRequest:
    """A request; `next_topic` and within each topic `next_partition` step through it.

    Of a topic there is either its `name` or, from v13 on, its `topic_id`; of a partition its
    `index` and its `records()`.
    """

    __slots__ = (
        "_memory",
        "_partitions_left",
        "_records_bytes",
        "_records_position",
        "_topics_left",
        "_uses_ids",
        "_walker",
        "acks",
        "index",
        "name",
        "timeout_ms",
        "topic_id",
        "transactional_id",
    )

    def __init__(self, version: int, data: Data, position: int) -> None:
        """Check the whole request, which begins at `position`; anything may follow it.

        Raises Malformed.
        """
        flexible = version >= _FLEXIBLE_FIRST_VERSION
        walker = self._walker = Walker(data, position, is_flexible=flexible)
        self._memory = memoryview(data)
        self._uses_ids = version >= _IDS_FIRST_VERSION
        self.transactional_id = walker.text()
        self.acks = walker.source.i16()
        self.timeout_ms = walker.source.i32()
        self.name = ""
        self.topic_id = bytes(_UUID_BYTES)
        self.index = self._records_bytes = -1
        self._records_position = self._partitions_left = 0
        start = walker.source.position
        self._topics_left = walker.count(self._topic_bytes_min())
        while self.next_topic():
            while self.next_partition():
                pass
        walker.skip_tags()
        walker.rewind(start)
        self._topics_left = walker.count(self._topic_bytes_min())

    def next_topic(self) -> bool:
        """Step to the next topic, once there is no partition left of the one before."""
        walker = self._walker
        if self._topics_left == 0:
            return False
        self._topics_left -= 1
        if self._uses_ids:
            self.topic_id = walker.source.bytes(_UUID_BYTES)
        else:
            self.name = walker.name()
        self._partitions_left = walker.count(6 if walker.is_flexible else 8)
        if self._partitions_left == 0:
            walker.skip_tags()
        return True

    def next_partition(self) -> bool:
        """Step to the next partition of the topic."""
        walker = self._walker
        if self._partitions_left == 0:
            return False
        self._partitions_left -= 1
        self.index = walker.source.i32()
        self._records_bytes = walker.length()
        self._records_position = walker.source.position
        if self._records_bytes > 0:
            walker.source.skip(self._records_bytes)
        walker.skip_tags()
        if self._partitions_left == 0:
            walker.skip_tags()  # of the topic
        return True

    def records(self) -> memoryview | None:
        """Return what is to be appended to the partition, a view of the request's memory."""
        if self._records_bytes < 0:
            return None
        start = self._records_position
        return self._memory[start : start + self._records_bytes]

    def _topic_bytes_min(self) -> int:
        if self._uses_ids:
            return _UUID_BYTES + 2
        return 3 if self._walker.is_flexible else 6


class ProducedPartition:
    """What a response says of one partition."""

    __slots__ = (
        "base_offset",
        "error_code",
        "error_message",
        "index",
        "leader_epoch",
        "leader_id",
        "log_append_time_ms",
        "record_errors",
        "start_offset",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.error_code = 0
        self.error_message: str | None = None
        self.record_errors: Sequence[tuple[int, str | None]] = ()
        self.base_offset = -1
        self.log_append_time_ms = -1
        self.start_offset = -1  # of the partition
        self.leader_id = -1  # who leads instead, where that is the error
        self.leader_epoch = -1


def put_produce_response(
    out: WriteBuffer,
    version: int,
    topics: Sequence[tuple[str | bytes, Sequence[ProducedPartition]]],
    throttle_ms: int = 0,
) -> None:
    """Append the body of a response: for each topic its name (from v13 on its id) and rows."""
    writer = Writer(out, is_flexible=version >= _FLEXIBLE_FIRST_VERSION)
    writer.count(len(topics))
    for topic, rows in topics:
        if isinstance(topic, bytes):
            out.put_bytes(topic)
        else:
            writer.text(topic)
        writer.count(len(rows))
        for row in rows:
            _put_row(writer, version, row)
        writer.tags(0)
    out.put_i32(throttle_ms)
    writer.tags(0)


def _put_row(writer: Writer, version: int, row: ProducedPartition) -> None:
    out = writer.out
    out.put_i32(row.index)
    out.put_i16(row.error_code)
    out.put_i64(row.base_offset)
    out.put_i64(row.log_append_time_ms)
    if version >= _START_OFFSET_FIRST_VERSION:
        out.put_i64(row.start_offset)
    if version >= _RECORD_ERRORS_FIRST_VERSION:
        writer.count(len(row.record_errors))
        for index, message in row.record_errors:
            out.put_i32(index)
            writer.text(message)
            writer.tags(0)
        writer.text(row.error_message)
    if version >= _LEADER_FIRST_VERSION and row.leader_id >= 0:
        out.put_bytes(_LEADER_TAG)
        out.put_i32(row.leader_id)
        out.put_i32(row.leader_epoch)
        writer.tags(0)
    else:
        writer.tags(0)
