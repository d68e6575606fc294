"""Any history of a shared subscription, crashes included, against a plain model.

Three clients with lasting sessions share a filter: they come and go, lose connections, refuse
messages, forget their sessions; the server ends in order, dies, or dies between two writes. The
model knows the promises only: what is stored while the group has members reaches one of them,
unless a client refused it or a session ended with it; at QoS 2 it reaches one, once; and with
the strategy `hash` what has one key comes to one member, in order, as long as none comes or
goes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.property.restarts import Restarts
from tests.property.test_session_log import Device, PowerOff
from tests.unit.broker.shore import Client, Shore

from isthmus.mqtt.packets import PUBACK, PUBLISH, PUBREC, Ack, Publish, Subscribe, Unsubscribe

NAMES = ("a", "b", "c")
TOPICS = ("t/1", "t/2", "t/3", "t/4")
GROUP = "$share/g/t/+"
MEMBERS = st.sampled_from(NAMES)


class Shares(Restarts):
    strategy = "fair"

    def __init__(self) -> None:
        super().__init__()
        self.shore = Shore(shared_strategy=self.strategy)
        self.devices = {name: Device(name) for name in NAMES}
        for device in self.devices.values():
            device.connect(self.shore, first=True)
        self.subscribed: set[str] = set()
        self.count = 0
        self.allowed: set[bytes] = set()
        self.due: dict[bytes, int] = {}
        self.excused: set[bytes] = set()  # refused, or gone with a session
        self.begin_epoch()
        for name in NAMES[:2]:
            self.join(name, 2)

    def begin_epoch(self) -> None:
        """Somebody comes or goes."""
        self.epoch = {name: len(device.got) for name, device in self.devices.items()}
        self.first = self.count + 1

    # --- messages -----------------------------------------------------------------------------

    @rule(topic_name=st.sampled_from(TOPICS), qos=st.integers(0, 2), count=st.integers(1, 9))
    def publish(self, topic_name: str, qos: int, count: int) -> None:
        for _ in range(count):
            self.publish_one(topic_name, qos)

    @rule(topic_name=st.sampled_from(TOPICS), qos=st.integers(0, 2), written=st.integers(0, 2))
    def die(self, topic_name: str, qos: int, written: int) -> None:
        """The server dies after so many partitions of the turn's writes."""
        try:
            self.die_after(written)
            self.publish_one(topic_name, qos)
        except PowerOff:
            pass
        del self.shore.log.flush
        self.crash(reading=0)
        self.note_due(qos)

    def publish_one(self, topic_name: str, qos: int) -> None:
        self.count += 1
        payload = b"%d" % self.count
        if self.subscribed:
            self.allowed.add(payload)
        self.shore.broker.publish(None, Publish(topic_name.encode(), payload, qos))
        self.shore.runtime.settle()
        self.note_due(qos)

    def note_due(self, qos: int) -> None:
        """The newest message must come if it is stored and for somebody."""
        payload = b"%d" % self.count
        stored = {record.value for record in self.shore.records("mqtt")}
        if self.subscribed and qos and payload in stored:
            self.due[payload] = qos

    def die_after(self, written: int) -> None:
        log = self.shore.log

        def flush() -> None:
            nonlocal written
            touched, log.touched = log.touched, []
            for partition in touched:
                if written == 0:
                    raise PowerOff
                written -= 1
                partition.commit()

        log.flush = flush

    @rule(name=MEMBERS, count=st.integers(1, 9))
    def read(self, name: str, count: int) -> None:
        if self.devices[name].link is not None:
            self.devices[name].read(99 if count > 4 else count)

    @rule(name=MEMBERS)
    def refuse(self, name: str) -> None:
        device = self.devices[name]
        packets = device.arrived()
        device.unread = packets
        if not packets or device.link is None:
            return
        packet = packets[0]
        if packet.type == PUBLISH and packet.qos and packet.packet_id not in device.held:
            device.unread = packets[1:]
            self.excused.add(packet.payload)
            kind = PUBACK if packet.qos == 1 else PUBREC
            device.link.send(Ack(kind, packet.packet_id, 0x83))

    # --- members ------------------------------------------------------------------------------

    @rule(name=MEMBERS, qos=st.integers(1, 2))
    def join(self, name: str, qos: int) -> None:
        link = self.devices[name].link
        if link is not None:
            link.send(Subscribe(9, [(GROUP, qos)], None))
            self.subscribed.add(name)
            self.begin_epoch()

    @rule(name=MEMBERS)
    def leave(self, name: str) -> None:
        link = self.devices[name].link
        if link is not None:
            link.send(Unsubscribe(9, [GROUP], None))
            self.remove(name)

    def remove(self, name: str) -> None:
        self.subscribed.discard(name)
        if not self.subscribed:  # what waits is for nobody
            self.excused |= self.due.keys()
        self.begin_epoch()

    @rule(name=MEMBERS)
    def lose(self, name: str) -> None:
        device = self.devices[name]
        if device.link is not None:
            device.link.lose()
            device.link = None
            self.begin_epoch()

    @rule(name=MEMBERS)
    def reconnect(self, name: str) -> None:
        if self.devices[name].link is None:
            self.devices[name].connect(self.shore)
            self.begin_epoch()

    @rule(name=MEMBERS)
    def forget(self, name: str) -> None:
        """A client begins anew: what it had at QoS 2 goes with its session."""
        device = self.devices[name]
        if device.link is not None:
            device.link.lose()
        self.excused |= {payload for payload, qos in self.due.items() if qos == 2}
        if name not in self.subscribed:  # on its way when it unsubscribed
            self.excused |= self.due.keys()
        link = Client(self.shore, name, 5)
        link.connect(clean_start=True, expiry_s=900, receive_maximum=3)
        device.link, device.unread = link, []
        device.held.clear()
        self.remove(name)

    # --- what becomes of the server -----------------------------------------------------------

    def restart(self, again: Any, reading: int) -> None:
        connected = self.lose_links(self.devices.values(), again, reading)
        for device in connected:
            device.connect(self.shore)
        self.begin_epoch()

    @rule()
    def wait(self) -> None:
        """Long enough for a checkpoint."""
        self.shore.runtime.advance(60_000)

    # --- the promises -------------------------------------------------------------------------

    @invariant()
    def nobody_gets_what_was_not_for_the_group(self) -> None:
        for device in self.devices.values():
            assert {payload for _, payload, _ in device.got} <= self.allowed

    @invariant()
    def at_qos_2_one_member_gets_it_once(self) -> None:
        got = Counter(
            payload
            for device in self.devices.values()
            for _, payload, qos in device.got
            if qos == 2
        )
        assert not got or max(got.values()) == 1

    @invariant()
    def a_key_stays_with_one_member_and_in_order(self) -> None:
        if self.strategy != "hash":
            return
        owners: dict[str, set[str]] = {}
        for name, device in self.devices.items():
            numbers: dict[tuple[str, int], list[int]] = {}
            for topic_name, payload, qos in device.got[self.epoch[name] :]:
                if int(payload) >= self.first:
                    owners.setdefault(topic_name, set()).add(name)
                    numbers.setdefault((topic_name, qos), []).append(int(payload))
            for each in numbers.values():
                assert each == sorted(each)
        assert all(len(each) == 1 for each in owners.values())

    def teardown(self) -> None:
        for device in self.devices.values():
            if device.link is None:
                device.connect(self.shore)
        self.shore.runtime.settle()
        while sum(device.read(99) for device in self.devices.values()):
            pass
        got = {payload for device in self.devices.values() for _, payload, _ in device.got}
        assert self.due.keys() - self.excused <= got
        self.nobody_gets_what_was_not_for_the_group()
        self.at_qos_2_one_member_gets_it_once()
        for group in self.shore.broker.subscriptions.groups.values():
            assert not group.waiting_count
            assert group.unfinished() == []


@pytest.mark.parametrize("strategy", ["fair", "sticky", "hash"])
def test_histories(strategy: str) -> None:
    machine = type(f"Shares_{strategy}", (Shares,), {"strategy": strategy})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )
