"""What the specifications ask of clients, and what becomes of a client that does not do it.

The server cannot make a client behave; it can see that it does not, say so where there is a
reason code for it, and keep its own side in order where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    SESSION_EXPIRY,
    TOPIC_ALIAS,
    TOPIC_ALIAS_MAXIMUM,
    ack,
    prop,
    publish,
    subscribe,
    unsubscribe,
)
from tests.e2e.raw_mqtt import (
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    packet,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import RawClient

    Join = Callable[..., RawClient]
    Dial = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [4, 5])
KEPT = prop(SESSION_EXPIRY, 3600)
RECEIVE_MAXIMUM = 4


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"mqtt.receive_maximum": str(RECEIVE_MAXIMUM), "mqtt.topic_alias_max": "0"}


def kept(version: int) -> dict[str, object]:
    """Return the options of a CONNECT whose session outlives the connection, or goes on."""
    return {"clean": False} | ({"properties": KEPT} if version == 5 else {})


# --- what a client keeps to itself ------------------------------------------------------------


def test_a_client_that_gives_its_session_up_finds_it_again(
    dial: Dial, join: Join, unique: str
) -> None:
    """[MQTT-3.2.2-4]: it has no state, is told of one, closes; the server keeps what it has."""
    client = join(unique, properties=KEPT)
    client.subscribe(unique, 1)
    client.leave()
    for _ in range(2):
        client = dial()
        assert client.open(unique, **kept(5)).session_present
        client.cut()
    join().publish(unique, b"x")
    assert join(unique, **kept(5)).message().payload == b"x"


def test_a_client_that_goes_on_with_what_the_server_has_not(
    dial: Dial, join: Join, unique: str
) -> None:
    """[MQTT-3.2.2-5]: its halves of handshakes are answered as unknown, and change nothing."""
    watcher, client = join(), dial()
    watcher.subscribe(unique)
    assert not client.open(unique, **kept(5)).session_present
    client.send(ack(PUBREL, 7), ack(PUBREC, 8), ack(PUBACK, 9), ack(PUBCOMP, 10))
    assert (client.expect(PUBCOMP).reason, client.expect(PUBREL).reason) == (0x92, 0x92)
    client.send(publish(unique, b"old", 2, 7, dup=True))  # as if it were the second time
    assert client.expect(PUBREC).reason == 0
    assert watcher.message().payload == b"old"


# --- topic aliases ----------------------------------------------------------------------------


@pytest.mark.parametrize("alias", [1, 65_535])
def test_an_alias_where_none_was_offered_ends_the_connection(
    alias: int, dial: Dial, unique: str
) -> None:
    """[MQTT-3.2.2-18, MQTT-3.2.2-17, MQTT-3.3.2-9]"""
    client = dial()
    assert TOPIC_ALIAS_MAXIMUM not in client.open(unique).properties
    client.send(publish(unique, b"x", properties=prop(TOPIC_ALIAS, alias)))
    assert client.ended() == 0x94


def test_a_client_that_loses_its_aliases_has_to_connect_anew(join: Join, unique: str) -> None:
    """[MQTT-3.3.2-10]: what it has not accepted is its own loss, until it connects anew."""
    maximum = prop(TOPIC_ALIAS_MAXIMUM, 1)
    client = join(unique, properties=KEPT + maximum)
    client.subscribe(f"{unique}/a", 1)
    for _ in range(2):
        client.publish(f"{unique}/a", b"x")
    assert [message.topic_name != "" for message in client.messages()] == [True, False]
    client.cut()
    client = join(unique, properties=KEPT + maximum, clean=False)
    assert [message.topic_name != "" for message in client.messages()] == [True, False]


# --- packet identifiers and windows -----------------------------------------------------------


@VERSIONS
def test_an_id_that_is_in_use(version: int, join: Join, unique: str) -> None:
    """[MQTT-2.2.1-3; MQTT 3.1.1: MQTT-2.3.1-2, MQTT-2.3.1-3]: at QoS 2 it is taken for the
    same message again, at QoS 1 for a new one; SUBSCRIBE has ids of its own to be answered."""
    watcher, client = join(), join(version=version)
    watcher.subscribe(unique)
    client.send(publish(unique, b"first", 2, 7, version=version))
    assert client.expect(PUBREC).packet_id == 7
    client.send(publish(unique, b"not again", 2, 7, version=version))
    assert client.expect(PUBREC).packet_id == 7
    client.send(subscribe(7, (f"{unique}/x", 0), version=version))
    assert client.expect(SUBACK).packet_id == 7
    client.send(*[publish(unique, b"new", 1, 8, version=version)] * 2)
    assert [client.expect(PUBACK).packet_id for _ in range(2)] == [8, 8]
    assert watcher.payloads() == [b"first", b"new", b"new"]


def test_a_full_window_of_the_client_keeps_no_other_packet(join: Join, unique: str) -> None:
    """[MQTT-3.3.4-8, MQTT-3.3.4-7]: whoever delays them waits for itself alone."""
    client = join()
    for number in range(1, RECEIVE_MAXIMUM + 1):
        client.send(publish(unique, b"x", 2, number))
        client.expect(PUBREC)
    client.send(subscribe(9, (unique, 0)), publish(unique, b"at QoS 0"))
    assert client.expect(SUBACK).packet_id == 9
    assert client.message().payload == b"at QoS 0"
    client.send(unsubscribe(10, unique), packet(PINGREQ))
    assert client.expect(UNSUBACK).packet_id == 10
    assert client.expect(PINGRESP).reason == 0
    client.send(publish(unique, b"one too many", 1, 9))
    assert client.ended() == 0x93


# --- acknowledgements -------------------------------------------------------------------------


@VERSIONS
def test_acknowledgements_of_qos_1_in_another_order_are_taken(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.6.0-2; MQTT 3.1.1: MQTT-4.6.0-2]"""
    client, publisher = join(unique, version, **kept(version)), join()
    client.subscribe(unique, 1)
    for number in range(4):
        publisher.publish(unique, b"%d" % number)
    ids = [message.packet_id for message in client.messages()]
    client.send(*[ack(PUBACK, one) for one in reversed(ids[1:])])
    assert client.settled() == []
    client.cut()
    (again,) = join(unique, version, **kept(version)).messages()
    assert (again.payload, again.packet_id) == (b"0", ids[0])


