"""The settings of a log topic: Apache Kafka's names, types, defaults and ranges, as one table.

`SETTINGS` is what DescribeConfigs shows and what CreateTopics and IncrementalAlterConfigs are
checked against (Kafka 4.3, `LogConfig`). `TopicConfig` is typed access to those that the
engines obey; the rest is checked, kept and shown, so that tools written for Kafka go on
working, and its text says so. One setting is our own: `isthmus.durability`. Not here: where
settings are kept (local/catalog.py) and who may change them.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from isthmus.errors import ConfigInvalid
from isthmus.record.compression import GZIP, LEVELS, LZ4, NAMES, NONE, SNAPPY, ZSTD

if TYPE_CHECKING:
    from collections.abc import Mapping

INT_MAX: Final = 2**31 - 1
LONG_MAX: Final = 2**63 - 1

AS_SENT: Final = -1  # no codec: each batch keeps its producer's
CODECS: Final = {
    "producer": AS_SENT,
    "uncompressed": NONE,
    **{NAMES[codec]: codec for codec in (GZIP, SNAPPY, LZ4, ZSTD)},
}

DURABILITY_SYNCED: Final = "synced"
DURABILITY_WRITTEN: Final = "written"
DURABILITY_MEMORY: Final = "memory"
DURABILITIES: Final = (DURABILITY_SYNCED, DURABILITY_WRITTEN, DURABILITY_MEMORY)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a log topic; `kind` is Kafka's type name in lower case."""

    name: str
    kind: str  # boolean, int, long, double, string or list
    default: str
    doc: str
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()
    server_default: str | None = None  # the broker setting Kafka derives the default from
    honoured: bool = True  # False: checked, kept and shown, but nothing here acts on it
    hidden: bool = False  # accepted, but not shown

    def parse(self, text: str) -> bool | int | float | str | tuple[str, ...]:
        """Return the value that `text` stands for; raise ConfigInvalid where it is none."""
        if self.kind == "boolean":
            return self._parse_boolean(text)
        if self.kind == "string":
            return self._check_allowed(text)
        if self.kind == "list":
            items = tuple(item.strip() for item in text.split(",")) if text.strip() else ()
            if len(set(items)) < len(items):
                raise ConfigInvalid(f"{self.name}={text}: an item is named twice")
            return tuple(self._check_allowed(item) for item in items)
        return self._parse_number(text)

    def _parse_boolean(self, text: str) -> bool:
        lower = text.strip().lower()
        if lower not in ("true", "false"):
            raise ConfigInvalid(f"{self.name}={text}: true or false wanted")
        return lower == "true"

    def _parse_number(self, text: str) -> int | float:
        number: int | float
        try:
            number = float(text) if self.kind == "double" else int(text)
        except ValueError:
            raise ConfigInvalid(f"{self.name}={text}: a number wanted ({self.kind})") from None
        low, high = self.bounds()
        if not low <= number <= high:  # a NaN fails both comparisons
            raise ConfigInvalid(f"{self.name}={text}: must be from {low} to {high}")
        return number

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value of a number."""
        natural = INT_MAX if self.kind == "int" else LONG_MAX
        low = -natural - 1 if self.low is None else self.low
        return low, natural if self.high is None else self.high

    def _check_allowed(self, text: str) -> str:
        if self.allowed and text not in self.allowed:
            raise ConfigInvalid(f"{self.name}={text}: must be one of {', '.join(self.allowed)}")
        return text


def _numbers() -> list[Setting]:
    """Return the settings that are sizes, times and counts."""
    return [
        Setting(
            "segment.bytes", "int", "1073741824",
            "Size at which a new segment file is begun. Retention and compaction work on "
            "whole segments, so smaller ones free space sooner and cost more files.",
            low=1024 * 1024, server_default="log.segment.bytes",
        ),
        Setting(
            "segment.ms", "long", "604800000",
            "Age of the oldest record of a segment at which a new one is begun even if it "
            "is not full, so that retention and compaction can reach its records.",
            low=1, server_default="log.roll.ms",
        ),
        Setting(
            "segment.jitter.ms", "long", "0",
            "Largest chance reduction of segment.ms, to keep many partitions from rolling "
            "at once.",
            low=0, server_default="log.roll.jitter.ms",
        ),
        Setting(
            "segment.index.bytes", "int", "10485760",
            "Size at which an index file is full and a new segment is begun.",
            low=4, server_default="log.index.size.max.bytes",
        ),
        Setting(
            "index.interval.bytes", "int", "4096",
            "Bytes of log between two entries of the offset index. Smaller: reads land "
            "nearer to the record wanted, and the index grows.",
            low=0, server_default="log.index.interval.bytes",
        ),
        Setting(
            "flush.messages", "long", str(LONG_MAX),
            "Number of records after which a sync of the files is asked for, whatever the "
            "durability. 1 is the same as isthmus.durability=synced.",
            low=1, server_default="log.flush.interval.messages",
        ),
        Setting(
            "flush.ms", "long", str(LONG_MAX),
            "Longest time that a record stays unsynced, whatever the durability.",
            low=0, server_default="log.flush.interval.ms",
        ),
        Setting(
            "retention.bytes", "long", "-1",
            "Size above which the oldest segments of a partition are deleted; -1 sets no "
            "limit. It holds per partition, not per log topic.",
            server_default="log.retention.bytes",
        ),
        Setting(
            "retention.ms", "long", "604800000",
            "Age above which segments are deleted; -1 keeps them for ever.",
            low=-1, server_default="log.retention.ms",
        ),
        Setting(
            "max.message.bytes", "int", "1048588",
            "Largest record batch (after compression) that is accepted.",
            low=0, server_default="message.max.bytes",
        ),
        Setting(
            "message.timestamp.before.max.ms", "long", str(LONG_MAX),
            "How far before the time of arrival a record's timestamp may lie. Unused with "
            "LogAppendTime.",
            low=0, server_default="log.message.timestamp.before.max.ms",
        ),
        Setting(
            "message.timestamp.after.max.ms", "long", "3600000",
            "How far after the time of arrival a record's timestamp may lie. Unused with "
            "LogAppendTime.",
            low=0, server_default="log.message.timestamp.after.max.ms",
        ),
        Setting(
            "delete.retention.ms", "long", "86400000",
            "How long a tombstone of a compacted log topic is kept, so that a reader that "
            "starts at the beginning has that time to see it.",
            low=0, server_default="log.cleaner.delete.retention.ms",
        ),
        Setting(
            "min.compaction.lag.ms", "long", "0",
            "Shortest time that a record stays uncompacted.",
            low=0, server_default="log.cleaner.min.compaction.lag.ms",
        ),
        Setting(
            "max.compaction.lag.ms", "long", str(LONG_MAX),
            "Longest time that a record may stay uncompacted.",
            low=1, server_default="log.cleaner.max.compaction.lag.ms",
        ),
        Setting(
            "min.cleanable.dirty.ratio", "double", "0.5",
            "Share of a compacted partition that must be new before it is compacted again. "
            "It bounds the space lost to old values.",
            low=0, high=1, server_default="log.cleaner.min.cleanable.ratio",
        ),
        Setting(
            "file.delete.delay.ms", "long", "60000",
            "Time between taking a segment out of the log and removing its file.",
            low=0, server_default="log.segment.delete.delay.ms",
        ),
        Setting(
            "min.insync.replicas", "int", "1",
            "Replicas that must hold a record before acks=all is answered. There is one "
            "copy here; a cluster behind the server obeys it.",
            low=1, server_default="min.insync.replicas", honoured=False,
        ),
        Setting(
            "compression.gzip.level", "int", str(LEVELS[GZIP]),
            "Level for compression.type=gzip, 1 to 9 or -1.",
            low=-1, high=9, server_default="compression.gzip.level",
        ),
        Setting(
            "compression.lz4.level", "int", str(LEVELS[LZ4]),
            "Level for compression.type=lz4.",
            low=1, high=17, server_default="compression.lz4.level",
        ),
        Setting(
            "compression.zstd.level", "int", str(LEVELS[ZSTD]),
            "Level for compression.type=zstd.",
            low=-131072, high=22, server_default="compression.zstd.level",
        ),
        Setting(
            "local.retention.ms", "long", "-2",
            "Age above which tiered segments leave the local disk; -2 follows retention.ms.",
            low=-2, server_default="log.local.retention.ms", honoured=False,
        ),
        Setting(
            "local.retention.bytes", "long", "-2",
            "Size above which tiered segments leave the local disk; -2 follows "
            "retention.bytes.",
            low=-2, server_default="log.local.retention.bytes", honoured=False,
        ),
        Setting(
            "internal.segment.bytes", "int", "0",
            "Overrides segment.bytes below its lower bound; for tests.",
            low=0, hidden=True,
        ),
    ]  # fmt: skip


def _choices() -> list[Setting]:
    """Return the settings that are words, lists and switches."""
    return [
        Setting(
            "cleanup.policy", "list", "delete",
            "delete: old segments go, by time and size. compact: the newest record of each "
            "key stays. Both may be named; every record of a compacted log topic needs a "
            "key.",
            allowed=("compact", "delete"), server_default="log.cleanup.policy",
        ),
        Setting(
            "compression.type", "string", "producer",
            "Codec of the stored batches. producer: they are kept byte for byte as they "
            "came, and what MQTT clients publish is not compressed. With another name "
            "batches that have not that codec are compressed anew as they are appended, "
            "those of MQTT clients too; it costs processor time.",
            allowed=("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
            server_default="compression.type",
        ),
        Setting(
            "message.timestamp.type", "string", "CreateTime",
            "CreateTime: a record keeps the time its producer gave it. LogAppendTime: it "
            "gets the time of its arrival.",
            allowed=("CreateTime", "LogAppendTime"),
            server_default="log.message.timestamp.type",
        ),
        Setting(
            "isthmus.durability", "string", DURABILITY_SYNCED,
            "What an acknowledgement promises. synced: the record is on the disk. written: "
            "it is with the operating system; it survives the end of the process, not a "
            "power cut. memory: nothing. The default is the server's "
            "storage.local.durability.",
            allowed=DURABILITIES,
        ),
        Setting(
            "unclean.leader.election.enable", "boolean", "false",
            "Whether a replica that is behind may lead. There is one copy here; a cluster "
            "behind the server obeys it.",
            server_default="unclean.leader.election.enable", honoured=False,
        ),
        Setting(
            "preallocate", "boolean", "false",
            "Whether a segment file gets its full size when it is made.",
            server_default="log.preallocate", honoured=False,
        ),
        Setting(
            "leader.replication.throttled.replicas", "list", "",
            "Replicas whose copying is throttled on the leader; for a cluster behind the "
            "server.",
            honoured=False,
        ),
        Setting(
            "follower.replication.throttled.replicas", "list", "",
            "Replicas whose copying is throttled on the follower; for a cluster behind the "
            "server.",
            honoured=False,
        ),
        Setting(
            "remote.storage.enable", "boolean", "false",
            "Tiered storage; not offered by this engine.",
            honoured=False,
        ),
        Setting(
            "remote.log.copy.disable", "boolean", "false",
            "Whether tiered data becomes read-only; goes with remote.storage.enable.",
            honoured=False,
        ),
        Setting(
            "remote.log.delete.on.disable", "boolean", "false",
            "Whether tiered data goes when tiering is switched off.",
            honoured=False,
        ),
    ]  # fmt: skip


SETTINGS: Final[dict[str, Setting]] = {
    setting.name: setting
    for setting in sorted(_numbers() + _choices(), key=lambda setting: setting.name)
}


def check_configs(configs: Mapping[str, str]) -> None:
    """Raise ConfigInvalid for the first setting that is unknown or has an impossible value."""
    for name, text in configs.items():
        setting = SETTINGS.get(name)
        if setting is None:
            near = get_close_matches(name, SETTINGS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigInvalid(f"a log topic has no setting {name}{hint}")
        setting.parse(text)
    if configs.get("compression.gzip.level", "").strip() == "0":
        raise ConfigInvalid("compression.gzip.level=0: must be -1, or from 1 to 9")
    if configs.get("remote.storage.enable", "false").strip().lower() == "true":
        raise ConfigInvalid("remote.storage.enable=true: tiered storage is not offered")


class TopicConfig:
    """The settings that the engines obey, parsed once; `configs` holds what was set."""

    __slots__ = (
        "after_ms_max",
        "batch_bytes_max",
        "before_ms_max",
        "codec",
        "codec_level",
        "compaction_lag_ms_max",
        "compaction_lag_ms_min",
        "compacts",
        "delete_retention_ms",
        "deletes",
        "dirty_ratio_min",
        "durability",
        "file_delete_delay_ms",
        "index_bytes_max",
        "index_interval_bytes",
        "log_append_time",
        "ms_per_sync",
        "records_per_sync",
        "retention_bytes",
        "retention_ms",
        "rewrites",
        "segment_bytes_max",
        "segment_jitter_ms_max",
        "segment_ms_max",
    )

    def __init__(
        self, configs: Mapping[str, str], defaults: Mapping[str, str] | None = None
    ) -> None:
        """`defaults` are those of the server, where they are not Kafka's."""
        check_configs(configs)
        configs = {**(defaults or {}), **configs}
        self.segment_bytes_max = (
            _int("internal.segment.bytes", configs) or _int("segment.bytes", configs)
        )  # fmt: skip
        self.segment_ms_max = _int("segment.ms", configs)
        self.segment_jitter_ms_max = _int("segment.jitter.ms", configs)
        self.index_bytes_max = _int("segment.index.bytes", configs)
        self.index_interval_bytes = _int("index.interval.bytes", configs)
        self.batch_bytes_max = _int("max.message.bytes", configs)
        self.before_ms_max = _int("message.timestamp.before.max.ms", configs)
        self.after_ms_max = _int("message.timestamp.after.max.ms", configs)
        self.log_append_time = configs.get("message.timestamp.type") == "LogAppendTime"
        self.codec = CODECS[configs.get("compression.type", "producer")]
        self.codec_level: int | None = None  # of a codec that has levels
        if self.codec in LEVELS:
            self.codec_level = _int(f"compression.{NAMES[self.codec]}.level", configs)
        self.rewrites = self.log_append_time or self.codec != AS_SENT
        policy = SETTINGS["cleanup.policy"].parse(configs.get("cleanup.policy", "delete"))
        assert isinstance(policy, tuple)
        self.compacts = "compact" in policy
        self.compaction_lag_ms_min = _int("min.compaction.lag.ms", configs)
        self.compaction_lag_ms_max = _int("max.compaction.lag.ms", configs)
        self.delete_retention_ms = _int("delete.retention.ms", configs)
        ratio = SETTINGS["min.cleanable.dirty.ratio"]
        self.dirty_ratio_min = float(configs.get(ratio.name, ratio.default))
        if self.compacts:  # only what is in a sealed segment can be compacted
            self.segment_ms_max = min(self.segment_ms_max, self.compaction_lag_ms_max)
        self.deletes = "delete" in policy
        self.retention_ms = _int("retention.ms", configs)  # negative: no limit
        self.retention_bytes = _int("retention.bytes", configs)  # negative: no limit
        self.file_delete_delay_ms = _int("file.delete.delay.ms", configs)
        self.records_per_sync = _int("flush.messages", configs)
        self.ms_per_sync = _int("flush.ms", configs)
        self.durability = configs.get("isthmus.durability", DURABILITY_SYNCED)
        if self.records_per_sync == 1:
            self.durability = DURABILITY_SYNCED


def _int(name: str, configs: Mapping[str, str]) -> int:
    setting = SETTINGS[name]
    return int(configs.get(name, setting.default))
