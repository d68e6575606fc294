"""The Kafka clients that the server is tried with, behind one shape.

Each program produces a list of records with acks=all and returns when all are acknowledged, and
reads a log topic from its first record on. Nobody here wrote these clients: confluent-kafka,
aiokafka, kafka-python, kcat, kafkajs and the console tools of Apache Kafka. Not here: groups,
administration and faults, which use one client directly.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

import aiokafka
import aiokafka.codec
import confluent_kafka
import kafka
import kafka.codec
from tests.e2e.mqtt_programs import CLIENTS, TIMEOUT_S, node_missing
from tests.e2e.server_process import Address, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

CODECS: Final = ("gzip", "snappy", "lz4", "zstd")
BYTES_MAX: Final = 16 << 20
KAFKA_VERSION: Final = "4.3.1"
JARS: Final = (
    Path(os.environ.get("ISTHMUS_CACHE", Path.home() / ".cache" / "isthmus"))
    / f"kafka-{KAFKA_VERSION}"
)

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Record:
    """One record, as it is produced or as it is read."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class KafkaProgram(Protocol):
    """A client program: how to produce and consume with it, and what it can express."""

    name: str
    codecs: tuple[str, ...]
    """What it can compress and decompress."""
    text_only: bool
    """Whether what it produces has to be lines of text."""

    def missing(self) -> str:
        """Return why the program cannot run here, or the empty string."""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        """Produce in order and return when everything is acknowledged."""

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        """Return the first `count` records of a log topic, in order per partition."""


# --- confluent-kafka ------------------------------------------------------------------------


def confluent_producer(server: Address, **settings: Any) -> confluent_kafka.Producer:
    """Return a producer of librdkafka that waits for all acknowledgements."""
    return confluent_kafka.Producer(
        {
            "bootstrap.servers": text_of(server),
            "acks": "all",
            "message.max.bytes": BYTES_MAX,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            **settings,
        }
    )


def confluent_consumer(server: Address, **settings: Any) -> confluent_kafka.Consumer:
    """Return a consumer of librdkafka that reads from the beginning and commits nothing."""
    return confluent_kafka.Consumer(
        {
            "bootstrap.servers": text_of(server),
            "group.id": f"confluent-{uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": BYTES_MAX,
            "fetch.wait.max.ms": 50,
            "topic.metadata.refresh.interval.ms": 500,
            **settings,
        }
    )


def record_of(message: confluent_kafka.Message) -> Record:
    """Return a message of librdkafka in our form."""
    assert message.error() is None, message.error()
    return Record(message.key(), message.value(), tuple(message.headers() or ()))


def poll_records(
    consumer: confluent_kafka.Consumer, count: int, timeout_s: float = TIMEOUT_S
) -> list[confluent_kafka.Message]:
    """Poll until `count` messages have come, or fail saying how many did."""
    messages: list[confluent_kafka.Message] = []
    end = time.monotonic() + timeout_s
    while len(messages) < count and time.monotonic() < end:
        for message in consumer.consume(min(count - len(messages), 10_000), 0.1):
            error = message.error()
            if error is None:
                messages.append(message)
            else:
                assert error.retriable() or error.code() == UNKNOWN_TOPIC, error
    assert len(messages) >= count, f"{len(messages)} of {count} records after {timeout_s} s"
    return messages


UNKNOWN_TOPIC: Final = confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART


class ConfluentKafka:
    """confluent-kafka: librdkafka, idempotent."""

    name = "confluent-kafka"
    codecs = CODECS
    text_only = False

    def missing(self) -> str:
        return ""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        failures: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                failures.append(error)

        producer = confluent_producer(
            server, **{"compression.type": codec, "enable.idempotence": True}
        )
        for record in records:
            producer.produce(
                log_topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                on_delivery=delivered,
            )
        assert producer.flush(TIMEOUT_S) == 0, "not everything is acknowledged"
        assert not failures, failures[:3]

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        consumer = confluent_consumer(server)
        try:
            consumer.subscribe([log_topic])
            return [record_of(message) for message in poll_records(consumer, count)]
        finally:
            consumer.close()


# --- aiokafka -------------------------------------------------------------------------------


