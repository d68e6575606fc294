"""The MQTT clients that the server is tried with, behind one shape: paho-mqtt and Mosquitto's.

Each program publishes a list of messages and returns when the server has acknowledged them,
and each holds a subscription whose messages arrive in an `Inbox`. Nobody here wrote these
clients; what differs between them (processes, threads, encodings of binary payloads) ends in
this file, and for those that are told what to do in `mqtt_scripted.py`, where the list is.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from uuid import uuid4

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.e2e.patience import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.e2e.server_process import Address

CLIENTS: Final = Path(__file__).parent / "clients"
PACKET_IDS_AT_ONCE: Final = 20_000
"""Of 65,535: more paho refuses, and mosquitto_pub takes one that wrapped for the last."""

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Message:
    """One application message, as it is published or as it arrives."""

    topic_name: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    user_properties: Pairs = ()


class Inbox:
    """The messages that arrived at one subscription, in order of arrival."""

    def __init__(self) -> None:
        self.arrived_at_s: list[float] = []
        """When each message came, on the monotonic clock."""
        self._arrived: list[Message] = []

    def put(self, message: Message) -> None:
        """Take one more message, from any thread."""
        self.arrived_at_s.append(time.monotonic())
        self._arrived.append(message)

    def wait(self, count: int) -> list[Message]:
        """Return everything that arrived once there are `count` messages, or fail."""
        wait_until(
            lambda: len(self._arrived) >= count,
            lambda: f"{count} messages, of which {len(self._arrived)} came,",
        )
        return list(self._arrived)

    def stays_at(self, count: int, for_s: float = 0.3) -> list[Message]:
        """Return everything that arrived if no more than `count` come within a while."""
        time.sleep(for_s)
        assert len(self._arrived) == count, f"unexpected: {self._arrived[count:]}"
        return list(self._arrived)


class MqttProgram(Protocol):
    """A client program: how to publish and subscribe with it."""

    name: str
    user_properties: bool
    many_topic_names: bool
    """Whether one run of it can publish under more than one topic name."""

    def missing(self) -> str:
        """Return why the program cannot run here, or the empty string."""

    def publish(self, server: Address, messages: Sequence[Message]) -> None:
        """Publish in order and return when everything is acknowledged."""

    def subscribe(
        self, server: Address, topic_filter: str, qos: int = 1
    ) -> contextlib.AbstractContextManager[Inbox]:
        """Hold a subscription, acknowledged by the server, while the context lasts."""


# --- paho-mqtt -------------------------------------------------------------------------------


def user_property_of(pairs: Pairs, packet_type: int = PacketTypes.PUBLISH) -> Properties | None:
    """Return paho's form of user properties, or nothing where there are none."""
    if not pairs:
        return None
    properties = Properties(packet_type)
    properties.UserProperty = list(pairs)
    return properties


def message_of(arrived: MQTTMessage) -> Message:
    """Return a paho message in our form."""
    pairs = getattr(arrived.properties, "UserProperty", []) if arrived.properties else []
    return Message(arrived.topic, arrived.payload, arrived.qos, arrived.retain, tuple(pairs))


