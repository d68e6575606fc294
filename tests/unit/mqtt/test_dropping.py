"""Deliveries that a session gives up: which of them, and as what they are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.mqtt.test_session import LOG, Client

from isthmus.mqtt.packets import PUBACK, Ack, Publish
from isthmus.mqtt.session import EXPIRED


@pytest.fixture(params=[4, 5])
def client(request: pytest.FixtureRequest) -> Client:
    client = Client(request.param)
    client.attach()
    return client


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("newest", b"\0\1\2"), ("oldest", b"\2\3\4"), ("disconnect", b"\0\1\2")],
)
def test_what_exceeds_the_queue_is_dropped_and_counted(policy: str, kept: bytes) -> None:
    client = Client(queue_max=3, queue_policy=policy)
    client.attach()
    client.session.detach()
    for number in range(5):
        client.deliver(bytes([number]), 1)
    assert client.session.dropped.queue == client.session.dropped.total == 2
    assert client.overflows == 0  # there is nobody to disconnect
    queue = client.session.queue
    assert (queue.pushed - queue.length, queue.length) == (
        (2, 3) if policy == "oldest" else (0, 3)
    )
    client.attach()
    assert b"".join(packet[0] for packet in client.received()) == kept


def test_a_connection_whose_queue_is_full_is_to_be_ended() -> None:
    client = Client(queue_max=2, queue_policy="disconnect")
    client.attach(window=1)
    for number in range(5):
        assert client.overflows == max(0, number - 3)
        client.deliver(bytes([number]), 1)
    assert client.overflows == client.session.dropped.queue == 2


@pytest.mark.parametrize("policy", ["newest", "oldest", "disconnect"])
def test_no_message_waits_where_none_may(policy: str) -> None:
    client = Client(queue_max=0, queue_policy=policy)
    client.attach(window=1)
    client.deliver(b"one", 1)
    client.deliver(b"two", 1)
    assert client.session.queue.length == 0
    assert client.session.dropped.queue == 1


def test_the_oldest_retained_message_is_not_dropped_for_newer_ones() -> None:
    client = Client(queue_max=2, queue_policy="oldest")
    client.attach(window=1)
    client.log = [Publish(b"t", b"in flight", 1), Publish(b"t", b"retained", 1)]
    client.session.deliver(client.log[0], 1, False, b"", LOG, 0)
    client.session.queue.push(LOG, 1, 1, True, b"")
    for payload in (b"a", b"b"):
        client.deliver(payload, 1)
    assert client.session.dropped.queue == 1
    client.session.receive_ack(Ack(PUBACK, 1))
    client.session.receive_ack(Ack(PUBACK, 2))
    assert [packet[0] for packet in client.received()] == [b"in flight", b"retained", b"a"]


def test_the_oldest_may_be_on_its_way_from_the_disk_when_it_is_dropped() -> None:
    client = Client(queue_max=2, queue_policy="oldest")
    client.attach()
    client.session.detach()
    for number in range(2):
        client.deliver(bytes([number]), 1)
    client.cold = {0}
    client.attach()
    client.deliver(b"\2", 1)
    client.session.recalling = False
    client.session.drain()
    assert [packet[0] for packet in client.received()] == [b"\1", b"\2"]


@pytest.mark.parametrize("queue_qos_0", [True, False])
def test_qos_0_waits_for_a_slow_client_where_it_may(*, queue_qos_0: bool) -> None:
    client = Client(queue_qos_0=queue_qos_0)
    client.attach()
    client.session.paused = True
    client.deliver(b"zero", 0)
    client.deliver(b"one", 1)
    client.session.paused = False
    client.session.drain()
    expected = [b"zero", b"one"] if queue_qos_0 else [b"one"]
    assert [packet[0] for packet in client.received()] == expected
    assert client.session.dropped.queue == client.session.dropped.total == 2 - len(expected)


def test_what_waits_at_qos_0_is_forgotten_with_the_connection(client: Client) -> None:
    client.session.paused = True
    client.deliver(b"zero", 0)
    client.deliver(b"one", 1)
    client.session.detach()
    assert client.session.dropped.offline == client.session.dropped.total == 1


@pytest.mark.parametrize("lost", [None, EXPIRED])
def test_a_message_that_is_not_to_be_had_is_skipped_and_counted(
    client: Client, lost: Publish | None
) -> None:
    client.session.detach()
    client.deliver(b"one", 1)
    client.deliver(b"two", 1)
    client.log[0] = lost
    client.attach()
    assert [packet[0] for packet in client.received()] == [b"two"]
    drops = client.session.dropped
    assert (drops.gone, drops.expired) == ((1, 0) if lost is None else (0, 1))
    assert drops.total == 1


class Model:
    """What is to become of deliveries, said plainly; window and queue are very short."""

    window, queue_max = 2, 3

    def __init__(self, policy: str, *, queue_qos_0: bool) -> None:
        self.policy, self.queue_qos_0 = policy, queue_qos_0
        self.connected, self.paused = True, False
        self.queue: list[tuple[bytes, int]] = []
        self.inflight: list[bytes] = []
        self.sent: list[bytes] = []
        self.full = self.offline = self.overflows = 0

    def deliver(self, payload: bytes, qos: int) -> None:
        if qos == 0 and not self.connected:
            self.offline += 1
            return
        if self.connected and not self.paused and not self.queue and self.has_room(qos):
            self.queue.append((payload, qos))
            self.drain()
            return
        if len(self.queue) == self.queue_max or (qos == 0 and not self.queue_qos_0):
            self.full += 1
            if qos == 0 and not self.queue_qos_0:
                return
            if self.policy != "oldest":
                self.overflows += self.policy == "disconnect" and self.connected
                return
            self.queue.pop(0)
        self.queue.append((payload, qos))

    def has_room(self, qos: int) -> bool:
        return qos == 0 or len(self.inflight) < self.window

    def drain(self) -> None:
        while (
            self.queue
            and self.connected
            and not self.paused
            and self.has_room(self.queue[0][1])
        ):
            payload, qos = self.queue.pop(0)
            self.sent.append(payload)
            self.inflight += [payload] if qos else []

    def lose(self) -> None:
        kept = [one for one in self.queue if one[1]]
        self.offline += len(self.queue) - len(kept)
        self.queue, self.connected, self.paused = kept, False, False


@given(
    st.sampled_from(["newest", "oldest", "disconnect"]),
    st.booleans(),
    st.lists(st.sampled_from(["zero", "one", "one", "ack", "pause", "go on", "lose", "back"])),
)
def test_any_history_of_a_short_queue(policy: str, queue_qos_0: bool, steps: list[str]) -> None:
    client = Client(queue_max=Model.queue_max, queue_policy=policy, queue_qos_0=queue_qos_0)
    model = Model(policy, queue_qos_0=queue_qos_0)
    client.attach(window=Model.window)
    session, got = client.session, []
    ids: list[int] = []
    for number, step in enumerate(steps):
        payload = b"%d" % number
        if step in ("zero", "one"):
            client.deliver(payload, int(step == "one"))
            model.deliver(payload, int(step == "one"))
        elif step == "ack" and model.connected and ids:
            session.receive_ack(Ack(PUBACK, ids.pop(0)))
            model.inflight.pop(0)
            model.drain()
        elif step in ("pause", "go on") and model.connected:
            session.paused = model.paused = step == "pause"
            session.drain()
            model.drain()
        elif step == "lose" and model.connected:
            session.detach()
            model.lose()
        elif step == "back" and not model.connected:
            client.attach(window=Model.window)
            model.connected = True
            model.sent += model.inflight
            model.drain()
        for arrived, qos, packet_id, _ in client.received():
            got.append(arrived)
            if qos and packet_id not in ids:
                ids.append(packet_id)
        assert got == model.sent
    drops = session.dropped
    assert (drops.queue, drops.offline, drops.total) == (
        model.full,
        model.offline,
        model.full + model.offline,
    )
    assert client.overflows == model.overflows
    assert session.queue.length == len(model.queue)
