"""What the local engine can be told, with its limits; `config` fills it from
[storage.local]."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.storage.producers import PRODUCERS_MAX
from isthmus.storage.topic_configs import DURABILITY_SYNCED

MIB = 1024 * 1024
WEEK_MS = 7 * 24 * 3_600_000  # Kafka's default of retention.ms


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Settings of the local engine; every limit it has is here."""

    durability: str = DURABILITY_SYNCED  # of log topics that do not say, as the next two
    retention_ms: int = WEEK_MS  # negative: for ever
    retention_bytes: int = -1  # per partition; negative: no limit
    node_id: int = 1  # written to meta.properties
    tail_bytes_max: int = 4 * MIB  # newest batches in memory, per partition
    tails_bytes_max: int = 64 * MIB  # and of all partitions together
    open_segments_max: int = 4096  # files kept open
    index_bytes_max: int = 64 * MIB  # indexes of open files in memory
    read_bytes_max: int = 1 * MIB  # taken from the disk at once, but for a larger batch
    loaded_bytes_max: int = 8 * MIB  # read from a cold disk and kept, per partition
    all_loaded_bytes_max: int = 32 * MIB  # and of all partitions together
    checkpoint_bytes: int = 128 * MIB  # most bytes to go over after a crash, about
    checkpoint_ms: int = 60_000  # longest time until they need not be gone over
    journal_file_bytes: int = 16 * MIB  # of one file; the most that one round copies
    journal_files_max: int = 8  # files of the journal; 0: every round syncs the segments
    # A check costs microseconds per partition. Kafka's five minutes let a disk of a few GB run
    # full in between: at 100 MB/s half a minute is 3 GB.
    retention_check_ms: int = 30_000  # between two looks for what has expired
    partitions_max: int = 20_000  # of all log topics together
    compaction_bytes_max: int = 32 * MIB  # for the keys of a compaction, 24 bytes for each
    producers_max: int = PRODUCERS_MAX  # idempotent producers remembered per partition
    producer_expiration_ms: int = 86_400_000  # since their last write, then they are forgotten

    @property
    def topic_defaults(self) -> dict[str, str]:
        """What holds for log topics that do not say otherwise."""
        return {
            "isthmus.durability": self.durability,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": str(self.retention_bytes),
        }
