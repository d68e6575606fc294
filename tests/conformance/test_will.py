"""Chapters 3.1.2.5 to 3.1.2.7 and 3.1.3.2: the will and its delay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    SESSION_EXPIRY,
    USER_PROPERTY,
    WILL_DELAY,
    Will,
    prop,
)
from tests.e2e.patience import TICK_S, in_time, keep_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
KEPT = prop(SESSION_EXPIRY, 3600)


def delayed(topic_name: str, delay_s: int, payload: bytes = b"gone") -> Will:
    return Will(topic_name, payload, 1, properties=prop(WILL_DELAY, delay_s))


@pytest.mark.parametrize("qos", [0, 1, 2])
@VERSIONS
def test_a_lost_connection_leaves_its_will(
    version: int, qos: int, join: Join, unique: str
) -> None:
    """[MQTT-3.1.2-7, MQTT-3.1.2-8, MQTT-3.1.2-14; MQTT 3.1.1: MQTT-3.1.2-8, MQTT-3.1.2-16]"""
    watcher = join(version=version)
    watcher.subscribe(unique, 2)
    join(version=version, will=Will(unique, b"gone", qos)).cut()
    message = watcher.message()
    assert (message.payload, message.qos, message.retain) == (b"gone", qos, False)
    later = join(version=version)
    later.subscribe(unique)
    assert later.messages() == []  # it is not retained


@VERSIONS
def test_a_client_without_a_will_leaves_none(version: int, join: Join, unique: str) -> None:
    """[MQTT 5.0, 3.1.2.5; MQTT 3.1.1: MQTT-3.1.2-12]"""
    watcher = join(version=version)
    watcher.subscribe("#")
    watcher.messages()
    join(unique, version).cut()
    join(unique, version)  # so the first has ended, for the server too
    assert watcher.messages() == []


@VERSIONS
def test_a_disconnect_takes_the_will_back(version: int, join: Join, unique: str) -> None:
    """[MQTT-3.14.4-3, MQTT-3.1.2-10; MQTT 3.1.1: MQTT-3.1.2-10, MQTT-3.14.4-3]"""
    watcher = join()
    watcher.subscribe(unique)
    join(version=version, will=Will(unique)).leave()
    assert watcher.settled() == []


@pytest.mark.parametrize("reason", [0x04, 0x80, 0x93])
def test_a_disconnect_with_any_other_reason_leaves_the_will(
    reason: int, join: Join, unique: str
) -> None:
    """[MQTT-3.1.2-8, MQTT-3.14.4-3]"""
    watcher = join()
    watcher.subscribe(unique)
    join(will=Will(unique)).leave(reason)
    assert watcher.message().payload == b"gone"


@VERSIONS
def test_a_broken_rule_leaves_the_will(version: int, join: Join, unique: str) -> None:
    """[MQTT-3.1.2-8; MQTT 3.1.1: MQTT-3.1.2-8]"""
    watcher = join()
    watcher.subscribe(unique)
    client = join(version=version, will=Will(unique))
    client.send(b"\x00\x00")
    client.rest()
    assert watcher.message().payload == b"gone"


def test_a_silent_client_leaves_its_will(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-8, MQTT-3.1.2-22]"""
    watcher = join()
    watcher.subscribe(unique)
    spoke_s = time.monotonic()
    join(keep_alive_s=1, will=Will(unique))
    assert watcher.message().payload == b"gone"
    assert time.monotonic() - spoke_s > 1.5 - TICK_S


