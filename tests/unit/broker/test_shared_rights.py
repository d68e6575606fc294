"""Shared subscriptions and rules: who may not have a message does not hold it up."""

from __future__ import annotations

import pytest
from tests.unit.broker.share_room import STRATEGIES
from tests.unit.broker.shore import Client, Shore
from tests.unit.broker.test_permits import Ruled, rules_of

from isthmus.broker.access import Access
from isthmus.broker.identity import Identity
from isthmus.mqtt.packets import PUBACK, Ack, Publish

RULES = ("allow all publish,subscribe #", "deny user:ann subscribe s/#")
GROUP = "$share/g/#"


class Office(Ruled):
    """Members of one group: ann, who may not have s/#, and bob, who may have all."""

    def __init__(self, strategy: str = "fair") -> None:
        self.access = Access(rules_of(*RULES), default=False)
        self.shore = Shore(access=self.access, shared_strategy=strategy)

    def member(self, user: str, client_id: str, **connect: int) -> Client:
        client = Client(self.shore, client_id, 5)
        client.identity = Identity("127.0.0.1", 5000, "tcp", user)
        client.connect(**connect)
        client.subscribe(GROUP)
        client.packets()
        return client

    def publish(self, *names: str) -> None:
        for name in names:
            self.shore.broker.publish(None, Publish(name.encode(), b"x", 1))
            self.shore.runtime.settle()

    @property
    def group(self) -> object:
        return self.shore.broker.subscriptions.groups[GROUP]


def taken(client: Client, *, ack: bool = True) -> list[str]:
    """Return the topic names of what has come to a client, acknowledged or not."""
    found = [packet for packet in client.packets() if isinstance(packet, Publish)]
    if ack and found:
        client.send(*[Ack(PUBACK, packet.packet_id) for packet in found])
    return [packet.topic.decode() for packet in found]


@STRATEGIES
def test_a_message_waits_for_the_one_who_may_have_it(strategy: str) -> None:
    """And what others may have does not wait behind it."""
    office = Office(strategy)
    bob = office.member("bob", "b", receive_maximum=1)
    office.publish("s/first")
    ann = office.member("ann", "a")
    office.publish("s/second", "s/third")
    names = [f"t/{number}" for number in range(20)]
    office.publish(*names)
    to_ann = taken(ann)
    assert to_ann
    assert not [name for name in to_ann if name.startswith("s/")]
    to_bob: list[str] = []
    for _ in range(30):
        to_bob += taken(bob)
    to_ann += taken(ann)
    assert to_bob[:3] == ["s/first", "s/second", "s/third"]
    assert sorted(to_ann + to_bob[3:]) == sorted(names)
    assert sum(office.group.dropped.by_reason().values()) == 0  # type: ignore[attr-defined]


def test_with_hash_a_key_of_somebody_who_may_not_have_it_has_one_other_owner() -> None:
    office = Office("hash")
    ann = office.member("ann", "a")
    others = [office.member("bob", f"b{number}") for number in range(3)]
    names = [f"s/{number}" for number in range(40)]
    for _ in range(3):
        office.publish(*names)
    assert taken(ann) == []
    got = [taken(other) for other in others]
    for name in names:
        assert sorted(each.count(name) for each in got) == [0, 0, 3]
    assert all(got)  # what would have been ann's is spread over all of them


@STRATEGIES
def test_what_waits_for_somebody_goes_to_another_when_the_rules_change(strategy: str) -> None:
    office = Office(strategy)
    bob = office.member("bob", "b", receive_maximum=1)
    office.publish("s/0")
    ann = office.member("ann", "a")
    office.publish("s/1", "s/2")
    assert taken(ann) == []
    office.change("allow all publish,subscribe #", "deny user:bob subscribe s/#")
    office.shore.runtime.settle()
    assert taken(ann) == ["s/1", "s/2"]
    assert taken(bob) == ["s/0"]


@STRATEGIES
def test_what_waits_for_a_member_that_is_lost_is_dropped_where_no_other_may(
    strategy: str,
) -> None:
    office = Office(strategy)
    bob = office.member("bob", "b", receive_maximum=1)
    office.publish("s/0")
    ann = office.member("ann", "a")
    office.publish("s/1", "t")
    bob.lose()
    office.shore.runtime.settle()
    office.publish("t/1")
    assert "t/1" in taken(ann)
    assert office.group.dropped.denied == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("restarts", [False, True])
@STRATEGIES
def test_nothing_comes_to_wait_that_no_member_may_have(strategy: str, restarts: bool) -> None:
    office = Office(strategy)
    office.member("ann", "a", expiry_s=100).lose()
    if restarts:
        office.shore = office.shore.end()
    office.publish("s/0", "t/0")
    assert office.group.waiting_count == 1  # type: ignore[attr-defined]
    ann = Client(office.shore, "a", 5)
    ann.identity = Identity("127.0.0.1", 5000, "tcp", "ann")
    ann.connect(clean_start=False, expiry_s=100)
    assert [packet.topic for packet in ann.after_connack] == [b"t/0"]
