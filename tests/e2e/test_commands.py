"""The client commands and the demo, as a user types them, on a real server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import isthmus_command, text_of

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = isthmus_command(*arguments)
    return subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT_S)


def lines_of(done: subprocess.CompletedProcess[bytes]) -> list[bytes]:
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.splitlines()


def test_what_is_produced_is_consumed(shores: Shores, unique: str) -> None:
    kafka = ("--kafka", text_of(shores.kafka), "-t", unique)
    lines_of(run("topics", "create", *kafka[:2], "-p", "1", unique))
    lines_of(run("produce", *kafka, "-k", "k", "-H", "a=1", "-H", "a=2", "-m", "one"))
    lines_of(run("produce", *kafka, "-K", ":", stdin=b"k2:two\nk3:\xff\n"))
    assert lines_of(run("consume", *kafka, "-b", "-e")) == [b"one", b"two", b"\xff"]
    records = [
        json.loads(line) for line in lines_of(run("consume", *kafka, "-b", "-e", "--json"))
    ]
    assert [record["key"] for record in records] == ["k", "k2", "k3"]
    assert [record["offset"] for record in records] == [0, 1, 2]
    pairs = [(header["name"], header["value"]) for header in records[0]["headers"]]
    assert pairs == [("a", "1"), ("a", "2")]
    assert records[2]["value_base64"] == "/w=="


def test_a_group_goes_on_where_it_stopped(shores: Shores, unique: str) -> None:
    kafka = ("--kafka", text_of(shores.kafka), "-t", unique)
    lines_of(run("topics", "create", *kafka[:2], "-p", "1", unique))
    lines_of(run("produce", *kafka, "-m", "one", "-m", "two", "-m", "three"))
    group = ("-g", unique, "-b", "-n")
    assert lines_of(run("consume", *kafka, *group, "1")) == [b"one"]
    assert lines_of(run("consume", *kafka, *group, "2")) == [b"two", b"three"]


def test_topics_come_and_go(shores: Shores, unique: str) -> None:
    kafka = ("--kafka", text_of(shores.kafka))
    lines_of(run("topics", "create", *kafka, "-p", "3", "-c", "retention.ms=9000000", unique))
    lines_of(run("produce", *kafka, "-t", unique, "-p", "2", "-m", "x"))
    (found,) = lines_of(run("topics", "describe", *kafka, "--json", unique))
    described = json.loads(found)
    assert described["configs"] == {"retention.ms": "9000000"}
    assert [each["end_offset"] for each in described["partitions"]] == [0, 0, 1]
    for arguments in (("topics", "list"), ("topics",)):
        rows = [json.loads(line) for line in lines_of(run(*arguments, *kafka, "--json"))]
        (row,) = [row for row in rows if row["log_topic"] == unique]
        assert (row["partitions"], row["records"], row["retention_ms"]) == (3, 1, 9_000_000)
    lines_of(run("topics", "delete", *kafka, unique))
    gone = run("topics", "describe", *kafka, unique)
    assert gone.returncode == 1 and gone.stderr.count(b"\n") == 1


def test_what_is_published_is_received(shores: Shores, unique: str) -> None:
    mqtt = ("--mqtt", text_of(shores.mqtt))
    lines_of(run("pub", *mqtt, "-t", f"{unique}/a", "-q", "1", "-r", "-m", "kept"))
    properties = ("--property", "b=1", "--property", "b=2", "--content-type", "text/plain")
    filters = ("-t", f"{unique}/a", "-t", f"{unique}/+/c")
    command = isthmus_command("sub", *mqtt, *filters, "-q", "2", "-n", "3", "--json")
    watching = subprocess.Popen(command, stdout=subprocess.PIPE)
    with watching:
        assert watching.stdout is not None
        kept = json.loads(watching.stdout.readline())
        lines_of(run("pub", *mqtt, "-t", f"{unique}/b/c", *properties, stdin=b"one\n"))
        lines_of(run("pub", *mqtt, "-t", f"{unique}/a", "-q", "2", "--v311", "-m", "two"))
        one, two = (json.loads(line) for line in watching.stdout.read().splitlines())
    assert watching.returncode == 0
    assert (kept["payload"], kept["retain"], kept["qos"]) == ("kept", True, 1)
    assert one["payload"] == "one" and one["properties"]["ContentType"] == "text/plain"
    assert one["properties"]["UserProperty"] == [["b", "1"], ["b", "2"]]
    assert (two["payload"], two["qos"]) == ("two", 2)


def test_a_kept_session_gives_one_message_at_a_time(shores: Shores, unique: str) -> None:
    mqtt = ("--mqtt", text_of(shores.mqtt))
    session = ("-t", unique, "-q", "1", "-i", unique, "--session-expiry", "3600")
    first = subprocess.Popen(isthmus_command("sub", *mqtt, *session, "-n", "1"), stdout=-1)
    with first:
        assert first.stdout is not None
        deadline = time.monotonic() + TIMEOUT_S
        while first.poll() is None and time.monotonic() < deadline:
            lines_of(run("pub", *mqtt, "-t", unique, "-q", "1", "-m", "zero"))
    lines_of(run("pub", *mqtt, "-t", unique, "-q", "1", "-m", "one", "-m", "two"))
    rest = []
    while not rest or rest[-1] != b"two":
        rest += lines_of(run("sub", *mqtt, *session, "-n", "1"))
    assert [line for line in rest if line != b"zero"] == [b"one", b"two"]


def test_nobody_there_is_one_sentence() -> None:
    nowhere = "127.0.0.1:1"
    for command in (
        ("pub", "--mqtt", nowhere, "-t", "a", "-m", "b"),
        ("sub", "--mqtt", nowhere, "-t", "a"),
        ("produce", "--kafka", nowhere, "-t", "a", "-m", "b"),
        ("consume", "--kafka", nowhere, "-t", "a"),
        ("topics", "list", "--kafka", nowhere),
    ):
        done = run(*command)
        assert done.returncode == 1 and not done.stdout
        assert done.stderr.startswith(b"Error: ") and done.stderr.count(b"\n") == 1


def test_ctrl_c_is_quiet(shores: Shores, unique: str) -> None:
    command = isthmus_command("sub", "--mqtt", text_of(shores.mqtt), "-t", unique, "-v")
    with subprocess.Popen(command, stdout=-1, stderr=-1) as watching:
        assert watching.stdout is not None and watching.stderr is not None
        lines_of(run("pub", "--mqtt", text_of(shores.mqtt), "-t", unique, "-r", "-m", "x"))
        assert watching.stdout.readline() == f"{unique} x\n".encode()
        watching.send_signal(signal.SIGINT)
        assert (watching.wait(TIMEOUT_S), watching.stderr.read()) == (130, b"")


def test_the_demo_shows_both_sides_and_cleans_up() -> None:
    done = run("demo", "--seconds", "2")
    assert done.returncode == 0, done.stderr.decode()
    ready, *middle, summary = done.stdout.decode().splitlines()
    assert ready.startswith("ready mqtt=127.0.0.1:")
    assert len(middle) == 2 and "MQTT published 120  Kafka consumed 120" in summary
    assert "commands 4  answers 4" in summary


def test_the_demo_on_a_server_that_runs(shores: Shores) -> None:
    where = f"mqtt={text_of(shores.mqtt)},kafka={text_of(shores.kafka)}"
    done = run("demo", "--seconds", "1", "--lines", "2", "--connect", where)
    assert "MQTT published 40  Kafka consumed 40" in done.stdout.decode(), done.stderr.decode()


def test_the_demo_stops_when_told() -> None:
    with subprocess.Popen(isthmus_command("demo"), stdout=-1, stderr=-1) as running:
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.readline().startswith(b"ready ")
        assert b" s  MQTT published" in running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        assert (running.wait(TIMEOUT_S), running.stderr.read()) == (0, b"")


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "isthmus", "version"], capture_output=True)
    assert done.stdout.startswith(b"isthmus ")
