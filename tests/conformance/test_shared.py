"""Chapter 4.8.2: shared subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import (
    RETAIN_AVAILABLE,
    SESSION_EXPIRY,
    SHARED_AVAILABLE,
    SUBSCRIPTION_ID,
    ack,
    prop,
)
from tests.e2e.raw_mqtt import PUBACK, PUBCOMP, PUBREC, PUBREL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.raw_client import Message, RawClient

    Dial = Callable[..., RawClient]
    Join = Callable[..., RawClient]

VERSIONS = pytest.mark.parametrize("version", [4, 5])
KEPT = prop(SESSION_EXPIRY, 3600)


def shared(unique: str, group: str = "g") -> str:
    return f"$share/{group}/{unique}/#"


def acknowledge(client: RawClient, *messages: Message, reason: int | None = None) -> None:
    """Answer messages; at QoS 2 the server's PUBREL is waited for, and answered."""
    for message in messages:
        if message.qos == 1:
            client.send(ack(PUBACK, message.packet_id, reason))
        elif message.qos == 2:
            client.send(ack(PUBREC, message.packet_id, reason))
            if reason is None or reason < 0x80:
                client.expect(PUBREL)
                client.send(ack(PUBCOMP, message.packet_id))


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_goes_to_one_of_the_sessions(
    qos: int, version: int, join: Join, unique: str
) -> None:
    """[MQTT 5.0, 4.8.2]; before 5.0 it is the same."""
    members = [join(version=version) for _ in range(3)]
    for member in members:
        assert member.subscribe(shared(unique), qos).reason == qos
    publisher = join()
    for number in range(12):
        publisher.publish(f"{unique}/{number}", b"%02d" % number, qos)
    got = [member.payloads() for member in members]
    together = sorted(payload for one in got for payload in one)
    assert together == [b"%02d" % number for number in range(12)]
    assert all(got)


@pytest.mark.parametrize(
    "wrong", ["$share/g", "$share/g/", "$share//t", "$share/g+/t", "$share/#/t", "$share/+/t"]
)
def test_a_shared_filter_has_a_name_and_a_filter(wrong: str, join: Join) -> None:
    """[MQTT-4.8.2-1, MQTT-4.8.2-2]"""
    assert join().subscribe(wrong, 1).reason == 0x8F
    assert join(version=4).subscribe(wrong, 1).reason == 0x80


def test_each_member_gets_at_most_the_quality_that_it_was_granted(
    join: Join, unique: str
) -> None:
    """[MQTT-4.8.2-3]"""
    members = [join() for _ in range(3)]
    for qos, member in enumerate(members):
        assert member.subscribe(shared(unique), qos).reason == qos
    publisher = join()
    for number in range(9):
        publisher.publish(f"{unique}/t", b"", 2, packet_id=number + 1)
    for qos, member in enumerate(members):
        assert {message.qos for message in member.messages()} == {qos}


def test_what_was_begun_at_qos_2_is_completed_when_the_client_is_back(
    join: Join, unique: str
) -> None:
    """[MQTT-4.8.2-4]"""
    lost, other = join(f"{unique}-lost", properties=KEPT), join()
    for member in (lost, other):
        member.subscribe(shared(unique), 2)
    publisher = join()
    for number in range(4):
        publisher.publish(f"{unique}/t", b"%d" % number, 2)
    begun = lost.messages()
    acknowledge(other, *other.messages())
    assert len(begun) == 2
    lost.send(ack(PUBREC, begun[0].packet_id))
    lost.expect(PUBREL)
    lost.cut()
    back = join(f"{unique}-lost", clean=False, properties=KEPT)
    assert back.expect(PUBREL).packet_id == begun[0].packet_id
    again = back.message()
    assert (again.payload, again.packet_id, again.dup) == (
        begun[1].payload,
        begun[1].packet_id,
        True,
    )
    back.send(ack(PUBCOMP, begun[0].packet_id))
    acknowledge(back, again)
    assert back.settled() == other.settled() == []


