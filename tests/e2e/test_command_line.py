"""The commands that are clients, and the demo, as a script meets them: no terminal."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
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
    end = time.monotonic() + 20
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


def test_lines_of_standard_input_are_messages(server: ServerProcess) -> None:
    create = on_kafka(server, "topics create", "lines")
    said(*create)
    said(*on_kafka(server, "produce", "-t", "lines", "-k", "k"), stdin=b"one\ntwo\n\nfour\n")
    consume = on_kafka(server, "consume", "-t", "lines", "--from-beginning", "-n", "4")
    assert said(*consume) == "one\ntwo\n\nfour\n"


def test_produced_and_subscribed(server: ServerProcess) -> None:
    with listening(*on_mqtt(server, "sub", "-t", "to/+", "-n", "1", "--json")) as process:
        produce = on_kafka(server, "produce", "-t", "mqtt", "-k", "to/7", "-m", "go")
        found = first_json(process, lambda: said(*produce))
    assert (found["topic"], found["payload"]) == ("to/7", "go")


def test_a_binary_payload_is_printed_in_base64_with_json(server: ServerProcess) -> None:
    said(*on_mqtt(server, "pub", "-t", "binary", "-q", "1", "-r"), stdin=b"\xff\xfe\n")
    found = json.loads(said(*on_mqtt(server, "sub", "-t", "binary", "-n", "1", "--json")))
    assert (found["payload_base64"], found["retain"]) == ("//4=", True)


def test_topics_are_created_listed_described_and_deleted(server: ServerProcess) -> None:
    said(*on_kafka(server, "topics create", "-p", "3", "-c", "retention.ms=1234567", "wide"))
    listed = [
        json.loads(one) for one in said(*on_kafka(server, "topics list", "--json")).splitlines()
    ]
    assert {"log_topic": "wide", "partitions": 3, "records": 0} in listed
    assert "mqtt" in {topic["log_topic"] for topic in listed}
    described = json.loads(said(*on_kafka(server, "topics describe", "wide", "--json")))
    assert len(described["partitions"]) == 3
    assert described["configs"]["retention.ms"] == "1234567"
    said(*on_kafka(server, "topics delete", "wide"))
    assert "wide" not in said(*on_kafka(server, "topics list"))


@pytest.mark.parametrize("command", ["pub -t a -m x", "topics list"])
def test_no_server_is_one_sentence_and_status_1(command: str) -> None:
    shore = "--mqtt" if command.startswith("pub") else "--kafka"
    ended = run_isthmus(*command.split(), shore, "127.0.0.1:1")
    assert ended.returncode == 1
    assert "127.0.0.1:1" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


@pytest.mark.parametrize("path", ["healthz", "readyz"])
def test_health_is_answered(path: str, server: ServerProcess) -> None:
    with urllib.request.urlopen(f"http://{text_of(server.http)}/{path}", timeout=5) as answer:
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
    ended = run_isthmus("demo", "--seconds", "5", directory=tmp_path, timeout_s=45)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) >= 4
    assert "\x1b" not in ended.stdout + ended.stderr
    for word in ("mqtt", "kafka"):
        assert word in ended.stdout.lower()
    assert not list(tmp_path.iterdir())


def test_the_demo_uses_a_running_server(server: ServerProcess) -> None:
    connect = f"mqtt={text_of(server.mqtt)},kafka={text_of(server.kafka)}"
    said("demo", "--seconds", "2", "--connect", connect)
    assert server.is_running()
