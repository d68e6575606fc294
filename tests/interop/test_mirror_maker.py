"""MirrorMaker 2 between an Apache Kafka and Isthmus, both ways at one time.

What a back end writes to Kafka comes to Isthmus; what devices publish over MQTT comes to Kafka,
partition for partition. With the records go settings and partitions of their log topics, and
how far groups are, so that a consumer goes on at the other side. Then the server is killed, and
what comes later has to come through all the same; MirrorMaker may repeat what it has sent.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import pytest
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from paho.mqtt.client import MQTTv5
from tests.e2e import apache_kafka
from tests.e2e.kafka_commands import java_command
from tests.e2e.kafka_libraries import (
    confluent_consumer,
    confluent_producer,
    create_topic,
    poll_records,
    record_of,
)
from tests.e2e.mqtt_programs import Message, Paho
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import text_of
from tests.interop.log_topics import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.kafka_record import Record
    from tests.e2e.server_process import Address, ServerProcess
    from tests.interop.programs import Program

COUNT: Final = 100
NOT_YET: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
PROPERTIES: Final = """\
clusters=kafka, isthmus
kafka.bootstrap.servers={kafka}
isthmus.bootstrap.servers={isthmus}
kafka->isthmus.enabled=true
isthmus->kafka.enabled=true
topics=orders, mqtt
groups=readers-.*
replication.factor=1
offset-syncs.topic.replication.factor=1
checkpoints.topic.replication.factor=1
heartbeats.topic.replication.factor=1
config.storage.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
offset.flush.interval.ms=1000
refresh.topics.interval.seconds=1
refresh.groups.interval.seconds=1
sync.topic.configs.interval.seconds=1
sync.topic.acls.enabled=false
emit.checkpoints.interval.seconds=1
emit.heartbeats.interval.seconds=1
sync.group.offsets.enabled=true
sync.group.offsets.interval.seconds=1
offset.lag.max=0
plugin.discovery=service_load
"""


class Mirror:
    """One of the two ways: a log topic here, and its image at the other side."""

    def __init__(self, name: str, here: Address, there: Address, log_topic: str) -> None:
        self._here, self._there = here, there
        self._at_here = AdminClient({"bootstrap.servers": text_of(here)})
        self._at_there = AdminClient({"bootstrap.servers": text_of(there)})
        self._name, self._log_topic = name, log_topic
        self._image = f"{name}.{log_topic}"
        self._group = f"readers-{log_topic}"
        self._end = 0

    def commit(self) -> None:
        """Be a group that has read the first partition to its end.

        Where it stood before the newest record that MirrorMaker took note of when it began,
        MirrorMaker would not say at the other side.
        """
        consumer = confluent_consumer(self._here, **{"group.id": self._group})
        place = TopicPartition(self._log_topic, 0)
        _, self._end = consumer.get_watermark_offsets(place, TIMEOUT_S)
        offsets = [TopicPartition(self._log_topic, 0, self._end)]

        def is_committed() -> bool:
            with not_yet():
                consumer.commit(offsets=offsets, asynchronous=False)
                return True
            return False

        wait_until(is_committed, f"that the offset of {self._group} is taken")
        consumer.close()

    def change(self, name: str, value: str) -> None:
        """Change a setting of the log topic."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self._log_topic)
        resource.add_incremental_config(entry)
        [changed] = self._at_here.incremental_alter_configs([resource]).values()
        changed.result(TIMEOUT_S)

    def grow(self, partitions: int) -> None:
        """Give the log topic more partitions."""
        more = [NewPartitions(self._log_topic, partitions)]
        [grown] = self._at_here.create_partitions(more).values()
        grown.result(TIMEOUT_S)

    def check_records(self, count: int) -> None:
        """Wait for the records at the other side: the same, and in the same partitions."""
        expected = records_of(self._here, self._log_topic, count)
        assert records_of(self._there, self._image, count) == expected

    def check_setting(self, name: str, value: str) -> None:
        """Wait until the image has a setting."""
        wait_until(
            lambda: settings_of(self._at_there, self._image).get(name) == value,
            f"that {self._image} has {name}={value}",
        )

    def check_partitions(self, partitions: int) -> None:
        """Wait until the image has as many partitions."""
        described = self._at_there.list_topics
        wait_until(
            lambda: (
                len(described(timeout=TIMEOUT_S).topics[self._image].partitions) == partitions
            ),
            f"that {self._image} has {partitions} partitions",
        )

    def check_group(self) -> None:
        """Wait until the group is at the other side, where nothing would be lost to it."""
        asked = [ConsumerGroupTopicPartitions(self._group)]

        def is_there() -> bool:
            with not_yet():
                [listed] = self._at_there.list_consumer_group_offsets(asked).values()
                places = listed.result(TIMEOUT_S).topic_partitions
                offsets = {(one.topic, one.partition): one.offset for one in places}
                return 0 < offsets.get((self._image, 0), -1) <= self._end
            return False

        wait_until(is_there, f"that {self._group} is known at the other side")

    def check_own_topics(self) -> None:
        """Wait for what MirrorMaker writes down for itself."""
        checkpoints, heartbeats = (
            f"{self._name}.checkpoints.internal",
            f"{self._name}.heartbeats",
        )
        wait_until(
            lambda: (
                {checkpoints, heartbeats}
                <= {*self._at_there.list_topics(timeout=TIMEOUT_S).topics}
            ),
            f"that there are {checkpoints} and {heartbeats}",
        )
        for name in (checkpoints, f"mm2-configs.{self._name}.internal"):
            assert settings_of(self._at_there, name)["cleanup.policy"] == "compact"
        assert records_of(self._there, heartbeats, 3)


