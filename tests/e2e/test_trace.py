"""`isthmus trace`: packets of a server that runs, as somebody watches them."""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

from tests.e2e.kafka_libraries import confluent_producer
from tests.e2e.mqtt_programs import Message, paho_client, paho_publish, paho_subscribe
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.raw_mqtt import PUBACK, RawMqtt, publish
from tests.e2e.server_process import environment, isthmus_command, run_isthmus, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.server_process import ServerProcess


@contextmanager
def tracing(server: ServerProcess, *arguments: str) -> Iterator[list[dict[str, Any]]]:
    """Hold `isthmus trace`; its lines gather in the list that is given."""
    command = isthmus_command("trace", *arguments, "--json", "--http", text_of(server.http))
    lines: list[dict[str, Any]] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED="1")
    ) as process:
        assert process.stdout is not None
        stdout = process.stdout

        def read() -> None:
            lines.extend(json.loads(line) for line in stdout)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            wait_until(lambda: traces_of(server) > 0, "the trace has begun")
            yield lines
        finally:
            process.terminate()
            thread.join(TIMEOUT_S)


def traces_of(server: ServerProcess) -> int:
    """Return how many traces the server has."""
    connection = HTTPConnection(*server.http, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/api/v1/traces")
        return len(json.loads(connection.getresponse().read())["items"])
    finally:
        connection.close()


def test_one_client_is_traced_from_its_connect_to_its_disconnect(
    own_server: ServerProcess, unique: str
) -> None:
    def with_password(client: Any) -> None:
        client.username_pw_set("ann", "very secret")

    with tracing(own_server, "--client", unique) as lines:
        with paho_client(own_server.mqtt, unique, prepare=with_password) as client:
            paho_subscribe(client, f"{unique}/#", 1)
            paho_publish(client, [Message(f"{unique}/t", b"hello", 1)])
        with paho_client(own_server.mqtt, f"{unique}-other") as other:
            paho_publish(other, [Message("elsewhere", b"hello", 1)])
        wait_until(lambda: any(line["packet"] == "DISCONNECT" for line in lines), "all packets")
    seen = [(line["direction"], line["packet"]) for line in lines]
    for expected in (
        ("in", "CONNECT"),
        ("out", "CONNACK"),
        ("in", "SUBSCRIBE"),
        ("out", "SUBACK"),
        ("in", "PUBLISH"),
        ("out", "PUBACK"),
        ("out", "PUBLISH"),
        ("in", "DISCONNECT"),
    ):
        assert expected in seen
    assert {line["client_id"] for line in lines} == {unique}
    text = json.dumps(lines)
    assert "secret" not in text and "hello" not in text
    wait_until(lambda: traces_of(own_server) == 0, "the trace has ended with its reader")


def test_what_comes_to_a_topic_name_otherwise_is_traced_as_well(
    own_server: ServerProcess, unique: str
) -> None:
    """A will, a delayed message and a record of a Kafka producer."""
    name = f"{unique}/t"
    with tracing(own_server, "--topic", f"{unique}/#", "--payload") as lines:
        dying = RawMqtt(own_server.mqtt)
        dying.open(unique, will=(name, b"bye", 1, False))
        dying.send(publish(f"$delayed/0/{name}", b"late", qos=1, packet_id=1))
        dying.expect(PUBACK)
        wait_until(lambda: len(lines) == 1, "the delayed message")
        dying.cut()
        wait_until(lambda: len(lines) == 2, "the will")
        producer = confluent_producer(own_server.kafka)
        producer.produce("mqtt", b"record", key=name)
        assert producer.flush(TIMEOUT_S) == 0
        wait_until(lambda: len(lines) == 3, "the record")
    assert [(line["packet"], line["payload"]) for line in lines] == [
        ("DELAYED", "late"),
        ("WILL", "bye"),
        ("RECORD", "record"),
    ]
    assert [line["client_id"] for line in lines] == ["", unique, ""]
    record = lines[2]
    assert (record["log_topic"], record["partition"], record["topic_name"]) == ("mqtt", 0, name)


def test_a_topic_filter_is_traced_with_payloads(own_server: ServerProcess, unique: str) -> None:
    with (
        paho_client(own_server.mqtt, f"{unique}-s") as subscriber,
        paho_client(own_server.mqtt, f"{unique}-p") as publisher,
    ):
        paho_subscribe(subscriber, f"{unique}/#")
        with tracing(own_server, "--topic", f"{unique}/+", "--payload") as lines:
            paho_publish(
                publisher, [Message(f"{unique}/a/b", b"no"), Message(f"{unique}/a", b"yes")]
            )
            wait_until(lambda: lines, "the message")
    (line,) = lines
    assert (line["client_id"], line["payload"]) == (f"{unique}-p", "yes")
    assert line["subscribers"] == [f"{unique}-s"]


def test_a_trace_ends_with_its_time_and_says_it_for_people(
    own_server: ServerProcess, unique: str
) -> None:
    done = run_isthmus(
        "trace", "--client", unique, "--for", "1s", "--http", text_of(own_server.http)
    )
    assert (done.returncode, done.stdout) == (0, "")
    done = run_isthmus("trace", "--client", "a", "--topic", "b")
    assert done.returncode == 2 and "one of --client, --address and --topic" in done.stderr
    done = run_isthmus("trace", "--topic", "a/#/b", "--http", text_of(own_server.http))
    assert done.returncode == 1 and "query filter" in done.stderr
