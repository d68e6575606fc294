"""Fetch, walked by hand: a client may name a thousand partitions, and each costs no object.

    request    wait i32 | min bytes i32 | max bytes i32 | isolation i8 | session id, epoch i32
               | [topic] | [forgotten topic] | rack string | tags
    topic      name string (from v13 on: uuid) | [partition] | tags
    partition  index i32 | leader epoch i32 | offset i64 | last fetched epoch i32
               | log start i64 | max bytes i32 | tags
    forgotten  name string or uuid | [index i32] | tags

`FetchRequest` is a cursor over a request that was checked whole when it was made;
`put_fetch_response` writes a response row by row and leaves out the records, which are sent
from where they are. Fields that only replicas set are stepped over. What it all means is told
in broker/fetches.py and broker/fetch_sessions.py. The tests hold both equal to codec.py.
Compiled, see `fetch.pxd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from isthmus.errors import Malformed
from isthmus.kafka.codec import SPLICE_BYTES_MIN
from isthmus.kafka.parts import Walker, Writer
from isthmus.wire.buffer import WriteBuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.kafka.codec import Data

FLEXIBLE_FIRST_VERSION: Final = 12
IDS_FIRST_VERSION: Final = 13  # [KIP-516]

_START_FIRST_VERSION: Final = 5
_SESSION_FIRST_VERSION: Final = 7  # [KIP-227]
_EPOCH_FIRST_VERSION: Final = 9  # [KIP-320]
_RACK_FIRST_VERSION: Final = 11
_FLEXIBLE_FIRST_VERSION: Final = FLEXIBLE_FIRST_VERSION
_IDS_FIRST_VERSION: Final = IDS_FIRST_VERSION
_REPLICA_STATE_FIRST_VERSION: Final = 15  # [KIP-903]
_DIRECTORY_FIRST_VERSION: Final = 17
_HIGH_WATERMARK_FIRST_VERSION: Final = 18
_ENDPOINTS_FIRST_VERSION: Final = 16  # [KIP-951]
_UUID_BYTES: Final = 16
_SPLICE_BYTES_MIN: Final = SPLICE_BYTES_MIN
_DIVERGING_TAG: Final = bytes((0, 13))  # the number of the tagged field and its size
_LEADER_TAG: Final = bytes((1, 9))


class FetchRequest:
    """A request; it is stepped through once: first its partitions, then the forgotten ones.

    `next_topic` and within each topic `next_partition` come to the partitions; what is wanted
    of each is in `index` to `bytes_max`. `next_forgotten` comes to each of those that the
    client wants no more: `name` or `topic_id`, and `index`.
    """

    __slots__ = (
        "_forgets",
        "_partitions_left",
        "_topics_left",
        "_version",
        "_walker",
        "bytes_max",
        "index",
        "isolation_level",
        "last_fetched_epoch",
        "leader_epoch",
        "max_bytes",
        "max_wait_ms",
        "min_bytes",
        "name",
        "offset",
        "session_epoch",
        "session_id",
        "topic_id",
    )

    def __init__(self, version: int, data: Data, position: int) -> None:
        """Check the whole request, which begins at `position`; anything may follow it.

        Raises Malformed.
        """
        flexible = version >= _FLEXIBLE_FIRST_VERSION
        walker = self._walker = Walker(data, position, is_flexible=flexible)
        source = walker.source
        self._version = version
        if version < _REPLICA_STATE_FIRST_VERSION:
            source.skip(4)  # the id of a replica
        self.max_wait_ms = source.i32()
        self.min_bytes = source.i32()
        self.max_bytes = source.i32()
        self.isolation_level = source.i8()
        self.session_id, self.session_epoch = 0, -1
        if version >= _SESSION_FIRST_VERSION:
            self.session_id, self.session_epoch = source.i32(), source.i32()
        self.name = ""
        self.topic_id = bytes(_UUID_BYTES)
        self.index = self.leader_epoch = self.last_fetched_epoch = -1
        self.offset = self.bytes_max = 0
        self._topics_left = self._partitions_left = 0
        self._forgets = False
        start = source.position
        self._begin()
        while self.next_topic():
            while self.next_partition():
                pass
        while self.next_forgotten():
            pass
        if version >= _RACK_FIRST_VERSION:
            walker.name()
        self._skip_own_tags()
        walker.rewind(start)
        self._begin()

    def next_topic(self) -> bool:
        """Step to the next topic, once there is no partition left of the one before."""
        if self._topics_left == 0:
            return False
        self._read_topic(self._partition_bytes_min())
        return True

    def next_partition(self) -> bool:
        """Step to the next partition of the topic."""
        walker, version = self._walker, self._version
        source = walker.source
        if self._partitions_left == 0:
            return False
        self._partitions_left -= 1
        self.index = source.i32()
        if version >= _EPOCH_FIRST_VERSION:
            self.leader_epoch = source.i32()
        self.offset = source.i64()
        if version >= _FLEXIBLE_FIRST_VERSION:
            self.last_fetched_epoch = source.i32()
        if version >= _START_FIRST_VERSION:
            source.skip(8)  # where the log of a replica starts
        self.bytes_max = source.i32()
        if version >= _FLEXIBLE_FIRST_VERSION:
            self._skip_partition_tags()
        if self._partitions_left == 0:
            walker.skip_tags()  # of the topic
        return True

    def next_forgotten(self) -> bool:
        """Step to the next forgotten partition, once there is no topic left."""
        if self._version < _SESSION_FIRST_VERSION:
            return False
        if not self._forgets:
            self._forgets = True
            self._topics_left = self._walker.count(self._topic_bytes_min())
        while self._partitions_left == 0:
            if self._topics_left == 0:
                return False
            self._read_topic(4)
        self._partitions_left -= 1
        self.index = self._walker.source.i32()
        if self._partitions_left == 0:
            self._walker.skip_tags()
        return True

    def _begin(self) -> None:
        self._forgets = False
        self._partitions_left = 0
        self._topics_left = self._walker.count(self._topic_bytes_min())

    def _read_topic(self, partition_bytes_min: int) -> None:
        walker = self._walker
        self._topics_left -= 1
        if self._version >= _IDS_FIRST_VERSION:
            self.topic_id = walker.source.bytes(_UUID_BYTES)
        else:
            self.name = walker.name()
        self._partitions_left = walker.count(partition_bytes_min)
        if self._partitions_left == 0:
            walker.skip_tags()

    def _topic_bytes_min(self) -> int:
        if self._version >= _IDS_FIRST_VERSION:
            return _UUID_BYTES + 2
        return 3 if self._version >= _FLEXIBLE_FIRST_VERSION else 6

    def _partition_bytes_min(self) -> int:
        if self._version >= _FLEXIBLE_FIRST_VERSION:
            return 33
        if self._version >= _EPOCH_FIRST_VERSION:
            return 28
        return 24 if self._version >= _START_FIRST_VERSION else 16

    def _skip_partition_tags(self) -> None:
        """Step over what only replicas say of a partition, and what nobody knows."""
        walker, version = self._walker, self._version
        for _ in range(walker.tags()):
            tag = walker.tag()
            size = walker.size()
            is_directory = tag == 0 and version >= _DIRECTORY_FIRST_VERSION
            is_high_watermark = tag == 1 and version >= _HIGH_WATERMARK_FIRST_VERSION
            if (is_directory and size != _UUID_BYTES) or (is_high_watermark and size != 8):
                raise Malformed(f"tagged field {tag} has {size} bytes")
            walker.source.skip(size)

    def _skip_own_tags(self) -> None:
        walker, version = self._walker, self._version
        if version < _FLEXIBLE_FIRST_VERSION:
            return
        for _ in range(walker.tags()):
            tag = walker.tag()
            size = walker.size()
            end = walker.source.position + size
            if tag == 0:
                walker.text()  # the id of the cluster
            elif tag == 1 and version >= _REPLICA_STATE_FIRST_VERSION:
                walker.source.skip(12)
                walker.skip_tags()
            else:
                walker.source.skip(size)
            if walker.source.position != end:
                raise Malformed(f"tagged field {tag} is not as long as it says")


class FetchedPartition:
    """What a response says of one partition."""

    __slots__ = (
        "aborted",
        "buffers",
        "diverging",
        "error",
        "high_watermark",
        "index",
        "last_stable_offset",
        "leader_epoch",
        "leader_id",
        "start_offset",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.clear()

    def clear(self) -> None:
        """Say nothing of the partition any more, and let go of its records."""
        self.error = 0
        self.high_watermark = self.last_stable_offset = self.start_offset = -1
        self.diverging: tuple[int, int] | None = None  # (epoch, end offset) [KIP-595]
        self.leader_id = -1  # told to a client that is behind [KIP-951]
        self.leader_epoch = -1
        # Transactions, as (producer id, first offset); None for who does not ask for them.
        self.aborted: Sequence[tuple[int, int]] | None = None
        self.buffers: Sequence[Any] = ()  # records: bytes, or what else has a length


def put_fetch_response(
    out: WriteBuffer,
    version: int,
    session_id: int,
    topics: Sequence[tuple[str | bytes, Sequence[FetchedPartition]]],
    endpoints: Sequence[tuple[int, str, int]],
    splices: list[tuple[int, Any]],
    throttle_ms: int = 0,
) -> None:
    """Append the body of a response: for each topic its name (from v13 on its id) and rows.

    Records of `SPLICE_BYTES_MIN` and more are left out, and appended to `splices` with the
    position in `out` where they belong. `endpoints` are nodes: id, host, port.
    """
    writer = Writer(out, is_flexible=version >= _FLEXIBLE_FIRST_VERSION)
    out.put_i32(throttle_ms)
    if version >= _SESSION_FIRST_VERSION:
        out.put_i16(0)
        out.put_i32(session_id)
    writer.count(len(topics))
    for topic, rows in topics:
        if isinstance(topic, bytes):
            out.put_bytes(topic)
        else:
            writer.text(topic)
        writer.count(len(rows))
        for row in rows:
            _put_row(writer, version, row, splices)
        writer.tags(0)
    if version < _ENDPOINTS_FIRST_VERSION or not endpoints:
        writer.tags(0)
        return
    _put_endpoints(writer, endpoints)


def _put_row(
    writer: Writer, version: int, row: FetchedPartition, splices: list[tuple[int, Any]]
) -> None:
    out = writer.out
    out.put_i32(row.index)
    out.put_i16(row.error)
    out.put_i64(row.high_watermark)
    out.put_i64(row.last_stable_offset)
    if version >= _START_FIRST_VERSION:
        out.put_i64(row.start_offset)
    if row.aborted is None:
        writer.count(-1)
    else:
        writer.count(len(row.aborted))
        for producer_id, first_offset in row.aborted:
            out.put_i64(producer_id)
            out.put_i64(first_offset)
            writer.tags(0)
    if version >= _RACK_FIRST_VERSION:
        out.put_i32(-1)  # no other replica to read from
    _put_records(writer, row.buffers, splices)
    if version >= _FLEXIBLE_FIRST_VERSION:
        _put_row_tags(writer, row)


def _put_records(
    writer: Writer, buffers: Sequence[Any], splices: list[tuple[int, Any]]
) -> None:
    size = 0
    for buffer in buffers:
        size += len(buffer)
    writer.count(size)
    for buffer in buffers:
        if len(buffer) < _SPLICE_BYTES_MIN:
            writer.out.put_bytes(buffer)
        else:
            splices.append((writer.out.size, buffer))


def _put_row_tags(writer: Writer, row: FetchedPartition) -> None:
    out = writer.out
    has_leader = row.leader_id >= 0
    writer.tags((row.diverging is not None) + has_leader)
    if row.diverging is not None:
        epoch, end_offset = row.diverging
        out.put_bytes(_DIVERGING_TAG)
        out.put_i32(epoch)
        out.put_i64(end_offset)
        writer.tags(0)
    if has_leader:
        out.put_bytes(_LEADER_TAG)
        out.put_i32(row.leader_id)
        out.put_i32(row.leader_epoch)
        writer.tags(0)


def _put_endpoints(writer: Writer, endpoints: Sequence[tuple[int, str, int]]) -> None:
    """Write the tagged field 0 of a response, behind its size."""
    content = WriteBuffer()
    inner = Writer(content, is_flexible=True)
    inner.count(len(endpoints))
    for node_id, host, port in endpoints:
        content.put_i32(node_id)
        inner.text(host)
        content.put_i32(port)
        inner.text(None)  # rack
        inner.tags(0)
    writer.tags(1)
    writer.out.put_uvarint(0)
    writer.out.put_uvarint(content.size)
    writer.out.put_bytes(content.take())
