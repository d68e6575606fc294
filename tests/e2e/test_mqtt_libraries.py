"""What applications do, with one library after another: Node.js, a browser, asyncio, Go, Rust.

Each library has one program (or page) for all tests of this file; paho is the other side. paho
for Java tells of itself what holds, in one run, because a JVM takes its time.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

import pytest
from tests.e2e.kafka_commands import CACHE, SHORT_LIVED, run_to_end
from tests.e2e.mqtt_page import Page
from tests.e2e.mqtt_programs import CLIENTS, Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.mqtt_scripted import SCRIPTED, MqttJs, Properties, Scripted
from tests.e2e.server_process import ServerProcess, address_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.mqtt_scripted import Client

JAVA: Final = CLIENTS / "java"
PAHO_VERSION: Final = ElementTree.parse(JAVA / "pom.xml").findtext(".//{*}paho.version")
PAHO_JARS: Final = CACHE / f"paho-{PAHO_VERSION}"

LISTENERS = "tcp://127.0.0.1:0,ws://127.0.0.1:0/mqtt"
LIBRARIES: Final = (*SCRIPTED, MqttJs("mqtt.js over WebSocket", url="ws://{}/mqtt"), Page())
MODERN: Final = [library for library in LIBRARIES if library.user_properties]


@pytest.fixture(scope="module")
def server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Return a running server with a way in for programs and one for pages."""
    process = ServerProcess(tmp_path_factory.mktemp("server"), {"mqtt.listeners": LISTENERS})
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="module", params=LIBRARIES, ids=lambda library: library.name)
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Client]:
    """Return the library's client, which no test leaves connected."""
    library: Scripted = request.param
    if library.missing():
        pytest.skip(library.missing())
    with library.client(address_of(server.mqtt_listeners[library.is_web])) as client:
        yield client


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_quality_of_service_is_the_lower_of_both(qos: int, client: Client, unique: str) -> None:
    client.connect()
    assert client.subscribe(f"{unique}/#", qos) == [qos]
    client.publish(*[Message(f"{unique}/{level}", b"x", level) for level in (0, 1, 2)])
    assert [one.qos for one in client.inbox.wait(3)] == [min(qos, one) for one in (0, 1, 2)]
    client.leave()


def test_wildcards_match_what_they_say(
    client: Client, server: ServerProcess, unique: str
) -> None:
    client.connect()
    client.subscribe(f"{unique}/+/temp")
    client.subscribe(f"{unique}/deep/#")
    names = ["a/temp", "a/b/temp", "temp", "b/temp", "deep", "deep/er/still", "deeper"]
    with paho_client(server.mqtt) as paho:
        paho_publish(paho, [Message(f"{unique}/{name}", b"x") for name in names])
        paho_publish(paho, [Message(f"{unique}/deep/end", b"x")])
    arrived = client.inbox.wait(5)
    assert [one.topic_name.removeprefix(f"{unique}/") for one in arrived] == [
        "a/temp",
        "b/temp",
        "deep",
        "deep/er/still",
        "deep/end",
    ]
    client.leave()


def test_a_retained_message_greets_until_it_is_removed(client: Client, unique: str) -> None:
    client.connect()
    client.publish(Message(unique, b"first", retain=True))
    client.publish(Message(unique, b"last", retain=True))
    client.subscribe(unique)
    assert client.inbox.wait(1) == [Message(unique, b"last", retain=True)]
    client.publish(Message(unique, b"", retain=True))
    assert client.inbox.wait(2)[1:] == [Message(unique, b"")]
    client.leave()
    client.connect()
    client.subscribe(unique)
    client.publish(Message(unique, b"end"))
    assert client.inbox.wait(1) == [Message(unique, b"end")]
    client.leave()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_is_for_who_does_not_say_goodbye(
    qos: int, client: Client, server: ServerProcess, unique: str
) -> None:
    with paho_client(server.mqtt) as paho:
        inbox = paho_subscribe(paho, unique, qos=2)
        client.connect(will=Message(unique, b"left", qos))
        client.leave()
        client.connect(will=Message(unique, b"cut", qos))
        client.cut()
        assert inbox.wait(1) == [Message(unique, b"cut", qos)]


@pytest.mark.parametrize("end", ["leave", "cut"])
def test_a_session_waits_for_its_client(
    end: str, client: Client, server: ServerProcess, unique: str
) -> None:
    client.connect(unique, clean=False)
    client.subscribe(f"{unique}/#", 2)
    getattr(client, end)()
    messages = [Message(f"{unique}/{n % 2}", b"%d" % n, n % 2 + 1) for n in range(10)]
    with paho_client(server.mqtt) as paho:
        paho_publish(paho, messages)
    client.connect(unique, clean=False)
    arrived = sorted(client.inbox.wait(10), key=lambda message: message.qos)  # each in order
    assert arrived == messages[::2] + messages[1::2]
    client.leave()
    client.connect(unique)  # and starts anew
    client.publish(Message(f"{unique}/nobody", b"x"))
    client.subscribe(f"{unique}/#")
    client.publish(Message(f"{unique}/end", b"x"))
    assert client.inbox.wait(1) == [Message(f"{unique}/end", b"x")]
    client.leave()


@pytest.mark.parametrize("client", MODERN, ids=lambda library: library.name, indirect=True)
def test_what_only_5_has_comes_back_unaltered(client: Client, unique: str) -> None:
    asked = Properties(f"{unique}/answer", b"\x00\xff", "application/json")
    pairs = (("a", "1"), ("b", "2"), ("b", "3"))
    client.connect()
    client.subscribe(unique)
    message = Message(unique, b"{}", user_properties=pairs)
    client.publish(message, properties=asked)
    assert client.inbox.wait(1) == [message]
    assert client.properties == [asked]
    client.leave()


def test_paho_for_java(server: ServerProcess, unique: str) -> None:
    if not shutil.which("javac"):
        pytest.skip("no Java to compile with")
    if not PAHO_JARS.is_dir():
        pytest.skip(f"no paho for Java in {PAHO_JARS}: .ci/run fetches it")
    address = text_of(address_of(server.mqtt_listeners[False]))
    command = ["java", "-Xmx256M", *SHORT_LIVED, "-cp", f"{PAHO_JARS}/*"]
    told = run_to_end([*command, str(JAVA / "Paho.java"), address, unique])
    assert told.decode().splitlines() == [
        f"{version} {what}"
        for what in ("messages", "retained", "session", "will")
        for version in ("3.1.1", "5")
    ]
