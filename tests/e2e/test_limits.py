"""Limits that real clients meet: rates, too many connections, limits that change meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TICK_S, wait_until
from tests.e2e.raw_mqtt import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    SUBACK,
    RawMqtt,
    connect,
    publish,
    raw_connection,
    subscribe,
)
from tests.e2e.server_process import ServerProcess, address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paho.mqtt.client import Client
    from tests.e2e.server_process import Address

LISTENERS = """[
    {address = "tcp://127.0.0.1:0", name = "plain"},
    {address = "tcp://127.0.0.1:0", name = "slow", client_messages_rate_max = 20},
    {address = "tcp://127.0.0.1:0", name = "strict", client_messages_rate_max = 20,
     client_rate_action = "disconnect"},
    {address = "tcp://127.0.0.1:0", name = "door", address_connection_rate_max = 2},
]"""


@pytest.fixture(scope="module")
def server(
    own_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    settings = {
        "mqtt.listeners": LISTENERS.replace("\n", ""),
        "mqtt.flapping_connects_max": "9",
    }
    process = ServerProcess(directory, settings)
    process.start()
    yield process
    process.stop()


def listener(server: ServerProcess, place: int) -> Address:
    return address_of(server.mqtt_listeners[place])


def test_a_client_above_its_rate_is_slowed_down_and_loses_nothing(
    server: ServerProcess, unique: str
) -> None:
    messages = [Message(unique, b"%d" % number) for number in range(60)]
    with (
        paho_client(listener(server, 0)) as subscriber,
        paho_client(listener(server, 1)) as publisher,
    ):
        inbox = paho_subscribe(subscriber, unique)
        began_s = time.monotonic()
        paho_publish(publisher, messages)
        # What was read at once is acted on at once, and waited for before the next read.
        paho_publish(publisher, [Message(unique, b"last")])
        assert time.monotonic() - began_s > 1 - TICK_S
        got = [message.payload for message in inbox.wait(61)]
        assert got == [*(message.payload for message in messages), b"last"]


def test_a_client_above_a_strict_rate_is_told_so(server: ServerProcess, unique: str) -> None:
    told: list[int] = []

    def prepare(client: Client) -> None:
        client.on_disconnect = lambda *said: told.append(said[3].value)

    with paho_client(listener(server, 2), prepare=prepare) as publisher:
        for _ in range(100):
            publisher.publish(unique, b"x", 0)
        wait_until(lambda: told, "a DISCONNECT")
        assert told[0] == 0x96


def test_who_connects_too_fast_is_told_so(server: ServerProcess) -> None:
    wires = [RawMqtt(listener(server, 3)) for _ in range(6)]
    reasons = []
    for number, wire in enumerate(wires):
        wire.send(connect(f"fast-{number}"))
        reasons.append(wire.expect(CONNACK).body[1])
        wire.cut()
    assert reasons[:2] == [0, 0]
    assert 0x9F in reasons
    assert set(reasons) == {0, 0x9F}


def reason(address: Address, client_id: str, **options: Any) -> int:
    """Connect, leave at once, and return the reason in CONNACK."""
    with raw_connection(address) as wire:
        wire.send(connect(client_id, **options))
        return wire.expect(CONNACK).body[1]


def test_a_client_that_connects_again_and_again_is_kept_out(
    server: ServerProcess, unique: str
) -> None:
    plain = listener(server, 0)
    assert [reason(plain, unique) for _ in range(10)] == [0] * 9 + [0x8A]
    assert reason(plain, f"{unique}-other") == 0


def test_an_address_that_guesses_passwords_is_kept_out(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    settings = {"mqtt.authentication": '["users"]', "mqtt.authentication_failures_max": "2"}
    server = start_server(settings=settings)
    guesses = [("ann", b"%d" % number) for number in range(4)]
    told = [reason(server.mqtt, unique, user=guess) for guess in guesses]
    assert told == [0x86, 0x86, 0x86, 0x8A]


def test_limits_change_and_nobody_is_disconnected(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    server = start_server(config="[mqtt]\naddress_connections_max = 3\n")
    old = [RawMqtt(server.mqtt) for _ in range(3)]
    for number, wire in enumerate(old):
        wire.open(f"{unique}-{number}")

    def reload(config: str, said: str) -> None:
        lines = len(server.log_lines())
        (server.directory / "isthmus.toml").write_text(config)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: any(said in line for line in server.log_lines()[lines:]), said)

    assert reason(server.mqtt, f"{unique}-new") == 0x89
    reload("[mqtt]\naddress_connections_max = 0\npacket_size_max = 5", "not reloaded")
    assert reason(server.mqtt, f"{unique}-new") == 0x89  # all of it or nothing
    reload("[mqtt]\npacket_size_max = 20_000_000", "grows by a restart only")
    assert reason(server.mqtt, f"{unique}-new") == 0x89
    (server.directory / "isthmus.toml").write_text("[mqtt]\npacket_size_max = 4096\n")
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: reason(server.mqtt, f"{unique}-new") == 0, "a higher limit")
    for wire in old:  # what they were offered holds
        wire.send(publish(unique, bytes(5000), qos=1, packet_id=1))
        assert wire.expect(PUBACK).packet_id == 1
        wire.cut()
    new = RawMqtt(server.mqtt)
    new.open(f"{unique}-new")
    new.send(publish(unique, bytes(5000), qos=1, packet_id=1))
    assert new.expect(DISCONNECT).body[0] == 0x95
    new.cut()


def test_at_the_end_clients_are_sent_away_one_after_the_other(
    start_server: Callable[..., ServerProcess], unique: str
) -> None:
    settings = {"mqtt.shutdown_s": "1", "mqtt.server_reference": "other.example"}
    server = start_server(settings=settings)
    with raw_connection(server.mqtt) as absent:
        absent.open(f"{unique}-absent", session_expiry_s=1000)
        absent.send(subscribe(1, f"{unique}/will", 1))
        absent.expect(SUBACK)
    wires = [RawMqtt(server.mqtt) for _ in range(8)]
    for number, wire in enumerate(wires):
        will = (f"{unique}/will", b"%d" % number, 1, False)
        wire.open(f"{unique}-{number}", will=will)
    ending = threading.Thread(target=server.terminate)
    began_s = time.monotonic()
    ending.start()
    for wire in wires:
        said = wire.expect(DISCONNECT).body
        assert said[0] == 0x9C
        assert b"other.example" in said
        assert wire.receive() is None
        wire.cut()
    assert time.monotonic() - began_s > 7 / 20 - TICK_S  # one in a twentieth of a second
    ending.join()
    server.start()
    with raw_connection(server.mqtt) as absent:
        absent.open(f"{unique}-absent", clean=False, session_expiry_s=1000)
        wills = [absent.expect(PUBLISH).payload() for _ in wires]
        assert sorted(wills) == [b"%d" % number for number in range(8)]
