"""The broker with its log: what is published is stored, delivered, acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sim import SimRuntime
from tests.storage.disk import SimDisk
from tests.unit.broker.shore import Shore

from isthmus.broker.routes import Route
from isthmus.errors import NoSpace, StorageError
from isthmus.mqtt.packets import PUBACK, PUBREC, Ack, Publish
from isthmus.mqtt.properties import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    SUBSCRIPTION_ID,
    USER_PROPERTY,
)
from isthmus.record.batch import split_batches
from isthmus.record.partitioner import partition_for
from isthmus.storage.local.log import LocalLog
from isthmus.storage.local.settings import LocalSettings

EVERY_PROPERTY = {
    PAYLOAD_FORMAT: 1,
    MESSAGE_EXPIRY: 60,
    CONTENT_TYPE: "text/plain",
    RESPONSE_TOPIC: "answers/here",
    CORRELATION_DATA: b"\x00\xff",
    USER_PROPERTY: [("unit", "C"), ("unit", "K"), ("", "")],
}


def test_a_publish_is_a_record_and_reaches_its_subscribers() -> None:
    shore = Shore()
    subscriber, publisher = shore.client("s"), shore.client("p")
    subscriber.subscribe("plant/+/temp", 0)
    publisher.publish("plant/7/temp", b"21.5")
    assert subscriber.messages() == [("plant/7/temp", b"21.5", 0)]
    (record,) = shore.records("mqtt")
    assert (record.key, record.value, list(record.headers)) == (b"plant/7/temp", b"21.5", [])
    assert record.timestamp == shore.runtime.now_ms()


def test_the_partition_is_the_one_kafkas_partitioner_chooses() -> None:
    shore = Shore()
    publisher = shore.client()
    for number in range(20):
        publisher.publish(f"t/{number}", b"")
    for number in range(20):
        key = f"t/{number}".encode()
        partition = shore.log.topics["mqtt"].partitions[partition_for(key, 2)]
        keys = [buffer for buffer in partition.read(0, 1 << 20).buffers if key in bytes(buffer)]
        assert keys


def test_qos_1_and_2_are_acknowledged_once_they_are_in_the_log() -> None:
    shore = Shore()
    publisher = shore.client()
    publisher.shore.clients.receive(
        publisher.entry, publisher, [Publish(b"t", b"x", 1, packet_id=5)]
    )
    assert publisher.packets() == []
    shore.runtime.settle()
    (ack,) = publisher.packets()
    assert (ack.type, ack.packet_id) == (PUBACK, 5)
    publisher.publish("t", b"y", 2, packet_id=6)
    assert [(ack.type, ack.packet_id) for ack in publisher.packets()] == [(PUBREC, 6)]
    assert [record.headers for record in shore.records("mqtt")] == [
        [("mqtt.qos", b"1")],
        [("mqtt.qos", b"2")],
    ]


def test_every_property_goes_through_the_log_and_comes_out_live() -> None:
    shore = Shore()
    subscriber, publisher = shore.client("s"), shore.client("p")
    subscriber.subscribe("t")
    publisher.publish("t", b"x", 1, packet_id=1, properties=dict(EVERY_PROPERTY))
    (packet,) = [packet for packet in subscriber.packets() if isinstance(packet, Publish)]
    assert packet.properties == EVERY_PROPERTY
    (record,) = shore.records("mqtt")
    assert list(record.headers) == [
        ("mqtt.qos", b"1"),
        ("mqtt.payload-format", b"1"),
        ("mqtt.expiry", b"%d" % (shore.runtime.now_ms() + 60_000)),
        ("content-type", b"text/plain"),
        ("mqtt.response-topic", b"answers/here"),
        ("mqtt.correlation-data", b"\x00\xff"),
        ("unit", b"C"),
        ("unit", b"K"),
        ("", b""),
    ]


def test_what_waited_in_the_log_comes_out_as_it_went_in() -> None:
    shore = Shore()
    subscriber, publisher = shore.client("s", expiry_s=100), shore.client("p")
    subscriber.subscribe("t")
    subscriber.lose()
    publisher.publish("t", b"x", 1, packet_id=1, properties=dict(EVERY_PROPERTY))
    publisher.publish("t", b"gone", 1, packet_id=2, properties={MESSAGE_EXPIRY: 10})
    shore.runtime.advance(20_000)
    subscriber.connect(clean_start=False)
    (packet,) = subscriber.after_connack
    assert (packet.payload, packet.qos, packet.dup) == (b"x", 1, False)
    assert packet.properties == EVERY_PROPERTY | {MESSAGE_EXPIRY: 40}


def test_a_plain_kafka_record_reaches_subscribers_at_the_qos_they_were_granted() -> None:
    shore = Shore()
    clients = [shore.client(str(qos)) for qos in range(3)]
    for qos, client in enumerate(clients):
        client.subscribe("a/#", qos)
    ticket = shore.produce("mqtt", b"a/b", b"v", headers=[("unit", b"C")])
    assert ticket.told == [0, "durable"]
    for qos, client in enumerate(clients):
        (packet,) = [packet for packet in client.packets() if isinstance(packet, Publish)]
        assert (packet.topic, packet.payload, packet.qos) == (b"a/b", b"v", qos)
        assert packet.properties == {USER_PROPERTY: [("unit", "C")]}


@pytest.mark.parametrize("compression", range(5))
def test_a_compressed_kafka_batch_reaches_subscribers(compression: int) -> None:
    shore = Shore()
    client = shore.client()
    client.subscribe("a/b", 0)
    shore.produce("mqtt", b"a/b", b"v" * 1000, compression=compression)
    assert client.messages() == [("a/b", b"v" * 1000, 0)]


def test_a_codec_of_the_log_topic_changes_no_message() -> None:
    """The batches of both shores get it, and deliveries are as ever."""
    shore = Shore()
    shore.log.configure("mqtt", {"compression.type": "zstd"})
    client, publisher = shore.client("s"), shore.client("p")
    client.subscribe("a/b", 2)
    publisher.publish("a/b", b"v" * 1000, 1, packet_id=1)
    shore.produce("mqtt", b"a/b", b"w" * 1000, compression=1)
    assert [payload[:1] for _, payload, _ in client.messages()] == [b"v", b"w"]
    stored = [
        batch
        for partition in shore.log.topics["mqtt"].partitions
        for buffer in partition.read(0, 1 << 24).buffers
        for batch in split_batches(buffer)
    ]
    assert [batch.compression for batch in stored] == [4, 4]


def test_a_kafka_record_for_an_absent_client_waits() -> None:
    shore = Shore()
    client = shore.client(expiry_s=100)
    client.subscribe("a/b", 1)
    client.lose()
    shore.produce("mqtt", b"a/b", b"v", compression=4)
    client.connect(clean_start=False)
    assert [(packet.payload, packet.qos) for packet in client.after_connack] == [(b"v", 1)]


@pytest.mark.parametrize("key", [None, b"", b"a/+", b"\xff", b"$SYS/x", b"a\0b"])
def test_a_key_that_is_no_topic_name_is_counted_and_no_error(key: bytes | None) -> None:
    shore = Shore()
    assert shore.produce("mqtt", key, b"v").told == [0, "durable"]
    assert shore.broker.undeliverable == 1


@pytest.mark.parametrize("name", [b"", b"a/+", b"\xff", b"$SYS/x", b"a\0b"])
def test_a_topic_header_that_is_no_topic_name_is_counted_and_no_error(name: bytes) -> None:
    shore = Shore()
    ticket = shore.produce("mqtt", b"k", b"v", headers=[("mqtt.topic", name)])
    assert ticket.told == [0, "durable"]
    assert shore.broker.undeliverable == 1


def test_a_route_gives_log_topic_and_key_and_leads_back() -> None:
    route = Route("f/{line}/temp", "temperatures", "{line}", 3, to_log_only=False)
    shore = Shore(route)
    client = shore.client()
    client.subscribe("f/#", 1)
    client.publish("f/line-3/temp", b"1", 0)
    (record,) = shore.records("temperatures")
    assert (record.key, list(record.headers)) == (b"line-3", [("mqtt.topic", b"f/line-3/temp")])
    assert len(shore.log.topics["temperatures"].partitions) == 3
    shore.produce("temperatures", b"line-9", b"2")
    assert client.messages() == [("f/line-3/temp", b"1", 0), ("f/line-9/temp", b"2", 1)]


def test_a_route_says_how_its_log_topic_is_compressed() -> None:
    route = Route("f/{line}", "f", "{line}", 1, to_log_only=False, compression="zstd")
    shore = Shore(route)
    shore.client().publish("f/1", b"v" * 1000)
    assert shore.log.topics["f"].configs["compression.type"] == "zstd"
    [stored] = split_batches(shore.log.topics["f"].partitions[0].read(0, 1 << 20).buffers[0])
    assert stored.compression == 4


def test_the_codec_of_all_log_topics_is_none_of_the_servers_own() -> None:
    shore = Shore()
    shore.log.set_topic_defaults({"compression.type": "zstd"})
    shore.client().publish("a", b"v" * 1000, retain=True)
    shore.runtime.settle()
    codecs = {}
    for name in ("mqtt", "__mqtt_retained"):
        reads = [one.read(0, 1 << 20).buffers for one in shore.log.topics[name].partitions]
        [buffer] = [buffer for buffers in reads for buffer in buffers]
        codecs[name] = split_batches(buffer)[0].compression
    assert codecs == {"mqtt": 4, "__mqtt_retained": 0}


def test_what_goes_to_the_log_only_still_reaches_mqtt_under_its_own_name() -> None:
    route = Route("f/+/temp", "temperatures", "", None, to_log_only=True)
    shore = Shore(route)
    client = shore.client()
    client.subscribe("f/#", 0)
    client.publish("f/1/temp", b"mine")
    shore.produce("temperatures", b"f/1/temp", b"not for MQTT")
    assert client.messages() == [("f/1/temp", b"mine", 0)]


def test_a_session_waits_for_what_a_to_log_route_stores() -> None:
    shore = Shore(Route("f/{x}", "log", "k", None, to_log_only=True))
    client, publisher = shore.client("s", expiry_s=100), shore.client("p")
    client.subscribe("f/#", 1)
    client.lose()
    publisher.publish("f/1", b"x", 1, packet_id=1)
    client.connect(clean_start=False)
    assert [packet.topic for packet in client.after_connack] == [b"f/1"]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_sent_does_not_expire_before_it_is_acknowledged(qos: int) -> None:
    shore = Shore()
    client, publisher = shore.client("s", expiry_s=100), shore.client("p")
    client.subscribe("t", 2)
    expiry = {MESSAGE_EXPIRY: 10}
    publisher.publish("t", b"sent", qos, packet_id=1, properties=expiry)
    client.packets()
    client.lose()
    publisher.publish("t", b"waiting", qos, packet_id=2, properties=expiry)
    shore.runtime.advance(20_000)
    client.connect(clean_start=False)
    assert [(packet.payload, packet.dup) for packet in client.after_connack] == [
        (b"sent", True)
    ]
    assert client.after_connack[0].properties == {MESSAGE_EXPIRY: 0}


def test_a_user_property_with_the_name_of_a_header_of_ours_is_only_a_user_property() -> None:
    shore = Shore()
    client, publisher = shore.client("s", expiry_s=100), shore.client("p")
    client.subscribe("t", 1)
    client.lose()
    names = ["mqtt.topic", "mqtt.expiry", "mqtt.qos", "content-type", "mqtt.user.x", "x"]
    said = {USER_PROPERTY: [(name, "0") for name in names]}
    publisher.publish("t", b"x", 1, packet_id=1, properties=dict(said))
    client.connect(clean_start=False)
    (packet,) = client.after_connack
    assert (packet.topic, packet.qos, packet.properties) == (b"t", 1, said)
    (record,) = shore.records("mqtt")
    assert [name for name, _ in record.headers][-2:] == ["mqtt.user.mqtt.user.x", "x"]


@pytest.mark.parametrize("topic_name", [b"", b"a/+", b"#"])
def test_a_response_topic_from_kafka_that_is_none_is_left_out(topic_name: bytes) -> None:
    shore = Shore()
    client = shore.client()
    client.subscribe("t", 0)
    shore.produce("mqtt", b"t", b"x", headers=[("mqtt.response-topic", topic_name)])
    *_, packet = client.packets()
    assert packet.properties is None


def test_no_local_is_kept_from_its_publisher_only() -> None:
    shore = Shore()
    one, two = shore.client("1"), shore.client("2")
    one.subscribe("t", 0x04)
    two.subscribe("t", 0)
    one.publish("t", b"x")
    assert one.messages() == []
    assert two.messages() == [("t", b"x", 0)]


def test_a_batch_the_log_refuses_is_refused_with_a_reason_or_a_closed_connection() -> None:
    shore = Shore()
    new, old = shore.client("new", 5), shore.client("old", 4)
    partition = shore.log.topics["mqtt"].partitions[0]

    def full(batch: object, ticket: object, *, trusted: bool = False) -> None:
        ticket.failed(NoSpace("the disk is full"))

    for index in range(2):
        shore.log.topics["mqtt"].partitions[index].append = full
    assert partition.end_offset == 0
    new.publish("t", b"x", 1, packet_id=3)
    old.publish("t", b"x", 1, packet_id=3)
    (ack,) = new.packets()
    assert (ack.type, ack.packet_id, ack.reason) == (PUBACK, 3, 0x97)
    assert old.packets() == []
    assert isinstance(old.closed, NoSpace)
    assert shore.broker.backlog_bytes == 0


def test_no_local_counts_for_its_own_subscription_only() -> None:
    shore = Shore()
    one, two = shore.client("1"), shore.client("2")
    one.subscribe("t/#", 0x04 | 2, properties={SUBSCRIPTION_ID: 1})
    one.subscribe("t/a", 1, properties={SUBSCRIPTION_ID: 2})
    one.packets()
    one.publish("t/a", b"own", 1, packet_id=1)
    packet, _ = one.packets()
    assert (packet.qos, packet.properties) == (1, {SUBSCRIPTION_ID: [2]})
    two.publish("t/a", b"other", 2, packet_id=1)
    (packet,) = one.packets()
    assert packet.qos == 2
    assert sorted(packet.properties[SUBSCRIPTION_ID]) == [1, 2]


def test_a_qos_2_publish_that_was_refused_is_stored_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shore = Shore()
    old = shore.client("old", 4, clean_start=False)
    with monkeypatch.context() as full:
        for partition in shore.log.topics["mqtt"].partitions:
            full.setattr(
                partition, "append", lambda _, ticket, **__: ticket.failed(NoSpace("full"))
            )
        old.publish("t", b"x", 2, packet_id=3)
    assert isinstance(old.closed, NoSpace)
    old.lose()
    old.connect(clean_start=False)
    old.publish("t", b"x", 2, packet_id=3, dup=True)
    assert [packet.type for packet in old.packets()] == [PUBREC]
    assert [record.value for record in shore.records("mqtt")] == [b"x"]


def test_topic_names_of_the_server_are_not_for_clients() -> None:
    shore = Shore()
    new, old = shore.client("new", 5), shore.client("old", 4)
    new.publish("$SYS/x", b"", 1, packet_id=1)
    old.publish("$SYS/x", b"", 1, packet_id=1)
    assert [packet.reason for packet in new.packets()] == [0x87]
    assert [packet.reason for packet in old.packets()] == [0]
    assert shore.records("mqtt") == []


def test_one_turn_writes_one_batch_for_each_partition() -> None:
    shore = Shore()
    client = shore.client()
    client.send(*[Publish(b"t", b"%d" % number) for number in range(1000)])
    records = shore.records("mqtt")
    assert [record.value for record in records] == [b"%d" % number for number in range(1000)]
    index = partition_for(b"t", 2)
    buffers = shore.log.topics["mqtt"].partitions[index].read(0, 1 << 20).buffers
    assert len(buffers) == 1


def test_a_deleted_log_topic_is_made_anew_by_the_next_publish() -> None:
    shore = Shore()
    client = shore.client()
    client.publish("t", b"1", 1, packet_id=1)
    shore.log.delete("mqtt")
    shore.broker.forget_log_topic()
    client.publish("t", b"2", 1, packet_id=2)
    assert [record.value for record in shore.records("mqtt")] == [b"2"]
    assert [packet.reason for packet in client.packets()] == [0x10, 0x10]  # nobody subscribes


def test_order_is_kept_for_each_topic_name_at_each_qos() -> None:
    shore = Shore()
    subscriber, publisher = shore.client("s", receive_maximum=3), shore.client("p")
    subscriber.subscribe("#", 2)
    for number in range(50):
        publisher.publish("t", b"%d" % number, 1, packet_id=1)
    got: list[bytes] = []
    while packets := [p for p in subscriber.packets() if isinstance(p, Publish)]:
        got += [packet.payload for packet in packets]
        subscriber.send(*[Ack(PUBACK, packet.packet_id) for packet in packets])
    assert got == [b"%d" % number for number in range(50)]


def test_nobody_waits_for_the_disk_where_nothing_is_acknowledged() -> None:
    shore = Shore()
    client = shore.client()
    asked: list[bool] = []
    for partition in shore.log.topics["mqtt"].partitions:
        append = partition.append

        def spy(batch, ticket, *, trusted=False, append=append):
            append(batch, ticket, trusted=trusted)
            shore.runtime.defer(lambda: asked.append(ticket.wants_durable))

        partition.append = spy
    client.publish("t", b"x", 0)
    client.publish("t", b"x", 1, packet_id=1)
    client.subscribe("t", 2)
    shore.produce("mqtt", b"t", b"x")
    assert asked == [False, True, True]
    assert shore.broker.backlog_bytes == 0


def test_what_exceeds_the_output_of_one_turn_follows_in_the_next_ones() -> None:
    shore = Shore(output_max=1000)
    subscriber, publisher = shore.client("s"), shore.client("p")
    subscriber.subscribe("t", 0)
    publisher.send(*[Publish(b"t", b"%04d" % number) for number in range(1000)])
    assert [payload for _, payload, _ in subscriber.messages()] == [
        b"%04d" % number for number in range(1000)
    ]


# --- a cold disk ------------------------------------------------------------------------------


def cold_shore() -> tuple[Shore, SimDisk]:
    """Return a shore whose log has nothing in memory, ever."""
    runtime, disk = SimRuntime(), SimDisk()
    disk.is_cold = True
    log = LocalLog(Path("/disk/data"), runtime, disk, LocalSettings(tail_bytes_max=0))
    return Shore(log=log, runtime=runtime), disk


def test_what_waits_on_a_cold_disk_comes_in_its_order() -> None:
    shore, _ = cold_shore()
    reader = shore.client("reader", clean_start=True, expiry_s=100)
    reader.subscribe("#")
    reader.lose()
    sender = shore.client("sender")
    for number in range(20):
        sender.publish("t", b"%d" % number, 1)
    again = shore.client("reader", clean_start=False, expiry_s=100)
    shore.runtime.settle()
    assert [packet.payload for packet in again.after_connack] == [b"%d" % n for n in range(20)]


def test_a_disk_that_cannot_be_read_ends_the_connection_and_loses_nothing() -> None:
    shore, disk = cold_shore()
    reader = shore.client("reader", clean_start=True, expiry_s=100)
    reader.subscribe("#")
    reader.lose()
    sender = shore.client("sender")
    sender.publish("t", b"x", 1)
    disk.fail_only, disk.fail_at = ("pread",), disk.calls + 1
    again = shore.client("reader", clean_start=False, expiry_s=100)
    shore.runtime.settle()
    assert type(again.closed) is StorageError
    assert again.after_connack == []
    again.lose()
    last = shore.client("reader", clean_start=False, expiry_s=100)
    shore.runtime.settle()
    assert [packet.payload for packet in last.after_connack] == [b"x"]


def test_a_log_topic_of_an_older_server_gets_the_settings_it_lacks() -> None:
    runtime, disk, path = SimRuntime(), SimDisk(), Path("/disk/data")
    log = LocalLog(path, runtime, disk)
    log.create("__mqtt_sessions", 1, {"cleanup.policy": "compact", "segment.bytes": "2000000"})
    shore = Shore(log=log, runtime=runtime)
    configs = shore.log.topics["__mqtt_sessions"].configs
    assert configs["segment.bytes"] == "2000000"  # what somebody has set stays
    assert configs.keys() == shore.log.topics["__mqtt_retained"].configs.keys()
