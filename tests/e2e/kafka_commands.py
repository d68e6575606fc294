"""The Kafka clients that are programs by themselves: kcat, and Apache Kafka's console tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from tests.e2e.kafka_record import BYTES_MAX, CODECS, Record
from tests.e2e.mqtt_programs import CLIENTS
from tests.e2e.patience import TIMEOUT_S
from tests.e2e.server_process import Address, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CACHE: Final = Path(os.environ.get("ISTHMUS_CACHE", Path.home() / ".cache" / "isthmus"))
KAFKA_VERSION: Final = ElementTree.parse(CLIENTS / "pom.xml").findtext(".//{*}kafka.version")
JARS: Final = CACHE / f"kafka-{KAFKA_VERSION}"
SHORT_LIVED: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


# --- kcat -----------------------------------------------------------------------------------

PATIENT: Final = ("-m", str(round(TIMEOUT_S)))
"""kcat gives up after five seconds without metadata."""


class Kcat:
    """kcat, the command line program on librdkafka."""

    name = "kcat"
    codecs = CODECS
    text_only = False

    def missing(self) -> str:
        return "" if shutil.which("kcat") else "kcat not installed"

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        command = ["kcat", "-P", "-q", "-b", text_of(server), "-t", log_topic, "-z", codec]
        command += ["-X", f"message.max.bytes={BYTES_MAX}", "-X", "acks=all", *PATIENT]
        if len(records) > 100:
            lines = b"".join(one.key + b"\t" + one.value + b"\n" for one in records)  # type: ignore[operator]
            run_to_end([*command, "-K", "\\t"], lines)
            return
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "value")
            for record in records:
                assert record.value is not None
                headers = [f"{name}={value.decode()}" for name, value in record.headers]
                how = [part for header in headers for part in ("-H", header)]
                if record.value:
                    path.write_bytes(record.value)
                    how += ["-k", record.key.decode()] if record.key is not None else []
                    run_to_end([*command, *how, str(path)])
                else:  # kcat skips empty files, so an empty value goes as a line
                    run_to_end([*command, *how, "-K", "\\t"], (record.key or b"") + b"\t\n")

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        command = ["kcat", "-C", "-q", "-u", "-b", text_of(server), "-t", log_topic]
        command += ["-o", "beginning", "-c", str(count), "-f", "%K %S %h\\n%k%s"]
        command += ["-X", f"fetch.message.max.bytes={BYTES_MAX}", "-X", "fetch.wait.max.ms=50"]
        command += PATIENT
        output = run_to_end(command)
        records, position = [], 0
        while position < len(output):
            line_end = output.index(b"\n", position)
            key_size, value_size, headers = output[position:line_end].split(b" ", 2)
            position = line_end + 1
            key, position = slice_at(output, position, int(key_size))
            value, position = slice_at(output, position, int(value_size))
            pairs = (pair.split(b"=", 1) for pair in headers.split(b",") if pair)
            records.append(
                Record(key, value, tuple((name.decode(), content) for name, content in pairs))
            )
        return records


def slice_at(data: bytes, position: int, size: int) -> tuple[bytes | None, int]:
    """Return `size` bytes and where they end; a size of -1 is kcat's null."""
    if size < 0:
        return None, position
    return data[position : position + size], position + size


# --- the console tools of Apache Kafka -------------------------------------------------------


class JavaConsole:
    """kafka-console-producer and kafka-console-consumer, without their shell scripts."""

    name = "java-console"
    codecs = CODECS
    text_only = True

    record_end = b"\n=end of record=\n"
    null = b"=null="

    def missing(self) -> str:
        if not shutil.which("java"):
            return "Java not installed"
        if not JARS.is_dir():
            return f"no Kafka tools in {JARS}: .ci/run fetches them"
        return ""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        command = java_command("org.apache.kafka.tools.ConsoleProducer")
        command += ["--bootstrap-server", text_of(server), "--topic", log_topic]
        command += ["--compression-codec", codec]
        command += ["--command-property", f"max.request.size={BYTES_MAX}"]
        command += ["--reader-property", "parse.key=true"]
        headers = any(record.headers for record in records)
        command += ["--reader-property", f"parse.headers={str(headers).lower()}"]
        lines = []
        for record in records:
            pairs = b",".join(name.encode() + b":" + value for name, value in record.headers)
            assert record.key is not None
            assert record.value is not None
            lines.append(b"\t".join(([pairs] if headers else []) + [record.key, record.value]))
        run_to_end(command, b"\n".join(lines) + b"\n")

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        command = java_command("org.apache.kafka.tools.consumer.ConsoleConsumer")
        command += ["--bootstrap-server", text_of(server), "--topic", log_topic]
        command += ["--from-beginning", "--max-messages", str(count)]
        command += ["--command-property", f"max.partition.fetch.bytes={BYTES_MAX}"]
        for name in ("print.key=true", "print.headers=true", "print.value=true"):
            command += ["--formatter-property", name]
        command += ["--formatter-property", f"line.separator={self.record_end.decode()}"]
        command += ["--formatter-property", f"null.literal={self.null.decode()}"]
        output = run_to_end(command)
        return [self._parsed(one) for one in output.split(self.record_end)[:-1]]

    def _parsed(self, text: bytes) -> Record:
        headers, key, value = text.split(b"\t", 2)
        pairs = () if headers == b"NO_HEADERS" else headers.split(b",")
        named = (pair.split(b":", 1) for pair in pairs)
        return Record(
            None if key == self.null else key,
            None if value == self.null else value,
            tuple((name.decode(), content) for name, content in named),
        )


def java_command(main_class: str, *options: str) -> list[str]:
    """Return the command line that runs one class out of the Kafka jars, kept small."""
    quiet = f"-Dlog4j2.configurationFile={CLIENTS / 'log4j2.xml'}"
    return ["java", "-Xmx256M", *SHORT_LIVED, *options, quiet, "-cp", f"{JARS}/*", main_class]


def run_to_end(command: Sequence[str], stdin: bytes = b"") -> bytes:
    """Run a client program to its end and return its output; fail with what it said."""
    ended = subprocess.run(
        command, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode == 0, (
        f"{command[:2]} ended with {ended.returncode}: {ended.stderr!r}"
    )
    return ended.stdout


def sections(output: str) -> dict[str, list[list[str]]]:
    """Return the words of each line that the tools have printed, by what they were asked."""
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for line in output.splitlines():
        if line.startswith("== "):
            rows = found[line[3:]] = []
        elif line.strip():
            rows.append(line.split())
    return found
