"""Chapters 3.1.2.4, 3.1.2.11.2, 3.1.4, 3.14 and 4.1: sessions, take-over, leaving."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    REASON_STRING,
    SESSION_EXPIRY,
    Will,
    connect,
    disconnect,
    prop,
    publish,
)
from tests.e2e.patience import TIMEOUT_S, in_time, keep_within
from tests.e2e.raw_mqtt import CONNACK, DISCONNECT, packet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient
    from tests.e2e.server_process import ServerProcess

    Join = Callable[..., RawClient]
    Dial = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
KEPT = prop(SESSION_EXPIRY, 3600)


# --- clean start ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_a_session_is_present_until_a_clean_start(
    version: int, dial: Dial, unique: str
) -> None:
    """[MQTT-3.1.2-4, MQTT-3.1.2-5, MQTT-3.1.2-6, MQTT-3.1.3-2, MQTT-3.2.2-2, MQTT-3.2.2-3,
    MQTT-3.1.4-4; MQTT 3.1.1: MQTT-3.1.2-4, MQTT-3.1.2-6, MQTT-3.1.3-2, MQTT-3.1.4-3,
    MQTT-3.2.2-1, MQTT-3.2.2-2, MQTT-3.2.2-3]"""
    options = {"properties": KEPT} if version == 5 else {}
    present = []
    for clean in (False, False, True, False, False):
        client = dial(version)
        present.append(client.open(unique, clean=clean, **options).session_present)
        client.leave()
    wanted = [False, True, False, version == 5, True]
    assert present == wanted


@pytest.mark.parametrize("version", [4, 5])
def test_subscriptions_are_part_of_the_session(version: int, join: Join, unique: str) -> None:
    """[MQTT-3.1.2-4, MQTT-3.1.2-5, MQTT-4.5.0-1; MQTT 3.1.1: MQTT-3.1.2-4, MQTT-3.1.2-6,
    MQTT-4.1.0-1, MQTT-4.5.0-1]"""
    options = {"properties": KEPT} if version == 5 else {}
    client = join(unique, version, clean=False, **options)
    client.subscribe(unique, 1)
    client.leave()
    client = join(unique, version, clean=False, **options)
    client.publish(unique, b"kept")
    assert client.payloads() == [b"kept"]
    client.leave()
    client = join(unique, version)
    client.publish(unique, b"gone")
    assert client.payloads() == []


def test_a_session_may_go_on_in_another_version(join: Join, unique: str) -> None:
    """[MQTT 5.0, 4.1]"""
    client = join(unique, 4, clean=False)
    client.subscribe(unique, 1)
    client.publish(unique, b"x")
    client.cut()
    client = join(unique, 5, clean=False, properties=KEPT)
    message = client.message()
    assert (message.payload, message.dup) == (b"x", True)


@VERSIONS
def test_qos_1_and_2_wait_for_an_absent_client_in_their_order(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.5.0-1, MQTT-3.1.2-23; MQTT 3.1.1: MQTT-3.1.2-5, MQTT-4.5.0-1]"""
    options = {"properties": KEPT} if version == 5 else {}
    client, publisher = join(unique, version, clean=False, **options), join()
    client.subscribe(f"{unique}/#", 2)
    client.leave()
    for number in range(30):
        publisher.publish(f"{unique}/a", b"%d" % number, number % 3)
    got = [message.payload for message in join(unique, version, clean=False).messages()]
    assert [payload for payload in got if int(payload) % 3] == [
        b"%d" % number for number in range(30) if number % 3
    ]


# --- expiry -----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["cut", "leave"])
def test_a_session_expires_and_not_before(
    left: str, join: Join, dial: Dial, unique: str
) -> None:
    """[MQTT-3.1.2-23, MQTT-4.1.0-2]"""
    watcher = join()
    watcher.subscribe(unique)

    def is_present() -> bool:
        client = dial()
        present = client.open(unique, clean=False).session_present
        client.leave()
        return present

    def go(expiry_s: int) -> None:
        properties = prop(SESSION_EXPIRY, expiry_s)
        will = Will(unique) if left == "cut" else None
        getattr(join(unique, properties=properties, clean=False, will=will), left)()
        if will is not None:  # it tells that the server has noticed, and counts
            watcher.message()

    def comes_back(expiry_s: int) -> None:
        left_s = time.monotonic()
        go(expiry_s)
        time.sleep(0.6 * expiry_s)
        if not is_present():
            keep_within(expiry_s, left_s)
            raise AssertionError("expired too early")

    in_time(comes_back)
    go(1)
    time.sleep(1.2)
    assert not is_present()


def test_without_an_expiry_the_session_ends_with_the_connection(
    join: Join, dial: Dial, unique: str
) -> None:
    """[MQTT-4.1.0-2]"""
    join(unique).leave()
    assert not dial().open(unique, clean=False).session_present


def test_an_expiry_of_all_ones_is_the_longest_there_is(dial: Dial, unique: str) -> None:
    """[MQTT 5.0, 3.1.2.11.2]"""
    client = dial()
    client.open(unique, properties=prop(SESSION_EXPIRY, 0xFFFF_FFFF))
    client.leave(0, prop(SESSION_EXPIRY, 0xFFFF_FFFF))
    assert dial().open(unique, clean=False).session_present


