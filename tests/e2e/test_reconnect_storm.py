"""Very many clients that come back at once: each gets all that waits, and nobody else waits."""

from __future__ import annotations

import contextlib
import selectors
import threading
from typing import TYPE_CHECKING

from tests.e2e.patience import TIMEOUT_S
from tests.e2e.raw_mqtt import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    SUBACK,
    Packet,
    RawMqtt,
    ack,
    connect,
    packet,
    publish,
    raw_session,
    split,
    subscribe,
)

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

CLIENTS = 300
MESSAGES = 40  # that wait for each
LASTING = {"clean": False, "session_expiry_s": 600}


def leave_sessions(shores: Shores, unique: str) -> None:
    """Have clients come, subscribe and go; then publish what waits for them."""
    for number in range(CLIENTS):
        with raw_session(shores.mqtt, f"{unique}-{number}", **LASTING) as session:
            session.send(subscribe(1, f"{unique}/{number}/+", 1))
            session.expect(SUBACK)
    with raw_session(shores.mqtt, unique) as publisher:
        for message in range(MESSAGES):
            publisher.send(
                *[
                    publish(
                        f"{unique}/{number}/x", b"%d" % message, qos=1, packet_id=number + 1
                    )
                    for number in range(CLIENTS)
                ]
            )
            for _ in range(CLIENTS):
                publisher.expect(PUBACK)


class Returning:
    """A client that is back, and acknowledges what comes."""

    def __init__(self, shores: Shores, client_id: str) -> None:
        self.connection = RawMqtt(shores.mqtt)
        self.connection.send(connect(client_id, **LASTING))
        self.payloads: list[bytes] = []
        self._received = bytearray()
        self._is_in = False

    def read(self) -> bool:
        """Take what is there; True once all messages are."""
        data = self.connection.socket.recv(1 << 16)
        assert data, "the server has closed the connection"
        self._received += data
        while (one := split(self._received)) is not None:
            self._take(one)
        return len(self.payloads) == MESSAGES

    def _take(self, one: Packet) -> None:
        if not self._is_in:
            assert one.kind == CONNACK
            assert one.body[:2] == b"\1\0"  # the session is present
            self._is_in = True
            return
        assert one.kind == PUBLISH
        assert not one.dup
        self.payloads.append(one.payload())
        self.connection.send(ack(PUBACK, one.packet_id))


class Bystander(threading.Thread):
    """Sends itself one message after the other, from before the storm until it is over."""

    def __init__(self, shores: Shores, topic_name: str) -> None:
        super().__init__()
        self.connection = RawMqtt(shores.mqtt)
        self.connection.open(topic_name)
        self.connection.send(subscribe(1, topic_name, 0))
        self.connection.expect(SUBACK)
        self.count = 0
        self.is_over = threading.Event()
        self.is_served = False  # to the end
        self._topic_name = topic_name

    def run(self) -> None:
        while not self.is_over.is_set():
            payload = b"%d" % self.count
            self.connection.send(publish(self._topic_name, payload))
            assert self.connection.expect(PUBLISH).payload() == payload
            self.count += 1
        self.is_served = True


def test_all_that_come_back_at_once_get_what_waits_for_them(
    shores: Shores, unique: str
) -> None:
    """[MQTT-4.4.0-1, MQTT-4.6.0-5] And somebody who is there is served meanwhile."""
    leave_sessions(shores, unique)
    bystander = Bystander(shores, f"{unique}-bystander")
    bystander.start()
    with contextlib.ExitStack() as stack:
        stack.callback(bystander.connection.cut)
        clients = [Returning(shores, f"{unique}-{number}") for number in range(CLIENTS)]
        served = bystander.count
        with selectors.DefaultSelector() as selector:
            for client in clients:
                stack.callback(client.connection.cut)
                selector.register(client.connection.socket, selectors.EVENT_READ, client)
            while selector.get_map():
                ready = selector.select(TIMEOUT_S)
                assert ready, f"{len(selector.get_map())} clients wait for their messages"
                for key, _ in ready:
                    if key.data.read():
                        selector.unregister(key.fileobj)
        bystander.is_over.set()
        bystander.join(TIMEOUT_S)
        assert bystander.is_served
        assert bystander.count > served
        expected = [b"%d" % message for message in range(MESSAGES)]
        assert [client.payloads for client in clients] == [expected] * CLIENTS
        for client in clients:
            client.connection.send(
                packet(DISCONNECT, b"\0\5\x11" + bytes(4))
            )  # and its session
