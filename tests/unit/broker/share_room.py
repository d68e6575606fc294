"""Members of a shared subscription, turned by hand."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.broker.shore import Client, Shore

from isthmus.mqtt.packets import PUBACK, PUBCOMP, PUBREC, Ack, Publish

STRATEGIES = pytest.mark.parametrize("strategy", ["fair", "sticky", "hash"])
GROUP = "$share/g/t/#"


def members(shore: Shore, count: int, qos: int = 1, **connect: Any) -> list[Client]:
    """Connect clients `m0`, `m1`, … and let them share `t/#`."""
    clients = [shore.client(f"m{number}", **connect) for number in range(count)]
    for client in clients:
        client.subscribe(GROUP, qos)
        client.packets()
    return clients


def publish(shore: Shore, *payloads: bytes, qos: int = 1, topic_name: str = "t/1") -> None:
    for payload in payloads:
        shore.broker.publish(None, Publish(topic_name.encode(), payload, qos))
        shore.runtime.settle()


def take(
    client: Client, packets: list[Any] | None = None, *, ack: bool = True
) -> list[Publish]:
    """Return the messages that have come; acknowledged, those at QoS 2 in full."""
    found = [
        packet
        for packet in (client.packets() if packets is None else packets)
        if isinstance(packet, Publish)
    ]
    for packet in found if ack else ():
        if packet.qos == 1:
            client.send(Ack(PUBACK, packet.packet_id))
        elif packet.qos == 2:
            client.send(Ack(PUBREC, packet.packet_id))
            client.send(Ack(PUBCOMP, packet.packet_id))
    return found


def payloads(packets: list[Publish]) -> list[bytes]:
    return [packet.payload for packet in packets]


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%03d" % number for number in range(start, start + count)]


def again(shore: Shore, client_id: str, **connect: Any) -> Client:
    """Connect a client whose session is there."""
    client = Client(shore, client_id, 5)
    assert client.connect(clean_start=False, **{"expiry_s": 100, **connect}).session_present
    return client
