"""Kafka Connect, distributed: a file goes into a log topic and comes out into another file.

Two workers form a group of their own protocol and keep all that they know in three compacted
log topics. One is killed and the other takes over; then the server is killed. The source writes
in transactions (`exactly.once.source.support`), so each line is in the log topic once; the sink
may repeat what it had not yet committed, and loses nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.e2e.apache_kafka import free_port
from tests.e2e.kafka_commands import java_command
from tests.e2e.kafka_libraries import confluent_consumer, poll_records
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import text_of
from tests.interop.log_topics import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.server_process import Address, ServerProcess
    from tests.interop.programs import Program

LINES_AT_ONCE: Final = 100
PROPERTIES: Final = """\
bootstrap.servers={server}
listeners=http://127.0.0.1:{port}
group.id=workers
config.storage.topic=connect-configs
offset.storage.topic=connect-offsets
offset.storage.partitions=5
status.storage.topic=connect-status
offset.flush.interval.ms=500
exactly.once.source.support=enabled
session.timeout.ms=6000
heartbeat.interval.ms=1000
scheduled.rebalance.max.delay.ms=1000
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
plugin.discovery=service_load
"""
SOURCE: Final = {
    "connector.class": "FileStreamSource",
    "topic": "lines",
    "topic.creation.default.partitions": "1",
    "topic.creation.default.replication.factor": "3",
}
SINK: Final = {"connector.class": "FileStreamSink", "topics": "lines"}


class Worker:
    """One worker, and what it is asked over HTTP."""

    def __init__(
        self, start: Callable[..., Program], directory: Path, server: Address, name: str
    ) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self.id = f"127.0.0.1:{port}"
        self._refusal = ""
        path = directory / f"{name}.properties"
        path.write_text(PROPERTIES.format(server=text_of(server), port=port))
        command = java_command("org.apache.kafka.connect.cli.ConnectDistributed")
        self.program = start(name, *command, str(path))
        wait_until(lambda: self._says("GET", "/health"), f"that {name} is healthy")

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what the workers answer, once they are not busy with one another."""
        answers: list[Any] = []

        def is_answered() -> bool:
            assert self.program.is_running(), self.program.lines()[-20:]
            if answer := self._says(method, path, body):
                answers.append(answer[0])
            return bool(answers)

        wait_until(is_answered, lambda: f"that {method} {path} is answered ({self._refusal})")
        return answers[0]

    def _says(self, method: str, path: str, body: object = None) -> tuple[Any] | None:
        """Return the answer, or nothing while there is none, or one of a rebalance."""
        data = None if body is None else json.dumps(body).encode()
        about = {"Content-Type": "application/json"}
        request = Request(self._url + path, data, about, method=method)
        try:
            with urlopen(request, timeout=TIMEOUT_S) as answer:
                said = answer.read()
        except OSError as refused:
            is_answer = isinstance(refused, HTTPError)
            self._refusal = refused.read().decode() if is_answer else str(refused)
            return None
        return (json.loads(said) if said else None,)

    def runs(self, connector: str) -> set[str]:
        """Return which workers run a connector's task, if it is running."""
        status = self.ask("GET", f"/connectors/{connector}/status")
        parts = [status["connector"], *status["tasks"]]
        is_running = len(parts) > 1 and all(part["state"] == "RUNNING" for part in parts)
        return {task["worker_id"] for task in status["tasks"]} if is_running else set()

    def stop(self, connector: str) -> None:
        """Stop a connector and wait until its task is gone."""
        self.ask("PUT", f"/connectors/{connector}/stop")
        path = f"/connectors/{connector}/status"

        def has_stopped() -> bool:
            status = self.ask("GET", path)
            return status["connector"]["state"] == "STOPPED" and not status["tasks"]

        wait_until(has_stopped, f"that {connector} stops")


class Files:
    """The file that is read and the file that is written."""

    def __init__(self, directory: Path) -> None:
        self.read, self.written = directory / "read.txt", directory / "written.txt"
        self.lines: list[str] = []

    def goes_on(self) -> None:
        """Append lines and wait until they have come through."""
        count = len(self.lines)
        self.lines += [f"line {number}" for number in range(count, count + LINES_AT_ONCE)]
        with self.read.open("a") as file:
            file.writelines(f"{line}\n" for line in self.lines[count:])
        wait_until(self._are_through, f"that lines from {count} on come through")

    def _are_through(self) -> bool:
        came = self.written.read_text().splitlines() if self.written.exists() else []
        return set(self.lines) <= set(came)


@pytest.mark.usefixtures("jars")
def test_a_file_goes_through_the_log(
    server: ServerProcess, programs: Callable[..., Program], tmp_path: Path
) -> None:
    files = Files(tmp_path)
    first = Worker(programs, tmp_path, server.kafka, "first")
    source = {**SOURCE, "file": str(files.read)}
    first.ask("PUT", "/connectors/source/config", source)
    first.ask("PUT", "/connectors/sink/config", {**SINK, "file": str(files.written)})
    files.goes_on()
    second = Worker(programs, tmp_path, server.kafka, "second")
    shared = {first.id, second.id}
    wait_until(
        lambda: second.runs("source") | second.runs("sink") == shared,
        "that the second worker takes one of the tasks",
    )
    files.goes_on()
    first.program.kill()
    wait_until(
        lambda: second.runs("source") == second.runs("sink") == {second.id},
        "that the second worker takes over",
    )
    files.goes_on()
    server.kill()
    server.start()
    files.goes_on()

    reader = confluent_consumer(server.kafka, **{"isolation.level": "read_committed"})
    reader.assign([TopicPartition("lines", 0, 0)])
    messages = poll_records(reader, len(files.lines))
    assert [message.value().decode() for message in messages] == files.lines
    end = messages[-1].offset() + 1
    rest = reader.consume(1, 1.0)
    reader.close()
    assert not rest, f"{rest[0].value()!r} is one too many"
    check_what_is_kept(server.kafka, end)
    check_offsets(second, str(files.read), end)


def check_what_is_kept(server: Address, end: int) -> None:
    """Check the workers' own log topics, and that the sink's progress is a group's."""
    admin = AdminClient({"bootstrap.servers": text_of(server)})
    for name in ("connect-configs", "connect-offsets", "connect-status"):
        assert settings_of(admin, name)["cleanup.policy"] == "compact"
    asked = [ConsumerGroupTopicPartitions("connect-sink")]

    def has_committed() -> bool:
        [listed] = admin.list_consumer_group_offsets(asked).values()
        return [one.offset for one in listed.result(TIMEOUT_S).topic_partitions] == [end]

    wait_until(has_committed, f"that the sink commits {end}")


def check_offsets(worker: Worker, file: str, end: int) -> None:
    """Check that progress can be seen, altered and reset, the sink's and the source's."""
    place = {"kafka_topic": "lines", "kafka_partition": 0}
    path = "/connectors/sink/offsets"
    at_end = {"offsets": [{"partition": place, "offset": {"kafka_offset": end}}]}
    assert worker.ask("GET", path) == at_end
    worker.stop("sink")
    back = {"offsets": [{"partition": place, "offset": {"kafka_offset": 3}}]}
    worker.ask("PATCH", path, back)
    assert worker.ask("GET", path) == back
    worker.ask("DELETE", path)
    assert worker.ask("GET", path) == {"offsets": []}
    [known] = worker.ask("GET", "/connectors/source/offsets")["offsets"]
    assert known["partition"] == {"filename": file}
    worker.stop("source")
    worker.ask("DELETE", "/connectors/source/offsets")
    assert worker.ask("GET", "/connectors/source/offsets") == {"offsets": []}