class AioKafka:
    """aiokafka, on an event loop of its own."""

    name = "aiokafka"
    codecs = tuple(codec for codec in CODECS if getattr(aiokafka.codec, f"has_{codec}")())
    text_only = False

    def missing(self) -> str:
        return ""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        async def run() -> None:
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=text_of(server),
                acks="all",
                enable_idempotence=True,
                max_request_size=BYTES_MAX,
                compression_type=None if codec == "none" else codec,
            )
            await producer.start()
            try:
                sent = [
                    await producer.send(
                        log_topic, record.value, key=record.key, headers=list(record.headers)
                    )
                    for record in records
                ]
                await asyncio.wait_for(asyncio.gather(*sent), TIMEOUT_S)
            finally:
                await producer.stop()

        asyncio.run(run())

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        async def run() -> list[Record]:
            consumer = aiokafka.AIOKafkaConsumer(
                log_topic,
                bootstrap_servers=text_of(server),
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=BYTES_MAX,
                fetch_max_wait_ms=50,
            )
            await consumer.start()
            try:
                records = []
                while len(records) < count:
                    batches = await consumer.getmany(timeout_ms=200)
                    records += [record for batch in batches.values() for record in batch]
                return [
                    Record(record.key, record.value, tuple(record.headers))
                    for record in records
                ]
            finally:
                await consumer.stop()

        return asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))


# --- kafka-python ---------------------------------------------------------------------------


class KafkaPython:
    """kafka-python."""

    name = "kafka-python"
    codecs = tuple(codec for codec in CODECS if getattr(kafka.codec, f"has_{codec}")())
    text_only = False

    def missing(self) -> str:
        return ""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        producer = kafka.KafkaProducer(
            bootstrap_servers=text_of(server),
            acks="all",
            max_request_size=BYTES_MAX,
            linger_ms=5,
            compression_type=None if codec == "none" else codec,
        )
        try:
            sent = [
                producer.send(log_topic, record.value, record.key, list(record.headers))
                for record in records
            ]
            producer.flush(TIMEOUT_S)
            for future in sent:
                future.get(TIMEOUT_S)
        finally:
            producer.close()

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        consumer = kafka.KafkaConsumer(
            log_topic,
            bootstrap_servers=text_of(server),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=BYTES_MAX,
            fetch_max_wait_ms=50,
            max_poll_records=10_000,
        )
        try:
            records: list[Record] = []
            end = time.monotonic() + TIMEOUT_S
            while len(records) < count:
                assert time.monotonic() < end, f"{len(records)} of {count} records"
                for batch in consumer.poll(200).values():
                    records += [
                        Record(record.key, record.value, tuple(record.headers))
                        for record in batch
                    ]
            return records
        finally:
            consumer.close()


# --- kcat -----------------------------------------------------------------------------------


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
        command += ["-X", f"message.max.bytes={BYTES_MAX}", "-X", "acks=all"]
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


# --- kafkajs --------------------------------------------------------------------------------


class KafkaJs:
    """kafkajs on Node.js, driven by `clients/kafka_client.js` (lines of JSON both ways)."""

    name = "kafkajs"
    codecs = ("gzip",)
    text_only = False

    def missing(self) -> str:
        return node_missing("kafkajs")

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        lines = "".join(
            json.dumps(
                {
                    "key": encoded(record.key),
                    "value": encoded(record.value),
                    "headers": [[name, encoded(value)] for name, value in record.headers],
                }
            )
            + "\n"
            for record in records
        )
        script = str(CLIENTS / "kafka_client.js")
        run_to_end(
            ["node", script, text_of(server), "produce", log_topic, codec], lines.encode()
        )

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        script = str(CLIENTS / "kafka_client.js")
        command = ["node", script, text_of(server), "consume", log_topic, str(count)]
        return [
            Record(
                decoded(one["key"]),
                decoded(one["value"]),
                tuple((name, decoded(value) or b"") for name, value in one["headers"]),
            )
            for one in map(json.loads, run_to_end(command).splitlines())
        ]


def encoded(data: bytes | None) -> str | None:
    """Return bytes as base64; null stays null."""
    return None if data is None else base64.b64encode(data).decode()


def decoded(text: str | None) -> bytes | None:
    """Return bytes from base64; null stays null."""
    return None if text is None else base64.b64decode(text)


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


SHORT_LIVED: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


def run_to_end(command: Sequence[str], stdin: bytes = b"") -> bytes:
    """Run a client program to its end and return its output; fail with what it said."""
    ended = subprocess.run(
        command, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode == 0, (
        f"{command[:2]} ended with {ended.returncode}: {ended.stderr!r}"
    )
    return ended.stdout


KAFKA_PROGRAMS: Final[tuple[KafkaProgram, ...]] = (
    ConfluentKafka(),
    AioKafka(),
    KafkaPython(),
    Kcat(),
    KafkaJs(),
    JavaConsole(),
)
