"""`$events/clients/…`: what a watcher is told of other clients, and why they are gone."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

from tests.e2e.mqtt_programs import paho_client, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import run_isthmus, text_of

if TYPE_CHECKING:
    from tests.e2e.mqtt_programs import Inbox
    from tests.e2e.server_process import ServerProcess


def told(inbox: Inbox, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return events as the last level of their topic names and what they hold."""
    return [
        (message.topic_name.rpartition("/")[2], json.loads(message.payload))
        for message in inbox.wait(count)
    ]


def test_what_becomes_of_a_client_is_told(own_server: ServerProcess, unique: str) -> None:
    with paho_client(own_server.mqtt) as watcher:
        inbox = paho_subscribe(watcher, f"$events/clients/{unique}%2F1/+")
        with paho_client(own_server.mqtt, f"{unique}/1") as client:
            paho_subscribe(client, f"{unique}/#", 1)
            done = threading.Event()
            client.on_unsubscribe = lambda *_arguments: done.set()
            client.unsubscribe(f"{unique}/#")
            assert done.wait(TIMEOUT_S)
        events = told(inbox, 4)
        assert [name for name, _ in events] == [
            "connected",
            "subscribed",
            "unsubscribed",
            "disconnected",
        ]
        connected, subscribed, unsubscribed, disconnected = (said for _, said in events)
        assert connected["client_id"] == f"{unique}/1" and connected["protocol"] == "5.0"
        assert subscribed["filters"] == [{"topic_filter": f"{unique}/#", "qos": 1}]
        assert unsubscribed["filters"] == [{"topic_filter": f"{unique}/#"}]
        assert disconnected["reason_code"] == 0 and disconnected["at_ms"] >= connected["at_ms"]
        assert not any(message.retain for message in inbox.wait(4))


def test_why_a_client_is_gone_is_told(own_server: ServerProcess, unique: str) -> None:
    with paho_client(own_server.mqtt) as watcher:
        inbox = paho_subscribe(watcher, "$events/clients/+/disconnected")
        with paho_client(own_server.mqtt, f"{unique}-kicked"):
            run_isthmus(
                "clients", "kick", f"{unique}-kicked", "--http", text_of(own_server.http)
            )
            ((_, kicked),) = told(inbox, 1)
        with paho_client(own_server.mqtt, f"{unique}-lost") as client:
            connected = client.socket()
            assert connected is not None
            connected.shutdown(socket.SHUT_RDWR)
            wait_until(
                lambda: any(
                    said["client_id"] == f"{unique}-lost" for _, said in told(inbox, 1)
                ),
                "the loss is told",
            )
    assert (kicked["client_id"], kicked["reason_code"]) == (f"{unique}-kicked", 0x98)
    (lost,) = (
        said
        for _, said in told(inbox, 1)
        if said["client_id"] == f"{unique}-lost" and said["reason_code"] is None
    )
    assert lost["reason"] == "connection lost"
