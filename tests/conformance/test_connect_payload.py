"""Chapter 3.1.3 and the flags of 3.1.2.3: the fields of a CONNECT's payload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    AUTH_METHOD,
    CONTENT_TYPE,
    SESSION_EXPIRY,
    USER_PROPERTY,
    Answer,
    connect,
    prop,
    publish,
)
from tests.e2e.raw_mqtt import CONNACK, CONNECT, PUBACK, packet, text, uint16, varint

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]
    Dial = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
WILL, PASSWORD, USER = 0x04, 0x40, 0x80
MALFORMED = 0x81


def connect_with(version: int, flags: int, *fields: bytes) -> bytes:
    """Return a CONNECT whose flags and fields need not fit each other; it starts clean."""
    name = "MQIsdp" if version == 3 else "MQTT"
    head = text(name) + bytes([version, flags | 0x02]) + uint16(0)
    return packet(CONNECT, head + (b"\0" if version == 5 else b"") + b"".join(fields))


def reasons(client: RawClient) -> list[int]:
    """Return the reasons of the CONNACKs that come until the server closes."""
    return [one.reason for one in client.rest() if isinstance(one, Answer)]


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        (0, ["user"]),
        (USER, []),
        (USER, ["user", "password"]),
        (USER | PASSWORD, ["user"]),
        (USER | PASSWORD, ["user", "password", "more"]),
        (WILL, ["topic"]),
        (0, ["topic", "payload"]),
    ],
    ids=[
        "a user name without its flag",
        "no user name with its flag",
        "a password without its flag",
        "no password with its flag",
        "one more",
        "half a will",
        "a will without its flag",
    ],
)
@pytest.mark.parametrize("version", [4, 5])
def test_fields_are_there_as_their_flags_say(
    version: int, flags: int, fields: list[str], dial: Dial, unique: str
) -> None:
    """[MQTT-3.1.2-9, MQTT-3.1.2-16, MQTT-3.1.2-17, MQTT-3.1.2-18, MQTT-3.1.2-19, MQTT-3.1.4-1;
    MQTT 3.1.1: MQTT-3.1.2-9, MQTT-3.1.2-11, MQTT-3.1.2-18, MQTT-3.1.2-19, MQTT-3.1.2-20,
    MQTT-3.1.2-21, MQTT-3.1.4-1]"""
    client = dial(version)
    block = [b"\0"] if version == 5 and flags & WILL else []
    client.send(connect_with(version, flags, text(unique), *block, *map(text, fields)))
    assert reasons(client) == ([MALFORMED] if version == 5 else [])


def test_a_password_without_a_user_name_came_with_5(dial: Dial, unique: str) -> None:
    """[MQTT 5.0, 3.1.2.9; MQTT 3.1.1: MQTT-3.1.2-22]"""
    client = dial()
    client.send(connect_with(5, PASSWORD, text(unique), text("password")))
    assert client.expect(CONNACK).reason == 0
    for version in (3, 4):
        client = dial(version)
        client.send(connect_with(version, PASSWORD, text(unique), text("password")))
        assert reasons(client) == []


@VERSIONS
def test_the_fields_come_in_their_order(
    version: int, dial: Dial, join: Join, unique: str
) -> None:
    """[MQTT-3.1.3-1, MQTT-3.1.3-3, MQTT-3.1.2-9; MQTT 3.1.1: MQTT-3.1.3-1, MQTT-3.1.3-3,
    MQTT-3.1.2-9]"""
    watcher = join(version=version)
    watcher.subscribe(f"{unique}/#")
    said = prop(CONTENT_TYPE, "c")
    block = varint(len(said)) + said if version == 5 else b""
    will = block + text(f"{unique}/will") + text("the will")
    client = dial(version)
    client.send(
        connect_with(
            version,
            USER | PASSWORD | WILL,
            text(f"{unique}-client") + will + text("user") + text(b"\xff password"),
        )
    )
    assert client.expect(CONNACK).reason == 0
    second = join(f"{unique}-client", version)  # takes its place, so it is the first field
    message = watcher.message()
    assert (message.topic_name, message.payload) == (f"{unique}/will", b"the will")
    assert message.properties == ({CONTENT_TYPE: ["c"]} if version == 5 else {})
    assert second.settled() == []


@VERSIONS
def test_a_payload_without_a_client_id_is_malformed(version: int, dial: Dial) -> None:
    """[MQTT-3.1.3-3, MQTT-3.1.4-1; MQTT 3.1.1: MQTT-3.1.3-3, MQTT-3.1.4-1]"""
    client = dial(version)
    client.send(connect_with(version, 0))
    assert reasons(client) == ([MALFORMED] if version == 5 else [])


@pytest.mark.parametrize("name", [b"\xff", b"a\0b", b"\xed\xa0\x80"])
@VERSIONS
def test_a_user_name_is_utf_8(version: int, name: bytes, dial: Dial, unique: str) -> None:
    """[MQTT-3.1.3-12; MQTT 3.1.1: MQTT-3.1.3-11]"""
    client = dial(version)
    client.send(connect_with(version, USER, text(unique), text(name)))
    assert reasons(client) == ([MALFORMED] if version == 5 else [])


@pytest.mark.parametrize("pair", [(b"\xff", b"v"), (b"k", b"\xff"), (b"k", b"a\0b")])
def test_both_strings_of_a_pair_are_utf_8(
    pair: tuple[bytes, bytes], dial: Dial, join: Join, unique: str
) -> None:
    """[MQTT-1.5.7-1]"""
    properties = prop(USER_PROPERTY, pair)
    client = dial()
    client.send(connect(unique, properties=properties))
    assert reasons(client) == [MALFORMED]
    client = join()
    client.send(publish(unique, b"", properties=properties))
    assert client.ended() == MALFORMED


@VERSIONS
def test_the_client_id_is_what_a_session_is_known_by(
    version: int, dial: Dial, join: Join, unique: str
) -> None:
    """[MQTT-3.1.3-2, MQTT-3.1.2-5; MQTT 3.1.1: MQTT-3.1.3-2, MQTT-3.1.2-4]"""
    kept = {"properties": prop(SESSION_EXPIRY, 3600)} if version == 5 else {}
    join(f"{unique}-a", version, clean=False, **kept).subscribe(unique, 1)
    other = join(f"{unique}-b", version, clean=False, **kept)
    other.publish(unique, b"x")
    assert other.messages() == []
    again = dial(version)
    assert again.open(f"{unique}-a", clean=False).session_present is (version > 3)
    assert again.message().payload == b"x"


@pytest.mark.parametrize("version", [4, 5])
def test_who_is_refused_is_told_of_no_session(
    version: int, dial: Dial, join: Join, unique: str
) -> None:
    """[MQTT-3.2.2-6, MQTT-3.2.2-7; MQTT 3.1.1: MQTT-3.2.2-4, MQTT-3.2.2-5]"""
    kept = {"properties": prop(SESSION_EXPIRY, 3600)} if version == 5 else {}
    join(unique, version, clean=False, **kept).leave()
    client = dial(version)
    if version == 5:
        method = prop(AUTH_METHOD, "no such method")
        client.send(connect(unique, clean=False, properties=method))
    else:
        client.send(packet(CONNECT, text("MQIsdp") + b"\4\0\0\0" + text(unique)))
    answer = client.expect(CONNACK)
    assert answer.reason == (0x8C if version == 5 else 1)
    assert not answer.session_present
    assert client.rest() == []


@VERSIONS
def test_bytes_may_come_one_by_one(version: int, dial: Dial, unique: str) -> None:
    """[MQTT-4.2.0-1; MQTT 3.1.1: MQTT-7.1.1-1]: TCP is a stream, and keeps its order."""
    client = dial(version)
    packets = connect(unique, version=version) + publish(unique, b"x", 1, 7, version=version)
    for number in range(len(packets)):
        client.send(packets[number : number + 1])
    assert client.expect(CONNACK).reason == 0
    assert client.expect(PUBACK).packet_id == 7
