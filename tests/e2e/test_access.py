"""Rules of access, met by clients: what they are told, and a file of rules that changes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import Client, MQTTv311
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import ANY_PORT, ServerProcess, run_isthmus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("own_process")

RULES = """
# everybody has a place of one's own
allow anonymous publish,subscribe own/%c/#
deny all subscribe own/+/secret
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules"
    file.write_text(RULES, "utf-8")
    return file


@pytest.fixture
def server(start_server: Callable[..., ServerProcess], rules: Path) -> ServerProcess:
    return start_server(settings={"access.rules_file": str(rules)})


def subscribed(client: Client, topic_filter: str) -> str:
    """Return the reason code of one SUBACK, in words."""
    granted: list[str] = []
    client.on_subscribe = lambda _c, _d, _id, reasons, _props: granted.append(str(reasons[0]))
    client.subscribe(topic_filter, 1)
    wait_until(lambda: granted, "a SUBACK")
    return granted[0]


def published(client: Client, topic_name: str, qos: int = 1) -> str:
    """Return the reason code of one PUBACK or PUBREC, in words."""
    told: list[str] = []
    client.on_publish = lambda _c, _d, _id, reason, _props: told.append(str(reason))
    client.publish(topic_name, b"x", qos)
    wait_until(lambda: told, "an answer")
    return told[0]


def test_paho_is_told_what_it_may_not(server: ServerProcess) -> None:
    with paho_client(server.mqtt, "ann") as ann, paho_client(server.mqtt, "a+b") as odd:
        assert subscribed(ann, "own/ann/#") == "Granted QoS 1"
        assert subscribed(ann, "own/bob/#") == "Not authorized"
        assert subscribed(ann, "own/ann/secret") == "Not authorized"
        assert published(ann, "own/ann/a") == "Success"
        assert published(ann, "own/bob/a") == "Not authorized"
        assert subscribed(odd, "own/#") == "Not authorized"
    with paho_client(server.mqtt, "old", version=MQTTv311) as old:
        assert subscribed(old, "own/bob/#") == "Unspecified error"
        assert published(old, "own/bob/a") == "Success"  # and there is no way to say otherwise


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub not installed")
def test_mosquitto_pub_is_told(server: ServerProcess) -> None:
    for name, told in (("own/ann/a", False), ("own/bob/a", True)):
        command = ["mosquitto_pub", "-V", "5", "-i", "ann", "-q", "1", "-t", name, "-m", "x"]
        where = ["-h", server.mqtt[0], "-p", str(server.mqtt[1])]
        ended = subprocess.run(
            [*command, *where], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert ("Not authorized" in ended.stdout + ended.stderr) is told


def test_rules_that_change_count_at_once(server: ServerProcess, rules: Path) -> None:
    with paho_client(server.mqtt, "ann") as ann, paho_client(server.mqtt, "bob") as bob:
        inbox = paho_subscribe(ann, "own/#")
        paho_publish(bob, [Message("own/bob/a", b"hidden")])
        rules.write_text("allow all publish,subscribe own/#\n", "utf-8")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: published(ann, "own/bob/b") != "Not authorized", "the new rules")
        paho_publish(bob, [Message("own/bob/a", b"seen")])
        assert [one.payload for one in inbox.wait(2)] == [b"x", b"seen"]
        rules.write_text("allow all publish,subscribe own/#\nallow all fly own/#\n", "utf-8")
        os.kill(server.pid, signal.SIGHUP)
        wait_until(
            lambda: any(f"{rules}:2: 'fly'" in line for line in server.log_lines()),
            "a line in the log that says where",
        )
        assert published(ann, "own/bob/b") == "Success"


def test_members_of_a_group_get_what_they_may_have(server: ServerProcess) -> None:
    """Each message goes to the one who may have it, whoever's turn it is."""
    with (
        paho_client(server.mqtt, "ann") as ann,
        paho_client(server.mqtt, "bob") as bob,
    ):
        shared = "$share/workers/own/#"
        inboxes = [paho_subscribe(client, shared, 1) for client in (ann, bob)]
        for client, name in ((ann, "ann"), (bob, "bob")):
            paho_publish(client, [Message(f"own/{name}/{n}", b"x", 1) for n in range(10)])
        for inbox, name in zip(inboxes, ("ann", "bob"), strict=True):
            assert [one.topic_name for one in inbox.wait(10)] == [
                f"own/{name}/{n}" for n in range(10)
            ]


def test_a_rule_that_is_none_ends_the_start(tmp_path: Path, rules: Path) -> None:
    rules.write_text("allow all fly a\n", "utf-8")
    arguments = ["--data", str(tmp_path / "data"), "--set", f"access.rules_file={rules}"]
    arguments += [
        part for shore in ("mqtt", "kafka", "http") for part in (f"--{shore}", ANY_PORT)
    ]
    ended = run_isthmus("serve", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines()[-1].startswith(f"Error: {rules}:1: 'fly' is no")


def test_rules_that_the_server_keeps(fresh_server: ServerProcess) -> None:
    """They change who is connected at once, and outlive SIGKILL."""
    server = fresh_server

    def acls(command: str, *arguments: str) -> str:
        http = "{}:{}".format(*server.http)
        ended = run_isthmus("acls", command, *arguments, "--http", http)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    with paho_client(server.mqtt, "ann") as ann:
        inbox = paho_subscribe(ann, "#")
        assert published(ann, "own/ann/a") == "Success"
        acls("add", "allow all publish,subscribe own/%c/#", "allow all publish else")
        assert published(ann, "own/bob/a") == "Not authorized"
        assert published(ann, "else") != "Not authorized"
        assert published(ann, "own/ann/b") == "Success"
        acls("remove", "allow all publish else")
        assert published(ann, "else") == "Not authorized"
        assert [one.topic_name for one in inbox.wait(2)] == ["own/ann/a", "own/ann/b"]
    assert any("access rule added by=-@127.0.0.1" in line for line in server.log_lines())
    server.kill()
    server.start()
    assert "kept: allow all publish own/%c/#\n" in acls("list")
    assert "kept: allow all publish own" in acls("test", "-", "publish", "own/client/a")
    with paho_client(server.mqtt, "ann") as ann:
        assert published(ann, "own/bob/a") == "Not authorized"
        assert published(ann, "own/ann/a") != "Not authorized"
