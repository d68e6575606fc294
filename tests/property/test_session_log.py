"""Any history of persistent sessions, crashes included, against a plain model.

Three clients that never forget, as MQTT asks of them, publish to each other and subscribe; they
lose their connections, and the server ends in order, dies, or dies between two writes; and what
it keeps of them is compacted at any moment. The
model knows only the promises: what was acknowledged reaches every session that had subscribed,
at QoS 2 exactly once; in order; and nobody gets what they did not subscribe to. Each connection
has a will, which is sent if its client stays away: after its delay, or after the grace that a
start gives; else it is not.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from tests.property.restarts import Restarts
from tests.unit.broker.shore import Client, Shore

from isthmus.mqtt.packets import (
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Ack,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
)
from isthmus.mqtt.properties import WILL_DELAY
from isthmus.topics.filter import filter_matches

DEVICES = ("a", "b", "c")
FILTERS = st.sampled_from(["t/1", "t/2", "t/+", "#"])
PACKET_IDS = 4
GRACE_MS = 30_000


class PowerOff(Exception):
    """The server dies here."""


class Device:
    """A client with a session that lasts, and with what it must not forget."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.link: Client | None = None
        self.unread: list[Any] = []
        self.subscriptions: dict[str, int] = {}
        self.sending: dict[int, tuple[Publish, bool]] = {}  # by id; True: PUBREC has come
        self.held: set[int] = set()  # ids of QoS 2 deliveries that are not released
        self.got: list[tuple[str, bytes, int]] = []
        self.due: dict[bytes, int] = {}  # payload: the QoS at which it must come
        self.allowed: set[bytes] = set()
        self.will = f"will of {name}".encode()  # its payload
        self.will_delay_s = 0
        self.will_due_ms: int | None = None  # since the connection was lost

    def connect(self, shore: Shore, *, first: bool = False) -> list[Publish]:
        """Return what had to be published again."""
        repeated: list[Publish] = []
        self.link, self.unread = Client(shore, self.name, 5), []
        will = Will(b"w", self.will, 1, False, {WILL_DELAY: self.will_delay_s})
        connack = self.link.connect(
            clean_start=False, will=will, expiry_s=900, receive_maximum=3
        )
        assert connack.session_present is not first
        packets = self.link.after_connack
        for packet_id, (publish, received) in list(self.sending.items()):
            if received:
                self.link.send(Ack(PUBREL, packet_id))
            else:
                again = Publish(publish.topic, publish.payload, publish.qos)
                again.dup, again.packet_id = True, packet_id
                self.link.send(again)
                repeated.append(again)
        self.take(packets)
        return repeated

    def read(self, count: int) -> int:
        """Act on packets, `count` at most; return how many there are."""
        packets = self.arrived()
        self.unread = packets[count:]
        self.take(packets[:count])
        return len(packets)

    def arrived(self) -> list[Any]:
        """Return what has come and was not read yet."""
        return self.unread + (self.link.packets() if self.link is not None else [])

    def take(self, packets: list[Any]) -> None:
        for packet in packets:
            answer = self.answer(packet)
            if answer is not None and self.link is not None:
                self.link.send(answer)

    def answer(self, packet: Any) -> Ack | None:
        if packet.type == PUBLISH:
            if packet.qos < 2 or packet.packet_id not in self.held:
                self.got.append((packet.topic.decode(), packet.payload, packet.qos))
            if packet.qos == 2:
                self.held.add(packet.packet_id)
                return Ack(PUBREC, packet.packet_id)
            return Ack(PUBACK, packet.packet_id) if packet.qos else None
        if packet.type == PUBREL:
            self.held.discard(packet.packet_id)
            return Ack(PUBCOMP, packet.packet_id)
        if packet.type == PUBREC and packet.packet_id in self.sending:
            self.sending[packet.packet_id] = (self.sending[packet.packet_id][0], True)
            return Ack(PUBREL, packet.packet_id)
        if packet.type in (PUBACK, PUBCOMP):
            self.sending.pop(packet.packet_id, None)
        return None