@contextlib.contextmanager
def paho_client(
    server: Address,
    client_id: str = "",
    *,
    version: int = MQTTv5,
    prepare: Callable[[Client], object] = lambda client: None,
    transport: Literal["tcp", "websockets", "unix"] = "tcp",
    **connect: Any,
) -> Iterator[Client]:
    """Hold a connected paho client with its network thread; `prepare` runs before CONNECT."""
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id or f"paho-{uuid4().hex}",
        protocol=version,
        transport=transport,
    )
    client.max_inflight_messages_set(100)  # it looks through them at every PUBACK
    client.max_queued_messages_set(0)
    connected = threading.Event()
    refused: list[str] = []

    def on_connect(_client: Client, _data: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            refused.append(str(reason))
        connected.set()

    client.on_connect = on_connect
    prepare(client)
    client.connect(*server, **connect)
    client.loop_start()
    try:
        assert connected.wait(TIMEOUT_S), "no CONNACK"
        assert not refused, refused
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def paho_subscribe(client: Client, topic_filter: str, qos: int = 1, **options: Any) -> Inbox:
    """Subscribe a connected client and return its inbox once SUBACK has come."""
    inbox, granted = Inbox(), threading.Event()
    client.on_message = lambda _client, _data, arrived: inbox.put(message_of(arrived))
    client.on_subscribe = lambda *_arguments: granted.set()
    client.subscribe(topic_filter, qos, **options)
    assert granted.wait(TIMEOUT_S), "no SUBACK"
    return inbox


def paho_publish(client: Client, messages: Sequence[Message]) -> None:
    """Publish in order with a connected client; return when the last is acknowledged."""
    for start in range(0, len(messages), PACKET_IDS_AT_ONCE):
        sent = [
            client.publish(
                message.topic_name,
                message.payload,
                message.qos,
                message.retain,
                user_property_of(message.user_properties),
            )
            for message in messages[start : start + PACKET_IDS_AT_ONCE]
        ]
        for number, info in enumerate(sent, start):
            info.wait_for_publish(TIMEOUT_S)
            assert info.is_published(), f"publish {number} is not acknowledged"


class Paho:
    """paho-mqtt, one protocol version."""

    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.user_properties = version == MQTTv5
        self.many_topic_names = True
        self._version = version

    def missing(self) -> str:
        return ""

    def publish(self, server: Address, messages: Sequence[Message]) -> None:
        with paho_client(server, version=self._version) as client:
            paho_publish(client, messages)

    @contextlib.contextmanager
    def subscribe(self, server: Address, topic_filter: str, qos: int = 1) -> Iterator[Inbox]:
        with paho_client(server, version=self._version) as client:
            yield paho_subscribe(client, topic_filter, qos)


# --- mosquitto_pub and mosquitto_sub ---------------------------------------------------------


class MosquittoPrograms:
    """The command line programs of the Mosquitto project, in one version as `-V` names it."""

    many_topic_names = False

    def __init__(self, name: str = "mosquitto", version: str = "5") -> None:
        self.name = name
        self.user_properties = version == "5"
        self._version = version

    def command(self, program: str, server: Address) -> list[str]:
        """Return how one of the programs begins."""
        return [program, "-V", self._version, "-h", server[0], "-p", str(server[1])]

    def missing(self) -> str:
        absent = [name for name in ("mosquitto_pub", "mosquitto_sub") if not shutil.which(name)]
        return f"{' and '.join(absent)} not installed" if absent else ""

    def publish(self, server: Address, messages: Sequence[Message]) -> None:
        if self._are_lines(messages):
            for start in range(0, len(messages), PACKET_IDS_AT_ONCE):
                some = messages[start : start + PACKET_IDS_AT_ONCE]
                lines = b"".join(message.payload + b"\n" for message in some)
                self._run(server, messages[0], ["-l"], lines)
            return
        for message in messages:
            self._run(server, message, ["-s"] if message.payload else ["-n"], message.payload)

    def _are_lines(self, messages: Sequence[Message]) -> bool:
        """Whether many messages can go as lines through one program."""
        first = messages[0]
        return len(messages) > 1 and all(
            (message.topic_name, message.qos, message.retain, message.user_properties)
            == (first.topic_name, first.qos, first.retain, first.user_properties)
            and message.payload
            and len(message.payload) < 1000
            and message.payload.isascii()
            and message.payload.decode().isprintable()
            for message in messages
        )

    def _run(self, server: Address, message: Message, how: list[str], stdin: bytes) -> None:
        command = self.command("mosquitto_pub", server)
        command += ["-t", message.topic_name, "-q", str(message.qos), *how]
        command += ["-r"] if message.retain else []
        for name, value in message.user_properties:
            command += ["-D", "publish", "user-property", name, value]
        subprocess.run(command, input=stdin, check=True, timeout=TIMEOUT_S, capture_output=True)

    @contextlib.contextmanager
    def subscribe(self, server: Address, topic_filter: str, qos: int = 1) -> Iterator[Inbox]:
        # -d makes the program say when the subscription is granted; stdbuf, say it at once.
        command = [*self.command("mosquitto_sub", server), "-d", "-t", topic_filter]
        command += ["-q", str(qos), "-F", "message\t%t\t%q\t%r\t%P\t%x"]
        with line_process(["stdbuf", "-oL", *command]) as process:
            inbox, granted = Inbox(), threading.Event()

            def read(line: str) -> None:
                if line.startswith("message\t"):
                    _, topic_name, arrived_qos, retain, pairs, payload = line.split("\t")
                    inbox.put(
                        Message(
                            topic_name,
                            bytes.fromhex(payload),
                            int(arrived_qos),
                            retain == "1",
                            tuple(tuple(pair.split(":", 1)) for pair in pairs.split()),  # type: ignore[misc]
                        )
                    )
                elif line.startswith("Subscribed"):
                    granted.set()

            with lines_to(process, read):
                assert granted.wait(TIMEOUT_S), "mosquitto_sub got no SUBACK"
                yield inbox


def node_missing(package: str) -> str:
    """Return why a Node.js client cannot run here, or the empty string."""
    if not shutil.which("node"):
        return "Node.js not installed"
    if not (CLIENTS / "node_modules" / package).is_dir():
        return f"{package} not installed: npm install in tests/e2e/clients"
    return ""


# --- a program that prints lines -------------------------------------------------------------


@contextlib.contextmanager
def line_process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Hold a program that prints lines, and end it with the context."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


@contextlib.contextmanager
def lines_to(process: subprocess.Popen[str], read: Callable[[str], None]) -> Iterator[None]:
    """Hand every line a program prints to `read`, from a thread, until it ends."""
    assert process.stdout is not None
    stdout = process.stdout

    def follow() -> None:
        for line in stdout:
            read(line.rstrip("\n"))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        process.terminate()
        thread.join(TIMEOUT_S)
