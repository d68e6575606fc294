"""What operators watch Kafka clusters with shows how far groups are behind: kafkatop."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from confluent_kafka import TopicPartition
from tests.e2e.kafka_commands import run_to_end
from tests.e2e.kafka_libraries import (
    ConfluentKafka,
    confluent_consumer,
    create_topic,
    poll_records,
)
from tests.e2e.kafka_record import Record
from tests.e2e.server_process import text_of

if TYPE_CHECKING:
    from tests.e2e.conftest import Shores

COUNT = 30


def test_groups_and_their_lag(shores: Shores, unique: str) -> None:
    """One group of each protocol with a member, and one that nobody is in."""
    create_topic(shores.kafka, unique)
    sent = [Record(b"key", b"%d" % number) for number in range(COUNT)]
    ConfluentKafka().produce(shores.kafka, unique, sent)
    with contextlib.ExitStack() as leaving:
        for protocol, read in (("classic", 10), ("consumer", 25)):
            about = {"group.id": f"{unique}-{protocol}", "group.protocol": protocol}
            member = confluent_consumer(shores.kafka, **about)
            leaving.callback(member.close)
            member.subscribe([unique])
            last = poll_records(member, read)[-1]
            member.commit(message=last, asynchronous=False)
        left = confluent_consumer(shores.kafka, **{"group.id": f"{unique}-left"})
        left.commit(offsets=[TopicPartition(unique, 0, 3)], asynchronous=False)
        left.close()
        assert shown(shores, unique) == {
            f"{unique}-classic": ("STABLE", 20),
            f"{unique}-consumer": ("STABLE", 5),
            f"{unique}-left": ("EMPTY", 27),
        }


def shown(shores: Shores, name: str) -> dict[str, Any]:
    """Return of each group whose name begins so its state and its lag."""
    command = [sys.executable, "-m", "kafkatop", "--kafka-broker", text_of(shores.kafka)]
    command += ["--all", "--group-filter-pattern", name, "--summary-json"]
    return {
        group: (row["state"].rpartition(".")[2], row["topics"][name]["lag_max"])
        for group, row in json.loads(run_to_end(command)).items()
    }
