"""Automatic subscriptions, with real clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.raw_client import RawClient, ack
from tests.e2e.mqtt_programs import (
    Message,
    MosquittoPrograms,
)
from tests.e2e.raw_mqtt import PUBACK
from tests.e2e.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """
[[mqtt.auto_subscribe]]
filter = "devices/%c/commands"
qos = 1

[[mqtt.auto_subscribe]]
filter = "news/#"
retained = false
"""


@pytest.fixture(scope="module")
def server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Return the module's server, with rules."""
    server = ServerProcess(tmp_path_factory.mktemp("server"), config=CONFIG)
    server.start()
    yield server
    server.stop()


def test_a_new_session_has_its_subscriptions(server: ServerProcess, unique: str) -> None:
    programs = MosquittoPrograms()
    programs.publish(server.mqtt, [Message(f"devices/{unique}/commands", b"0", retain=True)])
    programs.publish(server.mqtt, [Message(f"news/{unique}", b"old", retain=True)])
    device = RawClient(server.mqtt, 4)
    device.open(unique, clean=False)
    commands = [device.message()]
    assert device.messages() == []  # what is retained of the news is not wanted
    programs.publish(server.mqtt, [Message(f"devices/{unique}/commands", b"1")])
    commands.append(device.message())
    programs.publish(server.mqtt, [Message(f"news/{unique}", b"new")])
    assert (device.message().payload, [one.payload for one in commands]) == (
        b"new",
        [b"0", b"1"],
    )
    device.send(*[ack(PUBACK, one.packet_id) for one in commands])
    device.unsubscribe(f"devices/{unique}/commands")
    device.cut()
    device = RawClient(server.mqtt, 4)
    assert device.open(unique, clean=False).session_present
    programs.publish(server.mqtt, [Message(f"devices/{unique}/commands", b"2")])
    programs.publish(server.mqtt, [Message(f"news/{unique}", b"newer")])
    assert device.message().payload == b"newer"  # it has stayed unsubscribed
    device.cut()


def test_a_client_id_is_no_wildcard(server: ServerProcess, unique: str) -> None:
    for client_id in ("#", "+", f"{unique}/commands/#"):
        client = RawClient(server.mqtt)
        client.open(client_id)
        MosquittoPrograms().publish(
            server.mqtt, [Message(f"devices/{unique}/commands", b"secret")]
        )
        assert client.messages() == []
        client.cut()
