"""A record, and what a Kafka client program has to offer to be tried here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.server_process import Address

CODECS: Final = ("gzip", "snappy", "lz4", "zstd")
BYTES_MAX: Final = 16 << 20
"""What the clients are told to send and fetch at most: 1 MiB has to fit well."""

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
