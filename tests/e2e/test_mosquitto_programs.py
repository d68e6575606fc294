"""What the Mosquitto project's command line programs do, in each version of MQTT."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.e2e.mqtt_programs import (
    Inbox,
    Message,
    MosquittoPrograms,
    line_process,
    lines_to,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import TIMEOUT_S

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

VERSIONS = pytest.mark.parametrize("version", ["31", "311", "5"])


@pytest.fixture(autouse=True)
def _installed() -> None:
    if missing := MosquittoPrograms().missing():
        pytest.skip(missing)


def run(*command: str) -> str:
    """Run a program to its end, which has to be a good one, and return what it said."""
    ended = subprocess.run(
        command, timeout=TIMEOUT_S, capture_output=True, check=True, stdin=subprocess.DEVNULL
    )
    return ended.stdout.decode()


@VERSIONS
def test_a_retained_message_is_there_for_who_comes_later(
    version: str, shores: Shores, unique: str
) -> None:
    programs = MosquittoPrograms(version=version)
    programs.publish(shores.mqtt, [Message(unique, b"kept", 2, retain=True)])
    asked = [*programs.command("mosquitto_sub", shores.mqtt), "-t", f"{unique}/#", "-q", "2"]
    assert run(*asked, "-C", "1", "-F", "%r %q %p") == "1 2 kept\n"


@VERSIONS
def test_a_session_waits_for_its_client(version: str, shores: Shores, unique: str) -> None:
    programs = MosquittoPrograms(version=version)
    asked = [*programs.command("mosquitto_sub", shores.mqtt), "-i", unique, "-c", "-q", "1"]
    asked += ["-t", f"{unique}/+", *(["-x", "3600"] if version == "5" else [])]
    run(*asked, "-E")
    messages = [Message(f"{unique}/a", b"%d" % number) for number in range(5)]
    programs.publish(shores.mqtt, messages)
    programs.publish(shores.mqtt, [Message(f"{unique}/a/b", b"another")])
    assert run(*asked, "-C", "5").split() == ["0", "1", "2", "3", "4"]


@VERSIONS
def test_a_will_is_for_who_does_not_say_goodbye(
    version: str, shores: Shores, unique: str
) -> None:
    programs = MosquittoPrograms(version=version)
    command = [*programs.command("mosquitto_sub", shores.mqtt), "-d", "-t", unique]
    command += ["--will-topic", f"{unique}/will", "--will-payload", "gone", "--will-qos", "1"]
    with (
        paho_client(shores.mqtt) as paho,
        line_process(["stdbuf", "-oL", *command]) as process,
    ):
        inbox = paho_subscribe(paho, f"{unique}/will", qos=2)
        subscribed = threading.Event()
        with lines_to(
            process, lambda line: subscribed.set() if line.startswith("Subscribed") else None
        ):
            assert subscribed.wait(TIMEOUT_S)
            process.kill()
            assert inbox.wait(1) == [Message(f"{unique}/will", b"gone", 1)]


def test_a_request_is_answered_where_it_says(shores: Shores, unique: str) -> None:
    """mosquitto_rr asks, paho answers with the correlation data that came."""

    def answer(client: Any, _data: Any, request: Any) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = request.properties.CorrelationData
        answered.put(Message(request.topic, request.payload))
        client.publish(
            request.properties.ResponseTopic, request.payload * 2, 1, properties=properties
        )

    answered = Inbox()
    with paho_client(shores.mqtt) as paho:
        paho_subscribe(paho, f"{unique}/ask")
        paho.on_message = answer
        asked = MosquittoPrograms().command("mosquitto_rr", shores.mqtt)
        asked += ["-t", f"{unique}/ask", "-e", f"{unique}/answer", "-q", "1", "-m", "twice "]
        asked += ["-D", "publish", "correlation-data", "42", "-F", "%p %D"]
        assert run(*asked).split() == ["twice", "twice", "42"]
        assert answered.wait(1) == [Message(f"{unique}/ask", b"twice ")]


def test_an_answer_is_given_where_it_is_asked_for(shores: Shores, unique: str) -> None:
    """paho asks, mosquitto_sub and mosquitto_pub are the one who answers."""
    programs = MosquittoPrograms()
    asked = programs.command("mosquitto_sub", shores.mqtt)
    with paho_client(shores.mqtt) as paho:
        inbox = paho_subscribe(paho, f"{unique}/answer")
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = f"{unique}/answer"
        paho.publish(unique, b"?", 1, retain=True, properties=properties).wait_for_publish()
        where = run(*asked, "-t", unique, "-C", "1", "-F", "%R").strip()
        paho_publish(paho, [Message(unique, b"", retain=True)])
        programs.publish(shores.mqtt, [Message(where, b"!")])
        assert inbox.wait(1) == [Message(f"{unique}/answer", b"!")]