def test_a_retained_will_is_retained(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-15; MQTT 3.1.1: MQTT-3.1.2-17]"""
    watcher = join()
    watcher.subscribe(unique)
    join(will=Will(unique, b"gone", 1, retain=True)).cut()
    assert watcher.message().retain is False
    later = join()
    later.subscribe(unique, 1)
    message = later.message()
    assert (message.payload, message.retain, message.qos) == (b"gone", True, 1)


@VERSIONS
def test_an_empty_will_is_a_message(version: int, join: Join, unique: str) -> None:
    """[MQTT-3.1.2-9; MQTT 3.1.1: MQTT-3.1.2-9]"""
    watcher = join()
    watcher.subscribe(unique)
    join(version=version, will=Will(unique, b"")).cut()
    assert watcher.message().payload == b""


def test_a_will_has_its_properties_and_not_its_delay(join: Join, unique: str) -> None:
    """[MQTT-3.1.3-10, MQTT 5.0, 3.1.3.2]"""
    watcher = join()
    watcher.subscribe(unique)
    said = (
        prop(WILL_DELAY, 0)
        + prop(PAYLOAD_FORMAT, 1)
        + prop(MESSAGE_EXPIRY, 100)
        + prop(CONTENT_TYPE, "c")
        + prop(RESPONSE_TOPIC, "r")
        + prop(CORRELATION_DATA, b"\0")
        + prop(USER_PROPERTY, ("b", "1"))
        + prop(USER_PROPERTY, ("a", "2"))
        + prop(USER_PROPERTY, ("b", "1"))
    )
    join(will=Will(unique, properties=said)).cut()
    assert watcher.message().properties == {
        PAYLOAD_FORMAT: [1],
        MESSAGE_EXPIRY: [100],
        CONTENT_TYPE: ["c"],
        RESPONSE_TOPIC: ["r"],
        CORRELATION_DATA: [b"\0"],
        USER_PROPERTY: [("b", "1"), ("a", "2"), ("b", "1")],
    }


# --- delay ------------------------------------------------------------------------------------


def test_a_will_waits_for_its_delay(join: Join, unique: str) -> None:
    """[MQTT-3.1.2-8]"""
    watcher = join()
    watcher.subscribe(unique)
    client = join(properties=KEPT, will=delayed(unique, 1))
    cut_s = time.monotonic()
    client.cut()
    assert watcher.message().payload == b"gone"
    assert time.monotonic() - cut_s > 1 - TICK_S


def test_who_comes_back_in_time_leaves_no_will(join: Join, unique: str) -> None:
    """[MQTT-3.1.3-9]"""

    def comes_back(delay_s: int) -> None:
        name = f"{unique}/{delay_s}"
        watcher = join()
        watcher.subscribe(name)
        client = join(unique, properties=KEPT, will=delayed(name, delay_s))
        cut_s = time.monotonic()
        client.cut()
        join(unique, clean=False, properties=KEPT).leave()
        keep_within(delay_s, cut_s)
        # A will that is due after it would have been.
        join(properties=KEPT, will=delayed(name, delay_s, b"another")).cut()
        assert watcher.message().payload == b"another"
        assert watcher.settled() == []

    in_time(comes_back)


@pytest.mark.parametrize("expiry_s", [0, 1])
def test_the_end_of_the_session_ends_the_delay(expiry_s: int, join: Join, unique: str) -> None:
    """[MQTT-3.1.2-8]"""
    watcher = join()
    watcher.subscribe(unique)
    client = join(properties=prop(SESSION_EXPIRY, expiry_s), will=delayed(unique, 3600))
    cut_s = time.monotonic()
    client.cut()
    assert watcher.message().payload == b"gone"
    assert time.monotonic() - cut_s > expiry_s - TICK_S


def test_a_clean_start_sends_the_delayed_will_of_the_session_it_ends(
    join: Join, unique: str
) -> None:
    """[MQTT-3.1.2-8, MQTT-3.1.4-4]"""
    watcher = join()
    watcher.subscribe(unique)
    join(unique, properties=KEPT, will=delayed(unique, 1800)).cut()
    join(unique, clean=True)
    assert watcher.message().payload == b"gone"


@pytest.mark.parametrize(
    ("delay_s", "clean", "sent"),
    [(0, False, True), (0, True, True), (1800, False, False), (1800, True, True)],
)
def test_a_take_over_sends_the_will_that_is_due(
    delay_s: int, clean: bool, sent: bool, join: Join, unique: str
) -> None:
    """[MQTT-3.1.4-3, MQTT-3.1.3-9]"""
    watcher = join()
    watcher.subscribe(unique)
    first = join(unique, properties=KEPT, will=delayed(unique, delay_s))
    second = join(unique, clean=clean, properties=KEPT)
    assert first.ended() == 0x8E
    second.publish(f"{unique}/after")
    assert watcher.payloads() == [b"gone"] * sent


def test_a_will_with_a_name_of_the_servers_is_not_published(join: Join, unique: str) -> None:
    """[MQTT-4.7.2-1]"""
    watcher = join()
    watcher.subscribe(f"$SYS/{unique}")
    join(will=Will(f"$SYS/{unique}", b"gone", 1)).cut()
    join().publish(unique)
    assert watcher.settled() == []


def test_a_will_may_have_the_longest_payload(join: Join, unique: str) -> None:
    """[MQTT 5.0, 3.1.3.4]"""
    watcher = join()
    watcher.subscribe(unique)
    join(will=Will(unique, b"x" * 65_535)).cut()
    assert len(watcher.message().payload) == 65_535
