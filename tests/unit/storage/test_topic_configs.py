"""The table of log topic settings: complete, consistent, and strict about values."""

from __future__ import annotations

import pytest

from isthmus.errors import ConfigInvalid, TopicInvalid
from isthmus.storage.names import check_log_topic
from isthmus.storage.topic_configs import SETTINGS, TopicConfig, check_configs

# The names that DescribeConfigs of Apache Kafka 4.3 shows for a topic.
KAFKA = [
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
]


def test_all_settings_of_kafka_are_there_and_one_of_ours():
    shown = [name for name, setting in SETTINGS.items() if not setting.hidden]
    assert sorted(shown) == sorted([*KAFKA, "isthmus.durability"])
    assert list(SETTINGS) == sorted(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_accepts_its_default_and_explains_itself(name):
    setting = SETTINGS[name]
    setting.parse(setting.default)
    assert setting.doc.endswith(".")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("segment.bytes", "1000"),
        ("segment.bytes", "2147483648"),
        ("segment.bytes", "1e6"),
        ("retention.ms", "-2"),
        ("retention.ms", "9223372036854775808"),
        ("min.cleanable.dirty.ratio", "1.5"),
        ("min.cleanable.dirty.ratio", "nan"),
        ("cleanup.policy", "shred"),
        ("cleanup.policy", "delete,delete"),
        ("compression.type", "brotli"),
        ("compression.gzip.level", "0"),
        ("preallocate", "yes"),
        ("message.timestamp.type", "createtime"),
        ("isthmus.durability", "maybe"),
        ("remote.storage.enable", "true"),
        ("no.such.setting", "1"),
    ],
)
def test_impossible_values_are_refused_by_name(name, text):
    with pytest.raises(ConfigInvalid, match=name.replace(".", r"\.")):
        check_configs({name: text})


def test_typed_access_gives_what_was_set_or_the_default():
    config = TopicConfig({})
    assert (config.segment_bytes_max, config.batch_bytes_max) == (1 << 30, 1048588)
    assert (config.compacts, config.log_append_time) == (False, False)
    assert config.durability == "synced"
    config = TopicConfig(
        {"cleanup.policy": "compact, delete", "message.timestamp.type": "LogAppendTime"},
        {"isthmus.durability": "memory", "retention.ms": "5", "cleanup.policy": "delete"},
    )
    assert (config.compacts, config.log_append_time) == (True, True)
    assert (config.durability, config.retention_ms) == ("memory", 5)


def test_a_sync_per_message_is_the_durability_synced():
    written = {"isthmus.durability": "written"}
    assert TopicConfig({"flush.messages": "1"}, written).durability == "synced"
    assert TopicConfig({"flush.messages": "2"}, written).durability == "written"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a\n", "x" * 250])
def test_names_that_no_directory_can_have_are_refused(name):
    with pytest.raises(TopicInvalid):
        check_log_topic(name)


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "__consumer_offsets", "x" * 249, "..."])
def test_names_that_kafka_allows_are_allowed(name):
    check_log_topic(name)


def test_when_records_are_synced_is_obeyed():
    config = TopicConfig({"flush.ms": "250", "flush.messages": "10"})
    assert (config.ms_per_sync, config.records_per_sync) == (250, 10)
    assert SETTINGS["flush.ms"].honoured
    assert SETTINGS["flush.messages"].honoured
