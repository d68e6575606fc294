"""Chapter 3.1.2.11.4 with 3.2.2.3.9 and its like: what is left out for want of room.

An answer has a Reason String where the client wants to know why and takes a packet of that
size; a byte less, and it has none. User properties the server sends with no answer at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    AUTH_METHOD,
    MAXIMUM_PACKET_SIZE,
    REASON_STRING,
    USER_PROPERTY,
    Answer,
    RawClient,
    ack,
    connect,
    prop,
)
from tests.e2e.raw_mqtt import (
    CONNACK,
    DISCONNECT,
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

    Join = Callable[..., RawClient]
    Dial = Callable[..., RawClient]

LONG = "long" * 20


def unknown(client: RawClient, kind: int, answer: int) -> Answer:
    """Acknowledge what was never sent."""
    client.send(ack(kind, 77))
    return client.expect(answer)


def told_to_go(client: RawClient) -> Answer:
    client.send(packet(0))
    last = client.rest()[-1]
    assert isinstance(last, Answer)
    return last


ASKED: dict[int, Callable[[RawClient], Answer]] = {
    PUBACK: lambda client: client.publish(f"$SYS/{LONG}", b"", 1),
    PUBREC: lambda client: client.publish(f"$SYS/{LONG}", b"", 2),
    PUBREL: lambda client: unknown(client, PUBREC, PUBREL),
    PUBCOMP: lambda client: unknown(client, PUBREL, PUBCOMP),
    SUBACK: lambda client: client.subscribe(f"{LONG}/#/x"),
    UNSUBACK: lambda client: client.unsubscribe(f"{LONG}/#/x"),
    DISCONNECT: told_to_go,
}


def assert_the_same_but_short(short: Answer, full: Answer, size_max: int) -> None:
    assert (short.kind, short.packet_id, short.reasons) == (
        full.kind,
        full.packet_id,
        full.reasons,
    )
    assert short.size <= size_max
    assert short.properties == {}


@pytest.mark.parametrize("kind", ASKED)
def test_an_answer_leaves_out_what_has_no_room(kind: int, join: Join) -> None:
    """[MQTT-3.4.2-2, MQTT-3.4.2-3, MQTT-3.5.2-2, MQTT-3.5.2-3, MQTT-3.6.2-2, MQTT-3.6.2-3,
    MQTT-3.7.2-2, MQTT-3.7.2-3, MQTT-3.9.2-1, MQTT-3.9.2-2, MQTT-3.11.2-1, MQTT-3.11.2-2,
    MQTT-3.14.2-3, MQTT-3.14.2-4, MQTT-3.1.2-24]"""
    full = ASKED[kind](join())
    assert full.reason >= 0x80
    assert USER_PROPERTY not in full.properties
    if kind not in (PUBREL, PUBCOMP, UNSUBACK):  # their codes say all there is to say
        assert full.properties[REASON_STRING] != [""]
        enough = ASKED[kind](join(properties=prop(MAXIMUM_PACKET_SIZE, full.size)))
        assert enough == full
    size_max = max(full.size - 1, 40)
    too_small = ASKED[kind](join(properties=prop(MAXIMUM_PACKET_SIZE, size_max)))
    assert_the_same_but_short(too_small, full, size_max)


def test_connack_leaves_out_what_has_no_room(dial: Dial, unique: str) -> None:
    """[MQTT-3.2.2-19, MQTT-3.2.2-20, MQTT-3.1.2-24]"""

    def refused(size_max: int) -> Answer:
        client = dial()
        properties = prop(AUTH_METHOD, LONG) + prop(MAXIMUM_PACKET_SIZE, size_max)
        client.send(connect(unique, properties=properties))
        answer = client.expect(CONNACK)
        assert client.rest() == []
        return answer

    full = refused(65_536)
    assert set(full.properties) == {REASON_STRING}
    assert refused(full.size) == full
    assert_the_same_but_short(refused(full.size - 1), full, full.size - 1)
    assert USER_PROPERTY not in dial().open(unique).properties
