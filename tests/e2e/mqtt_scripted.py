"""MQTT clients that are told what to do: programs in other languages, and a page in a browser.

Each takes commands and says events, objects of JSON, a line each (the page: over HTTP):

    connect id version clean will   → connected (not clean: its session outlives it, an hour)
    subscribe filter qos            → subscribed qos=[granted]
    publish topic payload qos retain user response correlation type → published, acknowledged
    leave                           → left, with DISCONNECT
    cut                             → cut, without
                                    → message topic payload qos retain user response …, any time

So each client is its own language's page of code in `clients/`, and the tests are the same for
all. Payloads and correlation data are hexadecimal.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

from paho.mqtt.client import MQTTv5, MQTTv31, MQTTv311
from tests.e2e.mqtt_programs import (
    CLIENTS,
    Inbox,
    Message,
    MosquittoPrograms,
    Paho,
    node_missing,
)
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.e2e.mqtt_programs import MqttProgram
    from tests.e2e.server_process import Address

BUILT: Final = Path(__file__).parent.parent.parent / "build" / "clients"


@dataclass(frozen=True)
class Properties:
    """What only MQTT 5 has, of a message that asks for an answer."""

    response_topic: str = ""
    correlation_data: bytes = b""
    content_type: str = ""


class Pipe(Protocol):
    """The way to a client: commands to it. What it says goes to the `Client`."""

    def send(self, command: dict[str, Any] | None) -> None: ...


@dataclass
class Client:
    """One client, wherever it runs."""

    version: int
    pipe: Pipe | None = None
    inbox: Inbox = field(default_factory=Inbox)
    properties: list[Properties] = field(default_factory=list)
    _answers: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)

    def heard(self, event: dict[str, Any]) -> None:
        """Take an event, from any thread."""
        if event["is"] != "message":
            self._answers.put(event)
            return
        self.properties.append(
            Properties(event["response"], bytes.fromhex(event["correlation"]), event["type"])
        )
        self.inbox.put(
            Message(
                event["topic"],
                bytes.fromhex(event["payload"]),
                event["qos"],
                event["retain"],
                tuple(tuple(pair) for pair in event["user"]),  # type: ignore[misc]
            )
        )

    def _tell(self, do: str, **command: Any) -> None:
        assert self.pipe is not None
        self.pipe.send({"do": do, **command})

    def _answer(self, what: str) -> dict[str, Any]:
        event = self._answers.get(timeout=TIMEOUT_S)
        assert event["is"] == what, event
        return event

    def connect(
        self, client_id: str = "", *, clean: bool = True, will: Message | None = None
    ) -> None:
        self.inbox, self.properties = Inbox(), []
        self._tell(
            "connect",
            id=client_id or f"scripted-{uuid4().hex}",
            version=self.version,
            clean=clean,
            will=will
            and {
                "topic": will.topic_name,
                "payload": will.payload.hex(),
                "qos": will.qos,
                "retain": will.retain,
            },
        )
        self._answer("connected")

    def subscribe(self, topic_filter: str, qos: int = 1) -> list[int]:
        """Subscribe, and return what was granted."""
        self._tell("subscribe", filter=topic_filter, qos=qos)
        granted: list[int] = self._answer("subscribed")["qos"]
        return granted

    def publish(self, *messages: Message, properties: Properties | None = None) -> None:
        """Publish in order; return when all are acknowledged as their QoS asks."""
        said = properties or Properties()
        for message in messages:
            self._tell(
                "publish",
                topic=message.topic_name,
                payload=message.payload.hex(),
                qos=message.qos,
                retain=message.retain,
                user=message.user_properties,
                response=said.response_topic,
                correlation=said.correlation_data.hex(),
                type=said.content_type,
            )
        for _ in messages:
            self._answer("published")

    def leave(self) -> None:
        self._tell("leave")
        self._answer("left")

    def cut(self) -> None:
        """Break the connection without DISCONNECT."""
        self._tell("cut")
        self._answer("cut")


class Scripted(ABC):
    """A kind of client, in one version; has the shape of a `MqttProgram` too."""

    many_topic_names = True

    def __init__(self, name: str, version: int, url: str = "{}") -> None:
        self.name = name
        self.user_properties = version == 5
        self._version = version
        self._url = url  # what the client is given, around HOST:PORT
        self.is_web = url.startswith("ws")  # and wants another listener

    @abstractmethod
    def missing(self) -> str:
        """Return what of it is not installed here, or nothing."""

    @abstractmethod
    def client(self, server: Address) -> contextlib.AbstractContextManager[Client]:
        """Hold a client that is not connected yet; it ends with the context."""

    def publish(self, server: Address, messages: Sequence[Message]) -> None:
        with self.client(server) as client:
            client.connect()
            client.publish(*messages)
            client.leave()

    @contextlib.contextmanager
    def subscribe(self, server: Address, topic_filter: str, qos: int = 1) -> Iterator[Inbox]:
        with self.client(server) as client:
            client.connect()
            client.subscribe(topic_filter, qos)
            yield client.inbox


class _Pipes:
    """Standard input and output of a program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, command: dict[str, Any] | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def listen(self, heard: Callable[[dict[str, Any]], None]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            heard(json.loads(line))


class Program(Scripted):
    """One that is a program of its own, and is told what to do through a pipe."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return how to start it, but for the server's URL."""

    @contextlib.contextmanager
    def client(self, server: Address) -> Iterator[Client]:
        client = Client(self._version)
        command = [*self.command(), self._url.format(text_of(server))]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            pipe = _Pipes(process)
            client.pipe = pipe
            listening = threading.Thread(target=pipe.listen, args=(client.heard,))
            listening.start()
            try:
                yield client
            finally:
                process.terminate()
                process.wait(TIMEOUT_S)
                listening.join(TIMEOUT_S)


class MqttJs(Program):
    """mqtt.js on Node.js."""

    def __init__(self, name: str = "mqtt.js", version: int = 5, url: str = "mqtt://{}") -> None:
        super().__init__(name, version, url)

    def command(self) -> list[str]:
        return ["node", str(CLIENTS / "mqtt_client.js")]

    def missing(self) -> str:
        return node_missing("mqtt")


class Aiomqtt(Program):
    """aiomqtt: paho's packets, in asyncio's ways."""

    def command(self) -> list[str]:
        return [sys.executable, str(CLIENTS / "aiomqtt_client.py")]

    def missing(self) -> str:
        return ""


class Built(Program):
    """A client of a compiled language, which `.ci/run` builds."""

    def command(self) -> list[str]:
        return [str(BUILT / self.name.partition(" ")[0])]

    def missing(self) -> str:
        (program,) = self.command()
        return "" if shutil.which(program) else f"{program} not built: .ci/run does"


MQTT_PROGRAMS: Final[tuple[MqttProgram, ...]] = (
    Paho("paho-3.1.1", MQTTv311),
    Paho("paho-5", MQTTv5),
    MosquittoPrograms(),
    MqttJs(),
)
OLD_PROGRAMS: Final[tuple[MqttProgram, ...]] = (
    Paho("paho-3.1", MQTTv31),
    MosquittoPrograms("mosquitto-3.1", "31"),
    MosquittoPrograms("mosquitto-3.1.1", "311"),
)
SCRIPTED: Final = (
    MqttJs(),
    MqttJs("mqtt.js 3.1.1", 4),
    Aiomqtt("aiomqtt", 5),
    Built("mqtt-go", 5),
    Built("mqtt-go 3.1.1", 4),
    Built("mqtt-rust", 5),
    Built("mqtt-rust 3.1.1", 4),
)
