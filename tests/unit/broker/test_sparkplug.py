"""Sparkplug: which names are certificates, and what becomes of a death's payload."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.broker.shore import Client, Producer, Shore

from isthmus.broker.sparkplug import FIELDS_MAX, is_birth, is_node_death, stamped
from isthmus.mqtt.packets import Publish, Will
from isthmus.mqtt.properties import USER_PROPERTY

NOW_MS = 1_700_000_000_123
STAMP = bytes.fromhex("08 fb d0 95 ff bc 31")  # field 1, varint, NOW_MS
OLD_STAMP = bytes.fromhex("08 80 f0 94 8c 91 30")
# what a node writes: timestamp, one metric (name bdSeq, datatype INT64, value 3), seq
METRIC = bytes.fromhex("12 0b 0a 05 62 64 53 65 71 20 04 58 03")
SEQ = bytes.fromhex("18 00")


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [b"spBv1.0/Group 1/NBIRTH/node", "spBv1.0/Halle Süd/DBIRTH/node/device".encode()]
)
def test_a_birth_is_one_of_a_node_or_a_device(name: bytes) -> None:
    assert is_birth(name)


@pytest.mark.parametrize(
    "name",
    [
        b"spBv1.0/g/NDATA/n",
        b"spBv1.0/g/NDEATH/n",
        b"spBv1.0/g/NBIRTH",
        b"spBv1.0/g/NBIRTH/n/d",
        b"spBv1.0/g/DBIRTH/n",
        b"spBv1.0/g/DBIRTH/n/d/e",
        b"spBv1.0//NBIRTH/n",
        b"spBv1.0/g/DBIRTH/n/",
        b"spAv1.0/g/NBIRTH/n",
        b"spBv1.0/STATE/host",
        b"$sparkplug/certificates/spBv1.0/g/NBIRTH/n",
        b"",
    ],
)
def test_all_else_is_no_birth(name: bytes) -> None:
    assert not is_birth(name)


def test_a_death_is_a_nodes() -> None:
    assert is_node_death(b"spBv1.0/g/NDEATH/n")
    for name in (b"spBv1.0/g/DDEATH/n/d", b"spBv1.0/g/NDEATH/n/d", b"x/g/NDEATH/n"):
        assert not is_node_death(name)


# --- the shore --------------------------------------------------------------------------------

BIRTH = "spBv1.0/g/NBIRTH/n"
CERTIFICATE = f"$sparkplug/certificates/{BIRTH}"


def retained(shore: Shore, topic_filter: str) -> list[tuple[str, bytes, int]]:
    host = shore.client("late")
    host.subscribe(topic_filter, 2)
    return host.messages()


def test_what_a_kafka_producer_writes_is_born_as_well() -> None:
    shore = Shore(sparkplug=True)
    host = shore.client("host")
    host.subscribe("$sparkplug/#", 2)
    host.packets()
    for name, value in ((BIRTH, b"old"), ("spBv1.0/g/NDATA/n", b"data"), (BIRTH, b"\xff\x00")):
        shore.produce("mqtt", name.encode(), value)
    assert [(name, payload) for name, payload, _ in host.messages()] == [
        (CERTIFICATE, b"old"),
        (CERTIFICATE, b"\xff\x00"),
    ]
    assert [payload for _, payload, _ in retained(shore, "$sparkplug/#")] == [b"\xff\x00"]
    shore.produce("mqtt", BIRTH.encode(), b"")
    assert retained(shore, "$sparkplug/#") == []
    assert [payload for _, payload, _ in retained(shore, "spBv1.0/#")] == []


def test_a_birth_in_a_transaction_is_one_when_that_commits() -> None:
    shore = Shore(sparkplug=True)
    for commits in (False, True):
        producer = Producer(shore, 7 + commits)
        producer.key = BIRTH.encode()
        producer.write(b"%d" % commits)
        assert retained(shore, "$sparkplug/#") == []
        producer.end(commits=commits)
    assert [payload for _, payload, _ in retained(shore, "$sparkplug/#")] == [b"1"]


def test_a_name_too_long_to_be_kept_is_no_trouble() -> None:
    shore = Shore(sparkplug=True)
    watch = shore.client("watch")
    watch.subscribe("#", 1)
    watch.packets()
    name = b"spBv1.0/g/NBIRTH/".ljust(65_535, b"n")
    shore.produce("mqtt", name, b"x")
    assert [payload for _, payload, _ in watch.messages()] == [b"x"]


def test_a_birth_is_retained_as_its_certificate_with_all_it_has() -> None:
    shore = Shore(sparkplug=True)
    host = shore.client("host")
    host.subscribe("$sparkplug/#", 2 | 0x08)
    host.packets()
    said = {USER_PROPERTY: [("k", "v")]}
    shore.client("node").publish(BIRTH, b"\xff\x00", 1, packet_id=1, properties=said)
    (message,) = [packet for packet in host.packets() if isinstance(packet, Publish)]
    assert (message.topic.decode(), message.payload) == (CERTIFICATE, b"\xff\x00")
    assert (message.qos, message.retain, message.properties) == (1, True, said)
    assert retained(shore, "spBv1.0/#") == []
    assert retained(shore.crash(), "$sparkplug/#") == [(CERTIFICATE, b"\xff\x00", 1)]


def test_without_the_setting_a_birth_is_a_message_like_any_other() -> None:
    shore = Shore()
    shore.client("node").publish(BIRTH, b"x", 1, packet_id=1)
    assert retained(shore, "$sparkplug/#") == []


def test_a_host_that_is_away_gets_the_certificate_after_a_crash() -> None:
    shore = Shore(sparkplug=True)
    host = shore.client("host", expiry_s=1000)
    host.subscribe("$sparkplug/#", 1)
    host.lose()
    shore.client("node").publish(BIRTH, b"x", 1, packet_id=1)
    shore = shore.crash()
    host = Client(shore, "host", 5)
    host.connect(clean_start=False, expiry_s=1000)
    came = [(one.topic.decode(), one.payload) for one in host.after_connack]
    assert came == [(CERTIFICATE, b"x")]


def test_a_record_of_the_kafka_side_does_not_make_births_direct() -> None:
    """What resolves the name first may be a record; a birth is kept all the same."""
    shore = Shore(sparkplug=True)
    shore.client("watcher").subscribe("#")
    shore.produce("mqtt", BIRTH.encode(), b"from a record")
    shore.client("node").publish(BIRTH, b"x")
    assert retained(shore, "$sparkplug/#") == [(CERTIFICATE, b"x", 0)]


@pytest.mark.parametrize("sparkplug", [False, True])
def test_clients_do_not_publish_certificates(sparkplug: bool) -> None:
    shore = Shore(sparkplug=sparkplug)
    node = shore.client("node")
    node.publish(BIRTH, b"x")
    node.publish(CERTIFICATE, b"forged", 1, packet_id=1, retain=True)
    assert [packet.reason for packet in node.packets()] == [0x87]
    assert (CERTIFICATE, b"forged", 1) not in retained(shore, "$sparkplug/#")


@pytest.mark.parametrize("sparkplug", [False, True])
def test_a_will_is_dated_when_it_is_sent(sparkplug: bool) -> None:
    shore = Shore(sparkplug=sparkplug)
    host = shore.client("host")
    host.subscribe("spBv1.0/#", 1)
    host.packets()
    node = shore.client("node", will=Will(b"spBv1.0/g/NDEATH/n", OLD_STAMP + METRIC, 1))
    shore.runtime.set_forward(NOW_MS - shore.runtime.now_ms())
    node.lose()
    expected = (STAMP if sparkplug else OLD_STAMP) + METRIC
    assert host.messages() == [("spBv1.0/g/NDEATH/n", expected, 1)]


# --- payloads ---------------------------------------------------------------------------------


def test_the_time_is_replaced_and_the_rest_stays() -> None:
    assert stamped(OLD_STAMP + METRIC + SEQ, NOW_MS) == STAMP + METRIC + SEQ


def test_the_time_may_stand_anywhere_and_more_than_once() -> None:
    assert stamped(METRIC + OLD_STAMP + SEQ + OLD_STAMP, NOW_MS) == STAMP + METRIC + SEQ


def test_a_death_without_a_time_gets_one() -> None:
    assert stamped(METRIC, NOW_MS) == STAMP + METRIC


def test_what_stands_inside_a_metric_is_not_touched() -> None:
    inside = bytes([0x12, len(OLD_STAMP)]) + OLD_STAMP
    assert stamped(inside, NOW_MS) == STAMP + inside


@pytest.mark.parametrize(
    "field",
    [
        bytes.fromhex("09 00 01 02 03 04 05 06 07"),  # 64 bits, of another number than ours
        bytes.fromhex("0d 00 01 02 03"),  # 32 bits
        bytes.fromhex("0a 00"),  # field 1 of another type is a field unknown here
        bytes.fromhex("f8 ff ff ff 0f 01"),  # the highest number
    ],
)
def test_fields_of_all_types_are_stepped_over(field: bytes) -> None:
    assert stamped(field + OLD_STAMP, NOW_MS) == STAMP + field


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"No protobuf",
        OLD_STAMP[:-1],  # a varint that ends too soon
        OLD_STAMP + b"\x12\x0bmetric",  # fewer bytes than it says
        OLD_STAMP + b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 2**64 - 1 bytes
        OLD_STAMP + b"\x09\x00",  # less than 64 bits
        OLD_STAMP + b"\x08" + b"\xff" * 10,  # a varint of more than 64 bits
        OLD_STAMP + b"\x13\x14",  # a group
        OLD_STAMP + b"\x00\x00",  # no field has the number 0
        OLD_STAMP + b"\x80\x80\x80\x80\x10\x00",  # nor one so high
        OLD_STAMP + b"\x06",  # no such wire type
    ],
)
def test_what_is_no_certificate_stays_as_it_is(payload: bytes) -> None:
    assert stamped(payload, NOW_MS) == payload


def test_the_work_is_bounded() -> None:
    assert stamped(SEQ * FIELDS_MAX, NOW_MS) == STAMP + SEQ * FIELDS_MAX
    assert stamped(SEQ * (FIELDS_MAX + 1), NOW_MS) == SEQ * (FIELDS_MAX + 1)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: int | bytes) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


CONTENTS = st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=40))
FIELDS = st.lists(st.tuples(st.integers(1, 40), CONTENTS), max_size=12)


@given(FIELDS)
def test_of_any_message_only_the_time_changes(fields: list[tuple[int, int | bytes]]) -> None:
    payload = b"".join(field(number, content) for number, content in fields)
    others = b"".join(
        field(number, content)
        for number, content in fields
        if number != 1 or isinstance(content, bytes)
    )
    assert stamped(payload, NOW_MS) == (STAMP + others if payload else b"")


@given(st.binary(max_size=300))
def test_any_bytes_are_safe(payload: bytes) -> None:
    once = stamped(payload, NOW_MS)
    assert stamped(once, NOW_MS) == once
    assert once == payload or once.startswith(STAMP)
