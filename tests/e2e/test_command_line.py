"""What a script meets: one shore in and the other out, health, settings, a demo off a terminal.

The commands one by one are in test_commands.py.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import ServerProcess, isthmus_command, run_isthmus, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(own_server: ServerProcess) -> ServerProcess:
    return own_server


def on_mqtt(server: ServerProcess, command: str, *arguments: str) -> list[str]:
    return [command, "--mqtt", text_of(server.mqtt), *arguments]


def on_kafka(server: ServerProcess, command: str, *arguments: str) -> list[str]:
    return [*command.split(), "--kafka", text_of(server.kafka), *arguments]


def said(*arguments: str, stdin: bytes = b"") -> str:
    """Run a command that has to succeed and return its output."""
    ended = run_isthmus(*arguments, stdin=stdin)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@contextlib.contextmanager
def listening(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Hold a command that waits for messages."""
    with subprocess.Popen(
        isthmus_command(*arguments), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_json(process: subprocess.Popen[str], retry: Any) -> dict[str, Any]:
    """Return the first line a listener prints, sending until it does."""
    assert process.stdout is not None
    end = time.monotonic() + TIMEOUT_S
    while process.poll() is None:
        assert time.monotonic() < end, "the listener printed nothing and did not end"
        retry()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    line = process.stdout.read()
    assert process.returncode == 0
    assert line.count("\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def test_published_and_consumed(server: ServerProcess) -> None:
    arguments = ("-t", "a/b", "-m", "1", "-m", "2", "-q", "1", "--property", "unit=C")
    said(*on_mqtt(server, "pub", *arguments))
    consume = on_kafka(server, "consume", "-t", "mqtt", "--from-beginning", "-n", "2")
    assert said(*consume).split() == ["1", "2"]
    [first, _] = map(json.loads, said(*consume, "--json").splitlines())
    assert (first["key"], first["value"], first["offset"]) == ("a/b", "1", 0)
    assert {"name": "unit", "value": "C"} in first["headers"]


def test_produced_and_subscribed(server: ServerProcess) -> None:
    with listening(*on_mqtt(server, "sub", "-t", "to/+", "-n", "1", "--json")) as process:
        produce = on_kafka(server, "produce", "-t", "mqtt", "-k", "to/7", "-m", "go")
        found = first_json(process, lambda: said(*produce))
    assert (found["topic"], found["payload"]) == ("to/7", "go")


@pytest.mark.parametrize("path", ["healthz", "readyz"])
def test_health_is_answered(path: str, server: ServerProcess) -> None:
    with urllib.request.urlopen(
        f"http://{text_of(server.http)}/{path}", timeout=TIMEOUT_S
    ) as answer:
        assert answer.status == 200


def test_config_show_names_the_origin_of_each_value(tmp_path: Path) -> None:
    config = tmp_path / "isthmus.toml"
    config.write_text('[kafka]\nlisteners = ["tcp://127.0.0.1:19999"]\n')
    ended = run_isthmus(
        "config", "show", "--config", str(config), "--set", "log.level=debug",
        variables={"ISTHMUS_MQTT__RECEIVE_MAXIMUM": "77"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    [listeners] = [line for line in lines if "19999" in line]
    assert "isthmus.toml" in listeners
    [level] = [line for line in lines if "debug" in line]
    assert "--set" in level
    [receive] = [line for line in lines if "receive_maximum" in line]
    assert "77" in receive
    assert "ISTHMUS_MQTT__RECEIVE_MAXIMUM" in receive


def test_the_demo_prints_plain_lines(tmp_path: Path) -> None:
    """Off a terminal: no control characters, both directions, nothing left behind, status 0."""
    ended = run_isthmus("demo", "--seconds", "1", directory=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) >= 3
    assert "\x1b" not in ended.stdout + ended.stderr
    for word in ("mqtt", "kafka"):
        assert word in ended.stdout.lower()
    assert not list(tmp_path.iterdir())