@VERSIONS
def test_receipts_of_qos_2_in_another_order_are_taken(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.6.0-3; MQTT 3.1.1: MQTT-4.6.0-3]: PUBREL comes in the order of PUBREC."""
    client, publisher = join(unique, version, **kept(version)), join()
    client.subscribe(unique, 2)
    for number in range(4):
        publisher.publish(unique, b"%d" % number, 2)
    ids = [message.packet_id for message in client.messages()][::-1]
    client.send(*[ack(PUBREC, one) for one in ids])
    assert [client.expect(PUBREL).packet_id for _ in ids] == ids
    client.send(*[ack(PUBCOMP, one) for one in ids])
    assert client.settled() == []
    client.cut()
    assert join(unique, version, **kept(version)).settled() == []


@VERSIONS
def test_releases_of_qos_2_in_another_order_are_taken(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.6.0-4; MQTT 3.1.1: MQTT-4.6.0-4]: what was published keeps its order."""
    watcher, client = join(), join(version=version)
    watcher.subscribe(unique)
    ids = list(range(1, RECEIVE_MAXIMUM + 1))
    for number in ids:
        client.send(publish(unique, b"%d" % number, 2, number, version=version))
        client.expect(PUBREC)
    client.send(*[ack(PUBREL, number) for number in reversed(ids)])
    assert [client.expect(PUBCOMP).packet_id for _ in ids] == ids[::-1]
    assert watcher.payloads() == [b"%d" % number for number in ids]


@VERSIONS
def test_what_a_client_sends_again_may_come_in_another_order(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.6.0-1]: each is known by its id, and what is stored keeps its place."""
    watcher, client = join(), join(unique, version, **kept(version))
    watcher.subscribe(unique)
    for number in (1, 2, 3):
        client.send(publish(unique, b"%d" % number, 2, number, version=version))
        client.expect(PUBREC)
    client.cut()
    client = join(unique, version, **kept(version))
    for number in (3, 1, 2):
        client.send(publish(unique, b"again", 2, number, dup=True, version=version))
        assert client.expect(PUBREC).packet_id == number
    assert watcher.payloads() == [b"1", b"2", b"3"]


@VERSIONS
def test_a_client_that_acknowledges_nothing_gets_it_when_it_comes_back(
    version: int, join: Join, unique: str
) -> None:
    """[MQTT-4.5.0-2; MQTT 3.1.1: MQTT-4.5.0-2]"""
    client, publisher = join(unique, version, **kept(version)), join()
    client.subscribe(unique, 2)
    for qos in (1, 2):
        publisher.publish(unique, b"%d" % qos, qos)
    for _ in range(3):
        assert client.payloads() == [b"1", b"2"]
        client.cut()
        client = join(unique, version, **kept(version))
