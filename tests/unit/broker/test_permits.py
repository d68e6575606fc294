"""Rules at the MQTT shore: what is refused, what does not come, what a change of rules does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.broker.access import Access
from isthmus.broker.access_rules import parse_rules
from isthmus.broker.identity import Identity
from isthmus.mqtt.packets import PUBACK, PUBREC, Ack, Publish, Suback, Subscribe, Will
from isthmus.mqtt.properties import REASON_STRING

if TYPE_CHECKING:
    from isthmus.broker.access_rules import Rule


def rules_of(*rules: str) -> list[Rule]:
    return parse_rules("\n".join(rules), "rules")


class Ruled:
    """A shore, its rules, and users who come to it."""

    def __init__(self, *rules: str, default: bool = False) -> None:
        self.access = Access(rules_of(*rules), default=default)
        self.shore = Shore(access=self.access)

    def change(self, *rules: str) -> None:
        self.access.replace(rules_of(*rules), default=False)

    def user(self, name: str, client_id: str = "", version: int = 5, **connect: Any) -> Client:
        client = Client(self.shore, client_id or f"of-{name}", version)
        client.identity = Identity("127.0.0.1", 5000, "tcp", name)
        client.connect(**connect)
        return client


def suback_of(client: Client, *filters: str) -> list[int]:
    client.send(Subscribe(9, [(each, 1) for each in filters], None))
    (suback,) = (packet for packet in client.packets() if isinstance(packet, Suback))
    return suback.reasons


# --- publishing -------------------------------------------------------------------------------


def test_a_publisher_is_told_what_it_may_not() -> None:
    ruled = Ruled("allow user:ann publish ok/#")
    ann = ruled.user("ann")
    for qos, kind in ((1, PUBACK), (2, PUBREC)):
        ann.publish("no/a", b"x", qos, packet_id=7)
        (answer,) = ann.packets()
        assert (answer.type, answer.packet_id, answer.reason) == (kind, 7, 0x87)
        assert "rules" in answer.properties[REASON_STRING]
    ann.publish("ok/a", b"x", 1, packet_id=8)
    assert ann.packets() == [Ack(PUBACK, 8, 0x10)]
    assert [record.key for record in ruled.shore.records("mqtt")] == [b"ok/a"]
    assert ruled.shore.broker.lost == 0


@pytest.mark.parametrize("version", [3, 4])
def test_before_mqtt_5_it_is_dropped_and_counted(version: int) -> None:
    ruled = Ruled("allow user:ann publish ok/#")
    ann = ruled.user("ann", version=version)
    ann.publish("no/a", b"x", 1, packet_id=7)
    assert ann.packets() == [Ack(PUBACK, 7)]
    ann.publish("no/a", b"x")
    assert ruled.shore.records("mqtt") == []
    assert ruled.shore.broker.lost == 2


def test_the_log_tells_once_of_a_client_that_may_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "isthmus.broker")
    ruled = Ruled("allow user:ann publish ok/#")
    for user in ("ann", "bob"):
        client = ruled.user(user)
        for number in range(3):
            client.publish(f"no/{number}", b"x")
    lines = [record.getMessage() for record in caplog.records if "denied" in record.message]
    assert [line.rpartition("client=")[2] for line in lines] == [
        "of-ann user=ann topic_name=b'no/0'",
        "of-bob user=bob topic_name=b'no/0'",
    ]


def test_nothing_is_kept_of_a_topic_name_that_nobody_may_publish() -> None:
    ruled = Ruled("allow user:ann publish ok/#")
    ruled.user("ann").publish("no/retained", b"x", retain=True)
    assert len(ruled.shore.broker.retained) == 0
    assert ruled.shore.records("mqtt") == []


def test_a_will_is_judged_when_it_is_sent() -> None:
    ruled = Ruled("allow user:ann publish gone/%c", "allow all subscribe #")
    watch = ruled.user("watch")
    watch.subscribe("#")
    for will in ("gone/a", "gone/other"):
        ruled.user("ann", "a", will=Will(will.encode(), b"bye", 1, False)).lose()
    assert watch.messages() == [("gone/a", b"bye", 1)]
    late = ruled.user("ann", "a", will=Will(b"gone/a", b"bye", 1, False))
    ruled.change("allow all subscribe #")
    late.lose()
    assert watch.messages() == []


def test_what_is_remembered_of_a_client_is_bounded_and_right() -> None:
    ruled = Ruled("allow user:ann publish,subscribe +/ok")
    session, permits = ruled.user("ann").entry.session, ruled.shore.broker.permits
    for ask in (permits.may_publish, permits.may_receive):
        for number in [*range(1_000), 3]:
            assert ask(session, b"%d/ok" % number)
            assert not ask(session, b"%d/no" % number)
        assert ask(session, bytes(1_000).replace(b"\0", b"a") + b"/ok")
        assert not ask(session, b"\xff/no")


# --- subscribing ------------------------------------------------------------------------------


def test_a_filter_is_refused_where_nothing_of_it_could_come() -> None:
    ruled = Ruled("allow user:ann subscribe a/#", "deny all subscribe a/secret")
    filters = ("a/b", "a/secret", "+/secret", "b/#", "#", "$share/g/b", "a/#/b", "$SYS/#")
    ann = ruled.user("ann")
    assert suback_of(ann, *filters[:5]) == [1, 0x87, 0x87, 0x87, 1]
    assert suback_of(ann, *filters[6:]) == [0x8F, 1]
    assert suback_of(ruled.user("", "nobody"), "$SYS/#", "a/b") == [0x87, 0x87]
    assert suback_of(ruled.user("ann", "old", version=4), "a/b", "b") == [1, 0x80]


def test_a_deny_inside_an_allowed_wildcard_holds() -> None:
    ruled = Ruled("allow all publish #", "allow all subscribe #", "deny user:ann subscribe +/s")
    ann, bob = ruled.user("ann"), ruled.user("bob")
    for client in (ann, bob):
        client.subscribe("#")
        client.packets()
    for name in ("a/s", "a/t"):
        bob.publish(name, b"x")
    assert [name for name, *_ in ann.messages()] == ["a/t"]
    assert [name for name, *_ in bob.messages()] == ["a/s", "a/t"]


def test_of_a_group_a_member_gets_what_it_may_have() -> None:
    ruled = Ruled("allow all publish #", "allow all subscribe #", "deny user:ann subscribe s")
    ann, bob = ruled.user("ann"), ruled.user("bob")
    for client in (ann, bob):
        assert suback_of(client, "$share/g/#") == [1]
    assert suback_of(ann, "$share/g/s") == [0x87]
    for _ in range(4):
        for name in ("s", "t"):
            ruled.user("pub").publish(name, b"x")
    ann_got = [name for name, *_ in ann.messages()]
    bob_got = [name for name, *_ in bob.messages()]
    assert ann_got == ["t"] * 4, "bob has had what ann may not have"
    assert sorted(ann_got + bob_got) == ["s"] * 4 + ["t"] * 4


def test_what_comes_over_the_other_shore_is_judged_as_well() -> None:
    ruled = Ruled("allow all subscribe #", "deny user:ann subscribe s")
    ann = ruled.user("ann")
    ann.subscribe("#")
    ann.packets()
    ruled.shore.produce("mqtt", b"s", b"x")
    ruled.shore.produce("mqtt", b"t", b"x")
    assert [name for name, *_ in ann.messages()] == ["t"]


def test_retained_messages_come_where_they_may() -> None:
    ruled = Ruled("allow all publish #", "allow all subscribe #", "deny user:ann subscribe a/s")
    bob = ruled.user("bob")
    for name in ("a/s", "a/t"):
        bob.publish(name, b"x", retain=True)
    ann = ruled.user("ann")
    ann.subscribe("#")
    assert [name for name, *_ in ann.messages()] == ["a/t"]


def test_retained_messages_that_may_not_come_are_not_even_read() -> None:
    ruled = Ruled(
        "allow all publish #",
        "allow user:ann subscribe of/%u/#",
        "allow user:ann subscribe news/+",
        "deny all subscribe news/secret",
    )
    bob = ruled.user("bob")
    for name in ("of/ann/a", "of/bob/a", "news/a", "news/secret", *map(str, range(20))):
        bob.publish(name, b"x", retain=True)
    ann = ruled.user("ann")
    ann.subscribe("#")
    assert sorted(name for name, *_ in ann.messages()) == ["news/a", "of/ann/a"]
    assert ann.entry.session.dropped.by_reason()["denied"] == 1


# --- changes ----------------------------------------------------------------------------------


def test_a_change_of_rules_counts_at_once() -> None:
    ruled = Ruled(default=True)
    assert not ruled.shore.broker.permits.is_on
    ann, bob = ruled.user("ann"), ruled.user("bob")
    ann.subscribe("#")
    ann.packets()
    bob.publish("t", b"1")
    ruled.change("allow user:bob publish t")
    bob.publish("t", b"2", 1, packet_id=1)
    assert bob.packets() == [Ack(PUBACK, 1, 0x10)]
    ruled.change("allow all subscribe t")
    bob.publish("t", b"3", 1, packet_id=1)
    assert bob.packets()[0].reason == 0x87
    ruled.change("allow all publish,subscribe t")
    bob.publish("t", b"4")
    assert [payload for _, payload, _ in ann.messages()] == [b"1", b"4"]


def test_what_waits_is_judged_when_it_goes_out() -> None:
    ruled = Ruled("allow all publish,subscribe #")
    ann, bob = ruled.user("ann", expiry_s=100), ruled.user("bob")
    ann.subscribe("#")
    ann.lose()
    for name in ("s", "t"):
        bob.publish(name, b"x", 1, packet_id=1)
    ruled.change("allow all publish,subscribe #", "deny user:ann subscribe s")
    ann.connect(clean_start=False, expiry_s=100)
    assert [packet.topic for packet in ann.after_connack] == [b"t"]
    assert ann.entry.session.dropped.by_reason()["denied"] == 1


def test_what_was_in_flight_is_not_sent_again_where_it_may_not() -> None:
    ruled = Ruled("allow all publish,subscribe #")
    ann, bob = ruled.user("ann", expiry_s=100), ruled.user("bob")
    ann.subscribe("#")
    ann.packets()
    bob.publish("s", b"x", 1, packet_id=1)
    assert len(ann.messages()) == 1
    ann.lose()
    ruled.change("allow all publish,subscribe t")
    ann.connect(clean_start=False, expiry_s=100)
    assert ann.after_connack == []


def test_a_session_that_comes_to_somebody_else_is_judged_anew() -> None:
    ruled = Ruled(
        "allow all publish #", "allow anonymous subscribe a", "allow user:ann subscribe b"
    )
    bob = ruled.user("bob")
    client = ruled.user("", "c", expiry_s=100)
    client.send(Subscribe(9, [("#", 1)], None))
    client.packets()
    for name in ("a", "b"):
        bob.publish(name, b"1")
    assert [name for name, *_ in client.messages()] == ["a"]
    client.lose()
    client.identity = Identity("127.0.0.1", 5000, "tcp", "ann")
    client.connect(clean_start=False, expiry_s=100)
    for name in ("a", "b"):
        bob.publish(name, b"2")
    assert [name for name, *_ in client.messages()] == ["b"]


def test_a_session_of_an_earlier_run_gets_what_its_client_may_have() -> None:
    ruled = Ruled("allow all publish #", "allow listener:tcp subscribe t")
    ann = ruled.user("ann", expiry_s=100)
    ann.subscribe("#")
    ann.lose()
    ruled.shore = ruled.shore.end()
    bob = ruled.user("bob")
    for name in ("s", "t"):
        bob.publish(name, b"x", 1, packet_id=1)
    again = ruled.user("ann", clean_start=False, expiry_s=100)
    assert [packet.topic for packet in again.after_connack if isinstance(packet, Publish)] == [
        b"t"
    ]
    for name in ("s", "t"):
        bob.publish(name, b"y", 1, packet_id=2)
    assert [name for name, *_ in again.messages()] == ["t"]


def test_of_a_group_those_get_a_message_who_may() -> None:
    """Whoever would have had it next; and nobody, where none may."""
    ruled = Ruled("allow all subscribe a/#", "deny user:ann subscribe +/s")
    ann, bob = ruled.user("ann"), ruled.user("bob")
    for member in (ann, bob):
        assert suback_of(member, "$share/g/a/#") == [1]
    for number in range(4):
        ruled.shore.broker.publish(None, Publish(b"a/s", b"%d" % number, 1))
        ruled.shore.runtime.settle()
    assert ann.messages() == []
    assert [payload for _, payload, _ in bob.messages()] == [b"%d" % n for n in range(4)]
    bob.lose()
    ruled.shore.broker.publish(None, Publish(b"a/s", b"nobody", 1))
    ruled.shore.broker.publish(None, Publish(b"a/t", b"ann", 1))
    ruled.shore.runtime.settle()
    dropped = ruled.shore.broker.subscriptions.groups["$share/g/a/#"].dropped
    assert [payload for _, payload, _ in ann.messages()] == [b"ann"]
    assert dropped.denied >= 1