class Histories(Restarts):
    def __init__(self) -> None:
        super().__init__()
        self.shore = Shore()
        self.devices = {name: Device(name) for name in DEVICES}
        self.count = 0
        self.order: dict[bytes, int] = {}
        self.passed_ms = 0
        self.wills_sent: set[bytes] = set()
        for device in self.devices.values():
            device.connect(self.shore, first=True)

    # --- what clients do ----------------------------------------------------------------------

    @rule(name=st.sampled_from(DEVICES), topic_filter=FILTERS, qos=st.integers(0, 2))
    def subscribe(self, name: str, topic_filter: str, qos: int) -> None:
        device = self.devices[name]
        if device.link is not None:
            device.link.send(Subscribe(9, [(topic_filter, qos)], None))
            device.subscriptions[topic_filter] = qos

    @rule(name=st.sampled_from(DEVICES), topic_filter=FILTERS)
    def unsubscribe(self, name: str, topic_filter: str) -> None:
        device = self.devices[name]
        if device.link is not None:
            device.link.send(Unsubscribe(9, [topic_filter], None))
            device.subscriptions.pop(topic_filter, None)

    @rule(
        name=st.sampled_from(DEVICES),
        topic_name=st.sampled_from(["t/1", "t/2", "u"]),
        qos=st.integers(0, 2),
        written=st.sampled_from([-1, -1, -1, 0, 1, 2, 3]),
    )
    def publish(self, name: str, topic_name: str, qos: int, written: int) -> None:
        """With `written` ≥ 0 the server dies after so many partitions of the turn's writes."""
        device = self.devices[name]
        free = set(range(1, PACKET_IDS + 1)) - device.sending.keys()
        if device.link is None or not free:
            return
        self.count += 1
        payload = b"%d" % self.count
        self.order[payload] = self.count
        publish = Publish(topic_name.encode(), payload, qos, packet_id=min(free) if qos else 0)
        if qos:
            device.sending[publish.packet_id] = (publish, False)
        self.expect(publish, due=True)
        if written < 0:
            device.link.send(publish)
        else:
            self.die_while(device, publish, written)

    def expect(self, publish: Publish, *, due: bool) -> None:
        topic_name, payload = publish.topic.decode(), publish.payload
        for device in self.devices.values():
            granted = [
                qos
                for topic_filter, qos in device.subscriptions.items()
                if filter_matches(topic_filter, topic_name)
            ]
            if granted:
                device.allowed.add(payload)
                if due and min(publish.qos, max(granted)) > 0:
                    device.due[payload] = min(publish.qos, max(granted))

    def connect(self, device: Device, will_delay_s: int = 0) -> None:
        self.count += 1
        device.will = b"will %d" % self.count
        device.will_delay_s = will_delay_s
        device.will_due_ms = None
        for publish in device.connect(self.shore):
            self.expect(publish, due=False)

    def send_wills(self) -> None:
        """Have the model send the wills that are due by now."""
        now_ms = self.shore.runtime.now_ms()
        for device in self.devices.values():
            if device.will_due_ms is not None and device.will_due_ms <= now_ms:
                device.will_due_ms = None
                self.wills_sent.add(device.will)
                self.expect(Publish(b"w", device.will, 1), due=True)

    def die_while(self, device: Device, publish: Publish, written: int) -> None:
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
        try:
            assert device.link is not None
            device.link.send(publish)
        except PowerOff:
            pass
        del log.flush
        self.crash(reading=0)

    @rule(name=st.sampled_from(DEVICES), count=st.integers(1, 9))
    def read(self, name: str, count: int) -> None:
        if self.devices[name].link is not None:
            self.devices[name].read(99 if count > 4 else count)

    @rule(name=st.sampled_from(DEVICES))
    def lose(self, name: str) -> None:
        device = self.devices[name]
        if device.link is not None:
            device.link.lose()
            device.link = None
            lost_ms = self.shore.runtime.now_ms()
            device.will_due_ms = lost_ms + 1000 * device.will_delay_s
            self.send_wills()

    @rule(name=st.sampled_from(DEVICES), will_delay_s=st.sampled_from([0, 20, 50, 2000]))
    def reconnect(self, name: str, will_delay_s: int) -> None:
        if self.devices[name].link is None:
            self.connect(self.devices[name], will_delay_s)

    # --- what becomes of the server -----------------------------------------------------------

    def restart(self, again: Any, reading: int) -> None:
        connected = self.lose_links(self.devices.values(), again, reading)
        grace_end_ms = self.shore.runtime.now_ms() + GRACE_MS
        for device in self.devices.values():
            if device.will_due_ms is not None:
                device.will_due_ms = max(device.will_due_ms, grace_end_ms)
        for device in connected:
            self.connect(device, device.will_delay_s)

    @rule(ms=st.sampled_from([20_000, 60_000]))
    def wait(self, ms: int) -> None:
        if self.passed_ms < 800_000:
            self.passed_ms += ms
            self.shore.runtime.advance(ms)
            self.send_wills()

    # --- the promises -------------------------------------------------------------------------

    @invariant()
    def nobody_gets_what_they_did_not_subscribe_to(self) -> None:
        for device in self.devices.values():
            assert {payload for _, payload, _ in device.got} <= device.allowed

    @invariant()
    def qos_2_comes_once_and_in_order(self) -> None:
        for device in self.devices.values():
            for topic_name in ("t/1", "t/2", "u"):
                for qos in (1, 2):
                    place = (topic_name, qos)
                    got = [one[1] for one in device.got if (one[0], one[2]) == place]
                    first = list(dict.fromkeys(got))
                    if qos == 2:
                        assert got == first
                    # The repetition of an earlier publish may be the first that was matched.
                    numbers = [self.order[one] for one in first if device.due.get(one) == qos]
                    assert numbers == sorted(numbers)

    def teardown(self) -> None:
        for device in self.devices.values():
            if device.link is None:
                self.connect(device)
        while sum(device.read(99) for device in self.devices.values()):
            pass
        for device in self.devices.values():
            assert not device.sending
            got = {(payload, qos) for _, payload, qos in device.got}
            assert device.due.items() <= got
        self.nobody_gets_what_they_did_not_subscribe_to()
        self.qos_2_comes_once_and_in_order()
        stored = [record.value for record in self.shore.records("mqtt")]
        wills = [value for value in stored if value.startswith(b"will")]
        assert sorted(wills) == sorted(self.wills_sent)
        for name in DEVICES:
            for payload, qos in self.devices[name].due.items():
                assert qos < 2 or stored.count(payload) == 1


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