@pytest.mark.parametrize(("changed_s", "present"), [(0, False), (50, True)])
def test_disconnect_changes_the_expiry(
    changed_s: int, present: bool, join: Join, dial: Dial, unique: str
) -> None:
    """[MQTT 5.0, 3.14.2.2.2]"""
    join(unique, properties=KEPT).leave(0, prop(SESSION_EXPIRY, changed_s))
    assert dial().open(unique, clean=False).session_present == present


def test_disconnect_may_not_bring_an_expiry_where_there_was_none(
    join: Join, unique: str
) -> None:
    """[MQTT 5.0, 3.14.2.2.2]"""
    client = join(unique)
    client.send(disconnect(0, KEPT))
    assert client.ended() == 0x82
    client = join(unique)
    client.leave(0, prop(SESSION_EXPIRY, 0))


# --- take-over --------------------------------------------------------------------------------


@VERSIONS
def test_a_second_connection_takes_the_session_over(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-3.1.4-3; MQTT 3.1.1: MQTT-3.1.4-2]"""
    first = join(unique, version)
    second = join(unique, version)
    assert first.ended() == (0x8E if version == 5 else None)
    assert second.settled() == []


def test_connects_in_one_burst_leave_the_last_and_tell_the_others(
    dial: Dial, unique: str
) -> None:
    """[MQTT-3.1.4-3, MQTT-3.2.0-1]"""
    clients = [dial() for _ in range(8)]
    for client in clients:
        client.send(connect(unique, clean=False, properties=KEPT))
    for client in clients:
        assert client.expect(CONNACK).reason == 0
    alive = {client.socket: client for client in clients}
    while len(alive) > 1:
        closing, _, _ = select.select(list(alive), [], [], TIMEOUT_S)
        assert closing, f"{len(alive)} clients share a session"
        for one in closing:
            assert alive.pop(one).ended() == 0x8E
    (last,) = alive.values()
    assert last.settled() == []


def test_what_was_in_flight_goes_on_after_a_take_over(join: Join, unique: str) -> None:
    """[MQTT-3.1.4-3, MQTT-4.4.0-1]"""
    first = join(unique, properties=KEPT)
    first.subscribe(unique, 1)
    first.publish(unique, b"x", 1)
    packet_id = first.message().packet_id
    second = join(unique, clean=False)
    again = second.message()
    assert (again.packet_id, again.dup, again.payload) == (packet_id, True, b"x")
    assert first.ended() == 0x8E


# --- DISCONNECT -------------------------------------------------------------------------------


@VERSIONS
def test_nothing_after_disconnect_is_done(version: int, join: Join, unique: str) -> None:
    """[MQTT-3.14.4-1, MQTT-3.14.4-2; MQTT 3.1.1: MQTT-3.14.4-1, MQTT-3.14.4-2]: the server
    closes, if the client does not."""
    watcher, client = join(), join(version=version)
    watcher.subscribe(unique)
    client.send(disconnect(), publish(unique, b"no", version=version), b"\xff\xff\xff")
    assert client.rest() == []
    assert watcher.settled() == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (packet(DISCONNECT, b"", flags=1), 0x81),
        (packet(DISCONNECT, b"\x8e\0"), 0x82),
        (packet(DISCONNECT, b"\0\0\0"), 0x81),
        (packet(15, b"\x18\0"), 0x82),
        (packet(15, b"\x19\x04\x15\0\x01m", flags=1), 0x81),
        (packet(CONNACK, b"\0\0\0"), 0x82),
        (packet(0, b""), 0x81),
        (packet(12, b"x"), 0x81),
        (packet(12, b"", flags=1), 0x81),
        (b"\xc0\xff\xff\xff\xff\x01", 0x81),
        (b"\xc0\x80\x00", 0x81),
    ],
    ids=[
        "flags",
        "reason of a server",
        "too long",
        "AUTH without method",
        "AUTH with flags",
        "CONNACK",
        "type 0",
        "PINGREQ with body",
        "PINGREQ with flags",
        "length of five bytes",
        "padded length",
    ],
)
def test_a_broken_rule_is_told_before_the_connection_ends(
    bad: bytes, reason: int, join: Join
) -> None:
    """[MQTT-3.14.1-1, MQTT-3.14.2-1, MQTT-3.15.1-1, MQTT-4.13.1-1, MQTT-4.13.2-1,
    MQTT-2.1.3-1, MQTT-1.5.5-1]"""
    client = join()
    client.send(bad)
    last = client.rest()[-1]
    assert (last.kind, last.reason) == (DISCONNECT, reason)  # type: ignore[union-attr]
    assert last.properties[REASON_STRING] != [""]
    assert SESSION_EXPIRY not in last.properties  # [MQTT-3.14.2-2]


def test_before_5_a_broken_rule_just_ends_the_connection(join: Join) -> None:
    """[MQTT 3.1.1: MQTT-2.2.2-1, MQTT-2.2.2-2, MQTT-3.14.1-1, MQTT-4.8.0-1]"""
    for bad in (
        packet(DISCONNECT, b"", flags=1),
        packet(DISCONNECT, b"\0"),
        packet(15),
        packet(CONNACK, b"\0\0"),
        packet(12, b"", flags=1),
        packet(12, b"x"),
        b"\xc0\xff\xff\xff\xff\x01",
    ):
        client = join(version=4)
        client.send(bad)
        assert client.rest() == []


def test_a_stopping_server_says_so(server: ServerProcess, join: Join) -> None:
    """[MQTT-3.14.2-1, MQTT-4.13.2-1]"""
    new, old = join(), join(version=4)
    server.terminate()
    try:
        assert new.ended() == 0x8B
        assert old.rest() == []
    finally:
        server.start()
