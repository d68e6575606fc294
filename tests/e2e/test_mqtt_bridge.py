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
from tests.e2e.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from paho.mqtt.client import Client
    from tests.e2e.mqtt_programs import Inbox
    from tests.e2e.server_process import Address, ServerProcess

    Start = Callable[..., ServerProcess]

pytestmark = [
    pytest.mark.usefixtures("own_process"),
    pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto not installed"),
]

CONFIGURATION = """
listener {port} 127.0.0.1
allow_anonymous true
log_dest stderr
persistence true
persistence_location {directory}/
connection up
address 127.0.0.1:{remote}
bridge_protocol_version {version}
remote_clientid {name}
restart_timeout 1 1
{more}
"""


class Mosquitto:
    """A Mosquitto with a connection to a server; it may be ended and started again."""

    def __init__(
        self, remote: Address, directory: Path, version: str, name: str, *more: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address: Address = ("127.0.0.1", free.getsockname()[1])
        directory.chmod(0o777)  # it becomes another user where it can
        self._file = directory / "mosquitto.conf"
        values = {"port": self.address[1], "remote": remote[1], "directory": directory}
        text = CONFIGURATION.format(version=version, name=name, more="\n".join(more), **values)
        self._file.write_text(text, "utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["mosquitto", "-c", str(self._file)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self._answers, lambda: "a listening Mosquitto")

    def _answers(self) -> bool:
        try:
            socket.create_connection(self.address, TIMEOUT_S).close()
        except ConnectionRefusedError:
            return False
        return True

    def end(self, *, at_once: bool = False) -> None:
        assert self._process is not None
        if at_once:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(TIMEOUT_S)
        self._process = None

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_reason: object) -> None:
        if self._process is not None:
            self.end()


def payloads(inbox: Inbox, *names: str) -> list[bytes]:
    """Return what has come so far under these names."""
    return [
        message.payload
        for message in inbox.wait(0)
        if message.topic_name.rpartition("/")[2] in names
    ]


def open_bridge(here: Client, there: Inbox, topic_name: str) -> None:
    """Return once the bridge's own SUBSCRIBE is there: try until a message has passed."""

    def has_passed() -> bool:
        paho_publish(here, [Message(topic_name, b"")])
        return any(one.topic_name == topic_name for one in there.wait(0))

    wait_until(has_passed, lambda: "a message through the bridge")


@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv50"])
def test_a_bridge_carries_each_message_once_in_both_directions(
    version: str, start_server: Start, tmp_path: Path, unique: str
) -> None:
    """[MQTT 3.1.1: MQTT-7.0.0-1]"""
    server = start_server()
    topic = f"topic {unique}/# both 1"
    with (
        Mosquitto(server.mqtt, tmp_path, version, unique, topic) as mosquitto,
        paho_client(server.mqtt) as here,
        paho_client(mosquitto.address) as there,
    ):
        inboxes = [paho_subscribe(client, f"{unique}/#") for client in (here, there)]
        open_bridge(here, inboxes[1], f"{unique}/open")
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


def test_a_bridge_is_sent_no_more_at_one_time_than_it_can_hold(
    start_server: Start, tmp_path: Path, unique: str
) -> None:
    """[MQTT 3.1.1: MQTT-4.3.3-1] Mosquitto 2.0.11 loses what is beyond its 20 in flight."""
    server = start_server()
    topic = f"topic {unique}/# in 2"
    with (
        Mosquitto(server.mqtt, tmp_path, "mqttv311", unique, topic) as mosquitto,
        paho_client(server.mqtt) as here,
        paho_client(mosquitto.address) as there,
    ):
        inbox = paho_subscribe(there, f"{unique}/#", qos=0)
        open_bridge(here, inbox, f"{unique}/open")
        numbers = [b"%d" % number for number in range(2_000)]
        paho_publish(here, [Message(f"{unique}/down", number, 2) for number in numbers])
        paho_publish(here, [Message(f"{unique}/end", b"", 2)])
        wait_until(lambda: payloads(inbox, "end") != [], lambda: "the last message")
        assert payloads(inbox, "down") == numbers


def test_a_bridge_outlives_its_line_and_both_ends(
    start_server: Start, tmp_path: Path, unique: str
) -> None:
    """At QoS 2 each message comes once, whatever breaks meanwhile.

    From here to Mosquitto they come in order too. The other way Mosquitto sends what it is
    given while it connects before what has waited (seen with 2.0.11): no order is asked for.

    A bridge that does not say that it is one (`try_private`), and has topics for each way. Not
    in MQTT 5: there Mosquitto asks for no session that outlives its connection.
    """
    server = start_server()
    more = [
        "try_private false",
        f"topic up/# out 2 {unique}/ {unique}/",
        f"topic down/# in 2 {unique}/ {unique}/",
    ]
    with (
        Relay() as relay,
        Mosquitto(relay.address, tmp_path, "mqttv311", unique, *more) as mosquitto,
    ):
        relay.target = server.mqtt
        with paho_client(server.mqtt) as here, paho_client(mosquitto.address) as there:
            open_bridge(here, paho_subscribe(there, f"{unique}/down/#"), f"{unique}/down/open")
        sent = 0

        def carried(break_something: Callable[[], None]) -> None:
            """Publish on both sides, break something in the middle, and see all arrive."""
            nonlocal sent
            numbers = range(sent, sent + 20)
            sent += 20
            with ends(server, mosquitto, unique) as (here, there, arrived_here, arrived_there):
                first, second = numbers[:10], numbers[10:]
                for some in (first, second):
                    paho_publish(here, messages(f"{unique}/down/x", some))
                    paho_publish(there, messages(f"{unique}/up/x", some))
                    if some is first:
                        break_something()
                for inbox in (arrived_here, arrived_there):
                    wait_until(
                        lambda inbox=inbox: len(inbox.wait(0)) >= 20,
                        lambda inbox=inbox: f"20 messages, not {len(inbox.wait(0))},",
                    )
                    arrived = [int(one.payload) for one in inbox.stays_at(20, 0.1)]
                    if inbox is arrived_here:
                        arrived.sort()
                    assert arrived == list(numbers)

        carried(lambda: None)
        carried(relay.cut)
        server.terminate()
        server.start()
        carried(lambda: None)
        mosquitto.end()
        mosquitto.start()
        carried(lambda: None)


def messages(topic_name: str, numbers: range) -> list[Message]:
    return [Message(topic_name, b"%d" % number, 2) for number in numbers]


@contextmanager
def ends(
    server: ServerProcess, mosquitto: Mosquitto, unique: str
) -> Iterator[tuple[Client, Client, Inbox, Inbox]]:
    """Hold a client on each side of the bridge, with what arrives there from the other."""
    with paho_client(server.mqtt) as here, paho_client(mosquitto.address) as there:
        arrived_here = paho_subscribe(here, f"{unique}/up/#", qos=2)
        arrived_there = paho_subscribe(there, f"{unique}/down/#", qos=2)
        yield here, there, arrived_here, arrived_there


def test_a_bridge_says_whether_it_is_there(
    start_server: Start, tmp_path: Path, unique: str
) -> None:
    """Its notifications are a retained message, and a will."""
    server = start_server()
    more = [f"notification_topic {unique}/state", f"topic {unique}/# out 1"]
    with (
        paho_client(server.mqtt) as here,
        Mosquitto(server.mqtt, tmp_path, "mqttv311", unique, *more) as mosquitto,
    ):
        inbox = paho_subscribe(here, f"{unique}/state")
        wait_until(
            lambda: [one.payload for one in inbox.wait(0)][-1:] == [b"1"], lambda: "a bridge"
        )
        mosquitto.end(at_once=True)
        wait_until(
            lambda: [one.payload for one in inbox.wait(0)][-1:] == [b"0"], lambda: "its will"
        )
        assert paho_subscribe(here, f"{unique}/#").wait(1)[0].retain