def test_what_was_begun_at_qos_2_ends_with_the_session(join: Join, unique: str) -> None:
    """[MQTT-4.8.2-5]"""
    lost, other = join(f"{unique}-lost", properties=KEPT), join()
    for member in (lost, other):
        member.subscribe(shared(unique), 2)
    publisher = join()
    for number in range(4):
        publisher.publish(f"{unique}/t", b"%d" % number, 2)
    assert len(lost.messages()) == 2
    acknowledge(other, *other.messages())
    lost.cut()
    join(f"{unique}-lost", clean=True)
    publisher.publish(f"{unique}/t", b"next", 2)
    assert other.payloads() == [b"next"]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_client_refuses_goes_to_no_other(qos: int, join: Join, unique: str) -> None:
    """[MQTT-4.8.2-6]"""
    members = [join(), join()]
    for member in members:
        member.subscribe(shared(unique), qos)
    publisher = join()
    for number in range(2):
        publisher.publish(f"{unique}/t", b"%d" % number, qos)
    refusing, other = members
    (refused,) = refusing.messages()
    acknowledge(other, *other.messages())
    acknowledge(refusing, refused, reason=0x83)
    refusing.leave()
    publisher.publish(f"{unique}/t", b"next", qos)
    assert other.payloads() == [b"next"]


@VERSIONS
def test_what_a_lost_client_did_not_acknowledge_goes_to_another(
    version: int, join: Join, unique: str
) -> None:
    """At QoS 1, as a new message [MQTT 5.0, 4.8.2]."""
    lost, other = join(version=version), join(version=version)
    for member in (lost, other):
        member.subscribe(shared(unique), 1)
    publisher = join()
    for number in range(4):
        publisher.publish(f"{unique}/t", b"%d" % number, 1)
    begun = lost.messages()
    acknowledge(other, *other.messages())
    acknowledge(lost, begun[0])
    lost.settled()
    lost.leave()
    again = other.message()
    assert (again.payload, again.dup) == (begun[1].payload, False)
    assert other.settled() == []


def test_a_member_that_takes_no_more_holds_up_nothing(join: Join, unique: str) -> None:
    """The Receive Maximum of one is no limit of the others."""
    slow, fast = join(properties=prop(0x21, 1)), join()
    for member in (slow, fast):
        member.subscribe(shared(unique), 1)
    publisher = join()
    for number in range(10):
        publisher.publish(f"{unique}/t", b"%d" % number, 1)
    assert len(slow.messages()) == 1
    assert len(fast.messages()) == 9


def test_nothing_retained_is_sent(join: Join, unique: str) -> None:
    """[MQTT 5.0, 4.8.2]"""
    join().publish(f"{unique}/t", b"old", 1, retain=True)
    member = join()
    for options in (0, 0x10):
        member.subscribe(shared(unique), options)
        assert member.settled() == []


def test_groups_and_other_subscriptions_are_apart(join: Join, unique: str) -> None:
    """Each has its own copy, with its own Subscription Identifier [MQTT 5.0, 4.8.2]."""
    client = join()
    filters = [shared(unique, "a"), shared(unique, "b"), f"{unique}/#"]
    for number, each in enumerate(filters, start=1):
        client.subscribe(each, 1, prop(SUBSCRIPTION_ID, number))
    join().publish(f"{unique}/t", b"x", 1)
    got = sorted(message.properties[SUBSCRIPTION_ID] for message in client.messages())
    assert got == [[1], [2], [3]]


@VERSIONS
def test_a_group_ends_with_its_last_member(version: int, join: Join, unique: str) -> None:
    client, publisher = join(version=version), join()
    client.subscribe(shared(unique), 1)
    assert publisher.publish(f"{unique}/t", b"x", 1).reason == 0
    client.messages()
    assert client.unsubscribe(shared(unique)).reason == 0
    assert publisher.publish(f"{unique}/t", b"x", 1).reason == 0x10
    assert client.settled() == []


def test_it_is_what_connack_leaves_out(dial: Dial, unique: str) -> None:
    """[MQTT 5.0, 3.2.2.3.13]"""
    told = dial().open(unique).properties
    assert not {SHARED_AVAILABLE, RETAIN_AVAILABLE} & told.keys()
