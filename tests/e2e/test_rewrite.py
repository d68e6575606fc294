"""What clients say, and what is meant: rewritten topic names, automatic subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311
from tests.conformance.raw_client import RawClient, Will, ack
from tests.e2e.mqtt_programs import (
    Message,
    MosquittoPrograms,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.raw_mqtt import PUBACK
from tests.e2e.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """
[[mqtt.rewrite]]
topic = "old/{run}/{device}/temp"
to = "plant/{run}/temp/{device}"

[[mqtt.rewrite]]
topic = "alarms/{rest...}"
to = "plant/{rest...}"
action = "publish"

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


@pytest.mark.parametrize("version", [MQTTv311, MQTTv5])
def test_old_and_new_clients_meet_under_the_new_name(
    version: int, server: ServerProcess, unique: str
) -> None:
    new = f"plant/{unique}/temp/7"
    with (
        paho_client(server.mqtt, version=version) as old,
        MosquittoPrograms().subscribe(server.mqtt, f"plant/{unique}/#") as fresh,
    ):
        heard = paho_subscribe(old, f"old/{unique}/+/temp")
        paho_publish(old, [Message(f"old/{unique}/7/temp", b"20", retain=True)])
        MosquittoPrograms().publish(server.mqtt, [Message(new, b"21")])
        paho_publish(old, [Message(f"alarms/{unique}/temp/7", b"22")])
        for inbox in (heard, fresh):
            messages = inbox.wait(3)
            assert [one.payload for one in messages] == [b"20", b"21", b"22"]
            assert {one.topic_name for one in messages} == {new}
    with MosquittoPrograms().subscribe(server.mqtt, f"old/{unique}/7/temp") as late:
        assert late.wait(1) == [Message(new, b"20", retain=True)]


def test_a_filter_is_given_up_as_it_was_asked_for(server: ServerProcess, unique: str) -> None:
    client = RawClient(server.mqtt)
    client.open(unique)
    assert client.subscribe(f"old/{unique}/+/temp", 1).reason == 1
    assert client.unsubscribe(f"old/{unique}/+/temp").reason == 0
    assert client.unsubscribe(f"old/{unique}/+/temp").reason == 0x11
    client.subscribe(f"old/{unique}/+/temp", 1)
    assert client.unsubscribe(f"plant/{unique}/temp/+").reason == 0
    client.publish(f"old/{unique}/7/temp", b"x")
    assert client.payloads() == []
    client.cut()


def test_wills_and_sessions_over_a_restart(server: ServerProcess, unique: str) -> None:
    lasting = RawClient(server.mqtt, 4)
    lasting.open(unique, clean=False)
    lasting.subscribe(f"old/{unique}/+/temp", 1)
    lasting.cut()
    dying = RawClient(server.mqtt)
    dying.open("", will=Will(f"old/{unique}/7/temp", b"gone", 1))
    dying.cut()
    with MosquittoPrograms().subscribe(server.mqtt, f"plant/{unique}/#"):
        pass  # its SUBACK comes behind the will
    MosquittoPrograms().publish(server.mqtt, [Message(f"plant/{unique}/temp/8", b"x")])
    server.kill()
    server.start()
    lasting = RawClient(server.mqtt, 4)
    assert lasting.open(unique, clean=False).session_present
    assert [lasting.message().payload for _ in range(2)] == [b"gone", b"x"]
    lasting.cut()


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
