"""The Kafka clients that the server is tried with, behind one shape.

Each program produces a list of records with acks=all and returns when all are acknowledged, and
reads a log topic from its first record on. Nobody here wrote these clients. Not here: groups,
administration and faults, which use one library directly.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from tests.e2e.kafka_commands import JavaConsole, Kcat
from tests.e2e.kafka_libraries import AioKafka, ConfluentKafka, KafkaPython
from tests.e2e.kafka_scripted import BUILT_PROGRAMS, Built, KafkaJs

if TYPE_CHECKING:
    from tests.e2e.kafka_record import KafkaProgram

KAFKA_PROGRAMS: Final[tuple[KafkaProgram, ...]] = (
    ConfluentKafka(),
    AioKafka(),
    KafkaPython(),
    Kcat(),
    KafkaJs(),
    JavaConsole(),
)
ALL_PROGRAMS: Final[tuple[KafkaProgram, ...]] = (
    *KAFKA_PROGRAMS,
    *map(Built, BUILT_PROGRAMS),
)
"""Where a test is not too dear to be made with every one."""


def payloads_for(program: KafkaProgram, *, reading: bool = False) -> list[bytes]:
    """Return payloads of 0 B, 1 B, 1 MiB and binary, as far as the program can express them."""
    if program.text_only and not reading:
        return [b"", b"x", b"0123456789abcdef" * (1 << 16)]
    return [b"", b"\x00", random.Random(1).randbytes(1 << 20), bytes(range(256))]