@contextlib.contextmanager
def not_yet() -> Iterator[None]:
    """Go on behind the block where an Apache Kafka is not ready for a group in it."""
    try:
        yield
    except KafkaException as refused:
        assert refused.args[0].code() in NOT_YET, refused


def records_of(server: Address, log_topic: str, count: int) -> dict[int, list[Record]]:
    """Read until there are `count` records of which none is another's repetition."""
    found: dict[int, dict[Record, None]] = defaultdict(dict)
    reader = confluent_consumer(server)
    reader.subscribe([log_topic])
    while sum(map(len, found.values())) < count:
        [message] = poll_records(reader, 1)
        found[message.partition()][record_of(message)] = None
    reader.close()
    return {partition: list(records) for partition, records in found.items()}


@pytest.fixture
def apache(jars: None, tmp_path: Path) -> Iterator[Address]:
    """Return where a new Apache Kafka listens."""
    port = apache_kafka.free_port()
    broker = apache_kafka.start(tmp_path / "kafka", port)
    yield "127.0.0.1", port
    broker.terminate()
    broker.wait(TIMEOUT_S)


def order(apache: Address, first: int) -> None:
    """Produce to Kafka, as a back end does."""
    producer = confluent_producer(apache, **{"enable.idempotence": True})
    for number in range(first, first + COUNT):
        producer.produce("orders", b"%d" % number, b"k%d" % number, headers=[("unit", b"t")])
    assert producer.flush(TIMEOUT_S) == 0


def measure(server: ServerProcess, first: int) -> None:
    """Publish to Isthmus, as devices do."""
    messages = [
        Message(f"plant/{number % 7}", b"%d" % number, user_properties=(("unit", "C"),))
        for number in range(first, first + COUNT)
    ]
    Paho("paho", MQTTv5).publish(server.mqtt, messages)


def test_two_logs_are_mirrored_in_each_other(
    server: ServerProcess, apache: Address, programs: Callable[..., Program], tmp_path: Path
) -> None:
    create_topic(apache, "orders", 2, **{"retention.ms": "123456789"})
    path = tmp_path / "mirror.properties"
    path.write_text(PROPERTIES.format(kafka=text_of(apache), isthmus=text_of(server.kafka)))
    order(apache, 0)
    measure(server, 0)
    orders = Mirror("kafka", apache, server.kafka, "orders")
    measured = Mirror("isthmus", server.kafka, apache, "mqtt")
    measured.change("max.message.bytes", "54321")
    for mirror in (orders, measured):
        mirror.commit()
    programs("mirror", *java_command("org.apache.kafka.connect.mirror.MirrorMaker"), str(path))
    for mirror in (orders, measured):
        mirror.check_records(COUNT)
        mirror.check_group()
        mirror.check_own_topics()
    orders.check_setting("retention.ms", "123456789")
    measured.check_setting("max.message.bytes", "54321")
    orders.change("retention.ms", "234567890")
    orders.check_setting("retention.ms", "234567890")
    orders.grow(3)
    orders.check_partitions(3)

    server.kill()
    server.start()
    order(apache, COUNT)
    measure(server, COUNT)
    for mirror in (orders, measured):
        mirror.check_records(2 * COUNT)
