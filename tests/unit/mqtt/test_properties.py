"""The table of properties against the specification, and what cannot be written."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.errors import Malformed, ProtocolError, TooLarge, TopicNameInvalid
from isthmus.mqtt import packets, properties
from isthmus.mqtt.properties import (
    MAXIMUM_QOS,
    RULES,
    SUBSCRIPTION_ID,
    USER_PROPERTIES_MAX,
    USER_PROPERTY,
    WILL,
    check_topic,
    encode_properties,
    read_properties,
    read_varint,
)
from isthmus.wire.buffer import ReadBuffer, WriteBuffer

# [MQTT 5.0, table 2-4], a letter per packet that may have the property: C connect, c connack,
# W will, P publish, A puback B pubrec L pubrel M pubcomp, S subscribe s suback, U unsubscribe
# u unsuback, D disconnect, X auth.
TABLE_2_4 = """
    01 PW  02 PW  03 PW  08 PW  09 PW  0b PS  11 CcD  12 c  13 c  15 CcX  16 CcX  17 C  18 W
    19 C  1a c  1c cD  1f cABLMsuDX  21 Cc  22 Cc  23 P  24 c  25 c  26 CcPWABLMSsUuDX  27 Cc
    28 c  29 c  2a c
"""
LETTERS = dict(
    zip("WCcPABLMSsUuDX", [WILL, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15], strict=True)
)


def reader(data: bytes) -> ReadBuffer:
    buffer = ReadBuffer()
    buffer.attach(data)
    return buffer


def test_the_table_is_that_of_the_specification() -> None:
    words = TABLE_2_4.split()
    expected = {
        int(identifier, 16): {LETTERS[letter] for letter in letters}
        for identifier, letters in zip(words[::2], words[1::2], strict=True)
    }
    assert {key: set(rule.packets) for key, rule in RULES.items()} == expected


@pytest.mark.parametrize("identifier", RULES)
@pytest.mark.parametrize("packet_type", [WILL, *range(1, 16)])
def test_a_property_is_read_only_where_it_belongs(packet_type: int, identifier: int) -> None:
    kind = RULES[identifier].kind
    values: dict[int, Any] = {
        properties.TEXT: "t",
        properties.BINARY: b"b",
        properties.PAIR: [("k", "v")],
    }
    value = values.get(kind, 1)
    if identifier == SUBSCRIPTION_ID and packet_type == packets.PUBLISH:
        value = [1]
    expected = {identifier: value}
    if identifier == properties.AUTH_DATA:
        expected[properties.AUTH_METHOD] = "m"
    encoded = encode_properties(expected)
    body = reader(bytes([len(encoded)]) + encoded)
    if packet_type in RULES[identifier].packets:
        assert read_properties(body, packet_type) == expected
        assert body.remaining == 0
    else:
        with pytest.raises(Malformed):
            read_properties(body, packet_type)


def test_only_these_two_may_come_again() -> None:
    """[MQTT 5.0, 3.3.2.3.7 and 3.3.2.3.8]."""
    encoded = encode_properties(
        {SUBSCRIPTION_ID: [1, 2], USER_PROPERTY: [("a", "1"), ("a", "2")]}
    )
    body = reader(bytes([len(encoded)]) + encoded + b"rest")
    assert read_properties(body, packets.PUBLISH) == {
        SUBSCRIPTION_ID: [1, 2],
        USER_PROPERTY: [("a", "1"), ("a", "2")],
    }
    assert body.remaining == 4
    with pytest.raises(ProtocolError):
        read_properties(reader(b"\x04\x0b\x01\x0b\x02"), packets.SUBSCRIBE)


def test_the_number_of_user_properties_is_limited() -> None:
    pair = b"\x26\x00\x00\x00\x00"
    out = WriteBuffer()
    out.put_uvarint(len(pair) * USER_PROPERTIES_MAX)
    out.put_bytes(pair * USER_PROPERTIES_MAX)
    found = read_properties(reader(out.take()), packets.PUBLISH)
    assert found is not None
    assert len(found[USER_PROPERTY]) == USER_PROPERTIES_MAX
    out.put_uvarint(len(pair) * (USER_PROPERTIES_MAX + 1))
    out.put_bytes(pair * (USER_PROPERTIES_MAX + 1))
    with pytest.raises(TooLarge):
        read_properties(reader(out.take()), packets.PUBLISH)


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("00", 0),
        ("7f", 127),
        ("8001", 128),
        ("ff7f", 16_383),
        ("808001", 16_384),
        ("ffff7f", 2_097_151),
        ("80808001", 2_097_152),
        ("ffffff7f", 268_435_455),
    ],
)
def test_varints_at_their_borders(encoded: str, value: int) -> None:
    """[MQTT 5.0, table 1-1]."""
    assert read_varint(reader(bytes.fromhex(encoded))) == value


@pytest.mark.parametrize(
    "encoded", ["", "80", "8000", "ff00", "808000", "80808000", "ffffffff7f"]
)
def test_varints_that_are_none(encoded: str) -> None:
    with pytest.raises(Malformed):
        read_varint(reader(bytes.fromhex(encoded)))


def test_a_topic_name_off_the_wire() -> None:
    for good in (b"", b"a", b"/", b"plant/7", "wärme/°".encode(), b"\x01\x7f"):
        check_topic(good)
    for wildcard in (b"#", b"+", b"a/+/b", "é/#".encode()):
        with pytest.raises(TopicNameInvalid):
            check_topic(wildcard)
    for bad in (b"\0", b"a\0", b"\xff", b"\xc3", b"\xed\xa0\x80", "é".encode() + b"\xc3("):
        with pytest.raises(Malformed):
            check_topic(bad)


@pytest.mark.parametrize(
    "found",
    [
        {properties.CONTENT_TYPE: "a\0b"},
        {properties.CONTENT_TYPE: "a\ud800b"},
        {properties.CONTENT_TYPE: "é" * 32_768},
        {properties.CORRELATION_DATA: bytes(65_536)},
        {USER_PROPERTY: [("k" * 65_536, "v")]},
    ],
)
def test_what_cannot_be_written_is_said(found: dict[int, Any]) -> None:
    with pytest.raises(ValueError):
        encode_properties(found)


def test_what_is_as_large_as_can_be_is_written() -> None:
    encoded = encode_properties({properties.CORRELATION_DATA: bytes(65_535), MAXIMUM_QOS: 1})
    assert len(encoded) == 3 + 65_535 + 2
