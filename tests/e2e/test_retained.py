"""Thousands of retained messages, and subscribers of every speed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.e2e.mqtt_programs import (
    Inbox,
    Message,
    MosquittoPrograms,
    message_of,
    paho_client,
    paho_publish,
    paho_subscribe,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.client import Client, MQTTMessage
    from tests.e2e.server_process import ServerProcess

COUNT = 4_000
QUEUE_LENGTH_MAX = 20
FEW = 10  # a session's deliveries without acknowledgement


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """Return a server with short queues and thousands of retained messages."""
    limits = {"mqtt.queue_length_max": QUEUE_LENGTH_MAX, "mqtt.inflight_max": FEW}
    server = start_server(settings=limits)
    with paho_client(server.mqtt) as client:
        paho_publish(client, kept())
    return server


def kept() -> list[Message]:
    return [
        Message(f"fleet/{number % 50}/{number}", b"%d" % number, number % 2, True)
        for number in range(COUNT)
    ]


def assert_all_came(inbox: Inbox) -> None:
    """Each message came once, with RETAIN set, at its own QoS."""
    assert sorted(map(repr, inbox.wait(COUNT))) == sorted(map(repr, kept()))


def test_a_slow_subscriber_gets_every_one(server: ServerProcess) -> None:
    """It takes its time for each message, so that all the others wait at the server."""
    inbox = Inbox()

    def take(_client: Client, _data: object, arrived: MQTTMessage) -> None:
        time.sleep(0.0002)
        inbox.put(message_of(arrived))

    def prepare(client: Client) -> None:
        client.on_message = take

    with paho_client(server.mqtt, prepare=prepare) as client:
        client.subscribe("fleet/#", 1)
        with paho_client(server.mqtt) as other:  # who is served meanwhile
            quick = paho_subscribe(other, "fleet/7/7", 1)
            assert quick.wait(1)[0].payload == b"7"
        assert_all_came(inbox)


def test_mosquitto_sub_gets_every_one(server: ServerProcess) -> None:
    program = MosquittoPrograms()
    if program.missing():
        pytest.skip(program.missing())
    with program.subscribe(server.mqtt, "fleet/#", 1) as inbox:
        assert_all_came(inbox)
