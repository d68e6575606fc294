"""Kafka's small text files: what they say and how they are written.

    leader-epoch-checkpoint               where each leader epoch of a partition begins
    recovery-point-offset-checkpoint      up to where each partition is on the disk for sure
    isthmus-compaction                    how far a partition is compacted (ours, not Kafka's)
    log-start-offset-checkpoint           where each partition begins
    partition.metadata                    which log topic, by id, a directory belongs to
    meta.properties                       whose data directory this is
    .kafka_cleanshutdown                  the last close was complete

Each is read with suspicion: a file that is not as it should be raises ValueError, and the
caller knows what to do without it.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from isthmus.wire.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from isthmus.storage.local.partition import LocalPartition

LEADER_EPOCH_FILE: Final = "leader-epoch-checkpoint"
RECOVERY_POINT_FILE: Final = "recovery-point-offset-checkpoint"
COMPACTION_FILE: Final = "isthmus-compaction"
START_OFFSET_FILE: Final = "log-start-offset-checkpoint"
PARTITION_METADATA_FILE: Final = "partition.metadata"
META_PROPERTIES_FILE: Final = "meta.properties"
CLEAN_SHUTDOWN_FILE: Final = ".kafka_cleanshutdown"
CLEAN_SHUTDOWN: Final = b'{"version":0,"brokerEpoch":-1}'

BY_ID: Final = "id:"  # before the id of a log topic; no name has a colon

_VERSION: Final = "0"


def id_text(identity: bytes) -> str:
    """Return 16 bytes as Kafka writes a UUID: 22 characters of URL-safe base64."""
    return urlsafe_b64encode(identity).rstrip(b"=").decode("ascii")


def parse_id(text: str) -> bytes:
    """Return the 16 bytes of a UUID as Kafka writes it. Raises ValueError."""
    identity = urlsafe_b64decode(text + "==")
    if len(identity) != 16:
        raise ValueError(f"{text!r} is no id")
    return identity


def _format_lines(lines: Sequence[str]) -> bytes:
    return "\n".join((_VERSION, str(len(lines)), *lines, "")).encode()


def _parse_lines(data: bytes) -> list[str]:
    version, count, *lines = data.decode().splitlines()
    if version != _VERSION or int(count) != len(lines):
        raise ValueError(f"version {version} with {len(lines)} of {count} lines")
    return lines


def format_offsets(offsets: Iterable[tuple[str, int, int]]) -> bytes:
    """Write (log topic, partition, offset) lines: recovery points, start offsets."""
    return _format_lines([f"{topic} {index} {offset}" for topic, index, offset in offsets])


def format_partition_offsets(offsets: Iterable[tuple[LocalPartition, int]]) -> bytes:
    """Write an offset of each partition.

    Kafka knows log topics by name, and a name may be given again. So a partition stands there
    twice: by name, for Kafka, and by the id of its log topic, which is what is read here.
    """
    return format_offsets(
        (topic, each.index, offset)
        for each, offset in offsets
        for topic in (each.log_topic, BY_ID + id_text(each.topic_id))
    )


def parse_offsets(data: bytes) -> dict[tuple[str, int], int]:
    """Read them by log topic, a name or an id behind `BY_ID`, and partition.

    Raises ValueError.
    """
    offsets = {}
    for line in _parse_lines(data):
        topic, index, offset = line.split()
        offsets[topic, int(index)] = int(offset)
    return offsets


def format_compaction(clean_offset: int, gap_end: int) -> bytes:
    """Write up to where a partition is clean, and below which offset it may have gaps."""
    return _format_lines([f"{clean_offset} {gap_end}"])


def parse_compaction(data: bytes) -> tuple[int, int]:
    """Return both. Raises ValueError."""
    (line,) = _parse_lines(data)
    clean_offset, gap_end = map(int, line.split())
    return clean_offset, gap_end


def format_partition_metadata(topic_id: bytes) -> bytes:
    """Write which log topic a partition's directory belongs to.

    The third line is ours. Apache Kafka (PartitionMetadataFile) reads two; but a bit that flips
    in the id would make another log topic's of all that lies beside it.
    """
    crc = crc32c(topic_id)
    return f"version: 0\ntopic_id: {id_text(topic_id)}\nisthmus.crc: {crc:08x}\n".encode()


def parse_partition_metadata(data: bytes) -> bytes:
    """Return the topic id. Raises ValueError."""
    lines = dict(line.split(": ", 1) for line in data.decode().splitlines() if line)
    if lines.get("version") != _VERSION or "topic_id" not in lines:
        raise ValueError("no version 0 or no topic_id")
    topic_id = parse_id(lines["topic_id"])
    if "isthmus.crc" in lines and int(lines["isthmus.crc"], 16) != crc32c(topic_id):
        raise ValueError("the id fails its checksum")
    return topic_id


def format_properties(properties: Mapping[str, str]) -> bytes:
    """Write `key=value` lines."""
    return "".join(f"{key}={value}\n" for key, value in properties.items()).encode()


def parse_properties(data: bytes) -> dict[str, str]:
    """Read `key=value` lines; comments and blank lines are passed over. Raises ValueError."""
    properties = {}
    for line in data.decode().splitlines():
        if line.strip() and not line.startswith("#"):
            key, _, value = line.partition("=")
            properties[key.strip()] = value.strip()
    return properties


class LeaderEpochs:
    """Where each leader epoch of a partition begins: what a reader asks after a truncation.

    The epoch changes when records that somebody may have seen can have been lost (an unclean
    end), so that consumers find out by OffsetsForLeaderEpoch (KIP-101, KIP-320).
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Sequence[tuple[int, int]] = ()) -> None:
        self._entries = list(entries)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Pairs of epoch and start offset, the oldest first."""
        return iter(self._entries)

    @property
    def latest(self) -> int:
        """The newest epoch, or -1 where there is none."""
        return self._entries[-1][0] if self._entries else -1

    def begin(self, epoch: int, start_offset: int) -> None:
        """Note that `epoch` begins at `start_offset`; epochs in which nothing came vanish."""
        assert epoch > self.latest
        while self._entries and self._entries[-1][1] >= start_offset:
            self._entries.pop()
        self._entries.append((epoch, start_offset))

    def cut(self, end_offset: int) -> None:
        """Forget epochs that begin after `end_offset`."""
        while self._entries and self._entries[-1][1] > end_offset:
            self._entries.pop()

    def cut_before(self, start_offset: int) -> bool:
        """Forget epochs that ended before the log begins; return whether there were any.

        The one in force there begins there now, as in Kafka (`truncateFromStart`).
        """
        gone = sum(1 for _, start in self._entries if start < start_offset)
        if not gone:
            return False
        kept = self._entries[gone:]
        if not kept or kept[0][1] > start_offset:
            kept.insert(0, (self._entries[gone - 1][0], start_offset))
        self._entries = kept
        return True

    def end_offset(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """Return (epoch, end offset) of the newest epoch not above `epoch`, or (-1, -1)."""
        end = log_end_offset
        for known, start in reversed(self._entries):
            if known <= epoch:
                return known, end
            end = start
        return -1, -1

    def at(self, offset: int) -> int:
        """Return the epoch in which `offset` was written, or -1 where none is known."""
        for epoch, start in reversed(self._entries):
            if start <= offset:
                return epoch
        return -1

    def format(self) -> bytes:
        """Write Kafka's checkpoint file."""
        return _format_lines([f"{epoch} {start}" for epoch, start in self._entries])

    @classmethod
    def parse(cls, data: bytes) -> LeaderEpochs:
        """Read Kafka's checkpoint file. Raises ValueError."""
        entries: list[tuple[int, int]] = []
        for line in _parse_lines(data):
            epoch, start = map(int, line.split())
            if epoch < 0 or start < 0 or (entries and (epoch, start) <= entries[-1]):
                raise ValueError(f"epoch {epoch} at {start} after {entries[-1:]}")
            entries.append((epoch, start))
        return cls(entries)
