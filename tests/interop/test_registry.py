"""A schema registry keeps its schemas in a compacted log topic, and finds them after a crash.

Registries for Kafka have no other memory: they read the log topic from its beginning to its end
before they answer. Here two do, over the class that Connect has for it; the log topic is
compacted, the server killed, and a registry that starts anew has to know what the last one did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from tests.e2e.kafka_commands import java_command, run_to_end
from tests.e2e.kafka_libraries import confluent_consumer
from tests.e2e.patience import TIMEOUT_S, wait_until
from tests.e2e.server_process import text_of
from tests.interop.conftest import HERE
from tests.interop.log_topics import settings_of

if TYPE_CHECKING:
    from tests.e2e.server_process import Address, ServerProcess

NAME: Final = "_schemas"
SUBJECTS: Final = 60
TAKEN_BACK: Final = 7
MANY: Final = 3_000
"""Schemas of a kilobyte, so that there are segments to compact."""
MORE: Final = 50


def expected(end: int) -> list[str]:
    """Return which number each subject has after those below `end`."""
    known: dict[str, int] = {}
    for number in range(end):
        subject = f"subject-{number % SUBJECTS:02}"
        if number % TAKEN_BACK:
            known[subject] = number
        else:
            known.pop(subject, None)
    return [f"{subject} {number}" for subject, number in sorted(known.items())]


def register(server: Address, first: int, end: int) -> list[str]:
    """Run a registry that registers numbers, and return what it knows in the end."""
    command = [*java_command(str(HERE / "Registry.java")), text_of(server), NAME]
    return run_to_end([*command, str(first), str(end)]).decode().splitlines()


def count_in(server: Address) -> int:
    """Return how many records the log topic still holds."""
    reader = confluent_consumer(server, **{"enable.partition.eof": True})
    reader.assign([TopicPartition(NAME, 0, 0)])
    count = 0
    while True:
        message = reader.poll(TIMEOUT_S)
        assert message is not None, f"no end after {count} records"
        if message.error():
            reader.close()
            return count
        count += 1


@pytest.mark.usefixtures("jars")
def test_schemas_outlive_compaction_and_a_crash(server: ServerProcess) -> None:
    assert register(server.kafka, 0, MANY) == expected(MANY)
    admin = AdminClient({"bootstrap.servers": text_of(server.kafka)})
    assert settings_of(admin, NAME)["cleanup.policy"] == "compact"
    wait_until(lambda: count_in(server.kafka) < MANY // 2, "that the log topic is compacted")
    server.kill()
    server.start()
    assert register(server.kafka, MANY, MANY + MORE) == expected(MANY + MORE)
