"""Mosquitto as a bridge to the server, by its own `connection` configuration."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.mqtt_programs import Inbox
    from tests.e2e.server_process import Address, ServerProcess

pytestmark = [
    pytest.mark.usefixtures("own_process"),
    pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto not installed"),
]

CONFIGURATION = """
listener {port} 127.0.0.1
allow_anonymous true
log_dest stderr
connection up
address 127.0.0.1:{remote}
bridge_protocol_version {version}
remote_clientid {name}
topic {name}/# both 1
"""


@contextmanager
def bridge(server: Address, directory: Path, version: str, name: str) -> Iterator[Address]:
    """Run a Mosquitto that shares all under `name/` with the server; return its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = directory / "mosquitto.conf"
    values = {"port": port, "remote": server[1], "version": version, "name": name}
    file.write_text(CONFIGURATION.format(**values), "utf-8")
    process = subprocess.Popen(["mosquitto", "-c", str(file)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), lambda: "a listening Mosquitto")
        yield ("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv50"])
def test_a_bridge_carries_each_message_once_in_both_directions(
    version: str, start_server: Callable[..., ServerProcess], tmp_path: Path, unique: str
) -> None:
    """[MQTT 3.1.1: MQTT-7.0.0-1]"""
    server = start_server()
    with (
        bridge(server.mqtt, tmp_path, version, unique) as address,
        paho_client(server.mqtt) as here,
        paho_client(address) as there,
    ):
        wait_until(
            lambda: any(f"client={unique} " in line for line in server.log_lines()),
            lambda: "the bridge's connection",
        )
        inboxes = [paho_subscribe(client, f"{unique}/#") for client in (here, there)]
        # the bridge's own SUBSCRIBE may still be on its way: try until one has passed
        passed: list[Message] = []

        def is_open() -> bool:
            passed.append(Message(f"{unique}/open", b"%d" % len(passed)))
            paho_publish(here, passed[-1:])
            return any(one.topic_name == f"{unique}/open" for one in inboxes[1].wait(0))

        wait_until(is_open, lambda: "a message through the bridge")
        paho_publish(here, [Message(f"{unique}/down", b"%d" % n) for n in range(20)])
        paho_publish(there, [Message(f"{unique}/up", b"%d" % n) for n in range(20)])
        for inbox in inboxes:
            wait_until(
                lambda inbox=inbox: len(payloads(inbox, "down", "up")) >= 40,
                lambda inbox=inbox: f"40 messages, not {payloads(inbox, 'down', 'up')},",
            )
        paho_publish(here, [Message(f"{unique}/end", b"")])
        wait_until(lambda: payloads(inboxes[1], "end") != [], lambda: "the last message")
        for inbox in inboxes:
            for name in ("down", "up"):
                assert payloads(inbox, name) == [b"%d" % n for n in range(20)]
    assert not any("connection closed" in line for line in server.log_lines())


def payloads(inbox: Inbox, *names: str) -> list[bytes]:
    """Return what has come so far under these names."""
    return [
        message.payload
        for message in inbox.wait(0)
        if message.topic_name.rpartition("/")[2] in names
    ]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv50"])
def test_a_bridge_tells_how_it_is(
    version: str, start_server: Callable[..., ServerProcess], tmp_path: Path, unique: str
) -> None:
    """In the server's own `$SYS`, retained: when it connects, and by its will."""
    server = start_server()
    names = "$SYS/broker/connection/+/state"
    with paho_client(server.mqtt) as watcher:
        inbox = paho_subscribe(watcher, names)

        def states() -> list[bytes]:
            return [message.payload for message in inbox.wait(0)]

        with bridge(server.mqtt, tmp_path, version, unique):
            wait_until(lambda: b"1" in states(), lambda: f"a bridge that is up: {states()}")
            with paho_client(server.mqtt) as late:
                (message,) = paho_subscribe(late, names).wait(1)
                assert (message.payload, message.retain) == (b"1", True)
        wait_until(lambda: states()[-1] == b"0", lambda: f"a bridge that is down: {states()}")
    assert not any("publish refused" in line for line in server.log_lines())
