"""Kafka clients in other languages, each told what to do by a page of code in `clients/`.

    produce LOG_TOPIC CODEC     takes records, as JSON, a line each
    consume LOG_TOPIC COUNT     gives them

Keys, values and the values of headers are base64, or null.
"""

from __future__ import annotations

import base64
import json
import shutil
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from tests.e2e.kafka_commands import run_to_end
from tests.e2e.kafka_record import CODECS, Record
from tests.e2e.mqtt_programs import CLIENTS, node_missing
from tests.e2e.mqtt_scripted import BUILT
from tests.e2e.server_process import Address, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Scripted(ABC):
    """A client that speaks so, whatever it is written in."""

    name: str
    codecs: tuple[str, ...] = CODECS
    text_only = False

    @abstractmethod
    def command(self, server: Address, *asked: str) -> list[str]:
        """Return the command line that asks the client to do something."""

    @abstractmethod
    def missing(self) -> str:
        """Return why the client cannot run here, or the empty string."""

    def produce(
        self, server: Address, log_topic: str, records: Sequence[Record], codec: str = "none"
    ) -> None:
        lines = "".join(json.dumps(form_of(record)) + "\n" for record in records)
        run_to_end(self.command(server, "produce", log_topic, codec), lines.encode())

    def consume(self, server: Address, log_topic: str, count: int) -> list[Record]:
        output = run_to_end(self.command(server, "consume", log_topic, str(count)))
        return [record_in(json.loads(line)) for line in output.splitlines()]


class KafkaJs(Scripted):
    """kafkajs on Node.js."""

    name = "kafkajs"
    codecs = ("gzip",)

    def command(self, server: Address, *asked: str) -> list[str]:
        return ["node", str(CLIENTS / "kafka_client.js"), text_of(server), *asked]

    def missing(self) -> str:
        return node_missing("kafkajs")


BUILT_PROGRAMS: Final = {
    "franz-go": ("kafka-go", "franz-go"),
    "sarama": ("kafka-go", "sarama"),
    "krafka": ("kafka-rust",),
}
"""Libraries of compiled languages: the program that `.ci/run` builds, and its first words."""


class Built(Scripted):
    """One of these libraries."""

    def __init__(self, name: str) -> None:
        self.name = name
        program, *self._words = BUILT_PROGRAMS[name]
        self._program = str(BUILT / program)

    def command(self, server: Address, *asked: str) -> list[str]:
        return [self._program, *self._words, text_of(server), *asked]

    def missing(self) -> str:
        program = self._program
        return "" if shutil.which(program) else f"{program} not built: .ci/run does"


def form_of(record: Record) -> dict[str, Any]:
    """Return a record as these clients take it."""
    return {
        "key": encoded(record.key),
        "value": encoded(record.value),
        "headers": [[name, encoded(value)] for name, value in record.headers],
    }


def record_in(form: dict[str, Any]) -> Record:
    """Return a record that one of these clients gave."""
    pairs = ((name, decoded(value) or b"") for name, value in form["headers"] or ())
    return Record(decoded(form["key"]), decoded(form["value"]), tuple(pairs))


def encoded(data: bytes | None) -> str | None:
    """Return bytes as base64; null stays null."""
    return None if data is None else base64.b64encode(data).decode()


def decoded(text: str | None) -> bytes | None:
    """Return bytes from base64; null stays null."""
    return None if text is None else base64.b64decode(text)
