"""`$delayed` with real clients, over the end of the server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.conformance.raw_client import RawClient
from tests.e2e.mqtt_programs import (
    Message,
    MosquittoPrograms,
    paho_client,
    paho_publish,
    paho_subscribe,
)
from tests.e2e.patience import TICK_S
from tests.e2e.server_process import run_isthmus, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.server_process import ServerProcess


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    return start_server(settings={"mqtt.delayed_max": "10", "mqtt.delayed_max_s": "100"})


def test_it_comes_later_with_all_that_it_had(server: ServerProcess, unique: str) -> None:
    said = Message(unique, b"later", 2, True, (("k", "v"), ("k", "w")))
    with paho_client(server.mqtt) as client:
        inbox = paho_subscribe(client, unique, 2)
        began_s = time.monotonic()
        paho_publish(
            client, [Message(f"$delayed/1/{unique}", b"later", 2, True, said.user_properties)]
        )
        paho_publish(client, [Message(unique, b"now", 0)])
        assert [one.payload for one in inbox.wait(2)] == [b"now", b"later"]
        assert inbox.arrived_at_s[1] - began_s >= 1 - TICK_S
    with MosquittoPrograms().subscribe(server.mqtt, unique, 2) as late:
        assert late.wait(1) == [said]


def test_it_survives_a_crash_of_the_server(server: ServerProcess, unique: str) -> None:
    """One falls due while there is no server, one when it is back; both come once here."""
    lasting = RawClient(server.mqtt, 4)
    lasting.open(unique, clean=False)
    lasting.subscribe(f"{unique}/#", 1)
    lasting.cut()
    began_s = time.time()
    for seconds in (3, 1):
        MosquittoPrograms().publish(
            server.mqtt, [Message(f"$delayed/{seconds}/{unique}/{seconds}", b"x", 1)]
        )
    server.kill()
    server.start()
    server.kill()
    time.sleep(max(0, began_s + 1.1 - time.time()))
    server.start()
    lasting = RawClient(server.mqtt, 4)
    assert lasting.open(unique, clean=False).session_present
    assert lasting.message().topic_name == f"{unique}/1"
    assert lasting.message().topic_name == f"{unique}/3"
    assert time.time() >= began_s + 3 - TICK_S
    lasting.cut()
    assert server.terminate() == 0


def test_what_is_refused(server: ServerProcess, unique: str) -> None:
    client = RawClient(server.mqtt)
    client.open(unique)
    assert client.publish(f"$delayed/soon/{unique}").reason == 0x90
    assert client.publish(f"$delayed/101/{unique}").reason == 0x97
    assert client.publish("$delayed/5/$SYS/broker/uptime").reason == 0x87
    for _ in range(10):
        assert client.publish(f"$delayed/100/{unique}").reason == 0
    assert client.publish(f"$delayed/1/{unique}").reason == 0x97
    assert client.publish(f"$delayed/1/{unique}", qos=2).reason == 0x97
    client.cut()


def test_administrators_see_what_waits_and_cancel_it(
    server: ServerProcess, unique: str
) -> None:
    here = ("--http", text_of(server.http))

    def listed() -> list[dict[str, Any]]:
        done = run_isthmus("delayed", "list", "--json", *here)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    with paho_client(server.mqtt) as client:
        paho_publish(
            client, [Message(f"$delayed/90/{unique}/{kind}", b"12345", 1) for kind in "ab"]
        )
    first, second = listed()
    assert [first["topic_name"], second["topic_name"]] == [f"{unique}/a", f"{unique}/b"]
    assert first["payload_bytes"] == 5
    assert run_isthmus("delayed", "cancel", first["id"], *here).returncode == 0
    assert run_isthmus("delayed", "cancel", first["id"], *here).returncode != 0
    server.kill()
    server.start()
    assert [row["id"] for row in listed()] == [second["id"]]
